//! Tables in the papers' layout, with the papers' rows beside ours. One exporter per format.

pub mod csv;
pub mod latex;
pub mod markdown;

use std::collections::BTreeSet;

use crate::metrics::{Metric, Task};
use crate::report::ReportInput;
use crate::report::format;
use crate::report::manifest::{Evaluation, Manifest};
use crate::report::summary::{Estimate, IntervalKind, Query, Summary};
use crate::spec::anchors::Anchor;
use crate::spec::claims::MEAN;
use crate::spec::tables::{Table, TableColumns, TableRows};
use crate::spec::{LAST_UPDATE, VALIDATION_BLEU};

/// A table as every format prints it.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    pub name: String,
    pub caption: String,
    /// Languages and `mean`, selection rules, or metrics.
    pub columns: Vec<String>,
    pub groups: Vec<Group>,
    /// Printed below the table.
    pub notes: Vec<String>,
}

/// The rows of one regime.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub regime: String,
    /// `zero-shot`.
    pub title: String,
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub label: String,
    pub origin: Origin,
    /// One per column; `None` is a dash.
    pub cells: Vec<Option<Entry>>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// This run, with the fewest seeds done in any filled cell (none when all are empty), of those asked.
    Ours { seeds: usize, asked: usize },
    /// The paper named.
    Published { paper: String, verified: bool },
}

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Fixed decimals, or as the paper prints it.
    pub text: String,
    pub interval: Option<Interval>,
    /// A seed of it is at chance.
    pub at_chance: bool,
}

/// The 95 % interval, with fixed decimals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    pub low: String,
    pub high: String,
    /// The larger half of it.
    pub half_width: String,
}

impl Row {
    /// `2/3`; a dash for published rows.
    pub fn seeds(&self) -> String {
        match self.origin {
            Origin::Ours { seeds, asked } => format!("{seeds}/{asked}"),
            Origin::Published { .. } => format::DASH.to_owned(),
        }
    }

    pub fn unverified(&self) -> bool {
        matches!(
            self.origin,
            Origin::Published {
                verified: false,
                ..
            }
        )
    }
}

/// Lays a table out.
pub fn layout(table: &Table, input: &ReportInput, summary: &Summary) -> Layout {
    let manifest = &input.results.manifest;
    let evaluations: Vec<&Evaluation> = manifest
        .evaluations
        .iter()
        .filter(|evaluation| evaluation.task == table.task)
        .filter(|evaluation| match table.rows {
            TableRows::Variants => table.regime.as_ref() == Some(&evaluation.regime),
            TableRows::Regimes => true,
        })
        .collect();
    let select = selection(table, manifest);
    let columns = match table.columns {
        TableColumns::Languages => {
            let mut columns = languages(&evaluations);
            if columns.len() > 1 {
                columns.push(MEAN.to_owned());
            }
            columns
        }
        TableColumns::Metrics => {
            let metrics = Metric::fitting(&table.task).iter();
            metrics.map(|metric| metric.name().to_owned()).collect()
        }
        TableColumns::Selections => {
            let rules = manifest.selections_of(&table.task).into_iter();
            rules.map(str::to_owned).collect()
        }
    };

    let mut estimates = Vec::new();
    let groups: Vec<Group> = evaluations
        .iter()
        .map(|evaluation| {
            let mut rows = published_rows(table, input, &evaluation.regime, &columns);
            for variant in &manifest.variants {
                let mut cells = Vec::with_capacity(columns.len());
                for column in &columns {
                    let (language, selection, metric) = match table.columns {
                        TableColumns::Languages => (column.as_str(), select, table.metric()),
                        TableColumns::Selections => (MEAN, column.as_str(), table.metric()),
                        TableColumns::Metrics => {
                            let metric = Metric::from_name(column);
                            (MEAN, select, metric.unwrap_or(table.metric()))
                        }
                    };
                    cells.push(summary.estimate(&Query {
                        variant: &variant.name,
                        task: &table.task,
                        regime: &evaluation.regime,
                        language,
                        selection,
                        metric,
                    }));
                }
                let label = input
                    .labels
                    .get(&variant.name)
                    .unwrap_or(&variant.label)
                    .clone();
                rows.push(our_row(label, &cells, summary.asked(&table.task)));
                estimates.extend(cells.into_iter().flatten());
            }
            Group {
                regime: evaluation.regime.clone(),
                title: input.label(&evaluation.regime),
                rows,
            }
        })
        .collect();
    let caption = table
        .caption
        .clone()
        .unwrap_or_else(|| caption(table, input));
    let notes = notes(table, input, &groups, &estimates);
    let columns = match table.columns {
        TableColumns::Metrics => columns.iter().map(|name| name.replace('_', " ")).collect(),
        _ => columns,
    };
    Layout {
        name: table.name.clone(),
        caption,
        columns,
        groups,
        notes,
    }
}

/// The selection rule of a table of languages or metrics: the study's first unless it names one.
fn selection<'a>(table: &'a Table, manifest: &'a Manifest) -> &'a str {
    match &table.select {
        Some(select) => select,
        None => manifest.selection_of(&table.task),
    }
}

/// The languages of all evaluations, each once, in the order of the first that has it.
fn languages(evaluations: &[&Evaluation]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let all = evaluations
        .iter()
        .flat_map(|evaluation| &evaluation.languages);
    all.filter(|language| seen.insert(language.as_str()))
        .cloned()
        .collect()
}

fn our_row(label: String, cells: &[Option<Estimate>], asked: usize) -> Row {
    let seeds = cells
        .iter()
        .flatten()
        .map(|estimate| estimate.seeds)
        .min()
        .unwrap_or(0);
    let entry = |estimate: &Estimate| Entry {
        text: format::mean(estimate),
        interval: Some(Interval {
            low: format::number(estimate.low, estimate.metric),
            high: format::number(estimate.high, estimate.metric),
            half_width: format::half_width(estimate),
        }),
        at_chance: estimate.collapsed > 0,
    };
    let cells = cells.iter().map(|cell| cell.as_ref().map(entry)).collect();
    Row {
        label,
        origin: Origin::Ours { seeds, asked },
        cells,
    }
}

/// The paper's rows of one regime. Their mean is over the table's columns, as ours: as printed where the paper has the
/// same languages, else computed from its printed figures, and absent where one is missing.
fn published_rows(
    table: &Table,
    input: &ReportInput,
    regime: &str,
    columns: &[String],
) -> Vec<Row> {
    let Some(paper_rows) = &table.paper_rows else {
        return Vec::new();
    };
    let setting = regime.replace('_', "-");
    let anchors: Vec<&Anchor> = input
        .anchors
        .files
        .get(&paper_rows.anchor)
        .into_iter()
        .flatten()
        .filter(|anchor| anchor.setting == setting && anchor.metric == table.metric().name())
        .filter(|anchor| paper_rows.rows.is_empty() || paper_rows.rows.contains(&anchor.row))
        .collect();
    let mut seen = BTreeSet::new();
    let names = anchors
        .iter()
        .map(|anchor| anchor.row.as_str())
        .filter(|name| seen.insert(*name));
    names
        .map(|name| {
            let row: Vec<&Anchor> = anchors
                .iter()
                .filter(|anchor| anchor.row == name)
                .copied()
                .collect();
            let cells = columns
                .iter()
                .map(|column| published_entry(&row, column, columns))
                .collect();
            Row {
                label: name.to_owned(),
                origin: Origin::Published {
                    paper: row
                        .first()
                        .map(|anchor| anchor.paper.clone())
                        .unwrap_or_default(),
                    verified: row.iter().all(|anchor| anchor.verified),
                },
                cells,
            }
        })
        .collect()
}

fn published_entry(row: &[&Anchor], column: &str, columns: &[String]) -> Option<Entry> {
    let plain = |text: String| {
        Some(Entry {
            text,
            interval: None,
            at_chance: false,
        })
    };
    let find = |language: &str| {
        row.iter()
            .find(|anchor| anchor.language == language && anchor.value.is_some())
    };
    if column != MEAN {
        return plain(find(column)?.printed.clone());
    }
    let ours: BTreeSet<&str> = columns
        .iter()
        .map(String::as_str)
        .filter(|column| *column != MEAN)
        .collect();
    let theirs: BTreeSet<&str> = row
        .iter()
        .map(|anchor| anchor.language.as_str())
        .filter(|name| *name != "avg")
        .collect();
    if ours == theirs
        && let Some(average) = find("avg")
    {
        return plain(average.printed.clone());
    }
    let values: Vec<f64> = ours
        .iter()
        .map(|language| find(language)?.value)
        .collect::<Option<_>>()?;
    if values.is_empty() {
        None
    } else {
        plain(format::fixed(
            values.iter().sum::<f64>() / values.len() as f64,
        ))
    }
}

fn caption(table: &Table, input: &ReportInput) -> String {
    let metric = table.metric().title();
    let task = format::capital(Task::of(&table.task).prose());
    let mut caption = match table.columns {
        TableColumns::Metrics => task,
        _ => format!("{task}: test {metric}"),
    };
    if Metric::OF_CLASSES.contains(&table.metric()) {
        caption.push_str(" in percent");
    }
    if let Some(regime) = &table.regime {
        caption.push_str(&format!(", {}", input.label(regime)));
    }
    match table.columns {
        TableColumns::Languages | TableColumns::Metrics => {
            let select = selection(table, &input.results.manifest);
            caption.push_str(&match select {
                VALIDATION_BLEU => ", chosen by BLEU on held-out pairs.".to_owned(),
                LAST_UPDATE => ", after the last update.".to_owned(),
                select => format!(", selected on {}.", format::selection(select)),
            });
        }
        TableColumns::Selections => {
            caption.push_str(", mean over languages under each selection rule.")
        }
    }
    caption
}

fn notes(
    table: &Table,
    input: &ReportInput,
    groups: &[Group],
    estimates: &[Estimate],
) -> Vec<String> {
    let mut notes = Vec::new();
    let manifest = &input.results.manifest;
    if !manifest.scale.wording().is_empty() {
        notes.push(match manifest.scale.wording() {
            "synthetic" => "Synthetic languages.".to_owned(),
            words => format!("Run {words}."),
        });
    }
    if let Some(items) = estimates.iter().map(|estimate| estimate.items).max() {
        let kinds = |kind: IntervalKind| estimates.iter().any(|estimate| estimate.kind == kind);
        let over = match (
            kinds(IntervalKind::SeedsAndItems),
            kinds(IntervalKind::Items),
        ) {
            (true, false) => "other seeds and other test items",
            (true, true) => "other seeds and other test items (below three seeds: items only)",
            _ => "other test items, for these seeds",
        };
        let (counted, cell) = Task::of(&table.task).counted();
        notes.push(format!(
            "± is half of the 95 % interval over {over}; {items} {counted} per {cell}."
        ));
    }
    if let (Task::Translation, Some(scores)) = (Task::of(&table.task), &manifest.translation_scores)
    {
        notes.push(match table.metric() {
            Metric::Chrf => format!("{}.", scores.chrf_signature),
            _ => format!("{}.", scores.bleu_signature),
        });
        if table.metric() == Metric::Bleu && !scores.copy.is_empty() {
            let copies = scores.copy.iter();
            let copies: Vec<String> = copies
                .map(|(direction, bleu)| format!("{direction} {}", format::fixed(*bleu)))
                .collect();
            notes.push(format!(
                "The source as its own translation: {}.",
                copies.join(", ")
            ));
        }
    }
    if table.columns == TableColumns::Selections {
        let target = manifest
            .selections
            .iter()
            .filter(|rule| ![VALIDATION_BLEU, LAST_UPDATE].contains(&rule.as_str()))
            .filter(|rule| format::selection(rule) != **rule);
        let target: Vec<&str> = target.map(String::as_str).collect();
        if !target.is_empty() {
            notes.push(format!(
                "Uses labels of the target languages: {}.",
                target.join(", ")
            ));
        }
    } else if groups.len() > 1 {
        notes.push(match Task::of(&table.task) {
            Task::Translation => "The mean is over the directions.".to_owned(),
            Task::LanguageModelling => "Tokens depend on the tokenizer: compare words or characters where it differs. Words and characters count a sentence's end as one more.".to_owned(),
            Task::Xnli | Task::XnliMixed | Task::WordTranslation | Task::WordSimilarity => {
                "The mean is over the languages that the regime covers.".to_owned()
            }
        });
    }
    let rows = || groups.iter().flat_map(|group| &group.rows);
    if rows()
        .flat_map(|row| row.cells.iter().flatten())
        .any(|entry| entry.at_chance)
    {
        notes.push("* A seed of it is at chance; it stays in the mean.".to_owned());
    }
    if rows().any(|row| row.cells.iter().any(Option::is_none)) {
        notes.push(format!("{} Not run, or not published.", format::DASH));
    }
    let mut papers: Vec<&str> = Vec::new();
    for row in rows() {
        if let Origin::Published { paper, .. } = &row.origin
            && !papers.contains(&paper.as_str())
        {
            papers.push(paper);
        }
    }
    if !papers.is_empty() {
        notes.push(format!(
            "In italics, figures of {}; their mean is over the languages shown.",
            papers.join("; ")
        ));
    }
    if rows().any(Row::unverified) {
        notes.push("† From memory, not verified in a source.".to_owned());
    }
    notes.extend(format::mixed_machines(manifest));
    notes
}
