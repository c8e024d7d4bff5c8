//! Settings of pretraining.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::kernels::Precision;
use crate::model::ModelSettings;
use crate::objectives::{BatchSettings, LanguagesPerBatch, ObjectiveSettings, StreamStart};
use crate::problem::Problem;
use crate::training::AdamSettings;

/// More tokens than any batch that fits into memory; ours.
pub(super) const LARGEST_BATCH: usize = 1 << 26;
/// A thousand times the longest pretraining of the papers; ours.
pub(super) const MOST_UPDATES: u64 = 1_000_000_000;

/// The YAML section `pretrain:`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainSettings {
    /// The languages whose text is read; all of the study unless given. The tokenizer is that of all in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub languages: Option<Vec<String>>,
    /// What is predicted. Several objectives take turns, an update each (XLM steps each of its tasks by itself).
    pub objectives: Vec<ObjectiveSettings>,
    /// Languages are drawn with probability proportional to (share of sentences)^exponent (XLM: 0.7). No default: the
    /// commands of XLM's README draw all alike.
    pub sampling_exponent: f64,
    /// How many languages a batch holds.
    #[serde(default)]
    pub languages_per_batch: LanguagesPerBatch,
    /// Tokens of a stream, and of the longest side of a sentence pair. XLM: 256.
    #[serde(default = "default_stream_length")]
    pub stream_length: usize,
    /// Where a stream begins.
    #[serde(default)]
    pub stream_start: StreamStart,
    /// Optimizer steps.
    pub updates: u64,
    /// Tokens of an update, at most. XLM's paper: 64 streams of 256, or 4,000 tokens of sentence pairs, on each GPU.
    pub tokens_per_batch: usize,
    /// The arithmetic of training. No default: it changes results. XLM trains in 16 bits.
    pub precision: Precision,
    /// Adam and its schedule.
    pub optimizer: AdamSettings,
    /// Updates between two looks at the held-out text; it is always looked at after the last. Never before when absent.
    #[serde(default)]
    pub validation_every: Option<u64>,
}

fn default_stream_length() -> usize {
    256
}

impl PretrainSettings {
    /// Every problem at once; `model` says how long sequences may be.
    pub fn validate(&self, model: &ModelSettings) -> Vec<Problem> {
        let mut problems = self.objective_problems();
        let mut add = |field: &str, what: String, remedy: String| {
            problems.push(Problem::new(field, what, remedy))
        };
        if !(0.0..=1.0).contains(&self.sampling_exponent) {
            let remedy = "choose between 0 (all languages alike) and 1 (proportional)";
            add(
                "sampling_exponent",
                format!("an exponent of {}", self.sampling_exponent),
                remedy.into(),
            );
        }
        if !(3..=model.positions).contains(&self.stream_length) {
            let remedy = format!(
                "choose between 3 and the model's {} positions",
                model.positions
            );
            add(
                "stream_length",
                format!("streams of {} tokens", self.stream_length),
                remedy,
            );
        }
        if !(1..=MOST_UPDATES).contains(&self.updates) {
            add(
                "updates",
                format!("{} updates", self.updates),
                format!("choose between 1 and {MOST_UPDATES}, or `pretrain: none`"),
            );
        }
        if !(self.stream_length..=LARGEST_BATCH).contains(&self.tokens_per_batch) {
            let remedy = format!(
                "choose between one stream ({}) and {LARGEST_BATCH}",
                self.stream_length
            );
            add(
                "tokens_per_batch",
                format!("batches of {} tokens", self.tokens_per_batch),
                remedy,
            );
        }
        if self.validation_every == Some(0) {
            add(
                "validation_every",
                "validation after no updates".into(),
                "choose 1 or more, or leave it out".into(),
            );
        }
        if let Err(wrong) = self.optimizer.validate() {
            for problem in wrong {
                add(
                    &format!("optimizer.{}", problem.field),
                    problem.what,
                    problem.remedy,
                );
            }
        }
        problems
    }

    fn objective_problems(&self) -> Vec<Problem> {
        if self.objectives.is_empty() {
            return vec![Problem::new(
                "objectives",
                "no objectives",
                "name one, such as causal_lm, or choose `pretrain: none`",
            )];
        }
        let mut problems = Vec::new();
        for (index, objective) in self.objectives.iter().enumerate() {
            let name = objective.name();
            if self.objectives[..index]
                .iter()
                .any(|earlier| earlier.name() == name)
            {
                problems.push(Problem::new(
                    &format!("objectives.{index}"),
                    format!("`{name}` a second time"),
                    "name each objective once",
                ));
            }
            for problem in objective.validate() {
                problems.push(Problem {
                    field: format!("objectives.{index}.{name}.{}", problem.field),
                    ..problem
                });
            }
        }
        problems
    }

    /// Mean share of a batch's tokens that are predicted, 0 to 1.
    pub fn predicted_share(&self) -> f64 {
        let shares = self
            .objectives
            .iter()
            .map(ObjectiveSettings::predicted_share);
        shares.sum::<f64>() / self.objectives.len().max(1) as f64
    }

    /// Whether an objective needs sentence pairs.
    pub fn uses_parallel_text(&self) -> bool {
        self.objectives
            .iter()
            .any(ObjectiveSettings::uses_parallel_text)
    }

    /// Whether an objective needs each language's own text.
    pub fn uses_monolingual_text(&self) -> bool {
        self.objectives
            .iter()
            .any(|objective| !objective.uses_parallel_text())
    }

    /// How batches are made for a seed.
    pub fn batches(&self, seed: u64) -> BatchSettings {
        BatchSettings {
            sampling_exponent: self.sampling_exponent,
            languages_per_batch: self.languages_per_batch,
            stream_length: self.stream_length,
            stream_start: self.stream_start,
            tokens_per_batch: self.tokens_per_batch,
            seed,
        }
    }
}
