//! Perplexity of held-out text under a pretrained causal language model, sentence by sentence.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::files::Lines;
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
    /// Each has an input `text:<language>` with `valid.txt`.
    pub languages: Vec<String>,
    pub units: Vec<Unit>,
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
            let folder = context.input(&format!("text:{language}"))?;
            let mut lines = Lines::open(&folder.join("valid.txt"))?;
            let mut sentences = Vec::new();
            while let Some(line) = lines.next_line()? {
                // Blank lines part documents.
                if !line.trim().is_empty() {
                    sentences.push(line.to_owned());
                }
            }
            ensure!(
                !sentences.is_empty(),
                "there is no held-out text in {language}; raise data.monolingual_validation"
            );
            Ok(sentences)
        })
        .collect::<Result<Vec<Vec<String>>>>()?;
    let total: usize = texts.iter().map(Vec::len).sum();
    context.progress.begin(total as u64, 0, "sentences");
    let (mut sets, mut counts) = (Vec::new(), BTreeMap::new());
    let (mut done, mut tokens) = (0, 0);
    for (language, sentences) in settings.languages.iter().zip(&texts) {
        let id = tokenizer.language_id(language)?;
        let mut words = tokenizer.encoder(language)?;
        let mut losses = Vec::with_capacity(sentences.len());
        let mut unknown = 0;
        for sentence in sentences {
            let mut ids = Vec::new();
            words.encode(sentence, &mut ids);
            unknown += ids.iter().filter(|id| **id == UNKNOWN).count();
            let sum = perplexity::loss(&encoder, &between_ends(&ids), id)
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
            let items = sentences.iter().zip(&losses).zip(0..);
            let items = items.map(|((sentence, (loss, tokens)), number)| {
                let units = unit.count(sentence, *tokens);
                (number, Measurement::Text { loss: *loss, units })
            });
            sets.push(MeasuredSet {
                task: LANGUAGE_MODELLING_TASK.to_owned(),
                regime: unit.name().to_owned(),
                language: language.clone(),
                items: items.collect(),
            });
        }
        let mut of_language = json!({"sentences": sentences.len(), "unknown_tokens": unknown});
        for unit in Unit::ALL {
            let all = sentences.iter().zip(&losses);
            let count: u64 = all
                .map(|(sentence, (_, tokens))| unit.count(sentence, *tokens))
                .sum();
            of_language[format!("{}s", unit.name())] = count.into();
        }
        counts.insert(language.clone(), of_language);
    }
    context.progress.advance(total as u64, "");
    measured::write(context.output, &sets)?;
    Ok(json!({"held_out": counts, "tokens": tokens}))
}
