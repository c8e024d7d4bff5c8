//! `measurements.parquet`: for every item that a pretrained model was measured on its numbers, never the text.

use std::path::Path;

use anyhow::{Context, Result, bail};
use polars::prelude::{Column, DataFrame, Float64Chunked, PolarsResult, UInt32Chunked};

use crate::metrics::{Measurement, Task};
use crate::report::results::{cell_columns, read_cells, read_table};
use crate::report::scores::Cell;

/// Written where a study measures pretrained models as they are.
pub const MEASUREMENTS: &str = "measurements.parquet";

/// The measurements of one cell, in the order of the items.
#[derive(Debug, Clone, PartialEq)]
pub struct CellMeasurements {
    pub cell: Cell,
    /// The cluster of each item (sentence, or first word of a pair), and its numbers.
    pub items: Vec<(u32, Measurement)>,
}

/// The columns of numbers; those that an item's kind does not have are empty.
const COLUMNS: [&str; 6] = [
    "loss",
    "units",
    "cosine",
    "distance",
    "cosine_of_others",
    "rating",
];

/// An item's numbers in the order of [`COLUMNS`].
fn numbers(item: &Measurement) -> [Option<f64>; 6] {
    match *item {
        Measurement::Text { loss, units } => {
            [Some(loss), Some(units as f64), None, None, None, None]
        }
        Measurement::Pair {
            cosine,
            distance,
            cosine_of_others,
        } => [
            None,
            None,
            Some(cosine),
            Some(distance),
            Some(cosine_of_others),
            None,
        ],
        Measurement::Rated { cosine, rating } => {
            [None, None, Some(cosine), None, None, Some(rating)]
        }
    }
}

/// One row per cell and item.
pub fn frame(measurements: &[CellMeasurements]) -> PolarsResult<DataFrame> {
    let lengths: Vec<(&Cell, usize)> = measurements
        .iter()
        .map(|one| (&one.cell, one.items.len()))
        .collect();
    let mut columns = cell_columns(&lengths);
    let items = || measurements.iter().flat_map(|one| &one.items);
    let clusters: Vec<u32> = items().map(|(cluster, _)| *cluster).collect();
    columns.push(Column::new("cluster".into(), clusters));
    for (index, name) in COLUMNS.into_iter().enumerate() {
        let values: Vec<Option<f64>> = items().map(|(_, item)| numbers(item)[index]).collect();
        columns.push(Column::new(name.into(), values));
    }
    DataFrame::new_infer_height(columns)
}

/// Reads the file; none is there where a study measures nothing.
pub fn read(folder: &Path) -> Result<Vec<CellMeasurements>> {
    read_table(&folder.join(MEASUREMENTS), "measurements", from_frame)
}

fn from_frame(frame: &DataFrame) -> Result<Vec<CellMeasurements>> {
    let columns: Vec<&Float64Chunked> = COLUMNS
        .into_iter()
        .map(|name| frame.column(name)?.f64())
        .collect::<PolarsResult<_>>()?;
    let clusters: &UInt32Chunked = frame.column("cluster")?.u32()?;
    let mut measurements: Vec<CellMeasurements> = Vec::new();
    for (cell, rows) in read_cells(frame)? {
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            let number = |column: usize| {
                let value = columns[column].get(row);
                value.with_context(|| format!("row {row} has no `{}`", COLUMNS[column]))
            };
            let cluster = clusters.get(row);
            let cluster = cluster.with_context(|| format!("row {row} has no `cluster`"))?;
            let item = match Task::of(&cell.task) {
                Task::LanguageModelling => Measurement::Text {
                    loss: number(0)?,
                    units: number(1)? as u64,
                },
                Task::WordTranslation => Measurement::Pair {
                    cosine: number(2)?,
                    distance: number(3)?,
                    cosine_of_others: number(4)?,
                },
                Task::WordSimilarity => Measurement::Rated {
                    cosine: number(2)?,
                    rating: number(5)?,
                },
                Task::Xnli | Task::XnliMixed | Task::Translation => {
                    bail!("nothing is measured in the task `{}`", cell.task)
                }
            };
            items.push((cluster, item));
        }
        measurements.push(CellMeasurements { cell, items });
    }
    measurements.sort_by(|a, b| a.cell.cmp(&b.cell));
    Ok(measurements)
}
