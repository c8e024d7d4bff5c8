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
use crate::model::trunk::{self, Activations, Backward, Shard, Stream};
use crate::model::{Batch, Direction, Tap};

/// The activations of one batch in training mode. Several may live at once; dropping one forgets it.
pub struct Pass {
    pub(super) batch: Batch,
    pub(super) direction: Direction,
    pub(super) shards: Vec<Range<usize>>,
    pub(super) activations: Vec<Activations>,
    /// Layers run.
    pub(super) depth: usize,
    /// The pass's number within its update, and the updates before it.
    pub(super) number: u32,
    pub(super) update: u64,
    pub(super) taps: BTreeMap<Tap, Var>,
}

impl Pass {
    /// The states at a tap, [tokens, hidden], in the order of the batch: a candle variable, so that the loss's
    /// gradient reaches it.
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
        let shards = partition(&batch.offsets, shard_tokens(batch.token_count()));
        let stream = self.next_stream();
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
        let context = self.encoder.context(Side::Encoder, direction, Some(stream));
        let parts = Parts::new(&mut activations);
        self.device().pool().each(shards.len(), |index| {
            let shard = Shard {
                batch,
                sequences: shards[index].clone(),
                tokens_before: 0,
                source: None,
            };
            let mut scratch = self.encoder.take_scratch();
            // Safety: each shard has its own activations.
            let own = unsafe { parts.range(index..index + 1) };
            trunk::forward(&context, &shard, depth, &mut own[0], &mut scratch);
            self.encoder.return_scratch(scratch);
        });
        let hidden = self.shape().settings.hidden;
        let mut variables = BTreeMap::new();
        for (&tap, &depth) in taps.iter().zip(&depths) {
            let mut states = Vec::with_capacity(batch.token_count() * hidden);
            activations
                .iter()
                .for_each(|shard| states.extend_from_slice(shard.states(depth)));
            let states = Tensor::from_vec(
                states,
                (batch.token_count(), hidden),
                self.device().candle(),
            )?;
            variables.insert(tap, Var::from_tensor(&states)?);
        }
        Ok(Pass {
            batch: batch.clone(),
            direction,
            shards,
            activations,
            depth,
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
        for (tap, gradient) in gradients {
            let depth = tap.depth(self.shape())?;
            ensure!(
                depth <= pass.depth,
                "the pass ran {} layers; {tap:?} lies behind them",
                pass.depth
            );
            let values = values_of(gradient, &[tokens, hidden])
                .with_context(|| format!("the gradient at {tap:?}"))?;
            match entering.entry(depth) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(values);
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    vectorised(AddInto {
                        target: entry.get_mut(),
                        source: &values,
                    });
                }
            }
        }
        // Layers above the highest gradient have none.
        let Some(depth) = entering.keys().copied().max() else {
            return Ok(());
        };
        self.embedding_gradient.resize(tokens * hidden);
        self.source_embedding_gradient.resize(tokens * hidden);
        let stream = Stream {
            key: self.stream_key,
            step: pass.update,
            pass: pass.number,
        };
        {
            let encoder = &self.encoder;
            let weights = encoder.backward_weights();
            let context = encoder.context(Side::Encoder, pass.direction, Some(stream));
            let tickets = Tickets::new(&mut self.gradient, encoder.model().layout().blocks.clone());
            // Beside a decoder, the encoder's are those of sources.
            let embedding_gradient = Parts::new(match encoder.shape().decoder {
                true => &mut self.source_embedding_gradient,
                false => &mut self.embedding_gradient,
            });
            encoder.device().pool().each(pass.shards.len(), |turn| {
                let _watch = tickets.watch();
                let shard = Shard {
                    batch: &pass.batch,
                    sequences: pass.shards[turn].clone(),
                    tokens_before: 0,
                    source: None,
                };
                let rows = shard.rows();
                let range = rows.start * hidden..rows.end * hidden;
                let tap = |depth: usize| {
                    entering
                        .get(&depth)
                        .map(|gradient| &gradient[range.clone()])
                };
                let mut scratch = encoder.take_scratch();
                trunk::start_gradient(tap(depth), range.len(), &mut scratch);
                let backward = Backward {
                    weights,
                    tickets: &tickets,
                    turn,
                    depth,
                    trainable: &self.trainable,
                };
                // Safety: shards do not share rows.
                let embedding = unsafe { embedding_gradient.range(range.clone()) };
                let activations = &pass.activations[turn];
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

    /// Candle's backward of a scalar `loss`, then through the trunk for every pass it was computed from, to the head
    /// parameters, and to the parameters lent by [`Trainer::parameter`]. Returns the loss; errs with [`NotFinite`] before
    /// anything is added.
    pub fn backward_loss(&mut self, passes: Vec<Pass>, loss: &Tensor) -> Result<f64> {
        let value = f64::from(loss.to_scalar::<f32>().context("a loss must be one f32")?);
        if !value.is_finite() {
            self.clear_gradients();
            return Err(NotFinite {
                update: self.update + 1,
                loss: Some(value),
                gradient_norm: None,
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
            self.backward(pass, &taps)?;
        }
        Ok(value)
    }
}
