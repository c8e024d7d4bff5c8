//! The counts of one cell by cluster (premise, sentence or pair of words), whatever is counted.

use std::collections::BTreeMap;

use crate::metrics::bleu::Smoothing;
use crate::metrics::intervals::{self, Score};
use crate::metrics::{Confusion, Measurement, Metric, Moments, TranslationCounts, ranked};
use crate::report::scores::ItemPrediction;

/// Sorted by premise, sentence or pair.
#[derive(Debug, Clone, PartialEq)]
pub enum Clusters {
    Classes(Vec<(u32, Confusion)>),
    Translations(Vec<(u32, TranslationCounts)>, Smoothing),
    /// An item each; those of a cluster stand together.
    Measurements(Vec<(u32, Measurement)>),
}

impl Clusters {
    pub fn of_classes(items: &[ItemPrediction]) -> Self {
        let mut clusters: BTreeMap<u32, Confusion> = BTreeMap::new();
        for item in items {
            clusters
                .entry(item.premise)
                .or_default()
                .add(item.gold, item.predicted);
        }
        Self::Classes(clusters.into_iter().collect())
    }

    pub fn of_translations(sentences: &[TranslationCounts], smoothing: Smoothing) -> Self {
        let numbered = sentences.iter().zip(0..);
        Self::Translations(
            numbered.map(|(counts, number)| (number, *counts)).collect(),
            smoothing,
        )
    }

    pub fn of_measurements(items: &[(u32, Measurement)]) -> Self {
        let mut items = items.to_vec();
        items.sort_by_key(|(cluster, _)| *cluster);
        Self::Measurements(items)
    }

    /// The score of all clusters; 0 where the metric is of something else than is counted.
    pub fn score(&self, metric: Metric) -> Score {
        match self {
            Self::Classes(clusters) => intervals::score(metric, clusters),
            Self::Translations(clusters, smoothing) => {
                let percent =
                    |counts: &TranslationCounts| counts.percent(metric, *smoothing).unwrap_or(0.0);
                intervals::score_of(clusters, percent)
            }
            Self::Measurements(items) => {
                // Ranks are those of all items, also where one is left out.
                let ranked = (metric == Metric::Spearman).then(|| ranked(items));
                let items = ranked.as_ref().unwrap_or(items);
                let mut clusters: Vec<(u32, Moments)> = Vec::new();
                for (number, item) in items {
                    match clusters.last_mut().filter(|(last, _)| last == number) {
                        Some((_, sums)) => *sums += &item.into(),
                        None => clusters.push((*number, item.into())),
                    }
                }
                intervals::score_of(&clusters, |sums| sums.value(metric).unwrap_or(0.0))
            }
        }
    }

    /// Numbers of the clusters, ascending.
    pub fn numbers(&self) -> Vec<u32> {
        match self {
            Self::Classes(clusters) => clusters.iter().map(|(number, _)| *number).collect(),
            Self::Translations(clusters, _) => clusters.iter().map(|(number, _)| *number).collect(),
            Self::Measurements(items) => {
                let mut numbers: Vec<u32> = items.iter().map(|(number, _)| *number).collect();
                numbers.dedup();
                numbers
            }
        }
    }

    /// Those whose number is among some that are sorted.
    pub fn among(&self, numbers: &[u32]) -> Self {
        let keep = |number: &u32| numbers.binary_search(number).is_ok();
        match self {
            Self::Classes(clusters) => Self::Classes(
                clusters
                    .iter()
                    .filter(|(number, _)| keep(number))
                    .copied()
                    .collect(),
            ),
            Self::Translations(clusters, smoothing) => Self::Translations(
                clusters
                    .iter()
                    .filter(|(number, _)| keep(number))
                    .copied()
                    .collect(),
                *smoothing,
            ),
            Self::Measurements(items) => Self::Measurements(
                items
                    .iter()
                    .filter(|(number, _)| keep(number))
                    .copied()
                    .collect(),
            ),
        }
    }

    /// Test items.
    pub fn items(&self) -> usize {
        match self {
            Self::Classes(_) => self.confusion().map_or(0, |counts| counts.total() as usize),
            Self::Translations(clusters, _) => clusters.len(),
            Self::Measurements(items) => items.len(),
        }
    }

    /// Sums of classes, where classes are what is counted.
    pub fn confusion(&self) -> Option<Confusion> {
        let Self::Classes(clusters) = self else {
            return None;
        };
        let mut total = Confusion::default();
        for (_, counts) in clusters {
            total += counts;
        }
        Some(total)
    }
}
