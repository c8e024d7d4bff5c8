//! Runs a plan: what is needed, in the order of its dependencies, several jobs side by side when asked.
//!
//! Execution is not identity: nothing in [`Options`] changes what a job writes. A job whose training diverged is
//! finished, not failed: its artifact holds `diverged.json` and whatever was kept, it is not tried again, and the
//! stages that read it decide what that means for them.

mod board;
mod local;
mod perform;
pub mod progress;

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::fingerprint::Fingerprint;
use crate::kernels::Device;
use crate::plan::Job;
use crate::stages::{Context, Progress, Stop};
use crate::store::Record;

pub use local::run;

/// How to run; none of it enters a fingerprint.
pub struct Options<'a> {
    /// Jobs side by side, at least one.
    pub jobs: usize,
    /// Threads in all; each job gets an equal share, at least one.
    pub threads: usize,
    /// Makes the device of one job from its number of threads.
    pub device: &'a (dyn Fn(usize) -> Result<Device> + Sync),
    pub checkpoint_interval: Duration,
    /// Go on from checkpoints of another device or instruction set; recorded.
    pub resume_anywhere: bool,
    /// What is wanted; `None` wants every job that no other one uses.
    pub targets: Option<Vec<Fingerprint>>,
}

/// Does a job's work in `Context::output` and returns its facts.
pub type StageRunner<'a> = dyn Fn(&Job, &Context) -> Result<Value> + Sync + 'a;

/// What became of a plan's jobs, as indices into `Plan::jobs`, ascending. Jobs that nothing needed are in none.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Done now, by this process or one beside it.
    pub finished: Vec<usize>,
    /// Done before.
    pub reused: Vec<usize>,
    /// Of those two, the runs that met a number that is not finite.
    pub diverged: Vec<usize>,
    pub failed: Vec<(usize, anyhow::Error)>,
    /// Not tried because a job they need failed.
    pub skipped: Vec<usize>,
    /// Stopped or not begun because somebody asked to stop; running the same again goes on.
    pub interrupted: Vec<usize>,
}

impl Outcome {
    /// Everything that was wanted is there.
    pub fn complete(&self) -> bool {
        self.failed.is_empty() && self.skipped.is_empty() && self.interrupted.is_empty()
    }
}

/// What happens while a plan runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// Before anything else.
    Planned {
        to_run: usize,
        reused: usize,
    },
    /// An artifact is not what was recorded and is made again.
    Damaged {
        job: &'a Job,
        problems: &'a [String],
    },
    Started {
        job: &'a Job,
    },
    /// Another process is making what this job would make, or holds what it reads.
    Waiting {
        job: &'a Job,
        holder: &'a str,
    },
    /// Also when the run diverged. `elsewhere`: another process made it.
    Finished {
        job: &'a Job,
        record: &'a Record,
        elsewhere: bool,
    },
    Failed {
        job: &'a Job,
        error: &'a anyhow::Error,
    },
    Skipped {
        job: &'a Job,
    },
    Interrupted {
        job: &'a Job,
    },
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Planned { to_run, reused } => write!(f, "{to_run} jobs to run, {reused} reused"),
            Self::Damaged { job, problems } => {
                let (label, short) = (&job.label, job.fingerprint.short());
                write!(
                    f,
                    "damaged: {label} ({short}): {}; set aside and made again",
                    problems.join("; ")
                )
            }
            Self::Started { job } => write!(f, "started: {}", job.label),
            Self::Waiting { job, holder } => write!(f, "waiting: {}: {holder} is at it", job.label),
            Self::Finished { job, record, .. } if record.diverged() => {
                let said = &record.facts["diverged"];
                let what = said["what"].as_str().unwrap_or("a number");
                write!(
                    f,
                    "diverged: {}: {what} is not finite at update {}",
                    job.label, said["update"]
                )
            }
            Self::Finished {
                job,
                elsewhere: true,
                ..
            } => write!(f, "finished: {} (by another process)", job.label),
            Self::Finished { job, record, .. } => {
                write!(f, "finished: {} ({:.1} s)", job.label, record.seconds)
            }
            Self::Failed { job, error } => write!(f, "failed: {}: {error:#}", job.label),
            Self::Skipped { job } => write!(f, "skipped: {}: a job it needs failed", job.label),
            Self::Interrupted { job } => write!(f, "interrupted: {}", job.label),
        }
    }
}

/// Where progress goes: a terminal, lines, or nowhere.
pub trait Reporter: Sync {
    fn event(&self, event: &Event);
    /// Of one job, until dropped.
    fn progress<'a>(&'a self, job: &Job) -> Box<dyn Progress + 'a>;
}

/// A [`Stop`] that Ctrl-C and SIGTERM ask. The second time ends the process at once with code 130, which loses at most
/// one checkpoint interval. Later calls return the same stop.
pub fn stop_on_interrupt() -> Result<&'static Stop> {
    static STOP: OnceLock<Stop> = OnceLock::new();
    static LISTENING: AtomicBool = AtomicBool::new(false);
    let stop = STOP.get_or_init(Stop::default);
    if !LISTENING.swap(true, Ordering::SeqCst) {
        let handler = move || {
            if stop.asked() {
                std::process::exit(130);
            }
            stop.ask();
            eprintln!("finishing the step and saving; Ctrl-C again stops at once");
        };
        ctrlc::set_handler(handler).context("cannot listen for Ctrl-C")?;
    }
    Ok(stop)
}
