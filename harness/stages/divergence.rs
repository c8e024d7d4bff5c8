//! Runs that met a number that is not finite: what is kept of them, and what they mean for the stages that read them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, Diverged};
use crate::model::Batch;
use crate::training::{NotFinite, Trainer};

/// The file that marks an artifact as that of a diverged run.
pub const FILE: &str = "diverged.json";
/// The folder, among checkpoints and then in the artifact, that holds what is kept of a diverged run.
pub const KEPT: &str = "diverged";

/// Names and contents of JSON files.
pub type Files = Vec<(&'static str, Value)>;

/// What [`FILE`] says.
#[derive(Deserialize)]
struct Said {
    update: u64,
    what: String,
}

/// Turns the error of a training step into [`Diverged`] when a number was not finite, keeping the last finite state and
/// `files`: the batch, and where the run was. Any other error comes back as it is.
pub fn of_step(
    error: anyhow::Error,
    trainer: &Trainer,
    files: impl FnOnce() -> Files,
    checkpoints: &Path,
) -> anyhow::Error {
    let Some(not_finite) = error.downcast_ref::<NotFinite>() else {
        return error;
    };
    let what = match (&not_finite.loss, not_finite.held_out) {
        (Some(_), true) => "the loss of held-out text",
        (Some(_), false) => "the loss",
        (None, _) => "the gradient",
    };
    let folder = checkpoints.join(KEPT);
    let diverged = Diverged {
        update: not_finite.update,
        what: what.to_owned(),
        folder: folder.display().to_string(),
    };
    match keep(&folder, trainer, &files()) {
        Ok(()) => diverged.into(),
        // Not marked as diverged: nothing is kept yet, so the run must be tried again.
        Err(error) => error.context(format!(
            "{what} was not finite, and the last finite checkpoint could not be kept"
        )),
    }
}

fn keep(folder: &Path, trainer: &Trainer, files: &Files) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    trainer.save_state(&folder.join("trainer.safetensors"))?;
    for (name, value) in files {
        fs::write(folder.join(name), serde_json::to_vec(value)?)
            .with_context(|| format!("cannot write to {}", folder.display()))?;
    }
    Ok(())
}

/// A packed batch for `batch.json`.
pub fn batch_json(batch: &Batch) -> Value {
    json!({"tokens": batch.tokens, "positions": batch.positions, "languages": batch.languages, "offsets": batch.offsets})
}

/// Whether an artifact is that of a diverged run.
pub fn has_diverged(folder: &Path) -> bool {
    folder.join(FILE).exists()
}

/// Ends a stage that cannot do without an input whose run diverged: it counts as diverged itself.
pub fn refuse_diverged(context: &Context, input: &str) -> Result<()> {
    let path = context.input(input)?.join(FILE);
    if !path.exists() {
        return Ok(());
    }
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let said: Said =
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let folder = context.checkpoints.join(KEPT);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let what = format!("{} of the input `{input}`", said.what);
    fs::write(folder.join("input.txt"), &what)
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    Err(Diverged {
        update: said.update,
        what,
        folder: folder.display().to_string(),
    }
    .into())
}
