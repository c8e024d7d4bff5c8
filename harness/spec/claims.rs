//! `claims:` of a study file: what the paper says, in a form that a run can support or contradict.

use serde::{Deserialize, Serialize};

use super::anchors::Anchors;
use crate::metrics::Metric;

/// One claim. Exactly one of four forms:
///
/// - `higher`, `than`, `on` (and `by`): one variant scores higher than another;
/// - `variant`, `higher_on`, `than_on` (and `by`): a variant scores higher in one place than in another;
/// - `variant`, `on`, `anchor`, `within`: a variant's score equals a published figure up to a tolerance;
/// - `variant`, `on`, `at_least`: a variant's score exceeds a threshold.
///
/// Places are `task/regime/language`, where the language may be `mean` (all languages of the regime, as the papers'
/// averages) or `target_mean` (without the source), with `/metric` behind unless it is accuracy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The claim in words, as the report prints it.
    pub says: String,
    /// The variant said to be better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub higher: Option<String>,
    /// The variant said to be worse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub than: Option<String>,
    /// Where the two are compared, or where `variant` is measured: `xnli/zero_shot/mean`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// The margin that the difference must exceed, in points of the metric (percent); 0 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<f64>,
    /// The variant that is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The place where `variant` is said to be better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub higher_on: Option<String>,
    /// The place where `variant` is said to be worse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub than_on: Option<String>,
    /// A published figure: `xlm_table1_xnli/XLM (MLM)/zero-shot/avg`, from `experiments/anchors/xlm_table1_xnli.csv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<String>,
    /// The tolerance around `anchor`, in points of the metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<f64>,
    /// The threshold that the score must exceed, percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// The selection rule whose test scores are compared; the first of the study's rules unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<String>,
    /// Claims of one family share a Holm adjustment; the place's task and regime unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Whether `xlt check` fails when the claim is contradicted.
    #[serde(default)]
    pub gate: bool,
}

/// A claim whose fields were found to fit together.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimForm {
    /// `first` exceeds `second` by more than `by` points.
    Higher {
        first: Measured,
        second: Measured,
        by: f64,
    },
    /// `measured` lies within `within` points of the anchor.
    Within {
        measured: Measured,
        anchor: String,
        within: f64,
    },
    /// `measured` exceeds `threshold` percent.
    AtLeast { measured: Measured, threshold: f64 },
}

/// One variant's score at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    pub variant: String,
    pub place: Place,
}

/// `task/regime/language[/metric]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub task: String,
    pub regime: String,
    /// A language, a mixed pair, `mean` or `target_mean`.
    pub language: String,
    pub metric: Metric,
}

/// Mean over all languages of a regime, the source among them.
pub const MEAN: &str = "mean";
/// Mean over the languages of a regime other than the source.
pub const TARGET_MEAN: &str = "target_mean";

/// Something wrong with a claim or a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field below the claim or table: `higher_on`; empty for the whole.
    pub field: String,
    pub what: String,
    pub remedy: String,
}

/// What claims and tables may name.
#[derive(Debug, Clone)]
pub struct Names<'a> {
    pub variants: Vec<String>,
    /// Task, regime and the languages scored in them.
    pub evaluations: Vec<(String, String, Vec<String>)>,
    pub selections: Vec<String>,
    pub anchors: &'a Anchors,
}

/// The name that `wrong` most likely means: the fewest edits, at most a third of its length (at least two).
pub fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (wrong.chars().count() / 3).max(2);
    let scored = names.map(|name| (edits(&wrong.to_lowercase(), &name.to_lowercase()), name));
    scored
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance (1966).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
