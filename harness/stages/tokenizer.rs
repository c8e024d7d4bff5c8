//! Learns a tokenizer from the training text of all languages.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::tokenizer::{TokenizerSettings, count_file, train};
use crate::stages::Context;

pub const NAME: &str = "tokenizer";
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub tokenizer: TokenizerSettings,
    /// In the order of their embeddings; text comes from the inputs `monolingual:<language>`.
    pub languages: Vec<String>,
}

pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    context.progress.begin(settings.languages.len() as u64 + 1, 0, "steps");
    let mut counted = Vec::new();
    for (done, language) in settings.languages.iter().enumerate() {
        let folder = context.input(&format!("monolingual:{language}"))?;
        counted.push((language.clone(), count_file(&folder.join("train.txt"), context.device)?));
        context.progress.advance(done as u64 + 1, &format!("counted the words of {language}"));
        context.stop_if_asked()?;
    }
    let tokenizer = train(&settings.tokenizer, &counted)?;
    tokenizer.save(context.output)?;
    context.progress.advance(settings.languages.len() as u64 + 1, "");
    Ok(json!({"vocabulary": tokenizer.vocabulary(), "fingerprint": tokenizer.fingerprint()}))
}
