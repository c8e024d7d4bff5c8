//! Are the generated files those that the committed scores give? Names every stale file with its first difference.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::GENERATED_FOLDERS;
use super::manifest::Manifest;
use super::results::{self, Results};
use super::scores::score_rows;

/// A file that is not what the report would write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stale {
    /// Path below the results folder.
    pub file: String,
    /// `line 3: "..." is there, "..." would be written`.
    pub difference: String,
    /// What mends it.
    pub command: String,
}

/// Compares a results folder with `rendered`, and its score tables with its predictions. Writes nothing. Text is
/// compared byte for byte, PNG by pixels, Parquet decoded. `report` and `run` are the commands that mend a generated file
/// and a source file.
pub fn check(
    folder: &Path,
    results: &Results,
    rendered: &BTreeMap<String, Vec<u8>>,
    report: &str,
    run: &str,
) -> Result<Vec<Stale>> {
    let mut stale = source_differences(folder, results, run)?;
    for (name, wanted) in rendered {
        let path = folder.join(name);
        let difference = match std::fs::read(&path) {
            Ok(there) => difference(name, &there, wanted),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Some("the file is missing".to_owned())
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        stale.extend(difference.map(|difference| Stale {
            file: name.clone(),
            difference,
            command: report.to_owned(),
        }));
    }
    for file in left_over(folder, rendered)? {
        let difference = "the report does not write this file".to_owned();
        stale.push(Stale {
            file,
            difference,
            command: report.to_owned(),
        });
    }
    Ok(stale)
}

/// Whether the scores were made with the study's present settings.
pub fn settings_match(manifest: &Manifest, settings_fingerprint: &str, run: &str) -> Option<Stale> {
    (manifest.settings_fingerprint != settings_fingerprint).then(|| Stale {
        file: results::MANIFEST.to_owned(),
        difference: format!(
            "the scores were made with settings {}, the study file now has {settings_fingerprint}",
            manifest.settings_fingerprint
        ),
        command: run.to_owned(),
    })
}

/// `scores.csv` and `scores.parquet` against the predictions.
fn source_differences(folder: &Path, results: &Results, run: &str) -> Result<Vec<Stale>> {
    let rows = score_rows(
        &results.manifest,
        &results.predictions,
        &results.translations,
        &results.measurements,
    );
    let mut stale = Vec::new();
    let mut push = |file: &str, difference: Option<String>| {
        stale.extend(difference.map(|difference| Stale {
            file: file.to_owned(),
            difference,
            command: run.to_owned(),
        }));
    };
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    push(
        results::SCORES,
        text_difference(&read(results::SCORES)?, &results::scores_csv(&rows)?),
    );
    let wanted = results::scores_frame(&rows).context("cannot tabulate the scores")?;
    let difference = match results::decode_parquet(read(results::SCORES_FRAME)?) {
        Ok(there) if there.equals_missing(&wanted) => None,
        Ok(there) => Some(format!(
            "{} rows are there that do not equal the {} that the predictions give",
            there.height(),
            wanted.height()
        )),
        Err(error) => Some(format!("it cannot be decoded: {error}")),
    };
    push(results::SCORES_FRAME, difference);
    Ok(stale)
}

/// Files in the generated folders that are not in `rendered`, sorted.
pub(super) fn left_over(
    folder: &Path,
    rendered: &BTreeMap<String, Vec<u8>>,
) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for generated in GENERATED_FOLDERS {
        let below = folder.join(generated);
        if !below.is_dir() {
            continue;
        }
        let list = || format!("cannot list {}", below.display());
        for entry in std::fs::read_dir(&below).with_context(list)? {
            let entry = entry.with_context(list)?;
            let name = format!("{generated}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().with_context(list)?.is_file() && !rendered.contains_key(&name) {
                names.push(name);
            }
        }
    }
    names.sort();
    Ok(names)
}

fn difference(name: &str, there: &[u8], wanted: &[u8]) -> Option<String> {
    if there == wanted {
        return None;
    }
    match Path::new(name)
        .extension()
        .and_then(|extension| extension.to_str())
    {
        Some("png") => picture_difference(there, wanted),
        Some("parquet") => match (
            results::decode_parquet(there.to_vec()),
            results::decode_parquet(wanted.to_vec()),
        ) {
            (Ok(there), Ok(wanted)) if there.equals_missing(&wanted) => None,
            (Ok(_), _) => Some("the tables differ".to_owned()),
            (Err(error), _) => Some(format!("it cannot be decoded: {error}")),
        },
        _ => text_difference(there, wanted),
    }
}

/// The first line that differs.
fn text_difference(there: &[u8], wanted: &[u8]) -> Option<String> {
    if there == wanted {
        return None;
    }
    let (mut ours, mut theirs) = (
        wanted.split(|byte| *byte == b'\n'),
        there.split(|byte| *byte == b'\n'),
    );
    let mut line = 0;
    loop {
        line += 1;
        match (theirs.next(), ours.next()) {
            (Some(there), Some(wanted)) if there == wanted => {}
            (there, wanted) => {
                let show = |line: Option<&[u8]>| line.map_or("nothing".to_owned(), excerpt);
                return Some(format!(
                    "line {line}: {} is there, {} would be written",
                    show(there),
                    show(wanted)
                ));
            }
        }
    }
}

/// Enough of a line to recognise it.
fn excerpt(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut letters = text.chars();
    let start: String = letters.by_ref().take(80).collect();
    let more = if letters.next().is_some() { "..." } else { "" };
    format!("{start:?}{more}")
}

fn picture_difference(there: &[u8], wanted: &[u8]) -> Option<String> {
    let (there, wanted) = match (pixels(there), pixels(wanted)) {
        (Ok(there), Ok(wanted)) => (there, wanted),
        (Err(error), _) | (_, Err(error)) => {
            return Some(format!("it cannot be decoded: {error:#}"));
        }
    };
    if there == wanted {
        return None;
    }
    if (there.width, there.height, there.bytes.len())
        != (wanted.width, wanted.height, wanted.bytes.len())
    {
        return Some(format!(
            "{} x {} pixels are there, {} x {} would be written",
            there.width, there.height, wanted.width, wanted.height
        ));
    }
    let first = there
        .bytes
        .iter()
        .zip(&wanted.bytes)
        .position(|(there, wanted)| there != wanted)?;
    let pixel =
        first / (there.bytes.len() / (there.width as usize * there.height as usize).max(1)).max(1);
    Some(format!(
        "the first pixel that differs is ({}, {})",
        pixel % there.width as usize,
        pixel / there.width as usize
    ))
}

#[derive(PartialEq)]
struct Pixels {
    width: u32,
    height: u32,
    bytes: Vec<u8>,
}

fn pixels(bytes: &[u8]) -> Result<Pixels> {
    let mut reader = png::Decoder::new(bytes).read_info().context("not a PNG")?;
    let mut pixels = vec![0; reader.output_buffer_size()];
    let frame = reader.next_frame(&mut pixels).context("a broken PNG")?;
    pixels.truncate(frame.buffer_size());
    Ok(Pixels {
        width: frame.width,
        height: frame.height,
        bytes: pixels,
    })
}
