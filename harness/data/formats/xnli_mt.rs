//! XNLI-MT-1.0 (Conneau et al. 2018): MultiNLI's training pairs, machine-translated and tokenised, one file per language
//! with the columns premise, hypo, label; contradiction is spelled `contradictory`. Row k of every file is the same pair.

use std::path::Path;

use anyhow::Result;

use super::NliRows;
use crate::data::files::FileFormat;
use crate::data::tables;

pub fn read(path: &Path, rows: &mut NliRows) -> Result<()> {
    let counts = tables::for_each_row(
        path,
        FileFormat::Tsv,
        &["premise", "hypo", "label"],
        &mut |_, row| rows.push(row[0], row[1], row[2], None),
    )?;
    rows.lines.add(&counts);
    Ok(())
}
