//! A batch without padding: the tokens of all sequences behind each other.

use anyhow::{Context, Result, ensure};

use super::settings::Shape;

/// Packed sequences. `tokens`, `positions`, `languages` have one value per token; sequence s holds the tokens
/// offsets[s] .. offsets[s + 1].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub tokens: Vec<u32>,
    pub positions: Vec<u32>,
    pub languages: Vec<u32>,
    pub offsets: Vec<u32>,
}

impl Default for Batch {
    fn default() -> Self {
        Batch::new()
    }
}

impl Batch {
    pub fn new() -> Batch {
        Batch {
            tokens: Vec::new(),
            positions: Vec::new(),
            languages: Vec::new(),
            offsets: vec![0],
        }
    }

    /// Adds a sequence in one language, with positions from 0.
    pub fn push(&mut self, tokens: &[u32], language: u32) {
        self.push_parts(&[(tokens, language)]);
    }

    /// Adds one sequence made of parts, each in its language and with positions from 0, that attend to each other
    /// (translation language modelling: Lample and Conneau 2019, figure 1).
    pub fn push_parts(&mut self, parts: &[(&[u32], u32)]) {
        for (tokens, language) in parts {
            self.tokens.extend_from_slice(tokens);
            self.positions.extend(0..tokens.len() as u32);
            self.languages
                .extend(std::iter::repeat_n(*language, tokens.len()));
        }
        self.offsets.push(self.tokens.len() as u32);
    }

    pub fn sequences(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    pub fn token_count(&self) -> usize {
        self.tokens.len()
    }

    /// Rows of the sequences' first tokens.
    pub fn first_tokens(&self) -> &[u32] {
        &self.offsets[..self.sequences()]
    }

    /// Whether a model of `shape` can read the batch: a batch is checked before any of it is used.
    pub fn validate(&self, shape: &Shape) -> Result<()> {
        let count = self.tokens.len();
        ensure!(
            u32::try_from(count).is_ok(),
            "a batch of {count} tokens is too long; split it"
        );
        ensure!(
            self.positions.len() == count && self.languages.len() == count,
            "a batch needs a position and a language for each token: {count} tokens, {} positions, {} languages",
            self.positions.len(),
            self.languages.len()
        );
        ensure!(
            self.offsets.first() == Some(&0) && self.offsets.last() == Some(&(count as u32)),
            "a batch's offsets must run from 0 to its number of tokens ({count})"
        );
        for (sequence, pair) in self.offsets.windows(2).enumerate() {
            ensure!(
                pair[0] < pair[1],
                "sequence {sequence} of the batch has no tokens; leave empty sequences out"
            );
        }
        within("token", &self.tokens, shape.vocabulary, "the vocabulary")?;
        within(
            "position",
            &self.positions,
            shape.settings.positions,
            "`positions`",
        )?;
        if shape.settings.language_embeddings {
            within(
                "language",
                &self.languages,
                shape.languages,
                "the languages",
            )?;
        }
        Ok(())
    }
}

fn within(what: &str, values: &[u32], limit: usize, of: &str) -> Result<()> {
    if let Some(index) = values.iter().position(|&value| value as usize >= limit) {
        anyhow::bail!(
            "token {index} of the batch has {what} {}, but {of} of the model end at {}; \
             shorten the sequence or use the model's own tokenizer",
            values[index],
            limit.saturating_sub(1)
        );
    }
    Ok(())
}

/// Which tokens of its sequence a token sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Bidirectional,
    /// Itself and those before it.
    Causal,
}

/// What is to be predicted: `labels[i]` from the state of token `indices[i]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// Rows of the batch's tokens, ascending; a row may be there once.
    pub indices: Vec<u32>,
    pub labels: Vec<u32>,
}

impl Targets {
    /// Whether the targets fit a batch of `tokens` tokens and a vocabulary.
    pub fn validate(&self, tokens: usize, vocabulary: usize) -> Result<()> {
        ensure!(
            self.indices.len() == self.labels.len(),
            "targets need one label each: {} indices, {} labels",
            self.indices.len(),
            self.labels.len()
        );
        ensure!(
            self.indices.is_sorted_by(|a, b| a < b),
            "targets must be in the order of their tokens, each once"
        );
        ensure!(
            self.indices
                .last()
                .is_none_or(|&last| (last as usize) < tokens),
            "a target lies behind the batch's {tokens} tokens"
        );
        ensure!(
            self.labels
                .iter()
                .all(|&label| (label as usize) < vocabulary),
            "a target's label lies outside the vocabulary of {vocabulary}"
        );
        Ok(())
    }
}

/// A batch of a language-modelling objective: inputs, and what to predict from which states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanguageModelBatch {
    pub batch: Batch,
    pub targets: Targets,
    pub direction: Direction,
    /// For a model with a decoder, which reads `batch`: what its encoder reads, one sequence for each of the batch's.
    pub source: Option<Batch>,
}

impl LanguageModelBatch {
    /// Tokens read, those of the sources among them.
    pub fn token_count(&self) -> usize {
        self.batch.token_count() + self.source.as_ref().map_or(0, Batch::token_count)
    }

    pub fn validate(&self, shape: &Shape) -> Result<()> {
        self.batch.validate(shape)?;
        ensure!(
            self.source.is_some() == shape.decoder,
            "a batch has sources where the model has a decoder, and only there"
        );
        if let Some(source) = &self.source {
            ensure!(
                source.sequences() == self.batch.sequences(),
                "a batch of {} sequences has {} sources",
                self.batch.sequences(),
                source.sequences()
            );
            source.validate(shape).context("sources")?;
        }
        self.targets
            .validate(self.batch.token_count(), shape.vocabulary)
    }
}
