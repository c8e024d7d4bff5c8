//! KorNLI (Ham et al. 2020): SNLI, MultiNLI and XNLI in Korean, one file per set with the columns sentence1, sentence2,
//! gold_label. The XNLI files keep XNLI's order, three rows per premise (`premise_rows: 3`).

use std::path::Path;

use anyhow::Result;

use super::NliRows;
use crate::data::files::FileFormat;
use crate::data::tables;

pub fn read(path: &Path, rows: &mut NliRows) -> Result<()> {
    let counts = tables::for_each_row(
        path,
        FileFormat::Tsv,
        &["sentence1", "sentence2", "gold_label"],
        &mut |_, row| rows.push(row[0], row[1], row[2], None),
    )?;
    rows.lines.add(&counts);
    Ok(())
}
