//! Figures of the papers, from `experiments/anchors/*.csv`: what claims and tables compare with.
//!
//! One file per published table, with the columns `paper, table, row, setting, language_or_pair, metric, value, source,
//! verified, note`. `verified` is `yes` when the figure was read in a source that is named; anything else may be shown
//! but may not gate.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::nearest::nearest;

/// One published figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Anchor {
    pub paper: String,
    pub table: String,
    pub row: String,
    pub setting: String,
    /// `ko`, `avg`, `en-de`.
    pub language: String,
    pub metric: String,
    /// As printed: `71.5`.
    pub printed: String,
    /// Absent where the paper gives words, or the figure was not obtained.
    pub value: Option<f64>,
    pub source: String,
    pub verified: bool,
    pub note: String,
}

/// All anchors beside a study file: file name without `.csv` -> rows in file order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Anchors {
    pub files: BTreeMap<String, Vec<Anchor>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CsvRow {
    paper: String,
    table: String,
    row: String,
    setting: String,
    language_or_pair: String,
    metric: String,
    value: String,
    source: String,
    verified: String,
    note: String,
}

impl Anchors {
    /// Every `*.csv` in `folder`; none when the folder does not exist.
    pub fn load(folder: &Path) -> Result<Self> {
        let mut anchors = Self::default();
        if !folder.exists() {
            return Ok(anchors);
        }
        let entries = std::fs::read_dir(folder)
            .with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let path = entry
                .with_context(|| format!("cannot list {}", folder.display()))?
                .path();
            let (Some(stem), Some("csv")) = (
                path.file_stem().and_then(|stem| stem.to_str()),
                path.extension().and_then(|end| end.to_str()),
            ) else {
                continue;
            };
            let text =
                std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let rows =
                parse(&text).with_context(|| format!("in the anchor file {}", path.display()))?;
            anchors.files.insert(stem.to_owned(), rows);
        }
        Ok(anchors)
    }

    /// The figure at `file/row/setting/language`, or `file/row/setting/language/metric` where a row has several
    /// metrics. Rows and settings may contain slashes. The error is a remedy.
    pub fn find(&self, address: &str) -> Result<&Anchor, String> {
        let Some((file, rest)) = address.split_once('/') else {
            return Err("write it as file/row/setting/language".to_owned());
        };
        let Some(rows) = self.files.get(file) else {
            return Err(match nearest(file, self.files.keys().map(String::as_str)) {
                Some(name) => {
                    format!("there is no anchor file `{file}.csv`; did you mean `{name}`?")
                }
                None => format!("there is no anchor file `{file}.csv` in experiments/anchors"),
            });
        };
        let matches: Vec<&Anchor> = rows
            .iter()
            .filter(|row| row.short_address() == rest || row.long_address() == rest)
            .collect();
        match matches.as_slice() {
            [one] => Ok(one),
            [] => {
                let addresses: Vec<String> = rows.iter().map(Anchor::short_address).collect();
                Err(match nearest(rest, addresses.iter().map(String::as_str)) {
                    Some(name) => {
                        format!("`{file}.csv` has no such row; did you mean `{file}/{name}`?")
                    }
                    None => format!("`{file}.csv` has no row `{rest}`"),
                })
            }
            [first, ..] => Err(format!(
                "`{address}` names {} figures; add the metric, as in `{file}/{}`",
                matches.len(),
                first.long_address()
            )),
        }
    }
}

impl Anchor {
    fn short_address(&self) -> String {
        format!("{}/{}/{}", self.row, self.setting, self.language)
    }

    fn long_address(&self) -> String {
        format!("{}/{}", self.short_address(), self.metric)
    }
}

fn parse(text: &[u8]) -> Result<Vec<Anchor>> {
    let mut rows = Vec::new();
    for (index, row) in csv::Reader::from_reader(text)
        .deserialize::<CsvRow>()
        .enumerate()
    {
        let row =
            row.with_context(|| format!("row {} below the header cannot be read", index + 1))?;
        let value = row.value.trim().parse::<f64>().ok();
        if value.is_some_and(|value| !value.is_finite()) {
            bail!(
                "row {} below the header has the value `{}`; leave it empty when there is none",
                index + 1,
                row.value
            );
        }
        rows.push(Anchor {
            paper: row.paper,
            table: row.table,
            row: row.row,
            setting: row.setting,
            language: row.language_or_pair,
            metric: row.metric,
            printed: row.value.trim().to_owned(),
            value,
            source: row.source,
            verified: row.verified.trim() == "yes",
            note: row.note,
        });
    }
    Ok(rows)
}
