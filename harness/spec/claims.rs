//! `claims:` of a study file: what the paper says, in a form that a run can support or contradict.

use crate::problem::Problem;
use serde::{Deserialize, Serialize};

use super::anchors::Anchors;
use super::nearest::nearest;
use super::{LAST_UPDATE, VALIDATION_BLEU};
use crate::metrics::{Items, Metric, TRANSLATION_TASK};

/// One claim. Exactly one of five forms:
///
/// - `higher`, `than`, `on` (and `by`): one variant scores higher than another;
/// - `lower`, `than`, `on` (and `by`): one variant scores lower than another, as perplexities and distances should;
/// - `variant`, `higher_on`, `than_on` (and `by`): a variant scores higher in one place than in another;
/// - `variant`, `on`, `anchor`, `within`: a variant's score equals a published figure up to a tolerance;
/// - `variant`, `on`, `at_least`: a variant's score exceeds a threshold.
///
/// Places are `task/regime/language`, where the language may be `mean` (all languages of the regime, as the papers'
/// averages) or `target_mean` (without the source), with `/metric` behind unless it is accuracy. Of translation models they are
/// `translation/search/direction`, such as `translation/beam_4/en-fr`, and the metric is BLEU unless it is `/chrf`. Of pretrained
/// models as they are: `language_modelling/token/ne` (or `word`, `character`), whose metric is perplexity;
/// `word_translation/input_embeddings/fr` with cosine, `/distance` or `/cosine_of_others`; `word_similarity/input_embeddings/fr`
/// with `pearson` or `/spearman`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The claim in words, as the report prints it.
    pub says: String,
    /// The variant said to score higher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub higher: Option<String>,
    /// The variant said to score lower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower: Option<String>,
    /// The other variant of `higher` or `lower`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub than: Option<String>,
    /// Where the two are compared, or where `variant` is measured: `xnli/zero_shot/mean`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// The margin that the difference must exceed, in the metric's unit; 0 unless given.
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
    /// The tolerance around `anchor`, in the metric's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<f64>,
    /// The threshold that the score must exceed, in the metric's unit.
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
    /// `first` exceeds `second` by more than `by`.
    Higher {
        first: Measured,
        second: Measured,
        by: f64,
    },
    /// `first` falls short of `second` by more than `by`.
    Lower {
        first: Measured,
        second: Measured,
        by: f64,
    },
    /// `measured` lies within `within` of the anchor.
    Within {
        measured: Measured,
        anchor: String,
        within: f64,
    },
    /// `measured` exceeds `threshold`.
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

/// Papers print accuracy, BLEU and perplexity with one decimal, correlations with two, and differences of printed figures are off by up to
/// the last (pitfall P31: seven deltas of "Emerging Cross-lingual Structure", Table 1).
pub fn smallest_tolerance(metric: Metric) -> f64 {
    match metric.decimals() {
        3 => 0.01,
        _ => 0.1,
    }
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

impl Claim {
    /// The claim in its one form. The error says which fields do not fit together.
    pub fn form(&self) -> Result<ClaimForm, Problem> {
        let given = [
            ("higher", self.higher.is_some()),
            ("lower", self.lower.is_some()),
            ("than", self.than.is_some()),
            ("on", self.on.is_some()),
            ("by", self.by.is_some()),
            ("variant", self.variant.is_some()),
            ("higher_on", self.higher_on.is_some()),
            ("than_on", self.than_on.is_some()),
            ("anchor", self.anchor.is_some()),
            ("within", self.within.is_some()),
            ("at_least", self.at_least.is_some()),
        ];
        let only = |allowed: &[&str]| match given
            .iter()
            .find(|(name, given)| *given && !allowed.contains(name))
        {
            Some((name, _)) => Err(Problem {
                field: (*name).to_owned(),
                what: format!("`{name}` does not go with the other fields of this claim"),
                remedy: format!("a claim with `{}` takes {}", allowed[0], listed(allowed)),
            }),
            None => Ok(()),
        };
        let named = [("higher", &self.higher), ("lower", &self.lower)];
        if let Some((form, variant)) = named.into_iter().find(|(_, variant)| variant.is_some()) {
            only(&[form, "than", "on", "by"])?;
            let place = parsed("on", required("on", &self.on)?)?;
            let first = Measured {
                variant: required(form, variant)?.to_owned(),
                place: place.clone(),
            };
            let second = Measured {
                variant: required("than", &self.than)?.to_owned(),
                place,
            };
            let by = number("by", self.by.unwrap_or(0.0), first.place.metric)?;
            return Ok(match form {
                "higher" => ClaimForm::Higher { first, second, by },
                _ => ClaimForm::Lower { first, second, by },
            });
        }
        if let Some(higher_on) = &self.higher_on {
            only(&["higher_on", "than_on", "variant", "by"])?;
            let variant = required("variant", &self.variant)?;
            let measured = |place| Measured {
                variant: variant.to_owned(),
                place,
            };
            let first = measured(parsed("higher_on", higher_on)?);
            return Ok(ClaimForm::Higher {
                by: number("by", self.by.unwrap_or(0.0), first.place.metric)?,
                first,
                second: measured(parsed("than_on", required("than_on", &self.than_on)?)?),
            });
        }
        if self.anchor.is_none() && self.at_least.is_none() {
            return Err(Problem {
                field: String::new(),
                what: format!("the claim \"{}\" says nothing that can be measured", self.says),
                remedy: "give `higher` or `lower`, `than` and `on`; or `variant`, `higher_on` and `than_on`; or `variant`, `on`, \
                         `anchor` and `within`; or `variant`, `on` and `at_least`"
                    .to_owned(),
            });
        }
        if self.anchor.is_some() {
            only(&["anchor", "within", "variant", "on"])?;
        } else {
            only(&["at_least", "variant", "on"])?;
        }
        let measured = Measured {
            variant: required("variant", &self.variant)?.to_owned(),
            place: parsed("on", required("on", &self.on)?)?,
        };
        match (&self.anchor, self.at_least) {
            (Some(anchor), _) => {
                let within = self.within.ok_or_else(|| absent("within"))?;
                Ok(ClaimForm::Within {
                    within: positive("within", within, measured.place.metric)?,
                    measured,
                    anchor: anchor.clone(),
                })
            }
            (None, threshold) => {
                let threshold = threshold.ok_or_else(|| absent("at_least"))?;
                Ok(ClaimForm::AtLeast {
                    threshold: number("at_least", threshold, measured.place.metric)?,
                    measured,
                })
            }
        }
    }

    /// Everything wrong with the claim in a study with these names.
    pub fn validate(&self, names: &Names) -> Vec<Problem> {
        let form = match self.form() {
            Ok(form) => form,
            Err(problem) => return vec![problem],
        };
        let mut problems = Vec::new();
        if self.says.trim().is_empty() {
            problems.push(Problem {
                field: "says".to_owned(),
                what: "the claim has no words".to_owned(),
                remedy: "say it as the paper does".to_owned(),
            });
        }
        match &form {
            ClaimForm::Higher { first, second, .. } | ClaimForm::Lower { first, second, .. }
                if self.than.is_some() =>
            {
                let field = if self.lower.is_some() {
                    "lower"
                } else {
                    "higher"
                };
                problems.extend(names.variant(field, &first.variant));
                problems.extend(names.variant("than", &second.variant));
                problems.extend(names.place("on", &first.place));
            }
            ClaimForm::Higher { first, second, .. } | ClaimForm::Lower { first, second, .. } => {
                problems.extend(names.variant("variant", &first.variant));
                problems.extend(names.place("higher_on", &first.place));
                problems.extend(names.place("than_on", &second.place));
                if !first.place.metric.compares_with(second.place.metric) {
                    problems.push(Problem {
                        field: "than_on".to_owned(),
                        what: format!(
                            "{} cannot be compared with {}",
                            first.place.metric.name(),
                            second.place.metric.name()
                        ),
                        remedy: "name the same metric in `higher_on` and `than_on`".to_owned(),
                    });
                }
            }
            ClaimForm::Within { measured, .. } | ClaimForm::AtLeast { measured, .. } => {
                problems.extend(names.variant("variant", &measured.variant));
                problems.extend(names.place("on", &measured.place));
            }
        }
        if let ClaimForm::Higher { first, second, .. } | ClaimForm::Lower { first, second, .. } =
            &form
            && first == second
        {
            problems.push(Problem {
                field: if self.than.is_some() {
                    "than"
                } else {
                    "than_on"
                }
                .to_owned(),
                what: "a score cannot be higher or lower than itself".to_owned(),
                remedy: "compare two variants, or two places".to_owned(),
            });
        }
        if let ClaimForm::Within {
            anchor,
            within,
            measured,
        } = &form
        {
            problems.extend(names.anchor(anchor, self.gate));
            let smallest = smallest_tolerance(measured.place.metric);
            if *within < smallest {
                problems.push(Problem {
                    field: "within".to_owned(),
                    what: format!("`within` is {within}, finer than published figures are printed"),
                    remedy: format!("give at least {smallest}"),
                });
            }
        }
        if let Some(selection) = &self.selection {
            let task = match self.form() {
                Ok(form) => form.place().task.clone(),
                Err(_) => String::new(),
            };
            problems.extend(names.selection("selection", &task, selection));
        }
        problems
    }

    /// Claims of one family share a Holm adjustment: those about one task and regime, as one table of a paper has them.
    pub fn family(&self, form: &ClaimForm) -> String {
        self.family.clone().unwrap_or_else(|| {
            let place = form.place();
            format!("{}/{}", place.task, place.regime)
        })
    }
}

impl ClaimForm {
    /// Where it is measured; of two places the first.
    pub fn place(&self) -> &Place {
        match self {
            Self::Higher { first, .. } | Self::Lower { first, .. } => &first.place,
            Self::Within { measured, .. } | Self::AtLeast { measured, .. } => &measured.place,
        }
    }
}

impl Place {
    /// From `task/regime/language` or `task/regime/language/metric`. The error is a remedy.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (task, regime, language, metric) = match parts.as_slice() {
            [task, regime, language] => (task, regime, language, Metric::of_task(task)),
            [task, regime, language, metric] => {
                let names = Metric::ALL.map(Metric::name);
                let metric = Metric::from_name(metric)
                    .ok_or_else(|| suggestion(metric, names.iter().copied(), "metric"))?;
                (task, regime, language, metric)
            }
            _ => {
                return Err(
                    "write it as task/regime/language, such as xnli/zero_shot/mean".to_owned(),
                );
            }
        };
        Ok(Self {
            task: (*task).to_owned(),
            regime: (*regime).to_owned(),
            language: (*language).to_owned(),
            metric,
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}/{}", self.task, self.regime, self.language)?;
        if self.metric == Metric::of_task(&self.task) {
            Ok(())
        } else {
            write!(formatter, "/{}", self.metric.name())
        }
    }
}

/// Whether a selection rule is one of a task.
pub fn selects(rule: &str, task: &str) -> bool {
    match Items::of(task) {
        Items::Translations => rule == VALIDATION_BLEU,
        Items::Measurements => rule == LAST_UPDATE,
        Items::Classes => rule != VALIDATION_BLEU && rule != LAST_UPDATE,
    }
}

/// A metric that is not one of a task.
pub(super) fn unfit(field: &str, metric: Metric, task: &str) -> Option<Problem> {
    let fitting = Metric::fitting(task);
    if fitting.contains(&metric) {
        return None;
    }
    let names: Vec<&str> = fitting.iter().map(|metric| metric.name()).collect();
    Some(Problem::new(
        field,
        format!("`{}` is no metric of the task {task}", metric.name()),
        format!("choose among {}", names.join(", ")),
    ))
}

impl Names<'_> {
    pub(super) fn variant(&self, field: &str, name: &str) -> Option<Problem> {
        unknown(
            field,
            "variant",
            name,
            self.variants.iter().map(String::as_str),
        )
    }

    /// Fine-tuned models are chosen by dev sets, translation models by BLEU, pretrained models by nothing.
    pub(super) fn selection(&self, field: &str, task: &str, name: &str) -> Option<Problem> {
        let rules = self.selections.iter().map(String::as_str);
        let rules = rules.filter(|rule| selects(rule, task));
        let mut problem = unknown(field, "selection rule", name, rules)?;
        if name.contains("test") {
            problem.what += ": test sets never select, they are scored once";
        }
        Some(problem)
    }

    pub(super) fn task(&self, field: &str, name: &str) -> Option<Problem> {
        unknown(
            field,
            "task",
            name,
            self.evaluations.iter().map(|(task, ..)| task.as_str()),
        )
    }

    pub(super) fn regime(&self, field: &str, task: &str, name: &str) -> Option<Problem> {
        let regimes = self
            .evaluations
            .iter()
            .filter(|(of, ..)| of == task)
            .map(|(_, regime, _)| regime.as_str());
        unknown(field, "regime", name, regimes)
    }

    fn place(&self, field: &str, place: &Place) -> Option<Problem> {
        let problem = self
            .task(field, &place.task)
            .or_else(|| self.regime(field, &place.task, &place.regime));
        if problem.is_some() {
            return problem;
        }
        let mut evaluations = self.evaluations.iter();
        let (.., languages) =
            evaluations.find(|(task, regime, _)| *task == place.task && *regime == place.regime)?;
        // Directions have a source each.
        let means = match place.task.as_str() {
            TRANSLATION_TASK => &[MEAN][..],
            _ => &[MEAN, TARGET_MEAN],
        };
        unknown(
            field,
            "language",
            &place.language,
            languages
                .iter()
                .map(String::as_str)
                .chain(means.iter().copied()),
        )
        .or_else(|| unfit(field, place.metric, &place.task))
    }

    fn anchor(&self, address: &str, gate: bool) -> Option<Problem> {
        let problem = |what: String, remedy: String| {
            Some(Problem {
                field: "anchor".to_owned(),
                what,
                remedy,
            })
        };
        match self.anchors.find(address) {
            Err(remedy) => problem(format!("unknown anchor `{address}`"), remedy),
            Ok(anchor) if anchor.value.is_none() => problem(
                format!("the anchor `{address}` has no number"),
                "name another row".to_owned(),
            ),
            Ok(anchor) if gate && !anchor.verified => problem(
                format!("the anchor `{address}` was not verified in a source, so it cannot gate"),
                "remove `gate`, or check the figure and write `yes` in its `verified` column"
                    .to_owned(),
            ),
            Ok(_) => None,
        }
    }
}

fn unknown<'a>(
    field: &str,
    kind: &str,
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Option<Problem> {
    if known.clone().any(|one| one == name) {
        return None;
    }
    Some(Problem {
        field: field.to_owned(),
        what: format!("unknown {kind} `{name}`"),
        remedy: suggestion(name, known, kind),
    })
}

fn suggestion<'a>(wrong: &str, known: impl Iterator<Item = &'a str> + Clone, kind: &str) -> String {
    if let Some(name) = nearest(wrong, known.clone()) {
        return format!("did you mean `{name}`?");
    }
    let mut names: Vec<&str> = known.collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return format!("this study has no {kind}");
    }
    format!("one of {}", listed(&names))
}

fn listed(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn required<'a>(field: &str, value: &'a Option<String>) -> Result<&'a str, Problem> {
    value.as_deref().ok_or_else(|| absent(field))
}

fn absent(field: &str) -> Problem {
    Problem {
        field: field.to_owned(),
        what: format!("the claim lacks `{field}`"),
        remedy: format!("add `{field}`"),
    }
}

fn parsed(field: &str, text: &str) -> Result<Place, Problem> {
    let problem = |remedy| Problem {
        field: field.to_owned(),
        what: format!("`{text}` is not a place"),
        remedy,
    };
    Place::parse(text).map_err(problem)
}

/// More than any perplexity that a claim is about; ours.
const LARGEST_UNBOUNDED: f64 = 1e6;

/// The largest bound of a claim.
fn largest(metric: Metric) -> f64 {
    match metric.range().1.is_finite() {
        true => 100.0,
        false => LARGEST_UNBOUNDED,
    }
}

fn positive(field: &str, value: f64, metric: Metric) -> Result<f64, Problem> {
    if value > 0.0 {
        number(field, value, metric)
    } else {
        let range = format!("above 0, up to {}", largest(metric));
        Err(out_of_range(field, value, &range))
    }
}

fn number(field: &str, value: f64, metric: Metric) -> Result<f64, Problem> {
    if (0.0..=largest(metric)).contains(&value) {
        Ok(value)
    } else {
        let range = format!("from 0 to {}", largest(metric));
        Err(out_of_range(field, value, &range))
    }
}

fn out_of_range(field: &str, value: f64, range: &str) -> Problem {
    Problem {
        field: field.to_owned(),
        what: format!("`{field}` is {value}"),
        remedy: format!("give it in the metric's unit, {range}"),
    }
}
