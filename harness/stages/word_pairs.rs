//! Pairs of words of the source language and another: a dictionary's, or those that people have rated.
//!
//! Written as `pairs.tsv`: word, word and, where rated, the rating.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::files::Lines;
use crate::data::input::{self, InputFile};
use crate::data::source::WordInput;
use crate::data::text::TextPipeline;
use crate::language;
use crate::random::Random;
use crate::stages::{Context, inputs};

pub const NAME: &str = "word_pairs";
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The language of the first words.
    pub source: String,
    pub language: String,
    pub input: WordInput,
    /// Whether a rating stands behind each pair.
    pub rated: bool,
    pub text_pipeline: TextPipeline,
    /// At most so many pairs, drawn with the seed; all without it.
    pub limit: Option<u64>,
    /// The data seed of the study.
    pub seed: u64,
}

/// A pair as it is written; the rating is empty where there is none.
pub type WordPair = (String, String, Option<f64>);

pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    let files = input_files(settings, context)?;
    let mut pairs: Vec<WordPair> = Vec::new();
    let mut seen = BTreeSet::new();
    let (mut lines, mut repeated) = (0, 0);
    for file in &files {
        let mut reader = Lines::open(&file.path)?;
        while let Some(line) = reader.next_line()? {
            if line.trim().is_empty() {
                continue;
            }
            lines += 1;
            let mut pair = match parse(line, settings) {
                Ok(pair) => pair,
                Err(error) => {
                    return Err(error.context(format!(
                        "line {} of `{}`, words of {}-{}",
                        reader.number(),
                        file.path.display(),
                        settings.source,
                        settings.language
                    )));
                }
            };
            if swapped(settings) {
                std::mem::swap(&mut pair.0, &mut pair.1);
            }
            for word in [&mut pair.0, &mut pair.1] {
                *word = settings.text_pipeline.apply(word).trim().to_owned();
            }
            if pair.0.is_empty() || pair.1.is_empty() {
                continue;
            }
            match seen.insert((pair.0.clone(), pair.1.clone())) {
                true => pairs.push(pair),
                false => repeated += 1,
            }
        }
    }
    let here = || {
        let names = files
            .iter()
            .map(|file| format!("`{}`", file.path.display()));
        let names: Vec<String> = names.collect();
        format!(
            "words of {}-{} in {}",
            settings.source,
            settings.language,
            names.join(" and ")
        )
    };
    ensure!(
        !pairs.is_empty(),
        "there are no {}: {lines} lines were read; supply others",
        here()
    );
    if settings.rated {
        let first = pairs[0].2;
        ensure!(
            pairs.iter().any(|pair| pair.2 != first),
            "all {} have one and the same rating, with which nothing correlates; supply others",
            here()
        );
    }
    let read = pairs.len();
    if let Some(limit) = settings.limit
        && (limit as usize) < pairs.len()
    {
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        let purpose = format!("word pairs {}-{}", settings.source, settings.language);
        Random::new(settings.seed, &purpose, 0).shuffle(&mut order);
        let kept: BTreeSet<usize> = order.into_iter().take(limit as usize).collect();
        let mut number = 0;
        pairs.retain(|_| {
            number += 1;
            kept.contains(&(number - 1))
        });
    }
    let path = context.output.join("pairs.tsv");
    let writing = || format!("cannot write {}", path.display());
    let mut output = BufWriter::new(File::create(&path).with_context(writing)?);
    for (first, second, rating) in &pairs {
        match rating {
            Some(rating) => writeln!(output, "{first}\t{second}\t{rating}"),
            None => writeln!(output, "{first}\t{second}"),
        }
        .with_context(writing)?;
    }
    output.flush().with_context(writing)?;
    Ok(json!({
        "pairs": pairs.len(),
        "unused_pairs": read - pairs.len(),
        "repeated_pairs": repeated,
        "lines": lines,
        "sources": files.iter().map(|file| &file.record).collect::<Vec<_>>(),
    }))
}

/// Dictionaries of a generated family have the languages in alphabetical order.
fn swapped(settings: &Settings) -> bool {
    settings.input == WordInput::Synthetic && settings.language < settings.source
}

fn input_files(settings: &Settings, context: &Context) -> Result<Vec<InputFile>> {
    match &settings.input {
        WordInput::Files => input::local(context.files, "file"),
        WordInput::Hub { files } => inputs::from_hub(files, context),
        WordInput::Synthetic => {
            let (first, second) = language::ordered(&settings.source, &settings.language);
            let name = format!("dictionary/{first}-{second}.txt");
            Ok(vec![input::of_path(
                &context.input("synthesize")?.join(name),
            )?])
        }
    }
}

/// Split at tabs where there are any, else at white space, as MUSE writes its dictionaries (both) and its SemEval-2017 files (tabs).
fn parse(line: &str, settings: &Settings) -> Result<WordPair> {
    let fields: Vec<&str> = match line.contains('\t') {
        true => line.split('\t').collect(),
        false => line.split_whitespace().collect(),
    };
    match (settings.rated, fields.as_slice()) {
        (false, [first, second]) => Ok(((*first).to_owned(), (*second).to_owned(), None)),
        (true, [first, second, rating]) => {
            let number: f64 = rating
                .trim()
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite())
                .with_context(|| {
                    format!("`{rating}` is no rating; write a number behind the two words")
                })?;
            Ok(((*first).to_owned(), (*second).to_owned(), Some(number)))
        }
        (false, other) => anyhow::bail!(
            "{} fields where a word and its translation are wanted; part them by a tab",
            other.len()
        ),
        (true, other) => anyhow::bail!(
            "{} fields where two words and a rating are wanted; part them by tabs",
            other.len()
        ),
    }
}

/// Reads `pairs.tsv` of an artifact.
pub fn read(folder: &std::path::Path) -> Result<Vec<WordPair>> {
    let path = folder.join("pairs.tsv");
    let mut lines = Lines::open(&path)?;
    let mut pairs = Vec::new();
    while let Some(line) = lines.next_line()? {
        let mut fields = line.split('\t');
        let (Some(first), Some(second)) = (fields.next(), fields.next()) else {
            anyhow::bail!("{} has a line that is no pair", path.display());
        };
        let rating = fields.next().map(str::parse).transpose();
        let rating = rating.with_context(|| format!("{} has a wrong rating", path.display()))?;
        pairs.push((first.to_owned(), second.to_owned(), rating));
    }
    Ok(pairs)
}
