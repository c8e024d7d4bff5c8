//! Metrics of three-way classification, and the intervals around them.
//!
//! One file per metric. All read the confusion counts of one cell, so that any of them can be recomputed with one
//! premise left out (see [`intervals`]).

mod accuracy;
mod confusion;
pub mod intervals;
mod macro_f1;
mod macro_precision;
mod macro_recall;

use serde::{Deserialize, Serialize};

pub use confusion::{CLASS_NAMES, CLASSES, Confusion};

/// Accuracy of guessing, percent: the three classes of NLI are balanced.
pub const CHANCE: f64 = 100.0 / CLASSES as f64;

/// What a study may report and claim on.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of examples whose class is right.
    #[default]
    Accuracy,
    /// Mean over classes of precision.
    MacroPrecision,
    /// Mean over classes of recall.
    MacroRecall,
    /// Mean over classes of F1.
    MacroF1,
}

impl Metric {
    pub const ALL: [Self; 4] = [
        Self::Accuracy,
        Self::MacroPrecision,
        Self::MacroRecall,
        Self::MacroF1,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::MacroPrecision => "macro_precision",
            Self::MacroRecall => "macro_recall",
            Self::MacroF1 => "macro_f1",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// Percent 0-100; zero when there are no examples.
    pub fn percent(self, confusion: &Confusion) -> f64 {
        match self {
            Self::Accuracy => accuracy::percent(confusion),
            Self::MacroPrecision => macro_precision::percent(confusion),
            Self::MacroRecall => macro_recall::percent(confusion),
            Self::MacroF1 => macro_f1::percent(confusion),
        }
    }
}
