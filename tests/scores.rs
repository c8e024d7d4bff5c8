//! The source files of a results folder, and the estimates made from them.

use std::collections::BTreeMap;

use crate::sample;
use xlt::commands::compare;
use xlt::metrics::Metric;
use xlt::report::results::{self, Results};
use xlt::report::scores::{Cell, CellPredictions, CurvePoint, CurveStage, ItemPrediction};
use xlt::report::summary::{IntervalKind, Query, Summary};
use xlt::report::{self, ReportInput, check, compare::compare as compare_results};
use xlt::spec::anchors::Anchors;
use xlt::spec::claims::{Claim, MEAN, TARGET_MEAN};
use xlt::spec::tables::{Table, TableColumns, TableRows};

fn steady(variant: &str, regime: &str, _language: &str, seed: u64) -> Option<f64> {
    let gain = if variant == "mlm" { 0.15 } else { 0.0 }
        + if regime == "translate_train" {
            0.1
        } else {
            0.0
        };
    Some(0.5 + gain + 0.01 * seed as f64)
}

fn query<'a>(variant: &'a str, regime: &'a str, language: &'a str) -> Query<'a> {
    Query {
        variant,
        task: "xnli",
        regime,
        language,
        selection: "source_dev",
        metric: Metric::Accuracy,
    }
}

fn curves() -> Vec<CurvePoint> {
    let point = |finetune_seed, stage, series: &str, updates, value| CurvePoint {
        variant: "mlm".to_owned(),
        pretrain_seed: 1,
        finetune_seed,
        stage,
        series: series.to_owned(),
        updates,
        tokens: 100 * updates,
        value,
    };
    vec![
        point(Some(1), CurveStage::Finetune, "dev accuracy fr", 10, 61.3),
        point(
            None,
            CurveStage::Pretrain,
            "valid perplexity fr, masked_lm",
            20,
            0.1 + 0.2,
        ),
        point(
            None,
            CurveStage::Pretrain,
            "valid perplexity fr, masked_lm",
            10,
            f64::INFINITY,
        ),
    ]
}

#[test]
fn what_is_written_reads_back_the_same() {
    let mut results = sample::results(sample::manifest(&[1, 2, 3]), steady);
    results = Results::new(
        results.manifest,
        results.predictions,
        Vec::new(),
        Vec::new(),
        curves(),
    );
    let folder = tempfile::tempdir().unwrap();
    results.write_sources(folder.path()).unwrap();
    assert_eq!(Results::read(folder.path()).unwrap(), results);
    for name in [results::SCORES, results::CURVES, results::MANIFEST] {
        assert!(
            !std::fs::read(folder.path().join(name))
                .unwrap()
                .contains(&b'\r'),
            "{name}"
        );
    }
}

#[test]
fn counts_are_whole_numbers_and_other_scores_the_shortest_that_read_back() {
    let cell = Cell {
        variant: "mlm".to_owned(),
        pretrain_seed: 1,
        finetune_seed: 1,
        task: "xnli".to_owned(),
        regime: "zero_shot".to_owned(),
        language: "fr".to_owned(),
        selection: "source_dev".to_owned(),
    };
    let item = |item: u32, predicted, gold| ItemPrediction {
        premise: item / 3,
        item,
        predicted,
        gold,
    };
    let items = vec![item(0, 0, 0), item(1, 1, 1), item(2, 0, 2)];
    let results = Results::new(
        sample::manifest(&[1]),
        vec![CellPredictions { cell, items }],
        Vec::new(),
        Vec::new(),
        Vec::new(),
    );
    let text = String::from_utf8(results::scores_csv(&results.scores).unwrap()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "study,profile,variant,pretrain_seed,finetune_seed,task,regime,language,selection,metric,value,examples"
    );
    let row = "made_up,quick,mlm,1,1,xnli,zero_shot,fr,source_dev";
    assert_eq!(lines[1], format!("{row},accuracy,66.66666666666667,3"));
    assert!(
        lines.contains(&format!("{row},correct,2,3").as_str()),
        "{text}"
    );
    assert!(
        lines.contains(&format!("{row},confusion_entailment_contradiction,1,3").as_str()),
        "{text}"
    );
}

#[test]
fn a_class_that_does_not_exist_is_refused_when_read() {
    let mut results = sample::results(sample::manifest(&[1]), steady);
    results.predictions[0].items[4].predicted = 3;
    let folder = tempfile::tempdir().unwrap();
    // The scores were computed before the prediction was spoilt.
    results.write_sources(folder.path()).unwrap();
    let error = format!("{:#}", Results::read(folder.path()).unwrap_err());
    assert!(
        error.contains("row 4 has a class beyond the 3 of NLI"),
        "{error}"
    );
}

#[test]
fn intervals_speak_of_other_seeds_from_three_seeds_up() {
    let kind = |seeds: &[u64]| {
        let results = sample::results(sample::manifest(seeds), steady);
        Summary::new(&results)
            .estimate(&query("mlm", "zero_shot", MEAN))
            .unwrap()
            .kind
    };
    assert_eq!(kind(&[1, 2]), IntervalKind::Items);
    assert_eq!(kind(&[1, 2, 3]), IntervalKind::SeedsAndItems);
}

#[test]
fn fine_tuning_seeds_are_averaged_within_pretraining_seeds() {
    let mut manifest = sample::manifest(&[1, 2, 3]);
    manifest.seeds.finetune = vec![1, 2];
    let mut results = sample::results(manifest, steady);
    let seconds: Vec<CellPredictions> = results
        .predictions
        .iter()
        .map(|one| CellPredictions {
            cell: Cell {
                finetune_seed: 2,
                ..one.cell.clone()
            },
            items: sample::items(0.9, one.cell.pretrain_seed, &one.cell.language),
        })
        .collect();
    let first_only = Summary::new(&results).estimate(&query("mlm", "zero_shot", "fr"));
    assert_eq!(first_only, None, "a seed without all its runs is not done");
    results.predictions.extend(seconds);
    let results = Results::new(
        results.manifest,
        results.predictions,
        Vec::new(),
        Vec::new(),
        Vec::new(),
    );
    let estimate = Summary::new(&results)
        .estimate(&query("mlm", "zero_shot", "fr"))
        .unwrap();
    assert_eq!(
        (estimate.seeds, estimate.asked, estimate.per_seed.len()),
        (3, 3, 3)
    );
    let accuracy = |finetune_seed| {
        let mut scores = results.scores.iter();
        let wanted = (
            1,
            finetune_seed,
            "mlm",
            "zero_shot",
            "fr",
            "source_dev",
            "accuracy",
        );
        let found = scores.find(|row| {
            let run = (
                row.pretrain_seed,
                row.finetune_seed,
                row.variant.as_str(),
                row.regime.as_str(),
            );
            (
                run.0,
                run.1,
                run.2,
                run.3,
                row.language.as_str(),
                row.selection.as_str(),
                row.metric.as_str(),
            ) == wanted
        });
        found.unwrap().value
    };
    let averaged = (accuracy(1) + accuracy(2)) / 2.0;
    assert!(
        (estimate.per_seed[0] - averaged).abs() < 1e-9,
        "{:?}",
        estimate.per_seed
    );
}

#[test]
fn a_mean_waits_for_every_language_and_counts_the_seeds_that_have_them() {
    let partial = |variant: &str, regime: &str, language: &str, seed: u64| {
        let missing = variant == "mlm" && language == "sw" && seed == 3;
        if missing {
            None
        } else {
            steady(variant, regime, language, seed)
        }
    };
    let results = sample::results(sample::manifest(&[1, 2, 3, 4]), partial);
    let summary = Summary::new(&results);
    let mean = summary.estimate(&query("mlm", "zero_shot", MEAN)).unwrap();
    assert_eq!((mean.seeds, mean.asked), (3, 4));
    assert_eq!(mean.languages, ["en", "fr", "sw"]);
    assert_eq!(
        summary
            .estimate(&query("mlm", "zero_shot", TARGET_MEAN))
            .unwrap()
            .languages,
        ["fr", "sw"]
    );
    assert_eq!(
        summary
            .estimate(&query("mlm", "zero_shot", "fr"))
            .unwrap()
            .seeds,
        4
    );
    assert_eq!(summary.estimate(&query("mlm", "zero_shot", "de")), None);
    assert_eq!(
        summary.estimate(&query("mlm", "translate_test", MEAN)),
        None
    );
    let difference = summary
        .difference(
            &query("mlm", "zero_shot", MEAN),
            &query("random", "zero_shot", MEAN),
        )
        .unwrap();
    assert_eq!(
        (difference.seeds, difference.asked),
        (3, 4),
        "only the seeds that both have are paired"
    );
}

#[test]
fn pairing_narrows_a_difference() {
    let results = sample::results(sample::manifest(&[1, 2, 3]), steady);
    let summary = Summary::new(&results);
    let (first, second) = (
        query("mlm", "zero_shot", "fr"),
        query("random", "zero_shot", "fr"),
    );
    let paired = summary.difference(&first, &second).unwrap();
    let (one, two) = (
        summary.estimate(&first).unwrap(),
        summary.estimate(&second).unwrap(),
    );
    assert!((paired.mean - (one.mean - two.mean)).abs() < 1e-9);
    assert!(
        paired.spread.item_variance < 0.8 * (one.spread.item_variance + two.spread.item_variance)
    );
}

#[test]
fn means_of_regimes_with_different_languages_are_compared_over_those_in_both() {
    let mut manifest = sample::manifest(&[1, 2, 3]);
    manifest.evaluations[1].languages = vec!["en".to_owned(), "sw".to_owned()];
    let results = sample::results(manifest, steady);
    let summary = Summary::new(&results);
    let difference = summary.difference(
        &query("mlm", "translate_train", MEAN),
        &query("mlm", "zero_shot", MEAN),
    );
    assert_eq!(difference.unwrap().languages, ["en", "sw"]);
}

#[test]
fn accuracy_is_rounded_from_counts() {
    let results = sample::results(sample::manifest(&[1, 2]), steady);
    let estimate = Summary::new(&results)
        .estimate(&query("mlm", "zero_shot", MEAN))
        .unwrap();
    let (correct, answers) = estimate.counts.unwrap();
    assert_eq!(answers, 2 * 3 * 3 * u64::from(sample::PREMISES));
    assert!((100.0 * correct as f64 / answers as f64 - estimate.mean).abs() < 1e-9);
    // 1 of 8 is 12.5 %, 1 of 16 is 6.25 %: halves go up, as people round.
    assert_eq!(report::format::ratio_percent(1, 16), "6.3");
    assert_eq!(report::format::ratio_percent(2, 3), "66.7");
}

fn table() -> Table {
    Table {
        name: "zero_shot".to_owned(),
        rows: TableRows::Variants,
        columns: TableColumns::Languages,
        task: "xnli".to_owned(),
        regime: Some("zero_shot".to_owned()),
        select: None,
        metric: None,
        paper_rows: None,
        caption: None,
    }
}

fn with_report(action: impl FnOnce(&std::path::Path, &Results, &BTreeMap<String, Vec<u8>>)) {
    let results = sample::results(sample::manifest(&[1, 2]), steady);
    let claims = [Claim {
        says: "better".to_owned(),
        higher: Some("mlm".to_owned()),
        than: Some("random".to_owned()),
        on: Some("xnli/zero_shot/mean".to_owned()),
        ..Claim::default()
    }];
    let tables = [table()];
    let (labels, anchors) = (BTreeMap::new(), Anchors::default());
    let input = ReportInput {
        results: &results,
        claims: &claims,
        tables: &tables,
        labels: &labels,
        anchors: &anchors,
        profile_is_paper: false,
    };
    let rendered = report::render(&input).unwrap().0;
    assert_eq!(
        rendered,
        report::render(&input).unwrap().0,
        "the same input gives the same bytes"
    );
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("results/made_up/quick");
    results.write_sources(&folder).unwrap();
    report::write(&folder, &rendered).unwrap();
    action(&folder, &results, &rendered);
}

#[test]
fn a_fresh_report_is_not_stale() {
    with_report(|folder, results, rendered| {
        assert_eq!(
            check(folder, results, rendered, "xlt report", "xlt run").unwrap(),
            []
        );
    });
}

#[test]
fn every_stale_file_is_listed_with_its_first_difference() {
    with_report(|folder, results, rendered| {
        let claims = std::fs::read_to_string(folder.join("claims.md")).unwrap();
        std::fs::write(folder.join("claims.md"), claims.replacen("made", "Made", 1)).unwrap();
        std::fs::remove_file(folder.join("tables/zero_shot.tex")).unwrap();
        std::fs::write(folder.join("plots").join("old.svg"), "<svg/>")
            .or_else(|_| {
                std::fs::create_dir(folder.join("plots"))?;
                std::fs::write(folder.join("plots/old.svg"), "<svg/>")
            })
            .unwrap();
        let scores = std::fs::read_to_string(folder.join("scores.csv")).unwrap();
        std::fs::write(
            folder.join("scores.csv"),
            scores.replacen(",accuracy,", ",accuracy,1", 1),
        )
        .unwrap();

        let stale = check(
            folder,
            results,
            rendered,
            "xlt report s.yaml",
            "xlt run s.yaml",
        )
        .unwrap();
        let named: Vec<(&str, &str)> = stale
            .iter()
            .map(|stale| (stale.file.as_str(), stale.command.as_str()))
            .collect();
        assert_eq!(
            named,
            [
                ("scores.csv", "xlt run s.yaml"),
                ("claims.md", "xlt report s.yaml"),
                ("tables/zero_shot.tex", "xlt report s.yaml"),
                ("plots/old.svg", "xlt report s.yaml"),
            ]
        );
        assert!(
            stale[0].difference.starts_with("line 2: "),
            "{}",
            stale[0].difference
        );
        assert!(
            stale[1].difference.starts_with("line 1: \"# Claims: Made"),
            "{}",
            stale[1].difference
        );
        assert_eq!(stale[2].difference, "the file is missing");

        results.write_sources(folder).unwrap();
        report::write(folder, rendered).unwrap();
        assert_eq!(
            check(folder, results, rendered, "", "").unwrap(),
            [],
            "the commands mend it"
        );
    });
}

#[test]
fn parquet_is_compared_decoded() {
    with_report(|folder, results, rendered| {
        let path = folder.join("scores.parquet");
        let mut frame = results::decode_parquet(std::fs::read(&path).unwrap()).unwrap();
        let file = std::fs::File::create(&path).unwrap();
        polars::prelude::ParquetWriter::new(file)
            .with_compression(polars::prelude::ParquetCompression::Uncompressed)
            .finish(&mut frame)
            .unwrap();
        assert_eq!(check(folder, results, rendered, "", "").unwrap(), []);
        let file = std::fs::File::create(&path).unwrap();
        polars::prelude::ParquetWriter::new(file)
            .finish(&mut frame.head(Some(3)))
            .unwrap();
        let stale = check(folder, results, rendered, "", "").unwrap();
        assert_eq!(stale[0].file, "scores.parquet");
        assert!(
            stale[0].difference.starts_with("3 rows"),
            "{}",
            stale[0].difference
        );
    });
}

#[test]
fn changed_settings_make_scores_stale() {
    let manifest = sample::manifest(&[1]);
    assert_eq!(
        report::settings_match(&manifest, "0123", "xlt run s.yaml"),
        None
    );
    let stale = report::settings_match(&manifest, "4567", "xlt run s.yaml").unwrap();
    assert_eq!(
        (stale.file.as_str(), stale.command.as_str()),
        ("manifest.json", "xlt run s.yaml")
    );
}

#[test]
fn compare_lists_the_cells_that_differ_by_more_than_noise() {
    let first = sample::results(sample::manifest(&[1, 2, 3]), steady);
    let better = |variant: &str, regime: &str, language: &str, seed: u64| {
        let gain = if variant == "mlm" && language == "fr" {
            0.1
        } else {
            0.0
        };
        if variant == "random" && language == "sw" {
            None
        } else {
            Some(steady(variant, regime, language, seed)? + gain)
        }
    };
    let second = sample::results(sample::manifest(&[1, 2, 3]), better);
    let comparison = compare_results(&first, &second);
    assert_eq!(
        (
            comparison.compared,
            comparison.only_in_first,
            comparison.only_in_second
        ),
        (20, 4, 0)
    );
    let cells: Vec<(&str, &str, &str)> = comparison
        .different
        .iter()
        .map(|cell| {
            (
                cell.variant.as_str(),
                cell.regime.as_str(),
                cell.language.as_str(),
            )
        })
        .collect();
    assert_eq!(
        cells,
        [
            ("mlm", "zero_shot", "fr"),
            ("mlm", "zero_shot", "fr"),
            ("mlm", "translate_train", "fr"),
            ("mlm", "translate_train", "fr")
        ]
    );
    assert!(comparison.different.iter().all(|cell| cell.high < 0.0));
    assert!(compare_results(&first, &first).different.is_empty());

    let mut other_items = first.clone();
    for one in &mut other_items.predictions {
        one.items[0].gold = (one.items[0].gold + 1) % 3;
    }
    let comparison = compare_results(&first, &other_items);
    assert_eq!(
        (comparison.compared, comparison.other_test_set),
        (0, 24),
        "other items cannot be paired"
    );
}

#[test]
fn the_compare_command_prints_a_table_or_json() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample::results(sample::manifest(&[1, 2]), steady)
        .write_sources(one.path())
        .unwrap();
    sample::results(sample::manifest(&[1, 2]), |_, _, _, _| Some(0.8))
        .write_sources(two.path())
        .unwrap();
    let print = |json| {
        let args = compare::Args {
            first: one.path().into(),
            second: two.path().into(),
            json,
        };
        let mut output = Vec::new();
        compare::run(&args, &mut output).unwrap();
        String::from_utf8(output).unwrap()
    };
    let text = print(false);
    assert!(
        text.contains("(these seeds)") && text.contains("of 24 cells differ; 1.2 would by chance"),
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&print(true)).unwrap();
    assert_eq!(json["compared"], 24);
    let args = compare::Args {
        first: one.path().join("nothing"),
        second: two.path().into(),
        json: false,
    };
    let error = format!("{:#}", compare::run(&args, &mut Vec::new()).unwrap_err());
    assert!(error.contains("`xlt run` writes it"), "{error}");
}
