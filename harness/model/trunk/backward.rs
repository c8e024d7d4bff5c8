//! The loss of a shard and its way back: gradients of states, and of parameters in the order of shards.

use std::ops::Range;

use super::reading::{Computed, scatter, start_read_gradient};
use super::{
    Activations, Clock, Context, KEY_VALUE, LayerActivations, Part, QUERY, Scratch, Shard, Site,
    Source, SourceActivations,
};
use crate::kernels::attention::{self, OperandGradients, Operands};
use crate::kernels::buffer::Buffer;
use crate::kernels::embedding::NormaliseEmbeddingsBackward;
use crate::kernels::gelu::GeluBackward;
use crate::kernels::lanes::vectorised;
use crate::kernels::matmul::{Matrix, Precision, Write, packed_length};
use crate::kernels::normalise::{AddInto, ColumnSums, NormaliseResidualBackward};
use crate::kernels::vocabulary::{self, LossSum};
use crate::model::layout::{Block, Linear, Side, SourceAttention};
use crate::model::tickets::{Lent, Tickets};
use crate::model::trainable::Trainable;
use crate::model::weights::Weights;

/// The gradient in some consecutive outputs of a linear layer, with the way back to its input and its weight.
struct LinearBackward<'a> {
    precision: Precision,
    tokens: usize,
    linear: &'a Linear,
    outputs: Range<usize>,
    /// [tokens, outputs]
    output_gradient: &'a [f32],
}

impl LinearBackward<'_> {
    /// input_gradient (+)= output_gradient . weight
    fn apply(&self, weights: &Weights, input_gradient: &mut [f32], write: Write) {
        let inputs = self.linear.inputs;
        self.precision.multiply_lines(
            self.tokens,
            self.outputs.clone(),
            inputs,
            Matrix::rows(self.output_gradient, self.outputs.len()),
            weights.panels(self.linear, 0),
            self.linear.outputs,
            input_gradient,
            inputs,
            write,
        );
    }

    /// Packs the layer's inputs for [`LinearBackward::add_weight_gradient`].
    fn pack(&self, input: &[f32], panels: &mut Buffer) {
        let width = self.linear.inputs;
        panels.resize(packed_length(self.tokens, width));
        self.precision
            .pack(Matrix::rows(input, width), self.tokens, width, panels);
    }

    /// weight gradient += output_gradient^T . input; bias gradient += `bias`.
    fn add_weight_gradient(&self, input_panels: &[f32], bias: &[f32], lent: &mut Lent) {
        if self.tokens == 0 {
            return;
        }
        let (inputs, outputs) = (self.linear.inputs, self.outputs.len());
        self.precision.multiply(
            outputs,
            self.tokens,
            inputs,
            Matrix::columns(self.output_gradient, outputs),
            input_panels,
            lent.at(&self.linear.weight_of(&self.outputs)),
            inputs,
            Write::Add,
        );
        let first = self.linear.bias.start;
        let range = first + self.outputs.start..first + self.outputs.end;
        add(lent, &range, bias);
    }
}

fn add(lent: &mut Lent, range: &Range<usize>, gradient: &[f32]) {
    vectorised(AddInto {
        target: lent.at(range),
        source: gradient,
    });
}

/// What a shard's backward needs besides its activations.
#[derive(Clone, Copy)]
pub struct Backward<'a> {
    pub weights: &'a Weights,
    pub tickets: &'a Tickets<'a>,
    /// The shard's place in the order of the step.
    pub turn: usize,
    /// Layers to go back through.
    pub depth: usize,
    pub trainable: &'a Trainable,
}

impl<'a> Backward<'a> {
    /// Waits for the shards before and takes the block.
    fn lend(&self, block: &Block, clock: &mut Clock) -> Lent<'a> {
        let lent = self.tickets.wait(block.number, self.turn);
        clock.lap(Part::Waiting);
        lent
    }

    /// Whether gradients have to reach the states that a decoder attends to.
    fn reaches_source(&self) -> bool {
        self.trainable.reach(Side::Encoder).any
    }
}

/// Cross-entropy of the shard's targets, whose rows the forward was told are read. With `backward`, adds the output layer's
/// gradients times `weight` and leaves the states' gradient in `scratch` for [`backward`]. Of a stack without an output layer
/// the loss is that of no targets.
pub fn language_model_loss(
    context: &Context,
    activations: &Activations,
    labels: &[u32],
    backward: Option<(&Backward, f32)>,
    scratch: &mut Scratch,
) -> LossSum {
    let hidden = context.shape.settings.hidden;
    let (Some(output), Some(layer)) = (context.output(), &context.stack.output) else {
        return LossSum::default();
    };
    scratch.target_states.resize(labels.len() * hidden);
    scratch.target_gradient.resize(labels.len() * hidden);
    activations.copy_read(hidden, &mut scratch.target_states);
    let mut total = LossSum::default();
    let mut lent = None;
    let block = vocabulary::block_rows(context.shape.vocabulary);
    for first in (0..labels.len()).step_by(block) {
        let labels = &labels[first..labels.len().min(first + block)];
        let range = first * hidden..(first + labels.len()) * hidden;
        let states = &scratch.target_states[range.clone()];
        let weight = backward.map_or(1.0, |(_, weight)| weight);
        total.add(vocabulary::loss(
            output,
            states,
            labels,
            weight,
            &mut scratch.vocabulary,
        ));
        if let Some((backward, _)) = backward {
            let gradient = &mut scratch.target_gradient[range];
            vocabulary::states_gradient(output, labels.len(), gradient, &mut scratch.vocabulary);
            scratch.clock.lap(Part::Vocabulary);
            if !backward.trainable.block(&layer.block) {
                continue;
            }
            let lent = lent.get_or_insert_with(|| backward.lend(&layer.block, &mut scratch.clock));
            let (table, bias) = lent.split_at_mut(layer.bias.start - layer.block.range.start);
            vocabulary::add_table_gradient(
                output,
                states,
                labels.len(),
                table,
                bias,
                &mut scratch.vocabulary,
            );
        }
    }
    if let Some((backward, _)) = backward {
        if backward.trainable.block(&layer.block) {
            // A shard without targets passes its turn on.
            drop(lent.unwrap_or_else(|| backward.lend(&layer.block, &mut scratch.clock)));
        }
        // Lent out for the call.
        let gradient = std::mem::take(&mut scratch.target_gradient);
        start_read_gradient(activations, &gradient, hidden, scratch);
        scratch.target_gradient = gradient;
    }
    scratch.clock.lap(Part::Vocabulary);
    total
}

/// Sets the gradient of the states that [`backward`] starts from.
pub fn start_gradient(gradient: Option<&[f32]>, length: usize, scratch: &mut Scratch) {
    match gradient {
        Some(gradient) => {
            scratch.gradient.resize(length);
            scratch.gradient.copy_from_slice(gradient);
        }
        None => scratch.gradient.clear_to(length),
    }
}

/// Makes the gradient that a decoder's [`backward`] has gathered for the source's states the one that the encoder's starts
/// from.
pub fn start_source_gradient(scratch: &mut Scratch) {
    std::mem::swap(&mut scratch.gradient, &mut scratch.source_gradient);
}

/// Goes back from the states after `backward.depth` layers to the embeddings: adds all trained parameters' gradients, and
/// writes that of the summed embeddings to `embedding_gradient` [tokens, hidden]. `tap(depth)` is a gradient that enters there.
/// Where embeddings and lower layers are frozen, it ends above them and leaves `embedding_gradient` as it is. A decoder's
/// leaves the gradient of the source's states for [`start_source_gradient`].
pub fn backward<'t>(
    context: &Context,
    shard: &Shard,
    activations: &Activations,
    backward: &Backward,
    tap: impl Fn(usize) -> Option<&'t [f32]>,
    embedding_gradient: &mut [f32],
    scratch: &mut Scratch,
) {
    scratch.clock.start();
    if let Some(source) = shard.source
        && backward.reaches_source()
    {
        scratch.source_gradient.clear_to(source.states.len());
    }
    let reach = backward.trainable.reach(context.side);
    for index in (reach.lowest_layer..backward.depth).rev() {
        let (input, kept) = (activations.states(index), &activations.layers[index]);
        let reading = activations.reading.as_ref();
        let computed = Computed::of(shard, reading, (index, activations.depth));
        feed_forward_backward(context, computed, index, kept, backward, scratch);
        let layer = &context.stack.layers[index];
        if let (Some(layer), Some(source)) = (&layer.source_attention, shard.source) {
            source_attention_backward(
                context, shard, computed, source, layer, index, kept, backward, scratch,
            );
        }
        attention_backward(
            context, shard, computed, index, input, kept, backward, scratch,
        );
        if let Some(gradient) = tap(index) {
            vectorised(AddInto {
                target: &mut scratch.gradient,
                source: gradient,
            });
        }
    }
    if !reach.embeddings {
        return;
    }
    let norm = &context.stack.embedding_norm;
    let hidden = context.shape.settings.hidden;
    scratch.scale.resize(hidden);
    scratch.shift.resize(hidden);
    embedding_gradient.copy_from_slice(&scratch.gradient);
    vectorised(NormaliseEmbeddingsBackward {
        gradient: embedding_gradient,
        normalised: &activations.embedding_normalised,
        inverse: &activations.embedding_inverse,
        dropout: context.dropout(Site::Embeddings),
        first_row: shard.first_row(),
        scale: context.of(&norm.scale),
        scale_gradient: &mut scratch.scale,
        shift_gradient: &mut scratch.shift,
    });
    scratch.clock.lap(Part::Embeddings);
    let mut lent = backward.lend(&context.stack.embedding_block, &mut scratch.clock);
    add(&mut lent, &norm.scale, &scratch.scale);
    add(&mut lent, &norm.shift, &scratch.shift);
}

/// `scratch.gradient`: from the layer's output to the states before its feed-forward block.
fn feed_forward_backward(
    context: &Context,
    computed: Computed,
    index: usize,
    kept: &LayerActivations,
    backward: &Backward,
    scratch: &mut Scratch,
) {
    let settings = &context.shape.settings;
    let (hidden, wide, tokens) = (settings.hidden, settings.feed_forward, computed.count());
    let layer = &context.stack.layers[index];
    scratch.update.resize(tokens * hidden);
    scratch.wide.resize(tokens * wide);
    scratch.inner_bias.resize(wide);
    scratch.outer_bias.resize(hidden);
    scratch.scale.resize(hidden);
    scratch.shift.resize(hidden);
    vectorised(NormaliseResidualBackward {
        gradient: &mut scratch.gradient,
        normalised: &kept.outer_normalised,
        inverse: &kept.outer_inverse,
        dropout: context.dropout(Site::FeedForward(index)),
        rows: computed.rows,
        scale: context.of(&layer.feed_forward_norm.scale),
        update_gradient: &mut scratch.update,
        bias_gradient: &mut scratch.outer_bias,
        scale_gradient: &mut scratch.scale,
        shift_gradient: &mut scratch.shift,
    });
    scratch.clock.lap(Part::Normalisation);
    context
        .linear_backward(tokens, &layer.outer, &scratch.update)
        .apply(backward.weights, &mut scratch.wide, Write::Replace);
    scratch.clock.lap(Part::Linear);
    vectorised(GeluBackward {
        gradient: &mut scratch.wide,
        slopes: &kept.slopes,
        bias_gradient: &mut scratch.inner_bias,
    });
    scratch.clock.lap(Part::Activation);
    context
        .linear_backward(tokens, &layer.inner, &scratch.wide)
        .apply(backward.weights, &mut scratch.gradient, Write::Add);
    scratch.clock.lap(Part::Linear);
    if !backward.trainable.block(&layer.feed_forward_block) {
        return;
    }
    let middle = match layer.source_attention {
        Some(_) => &kept.source.middle,
        None => &kept.middle,
    };
    let outer = context.linear_backward(tokens, &layer.outer, &scratch.update);
    let inner = context.linear_backward(tokens, &layer.inner, &scratch.wide);
    outer.pack(&kept.inner, &mut scratch.first_panels);
    inner.pack(middle, &mut scratch.second_panels);
    scratch.clock.lap(Part::WeightGradients);
    let mut lent = backward.lend(&layer.feed_forward_block, &mut scratch.clock);
    add(&mut lent, &layer.feed_forward_norm.scale, &scratch.scale);
    add(&mut lent, &layer.feed_forward_norm.shift, &scratch.shift);
    outer.add_weight_gradient(&scratch.first_panels, &scratch.outer_bias, &mut lent);
    inner.add_weight_gradient(&scratch.second_panels, &scratch.inner_bias, &mut lent);
    scratch.clock.lap(Part::WeightGradients);
}

/// `scratch.gradient`: from the states after attention over the source to those before; `scratch.source_gradient` gathers
/// that of the source's states.
#[allow(clippy::too_many_arguments)]
fn source_attention_backward(
    context: &Context,
    shard: &Shard,
    computed: Computed,
    source: Source,
    layer: &SourceAttention,
    index: usize,
    kept: &LayerActivations,
    backward: &Backward,
    scratch: &mut Scratch,
) {
    let (hidden, tokens) = (context.shape.settings.hidden, computed.count());
    let source_tokens = source.states.len() / hidden;
    let SourceActivations {
        query,
        key_value,
        probabilities,
        context: attended,
        normalised,
        inverse,
        ..
    } = &kept.source;
    vectorised(NormaliseResidualBackward {
        gradient: &mut scratch.gradient,
        normalised,
        inverse,
        dropout: context.dropout(Site::SourceAttention(index)),
        rows: computed.rows,
        scale: context.of(&layer.norm.scale),
        update_gradient: &mut scratch.update,
        bias_gradient: &mut scratch.outer_bias,
        scale_gradient: &mut scratch.scale,
        shift_gradient: &mut scratch.shift,
    });
    scratch.clock.lap(Part::Normalisation);
    scratch.target_gradient.resize(tokens * hidden);
    context
        .linear_backward(tokens, &layer.output, &scratch.update)
        .apply(
            backward.weights,
            &mut scratch.target_gradient,
            Write::Replace,
        );
    scratch.clock.lap(Part::Linear);
    scratch.query_gradient.resize(tokens * hidden);
    scratch.wide.resize(source_tokens * 2 * hidden);
    attention::backward(
        context.source_attention(shard, computed, source, index),
        Operands::Source { query, key_value },
        probabilities,
        &scratch.target_gradient,
        OperandGradients::Source {
            query: &mut scratch.query_gradient,
            key_value: &mut scratch.wide,
        },
        &mut scratch.attention,
    );
    scratch.clock.lap(Part::Attention);
    scratch.query_bias.resize(hidden);
    scratch.inner_bias.resize(2 * hidden);
    vectorised(ColumnSums {
        values: &scratch.query_gradient,
        sums: &mut scratch.query_bias,
    });
    vectorised(ColumnSums {
        values: &scratch.wide,
        sums: &mut scratch.inner_bias,
    });
    let of_query = context.linear_backward(tokens, &layer.query, &scratch.query_gradient);
    let of_key_value = context.linear_backward(source_tokens, &layer.key_value, &scratch.wide);
    of_query.apply(backward.weights, &mut scratch.gradient, Write::Add);
    if backward.reaches_source() {
        of_key_value.apply(backward.weights, &mut scratch.source_gradient, Write::Add);
    }
    scratch.clock.lap(Part::Linear);
    if !backward.trainable.block(&layer.block) {
        return;
    }
    let of_output = context.linear_backward(tokens, &layer.output, &scratch.update);
    of_output.pack(attended, &mut scratch.first_panels);
    of_query.pack(&kept.middle, &mut scratch.second_panels);
    of_key_value.pack(source.states, &mut scratch.third_panels);
    scratch.clock.lap(Part::WeightGradients);
    let mut lent = backward.lend(&layer.block, &mut scratch.clock);
    add(&mut lent, &layer.norm.scale, &scratch.scale);
    add(&mut lent, &layer.norm.shift, &scratch.shift);
    of_output.add_weight_gradient(&scratch.first_panels, &scratch.outer_bias, &mut lent);
    of_query.add_weight_gradient(&scratch.second_panels, &scratch.query_bias, &mut lent);
    of_key_value.add_weight_gradient(&scratch.third_panels, &scratch.inner_bias, &mut lent);
    scratch.clock.lap(Part::WeightGradients);
}

/// `scratch.gradient`: from the states after self-attention to the layer's input.
#[allow(clippy::too_many_arguments)]
fn attention_backward(
    context: &Context,
    shard: &Shard,
    computed: Computed,
    index: usize,
    input: &[f32],
    kept: &LayerActivations,
    backward: &Backward,
    scratch: &mut Scratch,
) {
    let hidden = context.shape.settings.hidden;
    let (tokens, count) = (shard.rows().len(), computed.count());
    let layer = &context.stack.layers[index];
    scratch.inner_bias.resize(3 * hidden);
    vectorised(NormaliseResidualBackward {
        gradient: &mut scratch.gradient,
        normalised: &kept.attention_normalised,
        inverse: &kept.attention_inverse,
        dropout: context.dropout(Site::Attention(index)),
        rows: computed.rows,
        scale: context.of(&layer.attention_norm.scale),
        update_gradient: &mut scratch.update,
        bias_gradient: &mut scratch.outer_bias,
        scale_gradient: &mut scratch.scale,
        shift_gradient: &mut scratch.shift,
    });
    scratch.clock.lap(Part::Normalisation);
    scratch.target_gradient.resize(count * hidden);
    context
        .linear_backward(count, &layer.attention_output, &scratch.update)
        .apply(
            backward.weights,
            &mut scratch.target_gradient,
            Write::Replace,
        );
    scratch.clock.lap(Part::Linear);
    let attention = context.attention(shard, computed, index);
    let (operands, gradients) = match computed.rows.chosen {
        None => {
            scratch.wide.resize(tokens * 3 * hidden);
            (
                Operands::Own(&kept.projected),
                OperandGradients::Own(&mut scratch.wide),
            )
        }
        Some(_) => {
            scratch.query_gradient.resize(count * hidden);
            scratch.wide.resize(tokens * 2 * hidden);
            (
                Operands::Source {
                    query: &kept.chosen_query,
                    key_value: &kept.projected,
                },
                OperandGradients::Source {
                    query: &mut scratch.query_gradient,
                    key_value: &mut scratch.wide,
                },
            )
        }
    };
    attention::backward(
        attention,
        operands,
        &kept.probabilities,
        &scratch.target_gradient,
        gradients,
        &mut scratch.attention,
    );
    scratch.clock.lap(Part::Attention);
    let projection = &layer.projection;
    let mut bias = &mut scratch.inner_bias[..];
    if computed.rows.chosen.is_some() {
        let (of_query, of_key_value) = bias.split_at_mut(hidden);
        vectorised(ColumnSums {
            values: &scratch.query_gradient,
            sums: of_query,
        });
        bias = of_key_value;
    }
    vectorised(ColumnSums {
        values: &scratch.wide,
        sums: bias,
    });
    match computed.rows.chosen {
        None => context
            .linear_backward(tokens, projection, &scratch.wide)
            .apply(backward.weights, &mut scratch.gradient, Write::Add),
        Some(chosen) => {
            projection_backward_of_chosen(context, tokens, projection, chosen, backward, scratch);
        }
    }
    scratch.clock.lap(Part::Linear);
    if !backward.trainable.block(&layer.attention_block) {
        return;
    }
    let output = context.linear_backward(count, &layer.attention_output, &scratch.update);
    output.pack(&kept.context, &mut scratch.first_panels);
    // Queries' part of the projection, where it is by itself, and the rest of it.
    let (of_query, rest) = match computed.rows.chosen {
        None => (
            None,
            context.linear_backward(tokens, projection, &scratch.wide),
        ),
        Some(_) => (
            Some(context.part_backward(count, projection, QUERY, &scratch.query_gradient)),
            context.part_backward(tokens, projection, KEY_VALUE, &scratch.wide),
        ),
    };
    if let Some(of_query) = &of_query {
        of_query.pack(&kept.chosen_input, &mut scratch.third_panels);
    }
    rest.pack(input, &mut scratch.second_panels);
    scratch.clock.lap(Part::WeightGradients);
    let mut lent = backward.lend(&layer.attention_block, &mut scratch.clock);
    add(&mut lent, &layer.attention_norm.scale, &scratch.scale);
    add(&mut lent, &layer.attention_norm.shift, &scratch.shift);
    output.add_weight_gradient(&scratch.first_panels, &scratch.outer_bias, &mut lent);
    let (query_bias, rest_bias) = scratch.inner_bias.split_at(rest.outputs.start);
    if let Some(of_query) = &of_query {
        of_query.add_weight_gradient(&scratch.third_panels, query_bias, &mut lent);
    }
    rest.add_weight_gradient(&scratch.second_panels, rest_bias, &mut lent);
    scratch.clock.lap(Part::WeightGradients);
}

/// `scratch.gradient`: from that of the chosen rows after the residual to that of the layer's whole input. Rows that were not
/// chosen have keys and values alone; those that were sum query, key and value in one chain, as if all rows had been computed,
/// so that choosing changes no bit.
fn projection_backward_of_chosen(
    context: &Context,
    tokens: usize,
    projection: &Linear,
    chosen: &[u32],
    backward: &Backward,
    scratch: &mut Scratch,
) {
    let hidden = context.shape.settings.hidden;
    let count = chosen.len();
    scratch.chosen_projected.resize(count * 3 * hidden);
    let lines = scratch
        .chosen_projected
        .chunks_exact_mut(3 * hidden)
        .zip(scratch.query_gradient.chunks_exact(hidden));
    for ((line, query), &row) in lines.zip(chosen) {
        line[..hidden].copy_from_slice(query);
        line[hidden..].copy_from_slice(&scratch.wide[row as usize * 2 * hidden..][..2 * hidden]);
    }
    context
        .linear_backward(count, projection, &scratch.chosen_projected)
        .apply(backward.weights, &mut scratch.gradient, Write::Add);
    scratch.target_gradient.resize(tokens * hidden);
    context
        .part_backward(tokens, projection, KEY_VALUE, &scratch.wide)
        .apply(
            backward.weights,
            &mut scratch.target_gradient,
            Write::Replace,
        );
    std::mem::swap(&mut scratch.gradient, &mut scratch.target_gradient);
    scatter(
        &scratch.target_gradient,
        hidden,
        chosen,
        &mut scratch.gradient,
    );
}

impl Context<'_> {
    fn linear_backward<'a>(
        &self,
        tokens: usize,
        linear: &'a Linear,
        output_gradient: &'a [f32],
    ) -> LinearBackward<'a> {
        self.part_backward(tokens, linear, 0..linear.parts, output_gradient)
    }

    fn part_backward<'a>(
        &self,
        tokens: usize,
        linear: &'a Linear,
        parts: Range<usize>,
        output_gradient: &'a [f32],
    ) -> LinearBackward<'a> {
        LinearBackward {
            precision: self.precision,
            tokens,
            linear,
            outputs: linear.outputs_of(&parts),
            output_gradient,
        }
    }
}
