//! Likeness of words by a model's input embeddings (Lample and Conneau 2019, Table 5): cosine and Euclidean distance
//! of words that translate each other, and cosines beside people's ratings.
//!
//! A cosine says little by itself: vectors that all point one way are alike whatever they mean (Mu and Viswanath 2018, arXiv
//! 1702.01417). So each word is also compared with the translations of all others.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metrics::Measurement;
use crate::model::Model;

/// Where the vectors come from, as results name it.
pub const INPUT_EMBEDDINGS: &str = "input_embeddings";

/// The vector of a word that the tokenizer splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WordVectors {
    /// It has none: pairs with such a word are left out.
    SingleTokens,
    /// The mean of its tokens' vectors.
    MeanOfTokens,
}

/// What becomes of pairs whose words are the same tokens, such as names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameTokens {
    /// They count.
    Keep,
    /// They do not: any table makes them alike.
    LeaveOut,
}

/// The table of input embeddings.
pub struct Embeddings<'m> {
    table: &'m [f32],
    hidden: usize,
    words: WordVectors,
}

impl<'m> Embeddings<'m> {
    pub fn of(model: &'m Model, words: WordVectors) -> Result<Self> {
        let table = model.parameter("embeddings.token");
        Ok(Self {
            table: table.context("the model has no table of input embeddings")?,
            hidden: model.shape().settings.hidden,
            words,
        })
    }

    /// Whether a word of these tokens has a vector.
    pub fn has(&self, tokens: &[u32]) -> bool {
        match self.words {
            WordVectors::SingleTokens => tokens.len() == 1,
            WordVectors::MeanOfTokens => !tokens.is_empty(),
        }
    }

    /// The vector of a word's tokens: `[hidden]`.
    pub fn vector(&self, tokens: &[u32]) -> Vec<f64> {
        let mut sum = vec![0.0; self.hidden];
        for token in tokens {
            let row = self.table.chunks_exact(self.hidden).nth(*token as usize);
            for (sum, value) in sum.iter_mut().zip(row.unwrap_or_default()) {
                *sum += f64::from(*value);
            }
        }
        let share = 1.0 / tokens.len().max(1) as f64;
        sum.into_iter().map(|value| value * share).collect()
    }
}

/// The tokens of two words.
pub type TokenPair = (Vec<u32>, Vec<u32>);

/// Cosine of the angle between two vectors; 0 where one is zero.
pub fn cosine(one: &[f64], two: &[f64]) -> f64 {
    let product =
        |one: &[f64], two: &[f64]| -> f64 { one.iter().zip(two).map(|(a, b)| a * b).sum() };
    let norms = (product(one, one) * product(two, two)).sqrt();
    if norms > 0.0 {
        product(one, two) / norms
    } else {
        0.0
    }
}

/// Euclidean distance.
pub fn distance(one: &[f64], two: &[f64]) -> f64 {
    let squares = one.iter().zip(two).map(|(a, b)| (a - b).powi(2));
    squares.sum::<f64>().sqrt()
}

/// Words with their translations. Each is also compared with the translations of all other words: the mean cosine. `clusters`
/// number the words; one has several translations.
pub fn likeness(
    pairs: &[TokenPair],
    clusters: &[u32],
    embeddings: &Embeddings,
) -> Vec<Measurement> {
    // The mean of cosines with many vectors is the product with the mean of their directions.
    let mut everything = vec![0.0; embeddings.hidden];
    let mut of_word: BTreeMap<u32, (f64, Vec<f64>)> = BTreeMap::new();
    for ((_, translation), cluster) in pairs.iter().zip(clusters) {
        let direction = direction(&embeddings.vector(translation));
        let (count, own) = of_word
            .entry(*cluster)
            .or_insert_with(|| (0.0, vec![0.0; embeddings.hidden]));
        *count += 1.0;
        for ((everything, own), value) in everything.iter_mut().zip(own).zip(direction) {
            *everything += value;
            *own += value;
        }
    }
    let measured = pairs
        .iter()
        .zip(clusters)
        .map(|((word, translation), cluster)| {
            let [word, translation] = [word, translation].map(|tokens| embeddings.vector(tokens));
            let (count, own) = &of_word[cluster];
            let others = pairs.len() as f64 - count;
            let of_others: f64 = direction(&word)
                .iter()
                .zip(everything.iter().zip(own))
                .map(|(value, (everything, own))| value * (everything - own))
                .sum();
            Measurement::Pair {
                cosine: cosine(&word, &translation),
                distance: distance(&word, &translation),
                cosine_of_others: if others > 0.0 {
                    of_others / others
                } else {
                    0.0
                },
            }
        });
    measured.collect()
}

/// A vector of length one; zero where there is no direction.
fn direction(vector: &[f64]) -> Vec<f64> {
    let norm = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
    let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    vector.iter().map(|value| value * scale).collect()
}

/// Words that people have rated.
pub fn rated(pairs: &[TokenPair], ratings: &[f64], embeddings: &Embeddings) -> Vec<Measurement> {
    let measured = pairs.iter().zip(ratings).map(|((one, two), rating)| {
        let cosine = cosine(&embeddings.vector(one), &embeddings.vector(two));
        let rating = *rating;
        Measurement::Rated { cosine, rating }
    });
    measured.collect()
}
