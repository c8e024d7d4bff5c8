//! BLEU and chrF against sacreBLEU, on the invented lines of `tests/oracles/translation_metrics.py`.

use std::collections::BTreeMap;

use serde::Deserialize;

use xlt::metrics::bleu::{self, BleuCounts, Smoothing, bleu_counts};
use xlt::metrics::chrf::{self, ChrfCounts, ChrfVariant, chrf_counts};
use xlt::metrics::translation_tokens::Tokenization;

#[derive(Deserialize)]
struct Fixture {
    signatures: Signatures,
    cases: Vec<Case>,
}

/// Without their versions.
#[derive(Deserialize)]
struct Signatures {
    bleu: BTreeMap<String, String>,
    bleu_lowercase_none: String,
    chrf: String,
    chrf_plus_plus_lowercase: String,
}

/// A corpus.
#[derive(Deserialize)]
struct Case {
    name: String,
    hypotheses: Vec<String>,
    references: Vec<String>,
    bleu: BTreeMap<String, Bleu>,
    chrf: Chrf,
    /// As it is printed; none where it does not run, or would split at fewer spaces.
    multi_bleu: Option<String>,
}

/// With one tokenization: of each sentence, then of the corpus.
#[derive(Deserialize)]
struct Bleu {
    tokenized_hypotheses: Vec<String>,
    tokenized_references: Vec<String>,
    /// Of hypothesis and reference.
    lengths: Vec<[u64; 2]>,
    matches: Vec<[u64; 4]>,
    totals: Vec<[u64; 4]>,
    /// By smoothing; what follows is smoothed too.
    exp: f64,
    none: f64,
    precisions: [f64; 4],
    brevity_penalty: f64,
    lowercase: f64,
}

/// Of each sentence, then of the corpus.
#[derive(Deserialize)]
struct Chrf {
    hypothesis: Vec<[u64; 8]>,
    reference: Vec<[u64; 8]>,
    matches: Vec<[u64; 8]>,
    chrf: f64,
    chrf_plus_plus: f64,
    lowercase: f64,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/translation_metrics.json")).unwrap()
}

impl Case {
    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        assert_eq!(self.hypotheses.len(), self.references.len());
        let hypotheses = self.hypotheses.iter().map(String::as_str);
        hypotheses.zip(self.references.iter().map(String::as_str))
    }

    fn lowercase_pairs(&self) -> impl Iterator<Item = (String, String)> {
        self.pairs()
            .map(|(hypothesis, reference)| (hypothesis.to_lowercase(), reference.to_lowercase()))
    }
}

/// Every case with every tokenization.
fn for_each_tokenization(check: impl Fn(&Case, Tokenization, &Bleu)) {
    for case in &fixture().cases {
        assert_eq!(case.bleu.len(), Tokenization::ALL.len());
        for tokenization in Tokenization::ALL {
            check(case, tokenization, &case.bleu[tokenization.name()]);
        }
    }
}

fn bleu_sum(sentences: impl IntoIterator<Item = BleuCounts>) -> BleuCounts {
    let mut sum = BleuCounts::default();
    for sentence in sentences {
        sum.add(&sentence);
    }
    sum
}

fn chrf_sum(sentences: impl IntoIterator<Item = ChrfCounts>) -> ChrfCounts {
    let mut sum = ChrfCounts::default();
    for sentence in sentences {
        sum.add(&sentence);
    }
    sum
}

/// Equal bits. Where logarithms and exponentials come from another library than glibc's, as they did in Python: nearly.
#[track_caller]
fn equal(ours: f64, theirs: f64, context: &str) {
    let tolerance = match cfg!(all(target_os = "linux", target_env = "gnu")) {
        true => 0.0,
        false => 1e-13 * theirs,
    };
    assert!(
        (ours - theirs).abs() <= tolerance,
        "{context}: {ours} is not {theirs}"
    );
}

#[test]
fn every_tokenizer_gives_the_lines_of_sacrebleu() {
    for_each_tokenization(|case, tokenization, expected| {
        let context = format!("{} {}", case.name, tokenization.name());
        let tokenize = |lines: &[String]| -> Vec<String> {
            lines
                .iter()
                .map(|line| tokenization.tokenize(line).into_owned())
                .collect()
        };
        assert_eq!(
            tokenize(&case.hypotheses),
            expected.tokenized_hypotheses,
            "{context}"
        );
        assert_eq!(
            tokenize(&case.references),
            expected.tokenized_references,
            "{context}"
        );
    });
}

#[test]
fn sentences_have_the_counts_of_sacrebleu() {
    for_each_tokenization(|case, tokenization, expected| {
        for (row, (hypothesis, reference)) in case.pairs().enumerate() {
            let theirs = BleuCounts {
                matches: expected.matches[row],
                totals: expected.totals[row],
                hypothesis_length: expected.lengths[row][0],
                reference_length: expected.lengths[row][1],
            };
            let ours = bleu_counts(hypothesis, reference, tokenization);
            assert_eq!(ours, theirs, "{} {} {row}", case.name, tokenization.name());
        }
    });
    for case in &fixture().cases {
        for (row, (hypothesis, reference)) in case.pairs().enumerate() {
            let theirs = ChrfCounts {
                hypothesis: case.chrf.hypothesis[row],
                reference: case.chrf.reference[row],
                matches: case.chrf.matches[row],
            };
            let ours = chrf_counts(hypothesis, reference);
            assert_eq!(ours, theirs, "{} {row}", case.name);
        }
    }
}

#[test]
fn bleu_equals_sacrebleu_to_the_last_digit() {
    for_each_tokenization(|case, tokenization, expected| {
        let context = format!("{} {}", case.name, tokenization.name());
        let sum = bleu_sum(
            case.pairs()
                .map(|(hypothesis, reference)| bleu_counts(hypothesis, reference, tokenization)),
        );
        equal(sum.bleu(Smoothing::Exponential), expected.exp, &context);
        equal(sum.bleu(Smoothing::None), expected.none, &context);
        let precisions = sum.precisions(Smoothing::Exponential);
        for (ours, theirs) in precisions.into_iter().zip(expected.precisions) {
            equal(ours, theirs, &context);
        }
        equal(sum.brevity_penalty(), expected.brevity_penalty, &context);
    });
}

#[test]
fn chrf_equals_sacrebleu_to_the_last_digit() {
    for case in &fixture().cases {
        let counts = case
            .pairs()
            .map(|(hypothesis, reference)| chrf_counts(hypothesis, reference));
        let sum = chrf_sum(counts);
        equal(sum.score(ChrfVariant::Chrf), case.chrf.chrf, &case.name);
        equal(
            sum.score(ChrfVariant::ChrfPlusPlus),
            case.chrf.chrf_plus_plus,
            &case.name,
        );
    }
}

#[test]
fn scores_regardless_of_case_are_those_of_lower_case_lines() {
    let mut moved = 0;
    for_each_tokenization(|case, tokenization, expected| {
        let sum = bleu_sum(
            case.lowercase_pairs()
                .map(|(hypothesis, reference)| bleu_counts(&hypothesis, &reference, tokenization)),
        );
        equal(
            sum.bleu(Smoothing::Exponential),
            expected.lowercase,
            &case.name,
        );
    });
    for case in &fixture().cases {
        let counts = case
            .lowercase_pairs()
            .map(|(hypothesis, reference)| chrf_counts(&hypothesis, &reference));
        let sum = chrf_sum(counts);
        equal(
            sum.score(ChrfVariant::Chrf),
            case.chrf.lowercase,
            &case.name,
        );
        moved += usize::from(case.chrf.lowercase != case.chrf.chrf);
    }
    assert!(moved > 0, "no case of the fixture depends on case");
}

#[test]
fn bleu_without_tokenizer_and_smoothing_is_multi_bleu() {
    let mut compared = 0;
    for case in &fixture().cases {
        let Some(printed) = &case.multi_bleu else {
            continue;
        };
        let sum =
            bleu_sum(case.pairs().map(|(hypothesis, reference)| {
                bleu_counts(hypothesis, reference, Tokenization::None)
            }));
        let ours = format!("{:.2}", sum.bleu(Smoothing::None));
        assert_eq!(ours, *printed, "{}", case.name);
        compared += 1;
    }
    assert!(compared >= 8);
}

#[test]
fn signatures_are_those_of_sacrebleu_but_for_the_version() {
    let Signatures {
        bleu: by_tokenization,
        bleu_lowercase_none,
        chrf: characters,
        chrf_plus_plus_lowercase,
    } = fixture().signatures;
    let version = concat!("|version:xlt-", env!("CARGO_PKG_VERSION"));
    for tokenization in Tokenization::ALL {
        assert_eq!(
            bleu::signature(tokenization, Smoothing::default(), false),
            by_tokenization[tokenization.name()].clone() + version
        );
    }
    assert_eq!(
        bleu::signature(Tokenization::Mteval13a, Smoothing::None, true),
        bleu_lowercase_none + version
    );
    assert_eq!(
        chrf::signature(ChrfVariant::Chrf, false),
        characters + version
    );
    assert_eq!(
        chrf::signature(ChrfVariant::ChrfPlusPlus, true),
        chrf_plus_plus_lowercase + version
    );
}

#[test]
fn names_in_study_files_are_those_of_signatures() {
    for tokenization in Tokenization::ALL {
        let written = serde_json::to_value(tokenization).unwrap();
        assert_eq!(written, tokenization.name());
        let read: Tokenization = serde_json::from_value(written).unwrap();
        assert_eq!(read, tokenization);
    }
    for smoothing in Smoothing::ALL {
        let written = serde_json::to_value(smoothing).unwrap();
        assert_eq!(written, smoothing.name());
        let read: Smoothing = serde_json::from_value(written).unwrap();
        assert_eq!(read, smoothing);
    }
}

#[test]
fn a_match_counts_no_more_often_than_the_reference_has_it() {
    // Papineni et al. 2002, section 2.1: a modified unigram precision of 2/7.
    let counts = bleu_counts(
        "the the the the the the the",
        "the cat is on the mat",
        Tokenization::None,
    );
    assert_eq!((counts.matches[0], counts.totals[0]), (2, 7));
}

#[test]
fn a_corpus_without_words_scores_zero() {
    let empty = BleuCounts::default();
    for smoothing in Smoothing::ALL {
        assert_eq!(empty.bleu(smoothing), 0.0);
        assert_eq!(empty.precisions(smoothing), [0.0; 4]);
    }
    for variant in [ChrfVariant::Chrf, ChrfVariant::ChrfPlusPlus] {
        assert_eq!(ChrfCounts::default().score(variant), 0.0);
    }
}

#[test]
fn lines_of_a_hundred_thousand_words_are_counted() {
    // Pairs of all words or characters would be 10^10.
    let words = 100_000;
    let (hypothesis, reference) = ("a ".repeat(words), "a b ".repeat(words / 2));
    let counts = bleu_counts(&hypothesis, &reference, Tokenization::None);
    assert_eq!(counts.matches, [50_000, 0, 0, 0]);
    assert_eq!(counts.totals, [100_000, 99_999, 99_998, 99_997]);
    let counts = chrf_counts(&reference, &reference);
    assert_eq!(counts.matches, counts.reference);
    assert_eq!(counts.matches[5], 99_995);
    for tokenization in Tokenization::ALL {
        let line = "1.a".repeat(words);
        assert!(!tokenization.tokenize(&line).is_empty());
    }
}
