//! Any table (tsv, csv, jsonl, Parquet) whose columns a study names.

use std::path::Path;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NliRows;
use crate::data::files::FileFormat;
use crate::data::nli::Label;
use crate::data::tables;

/// Names of columns. In a tsv or csv file without a header all are positions, counted from one and quoted: `"1"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NliColumns {
    /// The premise.
    pub premise: String,
    /// The hypothesis.
    pub hypothesis: String,
    /// The label, by name.
    pub label: String,
    /// The row's language; without it a file is all in one language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// What rows with the same premise share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub premise_id: Option<String>,
    /// For files that number their labels: the label's names in the order of the numbers, from 0. Hugging Face's copy of
    /// XNLI has `[entailment, neutral, contradiction]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_names: Option<Vec<Label>>,
}

impl NliColumns {
    /// Whether `label_names`, where given, has every label once.
    pub fn labels_are_named_once(&self) -> bool {
        let Some(names) = &self.label_names else {
            return true;
        };
        let mut sorted = names.clone();
        sorted.sort();
        sorted == Label::ALL
    }
}

pub fn read(
    path: &Path,
    format: FileFormat,
    columns: &NliColumns,
    rows: &mut NliRows,
) -> Result<()> {
    let mut names = vec![
        columns.premise.as_str(),
        columns.hypothesis.as_str(),
        columns.label.as_str(),
    ];
    let language = columns.language.as_deref().map(|name| {
        names.push(name);
        names.len() - 1
    });
    let premise_id = columns.premise_id.as_deref().map(|name| {
        names.push(name);
        names.len() - 1
    });
    let counts = tables::for_each_row(path, format, &names, &mut |_, row| {
        let label = match &columns.label_names {
            None => row[2],
            Some(names) => numbered(row[2], names)?,
        };
        let key = premise_id.map(|at| row[at]);
        match language {
            Some(at) => rows.push_in(row[at], row[0], row[1], label, key),
            None => rows.push(row[0], row[1], label, key),
        }
    })?;
    rows.lines.add(&counts);
    Ok(())
}

/// The name of a numbered label; -1 stands for none, as Hugging Face has it.
fn numbered(number: &str, names: &[Label]) -> Result<&'static str> {
    if number == "-1" {
        return Ok("-");
    }
    let label = number
        .parse::<usize>()
        .ok()
        .and_then(|number| names.get(number));
    let label = label.with_context(|| {
        format!("`{number}` is no label; with `label_names` labels are 0, 1, 2, and -1 for none")
    })?;
    Ok(label.name())
}
