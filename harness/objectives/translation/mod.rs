//! What a model with a decoder is trained on: one file per objective.
//!
//! ```text
//! Text (corpora) -> sentences | sentence pairs -> objective: a batch of sources and targets for every update
//! ```
//! To add one: a file with a type that implements [`TranslationObjective`], a variant of [`TranslationObjectiveSettings`], a
//! line in [`open`]. The batch of an update follows from (seed, update) and, for back-translation, the model at that update.
//! Differs: sentences and pairs are drawn at random, with replacement; XLM goes through its corpus in a new order each time.

pub mod back_translation;
pub mod denoising;
pub mod noise;
pub mod supervised;

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{LanguageText, PairText, Text};
use crate::data::corpus::{Corpus, ParallelCorpus};
use crate::data::tokenizer::END_OF_SENTENCE;
use crate::language;
use crate::model::{Batch, Direction as Sight, Encoder, LanguageModelBatch, Targets};
use crate::problem::Problem;
use crate::random::Random;
use noise::Noise;

/// One objective of translation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TranslationObjectiveSettings {
    /// Translate sentences that people have translated. Needs sentence pairs for every direction.
    Supervised {
        /// Weight of the loss by updates made.
        #[serde(default)]
        weight: Weight,
    },
    /// Restore a sentence from a noisy copy of it, in each language (Lample et al. 2018, arXiv 1711.00043; XLM's AE).
    Denoising {
        /// What is done to the copy.
        #[serde(default)]
        noise: Noise,
        /// Weight of the loss by updates made. XLM: from 1 to 0.1 over 100,000 rounds, to 0 over 200,000 more; a round is four updates
        /// where two languages are translated both ways.
        #[serde(default)]
        weight: Weight,
    },
    /// Translate back what the model, as it is, has translated (Sennrich et al. 2016; XLM's BT).
    BackTranslation {
        /// Weight of the loss by updates made.
        #[serde(default)]
        weight: Weight,
    },
}

impl TranslationObjectiveSettings {
    /// As in the study file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Supervised { .. } => supervised::NAME,
            Self::Denoising { .. } => denoising::NAME,
            Self::BackTranslation { .. } => back_translation::NAME,
        }
    }

    /// Whether it is trained on sentence pairs, and not on each language's own text.
    pub fn reads_sentence_pairs(&self) -> bool {
        match self {
            Self::Supervised { .. } => true,
            Self::Denoising { .. } | Self::BackTranslation { .. } => false,
        }
    }

    /// Whether its batches are translated by the model itself.
    pub fn searches(&self) -> bool {
        match self {
            Self::BackTranslation { .. } => true,
            Self::Supervised { .. } | Self::Denoising { .. } => false,
        }
    }

    pub fn weight(&self) -> &Weight {
        match self {
            Self::Supervised { weight }
            | Self::Denoising { weight, .. }
            | Self::BackTranslation { weight } => weight,
        }
    }

    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = self.weight().validate();
        if let Self::Denoising { noise, .. } = self {
            problems.extend(noise.validate());
        }
        problems
    }
}

/// Points (updates made, weight) with straight lines between them; the first and the last go on for ever. 1 unless given.
///
/// Differs: XLM counts rounds over all objectives, four updates where there is denoising in two languages and back-translation in
/// two directions, and shuffles them within a round; the weight of its back-translation is there or not, and scales nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Weight(pub Vec<(u64, f64)>);

impl Default for Weight {
    fn default() -> Self {
        Self(vec![(0, 1.0)])
    }
}

impl Weight {
    /// The weight after `updates` updates.
    pub fn at(&self, updates: u64) -> f64 {
        let after = self.0.partition_point(|(at, _)| *at <= updates);
        match (
            after.checked_sub(1).and_then(|before| self.0.get(before)),
            self.0.get(after),
        ) {
            (Some((start, from)), Some((end, to))) => {
                let share = (updates - start) as f64 / (end - start) as f64;
                from + share * (to - from)
            }
            (Some((_, weight)), None) | (None, Some((_, weight))) => *weight,
            (None, None) => 0.0,
        }
    }

    fn validate(&self) -> Vec<Problem> {
        let ascending = self.0.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let sensible = self
            .0
            .iter()
            .all(|(_, weight)| (0.0..=1e6).contains(weight));
        if ascending && sensible && self.0.iter().any(|(_, weight)| *weight > 0.0) {
            return Vec::new();
        }
        vec![Problem::new(
            "weight",
            format!("a weight of {:?}", self.0),
            "give points of updates and weights, such as [[0, 1.0], [100000, 0.1]]: updates ascending, weights from 0, one above",
        )]
    }
}

/// From one language into another: `en-fr`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Direction {
    pub from: String,
    pub into: String,
}

impl fmt::Display for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.from, self.into)
    }
}

impl FromStr for Direction {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('-') {
            Some((from, into)) if !from.is_empty() && !into.is_empty() && from != into => {
                Ok(Self {
                    from: from.to_owned(),
                    into: into.to_owned(),
                })
            }
            _ => Err(format!(
                "`{text}` is no direction; write two languages, such as en-fr"
            )),
        }
    }
}

impl Direction {
    /// The languages in alphabetical order, as corpora of pairs are named.
    pub fn pair(&self) -> (&str, &str) {
        language::ordered(&self.from, &self.into)
    }

    /// The language that is not the study's source.
    pub fn target<'d>(&'d self, source: &str) -> &'d str {
        match self.from == source {
            true => &self.into,
            false => &self.from,
        }
    }
}

/// The languages of some directions, each once.
pub fn languages(directions: &[Direction]) -> Vec<String> {
    let mut languages: Vec<String> = Vec::new();
    for language in directions
        .iter()
        .flat_map(|direction| [&direction.from, &direction.into])
    {
        if !languages.contains(language) {
            languages.push(language.clone());
        }
    }
    languages
}

/// The pairs of languages of some directions, each once and in alphabetical order.
pub fn language_pairs(directions: &[Direction]) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for direction in directions {
        let (first, second) = direction.pair();
        let pair = (first.to_owned(), second.to_owned());
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    pairs
}

impl Serialize for Direction {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Direction {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Direction {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Direction".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[^-]+-[^-]+$",
            "description": "From one language into another: `en-fr`."
        })
    }
}

/// How batches are made of text, whatever the objective.
#[derive(Debug, Clone, PartialEq)]
pub struct TranslationBatches {
    /// Tokens of the targets of an update, at most; one sentence at least.
    pub tokens_per_batch: usize,
    /// Longest sentence, in tokens without its ends.
    pub maximum_length: usize,
    pub seed: u64,
}

/// One objective in one direction or language.
pub trait TranslationObjective: Send + Sync {
    /// `supervised en-fr`, `denoising en`.
    fn name(&self) -> String;

    /// Weight of its loss after `updates` updates; it is left out where that is zero.
    fn weight(&self, updates: u64) -> f64;

    /// The batch of an update, the same whenever it is asked for with the same model.
    fn batch(&self, update: u64, model: &Encoder) -> Result<LanguageModelBatch>;
}

/// The objectives of some directions, one behind the other, ready to make batches.
///
/// # Errors
/// When there is no text for one.
pub fn open<'a>(
    settings: &'a [TranslationObjectiveSettings],
    directions: &[Direction],
    text: &'a Text,
    batches: &TranslationBatches,
) -> Result<Vec<Box<dyn TranslationObjective + 'a>>> {
    let mut opened: Vec<Box<dyn TranslationObjective + 'a>> = Vec::new();
    let languages = languages(directions);
    for objective in settings {
        match objective {
            TranslationObjectiveSettings::Supervised { weight } => {
                for direction in directions {
                    opened.push(Box::new(supervised::Supervised::open(
                        weight, direction, text, batches,
                    )?));
                }
            }
            TranslationObjectiveSettings::Denoising { noise, weight } => {
                for language in &languages {
                    opened.push(Box::new(denoising::Denoising::open(
                        *noise, weight, language, text, batches,
                    )?));
                }
            }
            TranslationObjectiveSettings::BackTranslation { weight } => {
                for direction in directions {
                    opened.push(Box::new(back_translation::BackTranslation::open(
                        weight, direction, text, batches,
                    )?));
                }
            }
        }
    }
    Ok(opened)
}

/// Sentences of one language that are short enough.
struct Sentences<'a> {
    corpus: &'a Corpus,
    short: Vec<u32>,
    language: u32,
}

impl<'a> Sentences<'a> {
    fn open(language: &str, text: &'a Text, maximum_length: usize) -> Result<Self> {
        let LanguageText { id, train, .. } = language_text(language, text)?;
        let short = short(train, maximum_length);
        ensure!(
            !short.is_empty(),
            "no sentence of `{language}` has 1 to {maximum_length} tokens; raise translation.train.maximum_length or check data.monolingual"
        );
        Ok(Self {
            corpus: train,
            short,
            language: *id,
        })
    }

    /// Sentences drawn one by one until one does not fit any more.
    fn draw(&self, tokens: usize, random: &mut Random) -> Vec<Vec<u32>> {
        let mut drawn = Vec::new();
        let mut used = 0;
        loop {
            let index = self.short[random.below(self.short.len() as u64) as usize];
            let mut sentence = Vec::new();
            self.corpus.sentence(index as usize, &mut sentence);
            used += sentence.len() + 1;
            if used > tokens && !drawn.is_empty() {
                return drawn;
            }
            drawn.push(sentence);
        }
    }
}

fn language_text<'a>(language: &str, text: &'a Text) -> Result<&'a LanguageText> {
    text.languages
        .iter()
        .find(|one| one.name == language)
        .with_context(|| format!("there is no text in `{language}`"))
}

/// Sentence pairs as a direction reads them.
pub struct Pairs<'a> {
    pub text: &'a PairText,
    /// Ids of the languages: from, into.
    pub languages: (u32, u32),
    /// Whether the second side of the pairs is translated from.
    reversed: bool,
}

impl<'a> Pairs<'a> {
    /// # Errors
    /// When there are none of the two languages.
    pub fn open(direction: &Direction, text: &'a Text) -> Result<Self> {
        let (first, second) = direction.pair();
        let pairs = text
            .pairs
            .iter()
            .find(|pair| (pair.names.0.as_str(), pair.names.1.as_str()) == (first, second))
            .with_context(|| format!("there are no sentence pairs of `{first}-{second}`"))?;
        let reversed = pairs.names.0 != direction.from;
        let (first, second) = pairs.ids;
        Ok(Self {
            text: pairs,
            languages: match reversed {
                true => (second, first),
                false => (first, second),
            },
            reversed,
        })
    }

    /// Pair number `index` of one of the corpora: from, into.
    pub fn read(&self, corpus: &ParallelCorpus, index: usize) -> (Vec<u32>, Vec<u32>) {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        corpus.pair(index, &mut first, &mut second);
        match self.reversed {
            true => (second, first),
            false => (first, second),
        }
    }
}

/// Sentences of 1 to `longest` tokens.
fn short(corpus: &Corpus, longest: usize) -> Vec<u32> {
    (0..corpus.sentences())
        .filter(|index| (1..=longest).contains(&corpus.sentence_length(*index)))
        .map(|index| index as u32)
        .collect()
}

/// A sentence between its ends.
pub fn between_ends(sentence: &[u32]) -> Vec<u32> {
    let mut tokens = Vec::with_capacity(sentence.len() + 2);
    tokens.push(END_OF_SENTENCE);
    tokens.extend_from_slice(sentence);
    tokens.push(END_OF_SENTENCE);
    tokens
}

/// A batch of sentences with their sources, both without ends: every token of a target is predicted from those before it,
/// and its end.
pub fn pairs_batch<'s>(
    pairs: impl Iterator<Item = (&'s [u32], &'s [u32])>,
    (source_language, target_language): (u32, u32),
) -> LanguageModelBatch {
    let (mut source, mut batch, mut targets) = (Batch::new(), Batch::new(), Targets::default());
    for (from, into) in pairs {
        source.push(&between_ends(from), source_language);
        let tokens = between_ends(into);
        // Differs: XLM's decoder also reads the last end and predicts nothing from it.
        let first = batch.token_count() as u32;
        targets
            .indices
            .extend(first..first + tokens.len() as u32 - 1);
        targets.labels.extend(&tokens[1..]);
        batch.push(&tokens[..tokens.len() - 1], target_language);
    }
    LanguageModelBatch {
        batch,
        targets,
        direction: Sight::Causal,
        source: Some(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_run_in_straight_lines_between_their_points() {
        let weight = Weight(vec![(0, 1.0), (100, 0.1), (300, 0.0)]);
        for (updates, expected) in [
            (0, 1.0),
            (50, 0.55),
            (100, 0.1),
            (200, 0.05),
            (300, 0.0),
            (9999, 0.0),
        ] {
            assert!((weight.at(updates) - expected).abs() < 1e-12, "{updates}");
        }
        assert_eq!(Weight(vec![(10, 0.5)]).at(0), 0.5);
        assert!(weight.validate().is_empty());
        assert_eq!(Weight(vec![(5, 1.0), (5, 0.5)]).validate().len(), 1);
        assert_eq!(Weight(vec![]).validate().len(), 1);
        assert_eq!(Weight(vec![(0, f64::NAN)]).validate().len(), 1);
    }

    #[test]
    fn a_direction_is_two_languages() {
        let direction: Direction = "fr-en".parse().unwrap();
        assert_eq!(direction.pair(), ("en", "fr"));
        assert_eq!(direction.to_string(), "fr-en");
        for wrong in ["en", "en-", "-fr", "en-en", ""] {
            assert!(wrong.parse::<Direction>().is_err());
        }
    }

    #[test]
    fn every_token_of_a_target_is_predicted_and_its_end() {
        let pairs = [(&[20, 21][..], &[30][..]), (&[22][..], &[31, 32][..])];
        let input = pairs_batch(pairs.into_iter(), (0, 1));
        let end = END_OF_SENTENCE;
        assert_eq!(
            input.source.unwrap().tokens,
            [end, 20, 21, end, end, 22, end]
        );
        assert_eq!(input.batch.tokens, [end, 30, end, 31, 32]);
        assert_eq!(input.batch.positions, [0, 1, 0, 1, 2]);
        assert_eq!(input.targets.indices, [0, 1, 2, 3, 4]);
        assert_eq!(input.targets.labels, [30, end, 31, 32, end]);
    }
}
