//! Metrics of three-way classification and of translation, and the intervals around them.
//!
//! One file per metric. All read counts that add up over test items, so that any of them can be recomputed with one premise or
//! sentence left out (see [`intervals`]).

mod accuracy;
pub mod bleu;
pub mod chrf;
mod confusion;
pub mod intervals;
mod macro_f1;
mod macro_precision;
mod macro_recall;
mod ngrams;
mod translation;
pub mod translation_tokens;

use serde::{Deserialize, Serialize};

pub use confusion::{CLASS_NAMES, CLASSES, Confusion};
pub use translation::TranslationCounts;

/// Accuracy of guessing, percent: the three classes of NLI are balanced.
pub const CHANCE: f64 = 100.0 / CLASSES as f64;

/// The task of translation models, as results name it; its regimes are searches, its languages directions.
pub const TRANSLATION_TASK: &str = "translation";

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
    /// Of translations (Papineni et al. 2002), 0 to 100.
    Bleu,
    /// Of translations (Popović 2015), 0 to 100.
    Chrf,
}

impl Metric {
    pub const ALL: [Self; 6] = [
        Self::Accuracy,
        Self::MacroPrecision,
        Self::MacroRecall,
        Self::MacroF1,
        Self::Bleu,
        Self::Chrf,
    ];
    /// Those of classes.
    pub const OF_CLASSES: [Self; 4] = [
        Self::Accuracy,
        Self::MacroPrecision,
        Self::MacroRecall,
        Self::MacroF1,
    ];
    /// Those of translations.
    pub const OF_TRANSLATIONS: [Self; 2] = [Self::Bleu, Self::Chrf];

    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::MacroPrecision => "macro_precision",
            Self::MacroRecall => "macro_recall",
            Self::MacroF1 => "macro_f1",
            Self::Bleu => "bleu",
            Self::Chrf => "chrf",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// What a task is measured by unless something else is named.
    pub fn of_task(task: &str) -> Self {
        match task {
            TRANSLATION_TASK => Self::Bleu,
            _ => Self::Accuracy,
        }
    }

    /// Whether it is a metric of what the task gives.
    pub fn fits_task(self, task: &str) -> bool {
        match task {
            TRANSLATION_TASK => Self::OF_TRANSLATIONS.contains(&self),
            _ => Self::OF_CLASSES.contains(&self),
        }
    }

    /// As tables and plots write it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::MacroPrecision => "macro precision",
            Self::MacroRecall => "macro recall",
            Self::MacroF1 => "macro F1",
            Self::Bleu => "BLEU",
            Self::Chrf => "chrF",
        }
    }

    /// Percent 0-100; zero when there are no examples, and for metrics of translations.
    pub fn percent(self, confusion: &Confusion) -> f64 {
        match self {
            Self::Accuracy => accuracy::percent(confusion),
            Self::MacroPrecision => macro_precision::percent(confusion),
            Self::MacroRecall => macro_recall::percent(confusion),
            Self::MacroF1 => macro_f1::percent(confusion),
            Self::Bleu | Self::Chrf => 0.0,
        }
    }
}
