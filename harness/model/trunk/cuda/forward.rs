//! Forward on a card: as the parent module's.

use anyhow::Result;

use super::batch::{CardBatch, Table};
use super::{
    CardActivations, CardContext, CardScratch, CardSource, LayerActivations, Site,
    SourceActivations,
};
use crate::kernels::cuda::operations::Operands;
use crate::model::layout::{Layer, Linear, SourceAttention};

/// Runs the embeddings and the first `depth` layers of the context's stack.
pub fn forward(
    context: &CardContext,
    batch: &CardBatch,
    source: Option<CardSource>,
    depth: usize,
    activations: &mut CardActivations,
    scratch: &mut CardScratch,
) -> Result<()> {
    let operations = context.operations();
    let (tokens, hidden) = (batch.tokens(), context.hidden());
    let bytes = tokens * hidden * operations.element.bytes();
    for state in &mut activations.states {
        state.reserve(bytes)?;
    }
    scratch.update.reserve(bytes)?;
    let stack = context.stack;
    let kept = &mut activations.embeddings;
    kept.reserve(tokens, hidden, operations.element)?;
    let language = stack.language.as_ref();
    operations.normalise_embeddings(
        context.rows(tokens, &stack.embedding_norm, Site::Embeddings, kept),
        [
            (context.at(&stack.token), batch.lookups(Table::Token)),
            (context.at(&stack.position), batch.lookups(Table::Position)),
            (
                language.map_or(0, |table| context.at(table)),
                batch.lookups(Table::Language),
            ),
        ],
        [
            context.at(&stack.embedding_norm.shift),
            activations.states[0].address(),
        ],
    )?;
    let (kept_states, kept_layers) = (activations.states.len(), activations.layers.len());
    for index in 0..depth {
        let input = activations.states[index % kept_states].address();
        let output = activations.states[(index + 1) % kept_states].address();
        let layer = &stack.layers[index];
        let kept = &mut activations.layers[index % kept_layers];
        attention(context, batch, layer, index, input, kept, scratch)?;
        if let (Some(layer), Some(source)) = (&layer.source_attention, source) {
            let middle = kept.middle.address();
            source_attention(
                context,
                batch,
                source,
                layer,
                index,
                middle,
                &mut kept.source,
                scratch,
            )?;
        }
        feed_forward(context, batch, layer, index, kept, output, scratch)?;
    }
    Ok(())
}

/// out = input . weight^T + bias
fn project(
    context: &CardContext,
    rows: usize,
    linear: &Linear,
    input: u64,
    out: u64,
) -> Result<()> {
    let operations = context.operations();
    operations.linear(
        rows,
        linear.inputs,
        linear.outputs,
        [input, context.weight(&linear.weight), out],
        Some(context.weight(&linear.bias)),
        operations.element,
        linear.outputs,
    )
}

/// out = input . weight^T
fn apply(context: &CardContext, rows: usize, linear: &Linear, input: u64, out: u64) -> Result<()> {
    let operations = context.operations();
    operations.linear(
        rows,
        linear.inputs,
        linear.outputs,
        [input, context.weight(&linear.weight), out],
        None,
        operations.element,
        linear.outputs,
    )
}

/// `kept.middle` = normalised sum of the input and its self-attention.
fn attention(
    context: &CardContext,
    batch: &CardBatch,
    layer: &Layer,
    index: usize,
    input: u64,
    kept: &mut LayerActivations,
    scratch: &mut CardScratch,
) -> Result<()> {
    let operations = context.operations();
    let (tokens, hidden) = (batch.tokens(), context.hidden());
    let size = operations.element.bytes();
    let projected = kept.projected.reserve(tokens * 3 * hidden * size)?;
    let logarithms = kept
        .logarithms
        .reserve(4 * tokens * context.shape.settings.heads)?;
    let attended = kept.context.reserve(tokens * hidden * size)?;
    let middle = kept.middle.reserve(tokens * hidden * size)?;
    kept.attention.reserve(tokens, hidden, operations.element)?;
    project(context, tokens, &layer.projection, input, projected)?;
    operations.attention_forward(
        &context.attention(batch, index),
        &own_operands(projected, hidden, size),
        attended,
        logarithms,
    )?;
    let update = scratch.update.address();
    apply(context, tokens, &layer.attention_output, attended, update)?;
    let norm = &layer.attention_norm;
    operations.normalise_residual(
        context.rows(tokens, norm, Site::Attention(index), &kept.attention),
        [
            input,
            update,
            context.at(&layer.attention_output.bias),
            context.at(&norm.shift),
            middle,
        ],
    )
}

/// Rows of [query | key | value].
pub(super) fn own_operands(projected: u64, hidden: usize, size: usize) -> Operands {
    let step = (hidden * size) as u64;
    Operands {
        query: projected,
        query_stride: 3 * hidden,
        key: projected + step,
        value: projected + 2 * step,
        key_stride: 3 * hidden,
    }
}

/// Rows of queries, and rows of [key | value].
pub(super) fn source_operands(query: u64, key_value: u64, hidden: usize, size: usize) -> Operands {
    Operands {
        query,
        query_stride: hidden,
        key: key_value,
        value: key_value + (hidden * size) as u64,
        key_stride: 2 * hidden,
    }
}

/// `kept.middle` = normalised sum of the input and its attention over the source.
#[allow(clippy::too_many_arguments)]
fn source_attention(
    context: &CardContext,
    batch: &CardBatch,
    source: CardSource,
    layer: &SourceAttention,
    index: usize,
    input: u64,
    kept: &mut SourceActivations,
    scratch: &mut CardScratch,
) -> Result<()> {
    let operations = context.operations();
    let (tokens, hidden) = (batch.tokens(), context.hidden());
    let size = operations.element.bytes();
    let query = kept.query.reserve(tokens * hidden * size)?;
    let key_value = kept
        .key_value
        .reserve(source.batch.tokens() * 2 * hidden * size)?;
    let logarithms = kept
        .logarithms
        .reserve(4 * tokens * context.shape.settings.heads)?;
    let attended = kept.context.reserve(tokens * hidden * size)?;
    let middle = kept.middle.reserve(tokens * hidden * size)?;
    kept.normalised
        .reserve(tokens, hidden, operations.element)?;
    project(context, tokens, &layer.query, input, query)?;
    project(
        context,
        source.batch.tokens(),
        &layer.key_value,
        source.states,
        key_value,
    )?;
    operations.attention_forward(
        &context.source_attention(batch, source.batch, index),
        &source_operands(query, key_value, hidden, size),
        attended,
        logarithms,
    )?;
    let update = scratch.update.address();
    apply(context, tokens, &layer.output, attended, update)?;
    operations.normalise_residual(
        context.rows(
            tokens,
            &layer.norm,
            Site::SourceAttention(index),
            &kept.normalised,
        ),
        [
            input,
            update,
            context.at(&layer.output.bias),
            context.at(&layer.norm.shift),
            middle,
        ],
    )
}

/// `output` = normalised sum of the attended states and what the feed-forward block makes of them.
fn feed_forward(
    context: &CardContext,
    batch: &CardBatch,
    layer: &Layer,
    index: usize,
    kept: &mut LayerActivations,
    output: u64,
    scratch: &mut CardScratch,
) -> Result<()> {
    let operations = context.operations();
    let (tokens, hidden) = (batch.tokens(), context.hidden());
    let wide = context.shape.settings.feed_forward;
    let size = operations.element.bytes();
    let before = kept.before.reserve(tokens * wide * size)?;
    let inner = kept.inner.reserve(tokens * wide * size)?;
    kept.outer.reserve(tokens, hidden, operations.element)?;
    let middle = kept.attended(layer);
    apply(context, tokens, &layer.inner, middle, before)?;
    operations.gelu(before, context.at(&layer.inner.bias), inner, tokens, wide)?;
    let update = scratch.update.address();
    apply(context, tokens, &layer.outer, inner, update)?;
    let norm = &layer.feed_forward_norm;
    operations.normalise_residual(
        context.rows(tokens, norm, Site::FeedForward(index), &kept.outer),
        [
            middle,
            update,
            context.at(&layer.outer.bias),
            context.at(&norm.shift),
            output,
        ],
    )
}

impl LayerActivations {
    /// Address of the states that the feed-forward block reads.
    pub(super) fn attended(&self, layer: &Layer) -> u64 {
        match layer.source_attention {
            Some(_) => self.source.middle.address(),
            None => self.middle.address(),
        }
    }
}
