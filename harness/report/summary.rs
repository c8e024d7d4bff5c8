//! Means with intervals over seeds, items and languages: the figures that tables, plots and claims print.

use std::collections::BTreeMap;

use crate::metrics::intervals::{self, LEVEL, Score, Spread};
use crate::metrics::{Confusion, Items, Metric};
use crate::report::clusters::Clusters;
use crate::report::manifest::Manifest;
use crate::report::measurements::CellMeasurements;
use crate::report::results::Results;
use crate::report::scores::{Cell, CellPredictions};
use crate::report::translations::CellTranslations;
use crate::spec::claims::{MEAN, TARGET_MEAN};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    pub variant: &'a str,
    pub task: &'a str,
    pub regime: &'a str,
    /// A language, a mixed pair, `mean` (all languages of the regime) or `target_mean` (without the source).
    pub language: &'a str,
    pub selection: &'a str,
    pub metric: Metric,
}

/// What an interval covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntervalKind {
    /// Other test items, these seeds. Below three seeds.
    Items,
    /// Other test items and other seeds. From three seeds up.
    SeedsAndItems,
}

/// A mean, or a difference of means, in the metric's unit, with its 95 % interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    pub metric: Metric,
    pub mean: f64,
    /// Within the metric's range (a difference: within that of differences).
    pub low: f64,
    pub high: f64,
    pub kind: IntervalKind,
    pub spread: Spread,
    /// Seeds that have predictions in every language. A diverged run has none: it is missing here, and said to be.
    pub seeds: usize,
    /// Seeds that the study asks for.
    pub asked: usize,
    /// Test items per language (the largest where languages differ).
    pub items: usize,
    /// The value of each seed, in the order of the seeds.
    pub per_seed: Vec<f64>,
    /// How many of the seeds are at chance. They stay in the mean. Of a difference: seeds with either side at chance.
    pub collapsed: usize,
    /// The languages that the mean is over.
    pub languages: Vec<String>,
    /// For accuracy over equally many items per seed and language: all correct answers and all answers, so that
    /// tables round from integers. Absent for differences.
    pub counts: Option<(u64, u64)>,
}

/// The predictions of a results folder, counted by premise.
#[derive(Debug)]
pub struct Summary<'a> {
    manifest: &'a Manifest,
    cells: BTreeMap<Place, BTreeMap<(u64, u64), Clusters>>,
}

/// Variant, task, regime, language, selection.
type Place = [String; 5];
/// Clusters of each seed (in the order of the manifest), each language, each of the unit's runs.
struct Sample<'s> {
    seeds: Vec<(u64, Vec<Vec<&'s Clusters>>)>,
    languages: Vec<String>,
    asked: usize,
}

impl<'a> Summary<'a> {
    pub fn new(results: &'a Results) -> Self {
        let mut cells: BTreeMap<_, BTreeMap<(u64, u64), Clusters>> = BTreeMap::new();
        let mut add = |cell: &Cell, clusters: Clusters| {
            let place = [
                cell.variant.clone(),
                cell.task.clone(),
                cell.regime.clone(),
                cell.language.clone(),
                cell.selection.clone(),
            ];
            let runs = cells.entry(place).or_default();
            runs.insert((cell.pretrain_seed, cell.finetune_seed), clusters);
        };
        for CellPredictions { cell, items } in &results.predictions {
            add(cell, Clusters::of_classes(items));
        }
        let smoothing = results.manifest.smoothing();
        for CellTranslations { cell, sentences } in &results.translations {
            add(cell, Clusters::of_translations(sentences, smoothing));
        }
        for CellMeasurements { cell, items } in &results.measurements {
            add(cell, Clusters::of_measurements(items));
        }
        Self {
            manifest: &results.manifest,
            cells,
        }
    }

    /// The mean over seeds, or `None` when no seed has predictions in every language that the query asks for.
    pub fn estimate(&self, query: &Query) -> Option<Estimate> {
        let sample = self.sample(query, &self.languages(query)?)?;
        let scores: Vec<Score> = sample
            .seeds
            .iter()
            .map(|(_, seed)| seed_score(query.metric, seed))
            .collect();
        let collapsed = sample
            .seeds
            .iter()
            .filter(|(_, seed)| seed_collapsed(seed))
            .count();
        let mut estimate = estimate(query.metric, &scores, query.metric.range());
        estimate.asked = sample.asked;
        estimate.items = sample.items();
        estimate.collapsed = collapsed;
        estimate.counts = if query.metric == Metric::Accuracy {
            sample.counts()
        } else {
            None
        };
        estimate.languages = sample.languages;
        Some(estimate)
    }

    /// `first` less `second`, paired by seed, premise and, for means of the same kind, language.
    pub fn difference(&self, first: &Query, second: &Query) -> Option<Estimate> {
        self.difference_from(first, self, second)
    }

    /// As [`Summary::difference`], with `second` looked up in other results.
    pub fn difference_from(
        &self,
        first: &Query,
        other: &Summary,
        second: &Query,
    ) -> Option<Estimate> {
        let (mut first_languages, mut second_languages) =
            (self.languages(first)?, other.languages(second)?);
        if first.language == second.language && first.task == second.task {
            first_languages.retain(|language| second_languages.contains(language));
            second_languages.retain(|language| first_languages.contains(language));
        }
        let (left, right) = (
            self.sample(first, &first_languages)?,
            other.sample(second, &second_languages)?,
        );
        let mut scores = Vec::new();
        let mut collapsed = 0;
        for (seed, ours) in &left.seeds {
            let Some((_, theirs)) = right
                .seeds
                .iter()
                .find(|(other_seed, _)| other_seed == seed)
            else {
                continue;
            };
            let (one, two) = paired_scores(first.metric, ours, second.metric, theirs);
            scores.push(intervals::combine(&[(1.0, &one), (-1.0, &two)]));
            collapsed += usize::from(seed_collapsed(ours) || seed_collapsed(theirs));
        }
        if scores.is_empty() {
            return None;
        }
        let (least, most) = first.metric.range();
        let mut estimate = estimate(first.metric, &scores, (least - most, most - least));
        estimate.asked = left.asked.min(right.asked);
        estimate.items = left.items().min(right.items());
        estimate.collapsed = collapsed;
        estimate.languages = left.languages;
        Some(estimate)
    }

    /// The languages that a query's language stands for. `None` for a mean of a regime that the study does not evaluate.
    fn languages(&self, query: &Query) -> Option<Vec<String>> {
        if query.language != MEAN && query.language != TARGET_MEAN {
            return Some(vec![query.language.to_owned()]);
        }
        let mut evaluations = self.manifest.evaluations.iter();
        let evaluation = evaluations.find(|evaluation| {
            evaluation.task == query.task && evaluation.regime == query.regime
        })?;
        let all = query.language == MEAN;
        let source = &self.manifest.languages.source;
        Some(
            evaluation
                .languages
                .iter()
                .filter(|language| all || *language != source)
                .cloned()
                .collect(),
        )
    }

    /// How many seeds the study asks for in a task.
    pub fn asked(&self, task: &str) -> usize {
        self.units(task).len()
    }

    /// Each seed with its runs (pretraining seed, fine-tuning seed). Pretraining seeds are the replicates and
    /// fine-tuning seeds are averaged within them; with one pretraining seed the fine-tuning seeds are the replicates.
    fn units(&self, task: &str) -> Vec<(u64, Vec<(u64, u64)>)> {
        let (pretrain, finetune) = (&self.manifest.seeds.pretrain, &self.manifest.seeds.finetune);
        if Items::of(task) == Items::Measurements {
            let run = |seed: &u64| (*seed, vec![(*seed, 0)]);
            return pretrain.iter().map(run).collect();
        }
        if pretrain.len() > 1 || finetune.len() == 1 {
            let runs = |outer: u64| finetune.iter().map(|&inner| (outer, inner)).collect();
            pretrain.iter().map(|&outer| (outer, runs(outer))).collect()
        } else {
            let runs = |inner: u64| pretrain.iter().map(|&outer| (outer, inner)).collect();
            finetune.iter().map(|&inner| (inner, runs(inner))).collect()
        }
    }

    /// The seeds whose runs are all there, in every language.
    fn sample(&self, query: &Query, languages: &[String]) -> Option<Sample<'_>> {
        let units = self.units(query.task);
        let per_language: Vec<_> = languages
            .iter()
            .map(|language| {
                let place = [
                    query.variant,
                    query.task,
                    query.regime,
                    language,
                    query.selection,
                ];
                self.cells.get(&place.map(str::to_owned))
            })
            .collect::<Option<_>>()?;
        if per_language.is_empty() {
            return None;
        }
        let asked = units.len();
        let mut seeds = Vec::new();
        for (seed, runs) in units {
            let found: Option<Vec<Vec<&Clusters>>> = per_language
                .iter()
                .map(|cells| {
                    runs.iter()
                        .map(|run| cells.get(run))
                        .collect::<Option<Vec<_>>>()
                })
                .collect();
            seeds.extend(found.map(|found| (seed, found)));
        }
        if seeds.is_empty() {
            None
        } else {
            Some(Sample {
                seeds,
                languages: languages.to_vec(),
                asked,
            })
        }
    }
}

impl Sample<'_> {
    fn all(&self) -> impl Iterator<Item = &Clusters> {
        self.seeds
            .iter()
            .flat_map(|(_, seed)| seed.iter().flatten().copied())
    }

    fn items(&self) -> usize {
        self.all().map(Clusters::items).max().unwrap_or(0)
    }

    fn counts(&self) -> Option<(u64, u64)> {
        let totals: Vec<Confusion> = self.all().map(Clusters::confusion).collect::<Option<_>>()?;
        let first = totals.first()?.total();
        let equal = totals.iter().all(|counts| counts.total() == first);
        let correct = totals.iter().map(Confusion::correct).sum();
        equal.then_some((correct, first * totals.len() as u64))
    }
}

/// Mean over languages and runs of one seed.
fn seed_score(metric: Metric, seed: &[Vec<&Clusters>]) -> Score {
    let scores: Vec<Score> = seed
        .iter()
        .flatten()
        .map(|clusters| clusters.score(metric))
        .collect();
    intervals::mean(&scores)
}

/// The scores of two sides over the premises that both have.
fn paired_scores(
    first_metric: Metric,
    first: &[Vec<&Clusters>],
    second_metric: Metric,
    second: &[Vec<&Clusters>],
) -> (Score, Score) {
    let premises = |side: &[Vec<&Clusters>]| -> Vec<u32> {
        let mut premises: Vec<u32> = side
            .iter()
            .flatten()
            .flat_map(|clusters| clusters.numbers())
            .collect();
        premises.sort_unstable();
        premises.dedup();
        premises
    };
    let (ours, theirs) = (premises(first), premises(second));
    // Items of which none is in common are independent samples.
    let apart = !ours.iter().any(|one| theirs.binary_search(one).is_ok());
    if ours == theirs || apart {
        return (
            seed_score(first_metric, first),
            seed_score(second_metric, second),
        );
    }
    let restricted = |metric: Metric, side: &[Vec<&Clusters>], others: &[u32]| -> Score {
        let scores: Vec<Score> = side
            .iter()
            .flatten()
            .map(|clusters| clusters.among(others).score(metric))
            .collect();
        intervals::mean(&scores)
    };
    (
        restricted(first_metric, first, &theirs),
        restricted(second_metric, second, &ours),
    )
}

fn seed_collapsed(seed: &[Vec<&Clusters>]) -> bool {
    let mut total = Confusion::default();
    for clusters in seed.iter().flatten() {
        match clusters.confusion() {
            Some(counts) => total += &counts,
            // Only classes have a chance to be at.
            None => return false,
        }
    }
    intervals::collapsed(&seed_score(Metric::Accuracy, seed), &total)
}

fn estimate(metric: Metric, per_seed: &[Score], (least, most): (f64, f64)) -> Estimate {
    let (average, spread) = intervals::over_seeds(per_seed);
    let half_width = spread.half_width(1.0 - LEVEL);
    Estimate {
        metric,
        mean: average.value,
        low: (average.value - half_width).max(least),
        high: (average.value + half_width).min(most),
        kind: if spread.seed_variance.is_some() {
            IntervalKind::SeedsAndItems
        } else {
            IntervalKind::Items
        },
        spread,
        seeds: per_seed.len(),
        asked: per_seed.len(),
        items: 0,
        per_seed: per_seed.iter().map(|score| score.value).collect(),
        collapsed: 0,
        languages: Vec::new(),
        counts: None,
    }
}
