//! Settings of fine-tuning: the task, the regimes, the grid and the rules that select among its runs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use crate::spec::pretrain::Precision;
use crate::tasks::pooling::Pooling;

/// The YAML section `finetune:`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FinetuneSettings {
    /// What the model learns to do.
    pub task: TaskName,
    /// How the target languages are reached.
    pub regimes: Vec<Regime>,
    /// Restricts a regime to some target languages (`translate_test: [sw]`); all targets where a regime is not named.
    #[serde(default)]
    pub regime_languages: BTreeMap<Regime, Vec<String>>,
    /// Also test on pairs whose premise and hypothesis are in different languages (zero-shot).
    #[serde(default)]
    pub mixed_pairs: bool,
    /// Which hidden states the classifier reads. XLM: `first` (model card of xlm-mlm-xnli15-1024).
    pub pooling: Pooling,
    /// Dropout before the classifier (XLM: 0, glue.py).
    #[serde(default)]
    pub head_dropout: f64,
    /// Longest sentence in tokens; longer ones are cut and counted. XLM cuts training sentences at 256, and two of those
    /// with three `</s>` exceed its 512 positions. Differs: 254 unless given, which fits.
    #[serde(default = "default_maximum_length")]
    pub maximum_length: usize,
    /// Training examples seen between two evaluations on the dev sets (XLM: 20,000).
    pub examples_per_epoch: u64,
    /// Evaluations on the dev sets, and so candidates for selection (XLM: up to 250).
    pub epochs: u64,
    /// Every combination is run; the dev sets choose.
    pub grid: Grid,
    /// Shape of the learning rate over fine-tuning. XLM: `constant`.
    #[serde(default)]
    pub schedule: FinetuneSchedule,
    /// Largest global norm of the gradient; no clipping when absent (XLM: none).
    #[serde(default)]
    pub clip: Option<f64>,
    /// Rules that choose configuration and checkpoint; all are reported from one set of runs.
    pub select_on: Vec<Selection>,
    /// Precision of the arithmetic. No default: it decides results.
    pub precision: Precision,
}

fn default_maximum_length() -> usize {
    254
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskName {
    /// Natural language inference in several languages (Conneau et al. 2018, arXiv 1809.05053).
    Xnli,
}

impl TaskName {
    pub fn name(self) -> &'static str {
        match self {
            Self::Xnli => "xnli",
        }
    }
}

/// How labelled data reaches the target language.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Regime {
    /// Train on the source language, test on the target language.
    ZeroShot,
    /// Train on the training set translated INTO the target language: one model per language.
    TranslateTrain,
    /// Train on the source language and all translations of it together: one model.
    TranslateTrainAll,
    /// Train on the source language, test on the test set translated into the source language.
    TranslateTest,
}

impl Regime {
    pub const ALL: [Self; 4] = [
        Self::ZeroShot,
        Self::TranslateTrain,
        Self::TranslateTrainAll,
        Self::TranslateTest,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::ZeroShot => "zero_shot",
            Self::TranslateTrain => "translate_train",
            Self::TranslateTrainAll => "translate_train_all",
            Self::TranslateTest => "translate_test",
        }
    }
}

/// The development set that chooses configuration and checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// The source language's dev set: zero-shot in the strict sense.
    SourceDev,
    /// The mean over the dev sets of all evaluated languages (XLM-R).
    MeanDev,
    /// Each target language's own dev set: uses target labels (XLM, issue 110 of its repository).
    TargetDev,
}

impl Selection {
    pub const ALL: [Self; 3] = [Self::SourceDev, Self::MeanDev, Self::TargetDev];

    pub fn name(self) -> &'static str {
        match self {
            Self::SourceDev => "source_dev",
            Self::MeanDev => "mean_dev",
            Self::TargetDev => "target_dev",
        }
    }
}

/// Written by hand because the likeliest wrong name deserves a reason.
impl<'de> Deserialize<'de> for Selection {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if let Some(selection) = Self::ALL.into_iter().find(|one| one.name() == name) {
            return Ok(selection);
        }
        if name.to_lowercase().contains("test") {
            return Err(D::Error::custom(format!(
                "`{name}` cannot choose: test sets never select, they are scored once; choose source_dev, mean_dev or target_dev"
            )));
        }
        Err(D::Error::unknown_variant(
            &name,
            &["source_dev", "mean_dev", "target_dev"],
        ))
    }
}

/// Hyper-parameters to try in every combination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Learning rates of the encoder. XLM's README value 2.5e-5 collapses at its size (issue 199); its issue 70 uses
    /// 1.25e-6, 2.5e-6 and 5e-6.
    pub encoder_learning_rate: Vec<f64>,
    /// Learning rates of the classifier (XLM issue 70: 5e-6, 2.5e-5, 1.25e-4).
    pub head_learning_rate: Vec<f64>,
    /// Examples per update (XLM: 4 and 8).
    pub batch_size: Vec<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinetuneSchedule {
    /// The same learning rate throughout (XLM).
    #[default]
    Constant,
    /// Linear warm-up over a fraction of the updates, then linear decay to zero.
    Linear {
        /// Fraction of all updates spent warming up, 0 to 1.
        warm_up: f64,
    },
}
