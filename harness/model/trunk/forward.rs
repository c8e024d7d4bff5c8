//! States of a shard after the embeddings and after each layer, with what the backward needs of them.

use std::ops::Range;

use super::reading::{Computed, Reading, gather};
use super::{
    Activations, Context, KEY_VALUE, LayerActivations, Part, QUERY, Scratch, Shard, Site, Source,
    SourceActivations,
};
use crate::kernels::attention::{self, Operands};
use crate::kernels::buffer::Buffer;
use crate::kernels::dropout::Dropout;
use crate::kernels::embedding::{Lookup, NormaliseEmbeddings};
use crate::kernels::gelu::Gelu;
use crate::kernels::lanes::vectorised;
use crate::kernels::matmul::{Matrix, Write};
use crate::kernels::normalise::NormaliseResidual;
use crate::model::layout::{Layer, Linear, Norm, SourceAttention};

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
    pub(super) fn project(&self, tokens: usize, linear: &Linear, input: &[f32], out: &mut [f32]) {
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
    pub(super) fn apply(
        &self,
        tokens: usize,
        linear: &Linear,
        input: &[f32],
        out: &mut [f32],
        write: Write,
    ) {
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
