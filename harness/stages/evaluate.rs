//! Selects among fine-tuning runs by their dev scores and predicts the test sets with what was selected.
//!
//! Dev sets choose, test sets are scored once: a checkpoint that no rule selected never sees a test sentence.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::nli::{NliExample, read_examples};
use crate::data::tokenizer::Tokenizer;
use crate::kernels::Precision;
use crate::model::Encoder;
use crate::spec::finetune::{Regime, Selection};
use crate::stages::finetune::{DevScores, read_checkpoint};
use crate::stages::{Context, divergence};
use crate::tasks::pair_classification::{encode_examples, predict};
use crate::tasks::pooling::Pooling;

pub const NAME: &str = "evaluate";
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub source: String,
    /// How many runs to select among: inputs `finetune:0`, `finetune:1`, ...
    pub runs: usize,
    pub pooling: Pooling,
    pub maximum_length: usize,
    /// That of fine-tuning.
    #[serde(default, skip_serializing_if = "Precision::is_f32")]
    pub precision: Precision,
    pub cells: Vec<TestCell>,
}

/// One test set under one selection rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestCell {
    pub regime: Regime,
    pub selection: Selection,
    /// Whose dev set `target_dev` looks at.
    pub dev_language: String,
    /// Input artifact and language of the premises.
    pub premises: TestText,
    /// Input artifact and language of the hypotheses; the same as the premises' but for mixed pairs.
    pub hypotheses: TestText,
    /// The language the model is told.
    pub told: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestText {
    /// Name of the input, such as `test:ko`.
    pub input: String,
    pub language: String,
}

/// What `predictions.json` holds, in the order of `Settings::cells`; without items where the test set's translator diverged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// The run that was selected, and its epoch.
    pub run: usize,
    pub epoch: u64,
    /// Accuracy on the dev set that chose, 0 to 1.
    pub dev: f64,
    pub premises: Vec<u32>,
    pub items: Vec<u32>,
    /// Class indices in the order contradiction, neutral, entailment.
    pub predicted: Vec<u8>,
    pub gold: Vec<u8>,
}

pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    let tokenizer = Tokenizer::load(context.input("tokenizer")?)?;
    let folders = (0..settings.runs)
        .map(|run| context.input(&format!("finetune:{run}")))
        .collect::<Result<Vec<_>>>()?;
    // A diverged run has no dev scores, so that no rule selects it.
    if folders
        .iter()
        .all(|folder| divergence::has_diverged(folder))
    {
        divergence::refuse_diverged(context, "finetune:0")?;
    }
    let scores = folders
        .iter()
        .map(|folder| match divergence::has_diverged(folder) {
            true => Ok(DevScores::default()),
            false => DevScores::read(folder),
        })
        .collect::<Result<Vec<_>>>()?;

    let chosen: Vec<Chosen> = settings
        .cells
        .iter()
        .map(|cell| select(&scores, cell, &settings.source))
        .collect::<Result<_>>()?;
    // Cells that chose the same checkpoint and read the same text share one prediction.
    let mut groups: BTreeMap<(usize, u64), BTreeMap<Text, Vec<usize>>> = BTreeMap::new();
    for (index, (cell, chosen)) in settings.cells.iter().zip(&chosen).enumerate() {
        let text = (
            cell.premises.clone(),
            cell.hypotheses.clone(),
            cell.told.clone(),
        );
        groups
            .entry((chosen.run, chosen.epoch))
            .or_default()
            .entry(text)
            .or_default()
            .push(index);
    }
    let total: usize = groups.values().map(BTreeMap::len).sum();
    context.progress.begin(total as u64, 0, "test sets");
    let mut results: Vec<Option<CellResult>> = vec![None; settings.cells.len()];
    let mut truncated = BTreeMap::new();
    let mut tokens = 0;
    let mut done = 0;
    for ((run, epoch), texts) in groups {
        let (model, classifier) = read_checkpoint(folders[run], epoch, settings.pooling)?;
        let encoder = Encoder::new(model, context.device).in_precision(settings.precision);
        for ((premises, hypotheses, told), cells) in texts {
            // Where the translator of a test set diverged, there is nothing to predict.
            if divergence::has_diverged(context.input(&premises.input)?) {
                for index in cells {
                    results[index] = Some(CellResult {
                        run,
                        epoch,
                        dev: chosen[index].accuracy,
                        premises: Vec::new(),
                        items: Vec::new(),
                        predicted: Vec::new(),
                        gold: Vec::new(),
                    });
                }
                continue;
            }
            let examples = combine(context, &premises, &hypotheses)?;
            let languages = (
                premises.language.as_str(),
                hypotheses.language.as_str(),
                told.as_str(),
            );
            let pairs = encode_examples(&examples, &tokenizer, languages, settings.maximum_length)?;
            truncated.insert(
                format!("{}/{}", premises.input, hypotheses.input),
                pairs.iter().filter(|pair| pair.truncated).count(),
            );
            tokens += pairs.iter().map(|pair| pair.tokens.len()).sum::<usize>();
            let predicted = predict(&encoder, &classifier, &pairs)?;
            for index in cells {
                results[index] = Some(CellResult {
                    run,
                    epoch,
                    dev: chosen[index].accuracy,
                    premises: pairs.iter().map(|pair| pair.premise_id).collect(),
                    items: pairs.iter().map(|pair| pair.item).collect(),
                    predicted: predicted.clone(),
                    gold: pairs.iter().map(|pair| pair.label.index() as u8).collect(),
                });
            }
            done += 1;
            context.progress.advance(done, "");
            context.stop_if_asked()?;
        }
    }
    let results: Vec<CellResult> = results.into_iter().flatten().collect();
    fs::write(
        context.output.join("predictions.json"),
        serde_json::to_vec(&results)?,
    )
    .context("cannot write predictions.json")?;
    Ok(json!({"cells": results.len(), "tokens": tokens, "truncated_test_examples": truncated}))
}

/// Reads the results of an evaluation.
pub fn read_results(folder: &Path) -> Result<Vec<CellResult>> {
    let path = folder.join("predictions.json");
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is not a list of predictions", path.display()))
}

/// Premises, hypotheses, and the language that the model is told.
type Text = (TestText, TestText, String);

/// The checkpoint that a rule selected.
struct Chosen {
    run: usize,
    epoch: u64,
    /// On the dev set that chose, 0 to 1.
    accuracy: f64,
}

/// The best candidate: the first among equals.
fn select(scores: &[DevScores], cell: &TestCell, source: &str) -> Result<Chosen> {
    let mut best: Option<Chosen> = None;
    for (run, scores) in scores.iter().enumerate() {
        let Some(epoch) = scores.best(cell.selection, &cell.dev_language, source) else {
            continue;
        };
        let accuracy = scores.judge(epoch, cell.selection, &cell.dev_language, source);
        if best.as_ref().is_none_or(|best| accuracy > best.accuracy) {
            best = Some(Chosen {
                run,
                epoch: epoch.epoch,
                accuracy,
            });
        }
    }
    best.context("no fine-tuning run has a dev score to select by")
}

/// The rows of a test set; for mixed pairs the premises of one language with the hypotheses of the same rows in another.
fn combine(
    context: &Context,
    premises: &TestText,
    hypotheses: &TestText,
) -> Result<Vec<NliExample>> {
    let read = |text: &TestText| read_examples(&context.input(&text.input)?.join("examples.jsonl"));
    let examples = read(premises)?;
    if premises == hypotheses {
        return Ok(examples);
    }
    let by_item: BTreeMap<u32, NliExample> = read(hypotheses)?
        .into_iter()
        .map(|example| (example.item, example))
        .collect();
    examples
        .into_iter()
        .map(|example| {
            let other = by_item.get(&example.item).with_context(|| {
                format!("row {} of {} has no counterpart in {}; mixed pairs need test sets that are translations of each other", example.item, premises.input, hypotheses.input)
            })?;
            anyhow::ensure!(other.label == example.label, "row {} has different labels in {} and {}", example.item, premises.input, hypotheses.input);
            Ok(NliExample { hypothesis: other.hypothesis.clone(), ..example })
        })
        .collect()
}
