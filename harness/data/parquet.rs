//! Columns of a Parquet file as text. The one place under `data` that knows Polars.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use polars::prelude::{DataType, ParquetReader, SerReader};

/// Calls `each` with the number of the row (from 1) and the wanted columns. Whole numbers are written out.
pub fn for_each_row(
    path: &Path,
    columns: &[&str],
    each: &mut dyn FnMut(u64, &[&str]) -> Result<()>,
) -> Result<()> {
    let reading = || format!("cannot read `{}` as parquet", path.display());
    let file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    let mut reader = ParquetReader::new(file);
    let schema = reader.schema().with_context(reading)?;
    for name in columns {
        if !schema.iter_names().any(|column| column == name) {
            let names: Vec<&str> = schema.iter_names().map(|name| name.as_str()).collect();
            bail!(
                "`{}` has no column `{name}`; it has {}",
                path.display(),
                names.join(", ")
            );
        }
    }
    let wanted = columns.iter().map(|name| (*name).to_owned()).collect();
    let frame = reader
        .with_columns(Some(wanted))
        .finish()
        .with_context(reading)?;
    let mut texts = Vec::with_capacity(columns.len());
    for name in columns {
        let column = frame.column(name).with_context(reading)?;
        let kind = column.dtype();
        if *kind != DataType::String && !kind.is_integer() {
            bail!(
                "`{}` column `{name}` holds {kind}, not text or whole numbers",
                path.display()
            );
        }
        texts.push(column.cast(&DataType::String).with_context(reading)?);
    }
    let mut iterators = Vec::with_capacity(texts.len());
    for text in &texts {
        iterators.push(text.str().with_context(reading)?.iter());
    }
    let mut values = Vec::with_capacity(columns.len());
    for row in 1..=frame.height() as u64 {
        values.clear();
        for (iterator, name) in iterators.iter_mut().zip(columns) {
            let value = iterator.next().flatten();
            values.push(value.with_context(|| {
                format!(
                    "`{}` row {row} has nothing in column `{name}`",
                    path.display()
                )
            })?);
        }
        each(row, &values)?;
    }
    Ok(())
}
