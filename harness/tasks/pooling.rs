//! From the hidden states of a packed batch to one vector per sequence.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Batch, Tap};

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

impl Pooling {
    /// The states that are pooled.
    pub fn tap(self) -> Tap {
        match self {
            Pooling::First => Tap::First,
            Pooling::Mean | Pooling::Max => Tap::Last,
        }
    }
}

/// Pools the states of [`Pooling::tap`] into [sequences, hidden]; differentiable.
pub fn pool(hidden: &Tensor, batch: &Batch, pooling: Pooling) -> Result<Tensor> {
    match pooling {
        Pooling::First => {
            let rows = hidden.dim(0)?;
            ensure!(
                rows == batch.sequences(),
                "{rows} first tokens of {} sequences",
                batch.sequences()
            );
            Ok(hidden.clone())
        }
        Pooling::Mean => {
            // Sums in the order of the tokens, sequence by sequence: a matrix product would let the other sequences of the
            // batch decide the last bit.
            let lengths = || batch.offsets.windows(2).map(|bounds| bounds[1] - bounds[0]);
            let owners = lengths().enumerate();
            let owners: Vec<u32> = owners
                .flat_map(|(sequence, length)| vec![sequence as u32; length as usize])
                .collect();
            let shares: Vec<f32> = lengths().map(|length| 1.0 / length as f32).collect();
            let (sequences, place) = (batch.sequences(), hidden.device());
            let sums = Tensor::zeros((sequences, hidden.dim(1)?), hidden.dtype(), place)?;
            let sums = sums.index_add(&Tensor::new(owners, place)?, hidden, 0)?;
            Ok(sums.broadcast_mul(&Tensor::from_vec(shares, (sequences, 1), place)?)?)
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
        // First tokens come alone: all states are too many.
        assert!(pooled(Pooling::First).is_err());
        let first = hidden.index_select(&Tensor::new(batch.first_tokens(), &Device::Cpu)?, 0)?;
        assert_eq!(
            pool(&first, &batch, Pooling::First)?.to_vec2::<f32>()?,
            [[1., 8.], [-1., -5.]]
        );
        assert_eq!(
            pooled(Pooling::Mean)?,
            [[2., 5.], [-6. * (1. / 3.), -9. * (1. / 3.)]]
        );
        assert_eq!(pooled(Pooling::Max)?, [[3., 8.], [-1., -2.]]);
        Ok(())
    }
}
