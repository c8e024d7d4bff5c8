//! Two results side by side: the cells whose difference is more than noise.

use serde::Serialize;

use super::results::Results;
use super::summary::{Estimate, Query, Summary};
use crate::metrics::Metric;
use crate::metrics::intervals::SEEDS_FOR_AN_INTERVAL;

/// Cells of two results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Cells whose difference interval excludes zero, in the order of the first results' manifest.
    pub different: Vec<CellDifference>,
    /// Cells that both have, with a seed in common.
    pub compared: usize,
    /// Cells that could not be compared: the other results lack them, or share no seed.
    pub only_in_first: usize,
    pub only_in_second: usize,
}

/// One cell, accuracy in percent, `first` less `second`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CellDifference {
    pub variant: String,
    pub task: String,
    pub regime: String,
    pub language: String,
    pub selection: String,
    pub first: f64,
    pub second: f64,
    pub difference: f64,
    pub low: f64,
    pub high: f64,
    /// Seeds in common.
    pub seeds: usize,
    /// Fewer seeds than an interval over seeds needs: the interval is about these seeds.
    pub these_seeds: bool,
}

/// Accuracy in every cell (variant, task, regime, language, selection), paired by seed and premise.
pub fn compare(first: &Results, second: &Results) -> Comparison {
    let (ours, theirs) = (Summary::new(first), Summary::new(second));
    let mut comparison = Comparison {
        different: Vec::new(),
        compared: 0,
        only_in_first: 0,
        only_in_second: 0,
    };
    for query in queries(first) {
        let Some(one) = ours.estimate(&query) else {
            continue;
        };
        match (
            theirs.estimate(&query),
            ours.difference_from(&query, &theirs, &query),
        ) {
            (Some(two), Some(difference)) => {
                comparison.compared += 1;
                if difference.low > 0.0 || difference.high < 0.0 {
                    comparison
                        .different
                        .push(cell_difference(&query, &one, &two, &difference));
                }
            }
            _ => comparison.only_in_first += 1,
        }
    }
    comparison.only_in_second = queries(second)
        .iter()
        .filter(|query| {
            theirs.estimate(query).is_some()
                && theirs.difference_from(query, &ours, query).is_none()
        })
        .count();
    comparison
}

/// Every single-language cell that the manifest asks for.
fn queries(results: &Results) -> Vec<Query<'_>> {
    let manifest = &results.manifest;
    let mut queries = Vec::new();
    for variant in &manifest.variants {
        for evaluation in &manifest.evaluations {
            for language in &evaluation.languages {
                queries.extend(manifest.selections.iter().map(|selection| Query {
                    variant: &variant.name,
                    task: &evaluation.task,
                    regime: &evaluation.regime,
                    language,
                    selection,
                    metric: Metric::Accuracy,
                }));
            }
        }
    }
    queries
}

fn cell_difference(
    query: &Query,
    first: &Estimate,
    second: &Estimate,
    difference: &Estimate,
) -> CellDifference {
    CellDifference {
        variant: query.variant.to_owned(),
        task: query.task.to_owned(),
        regime: query.regime.to_owned(),
        language: query.language.to_owned(),
        selection: query.selection.to_owned(),
        first: first.mean,
        second: second.mean,
        difference: difference.mean,
        low: difference.low,
        high: difference.high,
        seeds: difference.seeds,
        these_seeds: difference.seeds < SEEDS_FOR_AN_INTERVAL,
    }
}
