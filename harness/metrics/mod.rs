//! Metrics of three-way classification, of translation and of pretrained models as they are, and the intervals around them.
//!
//! One file per metric. All read counts or sums that add up over test items, so that any of them can be recomputed with one
//! premise, sentence or pair of words left out (see [`intervals`]).

mod accuracy;
pub mod bleu;
pub mod chrf;
mod confusion;
pub mod intervals;
mod macro_f1;
mod macro_precision;
mod macro_recall;
mod measurement;
mod ngrams;
mod task;
mod translation;
pub mod translation_tokens;

use serde::{Deserialize, Serialize};

pub use confusion::{CLASS_NAMES, CLASSES, Confusion};
pub use measurement::{Measurement, Moments, ranked};
pub use task::{
    Items, LANGUAGE_MODELLING_TASK, TRANSLATION_TASK, Task, WORD_SIMILARITY_TASK,
    WORD_TRANSLATION_TASK,
};
pub use translation::TranslationCounts;

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
    /// Of translations (Papineni et al. 2002), 0 to 100.
    Bleu,
    /// Of translations (Popović 2015), 0 to 100.
    Chrf,
    /// Of held-out text: exp of the negative log-likelihood of a token, a word or a character. Lower is better.
    Perplexity,
    /// Of words and their translations, the mean of -1 to 1.
    Cosine,
    /// Of words and their translations: the mean Euclidean distance. It grows with the length of vectors.
    Distance,
    /// Of words and the translations of other words: what a cosine is to be read against.
    CosineOfOthers,
    /// Correlation of cosines with people's ratings, -1 to 1.
    Pearson,
    /// The same of ranks.
    Spearman,
}

impl Metric {
    pub const ALL: [Self; 12] = [
        Self::Accuracy,
        Self::MacroPrecision,
        Self::MacroRecall,
        Self::MacroF1,
        Self::Bleu,
        Self::Chrf,
        Self::Perplexity,
        Self::Cosine,
        Self::Distance,
        Self::CosineOfOthers,
        Self::Pearson,
        Self::Spearman,
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
            Self::Perplexity => "perplexity",
            Self::Cosine => "cosine",
            Self::Distance => "distance",
            Self::CosineOfOthers => "cosine_of_others",
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// What a task is measured by unless something else is named.
    pub fn of_task(task: &str) -> Self {
        Self::fitting(task)[0]
    }

    /// The metrics of what a task gives, the usual one first.
    pub fn fitting(task: &str) -> &'static [Self] {
        Task::of(task).metrics()
    }

    /// The least and the greatest value that there can be.
    pub fn range(self) -> (f64, f64) {
        match self {
            Self::Perplexity | Self::Distance => (0.0, f64::INFINITY),
            Self::Cosine | Self::CosineOfOthers | Self::Pearson | Self::Spearman => (-1.0, 1.0),
            Self::Accuracy | Self::MacroPrecision | Self::MacroRecall | Self::MacroF1 => {
                (0.0, 100.0)
            }
            Self::Bleu | Self::Chrf => (0.0, 100.0),
        }
    }

    /// Whether a value of one less a value of the other means something.
    pub fn compares_with(self, other: Self) -> bool {
        let cosines = [Self::Cosine, Self::CosineOfOthers];
        self == other || (cosines.contains(&self) && cosines.contains(&other))
    }

    /// Decimals in print.
    pub fn decimals(self) -> usize {
        match self {
            Self::Distance
            | Self::Cosine
            | Self::CosineOfOthers
            | Self::Pearson
            | Self::Spearman => 3,
            Self::Perplexity => 2,
            Self::Accuracy
            | Self::MacroPrecision
            | Self::MacroRecall
            | Self::MacroF1
            | Self::Bleu
            | Self::Chrf => 1,
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
            Self::Perplexity => "perplexity",
            Self::Cosine => "cosine",
            Self::Distance => "Euclidean distance",
            Self::CosineOfOthers => "cosine with other words' translations",
            Self::Pearson => "Pearson's correlation",
            Self::Spearman => "Spearman's correlation",
        }
    }

    /// Percent 0-100; zero when there are no examples, and for metrics of something else.
    pub fn percent(self, confusion: &Confusion) -> f64 {
        match self {
            Self::Accuracy => accuracy::percent(confusion),
            Self::MacroPrecision => macro_precision::percent(confusion),
            Self::MacroRecall => macro_recall::percent(confusion),
            Self::MacroF1 => macro_f1::percent(confusion),
            Self::Bleu
            | Self::Chrf
            | Self::Perplexity
            | Self::Cosine
            | Self::Distance
            | Self::CosineOfOthers
            | Self::Pearson
            | Self::Spearman => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_listed_and_is_one_of_a_task() {
        let schema = serde_json::to_value(schemars::schema_for!(Metric)).unwrap();
        let cases = schema["oneOf"].as_array().unwrap();
        assert_eq!(cases.len(), Metric::ALL.len());
        for case in cases {
            let name = case["const"].as_str().unwrap();
            let metric = Metric::from_name(name).unwrap();
            let mut tasks = Task::ALL.into_iter();
            assert!(tasks.any(|task| task.metrics().contains(&metric)), "{name}");
        }
        for task in Task::ALL {
            assert_eq!(Task::from_name(task.name()), Some(task));
        }
    }
}
