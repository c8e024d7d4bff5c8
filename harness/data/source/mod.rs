//! Where a study takes its text from: the `data` section's settings, checked, and turned into what a job reads.
//!
//! A source yields two things for a job: its `input`, which is part of the artifact's identity and has no path of this
//! machine in it, and its `files`, whose bytes are.

mod problems;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::files::FileFormat;
use crate::data::formats::NliFormat;
use crate::data::hub::{HubFiles, RepositoryKind};
use crate::data::paths::{self, Fields};
use crate::language;

/// Monolingual text: one sentence per line, blank lines between documents; or a column of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextSource {
    /// The languages that the source has; without it, all of the study.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub languages: Option<Vec<String>>,
    /// Path of local files, such as `mono/{language}.txt.zst`; `*` in the file's name stands for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
    /// Files of a hub repository instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubSource>,
    /// The column with the text, where files are tables (tsv, csv, jsonl, parquet); may be `{language}`. A position in
    /// quotes, counted from one, for tsv and csv files without a header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Most sentences to take of each language; `data.monolingual_limit` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Licence of the text, printed in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Whom to cite, printed in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub citation: Option<String>,
}

/// Sentence pairs: two files aligned line by line, or two columns of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParallelSource {
    /// The languages whose pairs with the source language this has; without it, all of the study.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub languages: Option<Vec<String>>,
    /// Path of local files. `{side}` is the language of either side, such as `para/en-{language}.{side}.zst`; without it
    /// files are tables and `columns` names the sides. `{language}` and `{target}` are the language that is not the
    /// source, `{source}` the source, `{pair}` both in either order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
    /// Files of a hub repository instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubSource>,
    /// The two columns, where files are tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<ParallelColumns>,
    /// Licence of the text, printed in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Whom to cite, printed in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub citation: Option<String>,
}

/// Columns of a table of sentence pairs: names, which may be `{source}` and `{target}`, or positions in quotes (`"1"`)
/// where tsv and csv files have no header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParallelColumns {
    /// The source language's column.
    pub source: String,
    /// The other language's column.
    pub target: String,
}

/// Inference pairs of one role (training, dev, test, translations of either).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NliSource {
    /// The languages that the source has; without it, all of the study.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub languages: Option<Vec<String>>,
    /// Path of local files, such as `xnli/test.tsv.zst` or `multinli/multinli.train.{language}.tsv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
    /// Files of a hub repository instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubSource>,
    /// How the files are laid out.
    pub format: NliFormat,
    /// Rows per premise, for files that keep XNLI's order but not its premise ids (3 for KorNLI's XNLI files and for
    /// translated test sets). Without it and without ids, rows with the same premise text are one cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub premise_rows: Option<u32>,
    /// Licence of the data, printed in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Whom to cite, printed in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub citation: Option<String>,
}

/// Pairs of words, one in a line: a word of the source language, one of the other, and where people have rated their likeness the
/// rating; parted by tabs, or by white space where there are none (MUSE's dictionaries and SemEval-2017 files as MUSE has them).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WordSource {
    /// The languages whose words beside the source language's this has; without it, all of the study.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub languages: Option<Vec<String>>,
    /// Path of local files, such as `dict/muse/en-{language}.txt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
    /// Files of a hub repository instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubSource>,
    /// Most pairs to take of each language, drawn with the data seed; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Licence of the words, printed in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Whom to cite, printed in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub citation: Option<String>,
}

/// Files of a Hugging Face Hub repository: exactly one of `dataset` and `model`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HubSource {
    /// A data set's repository: `owner/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// A model's repository: `owner/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The commit: 40 hexadecimal digits. Branches and tags move, so they are refused.
    pub revision: String,
    /// Paths inside the repository, with the placeholders of local files but no `*`.
    pub files: Vec<String>,
}

/// What a job reads monolingual text from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TextInput {
    /// The job's files `file:0`, `file:1`, ...
    Files {
        format: FileFormat,
        column: Option<String>,
    },
    Hub {
        files: HubFiles,
        format: FileFormat,
        column: Option<String>,
    },
    /// `monolingual/<language>.txt` of the input artifact `synthesize`.
    Synthetic,
}

/// What a job reads sentence pairs from. First and second are the languages in alphabetical order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ParallelInput {
    /// The job's files `first:0`, ... and `second:0`, ...; or, for tables, `table:0`, ...
    Files { layout: ParallelLayout },
    /// One entry for tables; one for each language otherwise.
    Hub {
        files: Vec<HubFiles>,
        layout: ParallelLayout,
    },
    /// `parallel/<first>-<second>.<language>` of the input artifact `synthesize`.
    Synthetic,
}

/// How the two sides of sentence pairs lie beside each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ParallelLayout {
    /// Line k of one file belongs to line k of the other.
    Sides,
    /// Two columns of one table.
    Table {
        format: FileFormat,
        first: String,
        second: String,
    },
}

/// What a job reads inference pairs from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NliInput {
    /// The job's files `file:0`, `file:1`, ...
    Files {
        format: NliFormat,
        file_format: FileFormat,
        premise_rows: Option<u32>,
    },
    Hub {
        files: HubFiles,
        format: NliFormat,
        file_format: FileFormat,
        premise_rows: Option<u32>,
    },
    /// `nli/<split>.<language>.tsv` of the input artifact `synthesize`.
    Synthetic,
    /// `examples.jsonl` of the input artifact `translated`.
    Translated,
}

/// What a job reads pairs of words from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum WordInput {
    /// The job's files `file:0`, `file:1`, ...
    Files,
    Hub {
        files: HubFiles,
    },
    /// `dictionary/<first>-<second>.txt` of the input artifact `synthesize`, its languages in alphabetical order.
    Synthetic,
}

impl WordSource {
    /// Whether the source has a language.
    pub fn covers(&self, language: &str) -> bool {
        lists(&self.languages, language)
    }

    /// The identity of what a job for a language reads.
    pub fn input(&self, language: &str) -> Result<WordInput> {
        Ok(match &self.hub {
            Some(hub) => WordInput::Hub {
                files: hub.files_for(&Fields::from([("language", language)]))?,
            },
            None => WordInput::Files,
        })
    }

    /// The local files of a language, by the names under which its job finds them; none for a hub source.
    ///
    /// # Errors
    /// A language that the source does not list, a file that is not there.
    pub fn files(&self, language: &str, root: Option<&Path>) -> Result<BTreeMap<String, PathBuf>> {
        check_covered(&self.languages, language)?;
        local_files(&self.files, language, root)
    }
}

impl TextSource {
    /// Whether the source has a language.
    pub fn covers(&self, language: &str) -> bool {
        lists(&self.languages, language)
    }

    /// The identity of what a job for a language reads.
    pub fn input(&self, language: &str) -> Result<TextInput> {
        let fields = Fields::from([("language", language)]);
        let column = self
            .column
            .as_deref()
            .map(|column| paths::fill(column, &fields))
            .transpose()?;
        let format = format_of(&self.files, &self.hub)?;
        Ok(match &self.hub {
            Some(hub) => TextInput::Hub {
                files: hub.files_for(&fields)?,
                format,
                column,
            },
            None => TextInput::Files { format, column },
        })
    }

    /// The local files of a language, by the names under which its job finds them; none for a hub source.
    ///
    /// # Errors
    /// A language that the source does not list, a file that is not there.
    pub fn files(&self, language: &str, root: Option<&Path>) -> Result<BTreeMap<String, PathBuf>> {
        check_covered(&self.languages, language)?;
        local_files(&self.files, language, root)
    }
}

impl ParallelSource {
    /// Whether the source has pairs of the source language with `target`.
    pub fn covers(&self, target: &str) -> bool {
        lists(&self.languages, target)
    }

    /// The identity of what a job for two languages reads.
    pub fn input(&self, source: &str, target: &str) -> Result<ParallelInput> {
        let (first, second) = language::ordered(source, target);
        let pair = format!("{source}-{target}");
        let layout = match &self.columns {
            None => ParallelLayout::Sides,
            Some(columns) => {
                let fields = pair_fields(source, target, &pair, "");
                let mut names = [
                    paths::fill(&columns.source, &fields)?,
                    paths::fill(&columns.target, &fields)?,
                ];
                if first != source {
                    names.swap(0, 1);
                }
                let [first, second] = names;
                ParallelLayout::Table {
                    format: format_of(&self.files, &self.hub)?,
                    first,
                    second,
                }
            }
        };
        let Some(hub) = &self.hub else {
            return Ok(ParallelInput::Files { layout });
        };
        let sides: &[&str] = if self.columns.is_none() {
            &[first, second]
        } else {
            &[""]
        };
        let files = sides
            .iter()
            .map(|side| hub.files_for(&pair_fields(source, target, &pair, side)));
        Ok(ParallelInput::Hub {
            files: files.collect::<Result<_>>()?,
            layout,
        })
    }

    /// The local files of a pair, by the names under which its job finds them; none for a hub source.
    ///
    /// # Errors
    /// A target that the source does not list; a file that is not there; `{pair}` that fits in both orders; different numbers of files for the two sides.
    pub fn files(
        &self,
        source: &str,
        target: &str,
        root: Option<&Path>,
    ) -> Result<BTreeMap<String, PathBuf>> {
        check_covered(&self.languages, target)?;
        let Some(pattern) = &self.files else {
            return Ok(BTreeMap::new());
        };
        let (first, second) = language::ordered(source, target);
        let find = |pair: &str| -> Result<BTreeMap<String, PathBuf>> {
            let side = |side: &str| {
                paths::find(
                    &paths::fill(pattern, &pair_fields(source, target, pair, side))?,
                    root,
                )
            };
            if self.columns.is_some() {
                return Ok(numbered("table", side("")?));
            }
            let (firsts, seconds) = (side(first)?, side(second)?);
            if firsts.len() != seconds.len() {
                bail!(
                    "`{pattern}` matches {} files in {first} and {} in {second}",
                    firsts.len(),
                    seconds.len()
                );
            }
            let mut files = numbered("first", firsts);
            files.extend(numbered("second", seconds));
            Ok(files)
        };
        let straight = find(&format!("{source}-{target}"));
        if !paths::placeholders(pattern)?.contains(&"pair") {
            return straight;
        }
        match (straight, find(&format!("{target}-{source}"))) {
            (Ok(_), Ok(_)) => bail!(
                "`{pattern}` fits {source}-{target} and {target}-{source}; write {{source}}-{{target}} or {{target}}-{{source}}"
            ),
            (Err(_), Ok(files)) => Ok(files),
            (straight, Err(_)) => straight,
        }
    }
}

impl NliSource {
    /// Whether the source has a language.
    pub fn covers(&self, language: &str) -> bool {
        lists(&self.languages, language)
    }

    /// The identity of what a job for a language reads.
    pub fn input(&self, language: &str) -> Result<NliInput> {
        let (format, premise_rows) = (self.format.clone(), self.premise_rows);
        let file_format = format_of(&self.files, &self.hub)?;
        Ok(match &self.hub {
            Some(hub) => {
                let files = hub.files_for(&Fields::from([("language", language)]))?;
                NliInput::Hub {
                    files,
                    format,
                    file_format,
                    premise_rows,
                }
            }
            None => NliInput::Files {
                format,
                file_format,
                premise_rows,
            },
        })
    }

    /// The local files of a language, by the names under which its job finds them; none for a hub source.
    ///
    /// # Errors
    /// A language that the source does not list, a file that is not there.
    pub fn files(&self, language: &str, root: Option<&Path>) -> Result<BTreeMap<String, PathBuf>> {
        check_covered(&self.languages, language)?;
        local_files(&self.files, language, root)
    }
}

impl HubSource {
    /// The files for some value of the placeholders.
    fn files_for(&self, fields: &Fields) -> Result<HubFiles> {
        let (kind, repository) = match (&self.dataset, &self.model) {
            (Some(name), _) => (RepositoryKind::Dataset, name),
            (None, Some(name)) => (RepositoryKind::Model, name),
            (None, None) => bail!("`hub` needs exactly one of `dataset` and `model`"),
        };
        let paths = self.files.iter().map(|file| paths::fill(file, fields));
        Ok(HubFiles {
            kind,
            repository: repository.clone(),
            revision: self.revision.clone(),
            paths: paths.collect::<Result<_>>()?,
        })
    }
}

fn lists(languages: &Option<Vec<String>>, language: &str) -> bool {
    match languages {
        Some(languages) => languages.iter().any(|listed| listed == language),
        None => true,
    }
}

fn check_covered(languages: &Option<Vec<String>>, language: &str) -> Result<()> {
    if !lists(languages, language) {
        bail!("the source does not list {language} among its `languages`");
    }
    Ok(())
}

fn pair_fields<'a>(source: &'a str, target: &'a str, pair: &'a str, side: &'a str) -> Fields<'a> {
    let fields = [
        ("source", source),
        ("target", target),
        ("language", target),
        ("pair", pair),
        ("side", side),
    ];
    fields
        .into_iter()
        .filter(|(name, value)| *name != "side" || !value.is_empty())
        .collect()
}

fn origin_patterns<'a>(files: &'a Option<String>, hub: &'a Option<HubSource>) -> Vec<&'a str> {
    let hub = hub.iter().flat_map(|hub| hub.files.iter());
    files.iter().chain(hub).map(String::as_str).collect()
}

fn format_of(files: &Option<String>, hub: &Option<HubSource>) -> Result<FileFormat> {
    let patterns = origin_patterns(files, hub);
    let (first, others) = patterns.split_first().context("a source names no files")?;
    let format = FileFormat::of_name(first)?;
    for other in others {
        if FileFormat::of_name(other)? != format {
            bail!("`{first}` and `{other}` have different formats; one source has one");
        }
    }
    Ok(format)
}

fn local_files(
    pattern: &Option<String>,
    language: &str,
    root: Option<&Path>,
) -> Result<BTreeMap<String, PathBuf>> {
    let Some(pattern) = pattern else {
        return Ok(BTreeMap::new());
    };
    let filled = paths::fill(pattern, &Fields::from([("language", language)]))?;
    Ok(numbered("file", paths::find(&filled, root)?))
}

fn numbered(name: &str, paths: Vec<PathBuf>) -> BTreeMap<String, PathBuf> {
    let named = paths.into_iter().enumerate();
    named
        .map(|(number, path)| (format!("{name}:{number}"), path))
        .collect()
}
