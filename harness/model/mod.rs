//! The transformer of XLM (Lample and Conneau 2019): settings, parameters, and the trunk that runs packed batches.
//!
//! ```text
//! settings -> layout (named ranges of one buffer) -> parameters
//! batch -> shards (whole sequences) -> trunk: forward and backward of one shard
//! encoder: a model on a device; evaluation by many threads
//! generation: translations, token by token
//! ```

pub mod batch;
pub mod encoder;
pub mod generation;
pub mod layout;
mod on_card;
pub mod parameters;
pub mod settings;
pub mod shards;
pub mod tickets;
pub mod trainable;
pub mod trunk;
pub mod weights;

pub use batch::{Batch, Direction, LanguageModelBatch, Targets};
pub use encoder::{Encoder, Tap};
pub use generation::{Hypothesis, Search};
pub(crate) use on_card::{CardWorkspace, totals_of};
pub use parameters::Model;
pub use settings::{ModelSettings, Shape};

pub use crate::kernels::vocabulary::LossSum;
