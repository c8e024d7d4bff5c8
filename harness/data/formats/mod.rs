//! The layouts in which inference data sets are published: one file per layout, one line here.

mod columns;
mod kornli;
mod synthetic_family;
mod xnli;
mod xnli_mt;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::files::{FileFormat, LineCounts};
use super::nli::{Label, NliExample};

pub use columns::NliColumns;

/// The layout of a data set's files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NliFormat {
    /// XNLI-1.0's `xnli.dev.tsv` and `xnli.test.tsv`, all languages in one file; also XNLI-MT-1.0's
    /// `xnli/xnli.test.en.tsv` (English translations, under the language they were translated from).
    Xnli,
    /// XNLI-MT-1.0's `multinli/multinli.train.{language}.tsv`.
    XnliMt,
    /// KorNLI's files: sentence1, sentence2, gold_label.
    Kornli,
    /// Any table whose columns are named.
    Columns(NliColumns),
}

/// Whether rows tell their premise's cluster.
impl NliFormat {
    pub fn has_premise_ids(&self) -> bool {
        match self {
            Self::Xnli => true,
            Self::XnliMt | Self::Kornli => false,
            Self::Columns(columns) => columns.premise_id.is_some(),
        }
    }

    /// Whether a file holds several languages, told apart by a column.
    pub fn has_languages(&self) -> bool {
        match self {
            Self::Xnli => true,
            Self::XnliMt | Self::Kornli => false,
            Self::Columns(columns) => columns.language.is_some(),
        }
    }
}

/// Reads one file of a data set into `rows`.
pub fn read(
    path: &Path,
    file_format: FileFormat,
    format: &NliFormat,
    rows: &mut NliRows,
) -> Result<()> {
    match format {
        NliFormat::Xnli => xnli::read(path, rows),
        NliFormat::XnliMt => xnli_mt::read(path, rows),
        NliFormat::Kornli => kornli::read(path, rows),
        NliFormat::Columns(columns) => columns::read(path, file_format, columns, rows),
    }
}

/// Reads one file of a generated family of languages.
pub fn read_synthetic(path: &Path, rows: &mut NliRows) -> Result<()> {
    synthetic_family::read(path, rows)
}

/// The examples of one language as they are read, with what was met on the way.
#[derive(Debug)]
pub struct NliRows {
    /// The language whose rows are wanted; rows of others are passed over.
    language: String,
    premises: Premises,
    /// Rows of the language so far, skipped ones included: the next row's `item`.
    items: u32,
    pub examples: Vec<NliExample>,
    /// Rows labelled `-`: annotators did not agree. Skipped.
    pub unlabelled: u64,
    /// Rows with nothing in the premise or the hypothesis. Kept.
    pub empty_sentences: u64,
    pub lines: LineCounts,
    other_languages: BTreeSet<String>,
}

/// How clusters are told.
#[derive(Debug)]
enum Premises {
    /// By an id in the file or by the premise's text: the same key, the same cluster.
    Keys(BTreeMap<String, u32>),
    /// So many rows in a row have one premise.
    Rows(u32),
}

impl NliRows {
    /// `premise_rows`: rows per premise in files that keep XNLI's order but not its ids. Without it, and without ids, rows
    /// with the same premise text are one cluster.
    pub fn new(language: &str, premise_rows: Option<u32>) -> Self {
        Self {
            language: language.to_owned(),
            premises: match premise_rows {
                Some(rows) => Premises::Rows(rows.max(1)),
                None => Premises::Keys(BTreeMap::new()),
            },
            items: 0,
            examples: Vec::new(),
            unlabelled: 0,
            empty_sentences: 0,
            lines: LineCounts::default(),
            other_languages: BTreeSet::new(),
        }
    }

    /// Adds a row. `premise_key` is the file's own id of the premise, where it has one.
    fn push(
        &mut self,
        premise: &str,
        hypothesis: &str,
        label: &str,
        premise_key: Option<&str>,
    ) -> Result<()> {
        let item = self.items;
        self.items += 1;
        let premise_id = match &mut self.premises {
            Premises::Rows(rows) => item / *rows,
            Premises::Keys(keys) => {
                let key = premise_key.unwrap_or(premise);
                let next = keys.len() as u32;
                match keys.get(key) {
                    Some(&id) => id,
                    None => *keys.entry(key.to_owned()).or_insert(next),
                }
            }
        };
        if label == "-" {
            self.unlabelled += 1;
            return Ok(());
        }
        let Some(label) = Label::from_name(label) else {
            bail!(
                "`{label}` is no label; labels are contradiction (or contradictory), neutral, entailment, and - for none"
            );
        };
        if premise.trim().is_empty() || hypothesis.trim().is_empty() {
            self.empty_sentences += 1;
        }
        self.examples.push(NliExample {
            premise: premise.to_owned(),
            hypothesis: hypothesis.to_owned(),
            label,
            premise_id,
            item,
        });
        Ok(())
    }

    /// As [`NliRows::push`], for files that hold several languages.
    fn push_in(
        &mut self,
        language: &str,
        premise: &str,
        hypothesis: &str,
        label: &str,
        premise_key: Option<&str>,
    ) -> Result<()> {
        if language == self.language {
            return self.push(premise, hypothesis, label, premise_key);
        }
        if !self.other_languages.contains(language) {
            self.other_languages.insert(language.to_owned());
        }
        Ok(())
    }

    /// Checks what only the whole shows.
    ///
    /// # Errors
    /// No rows for the language; a number of rows that `premise_rows` does not divide.
    pub fn finish(&self) -> Result<()> {
        if self.examples.is_empty() {
            let others: Vec<&str> = self.other_languages.iter().map(String::as_str).collect();
            match others.is_empty() {
                true => bail!(
                    "there are no labelled rows for language `{}`",
                    self.language
                ),
                false => bail!(
                    "there are no rows for language `{}`; the file has {}",
                    self.language,
                    others.join(", ")
                ),
            }
        }
        if let Premises::Rows(rows) = self.premises
            && !self.items.is_multiple_of(rows)
        {
            bail!(
                "{} rows do not divide into premises of {rows} rows; remove `premise_rows` or mend the file",
                self.items
            );
        }
        Ok(())
    }
}
