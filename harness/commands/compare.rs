//! `xlt compare A B`: the cells of two results whose difference interval excludes zero.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::metrics::Metric;
use crate::report::compare::{CellDifference, Comparison, compare};
use crate::report::format;
use crate::report::results::Results;

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// A results folder: results/<study>/<profile>
    pub first: PathBuf,
    /// The results folder to compare it with
    pub second: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Prints a table, or one JSON object, on `output`.
pub fn run(args: &Args, output: &mut dyn Write) -> Result<()> {
    let read = |folder: &PathBuf| {
        Results::read(folder)
            .with_context(|| format!("{} is not a folder of results", folder.display()))
    };
    let comparison = compare(&read(&args.first)?, &read(&args.second)?);
    let text = if args.json {
        serde_json::to_string_pretty(&comparison).context("the comparison is not JSON")?
    } else {
        table(&comparison)
    };
    writeln!(output, "{}", text.trim_end()).context("cannot print the comparison")
}

fn table(comparison: &Comparison) -> String {
    let mut rows = vec![
        [
            "variant",
            "cell",
            "selection",
            "first",
            "second",
            "difference",
            "95 %",
            "seeds",
        ]
        .map(str::to_owned),
    ];
    rows.extend(comparison.different.iter().map(row));
    let mut text = String::new();
    if comparison.different.is_empty() {
        text.push_str("no cell differs by more than its interval\n");
    } else {
        let widths: Vec<usize> = (0..8)
            .map(|column| {
                rows.iter()
                    .map(|row| row[column].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for row in &rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| format!("{cell:<width$}"))
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
    }
    let by_chance = comparison.compared as f64 * 0.05;
    text.push_str(&format!(
        "{} of {} cells differ; {} would by chance alone. Each by its task's metric (accuracy in percent, BLEU, perplexity, cosine, correlation), paired by seed and test item.\n",
        comparison.different.len(),
        comparison.compared,
        format::fixed(by_chance)
    ));
    if comparison.only_in_first + comparison.only_in_second > 0 {
        text.push_str(&format!(
            "not compared, because the other lacks them or shares no seed: {} cells of the first, {} of the second\n",
            comparison.only_in_first, comparison.only_in_second
        ));
    }
    if comparison.other_test_set > 0 {
        text.push_str(&format!(
            "not compared, because the test sets differ: {} cells\n",
            comparison.other_test_set
        ));
    }
    text
}

fn row(cell: &CellDifference) -> [String; 8] {
    let metric = Metric::of_task(&cell.task);
    [
        cell.variant.clone(),
        format!("{}/{}/{}", cell.task, cell.regime, cell.language),
        cell.selection.clone(),
        format::number(cell.first, metric),
        format::number(cell.second, metric),
        format::signed(cell.difference, metric),
        format!(
            "[{}, {}]",
            format::signed(cell.low, metric),
            format::signed(cell.high, metric)
        ),
        format!(
            "{}{}",
            cell.seeds,
            if cell.these_seeds {
                " (these seeds)"
            } else {
                ""
            }
        ),
    ]
}
