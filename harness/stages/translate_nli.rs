//! Translates the sentences of an inference set with a model of the study. Labels, premises and rows stay.
//!
//! ```text
//! examples.jsonl -> each sentence once, longest first -> search -> examples.jsonl in the other language
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::nli::{NliExample, read_examples, write_examples};
use crate::data::tokenizer::{Tokenizer, UNKNOWN_TEXT};
use crate::kernels::Precision;
use crate::model::{Batch, Encoder, Model};
use crate::objectives::translation::Direction;
use crate::spec::translation::SearchSettings;
use crate::stages::translating::{encode_sources, translated};
use crate::stages::{Context, checkpoint, divergence};

pub const NAME: &str = "translate_nli";
pub const VERSION: u32 = 2;

/// What stands for an unknown token: a character that hardly a vocabulary has, so that whoever reads the translation has an unknown
/// token there too. Spelled out, `<unk>` would be read as words of it.
const UNKNOWN_CHARACTER: &str = "\u{fffd}";

/// Sentences between two looks at the stop flag.
const STRIDE: usize = 512;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub direction: Direction,
    pub search: SearchSettings,
    pub precision: Precision,
}

/// Inputs: `tokenizer`, `translation` (a trained model) and `examples` in the language that is translated from.
pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    divergence::refuse_diverged(context, "translation")?;
    let tokenizer = Tokenizer::load(context.input("tokenizer")?)?;
    let model = Model::load(&context.input("translation")?.join("model.safetensors"))?;
    let encoder = Encoder::new(model, context.device).in_precision(settings.precision);
    let examples = read_examples(&context.input("examples")?.join("examples.jsonl"))?;

    let sentences: BTreeSet<&str> = examples
        .iter()
        .flat_map(|example| [example.premise.as_str(), example.hypothesis.as_str()])
        .collect();
    let sentences: Vec<&str> = sentences.into_iter().collect();
    let Direction { from, into } = &settings.direction;
    let (sources, cut) = encode_sources(&sentences, from, &tokenizer, &encoder)?;
    // A search takes sentences of like length together; which ones share a part follows from the set alone.
    let mut order: Vec<usize> = (0..sentences.len()).collect();
    order.sort_by_key(|&sentence| (std::cmp::Reverse(sources[sentence].len()), sentence));

    let mut done: Vec<String> = match checkpoint::latest(context.checkpoints)? {
        Some((_, folder)) => checkpoint::position(&folder)?,
        None => Vec::new(),
    };
    let total = order.len() as u64;
    context
        .progress
        .begin(total, done.len() as u64, "sentences");
    let (from, into) = (tokenizer.language_id(from)?, tokenizer.language_id(into)?);
    let mut saved = Instant::now();
    while done.len() < order.len() {
        let part = &order[done.len()..order.len().min(done.len() + STRIDE)];
        let mut batch = Batch::new();
        for &sentence in part {
            batch.push(&sources[sentence], from);
        }
        let found = translated(&encoder, &batch, into, &settings.search, &tokenizer)?;
        done.extend(
            found
                .iter()
                .map(|line| line.replace(UNKNOWN_TEXT, UNKNOWN_CHARACTER)),
        );
        context.progress.advance(done.len() as u64, "");
        if done.len() < order.len()
            && (context.stop.asked() || saved.elapsed() >= context.checkpoint_interval)
        {
            checkpoint::save(context.checkpoints, done.len() as u64, |folder| {
                Ok(fs::write(
                    folder.join("position.json"),
                    serde_json::to_vec(&done)?,
                )?)
            })?;
            saved = Instant::now();
            context.stop_if_asked()?;
        }
    }

    let translations: BTreeMap<&str, &str> = order
        .iter()
        .map(|&sentence| sentences[sentence])
        .zip(done.iter().map(String::as_str))
        .collect();
    let translation = |sentence: &str| -> Result<String> {
        let found = translations.get(sentence);
        Ok((*found.context("a sentence was not translated")?).to_owned())
    };
    let examples = examples
        .iter()
        .map(|example| {
            Ok(NliExample {
                premise: translation(&example.premise)?,
                hypothesis: translation(&example.hypothesis)?,
                ..example.clone()
            })
        })
        .collect::<Result<Vec<_>>>()?;
    write_examples(&context.output.join("examples.jsonl"), &examples)?;
    Ok(json!({
        "examples": examples.len(),
        "sentences_translated": sentences.len(),
        "sources_cut": cut,
        "unknown_tokens": done.iter().map(|line| line.matches(UNKNOWN_CHARACTER).count()).sum::<usize>(),
        "empty_translations": done.iter().filter(|line| line.is_empty()).count(),
        "copied_sentences": translations.iter().filter(|(from, into)| from == into).count(),
        "tokens": sources.iter().map(Vec::len).sum::<usize>(),
    }))
}
