//! Steps on a card: gradient and moments lie in its memory, a batch runs whole, and the host waits once, before the update.

use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;

use super::trainer::{Trainer, UpdateReport};
use crate::kernels::adam::{CHUNK, Update};
use crate::kernels::cuda::operations::{Operations, OutOfMemory};
use crate::kernels::cuda::{Driver, Memory};
use crate::model::layout::Side;
use crate::model::trunk::cuda::{
    self, CardActivations, CardBatch, CardModel, CardSource, Gradients,
};
use crate::model::{CardWorkspace, Direction, LanguageModelBatch, LossSum, Model, totals_of};

/// What a card keeps of a training between steps.
pub(super) struct OnCard {
    driver: Arc<dyn Driver>,
    pub gradient: Memory,
    pub first: Memory,
    pub second: Memory,
    /// A double for each chunk of the gradient.
    sums: Memory,
    /// Gradients from heads, on their way to the trunk's.
    incoming: Memory,
    /// Activations and batches that no pass holds: giving memory back would wait for every job on the card.
    pub spare: Vec<CardActivations>,
    pub spare_batches: Vec<CardBatch>,
}

impl OnCard {
    pub fn new(driver: &Arc<dyn Driver>, model: &Model) -> Result<OnCard> {
        let length = model.values().len();
        let zeros = || Memory::zeros(driver, 4 * length);
        Ok(OnCard {
            driver: driver.clone(),
            gradient: zeros()?,
            first: zeros()?,
            second: zeros()?,
            sums: Memory::zeros(driver, 8 * length.div_ceil(CHUNK))?,
            incoming: Memory::new(driver),
            spare: Vec::new(),
            spare_batches: Vec::new(),
        })
    }

    pub fn take_activations(&mut self, shape: &crate::model::Shape) -> CardActivations {
        match self.spare.pop() {
            Some(activations) => activations,
            None => CardActivations::for_training(&self.driver, shape),
        }
    }

    pub fn take_batch(&mut self) -> CardBatch {
        match self.spare_batches.pop() {
            Some(batch) => batch,
            None => CardBatch::new(&self.driver),
        }
    }

    fn at(&self, range: &Range<usize>) -> u64 {
        self.gradient.address() + 4 * range.start as u64
    }

    pub fn clear_gradient(&self, range: &Range<usize>) -> Result<()> {
        // Safety: a range of the layout, for which the buffer was made.
        unsafe { self.driver.clear(self.at(range), 4 * range.len()) }
    }

    pub fn gradient(&self, card: &CardModel, range: &Range<usize>) -> Result<Vec<f32>> {
        let mut values = vec![0f32; range.len()];
        cuda::download(&card.operations, self.at(range), &mut values)?;
        Ok(values)
    }

    pub fn add_gradient(
        &mut self,
        card: &CardModel,
        range: &Range<usize>,
        values: &[f32],
    ) -> Result<()> {
        let from = self.incoming.reserve(4 * values.len())?;
        cuda::upload(&card.operations, from, values)?;
        // Parameters begin on cache lines: up to the next there are zeros.
        let count = values.len().next_multiple_of(4);
        let padding = count - values.len();
        cuda::upload(
            &card.operations,
            from + 4 * values.len() as u64,
            &vec![0.0; padding],
        )?;
        let floats = Operations {
            element: crate::kernels::cuda::Element::F32,
            ..card.operations.clone()
        };
        floats.add_float(from, self.at(range), count)
    }

    /// The moments, for a checkpoint.
    pub fn moments(&self, card: &CardModel) -> Result<[Vec<f32>; 2]> {
        let of = |memory: &Memory| {
            let mut values = vec![0f32; card.length()];
            cuda::download(&card.operations, memory.address(), &mut values)?;
            anyhow::Ok(values)
        };
        Ok([of(&self.first)?, of(&self.second)?])
    }

    pub fn set_moments(&self, card: &CardModel, first: &[f32], second: &[f32]) -> Result<()> {
        cuda::upload(&card.operations, self.first.address(), first)?;
        cuda::upload(&card.operations, self.second.address(), second)
    }
}

impl Trainer {
    /// Forward, backward and update; the loss and the norm are read together.
    pub(super) fn language_model_step_on_card(
        &mut self,
        micro: &[LanguageModelBatch],
        weight: f32,
        targets: usize,
    ) -> Result<(f64, UpdateReport)> {
        for input in micro {
            input.validate(self.shape())?;
        }
        let [nats, correct, squares] = self
            .run_on_card(micro, weight, true)
            .map_err(|error| self.forgotten(error, micro))?;
        let loss = self.checked(LossSum {
            nats,
            targets: targets as u64,
            correct: correct as u64,
        })?;
        let report = self.apply_with(squares, targets as f64)?;
        Ok((loss.mean(), report))
    }

    pub(super) fn accumulate_language_model_on_card(
        &mut self,
        micro: &[LanguageModelBatch],
        weight: f32,
    ) -> Result<LossSum> {
        let targets: usize = micro.iter().map(|input| input.targets.labels.len()).sum();
        let [nats, correct, _] = self
            .run_on_card(micro, weight, false)
            .map_err(|error| self.forgotten(error, micro))?;
        self.checked(LossSum {
            nats,
            targets: targets as u64,
            correct: correct as u64,
        })
    }

    /// After a step that failed half-way: what it has added is forgotten.
    fn forgotten(&mut self, error: anyhow::Error, micro: &[LanguageModelBatch]) -> anyhow::Error {
        // The error that comes back is the one that matters.
        let _ = self.clear_gradients();
        self.advised(error, micro)
    }

    /// Says of a full card how many tokens of a step would fit.
    fn advised(&self, error: anyhow::Error, micro: &[LanguageModelBatch]) -> anyhow::Error {
        let Some(full) = error.downcast_ref::<OutOfMemory>() else {
            return error;
        };
        // Micro-batches come one after the other.
        let largest = micro.iter().max_by_key(|input| input.token_count());
        let (tokens, targets) = largest.map_or((0, 0), |input| {
            (input.token_count(), input.targets.labels.len())
        });
        let predicted = targets as f64 / tokens.max(1) as f64;
        let need = |tokens| {
            let precision = self.encoder.precision();
            self.shape().card_bytes(tokens, predicted, precision) as f64
        };
        let room = (full.all as f64 - need(0)).max(0.0);
        let fit = (tokens as f64 * room / (need(tokens) - need(0)).max(1.0)) as usize;
        let advice = format!(
            "a batch of {tokens} tokens takes about {:.1} GB; alone on the card, about {fit} tokens of such sequences fit",
            need(tokens) / 1e9
        );
        error.context(advice)
    }

    /// Adds the gradients of micro-batches one after the other, then reads the totals: nats, correct labels, and, where asked for,
    /// the sum of squares of the gradient.
    fn run_on_card(
        &mut self,
        micro: &[LanguageModelBatch],
        weight: f32,
        squares: bool,
    ) -> Result<[f64; 3]> {
        let stream = self.next_stream();
        let encoder = &self.encoder;
        let (Some(card), Some(on_card)) = (encoder.card()?, &mut self.on_card) else {
            anyhow::bail!("the trainer has no card");
        };
        let driver = on_card.driver.clone();
        let (depth, shape) = (encoder.shape().settings.layers, encoder.shape());
        let gradients = Gradients {
            address: on_card.gradient.address(),
            trainable: &self.trainable,
        };
        let mut workspace = encoder.take_workspace(card)?;
        let CardWorkspace {
            scratch,
            batch,
            source,
            totals,
            ..
        } = &mut workspace;
        card.operations.clear(totals.address(), 24)?;
        let mut activations = on_card.take_activations(shape);
        let (mut tokens, mut source_tokens) = (0, 0);
        for input in micro {
            let context = |side, direction, first_row| {
                encoder.card_context(card, side, direction, Some(stream), first_row)
            };
            let predicting = context(Side::Decoder, input.direction, tokens);
            let reading = context(Side::Encoder, Direction::Bidirectional, source_tokens);
            let of_source = match &input.source {
                None => None,
                Some(sentences) => {
                    let mut activations = on_card.take_activations(shape);
                    source.upload(&driver, sentences, None)?;
                    cuda::forward(&reading, source, None, depth, &mut activations, scratch)?;
                    Some((sentences, activations))
                }
            };
            batch.upload(&driver, &input.batch, Some(&input.targets))?;
            let read = of_source.as_ref().map(|(_, activations)| CardSource {
                states: activations.states(depth),
                batch: source,
            });
            cuda::forward(&predicting, batch, read, depth, &mut activations, scratch)?;
            cuda::language_model_loss(
                &predicting,
                batch,
                activations.states(depth),
                Some((gradients, weight)),
                totals.address(),
                scratch,
            )?;
            cuda::backward(
                &predicting,
                batch,
                read,
                depth,
                &activations,
                gradients,
                |_| None,
                scratch,
            )?;
            cuda::scatter_embeddings(&predicting, &input.batch, batch, gradients, scratch)?;
            if let Some((sentences, of_source)) = of_source {
                if self.trainable.reach(Side::Encoder).any {
                    scratch.start_source_gradient();
                    cuda::backward(
                        &reading,
                        source,
                        None,
                        depth,
                        &of_source,
                        gradients,
                        |_| None,
                        scratch,
                    )?;
                    cuda::scatter_embeddings(&reading, sentences, source, gradients, scratch)?;
                }
                on_card.spare.push(of_source);
            }
            tokens += input.batch.token_count();
            source_tokens += input
                .source
                .as_ref()
                .map_or(0, |source| source.token_count());
        }
        on_card.spare.push(activations);
        if squares {
            self.clear_frozen_gradients()?;
            self.add_squares_on_card(&workspace)?;
        }
        let Some(card) = self.encoder.card()? else {
            anyhow::bail!("the trainer has no card");
        };
        let totals = totals_of(card, &workspace.totals)?;
        self.encoder.return_workspace(workspace);
        Ok(totals)
    }

    fn add_squares_on_card(&self, workspace: &CardWorkspace) -> Result<()> {
        let (Some(card), Some(on_card)) = (self.encoder.card()?, &self.on_card) else {
            return Ok(());
        };
        card.operations.add_squares(
            on_card.gradient.address(),
            card.length(),
            on_card.sums.address(),
            workspace.totals.address() + 16,
        )
    }

    /// The sum of squares of the trunk's gradient.
    pub(super) fn squares_on_card(&self) -> Result<f64> {
        let Some(card) = self.encoder.card()? else {
            return Ok(0.0);
        };
        let workspace = self.encoder.take_workspace(card)?;
        card.operations.clear(workspace.totals.address(), 24)?;
        self.add_squares_on_card(&workspace)?;
        let [_, _, squares] = totals_of(card, &workspace.totals)?;
        self.encoder.return_workspace(workspace);
        Ok(squares)
    }

    /// One update of the trunk.
    pub(super) fn update_on_card(
        &mut self,
        groups: &[(Range<usize>, u64)],
        numbers: impl Fn(u64) -> Update,
    ) -> Result<()> {
        let (Some(card), Some(on_card)) = (self.encoder.card()?, &self.on_card) else {
            return Ok(());
        };
        for (range, own) in groups {
            let of = |memory: &Memory| memory.address() + 4 * range.start as u64;
            card.operations.adam(
                numbers(*own),
                [
                    card.at(range),
                    of(&on_card.gradient),
                    of(&on_card.first),
                    of(&on_card.second),
                    card.rounded(range),
                ],
                // Behind a parameter there are zeros up to the next cache line.
                range.len().next_multiple_of(4),
            )?;
        }
        self.encoder.changed_on_card();
        Ok(())
    }
}
