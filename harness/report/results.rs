//! The source files of a results folder: predictions, scores, curves and the manifest. All else is made from them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use polars::prelude::{
    Column, DataFrame, ParquetReader, ParquetWriter, PolarsResult, SerReader, StringChunked,
    UInt8Chunked, UInt32Chunked, UInt64Chunked,
};

use crate::metrics::{CLASSES, Task};
use crate::report::manifest::Manifest;
use crate::report::measurements::{self, CellMeasurements, MEASUREMENTS};
use crate::report::scores::{
    Cell, CellPredictions, CurvePoint, ItemPrediction, ScoreRow, score_rows,
};
use crate::report::translations::{self, CellTranslations, TRANSLATIONS};
use crate::report::write_whole;

pub const MANIFEST: &str = "manifest.json";
pub const PREDICTIONS: &str = "predictions.parquet";
pub const SCORES: &str = "scores.csv";
pub const SCORES_FRAME: &str = "scores.parquet";
pub const CURVES: &str = "curves.csv";

/// What a run leaves, as far as reports need it.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    pub manifest: Manifest,
    /// Sorted by cell.
    pub predictions: Vec<CellPredictions>,
    /// Sorted by cell.
    pub translations: Vec<CellTranslations>,
    /// Sorted by cell.
    pub measurements: Vec<CellMeasurements>,
    /// Computed from the predictions by [`score_rows`].
    pub scores: Vec<ScoreRow>,
    /// Sorted by variant, seeds, stage, series, updates.
    pub curves: Vec<CurvePoint>,
}

impl Results {
    /// Sorts everything and computes the scores.
    pub fn new(
        manifest: Manifest,
        mut predictions: Vec<CellPredictions>,
        mut translations: Vec<CellTranslations>,
        mut measurements: Vec<CellMeasurements>,
        mut curves: Vec<CurvePoint>,
    ) -> Self {
        predictions.sort_by(|a, b| a.cell.cmp(&b.cell));
        translations.sort_by(|a, b| a.cell.cmp(&b.cell));
        measurements.sort_by(|a, b| a.cell.cmp(&b.cell));
        let order = |point: &CurvePoint| {
            let run = (
                point.variant.clone(),
                point.pretrain_seed,
                point.finetune_seed,
            );
            (run, point.stage, point.series.clone(), point.updates)
        };
        curves.sort_by_cached_key(order);
        let scores = score_rows(&manifest, &predictions, &translations, &measurements);
        Self {
            manifest,
            predictions,
            translations,
            measurements,
            scores,
            curves,
        }
    }

    /// Reads the source files of `results/<study>/<profile>`. Scores are read as written, so that they can be
    /// compared with what the predictions give.
    pub fn read(folder: &Path) -> Result<Self> {
        let text = read(folder, MANIFEST)?;
        let manifest = serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} is not a manifest of this version",
                folder.join(MANIFEST).display()
            )
        })?;
        Ok(Self {
            manifest,
            predictions: read_predictions(&folder.join(PREDICTIONS))?,
            translations: translations::read(folder)?,
            measurements: measurements::read(folder)?,
            scores: read_csv(folder, SCORES)?,
            curves: read_csv(folder, CURVES)?,
        })
    }

    /// Writes the source files, creating the folder: all of them, or on an error none.
    pub fn write_sources(&self, folder: &Path) -> Result<()> {
        let mut manifest =
            serde_json::to_string_pretty(&self.manifest).context("the manifest is not JSON")?;
        manifest.push('\n');
        let mut files = vec![
            (MANIFEST, manifest.into_bytes()),
            (SCORES, scores_csv(&self.scores)?),
            (CURVES, curves_csv(&self.curves)?),
            (
                SCORES_FRAME,
                parquet(scores_frame(&self.scores)).context("cannot encode the scores")?,
            ),
            (
                PREDICTIONS,
                parquet(predictions_frame(&self.predictions))
                    .context("cannot encode the predictions")?,
            ),
        ];
        let mut absent = Vec::new();
        match self.translations.is_empty() {
            true => absent.push(TRANSLATIONS),
            false => {
                let frame = parquet(translations::frame(&self.translations));
                let bytes = frame.context("cannot encode the translations")?;
                files.push((TRANSLATIONS, bytes));
            }
        }
        match self.measurements.is_empty() {
            true => absent.push(MEASUREMENTS),
            false => {
                let frame = parquet(measurements::frame(&self.measurements));
                let bytes = frame.context("cannot encode the measurements")?;
                files.push((MEASUREMENTS, bytes));
            }
        }
        write_whole(
            folder,
            files.iter().map(|(name, bytes)| (*name, bytes.as_slice())),
        )?;
        for name in absent {
            // Those of an earlier run would be read beside what was written now.
            match std::fs::remove_file(folder.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("cannot remove {}", folder.join(name).display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// `scores.csv`: counts as whole numbers, other values in their shortest form that reads back the same.
pub fn scores_csv(rows: &[ScoreRow]) -> Result<Vec<u8>> {
    let header = [
        "study",
        "profile",
        "variant",
        "pretrain_seed",
        "finetune_seed",
        "task",
        "regime",
        "language",
        "selection",
        "metric",
        "value",
        "examples",
    ];
    let fields = |row: &ScoreRow| {
        [
            row.study.clone(),
            row.profile.clone(),
            row.variant.clone(),
            row.pretrain_seed.to_string(),
            row.finetune_seed.to_string(),
            row.task.clone(),
            row.regime.clone(),
            row.language.clone(),
            row.selection.clone(),
            row.metric.clone(),
            row.value.to_string(),
            row.examples.to_string(),
        ]
    };
    csv_bytes(&header, rows.iter().map(fields))
}

fn curves_csv(points: &[CurvePoint]) -> Result<Vec<u8>> {
    let header = [
        "variant",
        "pretrain_seed",
        "finetune_seed",
        "stage",
        "series",
        "updates",
        "tokens",
        "value",
    ];
    let fields = |point: &CurvePoint| {
        [
            point.variant.clone(),
            point.pretrain_seed.to_string(),
            point
                .finetune_seed
                .map(|seed| seed.to_string())
                .unwrap_or_default(),
            point.stage.name().to_owned(),
            point.series.clone(),
            point.updates.to_string(),
            point.tokens.to_string(),
            point.value.to_string(),
        ]
    };
    csv_bytes(&header, points.iter().map(fields))
}

/// CSV with LF line ends.
pub fn csv_bytes<const N: usize>(
    header: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::Any(b'\n'))
        .from_writer(Vec::new());
    writer
        .write_record(header)
        .context("cannot encode a CSV header")?;
    for row in rows {
        writer
            .write_record(row)
            .context("cannot encode a CSV row")?;
    }
    writer.into_inner().context("cannot finish a CSV file")
}

/// `scores.parquet`: the columns of `scores.csv`.
pub fn scores_frame(rows: &[ScoreRow]) -> PolarsResult<DataFrame> {
    let text = |name: &str, field: fn(&ScoreRow) -> &str| {
        Column::new(name.into(), rows.iter().map(field).collect::<Vec<_>>())
    };
    let whole = |name: &str, field: fn(&ScoreRow) -> u64| {
        Column::new(name.into(), rows.iter().map(field).collect::<Vec<_>>())
    };
    DataFrame::new_infer_height(vec![
        text("study", |row| &row.study),
        text("profile", |row| &row.profile),
        text("variant", |row| &row.variant),
        whole("pretrain_seed", |row| row.pretrain_seed),
        whole("finetune_seed", |row| row.finetune_seed),
        text("task", |row| &row.task),
        text("regime", |row| &row.regime),
        text("language", |row| &row.language),
        text("selection", |row| &row.selection),
        text("metric", |row| &row.metric),
        Column::new(
            "value".into(),
            rows.iter().map(|row| row.value).collect::<Vec<_>>(),
        ),
        whole("examples", |row| row.examples),
    ])
}

/// The columns that say which cell a row belongs to, for cells with so many rows each.
pub(super) fn cell_columns(cells: &[(&Cell, usize)]) -> Vec<Column> {
    let text = |name: &str, field: fn(&Cell) -> &str| {
        let values = cells
            .iter()
            .flat_map(|(cell, rows)| std::iter::repeat_n(field(cell), *rows));
        Column::new(name.into(), values.collect::<Vec<_>>())
    };
    let seed = |name: &str, field: fn(&Cell) -> u64| {
        let values = cells
            .iter()
            .flat_map(|(cell, rows)| std::iter::repeat_n(field(cell), *rows));
        Column::new(name.into(), values.collect::<Vec<_>>())
    };
    vec![
        text("variant", |cell| &cell.variant),
        seed("pretrain_seed", |cell| cell.pretrain_seed),
        seed("finetune_seed", |cell| cell.finetune_seed),
        text("task", |cell| &cell.task),
        text("regime", |cell| &cell.regime),
        text("language", |cell| &cell.language),
        text("selection", |cell| &cell.selection),
    ]
}

/// `predictions.parquet`: one row per cell and test item.
fn predictions_frame(predictions: &[CellPredictions]) -> PolarsResult<DataFrame> {
    let lengths: Vec<(&Cell, usize)> = predictions
        .iter()
        .map(|one| (&one.cell, one.items.len()))
        .collect();
    let mut columns = cell_columns(&lengths);
    let number = |name: &str, field: fn(&ItemPrediction) -> u32| {
        Column::new(
            name.into(),
            predictions
                .iter()
                .flat_map(|one| one.items.iter().map(field))
                .collect::<Vec<_>>(),
        )
    };
    let class = |name: &str, field: fn(&ItemPrediction) -> u8| {
        Column::new(
            name.into(),
            predictions
                .iter()
                .flat_map(|one| one.items.iter().map(field))
                .collect::<Vec<_>>(),
        )
    };
    columns.extend([
        number("premise", |item| item.premise),
        number("item", |item| item.item),
        class("predicted", |item| item.predicted),
        class("gold", |item| item.gold),
    ]);
    DataFrame::new_infer_height(columns)
}

fn parquet(frame: PolarsResult<DataFrame>) -> PolarsResult<Vec<u8>> {
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes).finish(&mut frame?)?;
    Ok(bytes)
}

/// A table that only some studies have; its absence is nothing wrong. `what` it is a table of, for messages.
pub(super) fn read_table<T>(
    path: &Path,
    what: &str,
    read: impl Fn(&DataFrame) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let table = || format!("{} is not a table of {what}", path.display());
    let frame = decode_parquet(bytes).with_context(table)?;
    read(&frame).with_context(table)
}

/// Decodes a Parquet file held in memory.
pub fn decode_parquet(bytes: Vec<u8>) -> PolarsResult<DataFrame> {
    ParquetReader::new(Cursor::new(bytes)).finish()
}

fn read_predictions(path: &Path) -> Result<Vec<CellPredictions>> {
    let file = File::open(path).with_context(|| missing(path))?;
    let frame = ParquetReader::new(file)
        .finish()
        .with_context(|| format!("{} is not Parquet", path.display()))?;
    cells(&frame).with_context(|| format!("{} is not a table of predictions", path.display()))
}

/// The cells of a table, each with its rows, which must stand together.
pub(super) fn read_cells(frame: &DataFrame) -> Result<Vec<(Cell, Range<usize>)>> {
    let text = |name: &str| -> PolarsResult<&StringChunked> { frame.column(name)?.str() };
    let seed = |name: &str| -> PolarsResult<&UInt64Chunked> { frame.column(name)?.u64() };
    let (variant, task, regime) = (text("variant")?, text("task")?, text("regime")?);
    let (language, selection) = (text("language")?, text("selection")?);
    let (pretrain_seed, finetune_seed) = (seed("pretrain_seed")?, seed("finetune_seed")?);
    let mut cells: Vec<(Cell, Range<usize>)> = Vec::new();
    for row in 0..frame.height() {
        let empty = || format!("row {row} has an empty field");
        let same = |cell: &Cell| {
            variant.get(row) == Some(cell.variant.as_str())
                && pretrain_seed.get(row) == Some(cell.pretrain_seed)
                && finetune_seed.get(row) == Some(cell.finetune_seed)
                && task.get(row) == Some(cell.task.as_str())
                && regime.get(row) == Some(cell.regime.as_str())
                && language.get(row) == Some(cell.language.as_str())
                && selection.get(row) == Some(cell.selection.as_str())
        };
        if let Some((_, rows)) = cells.last_mut().filter(|(cell, _)| same(cell)) {
            rows.end = row + 1;
            continue;
        }
        let own = |column: &StringChunked| column.get(row).map(str::to_owned).with_context(empty);
        let named = own(task)?;
        ensure!(
            Task::from_name(&named).is_some(),
            "row {row} is of the task `{named}`, which is not known"
        );
        let cell = Cell {
            variant: own(variant)?,
            pretrain_seed: pretrain_seed.get(row).with_context(empty)?,
            finetune_seed: finetune_seed.get(row).with_context(empty)?,
            task: named,
            regime: own(regime)?,
            language: own(language)?,
            selection: own(selection)?,
        };
        cells.push((cell, row..row + 1));
    }
    let mut seen = BTreeSet::new();
    if let Some((cell, _)) = cells.iter().find(|(cell, _)| !seen.insert(cell)) {
        bail!("the rows of {cell:?} are not together");
    }
    Ok(cells)
}

fn cells(frame: &DataFrame) -> Result<Vec<CellPredictions>> {
    let number = |name: &str| -> PolarsResult<&UInt32Chunked> { frame.column(name)?.u32() };
    let class = |name: &str| -> PolarsResult<&UInt8Chunked> { frame.column(name)?.u8() };
    let (premise, item, predicted, gold) = (
        number("premise")?,
        number("item")?,
        class("predicted")?,
        class("gold")?,
    );
    let mut predictions: Vec<CellPredictions> = Vec::new();
    for (cell, rows) in read_cells(frame)? {
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            let empty = || format!("row {row} has an empty field");
            let prediction = ItemPrediction {
                premise: premise.get(row).with_context(empty)?,
                item: item.get(row).with_context(empty)?,
                predicted: predicted.get(row).with_context(empty)?,
                gold: gold.get(row).with_context(empty)?,
            };
            ensure!(
                usize::from(prediction.predicted.max(prediction.gold)) < CLASSES,
                "row {row} has a class beyond the {CLASSES} of NLI"
            );
            items.push(prediction);
        }
        predictions.push(CellPredictions { cell, items });
    }
    predictions.sort_by(|a, b| a.cell.cmp(&b.cell));
    Ok(predictions)
}

fn read_csv<T: serde::de::DeserializeOwned>(folder: &Path, name: &str) -> Result<Vec<T>> {
    let text = read(folder, name)?;
    let rows = csv::Reader::from_reader(text.as_slice())
        .deserialize()
        .collect::<Result<_, _>>();
    rows.with_context(|| format!("{} cannot be read", folder.join(name).display()))
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(name);
    std::fs::read(&path).with_context(|| missing(&path))
}

fn missing(path: &Path) -> String {
    format!("cannot read {}; `xlt run` writes it", path.display())
}
