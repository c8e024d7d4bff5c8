//! From a study to ordered, deduplicated jobs. Nothing is read but the inputs that are hashed, and nothing is written but what
//! makes the next plan quick: hashes of inputs, and the machine's speed.

mod build;
pub mod calibration;
pub mod estimate;
pub mod hashes;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fingerprint::Fingerprint;
use crate::objectives::translation::Direction;
use crate::spec::finetune::Regime;
use crate::spec::translation::{BleuSettings, SearchSettings};

pub use build::{Missing, build};
pub use estimate::Estimate;

/// One artifact to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    pub stage: String,
    pub version: u32,
    /// What the stage's `Settings` are read from.
    pub settings: Value,
    /// Input artifacts by name.
    pub inputs: BTreeMap<String, Fingerprint>,
    /// Files of the user by name; only their bytes are identity.
    pub files: BTreeMap<String, DataFile>,
    pub fingerprint: Fingerprint,
    /// For people: "pretrain mlm, seed 1".
    pub label: String,
    pub estimate: Estimate,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataFile {
    pub path: PathBuf,
    pub bytes: u64,
    pub fingerprint: Fingerprint,
}

impl Job {
    /// The identity of a job: stage, version, settings, inputs, and the bytes of files. Labels and paths do not enter.
    pub fn identify(
        stage: &str,
        version: u32,
        settings: &Value,
        inputs: &BTreeMap<String, Fingerprint>,
        files: &BTreeMap<String, DataFile>,
    ) -> Result<Fingerprint> {
        let files: BTreeMap<&String, &Fingerprint> = files
            .iter()
            .map(|(name, file)| (name, &file.fingerprint))
            .collect();
        Fingerprint::of(
            &json!({"stage": stage, "version": version, "settings": settings, "inputs": inputs, "files": files}),
        )
    }
}

/// All jobs of a study, inputs before their users, and what the results are gathered from.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub jobs: Vec<Job>,
    pub runs: Vec<Run>,
    pub pretrainings: Vec<Pretraining>,
    pub translation_runs: Vec<TranslationRun>,
    pub measurement_runs: Vec<MeasurementRun>,
    /// Of the text baselines.
    pub baselines: Option<Fingerprint>,
    /// Sources of data by name, with the files that were hashed.
    pub sources: Vec<Source>,
    /// Labels of jobs that prepare data, for the counts in the report.
    pub data_jobs: BTreeMap<String, Fingerprint>,
    /// Who translated, by what: `test set, ko -> en`.
    pub translations: BTreeMap<String, Translator>,
    /// How the synthetic family differs from the default one.
    pub synthetic_deviations: Vec<String>,
}

/// One evaluation: the runs of a grid on one training set, and the artifact with the predictions of what was selected.
#[derive(Debug, Clone)]
pub struct Run {
    pub variant: String,
    pub pretrain_seed: u64,
    pub finetune_seed: u64,
    /// `en`, `ko (translated)` or `all`.
    pub training_set: String,
    /// Runs of the grid, with what sets each apart.
    pub configurations: Vec<(String, Fingerprint)>,
    pub evaluation: Fingerprint,
    /// What each cell of the evaluation is called in the results, in its order.
    pub cells: Vec<CellName>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CellName {
    pub task: String,
    pub regime: Regime,
    pub language: String,
    pub selection: String,
}

/// One translation model, and the artifact with the counts of what it translated.
#[derive(Debug, Clone)]
pub struct TranslationRun {
    pub variant: String,
    pub pretrain_seed: u64,
    pub finetune_seed: u64,
    pub training: Fingerprint,
    pub evaluation: Fingerprint,
}

/// Who translated a training or a test set.
#[derive(Debug, Clone, PartialEq)]
pub enum Translator {
    /// Somebody else; in words.
    Other(String),
    /// A model of the study.
    Own(OwnTranslator),
}

/// A translation model that the study trains for [`Translator::Own`].
#[derive(Debug, Clone, PartialEq)]
pub struct OwnTranslator {
    /// The variant it builds on.
    pub variant: String,
    pub direction: Direction,
    pub search: SearchSettings,
    pub bleu: BleuSettings,
    pub training: Fingerprint,
    /// With the counts of sentence pairs that did not choose the model, where the study has some.
    pub evaluation: Option<Fingerprint>,
}

/// What one pretrained model was measured on as it is.
#[derive(Debug, Clone)]
pub struct MeasurementRun {
    pub variant: String,
    pub seed: u64,
    /// The stage that measures.
    pub what: String,
    pub job: Fingerprint,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pretraining {
    pub variant: String,
    pub seed: u64,
    pub fingerprint: Fingerprint,
}

/// Files that a data job reads.
#[derive(Debug, Clone)]
pub struct Source {
    pub job: Fingerprint,
    /// The fact of the job's record that lists them.
    pub fact: &'static str,
    /// The job's label, and which of its sources it is.
    pub name: String,
    pub files: BTreeMap<String, DataFile>,
    pub revision: Option<String>,
    pub licence: Option<String>,
    pub citation: Option<String>,
}

impl Plan {
    pub fn job(&self, fingerprint: &Fingerprint) -> Option<&Job> {
        self.jobs.iter().find(|job| job.fingerprint == *fingerprint)
    }
}
