//! `tables:` of a study file: which tables the report prints, in the papers' layout.

use serde::{Deserialize, Serialize};

use crate::metrics::Metric;

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// File name without extension: `tables/<name>.md`. Lower-case letters, digits, `_` and `-`.
    pub name: String,
    /// What the rows are.
    pub rows: TableRows,
    /// What the columns are.
    pub columns: TableColumns,
    /// The task; `xnli` unless given.
    #[serde(default = "default_task")]
    pub task: String,
    /// The regime, for `rows: variants`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regime: Option<String>,
    /// The selection rule, for `columns: languages`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<String>,
    /// The metric; accuracy unless given.
    #[serde(default)]
    pub metric: Metric,
    /// Rows of a published table to print beside ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paper_rows: Option<PaperRows>,
    /// Printed above the table; made from the other fields unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
}

/// What the rows of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableRows {
    /// One row per variant, all under one regime.
    Variants,
    /// A group per regime, with one row per variant.
    Regimes,
}

/// What the columns of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableColumns {
    /// One column per language, and their mean.
    Languages,
    /// One column per selection rule: the mean over languages under each.
    Selections,
}

/// Rows of a published table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaperRows {
    /// A file of `experiments/anchors` without `.csv`: `xlm_table1_xnli`.
    pub anchor: String,
    /// Which of its rows; all unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<String>,
}

fn default_task() -> String {
    "xnli".to_owned()
}
