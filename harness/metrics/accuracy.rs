//! Share of examples whose class is right.

use super::Confusion;
use super::confusion::ratio;

pub fn percent(confusion: &Confusion) -> f64 {
    ratio(100 * confusion.correct(), confusion.total())
}
