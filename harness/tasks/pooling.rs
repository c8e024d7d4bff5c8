//! From the hidden states of a packed batch to one vector per sequence.

use anyhow::Result;
use candle_core::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Batch;

/// How a sequence of hidden states becomes one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The hidden state of the first token (XLM).
    First,
    /// The mean over tokens.
    Mean,
    /// The largest value of each feature over tokens; steadier than `first` for tiny models.
    Max,
}

/// Pools `hidden` [tokens, hidden] into [sequences, hidden]; differentiable.
pub fn pool(hidden: &Tensor, batch: &Batch, pooling: Pooling) -> Result<Tensor> {
    match pooling {
        Pooling::First => {
            let first = &batch.offsets[..batch.sequences()];
            Ok(hidden.index_select(&Tensor::new(first, hidden.device())?, 0)?)
        }
        Pooling::Mean => {
            let (sequences, tokens) = (batch.sequences(), batch.token_count());
            let mut weights = vec![0f32; sequences * tokens];
            for (sequence, bounds) in batch.offsets.windows(2).enumerate() {
                let (start, end) = (bounds[0] as usize, bounds[1] as usize);
                weights[sequence * tokens + start..sequence * tokens + end]
                    .fill(1.0 / (end - start) as f32);
            }
            Ok(Tensor::from_vec(weights, (sequences, tokens), hidden.device())?.matmul(hidden)?)
        }
        Pooling::Max => {
            let features = hidden.dim(1)?;
            let largest = largest_positions(
                &hidden.flatten_all()?.to_device(&Device::Cpu)?.to_vec1()?,
                batch,
                features,
            );
            let index = Tensor::new(largest, hidden.device())?;
            Ok(hidden
                .flatten_all()?
                .gather(&index, 0)?
                .reshape((batch.sequences(), features))?)
        }
    }
}

/// For each sequence and feature, the flat index of its largest value; the first among equals.
fn largest_positions(hidden: &[f32], batch: &Batch, features: usize) -> Vec<u32> {
    let mut largest = Vec::with_capacity(batch.sequences() * features);
    for bounds in batch.offsets.windows(2) {
        let rows = bounds[0] as usize..bounds[1] as usize;
        let start = largest.len();
        largest.extend((0..features).map(|feature| (rows.start * features + feature) as u32));
        for row in rows.skip(1) {
            for (feature, best) in largest[start..].iter_mut().enumerate() {
                let candidate = row * features + feature;
                if hidden[candidate] > hidden[*best as usize] {
                    *best = candidate as u32;
                }
            }
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pooling_reads_its_own_sequence_only() -> Result<()> {
        let mut batch = Batch::new();
        batch.push(&[1, 4], 0);
        batch.push(&[1, 4, 5], 0);
        let hidden = Tensor::new(
            &[[1f32, 8.], [3., 2.], [-1., -5.], [-4., -2.], [-1., -2.]],
            &Device::Cpu,
        )?;
        let pooled = |pooling| {
            pool(&hidden, &batch, pooling)?
                .to_vec2::<f32>()
                .map_err(anyhow::Error::from)
        };
        assert_eq!(pooled(Pooling::First)?, [[1., 8.], [-1., -5.]]);
        assert_eq!(pooled(Pooling::Mean)?, [[2., 5.], [-2., -3.]]);
        assert_eq!(pooled(Pooling::Max)?, [[3., 8.], [-1., -2.]]);
        Ok(())
    }
}
