//! One shard through the trunk: embeddings, then post-norm transformer layers (Lample and Conneau 2019; Vaswani
//! et al. 2017). Here what passes share and keep, and the forward; the backward is written out in `backward`.

mod backward;
mod clock;

pub use backward::{Backward, backward, gradient_blocks, language_model_loss, start_gradient};
pub use clock::{Clock, Part};

use std::ops::Range;

use super::batch::{Batch, Direction};
use super::layout::{Layout, Linear};
use super::settings::Shape;
use super::weights::{Product, Weights};
use crate::kernels::attention::{self, Attention, AttentionScratch};
use crate::kernels::buffer::Buffer;
use crate::kernels::dropout::Dropout;
use crate::kernels::embedding::{Lookup, NormaliseEmbeddings};
use crate::kernels::gelu::Gelu;
use crate::kernels::lanes::vectorised;
use crate::kernels::matmul::{Matrix, Precision, Write};
use crate::kernels::normalise::NormaliseResidual;
use crate::kernels::vocabulary::{Output, VocabularyScratch};

/// What all shards of a pass share.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub shape: &'a Shape,
    pub layout: &'a Layout,
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
}

impl<'a> Shard<'a> {
    /// Rows of the batch's tokens.
    pub fn rows(&self) -> Range<usize> {
        self.offsets()[0] as usize..self.offsets()[self.sequences.len()] as usize
    }

    fn offsets(&self) -> &'a [u32] {
        &self.batch.offsets[self.sequences.start..=self.sequences.end]
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
}

impl Context<'_> {
    fn dropout(&self, site: Site) -> Option<Dropout> {
        let Stream { key, step, pass } = self.stream?;
        let settings = &self.shape.settings;
        let (rate, number) = match site {
            Site::Embeddings => (settings.dropout, 0),
            Site::Probabilities(layer) => (settings.attention_dropout, 3 * layer + 1),
            Site::Attention(layer) => (settings.dropout, 3 * layer + 2),
            Site::FeedForward(layer) => (settings.dropout, 3 * layer + 3),
        };
        Dropout::new(rate, key, step, pass, number as u32)
    }

    fn attention<'s>(&self, shard: &Shard<'s>, layer: usize) -> Attention<'s> {
        Attention {
            hidden: self.shape.settings.hidden,
            heads: self.shape.settings.heads,
            causal: self.direction == Direction::Causal,
            offsets: shard.offsets(),
            dropout: self.dropout(Site::Probabilities(layer)),
            first_row: shard.first_row(),
            precision: self.precision,
        }
    }

    fn of(&self, range: &Range<usize>) -> &[f32] {
        &self.values[range.clone()]
    }

    /// The tied output layer.
    pub fn output(&self) -> Output<'_> {
        Output {
            table: self.of(&self.layout.token),
            bias: self.of(&self.layout.output_bias),
            hidden: self.shape.settings.hidden,
            precision: self.precision,
        }
    }
}

/// What a shard's forward leaves for its backward. With one layer and two states kept, layers take turns in them:
/// evaluation.
pub struct Activations {
    /// States after the embeddings and after each layer: [tokens, hidden].
    states: Vec<Buffer>,
    layers: Vec<LayerActivations>,
    embedding_normalised: Buffer,
    embedding_inverse: Buffer,
}

#[derive(Default)]
struct LayerActivations {
    /// [tokens, 3 hidden]: query, key, value.
    projected: Buffer,
    probabilities: Buffer,
    context: Buffer,
    attention_normalised: Buffer,
    attention_inverse: Buffer,
    /// States between attention and feed-forward.
    middle: Buffer,
    /// [tokens, feed_forward]: GELU and its derivative.
    inner: Buffer,
    slopes: Buffer,
    outer_normalised: Buffer,
    outer_inverse: Buffer,
}

impl Activations {
    fn keeping(layers: usize) -> Activations {
        Activations {
            states: (0..layers + 1).map(|_| Buffer::default()).collect(),
            layers: (0..layers.max(1))
                .map(|_| LayerActivations::default())
                .collect(),
            embedding_normalised: Buffer::default(),
            embedding_inverse: Buffer::default(),
        }
    }

    /// For training: everything is kept.
    pub fn for_training(shape: &Shape) -> Activations {
        Activations::keeping(shape.settings.layers)
    }

    /// For evaluation: what the next layer needs.
    pub fn for_evaluation() -> Activations {
        Activations::keeping(1)
    }

    /// States after `depth` layers, 0 for the embeddings.
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
    /// Gradients of biases, scales and shifts of one block.
    inner_bias: Buffer,
    outer_bias: Buffer,
    scale: Buffer,
    shift: Buffer,
    target_states: Buffer,
    target_gradient: Buffer,
    pub clock: Clock,
}

/// Runs the embeddings and the first `depth` layers.
pub fn forward(
    context: &Context,
    shard: &Shard,
    depth: usize,
    activations: &mut Activations,
    scratch: &mut Scratch,
) {
    scratch.clock.start();
    let rows = shard.rows();
    let hidden = context.shape.settings.hidden;
    let tokens = rows.len();
    let Activations {
        states,
        layers,
        embedding_normalised,
        embedding_inverse,
    } = activations;
    for state in states.iter_mut() {
        state.resize(tokens * hidden);
    }
    embedding_normalised.resize(tokens * hidden);
    embedding_inverse.resize(tokens);
    let layout = context.layout;
    let lookup = |table: &Range<usize>, indices| Lookup {
        table: &context.values[table.clone()],
        indices,
    };
    vectorised(NormaliseEmbeddings {
        token: lookup(&layout.token, &shard.batch.tokens[rows.clone()]),
        position: lookup(&layout.position, &shard.batch.positions[rows.clone()]),
        language: layout
            .language
            .as_ref()
            .map(|table| lookup(table, &shard.batch.languages[rows.clone()])),
        dropout: context.dropout(Site::Embeddings),
        first_row: shard.first_row(),
        scale: context.of(&layout.embedding_norm.scale),
        shift: context.of(&layout.embedding_norm.shift),
        normalised: embedding_normalised,
        inverse: embedding_inverse,
        out: &mut states[0],
    });
    scratch.clock.lap(Part::Embeddings);
    let (kept_states, kept_layers) = (states.len(), layers.len());
    for layer in 0..depth {
        let (from, to) = (layer % kept_states, (layer + 1) % kept_states);
        // Lent out for the call: a layer reads one state and writes another.
        let input = std::mem::take(&mut states[from]);
        layer_forward(
            context,
            shard,
            layer,
            &input,
            &mut layers[layer % kept_layers],
            &mut states[to],
            scratch,
        );
        states[from] = input;
    }
}

fn layer_forward(
    context: &Context,
    shard: &Shard,
    index: usize,
    input: &[f32],
    kept: &mut LayerActivations,
    output: &mut [f32],
    scratch: &mut Scratch,
) {
    let settings = &context.shape.settings;
    let (hidden, wide, tokens) = (settings.hidden, settings.feed_forward, shard.rows().len());
    let layer = &context.layout.layers[index];
    let weights = context.forward_weights;
    kept.projected.resize(tokens * 3 * hidden);
    kept.probabilities.resize(attention::probabilities_length(
        settings.heads,
        shard.offsets(),
    ));
    kept.context.resize(tokens * hidden);
    kept.attention_normalised.resize(tokens * hidden);
    kept.attention_inverse.resize(tokens);
    kept.middle.resize(tokens * hidden);
    kept.inner.resize(tokens * wide);
    kept.slopes.resize(tokens * wide);
    kept.outer_normalised.resize(tokens * hidden);
    kept.outer_inverse.resize(tokens);
    scratch.update.resize(tokens * hidden);

    let bias = context.of(&layer.projection.bias);
    for row in kept.projected.chunks_exact_mut(3 * hidden) {
        row.copy_from_slice(bias);
    }
    let panels = weights.panels(index, Product::Projection);
    context.apply(
        tokens,
        &layer.projection,
        input,
        panels,
        &mut kept.projected,
        Write::Add,
    );
    scratch.clock.lap(Part::Linear);
    attention::forward(
        context.attention(shard, index),
        &kept.projected,
        &mut kept.probabilities,
        &mut kept.context,
        &mut scratch.attention,
    );
    scratch.clock.lap(Part::Attention);
    let panels = weights.panels(index, Product::AttentionOutput);
    context.apply(
        tokens,
        &layer.attention_output,
        &kept.context,
        panels,
        &mut scratch.update,
        Write::Replace,
    );
    scratch.clock.lap(Part::Linear);
    vectorised(NormaliseResidual {
        residual: input,
        update: &scratch.update,
        bias: context.of(&layer.attention_output.bias),
        dropout: context.dropout(Site::Attention(index)),
        first_row: shard.first_row(),
        scale: context.of(&layer.attention_norm.scale),
        shift: context.of(&layer.attention_norm.shift),
        normalised: &mut kept.attention_normalised,
        inverse: &mut kept.attention_inverse,
        out: &mut kept.middle,
    });
    scratch.clock.lap(Part::Normalisation);
    let panels = weights.panels(index, Product::Inner);
    context.apply(
        tokens,
        &layer.inner,
        &kept.middle,
        panels,
        &mut kept.inner,
        Write::Replace,
    );
    scratch.clock.lap(Part::Linear);
    vectorised(Gelu {
        values: &mut kept.inner,
        slopes: &mut kept.slopes,
        bias: context.of(&layer.inner.bias),
    });
    scratch.clock.lap(Part::Activation);
    let panels = weights.panels(index, Product::Outer);
    context.apply(
        tokens,
        &layer.outer,
        &kept.inner,
        panels,
        &mut scratch.update,
        Write::Replace,
    );
    scratch.clock.lap(Part::Linear);
    vectorised(NormaliseResidual {
        residual: &kept.middle,
        update: &scratch.update,
        bias: context.of(&layer.outer.bias),
        dropout: context.dropout(Site::FeedForward(index)),
        first_row: shard.first_row(),
        scale: context.of(&layer.feed_forward_norm.scale),
        shift: context.of(&layer.feed_forward_norm.shift),
        normalised: &mut kept.outer_normalised,
        inverse: &mut kept.outer_inverse,
        out: output,
    });
    scratch.clock.lap(Part::Normalisation);
}

impl Context<'_> {
    /// out (+)= input . weight^T
    fn apply(
        &self,
        tokens: usize,
        linear: &Linear,
        input: &[f32],
        panels: &[f32],
        out: &mut [f32],
        write: Write,
    ) {
        let Linear {
            inputs, outputs, ..
        } = *linear;
        self.precision.multiply(
            tokens,
            inputs,
            outputs,
            Matrix::rows(input, inputs),
            panels,
            out,
            outputs,
            write,
        );
    }
}
