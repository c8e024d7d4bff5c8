//! The pairs of a generated family of languages: tab-separated, columns premise, hypothesis, label, premise_id.

use std::path::Path;

use anyhow::Result;

use super::NliRows;
use crate::data::files::FileFormat;
use crate::data::tables;

const COLUMNS: [&str; 4] = ["premise", "hypothesis", "label", "premise_id"];

pub fn read(path: &Path, rows: &mut NliRows) -> Result<()> {
    let counts = tables::for_each_row(path, FileFormat::Tsv, &COLUMNS, &mut |_, row| {
        rows.push(row[0], row[1], row[2], Some(row[3]))
    })?;
    rows.lines.add(&counts);
    Ok(())
}
