//! The transfer gap: how much lower a target language's test accuracy is than the source language's, under zero-shot
//! transfer (the measure of Hu et al. 2020, "XTREME", section 5, there called the cross-lingual transfer gap).

use super::canvas::Canvas;
use super::{Material, dot, dots};
use crate::metrics::Task;
use crate::spec::claims::TARGET_MEAN;
use anyhow::Result;

pub(super) fn draw(material: &Material) -> Result<Option<Canvas>> {
    let manifest = &material.input.results.manifest;
    let source = manifest.languages.source.as_str();
    let mut estimates = Vec::new();
    let mut panels = Vec::new();
    for evaluation in &manifest.evaluations {
        let has_source = evaluation
            .languages
            .iter()
            .any(|language| language == source);
        if evaluation.regime != "zero_shot" || !has_source {
            continue;
        }
        let mut targets = evaluation.languages.clone();
        targets.retain(|language| language != source);
        let mut rows = Vec::new();
        let mean = (targets.len() > 1).then_some(TARGET_MEAN);
        for variant in &manifest.variants {
            let query = |language| {
                material.query(
                    &variant.name,
                    &evaluation.task,
                    &evaluation.regime,
                    language,
                )
            };
            let mut row = Vec::new();
            for language in targets.iter().map(String::as_str).chain(mean) {
                let gap = material
                    .summary
                    .difference(&query(source), &query(language));
                row.push(gap.as_ref().map(dot));
                estimates.extend(gap);
            }
            rows.push(row);
        }
        panels.push(dots::Panel {
            title: Task::of(&evaluation.task).prose().to_owned(),
            groups: material.groups(
                &targets,
                mean.map(|_| format!("of {} targets", targets.len())),
            ),
            dots: rows,
        });
    }
    if estimates.is_empty() {
        return Ok(None);
    }
    let figure = dots::Figure {
        title: "Transfer gap by target language".to_string(),
        subtitle: format!(
            "Study {}, profile {}. Accuracy in {source} less accuracy in the target language, zero-shot, paired by premise; lower is \
             better transfer (a model at chance in both has none). {}",
            manifest.study,
            manifest.profile,
            material.evidence("", &panels, &estimates)
        ),
        axis_title: "gap (percentage points)".to_string(),
        series: material.variant_labels(),
        panels,
        reference: Some((0.0, "no gap".to_string())),
        axes: dots::Axes::Shared,
    };
    dots::draw(&figure).map(Some)
}
