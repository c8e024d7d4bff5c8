//! Online back-translation: the model, as it is, translates a sentence, and learns to translate that back (Sennrich et al.
//! 2016; Lample et al. 2018; XLM's BT): greedy, without dropout, and without a gradient through the translation.

use anyhow::Result;

use super::{
    Direction, Sentences, TranslationBatches, TranslationObjective, Weight, between_ends,
    language_text, pairs_batch,
};
use crate::data::tokenizer::END_OF_SENTENCE;
use crate::model::{Batch, Encoder, LanguageModelBatch, Search};
use crate::objectives::text::Text;
use crate::random::Random;

pub const NAME: &str = "back_translation";

/// XLM (trainer.py, bt_step): at most int(1.3 * the longest source + 5) tokens.
const LONGEST: (f64, usize) = (1.3, 5);

pub struct BackTranslation<'a> {
    /// What is learnt: sentences of `into` are what is drawn.
    direction: Direction,
    sentences: Sentences<'a>,
    /// Language that is translated from when it is learnt.
    from: u32,
    weight: Weight,
    batches: TranslationBatches,
}

impl<'a> BackTranslation<'a> {
    /// # Errors
    /// When the language translated into has no text, or no sentence is short enough.
    pub fn open(
        weight: &Weight,
        direction: &Direction,
        text: &'a Text,
        batches: &TranslationBatches,
    ) -> Result<Self> {
        Ok(Self {
            direction: direction.clone(),
            sentences: Sentences::open(&direction.into, text, batches.maximum_length)?,
            from: language_text(&direction.from, text)?.id,
            weight: weight.clone(),
            batches: batches.clone(),
        })
    }
}

impl TranslationObjective for BackTranslation<'_> {
    fn name(&self) -> String {
        format!("{NAME} {}", self.direction)
    }

    fn weight(&self, updates: u64) -> f64 {
        self.weight.at(updates)
    }

    fn batch(&self, update: u64, model: &Encoder) -> Result<LanguageModelBatch> {
        let mut random = Random::new(self.batches.seed, &self.name(), update);
        let drawn = self
            .sentences
            .draw(self.batches.tokens_per_batch, &mut random);
        let into = self.sentences.language;
        let mut sources = Batch::new();
        for sentence in &drawn {
            sources.push(&between_ends(sentence), into);
        }
        // Differs: XLM takes the longest source of the batch, here each sentence has its own limit, and none is longer
        // than the model's positions leave room for, with its ends.
        let search = Search {
            beam: 1,
            length_penalty: 1.0,
            longest: LONGEST,
            end: END_OF_SENTENCE,
        };
        let translated = model.translate(&sources, &vec![self.from; drawn.len()], &search)?;
        let room = model.shape().settings.positions - 2;
        let translated: Vec<Vec<u32>> = translated
            .into_iter()
            .map(|hypotheses| {
                let best = hypotheses.into_iter().next();
                let mut tokens = best.map(|best| best.tokens).unwrap_or_default();
                tokens.truncate(room);
                tokens
            })
            .collect();
        let pairs = translated.iter().zip(&drawn);
        Ok(pairs_batch(
            pairs.map(|(from, into)| (from.as_slice(), into.as_slice())),
            (self.from, into),
        ))
    }
}
