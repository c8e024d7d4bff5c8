//! `notebooks-export/<study>/<profile>.ipynb`: a notebook that loads the results with Polars and redraws the plots.
//!
//! Notebook format 4.5 without stored outputs. It reads the results folder by its relative path and needs `polars`,
//! `numpy` and `matplotlib`, nothing of this program.

use super::manifest::Manifest;
use crate::metrics::Items;
use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Where the notebook goes, seen from the results folder `results/<study>/<profile>`.
pub fn path(manifest: &Manifest) -> String {
    format!(
        "../../../notebooks-export/{}/{}.ipynb",
        manifest.study, manifest.profile
    )
}

/// The notebook's text: JSON with one space of indentation and a final newline, as Jupyter writes it.
pub fn notebook(manifest: &Manifest) -> Result<String> {
    let folder = format!("../../results/{}/{}", manifest.study, manifest.profile);
    let setup =
        include_str!("templates/setup.py").replace("RESULTS_FOLDER", &python_string(&folder)?);
    let about = format!(
        "# {}\n\nStudy {}, profile {}. Every cell reads the files in `{folder}` and nothing else.",
        manifest.title, manifest.study, manifest.profile
    );
    let mut cells = vec![markdown("about", &about), code("setup", &setup)];
    let has = |items: Items| {
        let mut evaluations = manifest.evaluations.iter();
        evaluations.any(|evaluation| Items::of(&evaluation.task) == items)
    };
    if has(Items::Classes) {
        cells.extend([
            markdown(
                "table-text",
                "Test accuracy in percent, mean over seeds, by variant, regime and language.",
            ),
            code("table", include_str!("templates/table.py")),
            markdown(
                "accuracy-text",
                "Accuracy by language and variant. Bars are 95 % intervals over test items, clustered by premise, for these \
             seeds; the report's own intervals also cover the seeds where there are three or more.",
            ),
            code("accuracy", include_str!("templates/accuracy.py")),
            markdown(
                "gap-text",
                "Transfer gap: accuracy in the source language less accuracy in each target, zero-shot.",
            ),
            code("gap", include_str!("templates/transfer_gap.py")),
            markdown("regimes-text", "The regimes side by side."),
            code("regimes", include_str!("templates/regimes.py")),
        ]);
    }
    if has(Items::Measurements) {
        cells.extend([
            markdown(
                "measurements-text",
                "What pretrained models score as they are, by task, regime, metric, variant and language, one mark per seed.",
            ),
            code("measurements", include_str!("templates/measurements.py")),
        ]);
    }
    if has(Items::Translations) {
        cells.extend([
            markdown(
                "translation-text",
                "Test BLEU by variant, search and direction, mean over seeds. The dotted line is the source as its own translation.",
            ),
            code("translation", include_str!("templates/translation.py")),
        ]);
    }
    cells.extend([
        markdown(
            "curves-text",
            "Learning curves, one line per run and language.",
        ),
        code("curves", include_str!("templates/curves.py")),
    ]);
    let document = json!({
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    });
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    serde::Serialize::serialize(&document, &mut serializer)
        .context("cannot write the notebook as JSON")?;
    text.push(b'\n');
    String::from_utf8(text).context("the notebook is not UTF-8")
}

/// A JSON string is a Python string too.
fn python_string(text: &str) -> Result<String> {
    serde_json::to_string(text).context("cannot quote a path")
}

fn markdown(id: &str, text: &str) -> Value {
    json!({"cell_type": "markdown", "id": id, "metadata": {}, "source": lines(text)})
}

fn code(id: &str, text: &str) -> Value {
    json!({
        "cell_type": "code",
        "execution_count": null,
        "id": id,
        "metadata": {},
        "outputs": [],
        "source": lines(text),
    })
}

/// A cell's source as lines that keep their ends, the last one without.
fn lines(text: &str) -> Vec<String> {
    text.trim_end()
        .split_inclusive('\n')
        .map(str::to_string)
        .collect()
}
