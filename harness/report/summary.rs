//! Means with intervals over seeds, items and languages: the figures that tables, plots and claims print.

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    pub variant: &'a str,
    pub task: &'a str,
    pub regime: &'a str,
    /// A language, a mixed pair, `mean` (all languages of the regime) or `target_mean` (without the source).
    pub language: &'a str,
    pub selection: &'a str,
    pub metric: crate::metrics::Metric,
}

/// What an interval covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntervalKind {
    /// Other test items, these seeds. Below three seeds.
    Items,
    /// Other test items and other seeds. From three seeds up.
    SeedsAndItems,
}

/// A mean, or a difference of means, in percent 0-100, with its 95 % interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
    pub kind: IntervalKind,
    pub standard_error: f64,
    pub degrees_of_freedom: f64,
    /// Seeds that have predictions in every language.
    pub seeds: usize,
    /// Seeds that the study asks for.
    pub asked: usize,
    /// Test items per language (the largest where languages differ).
    pub items: usize,
    /// The value of each seed, in the order of the seeds.
    pub per_seed: Vec<f64>,
    /// How many of the seeds are at chance.
    pub collapsed: usize,
    /// The languages that the mean is over.
    pub languages: Vec<String>,
    /// For accuracy over equally many items per seed and language: all correct answers and all answers, so that
    /// tables round from integers.
    pub counts: Option<(u64, u64)>,
}
