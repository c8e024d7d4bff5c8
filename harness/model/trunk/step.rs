//! One more token of each of many sequences through a decoder, with keys and values kept: generation.

use super::{Context, Part, Scratch};
use crate::kernels::buffer::Buffer;
use crate::kernels::cached_attention::{Cache, attend};
use crate::kernels::dropout::Rows;
use crate::kernels::embedding::{Lookup, NormaliseEmbeddings};
use crate::kernels::gelu::Gelu;
use crate::kernels::lanes::vectorised;
use crate::kernels::matmul::Write;
use crate::kernels::normalise::NormaliseResidual;
use crate::model::layout::{Linear, Norm};

/// What a sequence keeps: a cache for each layer.
pub type Caches = Vec<Cache>;

/// The next token of a sequence, and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct Next {
    pub token: u32,
    pub position: u32,
    pub language: u32,
    /// Which of the caches are the sequence's own, and which its source's.
    pub own: usize,
    pub source: usize,
}

/// Buffers of [`step`].
#[derive(Default)]
pub struct StepScratch {
    states: Buffer,
    middle: Buffer,
    projected: Buffer,
    context: Buffer,
    update: Buffer,
    inner: Buffer,
    normalised: Buffer,
    inverse: Buffer,
    scores: Buffer,
}

/// Keys and values of a source's states for every layer's attention over it. `states` is [source tokens, hidden] of one
/// sequence.
pub fn source_caches(context: &Context, states: &[f32], scratch: &mut StepScratch) -> Caches {
    let hidden = context.shape.settings.hidden;
    let tokens = states.len() / hidden;
    let layers = context.stack.layers.iter();
    let attentions = layers.filter_map(|layer| layer.source_attention.as_ref());
    attentions
        .map(|attention| {
            scratch.projected.resize(tokens * 2 * hidden);
            context.project(tokens, &attention.key_value, states, &mut scratch.projected);
            let mut cache = Cache::default();
            cache.clear(hidden);
            for row in scratch.projected.chunks_exact(2 * hidden) {
                cache.push(&row[..hidden], &row[hidden..], context.precision);
            }
            cache
        })
        .collect()
}

/// The states of the next tokens, [next, hidden]; what they leave for those after them is added to their own caches.
pub fn step<'s>(
    context: &Context,
    next: &[Next],
    own: &mut [Caches],
    sources: &[Caches],
    scratch: &'s mut StepScratch,
    trunk: &mut Scratch,
) -> &'s [f32] {
    let settings = &context.shape.settings;
    let (hidden, heads, rows) = (settings.hidden, settings.heads, next.len());
    trunk.clock.start();
    embed(context, next, scratch);
    trunk.clock.lap(Part::Embeddings);
    scratch.context.resize(rows * hidden);
    for (index, layer) in context.stack.layers.iter().enumerate() {
        scratch.projected.resize(rows * 3 * hidden);
        context.project(
            rows,
            &layer.projection,
            &scratch.states,
            &mut scratch.projected,
        );
        trunk.clock.lap(Part::Linear);
        let lines = scratch
            .projected
            .chunks_exact(3 * hidden)
            .zip(scratch.context.chunks_exact_mut(hidden));
        for (next, (line, attended)) in next.iter().zip(lines) {
            let (query, key_value) = line.split_at(hidden);
            let (key, value) = key_value.split_at(hidden);
            let cache = &mut own[next.own][index];
            cache.push(key, value, context.precision);
            attend(
                query,
                cache,
                heads,
                context.precision,
                attended,
                &mut scratch.scores,
            );
        }
        trunk.clock.lap(Part::Attention);
        add_and_normalise(
            context,
            rows,
            &layer.attention_output,
            &layer.attention_norm,
            scratch,
            trunk,
        );
        if let Some(attention) = &layer.source_attention {
            scratch.projected.resize(rows * hidden);
            context.project(
                rows,
                &attention.query,
                &scratch.states,
                &mut scratch.projected,
            );
            trunk.clock.lap(Part::Linear);
            let lines = scratch
                .projected
                .chunks_exact(hidden)
                .zip(scratch.context.chunks_exact_mut(hidden));
            for (next, (query, attended)) in next.iter().zip(lines) {
                attend(
                    query,
                    &sources[next.source][index],
                    heads,
                    context.precision,
                    attended,
                    &mut scratch.scores,
                );
            }
            trunk.clock.lap(Part::Attention);
            add_and_normalise(
                context,
                rows,
                &attention.output,
                &attention.norm,
                scratch,
                trunk,
            );
        }
        let wide = settings.feed_forward;
        scratch.inner.resize(rows * wide);
        context.apply(
            rows,
            &layer.inner,
            &scratch.states,
            &mut scratch.inner,
            Write::Replace,
        );
        trunk.clock.lap(Part::Linear);
        vectorised(Gelu {
            values: &mut scratch.inner,
            slopes: None,
            bias: context.of(&layer.inner.bias),
        });
        trunk.clock.lap(Part::Activation);
        // The widened states take the place of what attention has read.
        std::mem::swap(&mut scratch.inner, &mut scratch.context);
        add_and_normalise(
            context,
            rows,
            &layer.outer,
            &layer.feed_forward_norm,
            scratch,
            trunk,
        );
        std::mem::swap(&mut scratch.inner, &mut scratch.context);
    }
    &scratch.states
}

fn embed(context: &Context, next: &[Next], scratch: &mut StepScratch) {
    let stack = context.stack;
    let column = |of: fn(&Next) -> u32| next.iter().map(of).collect::<Vec<u32>>();
    let tokens = column(|next| next.token);
    let positions = column(|next| next.position);
    let languages = column(|next| next.language);
    let length = next.len() * context.shape.settings.hidden;
    scratch.states.resize(length);
    scratch.normalised.resize(length);
    scratch.inverse.resize(next.len());
    vectorised(NormaliseEmbeddings {
        token: Lookup {
            table: context.of(&stack.token),
            indices: &tokens,
        },
        position: Lookup {
            table: context.of(&stack.position),
            indices: &positions,
        },
        language: stack.language.as_ref().map(|table| Lookup {
            table: context.of(table),
            indices: &languages,
        }),
        dropout: None,
        first_row: 0,
        scale: context.of(&stack.embedding_norm.scale),
        shift: context.of(&stack.embedding_norm.shift),
        normalised: &mut scratch.normalised,
        inverse: &mut scratch.inverse,
        out: &mut scratch.states,
    });
}

/// states = normalised sum of the states and `scratch.context` through a linear layer.
fn add_and_normalise(
    context: &Context,
    rows: usize,
    linear: &Linear,
    norm: &Norm,
    scratch: &mut StepScratch,
    trunk: &mut Scratch,
) {
    let length = scratch.states.len();
    scratch.update.resize(length);
    scratch.middle.resize(length);
    context.apply(
        rows,
        linear,
        &scratch.context,
        &mut scratch.update,
        Write::Replace,
    );
    trunk.clock.lap(Part::Linear);
    vectorised(NormaliseResidual {
        residual: &scratch.states,
        update: &scratch.update,
        bias: context.of(&linear.bias),
        dropout: None,
        rows: Rows::from(0),
        scale: context.of(&norm.scale),
        shift: context.of(&norm.shift),
        normalised: &mut scratch.normalised,
        inverse: &mut scratch.inverse,
        out: &mut scratch.middle,
    });
    std::mem::swap(&mut scratch.states, &mut scratch.middle);
    trunk.clock.lap(Part::Normalisation);
}
