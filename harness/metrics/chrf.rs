//! chrF (Popović 2015) and chrF++ (Popović 2017) of a corpus with one reference per sentence, as sacreBLEU 2.6 computes
//! them (Post 2018).
//!
//! ```text
//! chrF = 100 (1 + β²) P R / (β² P + R)                 β = 2: recall weighs more
//! P    = mean over n of matches_n / hypothesis_n       over the orders n of which both sides have n-grams
//! R    = mean over n of matches_n / reference_n
//! ```
//! Orders are those of characters from 1 to 6, white space left out; chrF++ adds those of words, 1 and 2. Sums over
//! sentences decide it, which [`ChrfCounts`] holds for both variants. The arithmetic is done in sacreBLEU's order, so that
//! scores agree to the last digit.
//! Differs: the paper takes the mean over all six orders. sacreBLEU leaves out those of which one side has no n-gram, which
//! matters in corpora of very short sentences.

use std::array;

use serde::{Deserialize, Serialize};

use super::ngrams::{shared_characters, shared_words, totals};
use super::translation_tokens::{is_space, words};

/// The highest order of n-grams of characters.
pub const CHARACTER_ORDER: usize = 6;
/// The highest order of n-grams of words, in chrF++.
pub const WORD_ORDER: usize = 2;
/// First those of characters, then those of words.
pub const ORDERS: usize = CHARACTER_ORDER + WORD_ORDER;

/// β² of the F-score.
const BETA_SQUARED: f64 = 4.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChrfVariant {
    /// Of characters alone.
    Chrf,
    /// Of words too.
    ChrfPlusPlus,
}

/// Sufficient statistics of chrF for a sentence, or sums of them over a corpus. Arrays are by order: characters from one to
/// six, words from one to two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChrfCounts {
    /// N-grams of the hypothesis; none of an order of which its reference has none.
    pub hypothesis: [u64; ORDERS],
    pub reference: [u64; ORDERS],
    /// N-grams of the hypothesis that its reference has too; one counts no more often than the reference has it.
    pub matches: [u64; ORDERS],
}

/// The statistics of one sentence. For a score that ignores case, hand over both in lower case.
pub fn chrf_counts(hypothesis: &str, reference: &str) -> ChrfCounts {
    let characters = |line: &str| -> Vec<char> {
        line.chars()
            .filter(|&character| !is_space(character))
            .collect()
    };
    let (hypothesis_characters, reference_characters) =
        (characters(hypothesis), characters(reference));
    let (hypothesis_words, reference_words) = (chrf_words(hypothesis), chrf_words(reference));

    let totals =
        |characters: &[char], words: &[&str]| joined(totals(characters.len()), totals(words.len()));
    let reference = totals(&reference_characters, &reference_words);
    let hypothesis = totals(&hypothesis_characters, &hypothesis_words);
    ChrfCounts {
        hypothesis: array::from_fn(|order| match reference[order] {
            0 => 0,
            _ => hypothesis[order],
        }),
        reference,
        matches: joined(
            shared_characters(&hypothesis_characters, &reference_characters),
            shared_words(&hypothesis_words, &reference_words),
        ),
    }
}

/// What a score was computed with, in sacreBLEU's form.
pub fn signature(variant: ChrfVariant, lowercase: bool) -> String {
    format!(
        "nrefs:1|case:{}|eff:yes|nc:{CHARACTER_ORDER}|nw:{}|space:no|version:xlt-{}",
        if lowercase { "lc" } else { "mixed" },
        variant.orders() - CHARACTER_ORDER,
        env!("CARGO_PKG_VERSION"),
    )
}

impl ChrfVariant {
    fn orders(self) -> usize {
        match self {
            Self::Chrf => CHARACTER_ORDER,
            Self::ChrfPlusPlus => ORDERS,
        }
    }
}

impl ChrfCounts {
    pub fn add(&mut self, other: &Self) {
        for order in 0..ORDERS {
            self.hypothesis[order] += other.hypothesis[order];
            self.reference[order] += other.reference[order];
            self.matches[order] += other.matches[order];
        }
    }

    /// 0-100; zero without a match.
    pub fn score(&self, variant: ChrfVariant) -> f64 {
        let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
        for order in 0..variant.orders() {
            if self.hypothesis[order] > 0 && self.reference[order] > 0 {
                let matches = self.matches[order] as f64;
                precision += matches / self.hypothesis[order] as f64;
                recall += matches / self.reference[order] as f64;
                orders += 1.0;
            }
        }
        // Neither has a match without the other, so this is no order at all, or no match in any.
        if precision + recall == 0.0 {
            return 0.0;
        }
        precision /= orders;
        recall /= orders;
        let score = (1.0 + BETA_SQUARED) * precision * recall;
        100.0 * (score / (BETA_SQUARED * precision + recall))
    }
}

fn joined(characters: [u64; CHARACTER_ORDER], words: [u64; WORD_ORDER]) -> [u64; ORDERS] {
    let mut orders = [0; ORDERS];
    orders[..CHARACTER_ORDER].copy_from_slice(&characters);
    orders[CHARACTER_ORDER..].copy_from_slice(&words);
    orders
}

/// What stands between white space, less one mark of ASCII punctuation at its end; if there is none, at its start. The
/// mark is a word too. So of `(so)` only the last bracket is split off, as by the program of the paper.
fn chrf_words(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for word in words(line) {
        let mut characters = word.chars();
        match (characters.next(), characters.next_back()) {
            (Some(_), Some(last)) if last.is_ascii_punctuation() => {
                found.extend([&word[..word.len() - 1], &word[word.len() - 1..]]);
            }
            (Some(first), Some(_)) if first.is_ascii_punctuation() => {
                found.extend([&word[..1], &word[1..]]);
            }
            _ => found.push(word),
        }
    }
    found
}
