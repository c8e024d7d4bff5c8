//! Likeness of words and their translations by language and variant, and correlation with people's ratings: one panel per metric.

use super::canvas::Canvas;
use super::{Material, dot, dots};
use crate::metrics::{Metric, WORD_SIMILARITY_TASK, WORD_TRANSLATION_TASK};
use crate::report::summary::Query;
use crate::spec::claims::MEAN;
use anyhow::Result;

pub(super) fn draw(material: &Material) -> Result<Option<Canvas>> {
    let manifest = &material.input.results.manifest;
    let (mut estimates, mut panels) = (Vec::new(), Vec::new());
    for evaluation in &manifest.evaluations {
        let task = evaluation.task.as_str();
        if ![WORD_TRANSLATION_TASK, WORD_SIMILARITY_TASK].contains(&task) {
            continue;
        }
        let mean = (evaluation.languages.len() > 1).then_some(MEAN);
        for metric in Metric::fitting(task) {
            let mut rows = Vec::new();
            for variant in &manifest.variants {
                let mut row = Vec::new();
                for language in evaluation.languages.iter().map(String::as_str).chain(mean) {
                    let query = Query {
                        metric: *metric,
                        ..material.query(&variant.name, task, &evaluation.regime, language)
                    };
                    let estimate = material.summary.estimate(&query);
                    row.push(estimate.as_ref().map(dot));
                    estimates.extend(estimate);
                }
                rows.push(row);
            }
            panels.push(dots::Panel {
                title: metric.title().to_string(),
                groups: material.groups(
                    &evaluation.languages,
                    mean.map(|_| format!("of {}", evaluation.languages.len())),
                ),
                dots: rows,
            });
        }
    }
    if estimates.is_empty() {
        return Ok(None);
    }
    let figure = dots::Figure {
        title: "Words and their translations".to_string(),
        subtitle: format!(
            "Study {}, profile {}. Input embeddings; each panel has its own scale, which need not begin at 0. {}",
            manifest.study,
            manifest.profile,
            material.evidence(WORD_TRANSLATION_TASK, &panels, &estimates)
        ),
        axis_title: String::new(),
        series: material.variant_labels(),
        panels,
        reference: None,
        axes: dots::Axes::PerPanel,
    };
    dots::draw(&figure).map(Some)
}
