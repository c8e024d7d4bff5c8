//! The regimes side by side: zero-shot, translate-train and translate-test accuracy by language, one panel per variant.

use super::canvas::Canvas;
use super::{Material, dot, dots};
use crate::metrics::{CHANCE, Items, Task};
use crate::report::manifest::Evaluation;
use crate::spec::claims::MEAN;
use anyhow::Result;

/// The first task that is evaluated under two regimes or more.
pub(super) fn draw(material: &Material) -> Result<Option<Canvas>> {
    let manifest = &material.input.results.manifest;
    let of_task = |task: &str| -> Vec<&Evaluation> {
        manifest
            .evaluations
            .iter()
            .filter(|evaluation| evaluation.task == task)
            .collect()
    };
    let several = |evaluation: &&Evaluation| {
        Items::of(&evaluation.task) == Items::Classes && of_task(&evaluation.task).len() > 1
    };
    let Some(task) = manifest
        .evaluations
        .iter()
        .find(several)
        .map(|evaluation| &evaluation.task)
    else {
        return Ok(None);
    };
    let evaluations = of_task(task);
    let known = &manifest.languages;
    let languages: Vec<String> = std::iter::once(&known.source)
        .chain(&known.targets)
        .filter(|language| {
            evaluations
                .iter()
                .any(|evaluation| evaluation.languages.contains(language))
        })
        .cloned()
        .collect();
    let unequal = evaluations
        .iter()
        .any(|evaluation| evaluation.languages.len() != languages.len());
    let mut estimates = Vec::new();
    let mut panels = Vec::new();
    let mean = (languages.len() > 1).then_some(MEAN);
    for variant in &manifest.variants {
        let mut rows = Vec::new();
        for evaluation in &evaluations {
            let mut row = Vec::new();
            for language in languages.iter().map(String::as_str).chain(mean) {
                let query = material.query(&variant.name, task, &evaluation.regime, language);
                let estimate = material.summary.estimate(&query);
                row.push(estimate.as_ref().map(dot));
                estimates.extend(estimate);
            }
            rows.push(row);
        }
        panels.push(dots::Panel {
            title: variant.label.clone(),
            groups: material.groups(&languages, mean.map(|_| String::new())),
            dots: rows,
        });
    }
    if estimates.is_empty() {
        return Ok(None);
    }
    let means = if unequal {
        "Means are over the languages that a regime has. "
    } else {
        ""
    };
    let figure = dots::Figure {
        title: format!("Test accuracy by regime, {}", Task::of(task).prose()),
        subtitle: format!(
            "Study {}, profile {}. {means}{}",
            manifest.study,
            manifest.profile,
            material.evidence(task, &panels, &estimates)
        ),
        axis_title: "accuracy (%)".to_string(),
        series: evaluations
            .iter()
            .map(|evaluation| material.label(&evaluation.regime))
            .collect(),
        panels,
        reference: Some((CHANCE, format!("chance {CHANCE:.1}"))),
        axes: dots::Axes::Percent,
    };
    dots::draw(&figure).map(Some)
}
