//! Rows of named columns from tsv, csv, jsonl and Parquet files.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::files::{self, FileFormat, LineCounts, Lines};
use super::parquet;

/// Calls `each` with the number of the line (of the row, in Parquet; both from 1) and the wanted columns of every row.
///
/// A column is the name in the header. In tsv and csv files without a header it is a position, counted from 1: `"1"`.
///
/// # Errors
/// A column that is not there, a row with another number of columns than the first, whatever `each` returns (with file
/// and line added).
pub fn for_each_row(
    path: &Path,
    format: FileFormat,
    columns: &[&str],
    each: &mut dyn FnMut(u64, &[&str]) -> Result<()>,
) -> Result<LineCounts> {
    match format {
        FileFormat::Text => bail!(
            "`{}` has no columns; only tsv, csv, jsonl and parquet files have",
            path.display()
        ),
        FileFormat::Tsv => tsv(path, columns, each),
        FileFormat::Csv => csv(path, columns, each),
        FileFormat::Jsonl => jsonl(path, columns, each),
        FileFormat::Parquet => {
            let mut rows = 0;
            parquet::for_each_row(path, columns, &mut |row, values| {
                rows = row;
                each(row, values).with_context(|| place(path, "row", row))
            })?;
            Ok(LineCounts {
                lines: rows,
                ..LineCounts::default()
            })
        }
    }
}

fn place(path: &Path, unit: &str, number: u64) -> String {
    format!("`{}` {unit} {number}", path.display())
}

/// Where the wanted columns are.
struct Positions {
    wanted: Vec<usize>,
    /// Columns of the first row, hence of every row.
    width: usize,
    has_header: bool,
}

impl Positions {
    fn find(path: &Path, columns: &[&str], first: &[&str]) -> Result<Self> {
        let numbers: Vec<Option<usize>> = columns.iter().map(|name| name.parse().ok()).collect();
        let numbered = numbers.iter().flatten().count();
        if numbered != 0 && numbered != columns.len() {
            bail!(
                "columns {columns:?} are partly names and partly positions; name all (the file has a header) or none"
            );
        }
        let mut wanted = Vec::with_capacity(columns.len());
        for (name, number) in columns.iter().zip(numbers) {
            let position = match number {
                Some(number) => number.checked_sub(1).filter(|&at| at < first.len()),
                None => first.iter().position(|header| header == name),
            };
            let position = position.with_context(|| match number {
                Some(number) => format!(
                    "`{}` has no column {number}: its first line has {} (positions count from 1)",
                    path.display(),
                    first.len()
                ),
                None => format!(
                    "`{}` has no column `{name}`; its header is: {}",
                    path.display(),
                    first.join(", ")
                ),
            })?;
            wanted.push(position);
        }
        Ok(Self {
            wanted,
            width: first.len(),
            has_header: numbered == 0,
        })
    }

    fn pick<'a>(&self, path: &Path, line: u64, fields: &[&'a str]) -> Result<Vec<&'a str>> {
        if fields.len() != self.width {
            bail!(
                "`{}` line {line} has {} columns, the first line has {}",
                path.display(),
                fields.len(),
                self.width
            );
        }
        Ok(self.wanted.iter().map(|&at| fields[at]).collect())
    }
}

/// Split at tabs and nothing else. The releases this reads (XNLI, MultiNLI, KorNLI, newstest) write text as it is, with
/// unpaired quotation marks at the start of fields: a reader that honours quotes swallows the lines up to the next one.
fn tsv(
    path: &Path,
    columns: &[&str],
    each: &mut dyn FnMut(u64, &[&str]) -> Result<()>,
) -> Result<LineCounts> {
    let mut lines = Lines::open(path)?;
    let mut positions: Option<Positions> = None;
    loop {
        let number = lines.number() + 1;
        let Some(line) = lines.next_line()? else {
            break;
        };
        let fields: Vec<&str> = line.split('\t').collect();
        let positions = match &positions {
            Some(positions) => positions,
            None => {
                let found = positions.insert(Positions::find(path, columns, &fields)?);
                if found.has_header {
                    continue;
                }
                found
            }
        };
        let values = positions.pick(path, number, &fields)?;
        each(number, &values).with_context(|| place(path, "line", number))?;
    }
    Ok(lines.counts())
}

fn csv(
    path: &Path,
    columns: &[&str],
    each: &mut dyn FnMut(u64, &[&str]) -> Result<()>,
) -> Result<LineCounts> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(files::open(path)?);
    let mut positions: Option<Positions> = None;
    let mut record = csv::StringRecord::new();
    let mut counts = LineCounts::default();
    loop {
        let more = reader.read_record(&mut record);
        if !more.with_context(|| format!("`{}` is not readable csv in UTF-8", path.display()))? {
            break;
        }
        let number = record.position().map_or(0, csv::Position::line);
        let mut fields: Vec<&str> = record.iter().collect();
        counts.lines = number;
        let positions = match &positions {
            Some(positions) => positions,
            None => {
                if let Some(rest) = fields[0].strip_prefix('\u{FEFF}') {
                    fields[0] = rest;
                    counts.byte_order_marks += 1;
                }
                let found = positions.insert(Positions::find(path, columns, &fields)?);
                if found.has_header {
                    continue;
                }
                found
            }
        };
        let values = positions.pick(path, number, &fields)?;
        each(number, &values).with_context(|| place(path, "line", number))?;
    }
    Ok(counts)
}

fn jsonl(
    path: &Path,
    columns: &[&str],
    each: &mut dyn FnMut(u64, &[&str]) -> Result<()>,
) -> Result<LineCounts> {
    let mut lines = Lines::open(path)?;
    loop {
        let number = lines.number() + 1;
        let Some(line) = lines.next_line()? else {
            break;
        };
        if line.trim().is_empty() {
            continue;
        }
        let here = || place(path, "line", number);
        let object: serde_json::Map<String, Value> = serde_json::from_str(line)
            .with_context(|| format!("{} is not a JSON object", here()))?;
        let mut values = Vec::with_capacity(columns.len());
        for name in columns {
            let value = object.get(*name).with_context(|| {
                let names: Vec<&str> = object.keys().map(String::as_str).collect();
                format!(
                    "{} has no field `{name}`; it has {}",
                    here(),
                    names.join(", ")
                )
            })?;
            values.push(match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => bail!("{}: field `{name}` is neither text nor a number", here()),
            });
        }
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        each(number, &values).with_context(here)?;
    }
    Ok(lines.counts())
}
