//! A model on a card: buffers of a pass, and evaluation.

use std::sync::Arc;

use anyhow::Result;
use candle_core::Tensor;

use super::batch::{Batch, Direction, LanguageModelBatch};
use super::encoder::{Encoder, Tap, lock};
use super::layout::Side;
use super::trunk::Stream;
use super::trunk::cuda::{
    self, CardActivations, CardBatch, CardContext, CardModel, CardScratch, CardSource,
};
use crate::kernels::cuda::{Driver, Memory, bytes_of_mut};
use crate::kernels::vocabulary::LossSum;

/// Doubles that a step adds up on a card: nats, labels with the highest logit, and squares of the gradient.
pub(crate) const TOTALS: usize = 3;

/// Buffers that one pass at a time uses.
pub(crate) struct CardWorkspace {
    pub scratch: CardScratch,
    pub batch: CardBatch,
    pub source: CardBatch,
    pub totals: Memory,
    /// States on their way to or from the host.
    pub floats: Memory,
    evaluation: [CardActivations; 2],
}

impl CardWorkspace {
    pub fn new(driver: &Arc<dyn Driver>) -> Result<CardWorkspace> {
        Ok(CardWorkspace {
            scratch: CardScratch::new(driver),
            batch: CardBatch::new(driver),
            source: CardBatch::new(driver),
            totals: Memory::zeros(driver, 8 * TOTALS)?,
            floats: Memory::new(driver),
            evaluation: [(); 2].map(|()| CardActivations::for_evaluation(driver)),
        })
    }
}

/// Waits, and reads the totals.
pub(crate) fn totals_of(card: &CardModel, totals: &Memory) -> Result<[f64; TOTALS]> {
    let mut values = [0f64; TOTALS];
    // Safety: made for so many.
    unsafe {
        card.operations
            .driver
            .download(totals.address(), bytes_of_mut(&mut values))?;
    }
    Ok(values)
}

impl Encoder {
    /// What a pass through one stack shares; a model without a decoder has the encoder alone.
    pub(crate) fn card_context<'a>(
        &'a self,
        card: &'a CardModel,
        side: Side,
        direction: Direction,
        stream: Option<Stream>,
        first_row: usize,
    ) -> CardContext<'a> {
        let (side, stack) = self.stack(side);
        CardContext {
            model: card,
            shape: self.shape(),
            side,
            stack,
            direction,
            stream,
            first_row: first_row as u64,
        }
    }

    pub(crate) fn take_workspace(&self, card: &CardModel) -> Result<CardWorkspace> {
        match lock(&self.workspaces).pop() {
            Some(workspace) => Ok(workspace),
            None => CardWorkspace::new(&card.operations.driver),
        }
    }

    pub(crate) fn return_workspace(&self, workspace: CardWorkspace) {
        lock(&self.workspaces).push(workspace);
    }

    pub(super) fn predict_on_card(
        &self,
        card: &CardModel,
        batch: &Batch,
        direction: Direction,
        tap: Tap,
    ) -> Result<Tensor> {
        let depth = tap.depth(self.shape())?;
        let mut workspace = self.take_workspace(card)?;
        let driver = &card.operations.driver;
        workspace.batch.upload(driver, batch, None)?;
        let context = self.card_context(card, Side::Encoder, direction, None, 0);
        let [activations, _] = &mut workspace.evaluation;
        let scratch = &mut workspace.scratch;
        cuda::forward(
            &context,
            &workspace.batch,
            None,
            depth,
            activations,
            scratch,
        )?;
        let hidden = self.shape().settings.hidden;
        let count = batch.token_count() * hidden;
        let floats = workspace.floats.reserve(4 * count)?;
        card.operations
            .to_float(activations.states(depth), floats, count)?;
        let mut states = vec![0f32; count];
        cuda::download(&card.operations, floats, &mut states)?;
        self.return_workspace(workspace);
        let place = self.device().candle();
        let states = Tensor::from_vec(states, (batch.token_count(), hidden), place)?;
        match tap {
            Tap::First => Ok(states.index_select(&Tensor::new(batch.first_tokens(), place)?, 0)?),
            _ => Ok(states),
        }
    }

    pub(super) fn loss_on_card(
        &self,
        card: &CardModel,
        input: &LanguageModelBatch,
    ) -> Result<LossSum> {
        let mut workspace = self.take_workspace(card)?;
        let driver = &card.operations.driver;
        let depth = self.shape().settings.layers;
        let CardWorkspace {
            scratch,
            batch,
            source,
            totals,
            evaluation: [activations, of_source],
            ..
        } = &mut workspace;
        card.operations.clear(totals.address(), 8 * TOTALS)?;
        batch.upload(driver, &input.batch, Some(&input.targets))?;
        let read = match &input.source {
            None => None,
            Some(sentences) => {
                source.upload(driver, sentences, None)?;
                let context =
                    self.card_context(card, Side::Encoder, Direction::Bidirectional, None, 0);
                cuda::forward(&context, source, None, depth, of_source, scratch)?;
                Some(CardSource {
                    states: of_source.states(depth),
                    batch: source,
                })
            }
        };
        let side = match read {
            Some(_) => Side::Decoder,
            None => Side::Encoder,
        };
        let context = self.card_context(card, side, input.direction, None, 0);
        cuda::forward(&context, batch, read, depth, activations, scratch)?;
        let states = activations.states(depth);
        cuda::language_model_loss(&context, batch, states, None, totals.address(), scratch)?;
        let [nats, correct, _] = totals_of(card, totals)?;
        let targets = input.targets.labels.len() as u64;
        self.return_workspace(workspace);
        Ok(LossSum {
            nats,
            targets,
            correct: correct as u64,
        })
    }
}
