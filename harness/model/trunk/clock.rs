//! Where a step's time goes: the time between two operations is a lap, and laps add up by part.

use std::time::{Duration, Instant};

/// What a shard's time is spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Sums of embeddings, their normalisation, and its backward.
    Embeddings,
    /// States times weights, forward and backward.
    Linear,
    /// Scores, softmax and means of values, forward and backward.
    Attention,
    /// Residuals, dropout and normalisation, forward and backward.
    Normalisation,
    /// GELU, forward and backward.
    Activation,
    /// Logits, loss and their gradients.
    Vocabulary,
    /// Gradients of the layers' weights.
    WeightGradients,
    /// Waiting for the shard before to leave a gradient.
    Waiting,
}

impl Part {
    pub const ALL: [Part; 8] = [
        Part::Embeddings,
        Part::Linear,
        Part::Attention,
        Part::Normalisation,
        Part::Activation,
        Part::Vocabulary,
        Part::WeightGradients,
        Part::Waiting,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Part::Embeddings => "embeddings",
            Part::Linear => "linear",
            Part::Attention => "attention",
            Part::Normalisation => "normalisation",
            Part::Activation => "activation",
            Part::Vocabulary => "vocabulary",
            Part::WeightGradients => "weight_gradients",
            Part::Waiting => "waiting",
        }
    }
}

/// A stopwatch with a total for each part. A lap costs one reading of the clock, some thirty nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    since: Option<Instant>,
    totals: [Duration; Part::ALL.len()],
}

impl Clock {
    /// Begins a lap; what came before belongs to no part.
    pub fn start(&mut self) {
        self.since = Some(Instant::now());
    }

    /// Ends a lap and begins the next.
    pub fn lap(&mut self, part: Part) {
        let now = Instant::now();
        if let Some(since) = self.since.replace(now) {
            self.totals[part as usize] += now - since;
        }
    }

    /// The totals in the order of [`Part::ALL`]; they begin anew.
    pub fn take(&mut self) -> [Duration; Part::ALL.len()] {
        std::mem::take(&mut self.totals)
    }
}
