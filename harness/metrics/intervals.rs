//! The statistics: how far a mean over seeds, languages and test items may be from the truth.
//!
//! Test examples come in clusters: XNLI has three hypotheses per premise, and its languages are translations of the
//! same items (Conneau et al. 2018). A premise is therefore left out, or kept, whole and in every language at once.
//!
//! The *item variance* is the delete-one-premise jackknife (Efron and Stein 1981; for accuracy it is the cluster-robust
//! variance of a ratio, Cochran 1977, section 11), which serves any metric of the confusion counts.
//! Differs: the plan was a bootstrap by premise. The jackknife estimates the same standard error
//! (`the_jackknife_agrees_with_a_bootstrap_of_premises`), has no Monte Carlo noise, and adds to the seed variance.
//!
//! Over S seeds, all scored on the same items, the mean has the variance `seed / S + item`. Measured on the same items,
//! the seed variance holds the interaction of seeds and items, and so does the item variance: what the seeds
//! disagree about is taken out of the latter, lest it count twice. The half-width of the interval is
//! `sqrt(t(S - 1)^2 seed / S + t(G - 1)^2 item)` for G premises: each variance with its own quantile (Howe 1974;
//! Graybill and Wang 1980).
//! Differs: one t(S - 1) for the sum covers 98 to 100 % where 95 % is meant, because the items are known far better
//! than the seeds; Satterthwaite's degrees of freedom cover 91 to 95 % with three seeds.
//! What is used covers 95.0 to 97.0 % at 3, 5 and 10 seeds that differ by 1.5 to 6 points (10,000 rounds of the worlds of
//! `tests/statistics.rs`, which measures it).

use std::collections::BTreeMap;
use std::ops::{AddAssign, SubAssign};

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{CHANCE, Confusion, Metric};

/// Share of intervals that are to hold the truth (the custom).
pub const LEVEL: f64 = 0.95;
/// Fewest seeds from which an interval speaks of other seeds (our choice: two give no usable variance).
pub const SEEDS_FOR_AN_INTERVAL: usize = 3;
/// A run that gives one class to more than this share of the examples is collapsed, whatever its accuracy (our choice).
pub const COLLAPSED_SHARE: f64 = 0.95;
/// p-values below are reported as this: the quantiles are not trusted further out, and nothing depends on it.
pub const SMALLEST_P: f64 = 1e-6;

/// A statistic of test items, and how much of it hangs on each premise.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Percent.
    pub value: f64,
    /// Premise, and the value less the value without that premise; sorted by premise.
    pub influence: Vec<(u32, f64)>,
}

/// The variance of a mean in two parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Seeds behind the mean.
    pub seeds: usize,
    /// Variance of the mean that other seeds would bring; `None` below three seeds, when the interval is
    /// about these seeds.
    pub seed_variance: Option<f64>,
    /// Variance of the mean that other test items would bring.
    pub item_variance: f64,
    /// Premises behind the mean.
    pub clusters: usize,
}

/// A metric of clusters (premise, counts), sorted by premise.
pub fn score(metric: Metric, clusters: &[(u32, Confusion)]) -> Score {
    score_of(clusters, |counts| metric.percent(counts))
}

/// As [`score`], of any counts that add up, such as those of sentences that were translated.
pub fn score_of<C>(clusters: &[(u32, C)], percent: impl Fn(&C) -> f64) -> Score
where
    C: Copy + Default + for<'a> AddAssign<&'a C> + for<'a> SubAssign<&'a C>,
{
    let mut total = C::default();
    for (_, counts) in clusters {
        total += counts;
    }
    let value = percent(&total);
    let without = |counts: &C| {
        let mut rest = total;
        rest -= counts;
        value - percent(&rest)
    };
    let influence = clusters
        .iter()
        .map(|(premise, counts)| (*premise, without(counts)))
        .collect();
    Score { value, influence }
}

/// A weighted sum of statistics; premises that a term does not have, do not move it.
pub fn combine(terms: &[(f64, &Score)]) -> Score {
    let value = terms
        .iter()
        .map(|(weight, score)| weight * score.value)
        .sum();
    let Some((_, first)) = terms.first() else {
        return Score {
            value,
            influence: Vec::new(),
        };
    };
    let common: Vec<u32> = first
        .influence
        .iter()
        .map(|(premise, _)| *premise)
        .collect();
    if terms.iter().all(|(_, score)| {
        score
            .influence
            .iter()
            .map(|(premise, _)| premise)
            .eq(&common)
    }) {
        let mut influence: Vec<(u32, f64)> =
            common.into_iter().map(|premise| (premise, 0.0)).collect();
        for (weight, score) in terms {
            for ((_, sum), (_, change)) in influence.iter_mut().zip(&score.influence) {
                *sum += weight * change;
            }
        }
        return Score { value, influence };
    }
    let mut influence: BTreeMap<u32, f64> = BTreeMap::new();
    for (weight, score) in terms {
        for (premise, change) in &score.influence {
            *influence.entry(*premise).or_default() += weight * change;
        }
    }
    Score {
        value,
        influence: influence.into_iter().collect(),
    }
}

/// The mean of statistics of the same premises. Zero of none.
pub fn mean(scores: &[Score]) -> Score {
    let weight = 1.0 / scores.len().max(1) as f64;
    combine(
        &scores
            .iter()
            .map(|score| (weight, score))
            .collect::<Vec<_>>(),
    )
}

/// Jackknife variance: (G - 1) / G times the summed squares of the influences around their mean. Infinite below two
/// premises.
pub fn item_variance(score: &Score) -> f64 {
    let clusters = score.influence.len() as f64;
    if clusters < 2.0 {
        return f64::INFINITY;
    }
    let centre: f64 = score
        .influence
        .iter()
        .map(|(_, change)| change)
        .sum::<f64>()
        / clusters;
    let squares: f64 = score
        .influence
        .iter()
        .map(|(_, change)| (change - centre).powi(2))
        .sum();
    squares * (clusters - 1.0) / clusters
}

/// Mean over seeds, and its spread.
pub fn over_seeds(per_seed: &[Score]) -> (Score, Spread) {
    let seeds = per_seed.len();
    let average = mean(per_seed);
    let mut spread = Spread {
        seeds,
        seed_variance: None,
        item_variance: item_variance(&average),
        clusters: average.influence.len(),
    };
    if seeds >= SEEDS_FOR_AN_INTERVAL {
        let count = seeds as f64;
        let squares: f64 = per_seed
            .iter()
            .map(|score| (score.value - average.value).powi(2))
            .sum();
        spread.seed_variance = Some(squares / (count - 1.0) / count);
        if spread.item_variance.is_finite() {
            let apart: f64 = per_seed
                .iter()
                .map(|score| item_variance(&combine(&[(1.0, score), (-1.0, &average)])))
                .sum();
            let interaction = apart / (count - 1.0) / count;
            spread.item_variance = (spread.item_variance - interaction).max(0.0);
        }
    }
    (average, spread)
}

impl Spread {
    /// Half the width of the interval that leaves out `alpha`, in points.
    pub fn half_width(&self, alpha: f64) -> f64 {
        let seeds = match self.seed_variance {
            Some(variance) => student_t(alpha, self.seeds as f64 - 1.0).powi(2) * variance,
            None => 0.0,
        };
        if self.clusters < 2 {
            return f64::INFINITY;
        }
        (seeds + student_t(alpha, self.clusters as f64 - 1.0).powi(2) * self.item_variance).sqrt()
    }

    /// Two-sided p-value of a mean `distance` away from the hypothesis: the smallest `alpha` whose interval leaves it
    /// out, within [[`SMALLEST_P`], 1].
    pub fn p_value(&self, distance: f64) -> f64 {
        let distance = distance.abs();
        if distance == 0.0 {
            return 1.0;
        }
        if self.half_width(SMALLEST_P) < distance {
            return SMALLEST_P;
        }
        // Bisection in the logarithm: half-widths shrink as alpha grows. Forty halvings of 14 leave 1e-11.
        let (mut low, mut high) = (SMALLEST_P.ln(), 0.0_f64);
        for _ in 0..40 {
            let middle = 0.5 * (low + high);
            if self.half_width(middle.exp()) < distance {
                high = middle;
            } else {
                low = middle;
            }
        }
        high.exp()
    }
}

/// Whether a model may as well be guessing: its accuracy's item interval holds chance, or it nearly always gives the
/// same class. `accuracy` is the run's score, `pooled` its counts.
pub fn collapsed(accuracy: &Score, pooled: &Confusion) -> bool {
    let (_, spread) = over_seeds(std::slice::from_ref(accuracy));
    let at_chance = (accuracy.value - CHANCE).abs() <= spread.half_width(1.0 - LEVEL);
    at_chance || pooled.largest_predicted_share() > COLLAPSED_SHARE
}

/// The quantile that leaves `alpha` / 2 on each side. Infinite without degrees of freedom.
pub fn student_t(alpha: f64, degrees_of_freedom: f64) -> f64 {
    match StudentsT::new(0.0, 1.0, degrees_of_freedom) {
        Ok(distribution) if alpha < 1.0 => distribution.inverse_cdf(1.0 - 0.5 * alpha),
        Ok(_) => 0.0,
        Err(_) => f64::INFINITY,
    }
}

/// Holm's step-down adjustment (1979) of the p-values of one family, in their order.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]).then(a.cmp(&b)));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut so_far = 0.0_f64;
    for (rank, &index) in order.iter().enumerate() {
        let left = (p_values.len() - rank) as f64;
        so_far = so_far.max((p_values[index] * left).min(1.0));
        adjusted[index] = so_far;
    }
    adjusted
}
