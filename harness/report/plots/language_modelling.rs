//! Perplexity of held-out text by language and variant, one panel per unit of text.

use super::canvas::Canvas;
use super::{Material, dot, dots};
use crate::metrics::LANGUAGE_MODELLING_TASK;
use anyhow::Result;

pub(super) fn draw(material: &Material) -> Result<Option<Canvas>> {
    let manifest = &material.input.results.manifest;
    let (mut estimates, mut panels) = (Vec::new(), Vec::new());
    for evaluation in &manifest.evaluations {
        if evaluation.task != LANGUAGE_MODELLING_TASK {
            continue;
        }
        let mut rows = Vec::new();
        for variant in &manifest.variants {
            let mut row = Vec::new();
            for language in &evaluation.languages {
                let query = material.query(
                    &variant.name,
                    LANGUAGE_MODELLING_TASK,
                    &evaluation.regime,
                    language,
                );
                let estimate = material.summary.estimate(&query);
                row.push(estimate.as_ref().map(dot));
                estimates.extend(estimate);
            }
            rows.push(row);
        }
        panels.push(dots::Panel {
            title: format!("per {}", evaluation.regime),
            groups: material.groups(&evaluation.languages, None),
            dots: rows,
        });
    }
    if estimates.is_empty() {
        return Ok(None);
    }
    let figure = dots::Figure {
        title: "Perplexity of held-out text".to_string(),
        subtitle: format!(
            "Study {}, profile {}. Lower is better; each panel has its own scale, which need not begin at 0. {}",
            manifest.study,
            manifest.profile,
            material.evidence(LANGUAGE_MODELLING_TASK, &panels, &estimates)
        ),
        axis_title: "perplexity".to_string(),
        series: material.variant_labels(),
        panels,
        reference: None,
        axes: dots::Axes::PerPanel,
    };
    dots::draw(&figure).map(Some)
}
