//! `xlt status`: what is done, what is running and how far, what waits; from another terminal, reading only.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::{DONE, exit, planned};
use crate::execution::progress::duration_of;
use crate::fingerprint::Fingerprint;
use crate::plan::Plan;
use crate::spec;
use crate::store::{Store, Unfinished};

#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// A study file; without one, whatever is unfinished in the store
    pub study: Option<PathBuf>,
    /// The size of the study; the first profile of the file when absent
    #[arg(long)]
    pub profile: Option<String>,
    /// Folder of finished and unfinished artifacts
    #[arg(long, env = "XLT_STORE", default_value = ".xlt")]
    pub store: PathBuf,
    /// Where relative paths of data start
    #[arg(long, env = "XLT_DATA")]
    pub data: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Finished,
    Diverged,
    Running(Unfinished),
    /// Can go on from a checkpoint.
    Interrupted(Unfinished),
    Waiting,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    pub fingerprint: Fingerprint,
    pub stage: String,
    pub label: String,
    pub state: State,
}

/// The jobs of a plan, or, without one, whatever is unfinished in the store.
pub fn lines(store: &Store, plan: Option<&Plan>) -> Result<Vec<Line>> {
    let mut unfinished: BTreeMap<Fingerprint, Unfinished> = store
        .unfinished()?
        .into_iter()
        .map(|job| (job.fingerprint.clone(), job))
        .collect();
    let Some(plan) = plan else {
        return Ok(unfinished.into_values().map(line).collect());
    };
    let mut lines = Vec::new();
    for job in &plan.jobs {
        let state = match (
            store.find(&job.fingerprint)?,
            unfinished.remove(&job.fingerprint),
        ) {
            (Some(artifact), _) if artifact.record.diverged() => State::Diverged,
            (Some(_), _) => State::Finished,
            (None, Some(job)) => line(job).state,
            (None, None) => State::Waiting,
        };
        let (fingerprint, stage, label) = (
            job.fingerprint.clone(),
            job.stage.clone(),
            job.label.clone(),
        );
        lines.push(Line {
            fingerprint,
            stage,
            label,
            state,
        });
    }
    Ok(lines)
}

fn line(job: Unfinished) -> Line {
    let (fingerprint, stage, label) = (
        job.fingerprint.clone(),
        job.status.stage.clone(),
        job.status.label.clone(),
    );
    let state = if job.running {
        State::Running(job)
    } else {
        State::Interrupted(job)
    };
    Line {
        fingerprint,
        stage,
        label,
        state,
    }
}

pub fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<ExitCode> {
    let plan = match &arguments.study {
        Some(file) => {
            let study = spec::read(file, arguments.profile.as_deref())?;
            let (data, store) = (arguments.data.as_deref(), &arguments.store);
            Some(planned(&study, data, store)?)
        }
        None => None,
    };
    let store = Store::open(&arguments.store)?;
    print(&store, plan.as_ref(), arguments.json, out)
}

/// Prints the [`lines`] of a store.
pub fn print(
    store: &Store,
    plan: Option<&Plan>,
    json: bool,
    out: &mut dyn Write,
) -> Result<ExitCode> {
    let lines = lines(store, plan)?;
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&lines)?)?;
        return Ok(exit(DONE));
    }
    for line in &lines {
        writeln!(
            out,
            "{:<11} {} {}",
            name(&line.state),
            line.fingerprint.short(),
            text(line)
        )?;
    }
    if plan.is_some() {
        let done = lines
            .iter()
            .filter(|line| matches!(line.state, State::Finished | State::Diverged))
            .count();
        writeln!(out, "{done} of {} jobs done", lines.len())?;
    } else if lines.is_empty() {
        writeln!(
            out,
            "nothing is running or interrupted in the store at {}",
            store.root().display()
        )?;
    }
    Ok(exit(DONE))
}

fn name(state: &State) -> &'static str {
    match state {
        State::Finished => "finished",
        State::Diverged => "diverged",
        State::Running(_) => "running",
        State::Interrupted(_) => "interrupted",
        State::Waiting => "waiting",
    }
}

fn text(line: &Line) -> String {
    let (State::Running(job) | State::Interrupted(job)) = &line.state else {
        return line.label.clone();
    };
    let status = &job.status;
    let mut text = line.label.clone();
    if status.total > 0 {
        let percent = 100 * u128::from(status.done.min(status.total)) / u128::from(status.total);
        text += &format!(
            ": {} of {} {} ({percent} %)",
            status.done, status.total, status.unit
        );
    }
    if !status.note.is_empty() {
        text += &format!(", {}", status.note);
    }
    text += &format!(", {} so far", duration_of(status.seconds));
    if job.running {
        text += &format!("; {}", job.holder);
    }
    text
}
