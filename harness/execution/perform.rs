//! Does one job in its workplace: runs the stage, then commits what it made or leaves what can be continued.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use super::{Event, Options, Reporter, StageRunner};
use crate::kernels::Device;
use crate::plan::Job;
use crate::stages::divergence::KEPT;
use crate::stages::{Context, Diverged, Interrupted, Progress, Stop};
use crate::store::{Artifact, DIVERGED, Status, Workplace};

/// Between two `status.json` of a job. Our choice.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// What every job of a run has in common.
pub(super) struct Surroundings<'a> {
    pub options: &'a Options<'a>,
    pub stage: &'a StageRunner<'a>,
    pub reporter: &'a dyn Reporter,
    pub stop: &'a Stop,
}

/// The artifact, or `None` when somebody asked to stop. A run that diverged is an artifact too.
pub(super) fn perform(
    job: &Job,
    workplace: Workplace,
    inputs: &BTreeMap<String, PathBuf>,
    device: &Device,
    around: &Surroundings,
) -> Result<Option<Artifact>> {
    around.reporter.event(&Event::Started { job });
    let begun = Instant::now();
    let spent_before = workplace.status().seconds;
    let files = job
        .files
        .iter()
        .map(|(name, file)| (name.clone(), file.path.clone()))
        .collect();
    let result = {
        let progress = Tracked::new(job, &workplace, around.reporter.progress(job), spent_before);
        let context = Context {
            inputs,
            files: &files,
            output: workplace.output(),
            checkpoints: workplace.checkpoints(),
            device,
            progress: &progress,
            stop: around.stop,
            checkpoint_interval: around.options.checkpoint_interval,
        };
        let result = catch_unwind(AssertUnwindSafe(|| (around.stage)(job, &context)));
        progress.save();
        result.unwrap_or_else(|panic| {
            Err(anyhow!(
                "the stage panicked: {}",
                panic_text(panic.as_ref())
            ))
        })
    };
    let seconds = spent_before + begun.elapsed().as_secs_f64();
    match result {
        Ok(facts) => workplace.commit(facts, seconds).map(Some),
        Err(error) if cause::<Interrupted>(&error).is_some() => {
            workplace.leave();
            Ok(None)
        }
        Err(error) => match cause::<Diverged>(&error) {
            Some(diverged) => {
                let facts = keep_diverged(diverged, &workplace)?;
                workplace.commit(facts, seconds).map(Some)
            }
            None => {
                workplace.leave();
                Err(error)
            }
        },
    }
}

/// Moves what the stage kept into the output, and says in `diverged.json` what happened.
fn keep_diverged(diverged: &Diverged, workplace: &Workplace) -> Result<Value> {
    let folder = Path::new(&diverged.folder);
    let kept = if let Ok(inside) = folder.strip_prefix(workplace.output()) {
        inside.to_string_lossy().into_owned()
    } else if folder.starts_with(workplace.checkpoints()) {
        let target = workplace.output().join(KEPT);
        std::fs::rename(folder, &target).with_context(|| {
            format!(
                "cannot keep the last finite checkpoint {} in {}",
                folder.display(),
                target.display()
            )
        })?;
        KEPT.to_owned()
    } else {
        bail!(
            "the diverged stage kept its checkpoint in {}, outside its own folders",
            folder.display()
        );
    };
    let said = json!({"update": diverged.update, "what": diverged.what, "kept": kept});
    let file = workplace.output().join(DIVERGED);
    std::fs::write(&file, serde_json::to_string_pretty(&said)? + "\n")
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(json!({"diverged": said}))
}

/// The error of a type that lies behind an error, if any.
fn cause<T: std::error::Error + Send + Sync + 'static>(error: &anyhow::Error) -> Option<&T> {
    error
        .downcast_ref()
        .or_else(|| error.chain().find_map(|cause| cause.downcast_ref()))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Passes progress on, and keeps `status.json` for `xlt status`.
struct Tracked<'a> {
    workplace: &'a Workplace<'a>,
    inner: Box<dyn Progress + 'a>,
    begun: Instant,
    spent_before: f64,
    /// With the time of the last `status.json`.
    state: Mutex<(Status, Instant)>,
}

impl<'a> Tracked<'a> {
    fn new(
        job: &Job,
        workplace: &'a Workplace<'a>,
        inner: Box<dyn Progress + 'a>,
        spent_before: f64,
    ) -> Self {
        let now = Instant::now();
        let status = Status {
            stage: job.stage.clone(),
            label: job.label.clone(),
            ..Status::default()
        };
        let tracked = Self {
            workplace,
            inner,
            begun: now,
            spent_before,
            state: Mutex::new((status, now)),
        };
        tracked.save();
        tracked
    }

    fn state(&self) -> MutexGuard<'_, (Status, Instant)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self) {
        self.write(&mut self.state());
    }

    /// A status that cannot be written is no reason to stop working.
    fn write(&self, (status, written): &mut (Status, Instant)) {
        status.seconds = self.spent_before + self.begun.elapsed().as_secs_f64();
        *written = Instant::now();
        let _ = self.workplace.write_status(status);
    }
}

impl Progress for Tracked<'_> {
    fn begin(&self, total: u64, done: u64, unit: &str) {
        self.inner.begin(total, done, unit);
        let mut state = self.state();
        (state.0.total, state.0.done, state.0.unit) = (total, done, unit.to_owned());
        self.write(&mut state);
    }

    fn advance(&self, done: u64, note: &str) {
        self.inner.advance(done, note);
        let mut state = self.state();
        state.0.done = done;
        if state.1.elapsed() >= STATUS_INTERVAL {
            state.0.note = note.to_owned();
            self.write(&mut state);
        }
    }

    fn message(&self, line: &str) {
        self.inner.message(line);
    }
}
