//! `metrics.jsonl`: what a training stage measured on its way, a line for each look.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

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
