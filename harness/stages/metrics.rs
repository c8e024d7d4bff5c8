//! `metrics.jsonl`: what a training stage measured on its way, a line for each look.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::training::StepReport;

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metrics {
    /// Some updates in a row.
    Training {
        /// Updates made.
        update: u64,
        /// Tokens seen in all of them.
        tokens: u64,
        /// Mean nats per target of each objective since the line before.
        loss: BTreeMap<String, f64>,
        /// Global norm of the last update's gradient before clipping.
        gradient_norm: f64,
        /// Of the last update.
        learning_rate: f64,
    },
    /// Held-out text of one language or pair.
    Validation {
        update: u64,
        tokens: u64,
        objective: String,
        /// `en`, or `en-fr`.
        of: String,
        /// Tokens predicted.
        targets: u64,
        /// Mean nats per target; its exponential is the perplexity.
        loss: f64,
        /// Share of the targets whose token is the most probable.
        accuracy: f64,
    },
    /// Held-out sentences translated in one direction.
    Translation {
        update: u64,
        tokens: u64,
        /// `en-fr`.
        of: String,
        /// BLEU, 0 to 100.
        bleu: f64,
    },
}

/// Updates summed up in one line of `metrics.jsonl`; ours.
pub(super) const UPDATES_PER_LINE: u64 = 50;

/// Losses of the updates since the last line, saved in checkpoints: nats and targets of each objective.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Losses(BTreeMap<String, (f64, u64)>);

impl Losses {
    pub fn add(&mut self, objective: &str, report: &StepReport) {
        let (nats, targets) = self.0.entry(objective.to_owned()).or_default();
        *nats += report.loss * report.targets as f64;
        *targets += report.targets as u64;
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The line of these losses, after `update` updates with `tokens` tokens of which `report` is the last; they begin anew.
    pub fn line(&mut self, update: u64, tokens: u64, report: &StepReport) -> Metrics {
        let losses = std::mem::take(&mut self.0).into_iter();
        Metrics::Training {
            update,
            tokens,
            loss: losses
                .map(|(objective, (nats, targets))| (objective, nats / targets as f64))
                .collect(),
            gradient_norm: report.gradient_norm,
            learning_rate: report.learning_rate,
        }
    }
}

/// Reads `metrics.jsonl` of an artifact.
pub fn read_metrics(folder: &Path) -> Result<Vec<Metrics>> {
    let path = folder.join("metrics.jsonl");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let line = |line: &str| {
        serde_json::from_str(line)
            .with_context(|| format!("{} has a line that is no metric", path.display()))
    };
    text.lines().map(line).collect()
}

pub(super) fn write_metrics(metrics: &[Metrics], path: &Path) -> Result<()> {
    let mut text = String::new();
    for line in metrics {
        text.push_str(&serde_json::to_string(line)?);
        text.push('\n');
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
