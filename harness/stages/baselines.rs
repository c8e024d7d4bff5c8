//! What can be scored without a model: majority class, hypothesis alone, word overlap.
//!
//! A dataset whose labels these predict well says little about transfer (Gururangan et al. 2018, arXiv 1803.02324).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::nli::{Label, NliExample, check_aligned, read_examples};
use crate::stages::{Context, divergence};
use crate::tasks::baselines;

pub const NAME: &str = "baselines";
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub source: String,
    /// Languages with a test set `test:<language>`.
    pub test_languages: Vec<String>,
    /// Languages with a training set `train:<language>`; words can be learnt in these only.
    pub training_languages: Vec<String>,
}

/// Baseline -> language -> (correct, examples).
pub type BaselineScores = BTreeMap<String, BTreeMap<String, (u64, u64)>>;

pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    let read = |name: String| read_examples(&context.input(&name)?.join("examples.jsonl"));
    let train: BTreeMap<&str, Vec<NliExample>> = settings
        .training_languages
        .iter()
        // Where the translator of a training set diverged, there is none.
        .filter(|language| {
            let folder = context.input(&format!("train:{language}"));
            !folder.is_ok_and(divergence::has_diverged)
        })
        .map(|language| Ok((language.as_str(), read(format!("train:{language}"))?)))
        .collect::<Result<_>>()?;
    let source = train
        .get(settings.source.as_str())
        .context("the baselines need the source language's training set")?;
    context
        .progress
        .begin(settings.test_languages.len() as u64, 0, "languages");
    let mut scores = BaselineScores::new();
    let tests: Vec<(&str, Vec<NliExample>)> = settings
        .test_languages
        .iter()
        .map(|language| Ok((language.as_str(), read(format!("test:{language}"))?)))
        .collect::<Result<_>>()?;
    // Intervals pair languages by item: the test sets must be translations of each other, row by row.
    let rows: Vec<(&str, &[NliExample])> = tests
        .iter()
        .map(|(language, test)| (*language, test.as_slice()))
        .collect();
    check_aligned(&rows).context("the test sets are not the same items in every language")?;
    for (done, (language, test)) in tests.iter().enumerate() {
        let mut add = |name: &str, predicted: Vec<Label>| {
            let correct = predicted
                .iter()
                .zip(test)
                .filter(|(label, example)| **label == example.label)
                .count();
            scores
                .entry(name.to_owned())
                .or_default()
                .insert((*language).to_owned(), (correct as u64, test.len() as u64));
        };
        add("majority", baselines::majority(source, test));
        add("overlap", baselines::overlap(source, test));
        if let Some(train) = train.get(language) {
            add("hypothesis_only", baselines::hypothesis_only(train, test));
            add("bag_of_words", baselines::bag_of_words(train, test));
        }
        context.progress.advance(done as u64 + 1, language);
        context.stop_if_asked()?;
    }
    fs::write(
        context.output.join("baselines.json"),
        serde_json::to_vec_pretty(&scores)?,
    )
    .context("cannot write baselines.json")?;
    Ok(json!({"test_languages": settings.test_languages.len()}))
}

pub fn read_scores(folder: &Path) -> Result<BaselineScores> {
    let path = folder.join("baselines.json");
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is not a table of baselines", path.display()))
}
