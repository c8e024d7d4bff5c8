//! What translations are scored from: counts of each sentence, summed over a corpus.

use std::ops::{AddAssign, SubAssign};

use super::Metric;
use super::bleu::{BleuCounts, Smoothing};
use super::chrf::{ChrfCounts, ChrfVariant};

/// Counts of a sentence's translation, or sums of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TranslationCounts {
    pub sentences: u64,
    pub bleu: BleuCounts,
    pub chrf: ChrfCounts,
}

impl TranslationCounts {
    /// 0 to 100; `None` for metrics of something else.
    pub fn percent(&self, metric: Metric, smoothing: Smoothing) -> Option<f64> {
        match metric {
            Metric::Bleu => Some(self.bleu.bleu(smoothing)),
            Metric::Chrf => Some(self.chrf.score(ChrfVariant::Chrf)),
            _ => None,
        }
    }

    fn numbers(&mut self) -> impl Iterator<Item = &mut u64> {
        let Self {
            sentences,
            bleu,
            chrf,
        } = self;
        [
            sentences,
            &mut bleu.hypothesis_length,
            &mut bleu.reference_length,
        ]
        .into_iter()
        .chain(&mut bleu.matches)
        .chain(&mut bleu.totals)
        .chain(&mut chrf.hypothesis)
        .chain(&mut chrf.reference)
        .chain(&mut chrf.matches)
    }
}

impl AddAssign<&TranslationCounts> for TranslationCounts {
    fn add_assign(&mut self, other: &TranslationCounts) {
        let mut other = *other;
        for (own, other) in self.numbers().zip(other.numbers()) {
            *own += *other;
        }
    }
}

/// Of a sum, a part that is in it.
impl SubAssign<&TranslationCounts> for TranslationCounts {
    fn sub_assign(&mut self, other: &TranslationCounts) {
        let mut other = *other;
        for (own, other) in self.numbers().zip(other.numbers()) {
            *own = own.saturating_sub(*other);
        }
    }
}
