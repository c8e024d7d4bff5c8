//! Causal language modelling over streams: every token but the first from those before it (Lample and Conneau 2019,
//! section 3.2). No state is carried from one window to the next.

use anyhow::Result;

use super::streams::{Streams, Windows};
use super::text::Text;
use super::{BatchSettings, Objective, Validation};
use crate::model::{Batch, Direction, LanguageModelBatch, Targets};

pub const NAME: &str = "causal_lm";

pub struct CausalLm<'a> {
    streams: Streams<'a>,
}

impl<'a> CausalLm<'a> {
    pub fn open(text: &'a Text, batches: &BatchSettings) -> Result<Self> {
        Ok(Self {
            streams: Streams::open(text, batches)?,
        })
    }
}

impl Objective for CausalLm<'_> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn training_batch(&self, update: u64) -> LanguageModelBatch {
        next_tokens(&self.streams.training(update))
    }

    fn validation(&self) -> Vec<Validation> {
        let of_language = |(language, batches): (&str, Vec<Windows>)| Validation {
            of: language.to_owned(),
            batches: batches
                .iter()
                .map(|windows| next_tokens(std::slice::from_ref(windows)))
                .collect(),
        };
        self.streams
            .validation()
            .into_iter()
            .map(of_language)
            .collect()
    }
}

/// The state of every token but a window's last predicts the token behind it.
fn next_tokens(windows: &[Windows]) -> LanguageModelBatch {
    let (mut batch, mut targets) = (Batch::new(), Targets::default());
    for windows in windows {
        for row in &windows.rows {
            let start = batch.token_count() as u32;
            targets.indices.extend(start..start + row.len() as u32 - 1);
            targets.labels.extend(&row[1..]);
            batch.push(row, windows.language);
        }
    }
    LanguageModelBatch {
        batch,
        targets,
        direction: Direction::Causal,
        source: None,
    }
}
