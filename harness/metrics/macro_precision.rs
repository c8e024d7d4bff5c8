//! Mean over classes of: of those predicted as the class, the share that are of it. Zero for a class never predicted.

use super::Confusion;
use super::confusion::{CLASSES, ratio};

pub fn percent(confusion: &Confusion) -> f64 {
    let sum: f64 = (0..CLASSES)
        .map(|class| ratio(confusion.count(class, class), confusion.predicted(class)))
        .sum();
    100.0 * sum / CLASSES as f64
}
