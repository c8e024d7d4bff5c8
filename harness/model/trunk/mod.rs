//! One shard through a stack of the trunk: embeddings, then post-norm transformer layers (Lample and Conneau 2019;
//! Vaswani et al. 2017). Here what passes share and keep; `forward` and `backward` are written out.
//! A decoder's layers attend to the states that the encoder has left for the same sequences of another batch.

mod backward;
mod clock;
pub mod cuda;
mod forward;
mod reading;
mod step;

pub use backward::{
    Backward, backward, language_model_loss, start_gradient, start_source_gradient,
};
pub use clock::{Clock, Part};
pub use forward::forward;
pub use reading::{computed_share, start_read_gradient};
pub use step::{Caches, Next, StepScratch, source_caches, step};

use std::ops::Range;

use self::reading::{Computed, Reading};
use super::batch::{Batch, Direction};
use super::layout::{Side, Stack};
use super::settings::Shape;
use super::weights::Weights;
use crate::kernels::attention::{Attention, AttentionScratch};
use crate::kernels::buffer::Buffer;
use crate::kernels::dropout::Dropout;
use crate::kernels::matmul::Precision;
use crate::kernels::vocabulary::{Output, VocabularyScratch};

/// Parts of a layer's projection: see [`Layer::projection`].
const QUERY: Range<usize> = 0..1;
const KEY_VALUE: Range<usize> = 1..3;

/// What all shards of a pass share.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub shape: &'a Shape,
    pub side: Side,
    pub stack: &'a Stack,
    pub values: &'a [f32],
    pub forward_weights: &'a Weights,
    pub direction: Direction,
    /// `None` without dropout: evaluation.
    pub stream: Option<Stream>,
    pub precision: Precision,
}

/// The name of a pass's dropout masks.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    pub key: u64,
    pub step: u64,
    pub pass: u32,
}

/// Whole sequences of a batch.
#[derive(Clone)]
pub struct Shard<'a> {
    pub batch: &'a Batch,
    pub sequences: Range<usize>,
    /// Tokens of the step before the batch: dropout names rows by their place in the step.
    pub tokens_before: usize,
    /// What a decoder's sequences translate.
    pub source: Option<Source<'a>>,
}

/// The encoder's last states for the sources of a shard's sequences.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// [source tokens, hidden]
    pub states: &'a [f32],
    /// As a batch's, from the shard's first sequence to behind its last.
    pub offsets: &'a [u32],
}

impl<'a> Shard<'a> {
    /// Rows of the batch's tokens.
    pub fn rows(&self) -> Range<usize> {
        self.offsets()[0] as usize..self.offsets()[self.sequences.len()] as usize
    }

    pub fn offsets(&self) -> &'a [u32] {
        &self.batch.offsets[self.sequences.start..=self.sequences.end]
    }

    /// Rows of the sequences' first tokens, counted from the shard's first.
    pub fn first_tokens(&self) -> Vec<u32> {
        let offsets = self.offsets();
        let starts = &offsets[..self.sequences.len()];
        starts.iter().map(|start| start - offsets[0]).collect()
    }

    fn first_row(&self) -> u64 {
        (self.tokens_before + self.rows().start) as u64
    }
}

/// Places where dropout is applied; numbers enter the masks.
#[derive(Clone, Copy)]
enum Site {
    Embeddings,
    Probabilities(usize),
    Attention(usize),
    FeedForward(usize),
    SourceProbabilities(usize),
    SourceAttention(usize),
}

fn sites_per_layer(side: Side) -> usize {
    match side {
        Side::Encoder => 3,
        Side::Decoder => 5,
    }
}

/// Places of dropout in a stack.
pub fn sites(layers: usize, side: Side) -> usize {
    1 + sites_per_layer(side) * layers
}

/// The mask of a place in a stack, if anything is dropped there.
fn dropout_at(
    shape: &Shape,
    side: Side,
    stack: &Stack,
    stream: Stream,
    site: Site,
) -> Option<Dropout> {
    let Stream { key, step, pass } = stream;
    let settings = &shape.settings;
    let of = |layer: usize, place: usize| sites_per_layer(side) * layer + place;
    let (rate, number) = match site {
        Site::Embeddings => (settings.dropout, 0),
        Site::Probabilities(layer) => (settings.attention_dropout, of(layer, 1)),
        Site::Attention(layer) => (settings.dropout, of(layer, 2)),
        Site::FeedForward(layer) => (settings.dropout, of(layer, 3)),
        Site::SourceProbabilities(layer) => (settings.attention_dropout, of(layer, 4)),
        Site::SourceAttention(layer) => (settings.dropout, of(layer, 5)),
    };
    let number = stack.first_site + number;
    Dropout::new(rate, key, step, pass, number as u32)
}

impl Context<'_> {
    fn dropout(&self, site: Site) -> Option<Dropout> {
        dropout_at(self.shape, self.side, self.stack, self.stream?, site)
    }

    fn attention<'s>(
        &self,
        shard: &Shard<'s>,
        computed: Computed<'s>,
        layer: usize,
    ) -> Attention<'s> {
        Attention {
            hidden: self.shape.settings.hidden,
            heads: self.shape.settings.heads,
            causal: self.direction == Direction::Causal,
            query_offsets: computed.offsets,
            key_offsets: shard.offsets(),
            dropout: self.dropout(Site::Probabilities(layer)),
            rows: computed.rows,
            precision: self.precision,
        }
    }

    fn source_attention<'s>(
        &self,
        shard: &Shard<'s>,
        computed: Computed<'s>,
        source: Source<'s>,
        layer: usize,
    ) -> Attention<'s> {
        Attention {
            causal: false,
            key_offsets: source.offsets,
            dropout: self.dropout(Site::SourceProbabilities(layer)),
            ..self.attention(shard, computed, layer)
        }
    }

    fn of(&self, range: &Range<usize>) -> &[f32] {
        &self.values[range.clone()]
    }

    /// The tied output layer, where the stack has one.
    pub fn output(&self) -> Option<Output<'_>> {
        Some(Output {
            table: self.of(&self.stack.token),
            bias: self.of(&self.stack.output.as_ref()?.bias),
            hidden: self.shape.settings.hidden,
            precision: self.precision,
        })
    }
}

/// What a shard's forward leaves for its backward. With one layer and two states kept, layers take turns in them:
/// evaluation.
pub struct Activations {
    /// States after the embeddings and after each layer: [tokens, hidden]; after the last one those that are read.
    states: Vec<Buffer>,
    layers: Vec<LayerActivations>,
    /// Layers that have run, and which rows of the last one's output are read; `None` for all.
    depth: usize,
    reading: Option<Reading>,
    embedding_normalised: Buffer,
    embedding_inverse: Buffer,
}

/// Rows are those that the layer computes.
#[derive(Default)]
struct LayerActivations {
    /// Query, key and value of each token, [tokens, 3 hidden]; where only some rows are computed, key and value,
    /// [tokens, 2 hidden].
    projected: Buffer,
    /// Of the rows that are computed where not all are: the layer's input and the queries, [rows, hidden].
    chosen_input: Buffer,
    chosen_query: Buffer,
    probabilities: Buffer,
    context: Buffer,
    attention_normalised: Buffer,
    attention_inverse: Buffer,
    /// States after self-attention.
    middle: Buffer,
    source: SourceActivations,
    /// [rows, feed_forward]: GELU, and its derivative where a backward may follow.
    inner: Buffer,
    slopes: Buffer,
    for_backward: bool,
    outer_normalised: Buffer,
    outer_inverse: Buffer,
}

/// What attention over the source leaves; empty in an encoder.
#[derive(Default)]
struct SourceActivations {
    query: Buffer,
    /// [source tokens, 2 hidden]
    key_value: Buffer,
    probabilities: Buffer,
    context: Buffer,
    normalised: Buffer,
    inverse: Buffer,
    /// States after it.
    middle: Buffer,
}

impl Activations {
    fn keeping(layers: usize, for_backward: bool) -> Activations {
        Activations {
            states: (0..layers + 1).map(|_| Buffer::default()).collect(),
            layers: (0..layers.max(1))
                .map(|_| LayerActivations {
                    for_backward,
                    ..LayerActivations::default()
                })
                .collect(),
            depth: 0,
            reading: None,
            embedding_normalised: Buffer::default(),
            embedding_inverse: Buffer::default(),
        }
    }

    /// For training: everything is kept.
    pub fn for_training(shape: &Shape) -> Activations {
        Activations::keeping(shape.settings.layers, true)
    }

    /// For evaluation: what the next layer needs.
    pub fn for_evaluation() -> Activations {
        Activations::keeping(1, false)
    }

    /// States after `depth` layers, 0 for the embeddings: [tokens, hidden], after the last layer those that are read.
    pub fn states(&self, depth: usize) -> &[f32] {
        &self.states[depth % self.states.len()]
    }
}

/// Buffers that hold nothing between shards.
#[derive(Default)]
pub struct Scratch {
    attention: AttentionScratch,
    vocabulary: VocabularyScratch,
    /// [tokens, hidden]
    update: Buffer,
    gradient: Buffer,
    /// [tokens, feed_forward or 3 hidden]
    wide: Buffer,
    first_panels: Buffer,
    second_panels: Buffer,
    third_panels: Buffer,
    /// Gradient of the queries where they lie apart from keys and values: [tokens, hidden].
    query_gradient: Buffer,
    /// Gradient of query, key and value of chosen rows: [rows, 3 hidden].
    chosen_projected: Buffer,
    query_bias: Buffer,
    /// Gradients of biases, scales and shifts of one block.
    inner_bias: Buffer,
    outer_bias: Buffer,
    scale: Buffer,
    shift: Buffer,
    target_states: Buffer,
    target_gradient: Buffer,
    /// Gradient of the source's states, which all layers of a decoder add to: [source tokens, hidden].
    source_gradient: Buffer,
    pub clock: Clock,
}
