//! Verdicts: what a run says about the claims of its study.
//!
//! A claim is a two-sided test of one quantity against a bound. It is supported when the 95 % interval lies wholly on
//! the claimed side, contradicted when it lies wholly on the other, and inconclusive else. `within` is a test of
//! equivalence: the whole interval inside the tolerance supports, wholly outside contradicts. The claims of one family
//! share Holm's adjustment; the adjusted verdict decides, the raw one is shown.
//! Below three seeds an interval knows nothing of other seeds: the verdict says `(these seeds)`, and every seed must agree.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, anyhow};
use serde::Serialize;

use crate::metrics::Items;
use crate::metrics::intervals::{LEVEL, holm};
use crate::report::ReportInput;
use crate::report::format;
use crate::report::manifest::{Manifest, Scale};
use crate::report::summary::{Estimate, IntervalKind, Query, Summary};
use crate::spec::claims::{Claim, ClaimForm, Measured, Place};
use crate::spec::{LAST_UPDATE, VALIDATION_BLEU};

/// What the interval says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Supported,
    Contradicted,
    Inconclusive,
    /// Predictions are missing.
    NotRun,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::Supported => "supported",
            Self::Contradicted => "contradicted",
            Self::Inconclusive => "inconclusive",
            Self::NotRun => "not run",
        }
    }
}

/// A claim and what became of it.
#[derive(Debug, Clone)]
pub struct Judgement {
    pub says: String,
    /// What was measured: `mlm − random on xnli/zero_shot/mean`.
    pub measured: String,
    /// The estimate is a difference, printed with its sign.
    pub is_difference: bool,
    /// What it was measured against: `> 0.0`, `71.5 ± 2.0`.
    pub bound: String,
    pub family: String,
    pub selection: String,
    pub gate: bool,
    /// The score or the paired difference.
    pub estimate: Option<Estimate>,
    /// By the interval alone.
    pub raw: Verdict,
    /// After Holm's adjustment within the family: the one that counts.
    pub verdict: Verdict,
    pub p_value: Option<f64>,
    pub adjusted_p_value: Option<f64>,
    /// The interval is about these seeds alone.
    pub these_seeds: bool,
    pub anchor: Option<AnchorNote>,
    /// The verdict as the report prints it: `supported (these seeds), synthetic`; `reproduced`.
    pub wording: String,
}

/// The published figure of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorNote {
    pub address: String,
    pub printed: String,
    pub verified: bool,
    pub paper: String,
}

/// What `xlt check` asks of a claim that gates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GateResult {
    pub says: String,
    pub verdict: Verdict,
    pub wording: String,
    /// Contradicted: the check fails.
    pub failed: bool,
}

/// The verdicts, in the order of the claims. Fails when a claim does not fit the study (validation says so earlier).
pub fn judge(input: &ReportInput) -> Result<Vec<Judgement>> {
    let summary = Summary::new(input.results);
    let mut judgements = Vec::with_capacity(input.claims.len());
    let mut tests = Vec::with_capacity(input.claims.len());
    for claim in input.claims {
        let (judgement, test) = measure(claim, input, &summary)?;
        judgements.push(judgement);
        tests.push(test);
    }
    adjust(&mut judgements);
    for (judgement, test) in judgements.iter_mut().zip(&tests) {
        judgement.raw = decide(judgement, test.as_ref(), judgement.p_value);
        judgement.verdict = decide(judgement, test.as_ref(), judgement.adjusted_p_value);
        judgement.wording = wording(judgement, input);
    }
    Ok(judgements)
}

/// The claims that gate, and whether they were contradicted.
pub fn gates(judgements: &[Judgement]) -> Vec<GateResult> {
    let gating = judgements.iter().filter(|judgement| judgement.gate);
    gating
        .map(|judgement| GateResult {
            says: judgement.says.clone(),
            verdict: judgement.verdict,
            wording: judgement.wording.clone(),
            failed: judgement.verdict == Verdict::Contradicted,
        })
        .collect()
}

/// The quantity of a claim against its bound.
enum Test {
    /// The quantity exceeds the bound.
    Exceeds(f64),
    /// The quantity falls short of the bound.
    FallsShort(f64),
    /// The quantity is within a tolerance of the centre.
    Near { centre: f64, tolerance: f64 },
}

impl Test {
    /// Which way a value points, and how far it is from changing sides.
    fn side(&self, value: f64) -> (Verdict, f64) {
        let beyond = match *self {
            Self::Exceeds(bound) => value - bound,
            Self::FallsShort(bound) => bound - value,
            Self::Near { centre, tolerance } => tolerance - (value - centre).abs(),
        };
        let verdict = match beyond {
            beyond if beyond > 0.0 => Verdict::Supported,
            beyond if beyond < 0.0 => Verdict::Contradicted,
            _ => Verdict::Inconclusive,
        };
        (verdict, beyond.abs())
    }
}

fn measure(
    claim: &Claim,
    input: &ReportInput,
    summary: &Summary,
) -> Result<(Judgement, Option<Test>)> {
    let form = claim.form().map_err(|problem| {
        anyhow!(
            "in the claim \"{}\": {}; {}",
            claim.says,
            problem.what,
            problem.remedy
        )
    })?;
    let selections = input.results.manifest.selections_of(&form.place().task);
    let selection = claim
        .selection
        .clone()
        .or_else(|| selections.first().map(|rule| (*rule).to_owned()))
        .ok_or_else(|| {
            anyhow!(
                "the claim \"{}\" needs a selection rule, and the study has none",
                claim.says
            )
        })?;

    let mut note = None;
    let metric = form.place().metric;
    let (estimate, test, measured, bound) = match &form {
        ClaimForm::Higher { first, second, by } => {
            let estimate =
                summary.difference(&query(first, &selection), &query(second, &selection));
            (
                estimate,
                Test::Exceeds(*by),
                difference_words(first, second),
                format!("> {}", format::number(*by, metric)),
            )
        }
        ClaimForm::Lower { first, second, by } => {
            let estimate =
                summary.difference(&query(first, &selection), &query(second, &selection));
            let bound = format::number(-*by, metric).replace('-', "−");
            (
                estimate,
                Test::FallsShort(-*by),
                difference_words(first, second),
                format!("< {bound}"),
            )
        }
        ClaimForm::AtLeast {
            measured,
            threshold,
        } => {
            let estimate = summary.estimate(&query(measured, &selection));
            let bound = format!("> {}", format::number(*threshold, metric));
            (estimate, Test::Exceeds(*threshold), words(measured), bound)
        }
        ClaimForm::Within {
            measured,
            anchor: address,
            within,
        } => {
            let anchor = input.anchors.find(address).map_err(|remedy| {
                anyhow!(
                    "in the claim \"{}\": unknown anchor `{address}`; {remedy}",
                    claim.says
                )
            })?;
            let centre = anchor.value.ok_or_else(|| {
                anyhow!(
                    "in the claim \"{}\": the anchor `{address}` has no number",
                    claim.says
                )
            })?;
            note = Some(AnchorNote {
                address: address.clone(),
                printed: anchor.printed.clone(),
                verified: anchor.verified,
                paper: anchor.paper.clone(),
            });
            let bound = format!("{} ± {}", anchor.printed, format::number(*within, metric));
            let test = Test::Near {
                centre,
                tolerance: *within,
            };
            (
                summary.estimate(&query(measured, &selection)),
                test,
                words(measured),
                bound,
            )
        }
    };
    let p_value = estimate.as_ref().map(|estimate| {
        let (_, distance) = test.side(estimate.mean);
        estimate.spread.p_value(distance)
    });
    let judgement = Judgement {
        says: claim.says.clone(),
        measured,
        is_difference: matches!(form, ClaimForm::Higher { .. } | ClaimForm::Lower { .. }),
        bound,
        family: format!("{}, {selection}", claim.family(&form)),
        these_seeds: estimate
            .as_ref()
            .is_some_and(|estimate| estimate.kind == IntervalKind::Items),
        selection,
        gate: claim.gate,
        raw: Verdict::NotRun,
        verdict: Verdict::NotRun,
        p_value,
        adjusted_p_value: None,
        anchor: note,
        wording: String::new(),
        estimate,
    };
    let test = judgement.estimate.is_some().then_some(test);
    Ok((judgement, test))
}

/// Holm's adjustment within each family, over the claims that were measured.
fn adjust(judgements: &mut [Judgement]) {
    let mut families: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, judgement) in judgements.iter().enumerate() {
        if judgement.p_value.is_some() {
            families
                .entry(judgement.family.clone())
                .or_default()
                .push(index);
        }
    }
    for members in families.values() {
        let raw: Vec<f64> = members
            .iter()
            .filter_map(|&index| judgements[index].p_value)
            .collect();
        for (&index, adjusted) in members.iter().zip(holm(&raw)) {
            judgements[index].adjusted_p_value = Some(adjusted);
        }
    }
}

fn decide(judgement: &Judgement, test: Option<&Test>, p_value: Option<f64>) -> Verdict {
    let (Some(estimate), Some(test), Some(p_value)) = (&judgement.estimate, test, p_value) else {
        return Verdict::NotRun;
    };
    let (verdict, _) = test.side(estimate.mean);
    let agreed = !judgement.these_seeds
        || estimate
            .per_seed
            .iter()
            .all(|&value| test.side(value).0 == verdict);
    if p_value < 1.0 - LEVEL && agreed {
        verdict
    } else {
        Verdict::Inconclusive
    }
}

/// Only a verified figure at the paper's own profile is reproduced; elsewhere the verdict names its scale.
fn wording(judgement: &Judgement, input: &ReportInput) -> String {
    let scale = input.results.manifest.scale;
    let at_paper = input.profile_is_paper && scale == Scale::Paper;
    let verified = judgement
        .anchor
        .as_ref()
        .is_some_and(|anchor| anchor.verified);
    let mut words = match judgement.verdict {
        Verdict::Supported if at_paper && verified => "reproduced".to_owned(),
        verdict => verdict.name().to_owned(),
    };
    if judgement.verdict == Verdict::NotRun {
        return words;
    }
    if judgement.these_seeds {
        words.push_str(" (these seeds)");
    }
    let scale_words = match scale {
        Scale::Paper if !input.profile_is_paper => Scale::Small.wording(),
        scale => scale.wording(),
    };
    if !scale_words.is_empty() {
        words.push_str(", ");
        words.push_str(scale_words);
    }
    if judgement
        .anchor
        .as_ref()
        .is_some_and(|anchor| !anchor.verified)
    {
        words.push_str(", against an unverified figure");
    }
    words
}

fn query<'a>(measured: &'a Measured, selection: &'a str) -> Query<'a> {
    Query {
        variant: &measured.variant,
        task: &measured.place.task,
        regime: &measured.place.regime,
        language: &measured.place.language,
        selection,
        metric: measured.place.metric,
    }
}

fn words(measured: &Measured) -> String {
    format!("{} on {}", measured.variant, measured.place)
}

fn difference_words(first: &Measured, second: &Measured) -> String {
    let place = |place: &Place| place.to_string();
    if first.place == second.place {
        format!(
            "{} − {} on {}",
            first.variant,
            second.variant,
            place(&first.place)
        )
    } else {
        format!(
            "{}: {} − {}",
            first.variant,
            place(&first.place),
            place(&second.place)
        )
    }
}

/// A level with its interval, or a difference with signs.
pub fn measured_value(judgement: &Judgement) -> String {
    let Some(estimate) = &judgement.estimate else {
        return format::DASH.to_owned();
    };
    let is_difference = judgement.is_difference;
    let number = |value| {
        if is_difference {
            format::signed(value, estimate.metric)
        } else {
            format::number(value, estimate.metric)
        }
    };
    let mean = if is_difference {
        number(estimate.mean)
    } else {
        format::mean(estimate)
    };
    format!(
        "{mean} [{}, {}]",
        number(estimate.low),
        number(estimate.high)
    )
}

/// `claims.md`.
pub fn markdown(judgements: &[Judgement], input: &ReportInput) -> String {
    let manifest = &input.results.manifest;
    let mut text = format!("# Claims: {} ({})\n\n", manifest.study, manifest.profile);
    if judgements.is_empty() {
        text.push_str("The study makes no claims.\n");
        return text;
    }
    text.push_str("| claim | verdict | measured | value [95 %] | bound | seeds | p | p (Holm) | by itself | family | gate |\n");
    text.push_str("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- | --- |\n");
    for judgement in judgements {
        let p = |value: Option<f64>| value.map_or(format::DASH.to_owned(), format::p_value);
        let seeds = judgement
            .estimate
            .as_ref()
            .map_or(format::DASH.to_owned(), format::seeds);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | **{}** | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            format::markdown(&judgement.says),
            judgement.wording,
            format::markdown(&judgement.measured),
            measured_value(judgement),
            format::markdown(&judgement.bound),
            seeds,
            p(judgement.p_value),
            p(judgement.adjusted_p_value),
            judgement.raw.name(),
            format::markdown(&judgement.family),
            if judgement.gate { "yes" } else { "" },
        );
    }
    let words = evidence_words(manifest);
    text.push_str(&format!("\nValues and differences are {}. ", words.values));
    text.push_str(&interval_note(judgements, words.drawn));
    text.push_str(&format!(
        " Differences are paired by {}. A verdict is decided by the p-value after Holm's \
         adjustment within its family; *by itself* is the verdict without it.\n",
        words.paired
    ));
    for note in notes(judgements, input) {
        let _ = writeln!(text, "\n{note}");
    }
    text
}

/// How prose speaks of a study's values, of what its test items are, and of how differences are paired.
pub struct EvidenceWords {
    pub values: &'static str,
    pub drawn: &'static str,
    pub paired: &'static str,
    /// What an interval for given seeds covers.
    pub items: &'static str,
}

pub fn evidence_words(manifest: &Manifest) -> EvidenceWords {
    let kinds = manifest.evaluations.iter();
    let mut kinds = kinds.map(|evaluation| Items::of(&evaluation.task));
    let first = kinds.next();
    match first.filter(|first| kinds.all(|kind| kind == *first)) {
        Some(Items::Classes) => EvidenceWords {
            values: "in percent of the metric",
            drawn: "premises are drawn whole",
            paired: "seed, premise and language",
            items: "test items, drawn by whole premises,",
        },
        Some(Items::Translations) => EvidenceWords {
            values: "points of the metric, 0 to 100",
            drawn: "sentences",
            paired: "seed, sentence and direction",
            items: "test sentences",
        },
        Some(Items::Measurements) => EvidenceWords {
            values: "in the metric's own unit",
            drawn: "runs of held-out sentences, or words",
            paired: "seed, item and language",
            items: "items",
        },
        None => EvidenceWords {
            values: "in the metric's own unit (accuracy in percent, BLEU from 0 to 100)",
            drawn: "premises, sentences or words",
            paired: "seed, item and language",
            items: "test items",
        },
    }
}

/// Whether something is classified.
pub fn classifies(manifest: &Manifest) -> bool {
    let mut evaluations = manifest.evaluations.iter();
    evaluations.any(|evaluation| Items::of(&evaluation.task) == Items::Classes)
}

fn interval_note(judgements: &[Judgement], drawn: &str) -> String {
    if judgements.iter().any(|judgement| judgement.these_seeds) {
        format!(
            "Intervals marked *these seeds* cover other test items ({drawn}), not other seeds, and every \
             seed must agree; from three seeds up they cover both."
        )
    } else {
        format!("Intervals cover other seeds and other test items ({drawn}).")
    }
}

/// Remarks below the claims: anchors, collapsed runs, selection on target labels.
pub fn notes(judgements: &[Judgement], input: &ReportInput) -> Vec<String> {
    let mut notes = Vec::new();
    for judgement in judgements {
        if let Some(anchor) = &judgement.anchor {
            let checked = if anchor.verified {
                "verified"
            } else {
                "from memory, not verified"
            };
            notes.push(format!(
                "- \"{}\" compares with {} of {} (`{}`, {checked}).",
                judgement.says, anchor.printed, anchor.paper, anchor.address
            ));
        }
        if let Some(estimate) = &judgement.estimate
            && estimate.collapsed > 0
        {
            let (collapsed, seeds) = (estimate.collapsed, estimate.seeds);
            let what = if judgement.is_difference {
                format!("in {collapsed} of {seeds} seeds one side or both are at chance")
            } else {
                format!("{collapsed} of {seeds} seeds at chance")
            };
            notes.push(format!(
                "- \"{}\": {what}; they stay in the mean.",
                judgement.says
            ));
        }
        if !["source_dev", VALIDATION_BLEU, LAST_UPDATE].contains(&judgement.selection.as_str()) {
            notes.push(format!(
                "- \"{}\" selects on {}.",
                judgement.says,
                format::selection(&judgement.selection)
            ));
        }
    }
    notes.extend(format::mixed_machines(&input.results.manifest));
    notes
}
