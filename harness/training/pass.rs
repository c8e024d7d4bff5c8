//! Forward passes that wait for their backward: how losses in candle train the trunk.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use candle_core::{Tensor, Var};

use super::heads::values_of;
use super::trainer::{NotFinite, Trainer, lock};
use crate::kernels::buffer::Parts;
use crate::kernels::lanes::vectorised;
use crate::kernels::normalise::AddInto;
use crate::model::layout::Side;
use crate::model::shards::{partition, shard_tokens};
use crate::model::tickets::Tickets;
use crate::model::trunk::cuda::{self, CardActivations, CardBatch, Gradients};
use crate::model::trunk::{self, Activations, Backward, Shard, Stream};
use crate::model::{Batch, Direction, Tap};

/// The activations of one batch in training mode. Several may live at once; dropping one forgets it.
pub struct Pass {
    pub(super) batch: Batch,
    pub(super) direction: Direction,
    pub(super) shards: Vec<Range<usize>>,
    pub(super) activations: Vec<Activations>,
    /// The same on a card, which has no shards.
    pub(super) on_card: Option<(CardBatch, CardActivations)>,
    /// Layers run, and whether of the last one nothing but first tokens is read.
    pub(super) depth: usize,
    pub(super) first_only: bool,
    /// The pass's number within its update, and the updates before it.
    pub(super) number: u32,
    pub(super) update: u64,
    pub(super) taps: BTreeMap<Tap, Var>,
}

impl Pass {
    /// The states at a tap, [tokens, hidden] or [sequences, hidden], in the order of the batch: a candle variable, so that
    /// the loss's gradient reaches it.
    pub fn tap(&self, tap: Tap) -> Result<Tensor> {
        let variable = self.taps.get(&tap).with_context(|| {
            format!("the pass has no tap {tap:?}; name it in the call of `forward`")
        })?;
        Ok(variable.as_tensor().clone())
    }

    pub fn batch(&self) -> &Batch {
        &self.batch
    }
}

impl Trainer {
    /// Runs a batch in training mode, with dropout, and keeps what its backward needs.
    pub fn forward(&mut self, batch: &Batch, direction: Direction, taps: &[Tap]) -> Result<Pass> {
        batch.validate(self.shape())?;
        ensure!(
            !taps.is_empty(),
            "a pass without taps has no backward; use `predict` or name a tap"
        );
        let depths = taps
            .iter()
            .map(|tap| tap.depth(self.shape()))
            .collect::<Result<Vec<_>>>()?;
        let depth = depths.iter().copied().max().unwrap_or(0);
        let stream = self.next_stream();
        if self.on_card.is_some() {
            return self.forward_on_card(batch, direction, (taps, &depths, depth), stream);
        }
        let shards = partition(&batch.offsets, shard_tokens(batch.token_count()));
        let mut activations: Vec<Activations> = {
            let mut pool = lock(&self.activations);
            shards
                .iter()
                .map(|_| {
                    pool.pop()
                        .unwrap_or_else(|| Activations::for_training(self.encoder.shape()))
                })
                .collect()
        };
        // Whether nothing else of the last layer is read.
        let first_only = taps
            .iter()
            .zip(&depths)
            .all(|(tap, &of_tap)| *tap == Tap::First || of_tap < depth);
        let context = self.encoder.context(Side::Encoder, direction, Some(stream));
        let parts = Parts::new(&mut activations);
        self.device().pool().each(shards.len(), |index| {
            let shard = shard_of(batch, &shards[index]);
            let mut scratch = self.encoder.take_scratch();
            // Safety: each shard has its own activations.
            let own = unsafe { parts.range(index..index + 1) };
            let read = first_only.then(|| shard.first_tokens());
            trunk::forward(
                &context,
                &shard,
                depth,
                read.as_deref(),
                &mut own[0],
                &mut scratch,
            );
            self.encoder.return_scratch(scratch);
        });
        let hidden = self.shape().settings.hidden;
        let mut variables = BTreeMap::new();
        for (&tap, &depth) in taps.iter().zip(&depths) {
            let rows = match tap {
                Tap::First => batch.sequences(),
                _ => batch.token_count(),
            };
            let mut states = Vec::with_capacity(rows * hidden);
            for (sequences, activations) in shards.iter().zip(&activations) {
                let of_shard = activations.states(depth);
                match tap {
                    Tap::First if first_only => {
                        let start = states.len();
                        states.resize(start + sequences.len() * hidden, 0.0);
                        activations.copy_read(hidden, &mut states[start..]);
                    }
                    Tap::First => {
                        for row in shard_of(batch, sequences).first_tokens() {
                            states.extend_from_slice(&of_shard[row as usize * hidden..][..hidden]);
                        }
                    }
                    _ => states.extend_from_slice(of_shard),
                }
            }
            variables.insert(tap, self.variable(states)?);
        }
        Ok(Pass {
            batch: batch.clone(),
            direction,
            shards,
            activations,
            on_card: None,
            depth,
            first_only,
            number: stream.pass,
            update: self.update,
            taps: variables,
        })
    }

    /// Takes the gradients of the loss at a pass's taps through the trunk; they add to what is there.
    pub fn backward(&mut self, pass: Pass, gradients: &[(Tap, Tensor)]) -> Result<()> {
        ensure!(
            pass.update == self.update,
            "the pass was made before update {}; its backward must come before the update",
            self.update
        );
        let hidden = self.shape().settings.hidden;
        let tokens = pass.batch.token_count();
        let mut entering: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        // Of first tokens, [sequences, hidden].
        let mut first: Option<Vec<f32>> = None;
        for (tap, gradient) in gradients {
            pass.tap(*tap)?;
            let depth = tap.depth(self.shape())?;
            let (rows, before) = match tap {
                Tap::First => (pass.batch.sequences(), first.take()),
                _ => (tokens, entering.remove(&depth)),
            };
            let mut values = values_of(gradient, &[rows, hidden])
                .with_context(|| format!("the gradient at {tap:?}"))?;
            if let Some(before) = before {
                vectorised(AddInto {
                    target: &mut values,
                    source: &before,
                });
            }
            match tap {
                Tap::First => first = Some(values),
                _ => {
                    entering.insert(depth, values);
                }
            }
        }
        if let Some(rows) = &first
            && !pass.first_only
        {
            let all = entering
                .entry(pass.depth)
                .or_insert_with(|| vec![0.0; tokens * hidden]);
            let starts = pass.batch.first_tokens().iter();
            for (row, &start) in rows.chunks_exact(hidden).zip(starts) {
                vectorised(AddInto {
                    target: &mut all[start as usize * hidden..][..hidden],
                    source: row,
                });
            }
            first = None;
        }
        // Layers above the highest gradient have none.
        let top = first.is_some().then_some(pass.depth);
        let Some(depth) = top.or(entering.keys().copied().max()) else {
            return Ok(());
        };
        let stream = Stream {
            key: self.stream_key,
            step: pass.update,
            pass: pass.number,
        };
        if pass.on_card.is_some() {
            return self.backward_on_card(pass, depth, &entering, stream);
        }
        self.embedding_gradient.resize(tokens * hidden);
        self.source_embedding_gradient.resize(tokens * hidden);
        {
            let encoder = &self.encoder;
            let weights = encoder.backward_weights();
            let context = encoder.context(Side::Encoder, pass.direction, Some(stream));
            let tickets = Tickets::new(&mut self.gradient, encoder.layout().blocks.clone());
            // Beside a decoder, the encoder's are those of sources.
            let embedding_gradient = Parts::new(match encoder.shape().decoder {
                true => &mut self.source_embedding_gradient,
                false => &mut self.embedding_gradient,
            });
            encoder.device().pool().each(pass.shards.len(), |turn| {
                let _watch = tickets.watch();
                let shard = shard_of(&pass.batch, &pass.shards[turn]);
                let rows = shard.rows();
                let range = rows.start * hidden..rows.end * hidden;
                let tap = |depth: usize| {
                    entering
                        .get(&depth)
                        .map(|gradient| &gradient[range.clone()])
                };
                let mut scratch = encoder.take_scratch();
                let activations = &pass.activations[turn];
                match &first {
                    None => trunk::start_gradient(tap(depth), range.len(), &mut scratch),
                    Some(first) => trunk::start_read_gradient(
                        activations,
                        &first[shard.sequences.start * hidden..shard.sequences.end * hidden],
                        hidden,
                        &mut scratch,
                    ),
                }
                let backward = Backward {
                    weights,
                    tickets: &tickets,
                    turn,
                    depth,
                    trainable: &self.trainable,
                };
                // Safety: shards do not share rows.
                let embedding = unsafe { embedding_gradient.range(range.clone()) };
                trunk::backward(
                    &context,
                    &shard,
                    activations,
                    &backward,
                    tap,
                    embedding,
                    &mut scratch,
                );
                encoder.return_scratch(scratch);
            });
        }
        self.scatter_embeddings(Side::Encoder, &[&pass.batch]);
        lock(&self.activations).extend(pass.activations);
        Ok(())
    }

    /// States as a variable of rows.
    fn variable(&self, states: Vec<f32>) -> Result<Var> {
        let hidden = self.shape().settings.hidden;
        let rows = states.len() / hidden;
        let states = Tensor::from_vec(states, (rows, hidden), self.device().candle())?;
        Ok(Var::from_tensor(&states)?)
    }

    fn forward_on_card(
        &mut self,
        batch: &Batch,
        direction: Direction,
        (taps, depths, depth): (&[Tap], &[usize], usize),
        stream: Stream,
    ) -> Result<Pass> {
        let encoder = &self.encoder;
        let (Some(card), Some(on_card)) = (encoder.card()?, &mut self.on_card) else {
            anyhow::bail!("the trainer has no card");
        };
        let driver = &card.operations.driver;
        let mut workspace = encoder.take_workspace(card)?;
        let mut activations = on_card.take_activations(encoder.shape());
        let mut on_card = on_card.take_batch();
        on_card.upload(driver, batch, None)?;
        let context = encoder.card_context(card, Side::Encoder, direction, Some(stream), 0);
        let scratch = &mut workspace.scratch;
        cuda::forward(&context, &on_card, None, depth, &mut activations, scratch)?;
        let hidden = encoder.shape().settings.hidden;
        let count = batch.token_count() * hidden;
        let floats = workspace.floats.reserve(4 * count)?;
        let mut variables = BTreeMap::new();
        for (&tap, &depth) in taps.iter().zip(depths) {
            card.operations
                .to_float(activations.states(depth), floats, count)?;
            let mut states = vec![0f32; count];
            cuda::download(&card.operations, floats, &mut states)?;
            if tap == Tap::First {
                let starts = batch.first_tokens().iter();
                states = starts
                    .flat_map(|&start| states[start as usize * hidden..][..hidden].to_vec())
                    .collect();
            }
            variables.insert(tap, self.variable(states)?);
        }
        encoder.return_workspace(workspace);
        Ok(Pass {
            batch: batch.clone(),
            direction,
            shards: Vec::new(),
            activations: Vec::new(),
            on_card: Some((on_card, activations)),
            depth,
            first_only: false,
            number: stream.pass,
            update: self.update,
            taps: variables,
        })
    }

    fn backward_on_card(
        &mut self,
        pass: Pass,
        depth: usize,
        entering: &BTreeMap<usize, Vec<f32>>,
        stream: Stream,
    ) -> Result<()> {
        let encoder = &self.encoder;
        let (Some(card), Some(on_card), Some((mut batch, activations))) =
            (encoder.card()?, &mut self.on_card, pass.on_card)
        else {
            anyhow::bail!("the pass is not of the trainer's card");
        };
        let mut workspace = encoder.take_workspace(card)?;
        let operations = &card.operations;
        let count = pass.batch.token_count() * encoder.shape().settings.hidden;
        // All gradients behind each other.
        let floats = workspace.floats.reserve(4 * count * entering.len())?;
        let mut places = BTreeMap::new();
        for (index, (depth, gradient)) in entering.iter().enumerate() {
            let place = floats + 4 * (index * count) as u64;
            cuda::upload(operations, place, gradient)?;
            places.insert(*depth, place);
        }
        let gradients = Gradients {
            address: on_card.gradient.address(),
            trainable: &self.trainable,
        };
        let scratch = &mut workspace.scratch;
        let start = scratch.gradient(count, operations.element)?;
        if let Some(place) = places.get(&depth) {
            operations.from_float(*place, start, count)?;
        }
        let context = encoder.card_context(card, Side::Encoder, pass.direction, Some(stream), 0);
        cuda::backward(
            &context,
            &batch,
            None,
            depth,
            &activations,
            gradients,
            |depth| places.get(&depth).copied(),
            scratch,
        )?;
        cuda::scatter_embeddings(&context, &pass.batch, &mut batch, gradients, scratch)?;
        on_card.spare.push(activations);
        on_card.spare_batches.push(batch);
        encoder.return_workspace(workspace);
        Ok(())
    }

    /// Candle's backward of a scalar `loss`, then through the trunk for every pass it was computed from, to the head
    /// parameters, and to the parameters lent by [`Trainer::parameter`]. Returns the loss; errs with [`NotFinite`] before
    /// anything is added.
    pub fn backward_loss(&mut self, passes: Vec<Pass>, loss: &Tensor) -> Result<f64> {
        let value = f64::from(loss.to_scalar::<f32>().context("a loss must be one f32")?);
        if !value.is_finite() {
            self.clear_gradients()?;
            return Err(NotFinite {
                update: self.update + 1,
                loss: Some(value),
                gradient_norm: None,
                held_out: false,
            }
            .into());
        }
        let gradients = loss.backward()?;
        self.accumulate_head_gradients(&gradients)?;
        self.accumulate_lent_gradients(&gradients)?;
        for pass in passes {
            let taps: Vec<(Tap, Tensor)> = pass
                .taps
                .iter()
                .filter_map(|(tap, variable)| {
                    Some((*tap, gradients.get(variable.as_tensor())?.clone()))
                })
                .collect();
            if let Err(error) = self.backward(pass, &taps) {
                // Half of a gradient is none.
                let _ = self.clear_gradients();
                return Err(error);
            }
        }
        Ok(value)
    }
}

fn shard_of<'a>(batch: &'a Batch, sequences: &Range<usize>) -> Shard<'a> {
    Shard {
        batch,
        sequences: sequences.clone(),
        tokens_before: 0,
        source: None,
    }
}
