//! Translates test sets with a trained model, and counts what BLEU and chrF are computed from.
//!
//! References are the lines of the test set. Differs: XLM rebuilds them from its token ids.
//!
//! Writes `results.json` (counts of each sentence, no text) and the translations beside it, which stay in the store.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::files::Lines;
use crate::data::tokenizer::Tokenizer;
use crate::kernels::Precision;
use crate::metrics::bleu::{BleuCounts, bleu_counts};
use crate::metrics::chrf::{ChrfCounts, chrf_counts};
use crate::model::{Batch, Encoder, Model};
use crate::objectives::translation::Direction;
use crate::spec::translation::{BleuSettings, SearchSettings};
use crate::stages::translating::{encode_sources, translated};
use crate::stages::{Context, divergence};

pub const NAME: &str = "translate";
pub const VERSION: u32 = 1;

/// Sentences between two looks at the stop flag.
const STRIDE: usize = 512;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Each has an input `test:<first>-<second>`, its languages in alphabetical order.
    pub directions: Vec<Direction>,
    pub searches: Vec<SearchSettings>,
    pub bleu: BleuSettings,
    pub precision: Precision,
}

/// Counts of one test sentence's translation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SentenceCounts {
    pub bleu: BleuCounts,
    pub chrf: ChrfCounts,
}

/// What `results.json` holds: a test set under one search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TranslationResult {
    pub direction: Direction,
    /// The search's name; `copy` is the source as its own translation.
    pub search: String,
    pub sentences: Vec<SentenceCounts>,
}

/// The name of [`TranslationResult::search`] under which the source stands as its own translation.
pub const COPY: &str = "copy";

pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    divergence::refuse_diverged(context, "translation")?;
    let tokenizer = Tokenizer::load(context.input("tokenizer")?)?;
    let model = Model::load(&context.input("translation")?.join("model.safetensors"))?;
    let encoder = Encoder::new(model, context.device).in_precision(settings.precision);
    let total = settings.directions.len() * settings.searches.len();
    context.progress.begin(total as u64, 0, "test sets");
    let mut results = Vec::new();
    let mut truncated = BTreeMap::new();
    let mut tokens = 0;
    for (index, direction) in settings.directions.iter().enumerate() {
        let (first, second) = direction.pair();
        let folder = context.input(&format!("test:{first}-{second}"))?;
        let sides = [&direction.from, &direction.into]
            .map(|language| read_lines(&folder.join(format!("test.{language}"))));
        let [from, into] = sides;
        let (from, into) = (from?, into?);
        ensure!(
            from.len() == into.len(),
            "the test set {first}-{second} has {} and {} lines",
            from.len(),
            into.len()
        );
        let (sources, cut) = encode_sources(&from, &direction.from, &tokenizer, &encoder)?;
        truncated.insert(direction.to_string(), cut);
        let language = tokenizer.language_id(&direction.into)?;
        results.push(TranslationResult {
            direction: direction.clone(),
            search: COPY.to_owned(),
            sentences: count(&from, &into, settings.bleu),
        });
        for (number, search) in settings.searches.iter().enumerate() {
            let mut hypotheses = Vec::with_capacity(from.len());
            for part in sources.chunks(STRIDE) {
                let mut batch = Batch::new();
                let source_language = tokenizer.language_id(&direction.from)?;
                for sentence in part {
                    batch.push(sentence, source_language);
                    tokens += sentence.len();
                }
                hypotheses.extend(translated(&encoder, &batch, language, search, &tokenizer)?);
                let done = index * settings.searches.len() + number;
                let note = format!("{direction}, {} of {}", hypotheses.len(), from.len());
                context.progress.advance(done as u64, &note);
                context.stop_if_asked()?;
            }
            write_lines(
                &hypotheses,
                &context
                    .output
                    .join(format!("{direction}.{}.txt", search.name())),
            )?;
            results.push(TranslationResult {
                direction: direction.clone(),
                search: search.name(),
                sentences: count(&hypotheses, &into, settings.bleu),
            });
        }
    }
    context.progress.advance(total as u64, "");
    let bleu: BTreeMap<String, f64> = results
        .iter()
        .map(|result| {
            let mut total = BleuCounts::default();
            for sentence in &result.sentences {
                total.add(&sentence.bleu);
            }
            let name = format!("{} {}", result.direction, result.search);
            (name, total.bleu(settings.bleu.smoothing))
        })
        .collect();
    let path = context.output.join("results.json");
    fs::write(&path, serde_json::to_vec(&results)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(json!({
        "bleu": bleu,
        "sources_cut": truncated,
        "tokens": tokens,
    }))
}

/// Reads `results.json` of an artifact.
pub fn read_results(folder: &Path) -> Result<Vec<TranslationResult>> {
    let path = folder.join("results.json");
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} holds no translations' counts", path.display()))
}

fn count(
    hypotheses: &[String],
    references: &[String],
    settings: BleuSettings,
) -> Vec<SentenceCounts> {
    hypotheses
        .iter()
        .zip(references)
        .map(|(hypothesis, reference)| SentenceCounts {
            bleu: bleu_counts(hypothesis, reference, settings.tokenization),
            chrf: chrf_counts(hypothesis, reference),
        })
        .collect()
}

fn read_lines(path: &Path) -> Result<Vec<String>> {
    let mut lines = Lines::open(path)?;
    let mut read = Vec::new();
    while let Some(line) = lines.next_line()? {
        read.push(line.to_owned());
    }
    Ok(read)
}

fn write_lines(lines: &[String], path: &Path) -> Result<()> {
    let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
