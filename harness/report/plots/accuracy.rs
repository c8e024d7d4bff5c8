//! Test accuracy by language and variant under zero-shot transfer (fine-tuned on the source language alone), one panel
//! per task.

use super::canvas::Canvas;
use super::{Material, dot, dots};
use crate::metrics::{CHANCE, Items, Task};
use crate::spec::claims::MEAN;
use anyhow::Result;

/// Zero-shot transfer; the study's first regime where it has no zero-shot evaluation.
pub(super) fn draw(material: &Material) -> Result<Option<Canvas>> {
    let manifest = &material.input.results.manifest;
    let evaluations = || {
        let all = manifest.evaluations.iter();
        all.filter(|evaluation| Items::of(&evaluation.task) == Items::Classes)
    };
    let zero_shot = evaluations().find(|evaluation| evaluation.regime == "zero_shot");
    let Some((task, regime)) = zero_shot
        .or(evaluations().next())
        .map(|evaluation| (evaluation.task.clone(), &evaluation.regime))
    else {
        return Ok(None);
    };
    let mut estimates = Vec::new();
    let mut panels = Vec::new();
    for evaluation in evaluations().filter(|evaluation| evaluation.regime == *regime) {
        let mut rows = Vec::new();
        let mean = (evaluation.languages.len() > 1).then_some(MEAN);
        for variant in &manifest.variants {
            let mut row = Vec::new();
            for language in evaluation.languages.iter().map(String::as_str).chain(mean) {
                let query = material.query(&variant.name, &evaluation.task, regime, language);
                let estimate = material.summary.estimate(&query);
                row.push(estimate.as_ref().map(dot));
                estimates.extend(estimate);
            }
            rows.push(row);
        }
        panels.push(dots::Panel {
            title: Task::of(&evaluation.task).prose().to_owned(),
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
    let source = &manifest.languages.source;
    let training = if regime == "zero_shot" {
        format!("Fine-tuned on {source} alone. ")
    } else {
        String::new()
    };
    let label = material.label(regime);
    let figure = dots::Figure {
        title: format!("Test accuracy by language, {label}"),
        subtitle: format!(
            "Study {}, profile {}. {training}{}",
            manifest.study,
            manifest.profile,
            material.evidence(&task, &panels, &estimates)
        ),
        axis_title: "accuracy (%)".to_string(),
        series: material.variant_labels(),
        panels,
        reference: Some((CHANCE, format!("chance {CHANCE:.1}"))),
        axes: dots::Axes::Percent,
    };
    dots::draw(&figure).map(Some)
}
