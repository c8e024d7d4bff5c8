//! What an encoder is pretrained on: one file per objective.
//!
//! ```text
//! Text (corpora) -> streams | sentence pairs -> objective: a batch for every update, held-out batches
//! ```
//! To add one: a file with a type that implements [`Objective`], a variant of [`ObjectiveSettings`], a line in [`open`].
//!
//! The batch of an update follows from (seed, update) alone, so that a resumed run needs no history. Two objectives read
//! the same text in the same order at the same seed: variants of a study differ by what they predict, not by what they saw.
//! Differs: XLM goes through a corpus in random order, each window once per pass; here each window is drawn anew.

pub mod causal_lm;
pub mod masked_lm;
pub mod masking;
pub mod streams;
pub mod text;
pub mod translation;
pub mod translation_lm;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::LanguageModelBatch;
use crate::problem::Problem;

pub use masking::PositionSampling;
pub use streams::{LanguagesPerBatch, StreamStart};
pub use text::Text;

/// One pretraining objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ObjectiveSettings {
    /// Predict hidden tokens of a stream from both sides (Devlin et al. 2019; XLM's MLM).
    MaskedLm {
        /// Share of a batch's tokens that are predicted, above 0 to 1. BERT and XLM: 0.15.
        rate: f64,
        /// Which tokens are predicted. No default: XLM's paper and its README differ.
        position_sampling: PositionSampling,
    },
    /// Predict the next token of a stream (XLM's CLM).
    CausalLm,
    /// Predict hidden tokens of a sentence and its translation, read as one sequence (XLM's TLM). Needs sentence pairs.
    TranslationLm {
        /// Share of a batch's tokens that are predicted, above 0 to 1. XLM: 0.15.
        rate: f64,
        /// Which tokens are predicted. No default: XLM's paper and its README differ.
        position_sampling: PositionSampling,
    },
}

impl ObjectiveSettings {
    /// As in the study file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MaskedLm { .. } => masked_lm::NAME,
            Self::CausalLm => causal_lm::NAME,
            Self::TranslationLm { .. } => translation_lm::NAME,
        }
    }

    /// As papers abbreviate it.
    pub fn abbreviation(&self) -> &'static str {
        match self {
            Self::CausalLm => "CLM",
            Self::MaskedLm { .. } => "MLM",
            Self::TranslationLm { .. } => "TLM",
        }
    }

    /// Share of a batch's tokens that are predicted, 0 to 1.
    pub fn predicted_share(&self) -> f64 {
        match self {
            Self::MaskedLm { rate, .. } | Self::TranslationLm { rate, .. } => *rate,
            Self::CausalLm => 1.0,
        }
    }

    pub fn uses_parallel_text(&self) -> bool {
        match self {
            Self::TranslationLm { .. } => true,
            Self::CausalLm | Self::MaskedLm { .. } => false,
        }
    }

    pub fn validate(&self) -> Vec<Problem> {
        match self {
            Self::CausalLm => Vec::new(),
            Self::MaskedLm {
                rate,
                position_sampling,
            }
            | Self::TranslationLm {
                rate,
                position_sampling,
            } => {
                let mut problems = Vec::new();
                if !(*rate > 0.0 && *rate <= 1.0) {
                    problems.push(Problem::new(
                        "rate",
                        format!("a rate of {rate}"),
                        "choose above 0 and at most 1, such as 0.15",
                    ));
                }
                if let PositionSampling::CountPower { exponent } = position_sampling
                    && !(0.0..=4.0).contains(exponent)
                {
                    let what = format!("an exponent of {exponent}");
                    problems.push(Problem::new(
                        "position_sampling.count_power.exponent",
                        what,
                        "choose between 0 and 4, such as 0.5",
                    ));
                }
                problems
            }
        }
    }
}

/// How batches are made of text, whatever the objective.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchSettings {
    /// Languages are drawn with probability proportional to (share of sentences)^exponent.
    pub sampling_exponent: f64,
    pub languages_per_batch: LanguagesPerBatch,
    /// Tokens of a stream; the longest side of a sentence pair.
    pub stream_length: usize,
    pub stream_start: StreamStart,
    /// Tokens of a batch, at most; a batch has one sequence at least.
    pub tokens_per_batch: usize,
    pub seed: u64,
}

/// One objective over one study's text.
pub trait Objective: Send + Sync {
    /// As in the study file.
    fn name(&self) -> &'static str;

    /// The batch of an update, the same whenever it is asked for.
    fn training_batch(&self, update: u64) -> LanguageModelBatch;

    /// Held-out text, the same for every seed. A language without any is left out.
    fn validation(&self) -> Vec<Validation>;
}

/// Held-out batches of one language, or of one pair of languages.
#[derive(Debug, Clone, PartialEq)]
pub struct Validation {
    /// `en`, or `en-fr`.
    pub of: String,
    pub batches: Vec<LanguageModelBatch>,
}

/// An objective, ready to make batches.
///
/// # Errors
/// When there is no text for it.
pub fn open<'a>(
    settings: &ObjectiveSettings,
    text: &'a Text,
    batches: &BatchSettings,
) -> Result<Box<dyn Objective + 'a>> {
    Ok(match settings {
        ObjectiveSettings::MaskedLm {
            rate,
            position_sampling,
        } => Box::new(masked_lm::MaskedLm::open(
            *rate,
            *position_sampling,
            text,
            batches,
        )?),
        ObjectiveSettings::CausalLm => Box::new(causal_lm::CausalLm::open(text, batches)?),
        ObjectiveSettings::TranslationLm {
            rate,
            position_sampling,
        } => Box::new(translation_lm::TranslationLm::open(
            *rate,
            *position_sampling,
            text,
            batches,
        )?),
    })
}
