//! Hiding tokens: which are predicted, and what stands in their place (Devlin et al. 2019; XLM's trainer.py, mask_out).

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::tokenizer::{FIRST_WORD, MASK};
use crate::model::{Batch, Targets};
use crate::random::Random;

/// Of the predicted tokens, the share replaced by the mask, and the share left as it is; the rest is random (BERT).
const MASKED: f64 = 0.8;
const KEPT: f64 = 0.1;
/// Held-out text is hidden alike for all seeds (XLM: RandomState(0), evaluator.py).
const VALIDATION_SEED: u64 = 0;

/// Which tokens of a batch are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PositionSampling {
    /// All alike, `</s>` too (the commands of XLM's README).
    Uniform,
    /// Weight count^-exponent, so that frequent tokens are predicted less often; special tokens never (XLM's paper; there
    /// the exponent is 0.5, issue 3 of its repository).
    CountPower {
        /// 0.5 in XLM's paper.
        exponent: f64,
    },
}

/// How an objective hides tokens.
#[derive(Debug, Clone)]
pub struct Masking {
    rate: f64,
    /// Weight of each id; `None` when all are alike.
    weights: Option<Vec<f64>>,
    vocabulary: u64,
}

impl Masking {
    /// `counts` by id, for the whole vocabulary.
    pub fn new(rate: f64, sampling: PositionSampling, counts: &[u64]) -> Self {
        let weight = |id: usize, count: u64, exponent: f64| {
            if id < FIRST_WORD as usize {
                0.0
            } else {
                (count.max(1) as f64).powf(-exponent)
            }
        };
        let weights = match sampling {
            PositionSampling::Uniform => None,
            PositionSampling::CountPower { exponent } => Some(
                counts
                    .iter()
                    .enumerate()
                    .map(|(id, count)| weight(id, *count, exponent))
                    .collect(),
            ),
        };
        Self {
            rate,
            weights,
            vocabulary: counts.len() as u64,
        }
    }

    /// Hides ceil(rate * tokens) tokens of some sequences of a batch, drawn without replacement. The first token of a
    /// sequence is never predicted. Of the hidden, 80 % become the mask, 10 % stay, 10 % become any id of the vocabulary.
    ///
    /// Differs: XLM also draws first tokens and then leaves them out, and with uniform sampling it draws every token by
    /// itself, so that its number of targets varies.
    pub fn hide(
        &self,
        batch: &mut Batch,
        sequences: Range<usize>,
        random: &mut Random,
        targets: &mut Targets,
    ) {
        let chosen = choose(batch, sequences, self.rate, self.weights.as_deref(), random);
        for row in chosen {
            let token = batch.tokens[row];
            targets.indices.push(row as u32);
            targets.labels.push(token);
            let draw = random.uniform();
            if draw < MASKED {
                batch.tokens[row] = MASK;
            } else if draw >= MASKED + KEPT {
                batch.tokens[row] = random.below(self.vocabulary) as u32;
            }
        }
    }

    /// Hides tokens of held-out text: uniformly chosen, all behind the mask (XLM: evaluator.py). `number` is the batch's
    /// place among its language's.
    pub fn hide_held_out(&self, batch: &mut Batch, number: u64, targets: &mut Targets) {
        let mut random = Random::new(VALIDATION_SEED, "masks of held-out text", number);
        let sequences = 0..batch.sequences();
        for row in choose(batch, sequences, self.rate, None, &mut random) {
            targets.indices.push(row as u32);
            targets
                .labels
                .push(std::mem::replace(&mut batch.tokens[row], MASK));
        }
    }
}

/// Rows of ceil(rate * tokens) tokens, ascending. Every candidate waits an exponential time with its weight as rate, and
/// the first to come are chosen: successive draws without replacement (Efraimidis and Spirakis 2006).
fn choose(
    batch: &Batch,
    sequences: Range<usize>,
    rate: f64,
    weights: Option<&[f64]>,
    random: &mut Random,
) -> Vec<usize> {
    let mut waiting = Vec::new();
    let mut tokens = 0;
    for sequence in sequences {
        let (start, end) = (
            batch.offsets[sequence] as usize,
            batch.offsets[sequence + 1] as usize,
        );
        tokens += end - start;
        for row in start + 1..end {
            let token = batch.tokens[row] as usize;
            let weight = weights.map_or(1.0, |weights| weights.get(token).copied().unwrap_or(0.0));
            let time = -(1.0 - random.uniform()).ln();
            if weight > 0.0 {
                waiting.push((time / weight, row));
            }
        }
    }
    let wanted = ((rate * tokens as f64).ceil() as usize).min(waiting.len());
    if wanted < waiting.len() {
        waiting.select_nth_unstable_by(wanted, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        waiting.truncate(wanted);
    }
    let mut rows: Vec<usize> = waiting.into_iter().map(|(_, row)| row).collect();
    rows.sort_unstable();
    rows
}
