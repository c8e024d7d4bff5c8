//! `tables:` of a study file: which tables the report prints, in the papers' layout.

use serde::{Deserialize, Serialize};

use super::claims::{Names, unfit};
use super::nearest::nearest;
use crate::metrics::{Items, Metric};
use crate::problem::Problem;

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
    /// The selection rule whose test scores are shown, for `columns: languages` and `metrics`; the first of the study's rules unless
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<String>,
    /// The metric; accuracy unless given, of translation BLEU, of language modelling perplexity, of words' translations the cosine,
    /// of their similarity Pearson's correlation.
    #[serde(default)]
    pub metric: Option<Metric>,
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
    /// One column per metric of the task: the mean over languages of each.
    Metrics,
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

impl Table {
    pub fn metric(&self) -> Metric {
        self.metric.unwrap_or(Metric::of_task(&self.task))
    }

    /// Everything wrong with the table in a study with these names.
    pub fn validate(&self, names: &Names) -> Vec<Problem> {
        let mut problems = Vec::new();
        let plain = |letter: char| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_' || letter == '-'
        };
        if self.name.is_empty() || !self.name.chars().all(plain) {
            problems.push(problem(
                "name",
                format!("`{}` cannot be a file name on every machine", self.name),
                "use lower-case letters, digits, `_` and `-`",
            ));
        }
        problems.extend(names.task("task", &self.task));
        problems.extend(unfit("metric", self.metric(), &self.task));
        match (self.rows, &self.regime) {
            (TableRows::Variants, None) => {
                problems.push(problem(
                    "regime",
                    "a table of variants lacks `regime`".to_owned(),
                    "add `regime`",
                ));
            }
            (TableRows::Variants, Some(regime)) if problems.is_empty() => {
                problems.extend(names.regime("regime", &self.task, regime));
            }
            (TableRows::Regimes, Some(_)) => problems.push(problem(
                "regime",
                "a table of regimes shows all of them".to_owned(),
                "remove `regime`, or write `rows: variants`",
            )),
            _ => {}
        }
        match (self.columns, &self.select) {
            (TableColumns::Languages | TableColumns::Metrics, Some(select)) => {
                problems.extend(names.selection("select", &self.task, select))
            }
            (TableColumns::Selections, Some(_)) => problems.push(problem(
                "select",
                "a table of selection rules shows all of them".to_owned(),
                "remove `select`, or write `columns: languages`",
            )),
            (_, None) => {}
        }
        if self.columns == TableColumns::Metrics && self.metric.is_some() {
            problems.push(problem(
                "metric",
                "a table of metrics shows all of them".to_owned(),
                "remove `metric`, or write `columns: languages`",
            ));
        }
        if Items::of(&self.task) != Items::Classes && self.paper_rows.is_some() {
            problems.push(problem(
                "paper_rows",
                "published rows stand beside tables of accuracy only".to_owned(),
                "remove `paper_rows`; claims compare single figures",
            ));
        } else if let Some(paper_rows) = &self.paper_rows {
            problems.extend(self.paper_row_problems(paper_rows, names));
        }
        problems
    }

    fn paper_row_problems(&self, paper_rows: &PaperRows, names: &Names) -> Vec<Problem> {
        if self.columns != TableColumns::Languages {
            let what = "papers print languages".to_owned();
            return vec![problem(
                "paper_rows",
                what,
                "remove `paper_rows`, or write `columns: languages`",
            )];
        }
        let files = &names.anchors.files;
        let Some(rows) = files.get(&paper_rows.anchor) else {
            let what = format!("there is no anchor file `{}.csv`", paper_rows.anchor);
            let remedy = match nearest(&paper_rows.anchor, files.keys().map(String::as_str)) {
                Some(name) => format!("did you mean `{name}`?"),
                None => "name a file of experiments/anchors without `.csv`".to_owned(),
            };
            return vec![problem("paper_rows.anchor", what, &remedy)];
        };
        let known = || rows.iter().map(|row| row.row.as_str());
        let missing = paper_rows
            .rows
            .iter()
            .filter(|name| !known().any(|row| row == name.as_str()));
        missing
            .map(|name| {
                let remedy = match nearest(name, known()) {
                    Some(row) => format!("did you mean `{row}`?"),
                    None => format!("look into experiments/anchors/{}.csv", paper_rows.anchor),
                };
                problem(
                    "paper_rows.rows",
                    format!("the paper's table has no row `{name}`"),
                    &remedy,
                )
            })
            .collect()
    }
}

fn problem(field: &str, what: String, remedy: &str) -> Problem {
    Problem {
        field: field.to_owned(),
        what,
        remedy: remedy.to_owned(),
    }
}
