//! BLEU (Papineni et al. 2002) of a corpus with one reference per sentence, as sacreBLEU 2.6 computes it (Post 2018).
//!
//! ```text
//! BLEU = BP exp(1/4 sum_{n = 1..4} ln p_n)
//! p_n  = 100 sum_s matches_n(s) / sum_s totals_n(s)    n-grams of the hypothesis s: those of its reference, and all
//! BP   = exp(1 - r / c) if c < r, else 1               r, c: words of all references, of all hypotheses
//! ```
//! Ten sums over sentences decide it, which [`BleuCounts`] holds: a corpus, or a resample of it (Koehn 2004), is scored by
//! adding up its sentences. The arithmetic is done in sacreBLEU's order, so that scores agree to the last digit.
//! Differs: `sum` compensates for rounding since Python 3.12, and the last digit is another there in three of ten scores.
//!
//! `multi-bleu.perl` of Moses, which XLM reports (Lample and Conneau 2019), is [`Tokenization::None`] with
//! [`Smoothing::None`], on text that is tokenized already.
//! Differs: to Perl only ASCII's white space separates words (Moses' tokenizer leaves no other); without a word in any
//! hypothesis it stops at a division by zero, and the score is 0 here; a reference longer or shorter than its hypothesis
//! by 9999 words or more counts as one of 9999. Its logarithms are those of fractions, not of percent: the two decimals
//! that it prints agree, the last digit may not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ngrams::{shared_words, totals};
use super::translation_tokens::{Tokenization, words};

/// The highest order of n-grams.
pub const ORDER: usize = 4;

/// What stands for the logarithm of zero: sacreBLEU's number, and that of `multi-bleu.perl`.
const LOGARITHM_OF_ZERO: f64 = -9_999_999_999.0;

/// What becomes of an order without a match, which alone would make the score zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Smoothing {
    /// The first such order is taken to have half a match, the next a quarter, and so on: that of mteval-v13a, the third
    /// method of Chen and Cherry (2014). An order without n-grams, or a corpus without any match, still scores zero.
    #[default]
    #[serde(rename = "exp")]
    Exponential,
    /// The score is zero.
    #[serde(rename = "none")]
    None,
}

/// Sufficient statistics of BLEU for a sentence, or sums of them over a corpus. Arrays are by order, from one on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BleuCounts {
    /// N-grams of the hypothesis that its reference has too; one counts no more often than the reference has it.
    pub matches: [u64; ORDER],
    /// N-grams of the hypothesis.
    pub totals: [u64; ORDER],
    /// Words.
    pub hypothesis_length: u64,
    pub reference_length: u64,
}

/// The statistics of one sentence. For a score that ignores case, hand over both in lower case.
pub fn bleu_counts(hypothesis: &str, reference: &str, tokenization: Tokenization) -> BleuCounts {
    let hypothesis = tokenization.tokenize(hypothesis);
    let reference = tokenization.tokenize(reference);
    let hypothesis: Vec<&str> = words(&hypothesis).collect();
    let reference: Vec<&str> = words(&reference).collect();
    BleuCounts {
        matches: shared_words(&hypothesis, &reference),
        totals: totals(hypothesis.len()),
        hypothesis_length: hypothesis.len() as u64,
        reference_length: reference.len() as u64,
    }
}

/// What a score was computed with, in sacreBLEU's form.
pub fn signature(tokenization: Tokenization, smoothing: Smoothing, lowercase: bool) -> String {
    format!(
        "nrefs:1|case:{}|eff:no|tok:{}|smooth:{}|version:xlt-{}",
        if lowercase { "lc" } else { "mixed" },
        tokenization.name(),
        smoothing.name(),
        env!("CARGO_PKG_VERSION"),
    )
}

impl Smoothing {
    pub const ALL: [Self; 2] = [Self::Exponential, Self::None];

    /// As it stands in signatures and study files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exponential => "exp",
            Self::None => "none",
        }
    }
}

impl BleuCounts {
    pub fn add(&mut self, other: &Self) {
        for order in 0..ORDER {
            self.matches[order] += other.matches[order];
            self.totals[order] += other.totals[order];
        }
        self.hypothesis_length += other.hypothesis_length;
        self.reference_length += other.reference_length;
    }

    /// 0-100, up to rounding (of equal lines it may be a little more); zero without a match.
    pub fn bleu(&self, smoothing: Smoothing) -> f64 {
        if self.matches == [0; ORDER] {
            return 0.0;
        }
        let logarithm = |precision: f64| match precision {
            0.0 => LOGARITHM_OF_ZERO,
            _ => precision.ln(),
        };
        let sum: f64 = self.precisions(smoothing).map(logarithm).iter().sum();
        self.brevity_penalty() * (sum / ORDER as f64).exp()
    }

    /// Share of the n-grams of hypotheses that match, by order, percent: smoothed where there are n-grams of the order and
    /// a match of any.
    pub fn precisions(&self, smoothing: Smoothing) -> [f64; ORDER] {
        let mut precisions = [0.0; ORDER];
        if self.matches == [0; ORDER] {
            return precisions;
        }
        let mut halvings = 1.0;
        let counts = self.matches.iter().zip(&self.totals);
        for (precision, (&matches, &total)) in precisions.iter_mut().zip(counts) {
            // No longer n-grams either.
            if total == 0 {
                break;
            }
            if matches > 0 {
                *precision = 100.0 * matches as f64 / total as f64;
            } else if smoothing == Smoothing::Exponential {
                halvings *= 2.0;
                *precision = 100.0 / (halvings * total as f64);
            }
        }
        precisions
    }

    /// What hypotheses that are shorter than their references lose: a factor, 0-1.
    pub fn brevity_penalty(&self) -> f64 {
        if self.hypothesis_length >= self.reference_length {
            1.0
        } else if self.hypothesis_length == 0 {
            0.0
        } else {
            (1.0 - self.reference_length as f64 / self.hypothesis_length as f64).exp()
        }
    }
}
