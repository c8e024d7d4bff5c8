//! The trainer: a model with its gradient, moments and heads, and the steps that change them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use super::cuda::OnCard;
use super::heads::{Heads, values_of};
use super::settings::AdamSettings;
use crate::kernels::Device;
use crate::kernels::adam::{Adam, CHUNK, SumOfSquares, Update};
use crate::kernels::buffer::{Buffer, Parts};
use crate::kernels::embedding::Scatter;
use crate::kernels::lanes::vectorised;
use crate::kernels::matmul::Precision;
use crate::kernels::normalise::AddInto;
use crate::model::encoder::targets_of;
use crate::model::layout::{Entry, Side};
use crate::model::parameters::PAD;
use crate::model::shards::{partition, shard_tokens, with_sources};
use crate::model::tickets::Tickets;
use crate::model::trainable::Trainable;
use crate::model::trunk::{self, Activations, Backward, Shard, Source, Stream};
use crate::model::{Batch, Direction, Encoder, LanguageModelBatch, LossSum, Model, Shape, Tap};
use crate::random;

/// Below this many parameters the caller updates alone: waking threads costs more. Chosen by us; bits do not depend
/// on it.
const PARALLEL_UPDATE: usize = 1 << 17;

/// A loss or gradient that is not a number or infinite. The parameters, moments and counters are as before the step,
/// and the gradient is cleared.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "update {update} diverged: loss {loss:?}, gradient norm {gradient_norm:?}; \
     lower the learning rate, lengthen the warm-up or clip"
)]
pub struct NotFinite {
    /// The update that was not made, counted from 1.
    pub update: u64,
    pub loss: Option<f64>,
    pub gradient_norm: Option<f64>,
    /// The loss is that of held-out text, after the update.
    pub held_out: bool,
}

/// What a language-modelling step did.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// The update made, counted from 1.
    pub update: u64,
    /// Nats per target, with dropout, before the update.
    pub loss: f64,
    pub targets: usize,
    pub tokens: usize,
    /// Global norm of the mean gradient before clipping.
    pub gradient_norm: f64,
    pub learning_rate: f64,
}

/// What an update did.
#[derive(Debug, Clone, PartialEq)]
pub struct UpdateReport {
    /// Counted from 1.
    pub update: u64,
    /// Global norm of the gradient, divided, before clipping.
    pub gradient_norm: f64,
    pub learning_rate: f64,
}

/// A model in training.
pub struct Trainer {
    pub(super) encoder: Encoder,
    pub(super) settings: AdamSettings,
    pub(super) total_updates: u64,
    pub(super) seed: u64,
    /// Updates made.
    pub(super) update: u64,
    /// Passes since the last update: names of their dropout masks.
    pub(super) passes: u32,
    pub(super) first: Buffer,
    pub(super) second: Buffer,
    pub(super) heads: Heads,
    pub(super) gradient: Buffer,
    /// Gradient and moments on the device's card, where it has one; the three buffers above are empty then.
    pub(super) on_card: Option<OnCard>,
    /// Gradient of the summed embeddings of all tokens of a backward; and of those of the sources.
    pub(super) embedding_gradient: Buffer,
    pub(super) source_embedding_gradient: Buffer,
    pub(super) stream_key: u64,
    pub(super) activations: Mutex<Vec<Activations>>,
    pub(super) trainable: Trainable,
    /// Updates that each parameter of the layout has had, for Adam's bias correction.
    pub(super) own_updates: Vec<u64>,
    /// Parameters of the trunk that a head computes with, until the update.
    pub(super) lent: BTreeMap<String, Var>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Trainer {
    /// `seed` decides the dropout masks; `total_updates` the end of a linear schedule.
    pub fn new(
        model: Model,
        settings: &AdamSettings,
        total_updates: u64,
        device: &Device,
        seed: u64,
    ) -> Result<Trainer> {
        if let Err(problems) = settings.validate() {
            let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::bail!(
                "the optimizer's settings are impossible: {}",
                list.join(", ")
            );
        }
        let on_card = match device.card() {
            Some(driver) => Some(OnCard::new(driver, &model)?),
            None => None,
        };
        let length = match on_card {
            Some(_) => 0,
            None => model.layout().length,
        };
        let trainable = Trainable::except(model.layout(), |_| false);
        let own_updates = vec![0; model.layout().entries.len()];
        Ok(Trainer {
            encoder: Encoder::new(model, device),
            settings: settings.clone(),
            total_updates,
            seed,
            update: 0,
            passes: 0,
            first: Buffer::zeros(length),
            second: Buffer::zeros(length),
            heads: Heads::default(),
            gradient: Buffer::zeros(length),
            on_card,
            embedding_gradient: Buffer::default(),
            source_embedding_gradient: Buffer::default(),
            stream_key: random::key(seed, "dropout"),
            activations: Mutex::default(),
            trainable,
            own_updates,
            lent: BTreeMap::new(),
        })
    }

    /// The same with matrix products in another precision than f32.
    pub fn in_precision(mut self, precision: Precision) -> Trainer {
        self.encoder = self.encoder.in_precision(precision);
        self
    }

    /// Freezes the parameters that `frozen` names, and trains all others from now on; what was accumulated is forgotten. A
    /// frozen parameter keeps its moments, and what its gradient would cost is saved where a whole block is frozen.
    pub fn freeze(&mut self, frozen: impl Fn(&str) -> bool) -> Result<()> {
        self.trainable = Trainable::except(self.encoder.layout(), frozen);
        self.clear_gradients()
    }

    /// A parameter of the trunk as a candle variable, to compute a loss with (an output tied to the token table, say): what
    /// the loss contributes to its gradient enters in [`Trainer::backward_loss`]. It holds the values of now; ask again
    /// after an update.
    pub fn parameter(&mut self, name: &str) -> Result<Tensor> {
        if let Some(variable) = self.lent.get(name) {
            return Ok(variable.as_tensor().clone());
        }
        let entry = self.entry(name)?;
        let values = self.values_of_entry(entry)?;
        let variable = Var::from_slice(&values, entry.dims.as_slice(), self.device().candle())?;
        let tensor = variable.as_tensor().clone();
        self.lent.insert(name.to_owned(), variable);
        Ok(tensor)
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        let mut entries = self.encoder.layout().entries.iter();
        entries
            .find(|entry| entry.name == name)
            .with_context(|| format!("the trunk has no parameter `{name}`"))
    }

    fn values_of_entry(&self, entry: &Entry) -> Result<Cow<'_, [f32]>> {
        let range = entry.range.clone();
        match self.encoder.card()? {
            None => Ok(Cow::Borrowed(&self.encoder.model()?.values()[range])),
            Some(card) => {
                let mut values = vec![0f32; range.len()];
                card.download(range, &mut values)?;
                Ok(Cow::Owned(values))
            }
        }
    }

    /// Adds what `gradients` holds for lent parameters.
    pub(super) fn accumulate_lent_gradients(&mut self, gradients: &GradStore) -> Result<()> {
        for (name, variable) in &self.lent {
            let Some(gradient) = gradients.get(variable.as_tensor()) else {
                continue;
            };
            let entries = &self.encoder.layout().entries;
            if let Some(entry) = entries.iter().find(|entry| entry.name == *name) {
                let values = values_of(gradient, &entry.dims)
                    .with_context(|| format!("gradient of `{name}`"))?;
                if let (Some(card), Some(on_card)) = (self.encoder.card()?, &mut self.on_card) {
                    on_card.add_gradient(card, &entry.range, &values)?;
                    continue;
                }
                vectorised(AddInto {
                    target: &mut self.gradient[entry.range.clone()],
                    source: &values,
                });
            }
        }
        Ok(())
    }

    /// See [`Encoder::model`].
    pub fn model(&self) -> Result<&Model> {
        self.encoder.model()
    }

    pub fn into_model(self) -> Result<Model> {
        self.encoder.into_model()
    }

    /// The model for evaluation.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    pub fn shape(&self) -> &Shape {
        self.encoder.shape()
    }

    pub fn device(&self) -> &Device {
        self.encoder.device()
    }

    /// Updates made so far.
    pub fn updates(&self) -> u64 {
        self.update
    }

    /// The gradient accumulated for a parameter since the last update: sums, not yet divided.
    pub fn gradient(&self, name: &str) -> Result<Cow<'_, [f32]>> {
        let entry = self.entry(name)?;
        match (self.encoder.card()?, &self.on_card) {
            (Some(card), Some(on_card)) => on_card.gradient(card, &entry.range).map(Cow::Owned),
            _ => Ok(Cow::Borrowed(&self.gradient[entry.range.clone()])),
        }
    }

    /// See [`Encoder::predict`].
    pub fn predict(&self, batch: &Batch, direction: Direction, tap: Tap) -> Result<Tensor> {
        self.encoder.predict(batch, direction, tap)
    }

    /// See [`Encoder::language_model_loss`].
    pub fn language_model_loss(&self, input: &LanguageModelBatch) -> Result<LossSum> {
        self.encoder.language_model_loss(input)
    }

    /// Forward, backward and update over micro-batches. The loss is the mean over the targets of all of them.
    /// Errs with [`NotFinite`] before anything changes.
    pub fn language_model_step(&mut self, micro: &[LanguageModelBatch]) -> Result<StepReport> {
        self.weighted_step(micro, 1.0)
    }

    /// As [`Trainer::language_model_step`] with the gradient times `weight`; the loss that is told is unweighted.
    pub fn weighted_step(
        &mut self,
        micro: &[LanguageModelBatch],
        weight: f32,
    ) -> Result<StepReport> {
        let targets: usize = micro.iter().map(|input| input.targets.labels.len()).sum();
        ensure!(
            targets > 0,
            "a step needs at least one target; mask or predict something"
        );
        let (loss, report) = match self.on_card {
            // Waits for the card once.
            Some(_) => self.language_model_step_on_card(micro, weight, targets)?,
            None => {
                let loss = self.accumulate_language_model(micro, weight)?.mean();
                (loss, self.apply(targets as f64)?)
            }
        };
        Ok(StepReport {
            update: report.update,
            loss,
            targets,
            tokens: micro.iter().map(LanguageModelBatch::token_count).sum(),
            gradient_norm: report.gradient_norm,
            learning_rate: report.learning_rate,
        })
    }

    /// Adds `weight` times the gradient of the summed loss over micro-batches; the loss itself comes back unweighted.
    pub fn accumulate_language_model(
        &mut self,
        micro: &[LanguageModelBatch],
        weight: f32,
    ) -> Result<LossSum> {
        for input in micro {
            input.validate(self.shape())?;
        }
        if self.on_card.is_some() {
            return self.accumulate_language_model_on_card(micro, weight);
        }
        let aim = shard_tokens(micro.iter().map(LanguageModelBatch::token_count).sum());
        let mut shards = Vec::new();
        let (mut tokens, mut source_tokens) = (0, 0);
        for input in micro {
            let offsets = with_sources(&input.batch, input.source.as_ref());
            for sequences in partition(&offsets, aim) {
                let of = |batch, tokens_before| Shard {
                    batch,
                    sequences: sequences.clone(),
                    tokens_before,
                    source: None,
                };
                let source = input.source.as_ref();
                shards.push((
                    input,
                    of(&input.batch, tokens),
                    source.map(|source| of(source, source_tokens)),
                ));
            }
            tokens += input.batch.token_count();
            source_tokens += input.source.as_ref().map_or(0, Batch::token_count);
        }
        let stream = self.next_stream();
        let hidden = self.shape().settings.hidden;
        let depth = self.shape().settings.layers;
        let mut losses = vec![LossSum::default(); shards.len()];
        self.embedding_gradient.resize(tokens * hidden);
        self.source_embedding_gradient
            .resize(source_tokens * hidden);
        {
            let encoder = &self.encoder;
            let weights = encoder.backward_weights();
            let of_source = encoder.context(Side::Encoder, Direction::Bidirectional, Some(stream));
            let predicting = encoder.context(Side::Decoder, Direction::Bidirectional, Some(stream));
            let tickets = Tickets::new(&mut self.gradient, encoder.layout().blocks.clone());
            let losses = Parts::new(&mut losses);
            let embedding_gradient = Parts::new(&mut self.embedding_gradient);
            let source_embedding_gradient = Parts::new(&mut self.source_embedding_gradient);
            let pool = &self.activations;
            let take_activations = || {
                lock(pool)
                    .pop()
                    .unwrap_or_else(|| Activations::for_training(encoder.shape()))
            };
            let rows_of = |shard: &Shard| {
                let rows = shard.rows();
                let first = shard.tokens_before + rows.start;
                first * hidden..(first + rows.len()) * hidden
            };
            encoder.device().pool().each(shards.len(), |turn| {
                let _watch = tickets.watch();
                let (input, shard, source) = &shards[turn];
                let context = trunk::Context {
                    direction: input.direction,
                    ..predicting
                };
                let mut scratch = encoder.take_scratch();
                let source = source.as_ref().map(|source| {
                    let mut activations = take_activations();
                    trunk::forward(
                        &of_source,
                        source,
                        depth,
                        None,
                        &mut activations,
                        &mut scratch,
                    );
                    (source, activations)
                });
                let shard = &Shard {
                    source: source.as_ref().map(|(source, activations)| Source {
                        states: activations.states(depth),
                        offsets: source.offsets(),
                    }),
                    ..shard.clone()
                };
                let (rows, labels) = targets_of(&input.targets, &shard.rows());
                let mut activations = take_activations();
                trunk::forward(
                    &context,
                    shard,
                    depth,
                    Some(&rows),
                    &mut activations,
                    &mut scratch,
                );
                let backward = Backward {
                    weights,
                    tickets: &tickets,
                    turn,
                    depth,
                    trainable: &self.trainable,
                };
                let loss = trunk::language_model_loss(
                    &context,
                    &activations,
                    labels,
                    Some((&backward, weight)),
                    &mut scratch,
                );
                // Safety: each shard has its own place among the losses and its own rows.
                let (loss_place, embedding) = unsafe {
                    (
                        losses.range(turn..turn + 1),
                        embedding_gradient.range(rows_of(shard)),
                    )
                };
                loss_place[0] = loss;
                trunk::backward(
                    &context,
                    shard,
                    &activations,
                    &backward,
                    |_| None,
                    embedding,
                    &mut scratch,
                );
                lock(pool).push(activations);
                if let Some((shard, activations)) = source {
                    if self.trainable.reach(Side::Encoder).any {
                        trunk::start_source_gradient(&mut scratch);
                        // Safety: as above.
                        let embedding = unsafe { source_embedding_gradient.range(rows_of(shard)) };
                        trunk::backward(
                            &of_source,
                            shard,
                            &activations,
                            &backward,
                            |_| None,
                            embedding,
                            &mut scratch,
                        );
                    }
                    lock(pool).push(activations);
                }
                encoder.return_scratch(scratch);
            });
        }
        let batches: Vec<&Batch> = micro.iter().map(|input| &input.batch).collect();
        self.scatter_embeddings(Side::Decoder, &batches);
        if self.shape().decoder {
            let sources: Vec<&Batch> = micro
                .iter()
                .filter_map(|input| input.source.as_ref())
                .collect();
            self.scatter_embeddings(Side::Encoder, &sources);
        }
        let mut total = LossSum::default();
        losses.into_iter().for_each(|loss| total.add(loss));
        self.checked(total)
    }

    /// The loss, if it is finite; or else the gradients are forgotten.
    pub(super) fn checked(&mut self, total: LossSum) -> Result<LossSum> {
        if total.nats.is_finite() {
            return Ok(total);
        }
        self.clear_gradients()?;
        Err(NotFinite {
            update: self.update + 1,
            loss: Some(total.mean()),
            gradient_norm: None,
            held_out: false,
        }
        .into())
    }

    /// Adds a parameter for a head, with its own peak learning rate; the schedule scales it like the trunk's.
    pub fn add_head_parameter(
        &mut self,
        name: &str,
        dims: &[usize],
        initial: Vec<f32>,
        learning_rate: f64,
    ) -> Result<()> {
        self.heads.add(name, dims, initial, learning_rate)
    }

    /// A head parameter as a candle variable, to compute with.
    pub fn head_parameter(&self, name: &str) -> Result<Tensor> {
        Ok(self.heads.get(name)?.variable.as_tensor().clone())
    }

    /// Adds the gradients of head parameters.
    pub fn accumulate_head_gradients(&mut self, gradients: &GradStore) -> Result<()> {
        self.heads.accumulate(gradients)
    }

    /// Divides the accumulated gradients, clips, updates all parameters, and clears the gradients.
    /// Errs with [`NotFinite`] before anything changes.
    pub fn apply(&mut self, divisor: f64) -> Result<UpdateReport> {
        ensure!(
            divisor > 0.0 && divisor.is_finite(),
            "gradients cannot be divided by {divisor}; count the targets"
        );
        self.clear_frozen_gradients()?;
        let squares = match &self.on_card {
            Some(_) => self.squares_on_card()?,
            None => self.sum_of_squares(),
        };
        self.apply_with(squares, divisor)
    }

    /// As [`Trainer::apply`], of which the trunk's sum of squares is known.
    pub(super) fn apply_with(&mut self, squares: f64, divisor: f64) -> Result<UpdateReport> {
        let update = self.update + 1;
        let gradient_norm = (squares + self.heads.sum_of_squares()).sqrt() / divisor;
        if !gradient_norm.is_finite() {
            self.clear_gradients()?;
            return Err(NotFinite {
                update,
                loss: None,
                gradient_norm: Some(gradient_norm),
                held_out: false,
            }
            .into());
        }
        // PyTorch's clip_grad_norm_ adds 1e-6 to the norm.
        let clipping = match self.settings.clip {
            Some(clip) => (clip / (gradient_norm + 1e-6)).min(1.0),
            None => 1.0,
        };
        let learning_rate = self.settings.learning_rate_at(update, self.total_updates);
        let s = self.settings.clone();
        // Differs: XLM adds epsilon before the bias correction of the second moment; this is PyTorch's AdamW.
        let numbers = |own: u64| Update {
            learning_rate: learning_rate as f32,
            beta1: s.beta1 as f32,
            beta2: s.beta2 as f32,
            epsilon: s.epsilon as f32,
            weight_decay: s.weight_decay as f32,
            correction1: (1.0 / (1.0 - s.beta1.powf(own as f64))) as f32,
            correction2: (1.0 / (1.0 - s.beta2.powf(own as f64))).sqrt() as f32,
            gradient_scale: (clipping / divisor) as f32,
        };
        self.heads
            .update(numbers(update), learning_rate / s.learning_rate)?;
        let groups = self.trained_groups();
        // Where only heads learn, the packed weights stay.
        if !groups.is_empty() {
            self.update_groups(groups, numbers)?;
        }
        self.update = update;
        self.passes = 0;
        Ok(UpdateReport {
            update,
            gradient_norm,
            learning_rate,
        })
    }

    /// One update of the trunk; `numbers` are those of a parameter's own update, counted from 1.
    fn update_groups(
        &mut self,
        groups: Vec<(Range<usize>, u64)>,
        numbers: impl Fn(u64) -> Update,
    ) -> Result<()> {
        match self.on_card {
            Some(_) => self.update_on_card(&groups, numbers)?,
            None => self.update_on_cpu(&groups, numbers),
        }
        let trained = self.trainable.entries(self.encoder.layout());
        for ((_, trained), own) in trained.zip(&mut self.own_updates) {
            *own += u64::from(trained);
        }
        self.lent.clear();
        Ok(())
    }

    fn update_on_cpu(&mut self, groups: &[(Range<usize>, u64)], numbers: impl Fn(u64) -> Update) {
        let device = self.encoder.device().clone();
        let [values, gradient, first, second] = [
            self.encoder.values_mut(),
            &mut self.gradient,
            &mut self.first,
            &mut self.second,
        ]
        .map(Parts::new);
        for (group, own) in groups {
            let numbers = numbers(*own);
            each_chunk(&device, group.len(), |_, range| {
                let range = group.start + range.start..group.start + range.end;
                // Safety: groups do not overlap, nor do chunks.
                unsafe {
                    vectorised(Adam {
                        update: numbers,
                        parameters: values.range(range.clone()),
                        gradient: gradient.range(range.clone()),
                        first: first.range(range.clone()),
                        second: second.range(range),
                    });
                }
            });
        }
    }

    /// Trained parameters that lie behind each other and have had as many updates: their range, and the number of the
    /// coming one. PyTorch's Adam counts for each parameter by itself, too.
    fn trained_groups(&self) -> Vec<(Range<usize>, u64)> {
        let layout = self.encoder.layout();
        let mut groups: Vec<(Range<usize>, u64)> = Vec::new();
        let mut before = false;
        for ((entry, trained), own) in self.trainable.entries(layout).zip(&self.own_updates) {
            match groups.last_mut() {
                Some((range, coming)) if trained && before && *coming == own + 1 => {
                    range.end = entry.range.end;
                }
                _ if trained => groups.push((entry.range.clone(), own + 1)),
                _ => {}
            }
            before = trained;
        }
        groups
    }

    /// What blocks that are trained in part have gathered for their frozen parameters.
    pub(super) fn clear_frozen_gradients(&mut self) -> Result<()> {
        let layout = self.encoder.layout();
        for (entry, trained) in self.trainable.entries(layout) {
            match &self.on_card {
                _ if trained => {}
                Some(on_card) => on_card.clear_gradient(&entry.range)?,
                None => self.gradient[entry.range.clone()].fill(0.0),
            }
        }
        Ok(())
    }

    /// Forgets the gradients accumulated since the last update.
    pub fn clear_gradients(&mut self) -> Result<()> {
        self.gradient.fill(0.0);
        self.heads.clear_gradients();
        self.passes = 0;
        match &self.on_card {
            Some(on_card) => on_card.clear_gradient(&(0..self.encoder.layout().length)),
            None => Ok(()),
        }
    }

    /// Of all accumulated gradients of the trunk: sums of fixed chunks, added in their order.
    fn sum_of_squares(&self) -> f64 {
        let mut sums = vec![0f64; self.gradient.len().div_ceil(CHUNK)];
        let parts = Parts::new(&mut sums);
        each_chunk(self.device(), self.gradient.len(), |chunk, range| {
            // Safety: each chunk has its own place.
            let place = unsafe { parts.range(chunk..chunk + 1) };
            place[0] = vectorised(SumOfSquares {
                values: &self.gradient[range],
            });
        });
        sums.iter().sum()
    }

    /// Adds the gradient of the summed embeddings to a stack's tables, in the order of the tokens; a table per thread.
    pub(super) fn scatter_embeddings(&mut self, side: Side, batches: &[&Batch]) {
        if !self.trainable.reach(side).tables {
            return;
        }
        let encoder = &self.encoder;
        let layout = encoder.layout();
        let (stack, rows) = match (side, &layout.decoder) {
            (Side::Decoder, Some(decoder)) => (decoder, &self.embedding_gradient),
            (Side::Encoder, Some(_)) => (&layout.encoder, &self.source_embedding_gradient),
            (_, None) => (&layout.encoder, &self.embedding_gradient),
        };
        let width = encoder.shape().settings.hidden;
        let gradient = Parts::new(&mut self.gradient);
        let scatter = |table: &Range<usize>, indices: fn(&Batch) -> &[u32], skip: Option<u32>| {
            // Safety: the tables do not overlap, and each is one task's.
            let table_gradient = unsafe { gradient.range(table.clone()) };
            let mut start = 0;
            for batch in batches {
                let end = start + batch.token_count() * width;
                vectorised(Scatter {
                    gradient: &rows[start..end],
                    indices: indices(batch),
                    skip,
                    width,
                    table_gradient,
                });
                start = end;
            }
        };
        let table = |index| match index {
            0 => scatter(&stack.token, |batch| &batch.tokens, Some(PAD)),
            1 => scatter(&stack.position, |batch| &batch.positions, None),
            _ => {
                if let Some(language) = &stack.language {
                    scatter(language, |batch| &batch.languages, None);
                }
            }
        };
        if rows.len() < PARALLEL_UPDATE {
            (0..3).for_each(table);
        } else {
            encoder.device().pool().each(3, table);
        }
    }

    pub(super) fn next_stream(&mut self) -> Stream {
        let pass = self.passes;
        self.passes += 1;
        Stream {
            key: self.stream_key,
            step: self.update,
            pass,
        }
    }
}

/// Calls `task(chunk, range)` for fixed chunks of a buffer, with all threads when it is long.
fn each_chunk(device: &Device, length: usize, task: impl Fn(usize, Range<usize>) + Sync) {
    let run = |chunk: usize| task(chunk, chunk * CHUNK..length.min((chunk + 1) * CHUNK));
    let chunks = length.div_ceil(CHUNK);
    if length < PARALLEL_UPDATE {
        (0..chunks).for_each(run);
    } else {
        device.pool().each(chunks, run);
    }
}
