//! The loss of a shard and its way back: gradients of states, and of parameters in the order of shards.

use std::ops::Range;

use super::{Activations, Context, LayerActivations, Part, Scratch, Shard, Site};
use crate::kernels::attention;
use crate::kernels::buffer::Buffer;
use crate::kernels::embedding::NormaliseEmbeddingsBackward;
use crate::kernels::gelu::GeluBackward;
use crate::kernels::lanes::vectorised;
use crate::kernels::matmul::{Matrix, Precision, Write, packed_length};
use crate::kernels::normalise::{AddInto, ColumnSums, NormaliseResidualBackward};
use crate::kernels::vocabulary::{self, LossSum};
use crate::model::layout::{Layout, Linear};
use crate::model::tickets::{Lent, Tickets};
use crate::model::trainable::Trainable;
use crate::model::weights::{Product, Weights};

/// Blocks of the gradient as [`Tickets`] count them.
pub fn gradient_blocks(layout: &Layout) -> Vec<Range<usize>> {
    let mut blocks = vec![
        layout.output_block.clone(),
        layout.embedding_norm_block.clone(),
    ];
    for layer in &layout.layers {
        blocks.push(layer.attention_block.clone());
        blocks.push(layer.feed_forward_block.clone());
    }
    blocks
}

const OUTPUT_BLOCK: usize = 0;
const EMBEDDING_BLOCK: usize = 1;

fn attention_block(layer: usize) -> usize {
    2 + 2 * layer
}

fn feed_forward_block(layer: usize) -> usize {
    3 + 2 * layer
}

/// input_gradient (+)= output_gradient . weight
fn apply_backward(
    precision: Precision,
    tokens: usize,
    linear: &Linear,
    output_gradient: &[f32],
    panels: &[f32],
    input_gradient: &mut [f32],
    write: Write,
) {
    let Linear {
        inputs, outputs, ..
    } = *linear;
    let left = Matrix::rows(output_gradient, outputs);
    precision.multiply(
        tokens,
        outputs,
        inputs,
        left,
        panels,
        input_gradient,
        inputs,
        write,
    );
}

/// Packs a linear layer's inputs for [`add_weight_gradient`].
fn pack_inputs(
    precision: Precision,
    tokens: usize,
    linear: &Linear,
    input: &[f32],
    panels: &mut Buffer,
) {
    panels.resize(packed_length(tokens, linear.inputs));
    precision.pack(
        Matrix::rows(input, linear.inputs),
        tokens,
        linear.inputs,
        panels,
    );
}

/// weight gradient += output_gradient^T . input; bias gradient += `bias`.
fn add_weight_gradient(
    precision: Precision,
    tokens: usize,
    linear: &Linear,
    output_gradient: &[f32],
    input_panels: &[f32],
    bias: &[f32],
    lent: &mut Lent,
) {
    let Linear {
        inputs, outputs, ..
    } = *linear;
    let left = Matrix::columns(output_gradient, outputs);
    precision.multiply(
        outputs,
        tokens,
        inputs,
        left,
        input_panels,
        lent.at(&linear.weight),
        inputs,
        Write::Add,
    );
    vectorised(AddInto {
        target: lent.at(&linear.bias),
        source: bias,
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

/// Cross-entropy of the shard's targets (`indices` count from the shard's first row). With `backward`, adds the
/// output layer's gradients times `weight` and leaves the states' gradient in `scratch` for [`backward`].
pub fn language_model_loss(
    context: &Context,
    states: &[f32],
    indices: impl Iterator<Item = usize>,
    labels: &[u32],
    backward: Option<(&Backward, f32)>,
    scratch: &mut Scratch,
) -> LossSum {
    let hidden = context.shape.settings.hidden;
    let output = context.output();
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
            if !backward.trainable.block(OUTPUT_BLOCK) {
                continue;
            }
            let lent =
                lent.get_or_insert_with(|| backward.tickets.wait(OUTPUT_BLOCK, backward.turn));
            scratch.clock.lap(Part::Waiting);
            let (table, bias) = lent
                .split_at_mut(context.layout.output_bias.start - context.layout.output_block.start);
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
        if backward.trainable.block(OUTPUT_BLOCK) {
            // A shard without targets passes its turn on.
            drop(lent.unwrap_or_else(|| backward.tickets.wait(OUTPUT_BLOCK, backward.turn)));
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

/// Goes back from the states after `backward.depth` layers to the embeddings: adds all trained parameters' gradients, and
/// writes that of the summed embeddings to `embedding_gradient` [tokens, hidden]. `tap(depth)` is a gradient that enters there.
/// Where embeddings and lower layers are frozen, it ends above them and leaves `embedding_gradient` as it is.
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
    for layer in (backward.trainable.lowest_layer()..backward.depth).rev() {
        let (input, kept) = (activations.states(layer), &activations.layers[layer]);
        feed_forward_backward(context, shard, layer, kept, backward, scratch);
        attention_backward(context, shard, layer, input, kept, backward, scratch);
        if let Some(gradient) = tap(layer) {
            vectorised(AddInto {
                target: &mut scratch.gradient,
                source: gradient,
            });
        }
    }
    if !backward.trainable.reaches_embeddings() {
        return;
    }
    let norm = &context.layout.embedding_norm;
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
    let mut lent = backward.tickets.wait(EMBEDDING_BLOCK, backward.turn);
    scratch.clock.lap(Part::Waiting);
    vectorised(AddInto {
        target: lent.at(&norm.scale),
        source: &scratch.scale,
    });
    vectorised(AddInto {
        target: lent.at(&norm.shift),
        source: &scratch.shift,
    });
}

/// `scratch.gradient`: from the layer's output to the states between its blocks.
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
    let layer = &context.layout.layers[index];
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
    let panels = backward.weights.panels(index, Product::Outer);
    apply_backward(
        context.precision,
        tokens,
        &layer.outer,
        &scratch.update,
        panels,
        &mut scratch.wide,
        Write::Replace,
    );
    scratch.clock.lap(Part::Linear);
    vectorised(GeluBackward {
        gradient: &mut scratch.wide,
        slopes: &kept.slopes,
        bias_gradient: &mut scratch.inner_bias,
    });
    scratch.clock.lap(Part::Activation);
    let panels = backward.weights.panels(index, Product::Inner);
    apply_backward(
        context.precision,
        tokens,
        &layer.inner,
        &scratch.wide,
        panels,
        &mut scratch.gradient,
        Write::Add,
    );
    scratch.clock.lap(Part::Linear);
    if !backward.trainable.block(feed_forward_block(index)) {
        return;
    }
    pack_inputs(
        context.precision,
        tokens,
        &layer.outer,
        &kept.inner,
        &mut scratch.first_panels,
    );
    pack_inputs(
        context.precision,
        tokens,
        &layer.inner,
        &kept.middle,
        &mut scratch.second_panels,
    );
    scratch.clock.lap(Part::WeightGradients);
    let mut lent = backward
        .tickets
        .wait(feed_forward_block(index), backward.turn);
    scratch.clock.lap(Part::Waiting);
    let norm = &layer.feed_forward_norm;
    vectorised(AddInto {
        target: lent.at(&norm.scale),
        source: &scratch.scale,
    });
    vectorised(AddInto {
        target: lent.at(&norm.shift),
        source: &scratch.shift,
    });
    let Scratch {
        update,
        wide,
        first_panels,
        second_panels,
        inner_bias,
        outer_bias,
        ..
    } = scratch;
    add_weight_gradient(
        context.precision,
        tokens,
        &layer.outer,
        update,
        first_panels,
        outer_bias,
        &mut lent,
    );
    add_weight_gradient(
        context.precision,
        tokens,
        &layer.inner,
        wide,
        second_panels,
        inner_bias,
        &mut lent,
    );
    scratch.clock.lap(Part::WeightGradients);
}

/// `scratch.gradient`: from the states between the layer's blocks to its input.
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
    let layer = &context.layout.layers[index];
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
    let panels = backward.weights.panels(index, Product::AttentionOutput);
    scratch.target_gradient.resize(tokens * hidden);
    apply_backward(
        context.precision,
        tokens,
        &layer.attention_output,
        &scratch.update,
        panels,
        &mut scratch.target_gradient,
        Write::Replace,
    );
    scratch.clock.lap(Part::Linear);
    attention::backward(
        context.attention(shard, index),
        &kept.projected,
        &kept.probabilities,
        &scratch.target_gradient,
        &mut scratch.wide,
        &mut scratch.attention,
    );
    scratch.clock.lap(Part::Attention);
    vectorised(ColumnSums {
        values: &scratch.wide,
        sums: &mut scratch.inner_bias,
    });
    let panels = backward.weights.panels(index, Product::Projection);
    apply_backward(
        context.precision,
        tokens,
        &layer.projection,
        &scratch.wide,
        panels,
        &mut scratch.gradient,
        Write::Add,
    );
    scratch.clock.lap(Part::Linear);
    if !backward.trainable.block(attention_block(index)) {
        return;
    }
    pack_inputs(
        context.precision,
        tokens,
        &layer.attention_output,
        &kept.context,
        &mut scratch.first_panels,
    );
    pack_inputs(
        context.precision,
        tokens,
        &layer.projection,
        input,
        &mut scratch.second_panels,
    );
    scratch.clock.lap(Part::WeightGradients);
    let mut lent = backward.tickets.wait(attention_block(index), backward.turn);
    scratch.clock.lap(Part::Waiting);
    let norm = &layer.attention_norm;
    vectorised(AddInto {
        target: lent.at(&norm.scale),
        source: &scratch.scale,
    });
    vectorised(AddInto {
        target: lent.at(&norm.shift),
        source: &scratch.shift,
    });
    let Scratch {
        update,
        wide,
        first_panels,
        second_panels,
        inner_bias,
        outer_bias,
        ..
    } = scratch;
    add_weight_gradient(
        context.precision,
        tokens,
        &layer.attention_output,
        update,
        first_panels,
        outer_bias,
        &mut lent,
    );
    add_weight_gradient(
        context.precision,
        tokens,
        &layer.projection,
        wide,
        second_panels,
        inner_bias,
        &mut lent,
    );
    scratch.clock.lap(Part::WeightGradients);
}
