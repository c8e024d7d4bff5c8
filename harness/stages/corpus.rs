//! Turns the text of one language, or of one pair of languages, into token files.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::corpus::{CorpusFacts, Part, binarise, side_name};
use crate::data::tokenizer::Tokenizer;
use crate::stages::Context;

pub const NAME: &str = "corpus";
pub const VERSION: u32 = 1;

/// More unknown tokens than this make a corpus useless: the tokenizer was not made for it. Ours; the coverage of characters
/// alone leaves 0.05 % by default.
const MOST_UNKNOWN: f64 = 0.05;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Settings {
    /// `train.txt` and `valid.txt` of the input `text`.
    Monolingual { language: String },
    /// `train.<language>` and `valid.<language>` of the input `text`.
    Parallel { first: String, second: String },
}

impl Settings {
    pub fn monolingual(language: &str) -> Self {
        Self::Monolingual { language: language.to_owned() }
    }

    pub fn parallel(first: &str, second: &str) -> Self {
        Self::Parallel { first: first.to_owned(), second: second.to_owned() }
    }
}

pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    let tokenizer = Tokenizer::load(context.input("tokenizer")?)?;
    let text = context.input("text")?;
    let parts = [Part::Train, Part::Valid];
    // Language, text file, name of the token files.
    let files: Vec<(&str, String, String)> = match settings {
        Settings::Monolingual { language } => {
            parts.iter().map(|part| (language.as_str(), format!("{}.txt", part.name()), part.name().to_owned())).collect()
        }
        Settings::Parallel { first, second } => parts
            .iter()
            .flat_map(|part| [first, second].map(|language| (language.as_str(), side_name(*part, language), side_name(*part, language))))
            .collect(),
    };
    context.progress.begin(files.len() as u64, 0, "files");
    let mut facts: BTreeMap<String, CorpusFacts> = BTreeMap::new();
    for (done, (language, file, name)) in files.into_iter().enumerate() {
        let found = binarise(&text.join(&file), &tokenizer, language, context.output, &name, context.device)?;
        let unknown = found.unknown as f64 / found.tokens.max(1) as f64;
        if unknown > MOST_UNKNOWN {
            bail!(
                "{:.1} % of the tokens of {language} are unknown to the tokenizer; was it made for this text? check tokenizer.character_coverage and data.text_pipeline",
                100.0 * unknown
            );
        }
        facts.insert(name, found);
        context.progress.advance(done as u64 + 1, "");
        context.stop_if_asked()?;
    }
    let tokens: u64 = facts.values().map(|facts| facts.tokens).sum();
    Ok(json!({"tokens": tokens, "files": facts}))
}
