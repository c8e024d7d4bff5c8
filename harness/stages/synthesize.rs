//! Generates a family of synthetic languages: text, parallel text, inference pairs, annotations.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::synthetic::{self, FamilySettings};
use crate::stages::Context;

pub const NAME: &str = "synthesize";
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub family: FamilySettings,
    /// The language that the others borrow from.
    pub source: String,
    pub seed: u64,
}

pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    context.progress.begin(2, 0, "steps");
    let generated = synthetic::generate(&settings.family, &settings.source, settings.seed)?;
    context.progress.advance(1, "");
    synthetic::write(&generated, context.output)?;
    context.progress.advance(2, "");
    Ok(json!({"facts": generated.facts, "deviations": settings.family.deviations()}))
}
