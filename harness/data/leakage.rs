//! Sentences that training text shares with evaluation sets.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::files::Lines;
use super::nli;

/// Identity of a sentence: 128 bits of BLAKE3 over its words, so that spacing does not hide a copy. Two of a billion
/// sentences meet by chance with probability below 1e-20.
pub fn sentence_key(sentence: &str) -> u128 {
    key(&[sentence])
}

/// Identity of an ordered pair of sentences.
pub fn pair_key(first: &str, second: &str) -> u128 {
    key(&[first, second])
}

fn key(sentences: &[&str]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for sentence in sentences {
        for word in sentence.split_whitespace() {
            hasher.update(word.as_bytes());
            hasher.update(b" ");
        }
        hasher.update(b"\t");
    }
    let hash = hasher.finalize();
    u128::from_le_bytes(std::array::from_fn(|at| hash.as_bytes()[at]))
}

/// What a study evaluates on, after its text pipeline.
#[derive(Debug, Default)]
pub struct EvaluationText {
    sentences: HashSet<u128>,
    pairs: HashSet<u128>,
}

impl EvaluationText {
    /// Adds what a folder of prepared text has for evaluation: premises, hypotheses and pairs of `examples.jsonl`, or the lines of
    /// both sides of test pairs, `test.*`, and of held-out text, `valid.txt`.
    ///
    /// # Errors
    /// A folder that has none of these files.
    pub fn add(&mut self, folder: &Path) -> Result<()> {
        let mut found = false;
        let listed = std::fs::read_dir(folder)
            .with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in listed {
            let path = entry?.path();
            match path.file_name().and_then(|name| name.to_str()) {
                Some("examples.jsonl") => {
                    found = true;
                    self.add_examples(&path)?;
                }
                Some(name) if name.starts_with("test.") || name == "valid.txt" => {
                    found = true;
                    let mut lines = Lines::open(&path)?;
                    while let Some(line) = lines.next_line()? {
                        self.add_sentence(line);
                    }
                }
                _ => {}
            }
        }
        ensure!(
            found,
            "{} has nothing that is kept for evaluation",
            folder.display()
        );
        Ok(())
    }

    pub fn add_sentence(&mut self, sentence: &str) {
        self.sentences.insert(sentence_key(sentence));
    }

    fn add_examples(&mut self, examples: &Path) -> Result<()> {
        for example in nli::read_examples(examples)? {
            self.add_sentence(&example.premise);
            self.add_sentence(&example.hypothesis);
            self.pairs
                .insert(pair_key(&example.premise, &example.hypothesis));
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.sentences.is_empty()
    }

    pub fn has_sentence(&self, sentence: &str) -> bool {
        !self.is_empty() && self.has_sentence_key(sentence_key(sentence))
    }

    /// By a sentence's [`sentence_key`].
    pub fn has_sentence_key(&self, key: u128) -> bool {
        self.sentences.contains(&key)
    }

    pub fn has_pair(&self, premise: &str, hypothesis: &str) -> bool {
        !self.is_empty() && self.pairs.contains(&pair_key(premise, hypothesis))
    }
}
