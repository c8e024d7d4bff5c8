//! What is wrong with a source's settings, as far as that shows without looking at files.
//!
//! Each problem is the name of a field, with dots between levels, and a message that ends in the remedy.

use super::{
    HubSource, NliSource, ParallelSource, TextSource, WordSource, format_of, origin_patterns,
};
use crate::data::formats::NliFormat;
use crate::data::{hub, paths};
use crate::language;

/// Field and message.
pub type Problem = (String, String);

const LANGUAGE: &[&str] = &["language"];
const PAIR: &[&str] = &["language", "source", "target", "pair", "side"];
const PAIR_COLUMN: &[&str] = &["language", "source", "target"];

impl TextSource {
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Found::default();
        found.languages(&self.languages);
        let tables = found.origin(&self.files, &self.hub, LANGUAGE);
        match (&self.column, tables) {
            (None, Some(true)) => found.add(
                "column",
                "the files are tables; name the column with the text",
            ),
            (Some(_), Some(false)) => found.add(
                "column",
                "the files are plain text, which has no columns; remove it",
            ),
            (Some(column), _) => found.pattern("column", column, LANGUAGE),
            (None, _) => {}
        }
        let own_column = self
            .column
            .as_ref()
            .is_some_and(|column| column.contains("{language}"));
        found.one_for_all(&self.files, &self.hub, &self.languages, own_column);
        if self.limit == Some(0) {
            found.add(
                "limit",
                "a limit of 0 leaves no text; choose 1 or more, or leave it out",
            );
        }
        found.problems
    }
}

impl WordSource {
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Found::default();
        found.languages(&self.languages);
        if found.origin(&self.files, &self.hub, LANGUAGE) == Some(true) {
            found.add(
                if self.files.is_some() {
                    "files"
                } else {
                    "hub.files"
                },
                "pairs of words are plain text, a pair in a line; name the file .txt",
            );
        }
        if self.limit == Some(0) {
            found.add("limit", "a limit of 0 leaves no words; choose 1 or more");
        }
        found.one_for_all(&self.files, &self.hub, &self.languages, false);
        found.problems
    }
}

impl ParallelSource {
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Found::default();
        found.languages(&self.languages);
        let tables = found.origin(&self.files, &self.hub, PAIR);
        let sides = origin_patterns(&self.files, &self.hub)
            .iter()
            .any(|pattern| pattern.contains("{side}"));
        match (&self.columns, sides) {
            (Some(_), true) => found.add("columns", "the path has {side}, so there are no tables; remove one of the two"),
            (None, false) => found.add(
                "files",
                "put {side} into the path (two files, aligned line by line), or name the two `columns` of a table",
            ),
            (None, true) if tables == Some(true) => {
                found.add("files", "files with {side} must be plain text, a sentence per line");
            }
            (Some(_), false) if tables == Some(false) => {
                found.add("columns", "the files are plain text; name them .tsv, .csv, .jsonl or .parquet");
            }
            _ => {}
        }
        let mut own_column = false;
        if let Some(columns) = &self.columns {
            found.pattern("columns.source", &columns.source, PAIR_COLUMN);
            found.pattern("columns.target", &columns.target, PAIR_COLUMN);
            if columns.source == columns.target {
                found.add("columns", "both are the same column; name two");
            }
            own_column = columns.target.contains('{');
        }
        found.one_for_all(&self.files, &self.hub, &self.languages, own_column);
        found.problems
    }
}

impl NliSource {
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Found::default();
        found.languages(&self.languages);
        let tables = found.origin(&self.files, &self.hub, LANGUAGE);
        if let NliFormat::Columns(columns) = &self.format {
            if !columns.labels_are_named_once() {
                found.add(
                    "format.columns.label_names",
                    "list contradiction, neutral and entailment once each, in the order of their numbers",
                );
            }
            if tables == Some(false) {
                found.add(
                    "files",
                    "format `columns` needs tables: .tsv, .csv, .jsonl or .parquet",
                );
            }
        }
        match self.premise_rows {
            Some(0) => found.add("premise_rows", "0 rows per premise; write 1 or more"),
            Some(_) if self.format.has_premise_ids() => {
                found.add("premise_rows", "the files tell premises by id; remove it");
            }
            _ => {}
        }
        found.one_for_all(
            &self.files,
            &self.hub,
            &self.languages,
            self.format.has_languages(),
        );
        found.problems
    }
}

#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
}

impl Found {
    fn add(&mut self, field: &str, message: impl Into<String>) {
        self.problems.push((field.to_owned(), message.into()));
    }

    fn pattern(&mut self, field: &str, pattern: &str, placeholders: &[&str]) {
        if let Err(error) = paths::check(pattern, placeholders) {
            self.add(field, format!("{error:#}"));
        }
    }

    fn languages(&mut self, languages: &Option<Vec<String>>) {
        let Some(languages) = languages else {
            return;
        };
        if languages.is_empty() {
            self.add("languages", "the list is empty; name some or remove it");
        }
        for (index, code) in languages.iter().enumerate() {
            if let Err(remedy) = language::check(code) {
                self.add(&format!("languages.{index}"), remedy);
            }
        }
    }

    /// Exactly one of `files` and `hub`, well formed, in one format. Whether they are tables, where that can be told.
    fn origin(
        &mut self,
        files: &Option<String>,
        hub: &Option<HubSource>,
        placeholders: &[&str],
    ) -> Option<bool> {
        match (files, hub) {
            (Some(pattern), None) => self.pattern("files", pattern, placeholders),
            (None, Some(hub)) => self.hub(hub, placeholders),
            (Some(_), Some(_)) => {
                self.add("hub", "`files` and `hub` exclude each other; remove one")
            }
            (None, None) => self.add(
                "files",
                "there is neither `files` nor `hub`; say where the text comes from",
            ),
        }
        if origin_patterns(files, hub).is_empty() {
            return None;
        }
        match format_of(files, hub) {
            Ok(format) => Some(format.has_columns()),
            Err(error) => {
                self.add(
                    if files.is_some() {
                        "files"
                    } else {
                        "hub.files"
                    },
                    format!("{error:#}"),
                );
                None
            }
        }
    }

    fn hub(&mut self, source: &HubSource, placeholders: &[&str]) {
        match (&source.dataset, &source.model) {
            (Some(name), None) => self.repository("hub.dataset", name),
            (None, Some(name)) => self.repository("hub.model", name),
            _ => self.add(
                "hub",
                "exactly one of `dataset` and `model` names a repository; give one",
            ),
        }
        if let Err(error) = hub::check_revision(&source.revision) {
            self.add("hub.revision", format!("{error:#}"));
        }
        if source.files.is_empty() {
            self.add("hub.files", "the list is empty; name the files");
        }
        for (index, file) in source.files.iter().enumerate() {
            let field = format!("hub.files.{index}");
            self.pattern(&field, file, placeholders);
            if file.contains('*') {
                self.add(
                    &field,
                    format!("`{file}` has a `*`; hub files are listed one by one"),
                );
            }
        }
    }

    fn repository(&mut self, field: &str, name: &str) {
        let plain = |part: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !part.is_empty() && !part.starts_with('.') && part.bytes().all(known)
        };
        if name.split('/').count() > 2 || !name.split('/').all(plain) {
            self.add(
                field,
                format!("`{name}` does not name a repository; write `owner/name`"),
            );
        }
    }

    /// One file read for every language is the same text in each, unless a column tells them apart.
    fn one_for_all(
        &mut self,
        files: &Option<String>,
        hub: &Option<HubSource>,
        languages: &Option<Vec<String>>,
        told_by_a_column: bool,
    ) {
        let patterns = origin_patterns(files, hub);
        let told_by_the_path = patterns.iter().any(|pattern| {
            ["{language}", "{target}", "{pair}"]
                .iter()
                .any(|name| pattern.contains(name))
        });
        let one_language = languages
            .as_ref()
            .is_some_and(|languages| languages.len() == 1);
        if !patterns.is_empty() && !told_by_the_path && !told_by_a_column && !one_language {
            self.add(
                if files.is_some() { "files" } else { "hub.files" },
                "one file would serve every language; put {language} into the path, or list the one language in `languages`",
            );
        }
    }
}
