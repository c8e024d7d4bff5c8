//! Numbers and text as every report prints them. Nothing here depends on clock, path, host or locale.

use crate::metrics::Metric;
use crate::report::manifest::Manifest;
use crate::report::summary::Estimate;
use crate::spec::{LAST_UPDATE, VALIDATION_BLEU};

/// What stands where there is nothing: an en dash.
pub const DASH: &str = "–";

/// A regime's name as prose has it.
pub fn regime(name: &str) -> String {
    match name {
        "zero_shot" => "zero-shot".to_owned(),
        "translate_train" => "translate-train".to_owned(),
        "translate_train_all" => "translate-train-all".to_owned(),
        "translate_test" => "translate-test".to_owned(),
        "input_embeddings" => "input embeddings".to_owned(),
        "greedy" => "greedy search".to_owned(),
        other => match other.strip_prefix("beam_") {
            Some(beam) => format!("beam of {beam}"),
            None => other.to_owned(),
        },
    }
}

/// With the first letter in upper case.
pub fn capital(name: &str) -> String {
    let mut letters = name.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// The mean with the decimals of its metric, rounded half up from whole numbers where it comes from counts.
pub fn mean(estimate: &Estimate) -> String {
    match estimate.counts {
        Some((correct, answers)) if answers > 0 => ratio_percent(correct, answers),
        _ => number(estimate.mean, estimate.metric),
    }
}

/// `correct / answers` in percent with one decimal, rounded half up in whole numbers.
pub fn ratio_percent(correct: u64, answers: u64) -> String {
    let (correct, answers) = (u128::from(correct), u128::from(answers));
    let tenths = (2000 * correct + answers) / (2 * answers);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// With one decimal; never `-0.0`.
pub fn fixed(value: f64) -> String {
    rounded(value, 1)
}

/// With the decimals of a metric; never `-0.0`.
pub fn number(value: f64, metric: Metric) -> String {
    rounded(value, metric.decimals())
}

fn rounded(value: f64, decimals: usize) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "∞" } else { "-∞" }.to_owned();
    }
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(positive) if positive.bytes().all(|digit| b"0.".contains(&digit)) => {
            positive.to_owned()
        }
        _ => text,
    }
}

/// As [`number`], with its sign.
pub fn signed(value: f64, metric: Metric) -> String {
    let text = number(value, metric);
    if text.starts_with('-') {
        text.replace('-', "−")
    } else if text.bytes().all(|digit| b"0.".contains(&digit)) {
        text
    } else {
        format!("+{text}")
    }
}

/// The larger half of the interval: `1.4` of 71.5 ± 1.4.
pub fn half_width(estimate: &Estimate) -> String {
    let half = (estimate.mean - estimate.low).max(estimate.high - estimate.mean);
    number(half, estimate.metric)
}

/// `0.012`, `< 0.001`.
pub fn p_value(value: f64) -> String {
    if value < 0.001 {
        "< 0.001".to_owned()
    } else {
        format!("{value:.3}")
    }
}

/// Seeds done of asked: `2/3`.
pub fn seeds(estimate: &Estimate) -> String {
    format!("{}/{}", estimate.seeds, estimate.asked)
}

/// A selection rule, marked where it looks at labels that zero-shot transfer is not to have.
pub fn selection(rule: &str) -> String {
    match rule {
        "target_dev" => "target_dev (uses target labels)".to_owned(),
        "mean_dev" => "mean_dev (uses target labels)".to_owned(),
        VALIDATION_BLEU => "BLEU on held-out pairs".to_owned(),
        LAST_UPDATE => "nothing: the model after its last update".to_owned(),
        _ => rule.to_owned(),
    }
}

/// A footnote when the results come from several kinds of machine, whose bits may differ.
pub fn mixed_machines(manifest: &Manifest) -> Option<String> {
    let provenance = &manifest.provenance;
    let several = provenance.devices.len() > 1 || provenance.instruction_sets.len() > 1;
    several.then(|| {
        format!(
            "Cells were computed on different kinds of machine ({}; {}): small differences between them may come \
             from that.",
            provenance.devices.join(", "),
            provenance.instruction_sets.join(", ")
        )
    })
}

/// Text that Markdown prints as it stands, also inside a table.
pub fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' | '|' | '*' | '_' | '`' | '[' | ']' | '<' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            '\n' | '\r' => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
