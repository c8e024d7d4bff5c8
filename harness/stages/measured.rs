//! What the stages that measure pretrained models leave: `measurements.json`, read by the report.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::metrics::Measurement;

/// One task, regime and language.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredSet {
    pub task: String,
    pub regime: String,
    pub language: String,
    /// The cluster of each item, ascending, and its numbers.
    pub items: Vec<(u32, Measurement)>,
}

const FILE: &str = "measurements.json";

pub fn write(folder: &Path, sets: &[MeasuredSet]) -> Result<()> {
    let path = folder.join(FILE);
    fs::write(&path, serde_json::to_vec(sets)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

pub fn read(folder: &Path) -> Result<Vec<MeasuredSet>> {
    let path = folder.join(FILE);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} holds no measurements", path.display()))
}
