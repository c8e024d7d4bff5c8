//! A model on a device: evaluation, and the parts that training shares with it.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use candle_core::Tensor;

use super::batch::{Batch, Direction, LanguageModelBatch, Targets};
use super::layout::{Layout, Side, Stack};
use super::on_card::CardWorkspace;
use super::parameters::Model;
use super::settings::Shape;
use super::shards::{partition, shard_tokens, with_sources};
use super::trunk::cuda::CardModel;
use super::trunk::{self, Activations, Context, Part, Scratch, Shard, Source, Stream};
use super::weights::{Orientation, Weights};
use crate::kernels::Device;
use crate::kernels::buffer::Parts;
use crate::kernels::matmul::Precision;
use crate::kernels::vocabulary::LossSum;

/// A place in the trunk where states leave it and gradients enter it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Tap {
    /// The normalised embeddings: the first layer's input.
    Embeddings,
    /// The output of a layer, counted from 1.
    Layer(usize),
    /// The output of the last layer.
    Last,
    /// The same of each sequence's first token only, [sequences, hidden]: where nothing else of the last layer is read, a
    /// processor computes these rows of it alone.
    First,
}

impl Tap {
    /// Layers to run before the tap.
    pub fn depth(self, shape: &Shape) -> Result<usize> {
        let layers = shape.settings.layers;
        match self {
            Tap::Embeddings => Ok(0),
            Tap::Last | Tap::First => Ok(layers),
            Tap::Layer(layer) => {
                ensure!(
                    (1..=layers).contains(&layer),
                    "the model has no layer {layer}; its layers are 1 to {layers}"
                );
                Ok(layer)
            }
        }
    }
}

/// A model with its device and buffers. Evaluation takes `&self`: it touches no random stream and nothing that
/// training keeps.
pub struct Encoder {
    /// Its values are old where a card has been given newer ones.
    pub(super) model: Model,
    device: Device,
    precision: Precision,
    forward_weights: OnceLock<Weights>,
    backward_weights: OnceLock<Weights>,
    /// Memory of weights packed for parameters that have changed since.
    spare_weights: Mutex<Vec<Weights>>,
    scratch: Mutex<Vec<Scratch>>,
    evaluation: Mutex<Vec<Activations>>,
    /// The parameters on the device's card, once something runs there.
    card: OnceLock<CardModel>,
    newer_on_card: bool,
    /// The same on the CPU, with the card's values.
    home: OnceLock<Box<Encoder>>,
    pub(super) workspaces: Mutex<Vec<CardWorkspace>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Encoder {
    pub fn new(model: Model, device: &Device) -> Encoder {
        Encoder {
            model,
            device: device.clone(),
            precision: Precision::F32,
            forward_weights: OnceLock::new(),
            backward_weights: OnceLock::new(),
            spare_weights: Mutex::default(),
            scratch: Mutex::default(),
            evaluation: Mutex::default(),
            card: OnceLock::new(),
            newer_on_card: false,
            home: OnceLock::new(),
            workspaces: Mutex::default(),
        }
    }

    /// The same with matrix products in another precision than f32.
    pub fn in_precision(mut self, precision: Precision) -> Encoder {
        (self.forward_weights, self.backward_weights) = Default::default();
        assert!(
            !self.newer_on_card,
            "a precision is chosen before the first update"
        );
        self.card = OnceLock::new();
        self.precision = precision;
        self
    }

    /// The parameters; errs where a card has newer ones and they cannot be copied from it.
    pub fn model(&self) -> Result<&Model> {
        match self.newer_on_card {
            true => Ok(&self.home()?.model),
            false => Ok(&self.model),
        }
    }

    pub fn into_model(mut self) -> Result<Model> {
        if self.newer_on_card {
            self.home()?;
            if let Some(home) = self.home.take() {
                return Ok(home.model);
            }
        }
        Ok(self.model)
    }

    /// The stack of a side; a model without a decoder has the encoder's alone.
    pub(super) fn stack(&self, side: Side) -> (Side, &Stack) {
        match (side, &self.layout().decoder) {
            (Side::Decoder, Some(decoder)) => (Side::Decoder, decoder),
            _ => (Side::Encoder, &self.layout().encoder),
        }
    }

    pub(crate) fn layout(&self) -> &Layout {
        self.model.layout()
    }

    /// The device's card with the parameters, if it has one.
    pub(crate) fn card(&self) -> Result<Option<&CardModel>> {
        let Some(driver) = self.device.card() else {
            return Ok(None);
        };
        if self.card.get().is_none() {
            let card = CardModel::new(driver, &self.model, self.precision)
                .context("the model does not fit the card")?;
            let _ = self.card.set(card);
        }
        Ok(self.card.get())
    }

    /// Says that the card's values have changed.
    pub(crate) fn changed_on_card(&mut self) {
        self.newer_on_card = true;
        self.home.take();
    }

    /// What runs on the CPU: this, or its twin with the values of the card.
    pub(super) fn home(&self) -> Result<&Encoder> {
        let (true, Some(card)) = (self.newer_on_card, self.card()?) else {
            return Ok(self);
        };
        if self.home.get().is_none() {
            let mut model = self.model.clone();
            let all = 0..card.length();
            card.download(all, model.values_mut())
                .context("the parameters cannot be copied from the card")?;
            let home =
                Encoder::new(model, &self.device.without_card()).in_precision(self.precision);
            let _ = self.home.set(Box::new(home));
        }
        Ok(self.home.get().map_or(self, |home| home))
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub fn shape(&self) -> &Shape {
        self.model.shape()
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The encoder's states at `tap`, [tokens, hidden] or [sequences, hidden], without dropout.
    pub fn predict(&self, batch: &Batch, direction: Direction, tap: Tap) -> Result<Tensor> {
        batch.validate(self.shape())?;
        let depth = tap.depth(self.shape())?;
        if let Some(card) = self.card()? {
            return self.predict_on_card(card, batch, direction, tap);
        }
        let hidden = self.shape().settings.hidden;
        let first = tap == Tap::First;
        let rows = if first {
            batch.sequences()
        } else {
            batch.token_count()
        };
        let mut states = vec![0f32; rows * hidden];
        let parts = Parts::new(&mut states);
        self.evaluate(
            batch,
            None,
            direction,
            depth,
            |shard| first.then(|| shard.first_tokens()),
            |_, shard, activations, _| {
                let rows = if first {
                    shard.sequences.clone()
                } else {
                    shard.rows()
                };
                // Safety: shards do not share rows.
                let out = unsafe { parts.range(rows.start * hidden..rows.end * hidden) };
                match first {
                    true => activations.copy_read(hidden, out),
                    false => out.copy_from_slice(activations.states(depth)),
                }
            },
        );
        Ok(Tensor::from_vec(
            states,
            (rows, hidden),
            self.device.candle(),
        )?)
    }

    /// The loss of a batch without dropout, in nats.
    pub fn language_model_loss(&self, input: &LanguageModelBatch) -> Result<LossSum> {
        input.validate(self.shape())?;
        if let Some(card) = self.card()? {
            return self.loss_on_card(card, input);
        }
        let depth = self.shape().settings.layers;
        let losses = Mutex::new(Vec::new());
        self.evaluate(
            &input.batch,
            input.source.as_ref(),
            input.direction,
            depth,
            |shard| Some(targets_of(&input.targets, &shard.rows()).0),
            |context, shard, activations, scratch| {
                let (_, labels) = targets_of(&input.targets, &shard.rows());
                let loss = trunk::language_model_loss(context, activations, labels, None, scratch);
                lock(&losses).push((shard.sequences.start, loss));
            },
        );
        let mut losses = losses.into_inner().unwrap_or_else(PoisonError::into_inner);
        losses.sort_by_key(|(first, _)| *first);
        let mut total = LossSum::default();
        losses.into_iter().for_each(|(_, loss)| total.add(loss));
        Ok(total)
    }

    /// Runs the predicting stack over a batch; with sources, after the encoder has read them. `read` tells which rows of a shard
    /// `then` reads; `None` for all.
    fn evaluate(
        &self,
        batch: &Batch,
        source: Option<&Batch>,
        direction: Direction,
        depth: usize,
        read: impl Fn(&Shard) -> Option<Vec<u32>> + Sync,
        then: impl Fn(&Context, &Shard, &Activations, &mut Scratch) + Sync,
    ) {
        let offsets = with_sources(batch, source);
        let tokens = offsets.last().map_or(0, |&tokens| tokens as usize);
        let shards = partition(&offsets, shard_tokens(tokens));
        let encoder = self.context(Side::Encoder, Direction::Bidirectional, None);
        let side = if source.is_some() {
            Side::Decoder
        } else {
            Side::Encoder
        };
        let context = self.context(side, direction, None);
        self.device.pool().each(shards.len(), |index| {
            let mut scratch = self.take_scratch();
            let [mut of_source, mut activations] =
                [(); 2].map(|()| self.take_evaluation_activations());
            let of = |batch, source| Shard {
                batch,
                sequences: shards[index].clone(),
                tokens_before: 0,
                source,
            };
            let source = source.map(|source| {
                let shard = of(source, None);
                let layers = self.shape().settings.layers;
                trunk::forward(&encoder, &shard, layers, None, &mut of_source, &mut scratch);
                Source {
                    states: of_source.states(layers),
                    offsets: shard.offsets(),
                }
            });
            let shard = of(batch, source);
            trunk::forward(
                &context,
                &shard,
                depth,
                read(&shard).as_deref(),
                &mut activations,
                &mut scratch,
            );
            then(&context, &shard, &activations, &mut scratch);
            lock(&self.evaluation).extend([activations, of_source]);
            self.return_scratch(scratch);
        });
    }

    fn take_evaluation_activations(&self) -> Activations {
        lock(&self.evaluation)
            .pop()
            .unwrap_or_else(Activations::for_evaluation)
    }

    /// What a pass through one stack shares; a model without a decoder has the encoder alone.
    pub(crate) fn context(
        &self,
        side: Side,
        direction: Direction,
        stream: Option<Stream>,
    ) -> Context<'_> {
        let (side, stack) = self.stack(side);
        Context {
            shape: self.model.shape(),
            side,
            stack,
            values: self.model.values(),
            forward_weights: self.weights(&self.forward_weights, Orientation::Forward),
            direction,
            stream,
            precision: self.precision,
        }
    }

    pub(crate) fn backward_weights(&self) -> &Weights {
        self.weights(&self.backward_weights, Orientation::Backward)
    }

    fn weights<'a>(&self, cell: &'a OnceLock<Weights>, orientation: Orientation) -> &'a Weights {
        cell.get_or_init(|| {
            let memory = lock(&self.spare_weights).pop().unwrap_or_default();
            memory.packed(
                self.model.layout(),
                self.model.values(),
                orientation,
                self.precision,
                &self.device,
            )
        })
    }

    /// The parameters, to be changed: weights are packed anew when next needed.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        let packed = [self.forward_weights.take(), self.backward_weights.take()];
        lock(&self.spare_weights).extend(packed.into_iter().flatten());
        // What a card has is uploaded anew when next needed.
        self.card = OnceLock::new();
        self.newer_on_card = false;
        self.model.values_mut()
    }

    /// What all threads together have spent on each part since this was last asked, in the order of [`Part::ALL`].
    pub fn take_times(&self) -> [Duration; Part::ALL.len()] {
        let mut total = [Duration::ZERO; Part::ALL.len()];
        for scratch in lock(&self.scratch).iter_mut() {
            for (total, part) in total.iter_mut().zip(scratch.clock.take()) {
                *total += part;
            }
        }
        total
    }

    pub(crate) fn take_scratch(&self) -> Scratch {
        lock(&self.scratch).pop().unwrap_or_default()
    }

    pub(crate) fn return_scratch(&self, scratch: Scratch) {
        lock(&self.scratch).push(scratch);
    }
}

/// The targets among `rows`: their places, counted from its start, and their labels.
pub(crate) fn targets_of<'a>(targets: &'a Targets, rows: &Range<usize>) -> (Vec<u32>, &'a [u32]) {
    let before = |row: usize| {
        let of_row = |&index: &u32| (index as usize) < row;
        targets.indices.partition_point(of_row)
    };
    let range = before(rows.start)..before(rows.end);
    let places = targets.indices[range.clone()].iter();
    (
        places.map(|index| index - rows.start as u32).collect(),
        &targets.labels[range],
    )
}
