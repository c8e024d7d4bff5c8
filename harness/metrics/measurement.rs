//! What is measured of pretrained models as they are: items with numbers, sums of which give perplexity, mean likeness and
//! correlation.

use std::ops::{AddAssign, SubAssign};

use serde::{Deserialize, Serialize};

use super::Metric;

/// The numbers of one item.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Measurement {
    /// A held-out sentence.
    Text {
        /// Negative log-likelihood, nats.
        loss: f64,
        /// What it is divided by: tokens, words or characters.
        units: u64,
    },
    /// A word and its translation.
    Pair {
        cosine: f64,
        /// Euclidean.
        distance: f64,
        /// Cosine of the word with the translation of another.
        cosine_of_others: f64,
    },
    /// Two words that people have rated.
    Rated { cosine: f64, rating: f64 },
}

/// Sums over items.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moments {
    items: f64,
    x: f64,
    y: f64,
    z: f64,
    xx: f64,
    yy: f64,
    xy: f64,
}

impl Moments {
    fn of(x: f64, y: f64, z: f64) -> Self {
        Self {
            items: 1.0,
            x,
            y,
            z,
            xx: x * x,
            yy: y * y,
            xy: x * y,
        }
    }

    /// A metric of the items that were summed; `None` for a metric of something else. Zero where it is not defined: without items,
    /// or of numbers that do not differ.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        let mean = |sum: f64| {
            if self.items > 0.0 {
                sum / self.items
            } else {
                0.0
            }
        };
        match metric {
            // exp of the mean negative log-likelihood.
            Metric::Perplexity if self.y > 0.0 => Some((self.x / self.y).exp()),
            Metric::Perplexity => Some(0.0),
            Metric::Cosine => Some(mean(self.x)),
            Metric::Distance => Some(mean(self.y)),
            Metric::CosineOfOthers => Some(mean(self.z)),
            // Spearman's is Pearson's of ranks: see `ranked`.
            Metric::Pearson | Metric::Spearman => {
                let covariance = self.items * self.xy - self.x * self.y;
                let spread = |squares: f64, sum: f64| self.items * squares - sum * sum;
                let scale = (spread(self.xx, self.x) * spread(self.yy, self.y)).sqrt();
                Some(if scale > 0.0 { covariance / scale } else { 0.0 })
            }
            _ => None,
        }
    }
}

impl From<&Measurement> for Moments {
    fn from(measurement: &Measurement) -> Self {
        match *measurement {
            Measurement::Text { loss, units } => Self::of(loss, units as f64, 0.0),
            Measurement::Pair {
                cosine,
                distance,
                cosine_of_others,
            } => Self::of(cosine, distance, cosine_of_others),
            Measurement::Rated { cosine, rating } => Self::of(cosine, rating, 0.0),
        }
    }
}

/// Rated words with ranks in place of their numbers, equal ones sharing their mean rank (Spearman 1904; as `scipy.stats.spearmanr`).
pub fn ranked(items: &[(u32, Measurement)]) -> Vec<(u32, Measurement)> {
    let numbers = |of: fn(&Measurement) -> f64| -> Vec<f64> {
        items
            .iter()
            .map(|(_, measurement)| of(measurement))
            .collect()
    };
    let cosines = ranks(&numbers(|measurement| match measurement {
        Measurement::Rated { cosine, .. } => *cosine,
        _ => 0.0,
    }));
    let ratings = ranks(&numbers(|measurement| match measurement {
        Measurement::Rated { rating, .. } => *rating,
        _ => 0.0,
    }));
    let ranked = items.iter().zip(cosines.into_iter().zip(ratings));
    ranked
        .map(|((number, _), (cosine, rating))| (*number, Measurement::Rated { cosine, rating }))
        .collect()
}

/// Ranks from 1.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let value = values[order[start]];
        let equal = order[start..]
            .iter()
            .take_while(|&&item| values[item] == value)
            .count()
            .max(1);
        // Ranks start + 1 to start + equal.
        let rank = start as f64 + (equal as f64 + 1.0) / 2.0;
        for &item in &order[start..start + equal] {
            ranks[item] = rank;
        }
        start += equal;
    }
    ranks
}

impl Moments {
    fn numbers(&mut self) -> [&mut f64; 7] {
        let Self {
            items,
            x,
            y,
            z,
            xx,
            yy,
            xy,
        } = self;
        [items, x, y, z, xx, yy, xy]
    }
}

impl AddAssign<&Moments> for Moments {
    fn add_assign(&mut self, other: &Moments) {
        let mut other = *other;
        for (own, other) in self.numbers().into_iter().zip(other.numbers()) {
            *own += *other;
        }
    }
}

/// Of a sum, a part that is in it.
impl SubAssign<&Moments> for Moments {
    fn sub_assign(&mut self, other: &Moments) {
        let mut other = *other;
        for (own, other) in self.numbers().into_iter().zip(other.numbers()) {
            *own -= *other;
        }
    }
}
