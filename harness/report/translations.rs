//! `translations.parquet`: for every test sentence the counts that BLEU and chrF are computed from, never the sentence.

use std::path::Path;

use anyhow::{Context, Result};
use polars::prelude::{Column, DataFrame, PolarsResult, UInt32Chunked};

use crate::metrics::TranslationCounts;
use crate::metrics::bleu::ORDER;
use crate::metrics::chrf::ORDERS;
use crate::report::results::{cell_columns, read_cells, read_table};
use crate::report::scores::Cell;

/// Written where a study translates.
pub const TRANSLATIONS: &str = "translations.parquet";

/// The translations of one cell, in the order of the test set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellTranslations {
    pub cell: Cell,
    pub sentences: Vec<TranslationCounts>,
}

/// A column's name, and where its counts lie: a place in an array, and which.
type CountColumn = (
    String,
    fn(&mut TranslationCounts, usize) -> Option<&mut u64>,
    usize,
);

/// The columns of counts.
fn columns() -> Vec<CountColumn> {
    let mut columns: Vec<CountColumn> = vec![
        (
            "hypothesis_length".to_owned(),
            |counts, _| Some(&mut counts.bleu.hypothesis_length),
            0,
        ),
        (
            "reference_length".to_owned(),
            |counts, _| Some(&mut counts.bleu.reference_length),
            0,
        ),
    ];
    for order in 0..ORDER {
        columns.push((
            format!("bleu_matches_{}", order + 1),
            |counts, order| counts.bleu.matches.get_mut(order),
            order,
        ));
        columns.push((
            format!("bleu_totals_{}", order + 1),
            |counts, order| counts.bleu.totals.get_mut(order),
            order,
        ));
    }
    for order in 0..ORDERS {
        columns.push((
            format!("chrf_matches_{}", order + 1),
            |counts, order| counts.chrf.matches.get_mut(order),
            order,
        ));
        columns.push((
            format!("chrf_hypothesis_{}", order + 1),
            |counts, order| counts.chrf.hypothesis.get_mut(order),
            order,
        ));
        columns.push((
            format!("chrf_reference_{}", order + 1),
            |counts, order| counts.chrf.reference.get_mut(order),
            order,
        ));
    }
    columns
}

/// One row per cell and test sentence.
pub fn frame(translations: &[CellTranslations]) -> PolarsResult<DataFrame> {
    let lengths: Vec<(&Cell, usize)> = translations
        .iter()
        .map(|one| (&one.cell, one.sentences.len()))
        .collect();
    let mut all = cell_columns(&lengths);
    let numbers = lengths.iter().flat_map(|(_, length)| 0..*length as u32);
    all.push(Column::new("sentence".into(), numbers.collect::<Vec<_>>()));
    for (name, place, order) in columns() {
        let values: Vec<u32> = translations
            .iter()
            .flat_map(|one| &one.sentences)
            .map(|counts| {
                let mut counts = *counts;
                // A sentence has fewer than four billion of anything.
                place(&mut counts, order)
                    .map_or(0, |count| u32::try_from(*count).unwrap_or(u32::MAX))
            })
            .collect();
        all.push(Column::new(name.into(), values));
    }
    DataFrame::new_infer_height(all)
}

/// Reads the file; none is there where a study does not translate.
pub fn read(folder: &Path) -> Result<Vec<CellTranslations>> {
    read_table(&folder.join(TRANSLATIONS), "translations", from_frame)
}

fn from_frame(frame: &DataFrame) -> Result<Vec<CellTranslations>> {
    let mut counts = vec![
        TranslationCounts {
            sentences: 1,
            ..Default::default()
        };
        frame.height()
    ];
    for (name, place, order) in columns() {
        let values: &UInt32Chunked = frame.column(&name)?.u32()?;
        for (row, counts) in counts.iter_mut().enumerate() {
            let value = values
                .get(row)
                .with_context(|| format!("row {row} has an empty field"))?;
            if let Some(count) = place(counts, order) {
                *count = u64::from(value);
            }
        }
    }
    let mut translations: Vec<CellTranslations> = Vec::new();
    for (cell, rows) in read_cells(frame)? {
        translations.push(CellTranslations {
            cell,
            sentences: counts[rows].to_vec(),
        });
    }
    translations.sort_by(|a, b| a.cell.cmp(&b.cell));
    Ok(translations)
}
