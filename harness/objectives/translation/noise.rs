//! A noisy copy of a sentence: shuffled, some tokens dropped, some blanked, in this order (Lample et al. 2018; XLM's
//! trainer.py, add_noise).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::tokenizer::MASK;
use crate::problem::Problem;
use crate::random::Random;

/// What is done to the copy of a sentence that is to be restored.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Noise {
    /// Tokens are sorted by position + U(0, shuffle), so that none moves as far as this; 0 or 1 shuffles nothing. XLM: 3.
    pub shuffle: f64,
    /// Probability that a token is left out; one stays. XLM: 0.1.
    pub drop: f64,
    /// Probability that a token is hidden behind the mask. XLM: 0.1.
    pub blank: f64,
}

impl Default for Noise {
    fn default() -> Self {
        Self {
            shuffle: 3.0,
            drop: 0.1,
            blank: 0.1,
        }
    }
}

impl Noise {
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(0.0..=1000.0).contains(&self.shuffle) {
            problems.push(Problem::new(
                "noise.shuffle",
                format!("a shuffle of {}", self.shuffle),
                "choose between 0 and 1000, such as 3",
            ));
        }
        for (field, value) in [("noise.drop", self.drop), ("noise.blank", self.blank)] {
            if !(0.0..1.0).contains(&value) {
                problems.push(Problem::new(
                    field,
                    format!("a probability of {value}"),
                    "choose from 0 to below 1, such as 0.1",
                ));
            }
        }
        problems
    }

    /// The noisy copy of a sentence without its ends. One token at least is left of one or more.
    pub fn apply(&self, sentence: &[u32], random: &mut Random) -> Vec<u32> {
        // sigma(i) = rank of i + U(0, shuffle): Lample et al. 2018, section 2.3.
        let mut moved: Vec<(f64, u32)> = sentence
            .iter()
            .enumerate()
            .map(|(position, token)| (position as f64 + self.shuffle * random.uniform(), *token))
            .collect();
        if self.shuffle > 1.0 {
            moved.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        let mut kept: Vec<u32> = Vec::with_capacity(sentence.len());
        for (_, token) in &moved {
            if random.uniform() >= self.drop {
                kept.push(*token);
            }
        }
        if kept.is_empty() && !moved.is_empty() {
            kept.push(moved[random.below(moved.len() as u64) as usize].1);
        }
        for token in &mut kept {
            if random.uniform() < self.blank {
                *token = MASK;
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_moves_tokens_less_far_than_its_shuffle_and_drops_and_blanks_at_its_rates() {
        let sentence: Vec<u32> = (100..120).collect();
        let shuffled = Noise {
            drop: 0.0,
            blank: 0.0,
            ..Noise::default()
        };
        let (mut moved, mut left, mut blank) = (0, 0, 0);
        for seed in 0..2000 {
            let mut random = Random::new(seed, "noise", 0);
            let mut copy = shuffled.apply(&sentence, &mut random);
            for (place, token) in copy.iter().enumerate() {
                let distance = (place as i64 - i64::from(token - 100)).abs();
                assert!(distance < 3, "{copy:?}");
                moved += usize::from(distance > 0);
            }
            copy.sort_unstable();
            assert_eq!(copy, sentence);
            let noisy = Noise::default().apply(&sentence, &mut random);
            left += noisy.len();
            blank += noisy.iter().filter(|token| **token == MASK).count();
        }
        assert!(moved > 10_000, "{moved}");
        let (left, blank) = (left as f64 / 40_000.0, blank as f64 / left as f64);
        assert!(
            (left - 0.9).abs() < 0.01 && (blank - 0.1).abs() < 0.01,
            "{left} {blank}"
        );
        let harsh = Noise {
            drop: 0.99,
            ..Noise::default()
        };
        for seed in 0..200 {
            let noisy = harsh.apply(&sentence[..2], &mut Random::new(seed, "noise", 0));
            assert!(!noisy.is_empty());
        }
        assert!(harsh.apply(&[], &mut Random::new(0, "noise", 0)).is_empty());
    }
}
