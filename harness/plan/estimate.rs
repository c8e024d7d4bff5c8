//! What a job costs, before it runs: parameters, tokens, floating-point operations, memory.

use serde::Serialize;

use crate::model::shards::shard_tokens;
use crate::model::trunk::computed_share;
use crate::model::{Shape, Tap};
use crate::objectives::ObjectiveSettings;
use crate::spec::finetune::FinetuneSettings;
use crate::spec::pretrain::PretrainSettings;
use crate::spec::settings::Settings;
use crate::spec::translation::TranslationSettings;

/// Mean tokens of an XNLI pair with three `</s>`: 43 were measured with 8,000 BPE entries on English; an estimate elsewhere.
const TOKENS_PER_PAIR: u64 = 43;

/// Tokens of a step whose activations a processor holds at once: those of a shard for each of its threads.
fn held(tokens: usize) -> usize {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    tokens.min(threads.saturating_mul(shard_tokens(tokens)))
}

/// The costs of a training job; zeros for jobs that take seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Estimate {
    pub parameters: u64,
    pub tokens: u64,
    /// Forward and backward, on a processor and on a card, which computes all rows of the last layer.
    pub floating_point_operations: f64,
    pub card_floating_point_operations: f64,
    /// Of this machine's memory.
    pub peak_memory_bytes: u64,
    /// Of a card's memory, where it trains on one.
    pub card_memory_bytes: u64,
}

impl Estimate {
    pub fn operations(&self, on_card: bool) -> f64 {
        match on_card {
            true => self.card_floating_point_operations,
            false => self.floating_point_operations,
        }
    }

    /// Of the memory that decides: the card's, or the machine's.
    pub fn memory_bytes(&self, on_card: bool) -> u64 {
        match on_card {
            true => self.card_memory_bytes,
            false => self.peak_memory_bytes,
        }
    }
}

/// The vocabulary is not known before the tokenizer is trained; the study's size is an upper bound.
fn shape(settings: &Settings) -> Shape {
    Shape {
        settings: settings.model.clone(),
        vocabulary: settings.tokenizer.bpe.vocabulary,
        languages: settings.languages.all().len(),
        decoder: false,
    }
}

pub fn pretraining(settings: &Settings, pretrain: &PretrainSettings) -> Estimate {
    let shape = shape(settings);
    let tokens = pretrain.updates * pretrain.tokens_per_batch as u64;
    // Objectives take turns.
    let operations = |computed: fn(f64) -> f64| {
        let shares = pretrain
            .objectives
            .iter()
            .map(ObjectiveSettings::predicted_share);
        let each = shares.map(|share| {
            shape.training_flops_per_token(pretrain.stream_length, computed(share), share)
        });
        tokens as f64 * each.sum::<f64>() / pretrain.objectives.len().max(1) as f64
    };
    Estimate {
        parameters: shape.parameters() as u64,
        tokens,
        floating_point_operations: operations(computed_share),
        card_floating_point_operations: operations(|_| 1.0),
        peak_memory_bytes: shape.training_bytes(held(pretrain.tokens_per_batch)),
        card_memory_bytes: shape.card_bytes(
            pretrain.tokens_per_batch,
            pretrain.predicted_share(),
            pretrain.precision,
        ),
    }
}

/// Back-translation also searches: about as much as another forward, a third of what its update takes.
pub fn translating(settings: &Settings, translation: &TranslationSettings) -> Estimate {
    let train = &translation.train;
    let shape = Shape {
        decoder: true,
        ..shape(settings)
    };
    // Sources are about as long as targets.
    let tokens = 2 * train.updates * train.tokens_per_batch as u64;
    let searches = train.objectives.iter().filter(|one| one.searches());
    let searching = searches.count() as f64 / train.objectives.len().max(1) as f64;
    let length = train.maximum_length.min(TOKENS_PER_PAIR as usize);
    let operations =
        (1.0 + searching / 3.0) * tokens as f64 * shape.training_flops_per_token(length, 1.0, 0.5);
    Estimate {
        parameters: shape.parameters() as u64,
        tokens,
        floating_point_operations: operations,
        card_floating_point_operations: operations,
        peak_memory_bytes: shape.training_bytes(held(2 * train.tokens_per_batch)),
        card_memory_bytes: shape.card_bytes(2 * train.tokens_per_batch, 0.5, train.precision),
    }
}

pub fn finetuning(settings: &Settings, finetune: &FinetuneSettings) -> Estimate {
    let shape = shape(settings);
    let tokens = finetune.epochs * finetune.examples_per_epoch * TOKENS_PER_PAIR;
    let read = match finetune.pooling.tap() {
        Tap::First => 1.0 / TOKENS_PER_PAIR as f64,
        _ => 1.0,
    };
    let operations = |computed: f64| {
        tokens as f64 * shape.training_flops_per_token(TOKENS_PER_PAIR as usize, computed, 0.0)
    };
    let largest_batch = finetune.grid.batch_size.iter().max().copied().unwrap_or(1);
    Estimate {
        parameters: shape.parameters() as u64,
        tokens,
        floating_point_operations: operations(computed_share(read)),
        card_floating_point_operations: operations(1.0),
        // The classifier's graph spans the batch: all shards are kept.
        peak_memory_bytes: shape.training_bytes(largest_batch * TOKENS_PER_PAIR as usize),
        // The longest batch counts.
        card_memory_bytes: shape.card_bytes(
            largest_batch * finetune.maximum_length,
            0.0,
            finetune.precision,
        ),
    }
}
