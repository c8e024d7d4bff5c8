//! The loss on a card and its way back: as the parent module's `backward`, with gradients added to one buffer.

use std::ops::Range;

use anyhow::Result;

use super::batch::{CardBatch, Table};
use super::forward::{own_operands, source_operands};
use super::{
    CardActivations, CardContext, CardScratch, CardSource, LayerActivations, Normalised, Site,
};
use crate::kernels::cuda::Element;
use crate::model::batch::Batch;
use crate::model::layout::{Block, Layer, Linear, Norm, Side, SourceAttention};
use crate::model::parameters::PAD;
use crate::model::settings::LOGITS;
use crate::model::trainable::Trainable;

/// Where the gradients of parameters go.
#[derive(Clone, Copy)]
pub struct Gradients<'a> {
    /// Address of an f32 for each parameter.
    pub address: u64,
    pub trainable: &'a Trainable,
}

impl Gradients<'_> {
    fn at(&self, range: &Range<usize>) -> u64 {
        self.address + 4 * range.start as u64
    }

    /// As `at`; zero in a block that is frozen.
    fn of(&self, block: &Block, range: &Range<usize>) -> u64 {
        if self.trainable.block(block) {
            self.at(range)
        } else {
            0
        }
    }
}

/// Adds the loss of the batch's targets to `totals`, two doubles: nats, and labels that have the highest logit. With `gradients`,
/// adds the output layer's times the weight, and leaves the states' in `scratch` for [`backward`].
pub fn language_model_loss(
    context: &CardContext,
    batch: &CardBatch,
    states: u64,
    gradients: Option<(Gradients, f32)>,
    totals: u64,
    scratch: &mut CardScratch,
) -> Result<()> {
    let Some(layer) = &context.stack.output else {
        return Ok(());
    };
    let operations = context.operations();
    let (hidden, vocabulary) = (context.hidden(), context.shape.vocabulary);
    let (element, size) = (operations.element, operations.element.bytes());
    let targets = batch.target_count();
    let target_states = scratch.target_states.reserve(targets * hidden * size)?;
    let target_gradient = scratch.target_gradient.reserve(targets * hidden * size)?;
    let nats = scratch.nats.reserve(4 * targets)?;
    let correct = scratch.correct.reserve(4 * targets)?;
    operations.gather_rows(
        [states, batch.target_indices(), target_states],
        targets,
        hidden,
    )?;
    let stride = vocabulary.next_multiple_of(8);
    let chunk = (LOGITS / stride).clamp(1, targets.max(1));
    let logits = scratch.logits.reserve(4 * chunk * stride)?;
    let logit_gradient = match (gradients, element) {
        (None, _) => 0,
        (Some(_), Element::F32) => logits,
        (Some(_), Element::Bf16) => scratch.logit_gradient.reserve(2 * chunk * stride)?,
    };
    let widest = stride.max(context.shape.settings.feed_forward);
    let partials = scratch
        .partials
        .reserve(4 * operations.partials_length(chunk, hidden, widest))?;
    let table = context.weight(&context.stack.token);
    for first in (0..targets).step_by(chunk) {
        let rows = chunk.min(targets - first);
        let of = |address: u64, bytes: usize| address + (first * bytes) as u64;
        let own_states = of(target_states, hidden * size);
        operations.linear(
            rows,
            hidden,
            vocabulary,
            [own_states, table, logits],
            None,
            Element::F32,
            stride,
        )?;
        operations.cross_entropy(
            [
                logits,
                context.at(&layer.bias),
                of(batch.labels(), 4),
                logit_gradient,
                of(nats, 4),
                of(correct, 4),
            ],
            gradients.map_or(1.0, |(_, weight)| weight),
            rows,
            vocabulary,
            stride,
        )?;
        let Some((gradients, _)) = gradients else {
            continue;
        };
        operations.linear_backward(
            rows,
            hidden,
            vocabulary,
            [logit_gradient, table, of(target_gradient, hidden * size)],
            stride,
            false,
        )?;
        if !gradients.trainable.block(&layer.block) {
            continue;
        }
        operations.weight_gradient(
            rows,
            hidden,
            vocabulary,
            [
                logit_gradient,
                own_states,
                gradients.at(&context.stack.token),
            ],
            stride,
        )?;
        operations.add_column_sums(
            [logit_gradient, partials, gradients.at(&layer.bias)],
            rows,
            [vocabulary, stride],
        )?;
    }
    operations.add_total(nats, targets, totals)?;
    operations.add_total(correct, targets, totals + 8)?;
    if gradients.is_some() {
        let bytes = batch.tokens() * hidden * size;
        let gradient = scratch.gradient.reserve(bytes)?;
        operations.clear(gradient, bytes)?;
        operations.place_rows(
            [target_gradient, batch.target_indices(), gradient],
            targets,
            hidden,
        )?;
    }
    Ok(())
}

/// Goes back from the states after `depth` layers to the embeddings, adding the gradients of all trained parameters but the tables
/// of lookups; what is left in `scratch` is the gradient of the summed embeddings. `tap(depth)` is the address of an f32 gradient
/// that enters there. A decoder leaves the gradient of the source's states for [`CardScratch::start_source_gradient`].
#[allow(clippy::too_many_arguments)]
pub fn backward(
    context: &CardContext,
    batch: &CardBatch,
    source: Option<CardSource>,
    depth: usize,
    activations: &CardActivations,
    gradients: Gradients,
    tap: impl Fn(usize) -> Option<u64>,
    scratch: &mut CardScratch,
) -> Result<()> {
    let operations = context.operations();
    let settings = &context.shape.settings;
    let (tokens, hidden) = (batch.tokens(), settings.hidden);
    let size = operations.element.bytes();
    let most = tokens.max(source.map_or(0, |source| source.batch.tokens()));
    let wide = settings.feed_forward.max(3 * hidden);
    scratch.update.reserve(most * hidden * size)?;
    scratch.wide.reserve(most * wide * size)?;
    scratch.delta.reserve(4 * tokens * settings.heads)?;
    scratch
        .partials
        .reserve(4 * operations.partials_length(most, hidden, wide))?;
    if let Some(source) = source
        && gradients.trainable.reach(Side::Encoder).any
    {
        let bytes = source.batch.tokens() * hidden * size;
        let address = scratch.source_gradient.reserve(bytes)?;
        operations.clear(address, bytes)?;
    }
    let reach = gradients.trainable.reach(context.side);
    for index in (reach.lowest_layer..depth).rev() {
        let layer = &context.stack.layers[index];
        let kept = &activations.layers[index];
        feed_forward(context, tokens, layer, index, kept, gradients, scratch)?;
        if let (Some(layer), Some(source)) = (&layer.source_attention, source) {
            source_attention(
                context, batch, source, layer, index, kept, gradients, scratch,
            )?;
        }
        let input = activations.states(index);
        attention(
            context, batch, layer, index, input, kept, gradients, scratch,
        )?;
        if let Some(entering) = tap(index) {
            operations.add_float(entering, scratch.gradient.address(), tokens * hidden)?;
        }
    }
    if !reach.embeddings {
        return Ok(());
    }
    let norm = &context.stack.embedding_norm;
    let block = &context.stack.embedding_block;
    operations.embeddings_backward(
        context.rows(tokens, norm, Site::Embeddings, &activations.embeddings),
        scratch.gradient.address(),
        scratch.partials.address(),
        [
            gradients.of(block, &norm.scale),
            gradients.of(block, &norm.shift),
        ],
    )
}

/// Adds the gradient of the summed embeddings to the stack's tables.
pub fn scatter_embeddings(
    context: &CardContext,
    batch: &Batch,
    on_card: &mut CardBatch,
    gradients: Gradients,
    scratch: &mut CardScratch,
) -> Result<()> {
    if !gradients.trainable.reach(context.side).tables {
        return Ok(());
    }
    let operations = context.operations();
    let hidden = context.hidden();
    let stack = context.stack;
    let mut tables = vec![
        (Table::Token, &stack.token),
        (Table::Position, &stack.position),
    ];
    tables.extend(
        stack
            .language
            .as_ref()
            .map(|table| (Table::Language, table)),
    );
    let lists: Vec<(&[u32], Option<u32>)> = tables
        .iter()
        .map(|(table, _)| match table {
            Table::Token => (&batch.tokens[..], Some(PAD)),
            Table::Position => (&batch.positions[..], None),
            Table::Language => (&batch.languages[..], None),
        })
        .collect();
    let lookups = on_card.upload_tables(&operations.driver, &lists)?;
    let most = lookups.iter().map(|lookups| lookups.segment_count).max();
    let partials = scratch
        .segments
        .reserve(4 * hidden * most.unwrap_or(0).max(1))?;
    for ((_, range), lookups) in tables.iter().zip(&lookups) {
        operations.sum_segments(
            [
                scratch.gradient.address(),
                lookups.order,
                lookups.segments,
                partials,
            ],
            lookups.segment_count,
            hidden,
        )?;
        operations.add_segments(
            [partials, lookups.entries, gradients.at(range)],
            lookups.entry_count,
            hidden,
        )?;
    }
    Ok(())
}

/// A linear layer's gradients: of its weight, and (+)= of its input.
struct LinearBackward<'a> {
    linear: &'a Linear,
    block: &'a Block,
    rows: usize,
    output_gradient: u64,
    input: u64,
}

impl LinearBackward<'_> {
    fn run(
        &self,
        context: &CardContext,
        gradients: Gradients,
        input_gradient: u64,
        adds: bool,
    ) -> Result<()> {
        let operations = context.operations();
        let Linear {
            inputs,
            outputs,
            ref weight,
            ..
        } = *self.linear;
        operations.linear_backward(
            self.rows,
            inputs,
            outputs,
            [self.output_gradient, context.weight(weight), input_gradient],
            outputs,
            adds,
        )?;
        if !gradients.trainable.block(self.block) {
            return Ok(());
        }
        operations.weight_gradient(
            self.rows,
            inputs,
            outputs,
            [self.output_gradient, self.input, gradients.at(weight)],
            outputs,
        )
    }
}

/// A sublayer's normalisation: `scratch.gradient` becomes the residual's, and the address of the update's comes back.
#[allow(clippy::too_many_arguments)]
fn normalise(
    context: &CardContext,
    tokens: usize,
    norm: &Norm,
    linear: &Linear,
    block: &Block,
    site: Site,
    kept: &Normalised,
    gradients: Gradients,
    scratch: &CardScratch,
) -> Result<u64> {
    let rows = context.rows(tokens, norm, site, kept);
    let gradient = scratch.gradient.address();
    // Without dropout both are one, and written once: products read the update's before others add to the residual's.
    let update = match rows.dropout {
        Some(_) => scratch.update.address(),
        None => gradient,
    };
    context.operations().normalise_backward(
        rows,
        gradient,
        update,
        scratch.partials.address(),
        [
            gradients.of(block, &norm.scale),
            gradients.of(block, &norm.shift),
            gradients.of(block, &linear.bias),
        ],
    )?;
    Ok(update)
}

/// `scratch.gradient`: from the layer's output to the states before its feed-forward block.
fn feed_forward(
    context: &CardContext,
    tokens: usize,
    layer: &Layer,
    index: usize,
    kept: &LayerActivations,
    gradients: Gradients,
    scratch: &mut CardScratch,
) -> Result<()> {
    let operations = context.operations();
    let block = &layer.feed_forward_block;
    let update = normalise(
        context,
        tokens,
        &layer.feed_forward_norm,
        &layer.outer,
        block,
        Site::FeedForward(index),
        &kept.outer,
        gradients,
        scratch,
    )?;
    let wide = scratch.wide.address();
    let outer = LinearBackward {
        linear: &layer.outer,
        block,
        rows: tokens,
        output_gradient: update,
        input: kept.inner.address(),
    };
    outer.run(context, gradients, wide, false)?;
    operations.gelu_backward(
        [
            wide,
            kept.before.address(),
            context.at(&layer.inner.bias),
            scratch.partials.address(),
            gradients.of(block, &layer.inner.bias),
        ],
        tokens,
        layer.inner.outputs,
    )?;
    let inner = LinearBackward {
        linear: &layer.inner,
        block,
        rows: tokens,
        output_gradient: wide,
        input: kept.attended(layer),
    };
    inner.run(context, gradients, scratch.gradient.address(), true)
}

/// `scratch.gradient`: from the states after self-attention to the layer's input.
#[allow(clippy::too_many_arguments)]
fn attention(
    context: &CardContext,
    batch: &CardBatch,
    layer: &Layer,
    index: usize,
    input: u64,
    kept: &LayerActivations,
    gradients: Gradients,
    scratch: &mut CardScratch,
) -> Result<()> {
    let operations = context.operations();
    let (tokens, hidden, size) = (batch.tokens(), context.hidden(), operations.element.bytes());
    let block = &layer.attention_block;
    let update = normalise(
        context,
        tokens,
        &layer.attention_norm,
        &layer.attention_output,
        block,
        Site::Attention(index),
        &kept.attention,
        gradients,
        scratch,
    )?;
    let context_gradient = scratch.target_gradient.reserve(tokens * hidden * size)?;
    let output = LinearBackward {
        linear: &layer.attention_output,
        block,
        rows: tokens,
        output_gradient: update,
        input: kept.context.address(),
    };
    output.run(context, gradients, context_gradient, false)?;
    let wide = scratch.wide.address();
    let places = own_operands(wide, hidden, size);
    operations.attention_backward(
        &context.attention(batch, index),
        &own_operands(kept.projected.address(), hidden, size),
        [
            kept.context.address(),
            context_gradient,
            kept.logarithms.address(),
            scratch.delta.address(),
        ],
        [places.query, places.key, places.value],
    )?;
    bias(
        context,
        &layer.projection,
        block,
        tokens,
        wide,
        gradients,
        scratch,
    )?;
    let projection = LinearBackward {
        linear: &layer.projection,
        block,
        rows: tokens,
        output_gradient: wide,
        input,
    };
    projection.run(context, gradients, scratch.gradient.address(), true)
}

/// Adds a bias's gradient: the sums of columns.
fn bias(
    context: &CardContext,
    linear: &Linear,
    block: &Block,
    rows: usize,
    output_gradient: u64,
    gradients: Gradients,
    scratch: &CardScratch,
) -> Result<()> {
    if !gradients.trainable.block(block) {
        return Ok(());
    }
    context.operations().add_column_sums(
        [
            output_gradient,
            scratch.partials.address(),
            gradients.at(&linear.bias),
        ],
        rows,
        [linear.outputs; 2],
    )
}

/// `scratch.gradient`: from the states after attention over the source to those before; `scratch.source_gradient` gathers that of
/// the source's states.
#[allow(clippy::too_many_arguments)]
fn source_attention(
    context: &CardContext,
    batch: &CardBatch,
    source: CardSource,
    layer: &SourceAttention,
    index: usize,
    kept: &LayerActivations,
    gradients: Gradients,
    scratch: &mut CardScratch,
) -> Result<()> {
    let operations = context.operations();
    let (tokens, hidden, size) = (batch.tokens(), context.hidden(), operations.element.bytes());
    let source_tokens = source.batch.tokens();
    let block = &layer.block;
    let own = &kept.source;
    let update = normalise(
        context,
        tokens,
        &layer.norm,
        &layer.output,
        block,
        Site::SourceAttention(index),
        &own.normalised,
        gradients,
        scratch,
    )?;
    let context_gradient = scratch.target_gradient.reserve(tokens * hidden * size)?;
    let output = LinearBackward {
        linear: &layer.output,
        block,
        rows: tokens,
        output_gradient: update,
        input: own.context.address(),
    };
    output.run(context, gradients, context_gradient, false)?;
    let query = scratch.query_gradient.reserve(tokens * hidden * size)?;
    let key_value = scratch.wide.address();
    let places = source_operands(query, key_value, hidden, size);
    operations.attention_backward(
        &context.source_attention(batch, source.batch, index),
        &source_operands(own.query.address(), own.key_value.address(), hidden, size),
        [
            own.context.address(),
            context_gradient,
            own.logarithms.address(),
            scratch.delta.address(),
        ],
        [places.query, places.key, places.value],
    )?;
    bias(
        context,
        &layer.query,
        block,
        tokens,
        query,
        gradients,
        scratch,
    )?;
    bias(
        context,
        &layer.key_value,
        block,
        source_tokens,
        key_value,
        gradients,
        scratch,
    )?;
    let of_query = LinearBackward {
        linear: &layer.query,
        block,
        rows: tokens,
        output_gradient: query,
        input: kept.middle.address(),
    };
    of_query.run(context, gradients, scratch.gradient.address(), true)?;
    let of_key_value = LinearBackward {
        linear: &layer.key_value,
        block,
        rows: source_tokens,
        output_gradient: key_value,
        input: source.states,
    };
    if gradients.trainable.reach(Side::Encoder).any {
        return of_key_value.run(context, gradients, scratch.source_gradient.address(), true);
    }
    if gradients.trainable.block(block) {
        operations.weight_gradient(
            source_tokens,
            hidden,
            layer.key_value.outputs,
            [
                key_value,
                source.states,
                gradients.at(&layer.key_value.weight),
            ],
            layer.key_value.outputs,
        )?;
    }
    Ok(())
}
