//! Learns the tokenizer of a study from the training text of its languages.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::data::tokenizer::{self, TokenizerSettings};
use crate::stages::Context;

pub const NAME: &str = "tokenizer";
pub const VERSION: u32 = 2;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub tokenizer: TokenizerSettings,
    /// In the order of their embeddings.
    pub languages: Vec<String>,
}

/// Inputs: `monolingual:<language>` for each language. Writes `tokenizer.json`.
pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    let steps = settings.languages.len() as u64 + 1;
    context.progress.begin(steps, 0, "steps");
    let mut counted = Vec::new();
    let mut languages = Map::new();
    for language in &settings.languages {
        let text = context
            .input(&format!("monolingual:{language}"))?
            .join("train.txt");
        let counts = tokenizer::count_file(&text, context.device)?;
        languages.insert(
            language.clone(),
            json!({
                "sentences": counts.sentences,
                "words": counts.words.values().sum::<u64>(),
                "distinct_words": counts.words.len(),
            }),
        );
        counted.push((language.clone(), counts));
        context.progress.advance(counted.len() as u64, language);
        context.stop_if_asked()?;
    }
    let learnt = tokenizer::train(&settings.tokenizer, &counted)?;
    learnt.save(context.output)?;
    context.progress.advance(steps, "");
    Ok(json!({
        "vocabulary": learnt.vocabulary(),
        "fingerprint": learnt.fingerprint(),
        "languages": languages,
    }))
}
