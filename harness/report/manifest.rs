//! `manifest.json`: what was run, on what, with which settings, and what each cell of the results rests on.

use std::collections::BTreeMap;

use crate::metrics::bleu::Smoothing;
use crate::spec::claims::selects;
pub use crate::spec::settings::Scale;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A column of facts about one run. Written with sorted keys wherever a map occurs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub study: String,
    pub profile: String,
    pub title: String,
    pub paper: Paper,
    pub scale: Scale,
    /// Fingerprint of everything the study's settings say about results: `report --check` fails when it differs.
    pub settings_fingerprint: String,
    /// The resolved settings of every variant.
    pub settings: BTreeMap<String, Value>,
    /// In the order of the study file.
    pub variants: Vec<Variant>,
    pub languages: Languages,
    /// What the study evaluates, in the order of the study file.
    pub evaluations: Vec<Evaluation>,
    /// Selection rules, in the order of the study file.
    pub selections: Vec<String>,
    pub seeds: Seeds,
    pub sources: Vec<Source>,
    /// Counts of the prepared data: a JSON object for people.
    pub data_facts: Value,
    /// How the synthetic languages differ from the default family; empty when they do not, or are not used.
    pub synthetic_deviations: Vec<String>,
    /// Job label -> fingerprint of its artifact.
    pub jobs: BTreeMap<String, String>,
    pub provenance: Provenance,
    /// Every fine-tuning configuration tried, chosen or not.
    pub configurations: Vec<Configuration>,
    /// Runs that did not end well, and cells without predictions. Collapsed cells are found from the predictions.
    pub statuses: Vec<RunStatus>,
    /// Baselines that read the test set's text alone.
    pub baselines: Vec<Baseline>,
    /// Who translated training and test sets, per language: `en -> sw: XNLI-1.0's machine translation`.
    pub translations: BTreeMap<String, String>,
    /// How translations were scored; absent where a study does not translate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translation_scores: Option<TranslationScores>,
}

impl Manifest {
    /// The selection rules that apply to a task: translation models are chosen by BLEU, fine-tuned ones by dev sets.
    pub fn selections_of(&self, task: &str) -> Vec<&str> {
        let rules = self.selections.iter().map(String::as_str);
        rules.filter(|rule| selects(rule, task)).collect()
    }

    /// The first of them; empty where there is none.
    pub fn selection_of(&self, task: &str) -> &str {
        self.selections_of(task)
            .first()
            .copied()
            .unwrap_or_default()
    }

    /// Of BLEU.
    pub fn smoothing(&self) -> Smoothing {
        let scores = self.translation_scores.as_ref();
        scores.map_or(Smoothing::Exponential, |scores| scores.smoothing)
    }
}

/// What makes scores of translations comparable with others, and what they are to be read against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TranslationScores {
    pub smoothing: Smoothing,
    /// As sacreBLEU prints them.
    pub bleu_signature: String,
    pub chrf_signature: String,
    /// Direction -> BLEU of the source as its own translation.
    pub copy: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paper {
    pub title: String,
    pub url: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    pub name: String,
    /// For tables and plots.
    pub label: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Languages {
    pub source: String,
    pub targets: Vec<String>,
    /// Code -> name in English.
    pub names: BTreeMap<String, String>,
}

/// One (task, regime) and the languages it is scored in; mixed pairs are `premise+hypothesis`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    pub task: String,
    pub regime: String,
    pub languages: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seeds {
    pub data: u64,
    pub pretrain: Vec<u64>,
    pub finetune: Vec<u64>,
}

/// Where data came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub name: String,
    /// Last part of its path, or as many as tell it from the others -> hash of its bytes.
    pub files: BTreeMap<String, FileHash>,
    /// Commit of a hub repository.
    pub revision: Option<String>,
    pub licence: String,
    pub citation: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileHash {
    pub bytes: u64,
    pub blake3: String,
    /// Recorded for downloads, whose publishers state it.
    pub sha256: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    pub git_commit: Option<String>,
    pub program_version: String,
    /// `cpu`, or the card's name. Several when jobs ran on different ones.
    pub devices: Vec<String>,
    /// `avx512`, ...: bits are identical within one kind only.
    pub instruction_sets: Vec<String>,
    pub threads: usize,
    /// Stage name -> what it cost.
    pub stages: BTreeMap<String, StageCost>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageCost {
    pub jobs: usize,
    pub seconds: f64,
    pub tokens: u64,
}

/// One fine-tuning configuration of the grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    pub variant: String,
    pub pretrain_seed: u64,
    pub finetune_seed: u64,
    /// What it was trained on: `en`, `ko (translated)`, `all`.
    pub training_set: String,
    /// `encoder_learning_rate 2.5e-5, batch_size 16`.
    pub configuration: String,
    /// Selection rule (and language where it chooses per language: `target_dev ko`) -> best dev accuracy, percent.
    pub dev_scores: BTreeMap<String, f64>,
    /// The keys of `dev_scores` for which it was chosen.
    pub chosen: Vec<String>,
}

/// A run that needs a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunStatus {
    pub variant: String,
    pub pretrain_seed: u64,
    pub finetune_seed: Option<u64>,
    /// Which stage or cell: `pretrain`, `finetune en`, `xnli/zero_shot/ko`.
    pub what: String,
    pub kind: StatusKind,
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusKind {
    /// Training met a number that is not finite.
    Diverged,
    /// Not run yet, or its job failed.
    Missing,
}

impl StatusKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Diverged => "diverged",
            Self::Missing => "missing",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// `majority`, `hypothesis_only`, `overlap`.
    pub name: String,
    /// Language -> test accuracy, percent.
    pub accuracy: BTreeMap<String, f64>,
}
