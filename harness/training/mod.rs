//! Training: the optimizer's settings, the trainer with its passes and heads, exact resume, and measurements.
//!
//! A language-modelling step runs forward, loss and backward shard by shard; anything else is a head in candle on
//! top of taps: [`Trainer::forward`] -> loss -> [`Trainer::backward_loss`] -> [`Trainer::apply`].

mod cuda;
mod heads;
mod measure;
mod pass;
pub mod selftest;
mod settings;
mod state;
mod trainer;

pub use measure::{Measurement, Step, Workload, computed_share, measure, measure_steps};
pub use pass::Pass;
pub use settings::{AdamSettings, Schedule};
pub use trainer::{NotFinite, StepReport, Trainer, UpdateReport};
