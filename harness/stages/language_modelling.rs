//! Perplexity of held-out text under a pretrained causal language model, sentence by sentence.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::files::Lines;
use crate::data::leakage::sentence_key;
use crate::data::tokenizer::{Tokenizer, UNKNOWN};
use crate::kernels::Precision;
use crate::metrics::{LANGUAGE_MODELLING_TASK, Measurement};
use crate::model::{Encoder, Model};
use crate::objectives::translation::between_ends;
use crate::probes::perplexity::{self, Unit};
use crate::stages::measured::{self, MeasuredSet};
use crate::stages::{Context, divergence};

pub const NAME: &str = "language_modelling";
pub const VERSION: u32 = 1;

/// Sentences between two looks at the stop flag.
const STRIDE: usize = 64;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Each has an input `text:<language>` with `train.txt` and `valid.txt`.
    pub languages: Vec<String>,
    pub units: Vec<Unit>,
    /// Most tokens that pretraining read at once.
    pub longest: usize,
    pub precision: Precision,
}

/// Inputs: `tokenizer`, `pretrain` and the text of each language.
pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    divergence::refuse_diverged(context, "pretrain")?;
    let tokenizer = Tokenizer::load(context.input("tokenizer")?)?;
    let model = Model::load(&context.input("pretrain")?.join("model.safetensors"))?;
    let encoder = Encoder::new(model, context.device).in_precision(settings.precision);
    let texts = settings
        .languages
        .iter()
        .map(|language| {
            HeldOut::read(context.input(&format!("text:{language}"))?)
                .with_context(|| format!("held-out text in {language}"))
        })
        .collect::<Result<Vec<_>>>()?;
    let total: usize = texts.iter().map(|text| text.sentences.len()).sum();
    context.progress.begin(total as u64, 0, "sentences");
    let (mut sets, mut counts) = (Vec::new(), BTreeMap::new());
    let (mut done, mut tokens) = (0, 0);
    // Runs of a language are no other's: their numbers go on.
    let mut first_run = 0;
    for (language, text) in settings.languages.iter().zip(&texts) {
        let sentences = &text.sentences;
        let id = tokenizer.language_id(language)?;
        let mut words = tokenizer.encoder(language)?;
        let mut losses = Vec::with_capacity(sentences.len());
        let mut unknown = 0;
        for (_, sentence) in sentences {
            let mut ids = Vec::new();
            words.encode(sentence, &mut ids);
            unknown += ids.iter().filter(|id| **id == UNKNOWN).count();
            let sum = perplexity::loss(&encoder, &between_ends(&ids), id, settings.longest)
                .with_context(|| format!("held-out text in {language}"))?;
            ensure!(
                sum.nats.is_finite(),
                "the loss of a held-out sentence in {language} is not finite"
            );
            tokens += ids.len() + 1;
            losses.push((sum.nats, ids.len()));
            done += 1;
            if done % STRIDE == 0 {
                context.progress.advance(done as u64, language);
                context.stop_if_asked()?;
            }
        }
        for unit in &settings.units {
            let items = sentences.iter().zip(&losses);
            let items = items.map(|((run, sentence), (loss, tokens))| {
                let units = unit.count(sentence, *tokens);
                (first_run + run, Measurement::Text { loss: *loss, units })
            });
            sets.push(MeasuredSet {
                task: LANGUAGE_MODELLING_TASK.to_owned(),
                regime: unit.name().to_owned(),
                language: language.clone(),
                items: items.collect(),
            });
        }
        first_run += text.runs;
        let mut of_language = json!({
            "sentences": sentences.len(),
            "runs": text.runs,
            "left_out_as_training_has_them": text.left_out,
            "unknown_tokens": unknown,
        });
        for unit in Unit::ALL {
            let all = sentences.iter().zip(&losses);
            let count: u64 = all
                .map(|((_, sentence), (_, tokens))| unit.count(sentence, *tokens))
                .sum();
            of_language[format!("{}s", unit.name())] = count.into();
        }
        counts.insert(language.clone(), of_language);
    }
    context.progress.advance(total as u64, "");
    measured::write(context.output, &sets)?;
    Ok(json!({"held_out": counts, "tokens": tokens}))
}

/// Held-out sentences of a language that its training text does not have.
struct HeldOut {
    /// Each with the number of the run of lines that it stands in: what was held out together, and is one cluster.
    sentences: Vec<(u32, String)>,
    runs: u32,
    left_out: usize,
}

impl HeldOut {
    fn read(folder: &Path) -> Result<Self> {
        let mut found = Self {
            sentences: Vec::new(),
            runs: 1,
            left_out: 0,
        };
        let mut keys = HashSet::new();
        let mut lines = Lines::open(&folder.join("valid.txt"))?;
        while let Some(line) = lines.next_line()? {
            // Blank lines part runs.
            match line.trim().is_empty() {
                true => found.runs += 1,
                false => {
                    keys.insert(sentence_key(line));
                    found.sentences.push((found.runs - 1, line.to_owned()));
                }
            }
        }
        let mut trained = HashSet::new();
        let mut lines = Lines::open(&folder.join("train.txt"))?;
        while let Some(line) = lines.next_line()? {
            let key = sentence_key(line);
            if keys.contains(&key) {
                trained.insert(key);
            }
        }
        let before = found.sentences.len();
        found
            .sentences
            .retain(|(_, line)| !trained.contains(&sentence_key(line)));
        found.left_out = before - found.sentences.len();
        ensure!(
            !found.sentences.is_empty(),
            "none of {before} sentences is left that training text does not have; raise data.monolingual_validation"
        );
        Ok(found)
    }
}
