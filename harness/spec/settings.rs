//! The typed sections of a study file. One [`Settings`] is what one variant of one profile asks for.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::source::{NliSource, ParallelSource, TextSource, WordSource};
use crate::data::synthetic::FamilySettings;
use crate::data::text::TextPipeline;
use crate::data::tokenizer::TokenizerSettings;
use crate::model::ModelSettings;
use crate::spec::claims::Claim;
use crate::spec::finetune::FinetuneSettings;
use crate::spec::pretrain::PretrainSettings;
use crate::spec::probes::{LanguageModellingSettings, WordEmbeddingsSettings};
use crate::spec::tables::Table;
use crate::spec::translation::TranslationSettings;
use crate::spec::translator::TranslatorSettings;

/// A study of cross-lingual transfer: what to train, on which text, how to evaluate it, and what the paper claims.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StudyFile {
    /// Name of the study: lower-case letters, digits, `-` and `_`. Names the folders of its results.
    pub study: String,
    /// One line for the head of the report.
    #[serde(default)]
    pub title: Option<String>,
    /// The paper whose table is reproduced.
    #[serde(default)]
    pub paper: Option<Paper>,
    /// How large the study is; decides how verdicts are worded. `synthetic` is implied by `data.synthetic`.
    #[serde(default)]
    pub scale: Option<Scale>,
    /// The language of the labelled training data and the languages it is transferred to.
    pub languages: Languages,
    /// Where text comes from.
    pub data: DataSettings,
    /// How text becomes tokens.
    pub tokenizer: TokenizerSettings,
    /// The encoder.
    pub model: ModelSettings,
    /// Pretraining, or `none` for an encoder that starts at random.
    pub pretrain: Pretraining,
    /// The task and how models are fine-tuned and selected for it. A study has one or more of this section and the three below.
    #[serde(default)]
    #[schemars(with = "FinetuneSettings")]
    pub finetune: Option<FinetuneSettings>,
    /// Translation models: what they start from, how they are trained and tested.
    #[serde(default)]
    #[schemars(with = "TranslationSettings")]
    pub translation: Option<TranslationSettings>,
    /// Perplexity of held-out text under the pretrained models.
    #[serde(default)]
    #[schemars(with = "LanguageModellingSettings")]
    pub language_modelling: Option<LanguageModellingSettings>,
    /// Likeness of words by the pretrained models' input embeddings.
    #[serde(default)]
    #[schemars(with = "WordEmbeddingsSettings")]
    pub word_embeddings: Option<WordEmbeddingsSettings>,
    /// Seeds; every combination of a pretraining and a fine-tuning seed is run.
    pub seeds: Seeds,
    /// What is compared. Each variant says only what differs from the rest of the file: a dotted path and its new value
    /// (`pretrain.objectives: [causal_lm]`), which replaces what stands there. `label` is the name in tables and plots.
    pub variants: BTreeMap<String, Overrides>,
    /// The same study at other sizes: dotted paths and new values, applied before the variants. `xlt run --profile NAME`
    /// picks one; the first of the file is the default.
    #[serde(default)]
    pub profiles: BTreeMap<String, Overrides>,
    /// Statements that the results support, contradict or leave open.
    #[serde(default)]
    pub claims: Vec<Claim>,
    /// Tables to write, in the paper's layout.
    #[serde(default)]
    pub tables: Vec<Table>,
}

/// Dotted paths and the values that replace what stands there.
pub type Overrides = BTreeMap<String, serde_json::Value>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Paper {
    /// Title of the paper.
    pub title: String,
    /// Where to read it.
    pub url: String,
}

/// The size of a study, as verdicts name it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Generated languages.
    Synthetic,
    /// Real text, far below the paper's size.
    Small,
    /// What one GPU does in a sitting.
    SingleGpu,
    /// The paper's own sizes and data.
    Paper,
}

impl Scale {
    pub fn name(self) -> &'static str {
        match self {
            Self::Synthetic => "synthetic",
            Self::Small => "small",
            Self::SingleGpu => "single_gpu",
            Self::Paper => "paper",
        }
    }

    /// How a verdict at this scale is worded; nothing at the paper's own.
    pub fn wording(self) -> &'static str {
        match self {
            Self::Synthetic => "synthetic",
            Self::Small => "at small scale",
            Self::SingleGpu => "at single-GPU scale",
            Self::Paper => "",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Languages {
    /// The language of the labelled training data.
    pub source: String,
    /// The languages the task is transferred to.
    pub targets: Vec<String>,
    /// Further languages that are only pretrained on.
    #[serde(default)]
    pub pretrain_only: Vec<String>,
}

impl Languages {
    /// Source first, then targets: the languages that are evaluated.
    pub fn evaluated(&self) -> Vec<&str> {
        std::iter::once(&self.source)
            .chain(&self.targets)
            .map(String::as_str)
            .collect()
    }

    /// All languages of the study, in the order of their language embeddings.
    pub fn all(&self) -> Vec<&str> {
        self.evaluated()
            .into_iter()
            .chain(self.pretrain_only.iter().map(String::as_str))
            .collect()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSettings {
    /// What is done to all text before tokenisation. No default: XLM-15 and XLM-17/100 differ.
    pub text_pipeline: TextPipeline,
    /// A family of generated languages; everything below then comes from it.
    #[serde(default)]
    pub synthetic: Option<FamilySettings>,
    /// Text for pretraining and for the tokenizer. A language is read from the first source that has it.
    #[serde(default)]
    pub monolingual: Vec<TextSource>,
    /// Most sentences to take of each language's text; all when absent.
    #[serde(default)]
    pub monolingual_limit: Option<u64>,
    /// Sentences of each language kept apart to measure perplexity (XLM: 5,000, get-data.sh).
    pub monolingual_validation: u64,
    /// Sentence pairs for translation language modelling and for translation.
    #[serde(default)]
    pub parallel: Vec<ParallelSource>,
    /// Sentence pairs that translation is tested on. A training pair or sentence that is among them is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parallel_test: Vec<ParallelSource>,
    /// Most pairs to take of each pair of languages; all when absent.
    #[serde(default)]
    pub parallel_limit: Option<u64>,
    /// Pairs of each pair of languages kept apart to measure perplexity and to validate translation, where `parallel_dev` has none.
    #[serde(default)]
    pub parallel_validation: u64,
    /// Sentence pairs to measure perplexity and to validate translation with: all but those with a sentence of a test set. A training
    /// pair that has a sentence of theirs is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parallel_dev: Vec<ParallelSource>,
    /// Natural language inference.
    #[serde(default)]
    pub nli: NliData,
    /// Words of the source language with their translations, for `word_embeddings`. Those of generated languages are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dictionaries: Vec<WordSource>,
    /// Pairs of words that people have rated, for `word_embeddings`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub word_similarity: Vec<WordSource>,
}

impl DataSettings {
    /// Whether sentence pairs of the source language with `target` are kept to validate with.
    pub fn validates_pairs(&self, target: &str) -> bool {
        self.parallel_validation > 0 || self.parallel_dev.iter().any(|source| source.covers(target))
    }
}

/// Which files hold the parts of XNLI; each list may name several files for different languages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NliData {
    /// Training pairs in the source language.
    #[serde(default)]
    pub train: Vec<NliSource>,
    /// Most training pairs to take, drawn by whole premises, the same rows in every language; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<u64>,
    /// Development sets, human-translated.
    #[serde(default)]
    pub dev: Vec<NliSource>,
    /// Test sets, human-translated.
    #[serde(default)]
    pub test: Vec<NliSource>,
    /// The training pairs machine-translated into the target languages (translate-train).
    #[serde(default)]
    pub translated_train: Vec<NliSource>,
    /// The target languages' test sets machine-translated into the source language (translate-test); `language` is the
    /// language the rows were translated from.
    #[serde(default)]
    pub translated_test: Vec<NliSource>,
    /// A translation model of the study's own, for the translations that no file above holds. Of generated languages
    /// translations are exact without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TranslatorSettings")]
    pub translator: Option<Box<TranslatorSettings>>,
}

/// `none`, or the settings of pretraining.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case", untagged)]
pub enum Pretraining {
    None(NoPretraining),
    Settings(Box<PretrainSettings>),
}

/// The word `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoPretraining {
    None,
}

impl Pretraining {
    pub fn settings(&self) -> Option<&PretrainSettings> {
        match self {
            Self::None(_) => None,
            Self::Settings(settings) => Some(settings),
        }
    }
}

/// Written by hand because serde's `untagged` loses the place of an error.
impl<'de> Deserialize<'de> for Pretraining {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Pretraining;
            fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                formatter.write_str("`none` or the settings of pretraining")
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Pretraining, E> {
                match value {
                    "none" => Ok(Pretraining::None(NoPretraining::None)),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                map: A,
            ) -> Result<Pretraining, A::Error> {
                PretrainSettings::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    .map(|settings| Pretraining::Settings(Box::new(settings)))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Seeds by what they decide. A name never enters a seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Seeds {
    /// Generated languages, splits, samples for the tokenizer.
    pub data: u64,
    /// Initialisation, batches, masks and dropout of pretraining; for an encoder that starts at random, its initialisation.
    pub pretrain: Vec<u64>,
    /// The head, the order of examples and dropout of fine-tuning; batches, noise and dropout of translation.
    pub finetune: Vec<u64>,
}

/// What one variant asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub languages: Languages,
    pub data: DataSettings,
    pub tokenizer: TokenizerSettings,
    pub model: ModelSettings,
    pub pretrain: Pretraining,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finetune: Option<FinetuneSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translation: Option<TranslationSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_modelling: Option<LanguageModellingSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub word_embeddings: Option<WordEmbeddingsSettings>,
    pub seeds: Seeds,
}
