//! Supervised translation: sentence pairs that people have made (Sutskever et al. 2014; XLM's MT).

use anyhow::{Result, ensure};

use super::{
    Direction, Pairs, TranslationBatches, TranslationObjective, Weight, pairs_batch, short,
};
use crate::model::{Encoder, LanguageModelBatch};
use crate::objectives::text::Text;
use crate::random::Random;

pub const NAME: &str = "supervised";

pub struct Supervised<'a> {
    direction: Direction,
    pairs: Pairs<'a>,
    short: Vec<u32>,
    weight: Weight,
    batches: TranslationBatches,
}

impl<'a> Supervised<'a> {
    /// # Errors
    /// When there are no sentence pairs, or none is short enough.
    pub fn open(
        weight: &Weight,
        direction: &Direction,
        text: &'a Text,
        batches: &TranslationBatches,
    ) -> Result<Self> {
        let pairs = Pairs::open(direction, text)?;
        let (first, second) = pairs.text.train.sides();
        let longest = batches.maximum_length;
        let short: Vec<u32> = short(first, longest)
            .into_iter()
            .filter(|index| (1..=longest).contains(&second.sentence_length(*index as usize)))
            .collect();
        ensure!(
            !short.is_empty(),
            "no sentence pair of `{direction}` has 1 to {longest} tokens on both sides; raise translation.train.maximum_length or check data.parallel"
        );
        Ok(Self {
            direction: direction.clone(),
            pairs,
            short,
            weight: weight.clone(),
            batches: batches.clone(),
        })
    }
}

impl TranslationObjective for Supervised<'_> {
    fn name(&self) -> String {
        format!("{NAME} {}", self.direction)
    }

    fn weight(&self, updates: u64) -> f64 {
        self.weight.at(updates)
    }

    fn batch(&self, update: u64, _: &Encoder) -> Result<LanguageModelBatch> {
        let mut random = Random::new(self.batches.seed, &self.name(), update);
        let mut drawn: Vec<(Vec<u32>, Vec<u32>)> = Vec::new();
        let mut used = 0;
        loop {
            let index = self.short[random.below(self.short.len() as u64) as usize];
            let (from, into) = self.pairs.read(&self.pairs.text.train, index as usize);
            used += into.len() + 1;
            if used > self.batches.tokens_per_batch && !drawn.is_empty() {
                break;
            }
            drawn.push((from, into));
        }
        let pairs = drawn
            .iter()
            .map(|(from, into)| (from.as_slice(), into.as_slice()));
        Ok(pairs_batch(pairs, self.pairs.languages))
    }
}
