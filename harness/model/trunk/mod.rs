//! One shard through a stack of the trunk: embeddings, then post-norm transformer layers (Lample and Conneau 2019;
//! Vaswani et al. 2017). Here what passes share and keep, and the forward; the backward is written out in `backward`.
//! A decoder's layers attend to the states that the encoder has left for the same sequences of another batch.

mod backward;
mod clock;
pub mod cuda;
mod reading;
mod step;

pub use backward::{
    Backward, backward, language_model_loss, start_gradient, start_source_gradient,
};
pub use clock::{Clock, Part};
pub use reading::{computed_share, start_read_gradient};
pub use step::{Caches, Next, StepScratch, source_caches, step};

use std::ops::Range;

use self::reading::{Computed, Reading, gather};
use super::batch::{Batch, Direction};
use super::layout::{Layer, Linear, Norm, Side, SourceAttention, Stack};
use super::settings::Shape;
use super::weights::Weights;
use crate::kernels::attention::{self, Attention, AttentionScratch, Operands};
use crate::kernels::buffer::Buffer;
use crate::kernels::dropout::Dropout;
use crate::kernels::embedding::{Lookup, NormaliseEmbeddings};
use crate::kernels::gelu::Gelu;
use crate::kernels::lanes::vectorised;
use crate::kernels::matmul::{Matrix, Precision, Write};
use crate::kernels::normalise::NormaliseResidual;
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

/// Runs the embeddings and the first `depth` layers of the context's stack. `read` are the rows of the last one's states that
/// will be read, ascending and counted from the shard's first; `None` for all.
pub fn forward(
    context: &Context,
    shard: &Shard,
    depth: usize,
    read: Option<&[u32]>,
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
        depth: ran,
        reading,
        embedding_normalised,
        embedding_inverse,
    } = activations;
    *ran = depth;
    *reading = read.map(|rows| Reading::of(shard, rows));
    states[0].resize(tokens * hidden);
    embedding_normalised.resize(tokens * hidden);
    embedding_inverse.resize(tokens);
    let stack = context.stack;
    let lookup = |table: &Range<usize>, indices| Lookup {
        table: &context.values[table.clone()],
        indices,
    };
    vectorised(NormaliseEmbeddings {
        token: lookup(&stack.token, &shard.batch.tokens[rows.clone()]),
        position: lookup(&stack.position, &shard.batch.positions[rows.clone()]),
        language: stack
            .language
            .as_ref()
            .map(|table| lookup(table, &shard.batch.languages[rows.clone()])),
        dropout: context.dropout(Site::Embeddings),
        first_row: shard.first_row(),
        scale: context.of(&stack.embedding_norm.scale),
        shift: context.of(&stack.embedding_norm.shift),
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
        let computed = Computed::of(shard, reading.as_ref(), (layer, depth));
        layer_forward(
            context,
            shard,
            computed,
            layer,
            &input,
            &mut layers[layer % kept_layers],
            &mut states[to],
            scratch,
        );
        states[from] = input;
    }
}

#[allow(clippy::too_many_arguments)]
fn layer_forward(
    context: &Context,
    shard: &Shard,
    computed: Computed,
    index: usize,
    input: &[f32],
    kept: &mut LayerActivations,
    output: &mut Buffer,
    scratch: &mut Scratch,
) {
    let layer = &context.stack.layers[index];
    attention_forward(context, shard, computed, index, input, kept, scratch);
    if let (Some(attention), Some(source)) = (&layer.source_attention, shard.source) {
        let LayerActivations {
            middle,
            source: kept,
            ..
        } = kept;
        source_attention_forward(
            context, shard, computed, source, attention, index, middle, kept, scratch,
        );
    }
    feed_forward_forward(context, computed, layer, index, kept, output, scratch);
}

/// `kept.middle` = normalised sum of the input and its self-attention.
fn attention_forward(
    context: &Context,
    shard: &Shard,
    computed: Computed,
    index: usize,
    input: &[f32],
    kept: &mut LayerActivations,
    scratch: &mut Scratch,
) {
    let settings = &context.shape.settings;
    let (hidden, tokens, count) = (settings.hidden, shard.rows().len(), computed.count());
    let layer = &context.stack.layers[index];
    let attention = context.attention(shard, computed, index);
    kept.probabilities.resize(attention::probabilities_length(
        settings.heads,
        attention.query_offsets,
        attention.key_offsets,
    ));
    kept.context.resize(count * hidden);
    let projection = &layer.projection;
    let (operands, residual) = match computed.rows.chosen {
        None => {
            kept.projected.resize(tokens * 3 * hidden);
            context.project(tokens, projection, input, &mut kept.projected);
            (Operands::Own(&kept.projected), input)
        }
        Some(chosen) => {
            kept.chosen_input.resize(count * hidden);
            kept.chosen_query.resize(count * hidden);
            kept.projected.resize(tokens * 2 * hidden);
            gather(input, hidden, chosen, &mut kept.chosen_input);
            let of_chosen = &kept.chosen_input;
            let (query, key_value) = (QUERY, KEY_VALUE);
            context.project_parts(count, projection, query, of_chosen, &mut kept.chosen_query);
            context.project_parts(tokens, projection, key_value, input, &mut kept.projected);
            let operands = Operands::Source {
                query: &kept.chosen_query,
                key_value: &kept.projected,
            };
            (operands, &kept.chosen_input[..])
        }
    };
    scratch.clock.lap(Part::Linear);
    attention::forward(
        attention,
        operands,
        &mut kept.probabilities,
        &mut kept.context,
        &mut scratch.attention,
    );
    scratch.clock.lap(Part::Attention);
    scratch.update.resize(count * hidden);
    context.apply(
        count,
        &layer.attention_output,
        &kept.context,
        &mut scratch.update,
        Write::Replace,
    );
    scratch.clock.lap(Part::Linear);
    context.normalise(
        computed,
        Sum {
            residual,
            update: &scratch.update,
            bias: &layer.attention_output.bias,
            dropout: context.dropout(Site::Attention(index)),
            norm: &layer.attention_norm,
        },
        [
            &mut kept.attention_normalised,
            &mut kept.attention_inverse,
            &mut kept.middle,
        ],
    );
    scratch.clock.lap(Part::Normalisation);
}

/// `kept.middle` = normalised sum of the input and its attention over the source.
#[allow(clippy::too_many_arguments)]
fn source_attention_forward(
    context: &Context,
    shard: &Shard,
    computed: Computed,
    source: Source,
    layer: &SourceAttention,
    index: usize,
    input: &[f32],
    kept: &mut SourceActivations,
    scratch: &mut Scratch,
) {
    let settings = &context.shape.settings;
    let (hidden, tokens) = (settings.hidden, computed.count());
    let source_tokens = source.states.len() / hidden;
    let attention = context.source_attention(shard, computed, source, index);
    kept.query.resize(tokens * hidden);
    kept.key_value.resize(source_tokens * 2 * hidden);
    kept.probabilities.resize(attention::probabilities_length(
        settings.heads,
        attention.query_offsets,
        attention.key_offsets,
    ));
    kept.context.resize(tokens * hidden);
    context.project(tokens, &layer.query, input, &mut kept.query);
    context.project(
        source_tokens,
        &layer.key_value,
        source.states,
        &mut kept.key_value,
    );
    scratch.clock.lap(Part::Linear);
    attention::forward(
        attention,
        Operands::Source {
            query: &kept.query,
            key_value: &kept.key_value,
        },
        &mut kept.probabilities,
        &mut kept.context,
        &mut scratch.attention,
    );
    scratch.clock.lap(Part::Attention);
    scratch.update.resize(tokens * hidden);
    context.apply(
        tokens,
        &layer.output,
        &kept.context,
        &mut scratch.update,
        Write::Replace,
    );
    scratch.clock.lap(Part::Linear);
    context.normalise(
        computed,
        Sum {
            residual: input,
            update: &scratch.update,
            bias: &layer.output.bias,
            dropout: context.dropout(Site::SourceAttention(index)),
            norm: &layer.norm,
        },
        [&mut kept.normalised, &mut kept.inverse, &mut kept.middle],
    );
    scratch.clock.lap(Part::Normalisation);
}

/// `output` = normalised sum of the attended states and what the feed-forward block makes of them.
fn feed_forward_forward(
    context: &Context,
    computed: Computed,
    layer: &Layer,
    index: usize,
    kept: &mut LayerActivations,
    output: &mut Buffer,
    scratch: &mut Scratch,
) {
    let settings = &context.shape.settings;
    let (hidden, wide, tokens) = (settings.hidden, settings.feed_forward, computed.count());
    kept.inner.resize(tokens * wide);
    let middle = match layer.source_attention {
        Some(_) => &kept.source.middle,
        None => &kept.middle,
    };
    context.apply(
        tokens,
        &layer.inner,
        middle,
        &mut kept.inner,
        Write::Replace,
    );
    scratch.clock.lap(Part::Linear);
    vectorised(Gelu {
        values: &mut kept.inner,
        slopes: kept.for_backward.then(|| {
            kept.slopes.resize(tokens * wide);
            &mut kept.slopes[..]
        }),
        bias: context.of(&layer.inner.bias),
    });
    scratch.clock.lap(Part::Activation);
    scratch.update.resize(tokens * hidden);
    context.apply(
        tokens,
        &layer.outer,
        &kept.inner,
        &mut scratch.update,
        Write::Replace,
    );
    scratch.clock.lap(Part::Linear);
    context.normalise(
        computed,
        Sum {
            residual: middle,
            update: &scratch.update,
            bias: &layer.outer.bias,
            dropout: context.dropout(Site::FeedForward(index)),
            norm: &layer.feed_forward_norm,
        },
        [&mut kept.outer_normalised, &mut kept.outer_inverse, output],
    );
    scratch.clock.lap(Part::Normalisation);
}

/// What a sublayer's normalisation sums.
struct Sum<'a> {
    residual: &'a [f32],
    update: &'a [f32],
    bias: &'a Range<usize>,
    dropout: Option<Dropout>,
    norm: &'a Norm,
}

impl Context<'_> {
    /// Into normalised values, inverse deviations, and states, which take their sizes.
    fn normalise(
        &self,
        computed: Computed,
        sum: Sum,
        [normalised, inverse, out]: [&mut Buffer; 3],
    ) {
        normalised.resize(sum.residual.len());
        inverse.resize(computed.count());
        out.resize(sum.residual.len());
        vectorised(NormaliseResidual {
            residual: sum.residual,
            update: sum.update,
            bias: self.of(sum.bias),
            dropout: sum.dropout,
            rows: computed.rows,
            scale: self.of(&sum.norm.scale),
            shift: self.of(&sum.norm.shift),
            normalised,
            inverse,
            out,
        });
    }

    /// out = input . weight^T + bias
    fn project(&self, tokens: usize, linear: &Linear, input: &[f32], out: &mut [f32]) {
        self.project_parts(tokens, linear, 0..linear.parts, input, out);
    }

    /// The same for some parts of the outputs.
    fn project_parts(
        &self,
        tokens: usize,
        linear: &Linear,
        parts: Range<usize>,
        input: &[f32],
        out: &mut [f32],
    ) {
        let outputs = linear.outputs_of(&parts);
        let bias = &self.of(&linear.bias)[outputs.clone()];
        for row in out.chunks_exact_mut(outputs.len()) {
            row.copy_from_slice(bias);
        }
        self.apply_parts(tokens, linear, parts, input, out, Write::Add);
    }

    /// out (+)= input . weight^T
    fn apply(&self, tokens: usize, linear: &Linear, input: &[f32], out: &mut [f32], write: Write) {
        self.apply_parts(tokens, linear, 0..linear.parts, input, out, write);
    }

    fn apply_parts(
        &self,
        tokens: usize,
        linear: &Linear,
        parts: Range<usize>,
        input: &[f32],
        out: &mut [f32],
        write: Write,
    ) {
        if tokens == 0 {
            return;
        }
        let stride = linear.outputs_of(&parts).len();
        let width = linear.outputs / linear.parts;
        for (place, part) in parts.enumerate() {
            self.precision.multiply(
                tokens,
                linear.inputs,
                width,
                Matrix::rows(input, linear.inputs),
                self.forward_weights.panels(linear, part),
                &mut out[place * width..],
                stride,
                write,
            );
        }
    }
}
