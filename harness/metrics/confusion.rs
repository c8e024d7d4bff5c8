//! Counts of (gold, predicted) classes: the sufficient statistics of every metric here.

use std::ops::{AddAssign, SubAssign};

/// Contradiction, neutral, entailment.
pub const CLASSES: usize = 3;
/// In the order of the class numbers.
pub const CLASS_NAMES: [&str; CLASSES] = ["contradiction", "neutral", "entailment"];

/// How often each gold class (row) was predicted as each class (column).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Confusion {
    counts: [[u64; CLASSES]; CLASSES],
}

impl Confusion {
    /// From pairs (gold, predicted). Classes beyond the third are a caller's bug: files are checked when read.
    pub fn of(pairs: impl IntoIterator<Item = (u8, u8)>) -> Self {
        let mut confusion = Self::default();
        for (gold, predicted) in pairs {
            confusion.add(gold, predicted);
        }
        confusion
    }

    pub fn add(&mut self, gold: u8, predicted: u8) {
        self.counts[usize::from(gold)][usize::from(predicted)] += 1;
    }

    pub fn total(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    pub fn correct(&self) -> u64 {
        (0..CLASSES).map(|class| self.counts[class][class]).sum()
    }

    /// How many examples are of class `class`.
    pub fn gold(&self, class: usize) -> u64 {
        self.counts[class].iter().sum()
    }

    /// How many examples were predicted as `class`.
    pub fn predicted(&self, class: usize) -> u64 {
        self.counts.iter().map(|row| row[class]).sum()
    }

    pub fn count(&self, gold: usize, predicted: usize) -> u64 {
        self.counts[gold][predicted]
    }

    /// `confusion_neutral_entailment` (gold, predicted) and its count, gold first.
    pub fn named_counts(&self) -> Vec<(String, u64)> {
        let mut named = Vec::with_capacity(CLASSES * CLASSES);
        for (gold, row) in self.counts.iter().enumerate() {
            for (predicted, &count) in row.iter().enumerate() {
                let name = format!("confusion_{}_{}", CLASS_NAMES[gold], CLASS_NAMES[predicted]);
                named.push((name, count));
            }
        }
        named
    }

    /// The largest share of predictions that one class takes, 0-1; zero when there are no examples.
    pub fn largest_predicted_share(&self) -> f64 {
        let largest = (0..CLASSES)
            .map(|class| self.predicted(class))
            .max()
            .unwrap_or(0);
        ratio(largest, self.total())
    }
}

impl AddAssign<&Confusion> for Confusion {
    fn add_assign(&mut self, other: &Self) {
        for (row, others) in self.counts.iter_mut().zip(&other.counts) {
            for (count, other) in row.iter_mut().zip(others) {
                *count += other;
            }
        }
    }
}

/// Panics on underflow: only counts that were added may be taken away.
impl SubAssign<&Confusion> for Confusion {
    fn sub_assign(&mut self, other: &Self) {
        for (row, others) in self.counts.iter_mut().zip(&other.counts) {
            for (count, other) in row.iter_mut().zip(others) {
                *count -= other;
            }
        }
    }
}

/// `numerator / denominator`, zero when both are (scikit-learn's `zero_division=0`).
pub(super) fn ratio(numerator: u64, denominator: u64) -> f64 {
    if denominator == 0 {
        0.0
    } else {
        numerator as f64 / denominator as f64
    }
}
