//! The corpora that objectives draw from, and how often each is drawn.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::data::corpus::{Corpus, ParallelCorpus, Part};
use crate::data::tokenizer::Tokenizer;

/// All text of one pretraining, in token ids.
#[derive(Debug)]
pub struct Text {
    pub languages: Vec<LanguageText>,
    pub pairs: Vec<PairText>,
    /// Ids, special tokens included.
    pub vocabulary: usize,
    /// Expected occurrences of each id in the tokenizer's training text.
    pub counts: Vec<u64>,
}

#[derive(Debug)]
pub struct LanguageText {
    pub name: String,
    /// Id of the language's embedding.
    pub id: u32,
    pub train: Corpus,
    pub valid: Corpus,
}

#[derive(Debug)]
pub struct PairText {
    /// Names of both languages.
    pub names: (String, String),
    /// Ids of their embeddings.
    pub ids: (u32, u32),
    pub train: ParallelCorpus,
    pub valid: ParallelCorpus,
}

impl Text {
    /// Text without corpora yet.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let (vocabulary, counts) = (tokenizer.vocabulary(), tokenizer.counts().to_vec());
        ensure!(
            counts.len() == vocabulary,
            "the tokenizer counts {} ids of {vocabulary}; train it again",
            counts.len()
        );
        Ok(Self {
            languages: Vec::new(),
            pairs: Vec::new(),
            vocabulary,
            counts,
        })
    }

    /// Adds one language's corpus.
    pub fn add_language(&mut self, name: &str, tokenizer: &Tokenizer, folder: &Path) -> Result<()> {
        let open =
            |part| Corpus::open(folder, part).with_context(|| format!("the corpus of `{name}`"));
        let (train, valid) = (open(Part::Train)?, open(Part::Valid)?);
        train
            .ensure_written_with(tokenizer)
            .with_context(|| format!("the corpus of `{name}`"))?;
        ensure!(
            train.sentences() > 0,
            "language `{name}` has no text to pretrain on; check data.monolingual"
        );
        self.languages.push(LanguageText {
            name: name.to_owned(),
            id: tokenizer.language_id(name)?,
            train,
            valid,
        });
        Ok(())
    }

    /// Adds the sentence pairs of two languages.
    pub fn add_pair(
        &mut self,
        first: &str,
        second: &str,
        tokenizer: &Tokenizer,
        folder: &Path,
    ) -> Result<()> {
        let open = |part| {
            ParallelCorpus::open(folder, (first, second), part)
                .with_context(|| format!("the sentence pairs of `{first}-{second}`"))
        };
        let ids = (
            tokenizer.language_id(first)?,
            tokenizer.language_id(second)?,
        );
        let (train, valid) = (open(Part::Train)?, open(Part::Valid)?);
        for side in [train.sides().0, train.sides().1] {
            side.ensure_written_with(tokenizer)
                .with_context(|| format!("the sentence pairs of `{first}-{second}`"))?;
        }
        self.pairs.push(PairText {
            names: (first.to_owned(), second.to_owned()),
            ids,
            train,
            valid,
        });
        Ok(())
    }
}

/// q_i = p_i^exponent / sum_j p_j^exponent with p_i the share of sentences (Lample and Conneau 2019, section 3.1).
pub fn shares(sentences: &[usize], exponent: f64) -> Vec<f64> {
    let total: f64 = sentences.iter().map(|count| *count as f64).sum();
    let raised: Vec<f64> = sentences
        .iter()
        .map(|count| (*count as f64 / total).powf(exponent))
        .collect();
    let norm: f64 = raised.iter().sum();
    raised.into_iter().map(|share| share / norm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_move_shares_between_proportional_and_uniform() {
        assert_eq!(shares(&[30, 10], 1.0), [0.75, 0.25]);
        assert_eq!(shares(&[30, 10], 0.0), [0.5, 0.5]);
        let between = shares(&[30, 10], 0.7);
        // 0.75^.7 / (0.75^.7 + 0.25^.7)
        assert!((between[0] - 0.683_310_7).abs() < 1e-6, "{between:?}");
    }
}
