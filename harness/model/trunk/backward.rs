//! The loss of a shard and its way back: gradients of states, and of parameters in the order of shards.

use std::ops::Range;

use super::{
    Activations, Clock, Context, LayerActivations, Part, Scratch, Shard, Site, Source,
    SourceActivations,
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

/// The gradient in a linear layer's output, with the way back to its input and its weight.
struct LinearBackward<'a> {
    precision: Precision,
    tokens: usize,
    linear: &'a Linear,
    output_gradient: &'a [f32],
}

impl LinearBackward<'_> {
    /// input_gradient (+)= output_gradient . weight
    fn apply(&self, weights: &Weights, input_gradient: &mut [f32], write: Write) {
        let Linear {
            inputs, outputs, ..
        } = *self.linear;
        self.precision.multiply(
            self.tokens,
            outputs,
            inputs,
            Matrix::rows(self.output_gradient, outputs),
            weights.panels(self.linear),
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
        let Linear {
            inputs, outputs, ..
        } = *self.linear;
        self.precision.multiply(
            outputs,
            self.tokens,
            inputs,
            Matrix::columns(self.output_gradient, outputs),
            input_panels,
            lent.at(&self.linear.weight),
            inputs,
            Write::Add,
        );
        add(lent, &self.linear.bias, bias);
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

/// Cross-entropy of the shard's targets (`indices` count from the shard's first row). With `backward`, adds the
/// output layer's gradients times `weight` and leaves the states' gradient in `scratch` for [`backward`]. Of a stack without
/// an output layer the loss is that of no targets.
pub fn language_model_loss(
    context: &Context,
    states: &[f32],
    indices: impl Iterator<Item = usize>,
    labels: &[u32],
    backward: Option<(&Backward, f32)>,
    scratch: &mut Scratch,
) -> LossSum {
    let hidden = context.shape.settings.hidden;
    let (Some(output), Some(layer)) = (context.output(), &context.stack.output) else {
        return LossSum::default();
    };
    let indices: Vec<usize> = indices.collect();
    scratch.target_states.resize(labels.len() * hidden);
    scratch.target_gradient.resize(labels.len() * hidden);
    for (row, &index) in scratch.target_states.chunks_exact_mut(hidden).zip(&indices) {
        row.copy_from_slice(&states[index * hidden..(index + 1) * hidden]);
    }
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
        scratch.gradient.clear_to(states.len());
        for (row, &index) in scratch.target_gradient.chunks_exact(hidden).zip(&indices) {
            scratch.gradient[index * hidden..(index + 1) * hidden].copy_from_slice(row);
        }
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
        feed_forward_backward(context, shard, index, kept, backward, scratch);
        let layer = &context.stack.layers[index];
        if let (Some(layer), Some(source)) = (&layer.source_attention, shard.source) {
            source_attention_backward(
                context, shard, source, layer, index, kept, backward, scratch,
            );
        }
        attention_backward(context, shard, index, input, kept, backward, scratch);
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
    shard: &Shard,
    index: usize,
    kept: &LayerActivations,
    backward: &Backward,
    scratch: &mut Scratch,
) {
    let settings = &context.shape.settings;
    let (hidden, wide, tokens) = (settings.hidden, settings.feed_forward, shard.rows().len());
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
        first_row: shard.first_row(),
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
    source: Source,
    layer: &SourceAttention,
    index: usize,
    kept: &LayerActivations,
    backward: &Backward,
    scratch: &mut Scratch,
) {
    let (hidden, tokens) = (context.shape.settings.hidden, shard.rows().len());
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
        first_row: shard.first_row(),
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
        context.source_attention(shard, source, index),
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
fn attention_backward(
    context: &Context,
    shard: &Shard,
    index: usize,
    input: &[f32],
    kept: &LayerActivations,
    backward: &Backward,
    scratch: &mut Scratch,
) {
    let (hidden, tokens) = (context.shape.settings.hidden, shard.rows().len());
    let layer = &context.stack.layers[index];
    scratch.wide.resize(tokens * 3 * hidden);
    scratch.inner_bias.resize(3 * hidden);
    vectorised(NormaliseResidualBackward {
        gradient: &mut scratch.gradient,
        normalised: &kept.attention_normalised,
        inverse: &kept.attention_inverse,
        dropout: context.dropout(Site::Attention(index)),
        first_row: shard.first_row(),
        scale: context.of(&layer.attention_norm.scale),
        update_gradient: &mut scratch.update,
        bias_gradient: &mut scratch.outer_bias,
        scale_gradient: &mut scratch.scale,
        shift_gradient: &mut scratch.shift,
    });
    scratch.clock.lap(Part::Normalisation);
    scratch.target_gradient.resize(tokens * hidden);
    context
        .linear_backward(tokens, &layer.attention_output, &scratch.update)
        .apply(
            backward.weights,
            &mut scratch.target_gradient,
            Write::Replace,
        );
    scratch.clock.lap(Part::Linear);
    attention::backward(
        context.attention(shard, index),
        Operands::Own(&kept.projected),
        &kept.probabilities,
        &scratch.target_gradient,
        OperandGradients::Own(&mut scratch.wide),
        &mut scratch.attention,
    );
    scratch.clock.lap(Part::Attention);
    vectorised(ColumnSums {
        values: &scratch.wide,
        sums: &mut scratch.inner_bias,
    });
    let projection = context.linear_backward(tokens, &layer.projection, &scratch.wide);
    projection.apply(backward.weights, &mut scratch.gradient, Write::Add);
    scratch.clock.lap(Part::Linear);
    if !backward.trainable.block(&layer.attention_block) {
        return;
    }
    let output = context.linear_backward(tokens, &layer.attention_output, &scratch.update);
    output.pack(&kept.context, &mut scratch.first_panels);
    projection.pack(input, &mut scratch.second_panels);
    scratch.clock.lap(Part::WeightGradients);
    let mut lent = backward.lend(&layer.attention_block, &mut scratch.clock);
    add(&mut lent, &layer.attention_norm.scale, &scratch.scale);
    add(&mut lent, &layer.attention_norm.shift, &scratch.shift);
    output.add_weight_gradient(&scratch.first_panels, &scratch.outer_bias, &mut lent);
    projection.add_weight_gradient(&scratch.second_panels, &scratch.inner_bias, &mut lent);
    scratch.clock.lap(Part::WeightGradients);
}

impl Context<'_> {
    fn linear_backward<'a>(
        &self,
        tokens: usize,
        linear: &'a Linear,
        output_gradient: &'a [f32],
    ) -> LinearBackward<'a> {
        LinearBackward {
            precision: self.precision,
            tokens,
            linear,
            output_gradient,
        }
    }
}
