//! Pairs of sentences with an inference label: the example every dataset format ends in.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::files::Lines;

/// Does the hypothesis follow from the premise? Numbered as in XLM; files are read by name, never by number (Hugging
/// Face's copy of XNLI numbers them the other way round).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    Contradiction,
    Neutral,
    Entailment,
}

impl Label {
    pub const ALL: [Self; 3] = [Self::Contradiction, Self::Neutral, Self::Entailment];

    pub fn name(self) -> &'static str {
        match self {
            Self::Contradiction => "contradiction",
            Self::Neutral => "neutral",
            Self::Entailment => "entailment",
        }
    }

    /// By name; XNLI-MT's training files say `contradictory`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "contradiction" | "contradictory" => Some(Self::Contradiction),
            "neutral" => Some(Self::Neutral),
            "entailment" => Some(Self::Entailment),
            _ => None,
        }
    }

    /// Position in [`Label::ALL`]: 0 contradiction, 1 neutral, 2 entailment.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// What pairs are for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    Train,
    Dev,
    Test,
}

impl Split {
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Test => "test",
        }
    }
}

/// One pair in one language.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NliExample {
    pub premise: String,
    pub hypothesis: String,
    pub label: Label,
    /// The cluster of pairs that share a premise; the same in every language of a data set. From 0, in order of appearance.
    pub premise_id: u32,
    /// The row that is the same pair in every language of a data set. From 0; skipped rows leave gaps.
    pub item: u32,
}

/// Reads `examples.jsonl` as [`write_examples`] wrote it.
pub fn read_examples(path: &Path) -> Result<Vec<NliExample>> {
    let mut lines = Lines::open(path)?;
    let mut examples = Vec::new();
    while let Some(line) = lines.next_line()? {
        let example = serde_json::from_str(line);
        examples.push(example.with_context(|| {
            format!(
                "`{}` line {} is not an example",
                path.display(),
                examples.len() + 1
            )
        })?);
    }
    Ok(examples)
}

/// One JSON object per line.
pub fn write_examples(path: &Path, examples: &[NliExample]) -> Result<()> {
    let writing = || format!("cannot write `{}`", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(writing)?);
    for example in examples {
        serde_json::to_writer(&mut file, example).with_context(writing)?;
        file.write_all(b"\n").with_context(writing)?;
    }
    file.flush().with_context(writing)
}

/// Checks that rows with the same number are the same pair in several languages: same numbers, labels and clusters.
/// Texts cannot be compared; a shifted file shows in its labels.
pub fn check_aligned(languages: &[(&str, &[NliExample])]) -> Result<()> {
    let Some(((first, reference), others)) = languages.split_first() else {
        return Ok(());
    };
    for (language, examples) in others {
        if examples.len() != reference.len() {
            bail!(
                "{language} has {} examples and {first} has {}; the files are not the same items",
                examples.len(),
                reference.len()
            );
        }
        for (one, other) in reference.iter().zip(*examples) {
            if (one.item, one.premise_id, one.label) != (other.item, other.premise_id, other.label)
            {
                bail!(
                    "item {} of {first} ({}, premise {}) meets item {} of {language} ({}, premise {}); the files are not in the same order",
                    one.item,
                    one.label.name(),
                    one.premise_id,
                    other.item,
                    other.label.name(),
                    other.premise_id
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_go_by_name() {
        for label in Label::ALL {
            assert_eq!(Label::from_name(label.name()), Some(label));
            assert_eq!(Label::ALL[label.index()], label);
        }
        assert_eq!(
            Label::from_name("contradictory"),
            Some(Label::Contradiction)
        );
        assert_eq!(Label::from_name("0"), None);
    }
}
