//! The same trunk on a card: a whole batch at once where the CPU takes shards, buffers in the card's memory, and everything asked
//! for in order without waiting. Layers, places of dropout and names are those of the parent module.

mod backward;
mod batch;
mod forward;

pub use backward::{Gradients, backward, language_model_loss, scatter_embeddings};
pub use batch::CardBatch;
pub use forward::forward;

use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;

use super::{Site, Stream, dropout_at};
use crate::kernels::cuda::operations::{Attention, Operations, Rows};
use crate::kernels::cuda::{Driver, Element, Memory};
use crate::kernels::dropout::Dropout;
use crate::kernels::matmul::Precision;
use crate::model::batch::Direction;
use crate::model::layout::{Norm, Side, Stack};
use crate::model::parameters::Model;
use crate::model::settings::Shape;

/// The parameters of a model in a card's memory: f32, and the type that products read.
pub struct CardModel {
    pub operations: Operations,
    values: Memory,
    /// None where products read f32.
    rounded: Option<Memory>,
    length: usize,
}

impl CardModel {
    pub fn new(driver: &Arc<dyn Driver>, model: &Model, precision: Precision) -> Result<CardModel> {
        let operations = Operations {
            driver: driver.clone(),
            element: precision.into(),
        };
        let settings = &model.shape().settings;
        operations.check_sizes(settings.hidden, settings.heads, settings.feed_forward)?;
        let length = model.values().len();
        let rounded = match operations.element {
            Element::F32 => None,
            Element::Bf16 => Some(Memory::zeros(driver, 2 * length)?),
        };
        let card = CardModel {
            values: Memory::zeros(driver, 4 * length)?,
            rounded,
            length,
            operations,
        };
        card.upload(model.values())?;
        Ok(card)
    }

    /// Sets all values.
    pub fn upload(&self, values: &[f32]) -> Result<()> {
        upload(&self.operations, self.values.address(), values)?;
        match &self.rounded {
            None => Ok(()),
            Some(rounded) => {
                let to = rounded.address();
                self.operations
                    .from_float(self.values.address(), to, self.length)
            }
        }
    }

    /// The values of a range of the layout.
    pub fn download(&self, range: Range<usize>, values: &mut [f32]) -> Result<()> {
        download(&self.operations, self.at(&range), values)
    }

    /// Number of values.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Address of a range of f32 values.
    pub fn at(&self, range: &Range<usize>) -> u64 {
        self.values.address() + 4 * range.start as u64
    }

    /// Address of the same in the type of products.
    pub fn weight(&self, range: &Range<usize>) -> u64 {
        match &self.rounded {
            None => self.at(range),
            Some(rounded) => rounded.address() + 2 * range.start as u64,
        }
    }

    /// Address of the rounded copy that an update has to renew; 0 where there is none.
    pub fn rounded(&self, range: &Range<usize>) -> u64 {
        self.rounded
            .as_ref()
            .map_or(0, |rounded| rounded.address() + 2 * range.start as u64)
    }
}

/// Copies f32 values to an address.
pub fn upload(operations: &Operations, to: u64, values: &[f32]) -> Result<()> {
    // Safety: callers name buffers of at least so many values.
    unsafe {
        operations
            .driver
            .upload(to, crate::kernels::cuda::bytes_of(values))
    }
}

/// Copies f32 values from an address, when everything asked for before is done.
pub fn download(operations: &Operations, from: u64, values: &mut [f32]) -> Result<()> {
    // Safety: callers name buffers of at least so many values.
    unsafe {
        operations
            .driver
            .download(from, crate::kernels::cuda::bytes_of_mut(values))
    }
}

/// What a pass through one stack shares.
#[derive(Clone, Copy)]
pub struct CardContext<'a> {
    pub model: &'a CardModel,
    pub shape: &'a Shape,
    pub side: Side,
    pub stack: &'a Stack,
    pub direction: Direction,
    /// `None` without dropout: evaluation.
    pub stream: Option<Stream>,
    /// Dropout's name for the batch's row 0.
    pub first_row: u64,
}

/// The encoder's last states for the sources of a batch.
#[derive(Clone, Copy)]
pub struct CardSource<'a> {
    /// Address of [source tokens, hidden].
    pub states: u64,
    pub batch: &'a CardBatch,
}

impl<'a> CardContext<'a> {
    fn operations(&self) -> &'a Operations {
        &self.model.operations
    }

    fn hidden(&self) -> usize {
        self.shape.settings.hidden
    }

    fn at(&self, range: &Range<usize>) -> u64 {
        self.model.at(range)
    }

    fn weight(&self, range: &Range<usize>) -> u64 {
        self.model.weight(range)
    }

    fn dropout(&self, site: Site) -> Option<Dropout> {
        dropout_at(self.shape, self.side, self.stack, self.stream?, site)
    }

    fn rows(&self, tokens: usize, norm: &Norm, site: Site, kept: &Normalised) -> Rows {
        Rows {
            rows: tokens,
            width: self.hidden(),
            normalised: kept.rows.address(),
            inverse: kept.inverse.address(),
            scale: self.at(&norm.scale),
            dropout: self.dropout(site),
            first_row: self.first_row,
        }
    }

    fn attention(&self, batch: &CardBatch, layer: usize) -> Attention {
        let settings = &self.shape.settings;
        Attention {
            heads: settings.heads,
            width: settings.hidden / settings.heads,
            causal: self.direction == Direction::Causal,
            tokens: batch.tokens(),
            dropout: self.dropout(Site::Probabilities(layer)),
            first_row: self.first_row,
            query_offsets: batch.offsets(),
            key_offsets: batch.offsets(),
            query_tiles: batch.tiles(),
            key_tiles: batch.tiles(),
        }
    }

    fn source_attention(&self, batch: &CardBatch, source: &CardBatch, layer: usize) -> Attention {
        Attention {
            causal: false,
            dropout: self.dropout(Site::SourceProbabilities(layer)),
            key_offsets: source.offsets(),
            key_tiles: source.tiles(),
            ..self.attention(batch, layer)
        }
    }
}

/// Rows of a normalisation, kept for its backward: normalised values, and 1 / standard deviation.
struct Normalised {
    rows: Memory,
    inverse: Memory,
}

impl Normalised {
    fn new(driver: &Arc<dyn Driver>) -> Normalised {
        Normalised {
            rows: Memory::new(driver),
            inverse: Memory::new(driver),
        }
    }

    fn reserve(&mut self, tokens: usize, hidden: usize, element: Element) -> Result<()> {
        self.rows.reserve(tokens * hidden * element.bytes())?;
        self.inverse.reserve(4 * tokens)?;
        Ok(())
    }
}

/// What a forward leaves for its backward. With one layer and two states, layers take turns in them: evaluation.
pub struct CardActivations {
    /// States after the embeddings and after each layer: [tokens, hidden].
    states: Vec<Memory>,
    layers: Vec<LayerActivations>,
    embeddings: Normalised,
}

struct LayerActivations {
    /// [tokens, 3 hidden]: query, key, value.
    projected: Memory,
    /// [heads, tokens] in f32: logarithms of the softmax's denominators.
    logarithms: Memory,
    context: Memory,
    attention: Normalised,
    /// States after self-attention.
    middle: Memory,
    source: SourceActivations,
    /// [tokens, feed_forward]: before GELU, without the bias; and after it.
    before: Memory,
    inner: Memory,
    outer: Normalised,
}

struct SourceActivations {
    query: Memory,
    /// [source tokens, 2 hidden]
    key_value: Memory,
    logarithms: Memory,
    context: Memory,
    normalised: Normalised,
    middle: Memory,
}

impl CardActivations {
    fn keeping(driver: &Arc<dyn Driver>, layers: usize) -> CardActivations {
        let memory = || Memory::new(driver);
        CardActivations {
            states: (0..layers + 1).map(|_| memory()).collect(),
            layers: (0..layers.max(1))
                .map(|_| LayerActivations {
                    projected: memory(),
                    logarithms: memory(),
                    context: memory(),
                    attention: Normalised::new(driver),
                    middle: memory(),
                    source: SourceActivations {
                        query: memory(),
                        key_value: memory(),
                        logarithms: memory(),
                        context: memory(),
                        normalised: Normalised::new(driver),
                        middle: memory(),
                    },
                    before: memory(),
                    inner: memory(),
                    outer: Normalised::new(driver),
                })
                .collect(),
            embeddings: Normalised::new(driver),
        }
    }

    /// For training: everything is kept.
    pub fn for_training(driver: &Arc<dyn Driver>, shape: &Shape) -> CardActivations {
        CardActivations::keeping(driver, shape.settings.layers)
    }

    /// For evaluation: what the next layer needs.
    pub fn for_evaluation(driver: &Arc<dyn Driver>) -> CardActivations {
        CardActivations::keeping(driver, 1)
    }

    /// Address of the states after `depth` layers, 0 for the embeddings.
    pub fn states(&self, depth: usize) -> u64 {
        self.states[depth % self.states.len()].address()
    }
}

/// Buffers that hold nothing between passes.
pub struct CardScratch {
    /// [tokens, hidden]
    update: Memory,
    /// The gradient of the states, on its way down: [tokens, hidden].
    gradient: Memory,
    /// [tokens, feed_forward or 3 hidden]
    wide: Memory,
    partials: Memory,
    /// [heads, tokens] in f32
    delta: Memory,
    query_gradient: Memory,
    /// Gradient of the source's states, which all layers of a decoder add to: [source tokens, hidden].
    source_gradient: Memory,
    target_states: Memory,
    target_gradient: Memory,
    logits: Memory,
    logit_gradient: Memory,
    nats: Memory,
    correct: Memory,
    segments: Memory,
}

impl CardScratch {
    pub fn new(driver: &Arc<dyn Driver>) -> CardScratch {
        let memory = || Memory::new(driver);
        CardScratch {
            update: memory(),
            gradient: memory(),
            wide: memory(),
            partials: memory(),
            delta: memory(),
            query_gradient: memory(),
            source_gradient: memory(),
            target_states: memory(),
            target_gradient: memory(),
            logits: memory(),
            logit_gradient: memory(),
            nats: memory(),
            correct: memory(),
            segments: memory(),
        }
    }

    /// Makes the gradient that a decoder has gathered for the source's states the one that the encoder's backward starts from.
    pub fn start_source_gradient(&mut self) {
        std::mem::swap(&mut self.gradient, &mut self.source_gradient);
    }

    /// Room for the gradient of [tokens, hidden] states; its address.
    pub fn gradient(&mut self, elements: usize, element: Element) -> Result<u64> {
        self.gradient.reserve(elements * element.bytes())
    }
}
