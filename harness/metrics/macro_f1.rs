//! Mean over classes of F1 = 2 TP / (2 TP + FP + FN). Zero for a class neither present nor predicted.

use super::Confusion;
use super::confusion::{CLASSES, ratio};

pub fn percent(confusion: &Confusion) -> f64 {
    let f1 = |class| {
        let both = confusion.gold(class) + confusion.predicted(class);
        ratio(2 * confusion.count(class, class), both)
    };
    let sum: f64 = (0..CLASSES).map(f1).sum();
    100.0 * sum / CLASSES as f64
}
