//! A generated family as files, laid out like real data.
//!
//! ```text
//! monolingual/aa.txt            a sentence per line, a blank line between documents
//! parallel/aa-bb.aa, .bb        training pairs line by line; dev and test in parallel/dev/ and parallel/test/
//! nli/train.aa.tsv              premise, hypothesis, label, premise_id, with a header; also dev and test
//! annotated/train.aa.conllu     CoNLL-U: ID, FORM, UPOS, HEAD, DEPREL, and the entity in MISC
//! dictionary/aa-bb.txt          a pair of words per line
//! facts.json
//! ```
//! A pair of languages is written in alphabetical order.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{AnnotatedSentence, Document, Generated};
use crate::data::nli::NliExample;

/// Writes all files below `folder`, which is made when it is missing. Errors name the file.
pub fn write(generated: &Generated, folder: &Path) -> Result<()> {
    for (language, documents) in &generated.monolingual {
        save(
            folder,
            &format!("monolingual/{language}.txt"),
            &monolingual(documents),
        )?;
    }
    for ((one, two), splits) in &generated.parallel {
        let pair = pair_name(one, two);
        for (split, pairs) in splits.iter() {
            let place = if split == "train" {
                String::new()
            } else {
                format!("{split}/")
            };
            let file = |language: &str| format!("parallel/{place}{pair}.{language}");
            save(folder, &file(one), &lines(pairs.iter().map(|pair| &pair.0)))?;
            save(folder, &file(two), &lines(pairs.iter().map(|pair| &pair.1)))?;
        }
    }
    for (split, languages) in generated.nli.iter() {
        for (language, examples) in languages {
            save(
                folder,
                &format!("nli/{split}.{language}.tsv"),
                &nli(examples),
            )?;
        }
    }
    for (split, languages) in generated.annotated.iter() {
        for (language, sentences) in languages {
            save(
                folder,
                &format!("annotated/{split}.{language}.conllu"),
                &conllu(sentences),
            )?;
        }
    }
    for ((one, two), words) in &generated.dictionary {
        let words = words.iter().map(|(first, second)| match one < two {
            true => format!("{first} {second}"),
            false => format!("{second} {first}"),
        });
        save(
            folder,
            &format!("dictionary/{}.txt", pair_name(one, two)),
            &lines(words),
        )?;
    }
    let facts = serde_json::to_string_pretty(&generated.facts)
        .context("the facts of the synthetic family are not JSON")?;
    save(folder, "facts.json", &(facts + "\n"))
}

fn pair_name(one: &str, two: &str) -> String {
    let (first, second) = if one < two { (one, two) } else { (two, one) };
    format!("{first}-{second}")
}

fn save(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot make the folder {}", parent.display()))?;
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn lines<T: AsRef<str>>(items: impl Iterator<Item = T>) -> String {
    let mut text = String::new();
    for item in items {
        text.push_str(item.as_ref());
        text.push('\n');
    }
    text
}

fn monolingual(documents: &[Document]) -> String {
    let mut text = String::new();
    for (index, document) in documents.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        for sentence in document {
            text.push_str(sentence);
            text.push('\n');
        }
    }
    text
}

fn nli(examples: &[NliExample]) -> String {
    let mut text = String::from("premise\thypothesis\tlabel\tpremise_id\n");
    for example in examples {
        let NliExample {
            premise,
            hypothesis,
            label,
            premise_id,
            ..
        } = example;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{premise}\t{hypothesis}\t{}\t{premise_id}",
            label.name()
        );
    }
    text
}

fn conllu(sentences: &[AnnotatedSentence]) -> String {
    let mut text = String::new();
    for sentence in sentences {
        for (index, word) in sentence.words.iter().enumerate() {
            let _ = writeln!(
                text,
                "{}\t{word}\t_\t{}\t_\t_\t{}\t{}\t_\tEntity={}",
                index + 1,
                sentence.tags[index],
                sentence.heads[index],
                sentence.relations[index],
                sentence.entities[index],
            );
        }
        text.push('\n');
    }
    text
}
