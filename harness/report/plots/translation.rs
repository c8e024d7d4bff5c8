//! BLEU by direction and variant, one panel per search, with the BLEU of copying the source.

use super::canvas::Canvas;
use super::{Material, dot, dots};
use crate::report::format;
use crate::spec::TRANSLATION_TASK;
use crate::spec::claims::MEAN;
use anyhow::Result;

pub(super) fn draw(material: &Material) -> Result<Option<Canvas>> {
    let manifest = &material.input.results.manifest;
    let mut estimates = Vec::new();
    let mut panels = Vec::new();
    for evaluation in &manifest.evaluations {
        if evaluation.task != TRANSLATION_TASK {
            continue;
        }
        let mean = (evaluation.languages.len() > 1).then_some(MEAN);
        let mut rows = Vec::new();
        for variant in &manifest.variants {
            let mut row = Vec::new();
            for direction in evaluation.languages.iter().map(String::as_str).chain(mean) {
                let query = material.query(
                    &variant.name,
                    TRANSLATION_TASK,
                    &evaluation.regime,
                    direction,
                );
                let estimate = material.summary.estimate(&query);
                row.push(estimate.as_ref().map(dot));
                estimates.extend(estimate);
            }
            rows.push(row);
        }
        panels.push(dots::Panel {
            title: format::regime(&evaluation.regime),
            groups: material.groups(
                &evaluation.languages,
                mean.map(|_| format!("of {}", evaluation.languages.len())),
            ),
            dots: rows,
        });
    }
    if estimates.is_empty() {
        return Ok(None);
    }
    let scores = manifest.translation_scores.as_ref();
    let copies: Vec<f64> = scores
        .map(|scores| scores.copy.values().copied().collect())
        .unwrap_or_default();
    let copy = copies.iter().sum::<f64>() / copies.len().max(1) as f64;
    let signature = scores.map_or("", |scores| scores.bleu_signature.as_str());
    let of_line = match copies.is_empty() {
        true => "",
        false => "The line is the source as its own translation, mean of all directions. ",
    };
    let figure = dots::Figure {
        title: "Test BLEU by direction".to_string(),
        subtitle: format!(
            "Study {}, profile {}. {signature}. {of_line}{}",
            manifest.study,
            manifest.profile,
            material.evidence(TRANSLATION_TASK, &panels, &estimates)
        ),
        axis_title: "BLEU".to_string(),
        series: material.variant_labels(),
        panels,
        reference: (!copies.is_empty()).then(|| (copy, format!("copy {copy:.1}"))),
        axes: dots::Axes::Percent,
    };
    dots::draw(&figure).map(Some)
}
