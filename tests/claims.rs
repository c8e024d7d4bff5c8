//! Verdicts, and the claims that a study file may make.

use std::collections::BTreeMap;

use crate::sample;
use xlt::report::ReportInput;
use xlt::report::claims::{Judgement, Verdict, gates, judge, markdown};
use xlt::report::manifest::Scale;
use xlt::report::results::Results;
use xlt::spec::anchors::{Anchor, Anchors};
use xlt::spec::claims::{Claim, Names};

fn anchors() -> Anchors {
    let anchor = |row: &str, language: &str, metric: &str, printed: &str, verified| Anchor {
        paper: "A paper".to_owned(),
        table: "Table 1".to_owned(),
        row: row.to_owned(),
        setting: "zero-shot".to_owned(),
        language: language.to_owned(),
        metric: metric.to_owned(),
        printed: printed.to_owned(),
        value: printed.parse().ok(),
        source: "a source".to_owned(),
        verified,
        note: String::new(),
    };
    let rows = vec![
        anchor("XLM (MLM)", "avg", "accuracy", "70.1", true),
        anchor("XLM / from memory", "avg", "accuracy", "70.1", false),
        anchor("two metrics", "avg", "F1", "70.0", true),
        anchor("two metrics", "avg", "EM", "60.0", true),
        anchor("no number", "avg", "accuracy", "up to 32", true),
    ];
    Anchors {
        files: BTreeMap::from([("xlm_table1_xnli".to_owned(), rows)]),
    }
}

fn claim(fields: &str) -> Claim {
    serde_yaml::from_str(fields).unwrap()
}

fn judged(results: &Results, claims: &[Claim], profile_is_paper: bool) -> Vec<Judgement> {
    with_input(results, claims, profile_is_paper, |input| {
        judge(input).unwrap()
    })
}

fn with_input<T>(
    results: &Results,
    claims: &[Claim],
    profile_is_paper: bool,
    use_it: impl Fn(&ReportInput) -> T,
) -> T {
    let (labels, anchors) = (BTreeMap::new(), anchors());
    use_it(&ReportInput {
        results,
        claims,
        tables: &[],
        labels: &labels,
        anchors: &anchors,
        profile_is_paper,
    })
}

fn study(seeds: &[u64], mlm: f64, random: f64) -> Results {
    let accuracy = move |variant: &str, _: &str, _: &str, _: u64| {
        Some(if variant == "mlm" { mlm } else { random })
    };
    sample::results(sample::manifest(seeds), accuracy)
}

const HIGHER: &str = "{says: MLM is better, higher: mlm, than: random, on: xnli/zero_shot/mean}";
const LOWER: &str =
    "{says: random is better, higher: random, than: mlm, on: xnli/zero_shot/mean, gate: true}";

#[test]
fn a_clear_difference_supports_one_order_and_contradicts_the_other() {
    let verdicts = judged(
        &study(&[1, 2, 3], 0.7, 0.5),
        &[claim(HIGHER), claim(LOWER)],
        false,
    );
    assert_eq!(verdicts[0].verdict, Verdict::Supported);
    assert_eq!(verdicts[0].wording, "supported, at small scale");
    assert_eq!(verdicts[1].verdict, Verdict::Contradicted);
    let gates = gates(&verdicts);
    assert_eq!(gates.len(), 1);
    assert!(gates[0].failed);
}

#[test]
fn a_gate_fails_on_contradiction_only() {
    let verdicts = judged(&study(&[1, 2, 3], 0.6, 0.6), &[claim(LOWER)], false);
    assert_eq!(verdicts[0].verdict, Verdict::Inconclusive);
    assert!(!gates(&verdicts)[0].failed);
}

#[test]
fn a_margin_must_be_exceeded() {
    let by = |margin: u32| {
        claim(&format!(
            "{{says: x, higher: mlm, than: random, on: xnli/zero_shot/mean, by: {margin}}}"
        ))
    };
    let verdicts = judged(&study(&[1, 2, 3], 0.7, 0.5), &[by(5), by(60)], false);
    assert_eq!(verdicts[0].verdict, Verdict::Supported);
    assert_eq!(verdicts[1].verdict, Verdict::Contradicted);
}

#[test]
fn below_three_seeds_every_seed_must_agree() {
    let verdicts = judged(&study(&[1, 2], 0.7, 0.5), &[claim(HIGHER)], false);
    assert_eq!(
        verdicts[0].wording,
        "supported (these seeds), at small scale"
    );

    let disagree = |variant: &str, _: &str, _: &str, seed: u64| {
        Some(match (variant, seed) {
            ("mlm", 1) => 0.9,
            ("mlm", _) => 0.45,
            _ => 0.5,
        })
    };
    let verdicts = judged(
        &sample::results(sample::manifest(&[1, 2]), disagree),
        &[claim(HIGHER)],
        false,
    );
    let estimate = verdicts[0].estimate.as_ref().unwrap();
    assert!(
        estimate.low > 0.0,
        "the items alone would say so: {estimate:?}"
    );
    assert_eq!(
        verdicts[0].wording,
        "inconclusive (these seeds), at small scale"
    );
}

#[test]
fn seeds_that_vary_leave_a_claim_open_that_their_items_would_settle() {
    let varies = |variant: &str, _: &str, _: &str, seed: u64| {
        Some(if variant == "mlm" {
            [0.9, 0.5, 0.55][seed as usize - 1]
        } else {
            0.5
        })
    };
    let results = sample::results(sample::manifest(&[1, 2, 3]), varies);
    assert_eq!(
        judged(&results, &[claim(HIGHER)], false)[0].verdict,
        Verdict::Inconclusive
    );
}

#[test]
fn equivalence_needs_the_whole_interval_inside_the_tolerance() {
    let results = study(&[1, 2, 3], 0.6, 0.5);
    let measured = judged(
        &results,
        &[claim(
            "{says: x, variant: mlm, on: xnli/zero_shot/mean, at_least: 1}",
        )],
        false,
    )[0]
    .estimate
    .clone()
    .unwrap();
    let mut anchors = anchors();
    let row = &mut anchors.files.get_mut("xlm_table1_xnli").unwrap()[0];
    row.value = Some(measured.mean + 0.5);
    let within = |tolerance: f64| {
        let address = "xlm_table1_xnli/XLM (MLM)/zero-shot/avg";
        let fields = format!(
            "{{says: x, variant: mlm, on: xnli/zero_shot/mean, anchor: {address}, within: {tolerance}}}"
        );
        let claims = [claim(&fields)];
        let input = ReportInput {
            results: &results,
            claims: &claims,
            tables: &[],
            labels: &BTreeMap::new(),
            anchors: &anchors,
            profile_is_paper: false,
        };
        judge(&input).unwrap()[0].verdict
    };
    let half = measured.high - measured.mean;
    assert_eq!(within(0.6 + half), Verdict::Supported);
    assert_eq!(within(0.5), Verdict::Inconclusive);
    let row = &mut anchors.files.get_mut("xlm_table1_xnli").unwrap()[0];
    row.value = Some(measured.mean + 2.0 * half);
    let claims = [claim(
        "{says: x, variant: mlm, on: xnli/zero_shot/mean, anchor: xlm_table1_xnli/XLM (MLM)/zero-shot/avg, within: 0.01}",
    )];
    let input = ReportInput {
        results: &results,
        claims: &claims,
        tables: &[],
        labels: &BTreeMap::new(),
        anchors: &anchors,
        profile_is_paper: false,
    };
    assert_eq!(judge(&input).unwrap()[0].verdict, Verdict::Contradicted);
}

#[test]
fn only_a_verified_figure_at_the_papers_own_profile_is_reproduced() {
    let accuracy = |_: &str, _: &str, _: &str, _: u64| Some(0.6);
    let mut manifest = sample::manifest(&[1, 2, 3]);
    manifest.scale = Scale::Paper;
    let mut results = sample::results(manifest, accuracy);
    let within = |row: &str| {
        claim(&format!(
            "{{says: x, variant: mlm, on: xnli/zero_shot/mean, anchor: xlm_table1_xnli/{row}/zero-shot/avg, within: 20}}"
        ))
    };
    let claims = [
        within("XLM (MLM)"),
        within("XLM / from memory"),
        claim("{says: x, variant: mlm, on: xnli/zero_shot/mean, at_least: 50}"),
    ];
    let words = |results: &Results, paper| {
        judged(results, &claims, paper)
            .into_iter()
            .map(|judgement| judgement.wording)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words(&results, true),
        [
            "reproduced",
            "supported, against an unverified figure",
            "supported"
        ]
    );
    assert_eq!(words(&results, false)[0], "supported, at small scale");
    results.manifest.scale = Scale::Synthetic;
    assert_eq!(words(&results, true)[0], "supported, synthetic");
}

#[test]
fn claims_of_one_family_are_adjusted_together() {
    let results = study(&[1, 2, 3], 0.62, 0.6);
    let alone = judged(&results, &[claim(HIGHER)], false);
    let p_alone = alone[0].p_value.unwrap();
    assert_eq!(alone[0].adjusted_p_value, Some(p_alone));
    let mut twenty = vec![claim(HIGHER); 20];
    let together = judged(&results, &twenty, false);
    assert_eq!(together[0].p_value, Some(p_alone));
    assert!((together[0].adjusted_p_value.unwrap() - (20.0 * p_alone).min(1.0)).abs() < 1e-12);
    for claim in &mut twenty[1..] {
        claim.family = Some("another".to_owned());
    }
    let apart = judged(&results, &twenty, false);
    assert_eq!(apart[0].adjusted_p_value, Some(p_alone));
}

#[test]
fn a_claim_about_missing_cells_is_not_run() {
    let results = sample::results(sample::manifest(&[1, 2, 3]), |variant, _, _, _| {
        (variant == "mlm").then_some(0.7)
    });
    let verdicts = judged(&results, &[claim(HIGHER), claim(LOWER)], false);
    assert_eq!(verdicts[0].wording, "not run");
    assert!(!gates(&verdicts)[0].failed);
    let text = with_input(&results, &[claim(HIGHER)], false, |input| {
        markdown(&judge(input).unwrap(), input)
    });
    assert!(
        text.contains("| **not run** |") && text.contains("| – |"),
        "{text}"
    );
}

#[test]
fn selection_on_target_labels_and_collapse_are_said() {
    let results = sample::results(sample::manifest(&[1, 2, 3]), |variant, _, _, _| {
        Some(if variant == "mlm" { 0.7 } else { 0.3333 })
    });
    let claims = [claim(
        "{says: a|b, higher: mlm, than: random, on: xnli/zero_shot/fr, selection: target_dev}",
    )];
    let text = with_input(&results, &claims, false, |input| {
        markdown(&judge(input).unwrap(), input)
    });
    assert!(text.contains("target_dev (uses target labels)"), "{text}");
    assert!(text.contains("a\\|b"), "{text}");
}

fn problems(fields: &str) -> Vec<String> {
    let anchors = anchors();
    let languages = ["en", "fr", "sw"].map(str::to_owned).to_vec();
    let names = Names {
        variants: vec!["random".to_owned(), "mlm".to_owned()],
        evaluations: vec![("xnli".to_owned(), "zero_shot".to_owned(), languages)],
        selections: vec!["source_dev".to_owned()],
        anchors: &anchors,
    };
    let found = claim(fields).validate(&names);
    found
        .into_iter()
        .map(|problem| format!("{}: {}; {}", problem.field, problem.what, problem.remedy))
        .collect()
}

#[test]
fn wrong_claims_are_told_what_would_be_right() {
    let on = "on: xnli/zero_shot/mean";
    let within = "variant: mlm, on: xnli/zero_shot/mean, within: 2, anchor: xlm_table1_xnli";
    for (fields, expected) in [
        (format!("{{says: x, higher: mlm, than: random, {on}}}"), ""),
        (
            format!("{{says: x, variant: mlm, {on}/macro_f1, at_least: 80}}"),
            "",
        ),
        (
            "{says: x, variant: mlm, higher_on: xnli/zero_shot/en, than_on: xnli/zero_shot/fr}"
                .into(),
            "",
        ),
        (
            format!("{{says: x, {within}/XLM (MLM)/zero-shot/avg, gate: true}}"),
            "",
        ),
        (
            format!("{{says: x, {within}/XLM / from memory/zero-shot/avg}}"),
            "",
        ),
        (
            format!("{{says: x, {within}/two metrics/zero-shot/avg/EM}}"),
            "",
        ),
        (
            "{says: x, variant: mlm, on: xnli/zero_shot/mean, within: 0.05, anchor: xlm_table1_xnli/XLM (MLM)/zero-shot/avg}".into(),
            "within: `within` is 0.05, finer than published figures are printed; give at least 0.1",
        ),
        (
            format!("{{says: x, higher: mlm2, than: random, {on}}}"),
            "higher: unknown variant `mlm2`; did you mean `mlm`?",
        ),
        (
            format!("{{says: x, higher: mlm, {on}}}"),
            "than: the claim lacks `than`; add `than`",
        ),
        (
            format!("{{says: x, higher: mlm, than: mlm, {on}}}"),
            "than: a score cannot be higher or lower than itself; compare two variants, or two places",
        ),
        (
            format!("{{says: x, higher: mlm, than: random, {on}, within: 2}}"),
            "within: `within` does not go with the other fields of this claim; a claim with `higher` takes `higher`, `than`, `on`, `by`",
        ),
        (
            "{says: x, variant: mlm}".into(),
            ": the claim \"x\" says nothing that can be measured; give `higher` or `lower`, `than` and `on`; or `variant`, `higher_on` and `than_on`; or `variant`, `on`, `anchor` and `within`; or `variant`, `on` and `at_least`",
        ),
        (
            "{says: x, higher: mlm, than: random, on: xnli/zero_sho/mean}".into(),
            "on: unknown regime `zero_sho`; did you mean `zero_shot`?",
        ),
        (
            "{says: x, higher: mlm, than: random, on: xnli/zero_shot/de}".into(),
            "on: unknown language `de`; one of `en`, `fr`, `mean`, `sw`, `target_mean`",
        ),
        (
            "{says: x, higher: mlm, than: random, on: xnli/zero_shot/mean/acuracy}".into(),
            "on: `xnli/zero_shot/mean/acuracy` is not a place; did you mean `accuracy`?",
        ),
        (
            "{says: x, higher: mlm, than: random, on: zero_shot}".into(),
            "on: `zero_shot` is not a place; write it as task/regime/language, such as xnli/zero_shot/mean",
        ),
        (
            format!("{{says: x, higher: mlm, than: random, {on}, selection: test}}"),
            "selection: unknown selection rule `test`: test sets never select, they are scored once; one of `source_dev`",
        ),
        (
            format!("{{says: x, variant: mlm, {on}, at_least: .nan}}"),
            "at_least: `at_least` is NaN; give it in the metric's unit, from 0 to 100",
        ),
        (
            format!("{{says: x, {within}/XLM (CLM)/zero-shot/avg}}"),
            "anchor: unknown anchor `xlm_table1_xnli/XLM (CLM)/zero-shot/avg`; `xlm_table1_xnli.csv` has no such row; did you mean `xlm_table1_xnli/XLM (MLM)/zero-shot/avg`?",
        ),
        (
            format!("{{says: x, {within}/XLM / from memory/zero-shot/avg, gate: true}}"),
            "anchor: the anchor `xlm_table1_xnli/XLM / from memory/zero-shot/avg` was not verified in a source, so it cannot gate; remove `gate`, or check the figure and write `yes` in its `verified` column",
        ),
        (
            format!("{{says: x, {within}/two metrics/zero-shot/avg}}"),
            "anchor: unknown anchor `xlm_table1_xnli/two metrics/zero-shot/avg`; `xlm_table1_xnli/two metrics/zero-shot/avg` names 2 figures; add the metric, as in `xlm_table1_xnli/two metrics/zero-shot/avg/F1`",
        ),
        (
            format!("{{says: x, {within}/no number/zero-shot/avg}}"),
            "anchor: the anchor `xlm_table1_xnli/no number/zero-shot/avg` has no number; name another row",
        ),
    ] {
        assert_eq!(problems(&fields).join("\n"), expected, "{fields}");
    }
}

#[test]
fn the_committed_anchors_can_be_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/anchors");
    let anchors = Anchors::load(&folder).unwrap();
    let figure = anchors
        .find("xlm_table1_xnli/XLM (MLM)/zero-shot/avg")
        .unwrap();
    assert_eq!((figure.value, figure.verified), (Some(71.5), true));
    let remembered = anchors.find("xtreme_xnli/mBERT/zero-shot/en").unwrap();
    assert!(!remembered.verified);
}

/// P12: tables of different versions of a paper are different rows, so that a claim names the one it means.
#[test]
fn every_committed_figure_has_an_address_of_its_own() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/anchors");
    let anchors = Anchors::load(&folder).unwrap();
    for (file, rows) in &anchors.files {
        for row in rows {
            let address = format!(
                "{file}/{}/{}/{}/{}",
                row.row, row.setting, row.language, row.metric
            );
            assert_eq!(anchors.find(&address), Ok(row), "{address}");
        }
    }
    let version = |row: &str| {
        anchors
            .find(&format!("infoxlm_table_xnli/{row}/zero-shot/avg"))
            .unwrap()
    };
    let (preprint, camera_ready) = (
        version("InfoXLM Base (arXiv v1 values)"),
        version("InfoXLM Base (NAACL values)"),
    );
    assert_ne!(preprint.value, camera_ready.value);
    assert!(preprint.verified && !camera_ready.verified);
}

/// P13: XLM's Table 1 takes translate-train from the cased mBERT and the rest from the uncased one.
#[test]
fn the_mbert_rows_say_which_model_they_are_of() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/anchors");
    let anchors = Anchors::load(&folder).unwrap();
    let mbert: Vec<&Anchor> = anchors.files["xlm_table1_xnli"]
        .iter()
        .filter(|row| row.row.contains("mBERT"))
        .collect();
    assert!(!mbert.is_empty());
    for row in mbert {
        let cased = row.setting == "translate-train";
        assert_eq!(
            row.row.contains("uncased"),
            !cased,
            "{} / {}",
            row.row,
            row.setting
        );
    }
}
