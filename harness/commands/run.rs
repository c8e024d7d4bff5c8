//! `xlt run`: does what a study asks for and is not done yet, then writes its results.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use sysinfo::System;

use super::plan::bytes;
use super::report::rendered;
use super::{DONE, FAILED, INTERRUPTED, StudyArguments, command_line, exit};
use crate::execution::{self, Options, progress};
use crate::kernels::DeviceChoice;
use crate::plan::Plan;
use crate::report;
use crate::report::collect::collect;
use crate::spec::Study;
use crate::stages;
use crate::store::Store;

#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pub study: StudyArguments,
    #[command(flatten)]
    pub machine: MachineArguments,
    /// Independent jobs to run side by side; each gets an equal share of the threads
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// Seconds between two checkpoints of a long job
    #[arg(long, default_value_t = 60.0)]
    pub checkpoint_seconds: f64,
    /// Go on from checkpoints made on another kind of machine; recorded with the artifact
    #[arg(long)]
    pub resume_anywhere: bool,
}

/// Where to compute. Threads change no bit; another kind of device changes last digits.
#[derive(Debug, Clone, clap::Args)]
pub struct MachineArguments {
    /// Where models run: `auto` (a card if there is one), `cpu`, `cuda`, or cards by number as in `cuda:0,1`
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    /// Threads in all; RAYON_NUM_THREADS or every core when absent
    #[arg(long)]
    pub threads: Option<usize>,
}

impl MachineArguments {
    /// Threads to use: asked for, or RAYON_NUM_THREADS, or every core.
    pub fn threads(&self) -> Result<usize> {
        let from_environment = || {
            std::env::var("RAYON_NUM_THREADS")
                .ok()
                .and_then(|number| number.parse().ok())
                .filter(|number| *number > 0)
        };
        let cores = || std::thread::available_parallelism().map_or(1, |number| number.get());
        match self.threads {
            Some(0) => bail!("--threads 0 computes nothing; name at least 1"),
            Some(threads) => Ok(threads),
            None => Ok(from_environment().unwrap_or_else(cores)),
        }
    }
}

pub fn run(arguments: &Arguments, output: &mut dyn Write) -> Result<ExitCode> {
    let Arguments {
        jobs,
        checkpoint_seconds,
        resume_anywhere,
        ..
    } = arguments;
    let device = &arguments.machine.device;
    let turn = AtomicUsize::new(0);
    if *jobs == 0 {
        bail!("--jobs 0 runs nothing; name at least 1");
    }
    let Ok(checkpoint_interval) = Duration::try_from_secs_f64(*checkpoint_seconds) else {
        bail!("--checkpoint-seconds {checkpoint_seconds} is no time; name a number of seconds");
    };
    let threads = arguments.machine.threads()?;
    let study = arguments.study.read()?;
    let plan = arguments.study.plan(&study)?;
    let store = arguments.study.open_store()?;
    if !device.may_be_a_card() {
        ensure_memory(&plan, &store)?;
    }
    let stop = execution::stop_on_interrupt()?;
    let reporter = progress::stderr();
    let options = Options {
        jobs: *jobs,
        threads,
        device: &|threads| device.open_in_turn(threads, turn.fetch_add(1, Ordering::Relaxed)),
        checkpoint_interval,
        resume_anywhere: *resume_anywhere,
        targets: None,
    };
    let outcome = execution::run(
        &plan,
        &store,
        &options,
        &|job, context| stages::run(&job.stage, &job.settings, context),
        reporter.as_ref(),
        stop,
    )?;
    drop(reporter);

    if !outcome.interrupted.is_empty() {
        eprintln!(
            "interrupted; everything done so far is kept. Go on with `{}`",
            command_line("run", &arguments.study, &study)
        );
        return Ok(exit(INTERRUPTED));
    }
    let folder = arguments.study.folder(&study);
    let failed = !outcome.failed.is_empty();
    let changed =
        !outcome.finished.is_empty() || !folder.join(crate::report::results::MANIFEST).exists();
    let results = if changed || failed {
        collect(&study, &plan, &store, threads)?
    } else {
        refreshed(&study, &plan, &store, threads, &folder)?
    };
    let evaluated = !results.predictions.is_empty()
        || !results.translations.is_empty()
        || !results.measurements.is_empty();
    let judgements = if failed && !evaluated {
        eprintln!(
            "no evaluation finished; the results in {} stay as they are",
            folder.display()
        );
        Vec::new()
    } else {
        results.write_sources(&folder)?;
        let (files, judgements) = rendered(&study, &results)?;
        report::write(&folder, &files)?;
        judgements
    };
    if arguments.study.json {
        let claims: Vec<_> = judgements
            .iter()
            .map(|judgement| json!({"says": judgement.says, "verdict": judgement.wording}))
            .collect();
        let failures: Vec<_> = outcome
            .failed
            .iter()
            .map(
                |(job, error)| json!({"job": plan.jobs[*job].label, "error": format!("{error:#}")}),
            )
            .collect();
        let summary = json!({
            "folder": folder,
            "jobs_finished": outcome.finished.len(),
            "jobs_reused": outcome.reused.len(),
            "jobs_diverged": outcome.diverged.len(),
            "jobs_failed": failures,
            "jobs_skipped": outcome.skipped.len(),
            "claims": claims,
        });
        writeln!(output, "{summary}")?;
    } else {
        for judgement in &judgements {
            writeln!(output, "{}: {}", judgement.says, judgement.wording)?;
        }
        if folder.join("report.html").exists() {
            writeln!(output, "{}", folder.join("report.html").display())?;
        }
    }
    Ok(exit(if failed { FAILED } else { DONE }))
}

/// The results, with the manifest that lies there when it is of the same jobs: what a run cost is told by the run that did it.
fn refreshed(
    study: &Study,
    plan: &Plan,
    store: &Store,
    threads: usize,
    folder: &Path,
) -> Result<report::results::Results> {
    let fresh = collect(study, plan, store, threads)?;
    match report::results::Results::read(folder) {
        Ok(there)
            if there.manifest.settings_fingerprint == fresh.manifest.settings_fingerprint
                && there.manifest.jobs == fresh.manifest.jobs =>
        {
            Ok(report::results::Results {
                manifest: there.manifest,
                ..fresh
            })
        }
        _ => Ok(fresh),
    }
}

/// # Errors
/// A job that would take more memory than this machine has: the system would end the program, and with it the jobs beside it.
fn ensure_memory(plan: &Plan, store: &Store) -> Result<()> {
    let mut system = System::new();
    system.refresh_memory();
    let mut memory = system.total_memory();
    if let Some(limits) = system
        .cgroup_limits()
        .filter(|limits| limits.total_memory > 0)
    {
        memory = memory.min(limits.total_memory);
    }
    // Zero where the system does not tell.
    for job in plan.jobs.iter().filter(|_| memory > 0) {
        let needed = job.estimate.peak_memory_bytes;
        if needed > memory && store.find(&job.fingerprint)?.is_none() {
            bail!(
                "{} takes about {}, and this machine has {} of memory; choose a smaller model or fewer tokens per batch, or run it elsewhere",
                job.label,
                bytes(needed),
                bytes(memory)
            );
        }
    }
    Ok(())
}
