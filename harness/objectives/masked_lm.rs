//! Masked language modelling over streams (Devlin et al. 2019; Lample and Conneau 2019, section 3.3).

use anyhow::Result;

use super::masking::{Masking, PositionSampling};
use super::streams::{Streams, Windows};
use super::text::Text;
use super::{BatchSettings, Objective, Validation};
use crate::model::{Batch, Direction, LanguageModelBatch, Targets};
use crate::random::Random;

pub const NAME: &str = "masked_lm";

pub struct MaskedLm<'a> {
    streams: Streams<'a>,
    masking: Masking,
    seed: u64,
}

impl<'a> MaskedLm<'a> {
    pub fn open(
        rate: f64,
        sampling: PositionSampling,
        text: &'a Text,
        batches: &BatchSettings,
    ) -> Result<Self> {
        let masking = Masking::new(rate, sampling, &text.counts);
        Ok(Self {
            streams: Streams::open(text, batches)?,
            masking,
            seed: batches.seed,
        })
    }
}

impl Objective for MaskedLm<'_> {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Each language's tokens are hidden by themselves, so that a batch of several is as batches of one.
    fn training_batch(&self, update: u64) -> LanguageModelBatch {
        let mut random = Random::new(self.seed, "masks", update);
        let (mut batch, mut targets) = (Batch::new(), Targets::default());
        for windows in self.streams.training(update) {
            let first = batch.sequences();
            push(&mut batch, &windows);
            let sequences = first..batch.sequences();
            self.masking
                .hide(&mut batch, sequences, &mut random, &mut targets);
        }
        LanguageModelBatch {
            batch,
            targets,
            direction: Direction::Bidirectional,
            source: None,
        }
    }

    fn validation(&self) -> Vec<Validation> {
        let of_language = |(language, batches): (&str, Vec<Windows>)| Validation {
            of: language.to_owned(),
            batches: batches
                .iter()
                .enumerate()
                .map(|(number, windows)| self.held_out(windows, number as u64))
                .collect(),
        };
        self.streams
            .validation()
            .into_iter()
            .map(of_language)
            .collect()
    }
}

impl MaskedLm<'_> {
    fn held_out(&self, windows: &Windows, number: u64) -> LanguageModelBatch {
        let (mut batch, mut targets) = (Batch::new(), Targets::default());
        push(&mut batch, windows);
        self.masking.hide_held_out(&mut batch, number, &mut targets);
        LanguageModelBatch {
            batch,
            targets,
            direction: Direction::Bidirectional,
            source: None,
        }
    }
}

fn push(batch: &mut Batch, windows: &Windows) {
    for row in &windows.rows {
        batch.push(row, windows.language);
    }
}
