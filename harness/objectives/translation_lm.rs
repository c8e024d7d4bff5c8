//! Translation language modelling: masked language modelling over a sentence and its translation, read as one sequence
//! (Lample and Conneau 2019, section 3.4).
//!
//! `</s> first </s> </s> second </s>`: positions begin at 0 in each half, each half has its language, and either order
//! occurs (XLM trains on `en-x` and `x-en`).
//! Differs: XLM puts pairs of similar length together to save padding. Packed batches have none, so pairs are drawn at random.

use anyhow::{Result, ensure};

use super::masking::{Masking, PositionSampling};
use super::streams::LanguagesPerBatch;
use super::text::{PairText, Text, shares};
use super::{BatchSettings, Objective, Validation};
use crate::data::corpus::ParallelCorpus;
use crate::data::tokenizer::END_OF_SENTENCE;
use crate::model::{Batch, Direction, LanguageModelBatch, Targets};
use crate::random::Random;

pub const NAME: &str = "translation_lm";

pub struct TranslationLm<'a> {
    pairs: Vec<Pairs<'a>>,
    shares: Vec<f64>,
    masking: Masking,
    settings: BatchSettings,
}

/// The sentence pairs of two languages that are short enough.
struct Pairs<'a> {
    text: &'a PairText,
    train: Vec<u32>,
    valid: Vec<u32>,
}

impl<'a> TranslationLm<'a> {
    /// # Errors
    /// When there are no sentence pairs, or none of two languages is short enough.
    pub fn open(
        rate: f64,
        sampling: PositionSampling,
        text: &'a Text,
        batches: &BatchSettings,
    ) -> Result<Self> {
        ensure!(
            !text.pairs.is_empty(),
            "translation language modelling needs sentence pairs; name them under data.parallel"
        );
        let mut pairs = Vec::new();
        for pair in &text.pairs {
            let [train, valid] = [&pair.train, &pair.valid]
                .map(|corpus| short_enough(corpus, batches.stream_length));
            ensure!(
                !train.is_empty(),
                "none of the {} sentence pairs of `{}-{}` has at most {} tokens in each language; raise pretrain.stream_length or check data.parallel",
                pair.train.pairs(),
                pair.names.0,
                pair.names.1,
                batches.stream_length.saturating_sub(2)
            );
            pairs.push(Pairs {
                text: pair,
                train,
                valid,
            });
        }
        let numbers: Vec<usize> = pairs.iter().map(|pairs| pairs.train.len()).collect();
        let masking = Masking::new(rate, sampling, &text.counts);
        Ok(Self {
            pairs,
            shares: shares(&numbers, batches.sampling_exponent),
            masking,
            settings: batches.clone(),
        })
    }

    fn drawn(&self, random: &mut Random) -> usize {
        random.weighted(&self.shares).unwrap_or(0)
    }

    fn held_out(&self, pairs: &Pairs) -> Vec<LanguageModelBatch> {
        let mut packed = vec![Batch::new()];
        for index in &pairs.valid {
            let sequence = Sequence::read(&pairs.text.valid, *index);
            let last = packed.len() - 1;
            if !sequence.fits(&packed[last], self.settings.tokens_per_batch) {
                packed.push(Batch::new());
            }
            let last = packed.len() - 1;
            sequence.push(&mut packed[last], pairs.text.ids, false);
        }
        let hidden = packed.into_iter().enumerate().map(|(number, mut batch)| {
            let mut targets = Targets::default();
            self.masking
                .hide_held_out(&mut batch, number as u64, &mut targets);
            LanguageModelBatch {
                batch,
                targets,
                direction: Direction::Bidirectional,
                source: None,
            }
        });
        hidden.collect()
    }
}

impl Objective for TranslationLm<'_> {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Pairs are drawn until one does not fit any more.
    fn training_batch(&self, update: u64) -> LanguageModelBatch {
        let mut random = Random::new(self.settings.seed, "sentence pairs", update);
        let (mut batch, mut targets) = (Batch::new(), Targets::default());
        let of_update = self.drawn(&mut random);
        loop {
            let pairs = match self.settings.languages_per_batch {
                LanguagesPerBatch::One => &self.pairs[of_update],
                LanguagesPerBatch::All => &self.pairs[self.drawn(&mut random)],
            };
            let index = pairs.train[random.below(pairs.train.len() as u64) as usize];
            let reversed = random.below(2) == 1;
            let sequence = Sequence::read(&pairs.text.train, index);
            if !sequence.fits(&batch, self.settings.tokens_per_batch) {
                break;
            }
            sequence.push(&mut batch, pairs.text.ids, reversed);
        }
        let mut random = Random::new(self.settings.seed, "masks", update);
        let sequences = 0..batch.sequences();
        self.masking
            .hide(&mut batch, sequences, &mut random, &mut targets);
        LanguageModelBatch {
            batch,
            targets,
            direction: Direction::Bidirectional,
            source: None,
        }
    }

    fn validation(&self) -> Vec<Validation> {
        let with_text = self.pairs.iter().filter(|pairs| !pairs.valid.is_empty());
        with_text
            .map(|pairs| Validation {
                of: format!("{}-{}", pairs.text.names.0, pairs.text.names.1),
                batches: self.held_out(pairs),
            })
            .collect()
    }
}

/// Pairs of which each side has at most `length` tokens with both its `</s>`, and one at least without. (XLM leaves out
/// sentences of more than 100 tokens.)
fn short_enough(corpus: &ParallelCorpus, length: usize) -> Vec<u32> {
    let (first, second) = corpus.sides();
    let fits = |tokens: usize| tokens > 0 && tokens + 2 <= length;
    let indices = 0..corpus.pairs();
    indices
        .filter(|index| fits(first.sentence_length(*index)) && fits(second.sentence_length(*index)))
        .map(|index| index as u32)
        .collect()
}

/// Both halves of a sequence, each between its `</s>`.
struct Sequence {
    first: Vec<u32>,
    second: Vec<u32>,
}

impl Sequence {
    fn read(corpus: &ParallelCorpus, index: u32) -> Self {
        let (mut first, mut second) = (vec![END_OF_SENTENCE], vec![END_OF_SENTENCE]);
        corpus.pair(index as usize, &mut first, &mut second);
        first.push(END_OF_SENTENCE);
        second.push(END_OF_SENTENCE);
        Self { first, second }
    }

    /// An empty batch takes any sequence.
    fn fits(&self, batch: &Batch, tokens: usize) -> bool {
        batch.token_count() == 0
            || batch.token_count() + self.first.len() + self.second.len() <= tokens
    }

    fn push(&self, batch: &mut Batch, languages: (u32, u32), reversed: bool) {
        let mut halves = [
            (self.first.as_slice(), languages.0),
            (self.second.as_slice(), languages.1),
        ];
        if reversed {
            halves.reverse();
        }
        batch.push_parts(&halves);
    }
}
