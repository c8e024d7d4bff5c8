//! Two results side by side: the cells whose difference is more than noise.

use std::collections::BTreeMap;

use serde::Serialize;

use super::results::Results;
use super::scores::CellPredictions;
use super::summary::{Estimate, Query, Summary};
use crate::metrics::chrf::ORDERS;
use crate::metrics::intervals::SEEDS_FOR_AN_INTERVAL;
use crate::metrics::{Measurement, Metric};

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
    /// Cells of both whose test sets are not the same items: nothing to pair.
    pub other_test_set: usize,
}

/// One cell, `first` less `second` in the unit of its task's metric.
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

/// The task's metric in every cell (variant, task, regime, language, selection), paired by seed and test item.
pub fn compare(first: &Results, second: &Results) -> Comparison {
    let (ours, theirs) = (Summary::new(first), Summary::new(second));
    let mut comparison = Comparison {
        different: Vec::new(),
        compared: 0,
        only_in_first: 0,
        only_in_second: 0,
        other_test_set: 0,
    };
    let (our_sets, their_sets) = (test_sets(first), test_sets(second));
    for query in queries(first) {
        let Some(one) = ours.estimate(&query) else {
            continue;
        };
        let set = (query.task, query.language);
        let other_items = match (our_sets.get(&set), their_sets.get(&set)) {
            (Some(one), Some(two)) => !same_items(one, two),
            _ => {
                !same_references(first, second, query.language)
                    || !same_measured(first, second, &query)
            }
        };
        if other_items {
            comparison.other_test_set += 1;
            continue;
        }
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

/// The test set of each task and language, as any cell of it shows it.
fn test_sets(results: &Results) -> BTreeMap<(&str, &str), &CellPredictions> {
    let sets = results.predictions.iter();
    sets.map(|one| ((one.cell.task.as_str(), one.cell.language.as_str()), one))
        .collect()
}

fn same_items(one: &CellPredictions, two: &CellPredictions) -> bool {
    let item = |cell: &CellPredictions, row: usize| {
        let item = &cell.items[row];
        (item.premise, item.item, item.gold)
    };
    one.items.len() == two.items.len()
        && (0..one.items.len()).all(|row| item(one, row) == item(two, row))
}

/// Whether translations in a direction were scored in the same way against the same references, as far as counts tell; nothing
/// tells them apart where there are none.
fn same_references(one: &Results, two: &Results, direction: &str) -> bool {
    let signature = |results: &Results| {
        let scores = results.manifest.translation_scores.as_ref();
        scores.map(|scores| scores.bleu_signature.clone())
    };
    let references = |results: &Results| -> Option<Vec<(u64, [u64; ORDERS])>> {
        let mut cells = results.translations.iter();
        let cell = cells.find(|one| one.cell.language == direction)?;
        let counts = cell.sentences.iter();
        Some(
            counts
                .map(|counts| (counts.bleu.reference_length, counts.chrf.reference))
                .collect(),
        )
    };
    match (references(one), references(two)) {
        (Some(ours), Some(theirs)) => signature(one) == signature(two) && ours == theirs,
        _ => true,
    }
}

/// Whether two results measured pretrained models on the same items, as far as numbers that no model decides tell.
fn same_measured(one: &Results, two: &Results, query: &Query) -> bool {
    let items = |results: &Results| -> Option<Vec<(u32, u64)>> {
        let mut cells = results.measurements.iter();
        let cell = cells.find(|one| {
            let cell = &one.cell;
            (
                cell.task.as_str(),
                cell.regime.as_str(),
                cell.language.as_str(),
            ) == (query.task, query.regime, query.language)
        })?;
        let given = cell.items.iter().map(|(cluster, item)| {
            let given = match item {
                Measurement::Text { units, .. } => *units,
                Measurement::Pair { .. } => 0,
                Measurement::Rated { rating, .. } => rating.to_bits(),
            };
            (*cluster, given)
        });
        Some(given.collect())
    };
    match (items(one), items(two)) {
        (Some(ours), Some(theirs)) => ours == theirs,
        _ => true,
    }
}

/// Every single-language cell that the manifest asks for.
fn queries(results: &Results) -> Vec<Query<'_>> {
    let manifest = &results.manifest;
    let mut queries = Vec::new();
    for variant in &manifest.variants {
        for evaluation in &manifest.evaluations {
            for language in &evaluation.languages {
                let selections = manifest.selections_of(&evaluation.task).into_iter();
                queries.extend(selections.map(|selection| Query {
                    variant: &variant.name,
                    task: &evaluation.task,
                    regime: &evaluation.regime,
                    language,
                    selection,
                    metric: Metric::of_task(&evaluation.task),
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
