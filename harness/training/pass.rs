//! A forward pass that waits for its backward.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, Result};
use candle_core::{Tensor, Var};

use crate::model::trunk::Activations;
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
