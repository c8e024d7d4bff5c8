//! The stages of a study: each reads input folders and writes one output folder. One file per stage.
//!
//! A stage knows neither the store nor the plan. Its `Settings` and its inputs decide what it writes; its `VERSION`
//! is raised by hand whenever what it writes changes.

pub mod baselines;
pub mod checkpoint;
pub mod corpus;
pub mod divergence;
pub mod evaluate;
pub mod finetune;
mod inputs;
pub mod language_modelling;
pub mod measured;
pub mod metrics;
pub mod monolingual;
pub mod nli;
pub mod parallel;
pub mod pretrain;
pub mod synthesize;
pub mod tokenizer;
pub mod translate;
pub mod translate_nli;
pub mod translating;
pub mod translation;
pub mod word_embeddings;
pub mod word_pairs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::kernels::Device;

/// Runs the stage of that name. The settings are those that the plan wrote.
///
/// # Errors
/// [`Interrupted`] and [`Diverged`] can be told from other errors by downcasting.
pub fn run(stage: &str, settings: &Value, context: &Context) -> Result<Value> {
    fn read<T: DeserializeOwned>(stage: &str, settings: &Value) -> Result<T> {
        T::deserialize(settings).with_context(|| format!("settings that stage `{stage}` does not know; was the job planned by another version?"))
    }
    match stage {
        synthesize::NAME => synthesize::run(&read(stage, settings)?, context),
        monolingual::NAME => monolingual::run(&read(stage, settings)?, context),
        parallel::NAME => parallel::run(&read(stage, settings)?, context),
        nli::NAME => nli::run(&read(stage, settings)?, context),
        baselines::NAME => baselines::run(&read(stage, settings)?, context),
        tokenizer::NAME => tokenizer::run(&read(stage, settings)?, context),
        corpus::NAME => corpus::run(&read(stage, settings)?, context),
        pretrain::NAME => pretrain::run(&read(stage, settings)?, context),
        finetune::NAME => finetune::run(&read(stage, settings)?, context),
        evaluate::NAME => evaluate::run(&read(stage, settings)?, context),
        translation::NAME => translation::run(&read(stage, settings)?, context),
        translate::NAME => translate::run(&read(stage, settings)?, context),
        translate_nli::NAME => translate_nli::run(&read(stage, settings)?, context),
        language_modelling::NAME => language_modelling::run(&read(stage, settings)?, context),
        word_pairs::NAME => word_pairs::run(&read(stage, settings)?, context),
        word_embeddings::NAME => word_embeddings::run(&read(stage, settings)?, context),
        unknown => anyhow::bail!("no stage is named `{unknown}`"),
    }
}

/// What surrounds a stage while it runs. Nothing in here is part of an artifact's identity.
pub struct Context<'a> {
    /// Folders of finished input artifacts, by the names of `Job::inputs`.
    pub inputs: &'a BTreeMap<String, PathBuf>,
    /// Files outside the store (the user's data), by the names of `Job::files`. Their bytes are part of the identity.
    pub files: &'a BTreeMap<String, PathBuf>,
    /// An empty folder: what the stage writes here becomes the artifact.
    pub output: &'a Path,
    /// Survives interruption and death; removed once the artifact is finished.
    pub checkpoints: &'a Path,
    pub device: &'a Device,
    pub progress: &'a dyn Progress,
    pub stop: &'a Stop,
    /// Time between two checkpoints.
    pub checkpoint_interval: Duration,
}

impl Context<'_> {
    /// The folder of an input artifact.
    pub fn input(&self, name: &str) -> Result<&Path> {
        let folder = self.inputs.get(name);
        Ok(folder.with_context(|| format!("the job has no input named `{name}`"))?)
    }

    /// Ends the stage with [`Interrupted`] when somebody asked for it. Call after saving a checkpoint.
    pub fn stop_if_asked(&self) -> Result<()> {
        if self.stop.asked() {
            Err(Interrupted.into())
        } else {
            Ok(())
        }
    }
}

/// Where a stage tells how far it is. Implementations draw bars or print lines.
pub trait Progress: Sync {
    /// The stage will do `total` units (`updates`, `sentences`, ...), of which `done` were done before it was interrupted.
    fn begin(&self, total: u64, done: u64, unit: &str);
    /// `done` units in all; `note` is short: "loss 3.21, 41k tokens/s".
    fn advance(&self, done: u64, note: &str);
    /// A line worth keeping.
    fn message(&self, line: &str);
}

/// Set by Ctrl-C; read by stages between two steps.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    pub fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The stage stopped because it was asked to; its checkpoint is saved.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("interrupted; the work done so far is saved, run the same command again to go on")]
pub struct Interrupted;

/// Training met a number that is not finite. The last finite checkpoint and the batch are in `folder`.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "diverged at update {update}: {what} is not finite; the last finite checkpoint and the batch are kept in {folder}; lower the learning rate or clip"
)]
pub struct Diverged {
    pub update: u64,
    pub what: String,
    pub folder: String,
}
