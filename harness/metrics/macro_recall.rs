//! Mean over classes of: of those of the class, the share predicted as it. Zero for a class without examples.

use super::Confusion;
use super::confusion::{CLASSES, ratio};

pub fn percent(confusion: &Confusion) -> f64 {
    let sum: f64 = (0..CLASSES)
        .map(|class| ratio(confusion.count(class, class), confusion.gold(class)))
        .sum();
    100.0 * sum / CLASSES as f64
}
