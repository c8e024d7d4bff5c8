//! XNLI-1.0 (Conneau et al. 2018): tab-separated, 19 columns, 15 languages one after the other in one file. Three pairs
//! share a `promptID`; row k of every language is the same pair.

use std::path::Path;

use anyhow::Result;

use super::NliRows;
use crate::data::files::FileFormat;
use crate::data::tables;

const COLUMNS: [&str; 5] = [
    "language",
    "sentence1",
    "sentence2",
    "gold_label",
    "promptID",
];

pub fn read(path: &Path, rows: &mut NliRows) -> Result<()> {
    let counts = tables::for_each_row(path, FileFormat::Tsv, &COLUMNS, &mut |_, row| {
        rows.push_in(row[0], row[1], row[2], row[3], Some(row[4]))
    })?;
    rows.lines.add(&counts);
    Ok(())
}
