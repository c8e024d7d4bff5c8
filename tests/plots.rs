//! Plots: the same bytes for the same results, everything named, nothing lost.

use crate::fake_results::{Shape, results};
use std::collections::BTreeMap;
use xlt::report::ReportInput;
use xlt::report::plots::{self, Drawing};
use xlt::report::results::Results;
use xlt::report::summary::Summary;
use xlt::spec::anchors::Anchors;

fn draw(results: &Results, labels: &BTreeMap<String, String>) -> Vec<Drawing> {
    let input = ReportInput {
        results,
        claims: &[],
        tables: &[],
        labels,
        anchors: &Anchors::default(),
        profile_is_paper: false,
    };
    plots::draw(&input, &Summary::new(results)).unwrap()
}

fn svg(results: &Results, name: &str) -> String {
    let drawings = draw(results, &BTreeMap::new());
    let drawing = drawings.into_iter().find(|drawing| drawing.name == name);
    drawing.unwrap().svg
}

/// A change of these hashes is a change of every committed plot: look at the plots, then regenerate the results.
#[test]
fn drawings_keep_their_bytes() {
    let results = results(&Shape::usual());
    for (name, golden) in [
        ("accuracy", "7108b786d41de2c5"),
        ("learning_curves", "bf8e889821a2cc94"),
    ] {
        let hash = blake3::hash(svg(&results, name).as_bytes()).to_hex();
        assert_eq!(&hash[..16], golden, "{name}");
    }
}

#[test]
fn drawings_of_the_same_results_are_the_same() {
    let results = results(&Shape::least());
    let first = draw(&results, &BTreeMap::new());
    assert_eq!(first, draw(&results, &BTreeMap::new()));
    let names: Vec<&str> = first.iter().map(|drawing| drawing.name).collect();
    assert_eq!(
        names,
        ["accuracy", "transfer_gap", "learning_curves"],
        "one regime alone is not compared"
    );
}

#[test]
fn every_language_variant_and_regime_is_named() {
    let shape = Shape::large();
    let results = results(&shape);
    let labels = BTreeMap::from([("zero_shot".to_string(), "zero-shot <transfer>".to_string())]);
    for drawing in draw(&results, &labels) {
        let shown = |text: &str| {
            let text = text.replace('<', "&lt;").replace('>', "&gt;");
            assert!(
                drawing.svg.contains(&format!("\n{text}\n")),
                "{text} in {}",
                drawing.name
            );
        };
        shape.variants.iter().for_each(|(_, label)| shown(label));
        if drawing.name != "learning_curves" {
            shape.languages[1..]
                .iter()
                .for_each(|(code, _)| shown(code));
        }
        if drawing.name == "regimes" {
            for label in [
                "zero-shot <transfer>",
                "translate-train",
                "translate-test",
                "translate-train-all",
            ] {
                shown(label);
            }
        }
    }
}

#[test]
fn what_a_reader_must_know_stands_under_the_title() {
    let drawing = svg(&results(&Shape::least()), "accuracy");
    for text in [
        "1 seed, 180 test examples",
        "95 % interval over test items",
        "Synthetic languages.",
        "chance 33.3",
    ] {
        assert!(drawing.contains(text), "{text}");
    }
    let usual = svg(&results(&Shape::usual()), "regimes");
    assert!(usual.contains("Hollow: a seed is at chance.") && usual.contains("Dash: no result."));
}

#[test]
fn results_without_scores_have_no_plots() {
    let mut results = results(&Shape::usual());
    results.predictions.clear();
    results.curves.clear();
    assert!(draw(&results, &BTreeMap::new()).is_empty());
}

#[test]
fn values_that_are_not_finite_are_left_out_of_a_curve() {
    let mut results = results(&Shape::usual());
    let before = svg(&results, "learning_curves");
    let mut point = results.curves[0].clone();
    (point.value, point.tokens) = (f64::NAN, 999_999_999);
    results.curves.push(point);
    assert_eq!(svg(&results, "learning_curves"), before);
}
