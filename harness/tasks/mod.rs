//! What a fine-tuned model does. One file per task; heads are ordinary candle on top of the trunk.

pub mod baselines;
pub mod pair_classification;
pub mod pooling;
