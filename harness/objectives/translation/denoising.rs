//! Denoising auto-encoding: restore a sentence from its noisy copy, in its own language (Lample et al. 2018; XLM's AE).

use anyhow::Result;

use super::noise::Noise;
use super::{Sentences, TranslationBatches, TranslationObjective, Weight, pairs_batch};
use crate::model::{Encoder, LanguageModelBatch};
use crate::objectives::text::Text;
use crate::random::Random;

pub const NAME: &str = "denoising";

pub struct Denoising<'a> {
    language: String,
    sentences: Sentences<'a>,
    noise: Noise,
    weight: Weight,
    batches: TranslationBatches,
}

impl<'a> Denoising<'a> {
    /// # Errors
    /// When the language has no text, or no sentence is short enough.
    pub fn open(
        noise: Noise,
        weight: &Weight,
        language: &str,
        text: &'a Text,
        batches: &TranslationBatches,
    ) -> Result<Self> {
        Ok(Self {
            language: language.to_owned(),
            sentences: Sentences::open(language, text, batches.maximum_length)?,
            noise,
            weight: weight.clone(),
            batches: batches.clone(),
        })
    }
}

impl TranslationObjective for Denoising<'_> {
    fn name(&self) -> String {
        format!("{NAME} {}", self.language)
    }

    fn weight(&self, updates: u64) -> f64 {
        self.weight.at(updates)
    }

    fn batch(&self, update: u64, _: &Encoder) -> Result<LanguageModelBatch> {
        let mut random = Random::new(self.batches.seed, &self.name(), update);
        let drawn = self
            .sentences
            .draw(self.batches.tokens_per_batch, &mut random);
        let noisy: Vec<Vec<u32>> = drawn
            .iter()
            .map(|sentence| self.noise.apply(sentence, &mut random))
            .collect();
        let language = self.sentences.language;
        let pairs = noisy.iter().zip(&drawn);
        Ok(pairs_batch(
            pairs.map(|(noisy, sentence)| (noisy.as_slice(), sentence.as_slice())),
            (language, language),
        ))
    }
}
