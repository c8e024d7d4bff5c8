//! Perplexity of held-out sentences under a causal language model (Lample and Conneau 2019, Table 4): exp of the
//! negative log-likelihood per token, word or character.
//!
//! The paper does not say which of these its figures are (issue 97 of XLM's repository); they differ severalfold. Tokens depend on
//! the tokenizer; words and characters do not, and count a sentence's end as one more, as tokens do.
//! Differs: XLM reads held-out text in streams, where a sentence stands behind others; here each stands by itself. One that the
//! language's training text has as well is left out.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Batch, Direction, Encoder, LanguageModelBatch, LossSum, Targets};

/// What negative log-likelihood is divided by.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Of the study's tokenizer.
    Token,
    /// Between white space.
    Word,
    /// Spaces among them.
    Character,
}

impl Unit {
    pub const ALL: [Self; 3] = [Self::Token, Self::Word, Self::Character];

    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Word => "word",
            Self::Character => "character",
        }
    }

    /// How many there are in a sentence of so many tokens, its end among them.
    pub fn count(self, sentence: &str, tokens: usize) -> u64 {
        let count = match self {
            Self::Token => tokens,
            Self::Word => sentence.split_whitespace().count(),
            Self::Character => sentence.chars().count(),
        };
        count as u64 + 1
    }
}

/// Negative log-likelihood of a sentence between its ends: every token but the first from those before it. A sentence longer than
/// what the model was trained to read at once (`longest` tokens: positions beyond have learnt nothing) is read in parts, each with the
/// last token of the part before for its beginning.
pub fn loss(encoder: &Encoder, sentence: &[u32], language: u32, longest: usize) -> Result<LossSum> {
    let positions = encoder.shape().settings.positions.min(longest).max(2);
    let mut sum = LossSum::default();
    let mut start = 0;
    while start + 1 < sentence.len() {
        let part = &sentence[start..sentence.len().min(start + positions)];
        let mut batch = Batch::new();
        batch.push(part, language);
        sum.add(encoder.language_model_loss(&LanguageModelBatch {
            batch,
            targets: Targets {
                indices: (0..part.len() as u32 - 1).collect(),
                labels: part[1..].to_vec(),
            },
            direction: Direction::Causal,
            source: None,
        })?);
        start += part.len() - 1;
    }
    Ok(sum)
}
