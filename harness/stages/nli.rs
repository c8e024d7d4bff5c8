//! Inference pairs of one language and split: read from whichever layout, piped, cleared, written as `examples.jsonl`.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::inputs::{self, evaluation_text};
use super::{Context, divergence};
use crate::data::formats::{self, NliRows};
use crate::data::input::{self, InputFile};
use crate::data::leakage::pair_key;
use crate::data::nli::{Label, NliExample, Split, read_examples, write_examples};
use crate::data::source::NliInput;
use crate::data::text::TextPipeline;
use crate::random::Random;

pub const NAME: &str = "nli";
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub split: Split,
    pub language: String,
    pub input: NliInput,
    pub text_pipeline: TextPipeline,
    /// At most so many pairs, whole premises drawn with the seed: the same ones in every language. All without it.
    pub limit: Option<u64>,
    /// The data seed of the study.
    pub seed: u64,
}

/// Inputs: `synthesize` where the pairs are synthetic, `translated` where a model of the study translated them, and for training `exclude:...` with the evaluation sets: training
/// pairs that occur in them are removed, training sentences that occur in them counted.
///
/// # Errors
/// Labels that are placeholders (XTREME's test sets have the same one in every row), unknown labels, a language without rows.
pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    let here = || format!("{} pairs in {}", settings.split.name(), settings.language);
    let files = input_files(settings, context).with_context(here)?;
    let rows = read(settings, &files).with_context(here)?;
    let mut examples = rows.examples;
    refuse_placeholders(&examples).with_context(here)?;
    for example in &mut examples {
        for sentence in [&mut example.premise, &mut example.hypothesis] {
            *sentence = settings
                .text_pipeline
                .apply(sentence.trim())
                .trim()
                .to_owned();
        }
    }
    let read = examples.len();
    if let Some(limit) = settings.limit {
        examples = limited(examples, limit, settings.seed);
    }
    let unused = read - examples.len();

    let evaluation = evaluation_text(context)?;
    let before = examples.len();
    examples.retain(|example| !evaluation.has_pair(&example.premise, &example.hypothesis));
    let removed = before - examples.len();
    let shared = examples
        .iter()
        .flat_map(|example| [&example.premise, &example.hypothesis]);
    let shared = shared
        .filter(|sentence| evaluation.has_sentence(sentence))
        .count();
    if examples.is_empty() {
        let remedy = match settings.limit {
            Some(limit) => {
                format!("raise data.nli.train_limit, with whose {limit} whole premises are drawn,")
            }
            None => "look whether the files are those of a test set,".to_owned(),
        };
        bail!(
            "no {} are left: {removed} of {before} occur in evaluation sets; {remedy} or supply other pairs",
            here()
        );
    }
    let mut seen = HashSet::new();
    let duplicates = examples
        .iter()
        .filter(|example| !seen.insert(pair_key(&example.premise, &example.hypothesis)))
        .count();
    let premises: BTreeSet<u32> = examples.iter().map(|example| example.premise_id).collect();
    let mut labels: BTreeMap<&str, usize> =
        Label::ALL.iter().map(|label| (label.name(), 0)).collect();
    for example in &examples {
        *labels.entry(example.label.name()).or_default() += 1;
    }
    write_examples(&context.output.join("examples.jsonl"), &examples)?;
    context
        .progress
        .message(&format!("{}: {} read", here(), examples.len()));
    Ok(json!({
        "examples": examples.len(),
        "labels": labels,
        "premises": premises.len(),
        "unused_examples": unused,
        "unlabelled_rows_skipped": rows.unlabelled,
        "rows_with_an_empty_sentence": rows.empty_sentences,
        "duplicate_pairs": duplicates,
        "pairs_also_in_evaluation_removed": removed,
        "sentences_also_in_evaluation": shared,
        "lines": rows.lines.lines,
        "byte_order_marks": rows.lines.byte_order_marks,
        "carriage_returns": rows.lines.carriage_returns,
        "sources": files.iter().map(|file| &file.record).collect::<Vec<_>>(),
    }))
}

fn input_files(settings: &Settings, context: &Context) -> Result<Vec<InputFile>> {
    match &settings.input {
        NliInput::Files { .. } => input::local(context.files, "file"),
        NliInput::Hub { files, .. } => inputs::from_hub(files, context),
        NliInput::Synthetic => {
            let name = format!("nli/{}.{}.tsv", settings.split.name(), settings.language);
            Ok(vec![input::of_path(
                &context.input("synthesize")?.join(name),
            )?])
        }
        NliInput::Translated => {
            divergence::refuse_diverged(context, "translated")?;
            let path = context.input("translated")?.join("examples.jsonl");
            Ok(vec![input::of_path(&path)?])
        }
    }
}

fn read(settings: &Settings, files: &[InputFile]) -> Result<NliRows> {
    let premise_rows = match &settings.input {
        NliInput::Files { premise_rows, .. } | NliInput::Hub { premise_rows, .. } => *premise_rows,
        NliInput::Synthetic | NliInput::Translated => None,
    };
    let mut rows = NliRows::new(&settings.language, premise_rows);
    for file in files {
        match &settings.input {
            NliInput::Files {
                format,
                file_format,
                ..
            }
            | NliInput::Hub {
                format,
                file_format,
                ..
            } => {
                formats::read(&file.path, *file_format, format, &mut rows)?;
            }
            NliInput::Synthetic => formats::read_synthetic(&file.path, &mut rows)?,
            NliInput::Translated => {
                rows.examples = read_examples(&file.path)?;
                let empty = |example: &&NliExample| {
                    example.premise.is_empty() || example.hypothesis.is_empty()
                };
                rows.empty_sentences = rows.examples.iter().filter(empty).count() as u64;
                return Ok(rows);
            }
        }
    }
    rows.finish()?;
    Ok(rows)
}

fn refuse_placeholders(examples: &[NliExample]) -> Result<()> {
    if let [first, others @ ..] = examples
        && !others.is_empty()
        && others.iter().all(|example| example.label == first.label)
    {
        bail!(
            "all {} rows are labelled {}: placeholders, as in XTREME's test files; use the original release",
            examples.len(),
            first.label.name()
        );
    }
    Ok(())
}

/// Whole premises, drawn until no further one fits; rows keep their order. A premise is drawn by its first row, so that
/// premises which a translation made alike change nothing for the others.
fn limited(examples: Vec<NliExample>, limit: u64, seed: u64) -> Vec<NliExample> {
    // First row and number of rows.
    let mut premises: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
    for example in &examples {
        premises
            .entry(example.premise_id)
            .or_insert((example.item, 0))
            .1 += 1;
    }
    let drawn = |item: u32| (Random::new(seed, "nli limit", item.into()).next_u64(), item);
    let mut order: Vec<(u32, (u32, u64))> = premises.into_iter().collect();
    order.sort_by_key(|(_, (item, _))| drawn(*item));
    let mut left = limit;
    let mut chosen = HashSet::new();
    for (premise, (_, rows)) in order {
        if rows <= left {
            left -= rows;
            chosen.insert(premise);
        }
    }
    examples
        .into_iter()
        .filter(|example| chosen.contains(&example.premise_id))
        .collect()
}
