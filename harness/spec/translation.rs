//! Settings of translation: what the two sides start from, what they are trained on, how they are tested.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metrics::bleu::Smoothing;
use crate::metrics::translation_tokens::Tokenization;
use crate::model::ModelSettings;
use crate::objectives::ObjectiveSettings;
use crate::objectives::translation::{Direction, TranslationBatches, TranslationObjectiveSettings};
use crate::problem::Problem;
use crate::spec::pretrain::{LARGEST_BATCH, MOST_UPDATES, Precision};
use crate::training::AdamSettings;

/// More hypotheses than anybody has looked at; ours.
const WIDEST_BEAM: usize = 1000;

/// The YAML section `translation:`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TranslationSettings {
    /// What is learnt: `[en-fr, fr-en]`.
    pub directions: Vec<Direction>,
    /// What the encoder starts from.
    pub encoder: Start,
    /// What the decoder starts from. Its attention over the source always starts at random (XLM).
    pub decoder: Start,
    /// How the model is trained.
    pub train: TranslationTraining,
    /// How it is tested.
    pub test: TranslationTest,
}

/// What one side of a translation model starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Start {
    /// Nothing.
    Random,
    /// The token embeddings of a pretrained model (XLM's reload_emb).
    Embeddings {
        /// What that model was pretrained on; `pretrain.objectives` unless given.
        #[serde(default)]
        objectives: Option<Vec<ObjectiveSettings>>,
    },
    /// All of a pretrained model that the side has.
    Pretrained {
        /// What that model was pretrained on; `pretrain.objectives` unless given.
        #[serde(default)]
        objectives: Option<Vec<ObjectiveSettings>>,
        /// Whether its token embeddings come along (XLM: yes).
        #[serde(default = "yes")]
        embeddings: bool,
    },
}

fn yes() -> bool {
    true
}

impl Start {
    /// As in the study file.
    fn kind(&self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Embeddings { .. } => "embeddings",
            Self::Pretrained { .. } => "pretrained",
        }
    }

    /// What of a pretrained model is copied.
    pub fn copied(&self) -> Copied {
        match self {
            Self::Random => Copied::Nothing,
            Self::Embeddings { .. } => Copied::Embeddings,
            Self::Pretrained {
                embeddings: true, ..
            } => Copied::Everything,
            Self::Pretrained {
                embeddings: false, ..
            } => Copied::EverythingButEmbeddings,
        }
    }

    /// The objectives of the pretrained model, where they are not those of the section `pretrain`.
    pub fn objectives(&self) -> Option<&Vec<ObjectiveSettings>> {
        match self {
            Self::Random => None,
            Self::Embeddings { objectives } | Self::Pretrained { objectives, .. } => {
                objectives.as_ref()
            }
        }
    }

    /// Whether a pretrained model is needed.
    pub fn is_pretrained(&self) -> bool {
        *self != Self::Random
    }
}

/// What of a pretrained model a side of a translation model begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Copied {
    /// The side starts at random.
    Nothing,
    /// The table of tokens.
    Embeddings,
    /// All that the side has in common with it.
    Everything,
    /// The same without the table of tokens.
    EverythingButEmbeddings,
}

/// How a translation model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TranslationTraining {
    /// What is learnt. Objectives take turns, one direction or language and update each (XLM steps each by itself).
    pub objectives: Vec<TranslationObjectiveSettings>,
    /// Longest sentence that is trained on, in tokens without its ends; longer ones are left out (XLM: 100).
    #[serde(default = "default_maximum_length")]
    pub maximum_length: usize,
    /// Optimizer steps.
    pub updates: u64,
    /// Tokens of the targets of an update, at most. Differs: XLM's 2,000 on each card count both sides of a pair and their ends where
    /// it learns from pairs, one side where it denoises and translates back, and its batches hold sentences of similar length.
    pub tokens_per_batch: usize,
    /// The arithmetic of training and of the search. No default: it changes results.
    pub precision: Precision,
    /// Adam and its schedule.
    pub optimizer: AdamSettings,
    /// Updates between two translations of the validation pairs; the model with the best mean BLEU of all tested directions is
    /// kept. Differs: XLM keeps the best of one direction.
    pub validation_every: u64,
    /// Validations without a better one after which training ends (XLM's 10 ends after eleven); all updates are made when absent.
    #[serde(default)]
    pub patience: Option<u64>,
}

fn default_maximum_length() -> usize {
    100
}

impl TranslationTraining {
    /// How batches are made for a seed.
    pub fn batches(&self, seed: u64) -> TranslationBatches {
        TranslationBatches {
            tokens_per_batch: self.tokens_per_batch,
            maximum_length: self.maximum_length,
            seed,
        }
    }

    /// Whether an objective needs each language's own text.
    pub fn uses_monolingual_text(&self) -> bool {
        let mut objectives = self.objectives.iter();
        objectives.any(|objective| !objective.reads_sentence_pairs())
    }

    /// Whether an objective is trained on sentence pairs.
    pub fn uses_sentence_pairs(&self) -> bool {
        let mut objectives = self.objectives.iter();
        objectives.any(TranslationObjectiveSettings::reads_sentence_pairs)
    }
}

/// How a translation model is tested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TranslationTest {
    /// What is tested, and what chooses the checkpoint; all that is learnt unless given. Variants that learn other directions can
    /// be compared on those they have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directions: Option<Vec<Direction>>,
    /// Ways to search for a translation; all are scored. The first is what validation uses.
    pub searches: Vec<SearchSettings>,
    /// How BLEU is computed.
    pub bleu: BleuSettings,
}

/// A beam: `{beam: 1}` is greedy search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchSettings {
    /// Hypotheses kept at every length.
    pub beam: usize,
    /// Hypotheses are ranked by log probability over length^penalty (XLM: 1).
    #[serde(default = "default_length_penalty")]
    pub length_penalty: f64,
}

fn default_length_penalty() -> f64 {
    1.0
}

impl SearchSettings {
    /// As claims and tables name it: `greedy`, `beam_4`.
    pub fn name(&self) -> String {
        match self.beam {
            1 => "greedy".to_owned(),
            beam => format!("beam_{beam}"),
        }
    }
}

/// Variants of BLEU (Papineni et al. 2002; Post 2018). No defaults: scores of different ones cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BleuSettings {
    /// sacreBLEU's tokenisations. XLM reports `none` on text that its pipeline has tokenised.
    pub tokenization: Tokenization,
    /// What becomes of n-grams without a match. sacreBLEU: `exp`; XLM (multi-bleu): `none`.
    pub smoothing: Smoothing,
}

impl TranslationSettings {
    /// The directions that are tested.
    pub fn tested(&self) -> &[Direction] {
        self.test.directions.as_ref().unwrap_or(&self.directions)
    }

    /// Every problem at once; `model` says how long sequences may be, `languages` which there are.
    pub fn validate(&self, model: &ModelSettings, languages: &[&str]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |field: &str, what: String, remedy: String| {
            problems.push(Problem::new(field, what, remedy));
        };
        if self.directions.is_empty() {
            add(
                "directions",
                "no directions".into(),
                "name one, such as en-fr".into(),
            );
        }
        for (index, direction) in self.directions.iter().enumerate() {
            let field = format!("directions.{index}");
            if self.directions[..index].contains(direction) {
                let remedy = "name each direction once";
                add(
                    &field,
                    format!("`{direction}` a second time"),
                    remedy.into(),
                );
            }
            for language in [&direction.from, &direction.into] {
                if !languages.contains(&language.as_str()) {
                    add(
                        &field,
                        format!("the language `{language}`, which the study does not have"),
                        format!("choose among {}", languages.join(", ")),
                    );
                }
            }
        }
        for (index, direction) in self.test.directions.iter().flatten().enumerate() {
            if !self.directions.contains(direction) {
                add(
                    &format!("test.directions.{index}"),
                    format!("the direction `{direction}`, which is not learnt"),
                    "test what translation.directions names".into(),
                );
            }
        }
        if self.tested().is_empty() && !self.directions.is_empty() {
            add(
                "test.directions",
                "no directions".into(),
                "name one, or leave the line out".into(),
            );
        }
        for (side, start) in [("encoder", &self.encoder), ("decoder", &self.decoder)] {
            for (index, objective) in start.objectives().into_iter().flatten().enumerate() {
                for problem in objective.validate() {
                    add(
                        &format!(
                            "{side}.{}.objectives.{index}.{}.{}",
                            start.kind(),
                            objective.name(),
                            problem.field
                        ),
                        problem.what,
                        problem.remedy,
                    );
                }
            }
            if start.objectives().is_some_and(Vec::is_empty) {
                add(
                    &format!("{side}.{}.objectives", start.kind()),
                    "no objectives".into(),
                    "name one, such as causal_lm, or start at random".into(),
                );
            }
        }
        if !model.language_embeddings {
            let mut sources = self.directions.iter().map(|direction| &direction.from);
            let twice = sources.clone().enumerate().find(|(index, from)| {
                let mut earlier = self.directions[..*index].iter();
                earlier.any(|other| other.from == **from)
            });
            let denoises = self.train.objectives.iter().any(|objective| {
                matches!(objective, TranslationObjectiveSettings::Denoising { .. })
            });
            let ambiguous = match denoises {
                true => sources.next(),
                false => twice.map(|(_, from)| from),
            };
            if let Some(from) = ambiguous {
                add(
                    "directions",
                    format!(
                        "more than one language to write for a sentence in `{from}`, of which nothing tells the decoder"
                    ),
                    "set model.language_embeddings to true".into(),
                );
            }
        }
        self.train_problems(model, &mut add);
        let test = &self.test;
        if test.searches.is_empty() {
            add(
                "test.searches",
                "no searches".into(),
                "name one, such as {beam: 1}".into(),
            );
        }
        for (index, search) in test.searches.iter().enumerate() {
            let field = format!("test.searches.{index}");
            if !(1..=WIDEST_BEAM).contains(&search.beam) {
                add(
                    &field,
                    format!("a beam of {}", search.beam),
                    format!("choose between 1 and {WIDEST_BEAM}"),
                );
            }
            if !(0.0..=10.0).contains(&search.length_penalty) {
                add(
                    &field,
                    format!("a length penalty of {}", search.length_penalty),
                    "choose between 0 and 10, such as 1".into(),
                );
            }
            if test.searches[..index]
                .iter()
                .any(|earlier| earlier.beam == search.beam)
            {
                add(
                    &field,
                    format!("a second search with a beam of {}", search.beam),
                    "name each width once".into(),
                );
            }
        }
        problems
    }

    fn train_problems(&self, model: &ModelSettings, add: &mut impl FnMut(&str, String, String)) {
        let train = &self.train;
        if train.objectives.is_empty() {
            add(
                "train.objectives",
                "no objectives".into(),
                "name one, such as supervised".into(),
            );
        }
        for (index, objective) in train.objectives.iter().enumerate() {
            let name = objective.name();
            if train.objectives[..index]
                .iter()
                .any(|earlier| earlier.name() == name)
            {
                add(
                    &format!("train.objectives.{index}"),
                    format!("`{name}` a second time"),
                    "name each objective once".into(),
                );
            }
            for problem in objective.validate() {
                add(
                    &format!("train.objectives.{index}.{name}.{}", problem.field),
                    problem.what,
                    problem.remedy,
                );
            }
        }
        // Weights are straight lines between points: where they all are zero, they are so at a point or at the end.
        let weights = || {
            train
                .objectives
                .iter()
                .map(TranslationObjectiveSettings::weight)
        };
        let last = train.updates.saturating_sub(1);
        let points = weights().flat_map(|weight| weight.0.iter().map(|(updates, _)| *updates));
        let idle = points
            .chain([last])
            .filter(|updates| *updates <= last)
            .find(|updates| weights().all(|weight| weight.at(*updates) == 0.0));
        if let (Some(updates), false) = (idle, train.objectives.is_empty()) {
            add(
                "train.objectives",
                format!("every weight zero after {updates} updates"),
                "leave one above zero, or end earlier with train.updates".into(),
            );
        }
        // Both ends of a sentence take a position.
        let room = model.positions.saturating_sub(2);
        if !(1..=room).contains(&train.maximum_length) {
            add(
                "train.maximum_length",
                format!("sentences of {} tokens", train.maximum_length),
                format!("choose between 1 and {room}, the model's positions less two for the ends"),
            );
        }
        for (field, value, most) in [
            ("train.updates", train.updates, MOST_UPDATES),
            (
                "train.validation_every",
                train.validation_every,
                MOST_UPDATES,
            ),
            (
                "train.tokens_per_batch",
                train.tokens_per_batch as u64,
                LARGEST_BATCH as u64,
            ),
            ("train.patience", train.patience.unwrap_or(1), MOST_UPDATES),
        ] {
            if !(1..=most).contains(&value) {
                add(
                    field,
                    format!("the number {value}"),
                    format!("choose between 1 and {most}"),
                );
            }
        }
        if let Err(wrong) = train.optimizer.validate() {
            for problem in wrong {
                add(
                    &format!("train.optimizer.{}", problem.field),
                    problem.what,
                    problem.remedy,
                );
            }
        }
    }
}
