//! Tables, claims, plots and pages, all made from the source files of a results folder ([`results`]).
//!
//! [`render`] makes every generated file in memory; [`write`] puts them on disk and [`check`] compares them with what
//! is there. Neither needs data, store, model or GPU.

pub mod check;
pub mod claims;
mod clusters;
pub mod collect;
pub mod compare;
pub mod format;
pub mod html;
pub mod manifest;
pub mod measurements;
pub mod notebook;
pub mod plots;
pub mod provenance;
pub mod results;
pub mod scores;
pub mod summary;
pub mod tables;
pub mod translations;
mod translators;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use check::{Stale, check, settings_match};

use crate::spec::anchors::Anchors;
use crate::spec::claims::Claim;
use crate::spec::tables::Table;

/// Folders below a results folder that hold generated files only.
pub const GENERATED_FOLDERS: [&str; 2] = ["tables", "plots"];

/// What a report is made from.
#[derive(Debug, Clone, Copy)]
pub struct ReportInput<'a> {
    pub results: &'a results::Results,
    pub claims: &'a [Claim],
    pub tables: &'a [Table],
    /// Variant or regime -> how tables and plots name it; its own name where absent.
    pub labels: &'a BTreeMap<String, String>,
    pub anchors: &'a Anchors,
    /// The profile is the paper's own: only there can a claim be reproduced.
    pub profile_is_paper: bool,
}

impl ReportInput<'_> {
    /// How a variant or a regime is written out.
    pub fn label(&self, name: &str) -> String {
        let label = self.labels.get(name).cloned();
        label.unwrap_or_else(|| format::regime(name))
    }
}

/// Generated files: the path of each below the results folder (`/` between parts; the notebook's leads out of it with
/// `../`) and its bytes.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Every generated file, and the verdicts.
pub fn render(input: &ReportInput) -> Result<(Files, Vec<claims::Judgement>)> {
    let mut files = BTreeMap::new();
    let summary = summary::Summary::new(input.results);
    let mut layouts = Vec::with_capacity(input.tables.len());
    for table in input.tables {
        let layout = tables::layout(table, input, &summary);
        files.insert(
            format!("tables/{}.md", table.name),
            tables::markdown::render(&layout).into_bytes(),
        );
        files.insert(
            format!("tables/{}.tex", table.name),
            tables::latex::render(&layout).into_bytes(),
        );
        files.insert(
            format!("tables/{}.csv", table.name),
            tables::csv::render(&layout)?,
        );
        layouts.push(layout);
    }
    let judgements = claims::judge(input)?;
    files.insert(
        "claims.md".to_owned(),
        claims::markdown(&judgements, input).into_bytes(),
    );
    let drawings = plots::draw(input, &summary)?;
    let page = html::page(input, &summary, &judgements, &layouts, &drawings)?;
    files.extend(plots::files(drawings));
    files.insert("report.html".to_owned(), page.into_bytes());
    let manifest = &input.results.manifest;
    files.insert(
        notebook::path(manifest),
        notebook::notebook(manifest)?.into_bytes(),
    );
    Ok((files, judgements))
}

/// Writes the files that differ, all or none, as far as a file system can promise it: first each beside its place, then all into place. An
/// error leaves what was there.
pub fn write_whole<'a>(
    folder: &Path,
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<()> {
    let mut written: Vec<(PathBuf, PathBuf)> = Vec::new();
    let attempt = || -> Result<()> {
        for (name, bytes) in files {
            let path = folder.join(name);
            if std::fs::read(&path).is_ok_and(|there| there == bytes) {
                continue;
            }
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)
                    .with_context(|| format!("cannot create {}", parent.display()))?;
            }
            let mut beside = path.clone().into_os_string();
            // Another run of the study may be writing the same.
            beside.push(format!(".{}.new", std::process::id()));
            written.push((PathBuf::from(beside), path));
            let (beside, path) = &written[written.len() - 1];
            std::fs::write(beside, bytes).with_context(|| {
                format!("cannot write {}; what was there is kept", path.display())
            })?;
        }
        for (beside, path) in &written {
            std::fs::rename(beside, path)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    };
    let outcome = attempt();
    if outcome.is_err() {
        for (beside, _) in &written {
            // It may not be there; the error that matters is told already.
            let _ = std::fs::remove_file(beside);
        }
    }
    outcome
}

/// Writes the generated files, and removes what an earlier report left in [`GENERATED_FOLDERS`].
pub fn write(folder: &Path, rendered: &Files) -> Result<()> {
    write_whole(
        folder,
        rendered
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice())),
    )?;
    for name in check::left_over(folder, rendered)? {
        let path = folder.join(name);
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
