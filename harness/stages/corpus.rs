//! Encodes text into token files: one language's, or sentence pairs of two.

use std::path::Path;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::data::corpus::{CorpusFacts, Lines, ParallelCorpus, Part, binarise, side_name};
use crate::data::tokenizer::Tokenizer;
use crate::stages::Context;

pub const NAME: &str = "corpus";
pub const VERSION: u32 = 2;

/// What is encoded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Settings {
    /// `train.txt` and `valid.txt` of the input `text`.
    Monolingual { language: String },
    /// `train.<language>` and `valid.<language>` of both, of the input `text`.
    Parallel { first: String, second: String },
}

impl Settings {
    pub fn monolingual(language: &str) -> Self {
        Self::Monolingual {
            language: language.to_owned(),
        }
    }

    pub fn parallel(first: &str, second: &str) -> Self {
        Self::Parallel {
            first: first.to_owned(),
            second: second.to_owned(),
        }
    }
}

/// Inputs: `tokenizer` and `text`, in which pairs for training may be missing. Writes what [`crate::data::corpus`] reads.
pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    let tokenizer = Tokenizer::load(context.input("tokenizer")?)?;
    let text = context.input("text")?;
    let mut jobs = Vec::new();
    for part in [Part::Train, Part::Valid] {
        match settings {
            Settings::Monolingual { language } => {
                let name = part.name().to_owned();
                jobs.push((
                    text.join(format!("{name}.txt")),
                    Lines::Documents,
                    language,
                    part,
                    name,
                ));
            }
            Settings::Parallel { first, second } => {
                for language in [first, second] {
                    let name = side_name(part, language);
                    jobs.push((text.join(&name), Lines::Aligned, language, part, name));
                }
            }
        }
    }
    let size = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    context
        .progress
        .begin(jobs.iter().map(|(path, ..)| size(path)).sum(), 0, "bytes");
    let mut files = Map::new();
    let (mut before, mut tokens) = (0, 0);
    for (path, lines, language, part, name) in &jobs {
        let watch = |done| {
            context.progress.advance(before + done, name);
            context.stop_if_asked()
        };
        let written = binarise(
            (path, *lines),
            (&tokenizer, language),
            (context.output, name),
            context.device,
            &watch,
        )?;
        before += size(path);
        let absent = *lines == Lines::Aligned && written.tokens == 0;
        if *part == Part::Train && !absent {
            ensure_known(&written, language, tokenizer.maximum_unknown_rate())?;
        }
        tokens += written.tokens;
        files.insert(name.clone(), described(&written));
    }
    if let Settings::Parallel { first, second } = settings {
        for part in [Part::Train, Part::Valid] {
            ParallelCorpus::open(context.output, (first, second), part)?;
        }
    }
    Ok(json!({"tokens": tokens, "files": files}))
}

fn ensure_known(facts: &CorpusFacts, language: &str, maximum: f64) -> Result<()> {
    ensure!(facts.tokens > 0, "the training text in {language} is empty");
    ensure!(
        facts.unknown_rate() <= maximum,
        "{:.2} % of the tokens in {language} are `<unk>`, more than {:.2} %: the tokenizer does not fit the text; raise tokenizer.character_coverage and tokenizer.bpe.vocabulary, or tokenizer.maximum_unknown_rate",
        100.0 * facts.unknown_rate(),
        100.0 * maximum
    );
    Ok(())
}

fn described(facts: &CorpusFacts) -> Value {
    json!({
        "sentences": facts.sentences,
        "documents": facts.documents,
        "tokens": facts.tokens,
        "words": facts.words,
        "characters": facts.characters,
        "unknown_tokens": facts.unknown,
        "unknown_rate": facts.unknown_rate(),
        "tokens_per_word": facts.tokens_per_word(),
    })
}
