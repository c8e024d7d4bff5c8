//! Settings of what pretrained models are asked as they are: `language_modelling` and `word_embeddings`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::probes::perplexity::Unit;
use crate::probes::word_embeddings::{SameTokens, WordVectors};
use crate::problem::Problem;

/// The YAML section `language_modelling:`. The text is that of `data.monolingual_validation` without the sentences that the
/// language's training text has as well; sentence pairs that have one of them are not trained on, and nothing is chosen by it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LanguageModellingSettings {
    /// The languages whose held-out text is read.
    pub languages: Vec<String>,
    /// What perplexity is counted in; a regime each.
    #[serde(default = "every_unit")]
    pub units: Vec<Unit>,
}

fn every_unit() -> Vec<Unit> {
    Unit::ALL.to_vec()
}

/// The YAML section `word_embeddings:`. Words come from `data.dictionaries` and `data.word_similarity`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WordEmbeddingsSettings {
    /// The vector of a word that the tokenizer splits. No default: the paper does not say.
    pub words: WordVectors,
    /// What becomes of pairs with the same tokens on both sides, whose cosine is 1 whatever was learnt. No default: the paper does
    /// not say.
    pub same_tokens: SameTokens,
    /// The languages whose dictionary with the source language is looked up; all targets unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dictionaries: Option<Vec<String>>,
    /// The languages whose words beside those of the source language people have rated.
    #[serde(default)]
    pub similarity: Vec<String>,
}

impl LanguageModellingSettings {
    pub fn validate(&self, languages: &[&str]) -> Vec<Problem> {
        let mut problems = listed("languages", &self.languages, languages);
        if self.languages.is_empty() {
            problems.push(Problem::new(
                "languages",
                "no languages",
                format!("name one of {}", languages.join(", ")),
            ));
        }
        for (index, unit) in self.units.iter().enumerate() {
            if self.units[..index].contains(unit) {
                problems.push(Problem::new(
                    &format!("units.{index}"),
                    format!("`{}` a second time", unit.name()),
                    "name each unit once",
                ));
            }
        }
        if self.units.is_empty() {
            problems.push(Problem::new(
                "units",
                "no units",
                "name token, word or character, or leave the line out",
            ));
        }
        problems
    }
}

impl WordEmbeddingsSettings {
    /// The languages whose dictionaries are looked up, of a study's targets.
    pub fn dictionary_languages<'a>(&'a self, targets: &'a [String]) -> &'a [String] {
        self.dictionaries.as_deref().unwrap_or(targets)
    }

    pub fn validate(&self, targets: &[&str]) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(languages) = &self.dictionaries {
            problems.extend(listed("dictionaries", languages, targets));
            if languages.is_empty() && self.similarity.is_empty() {
                problems.push(Problem::new(
                    "dictionaries",
                    "no languages",
                    "name one, or leave the line out for all targets",
                ));
            }
        }
        problems.extend(listed("similarity", &self.similarity, targets));
        problems
    }
}

/// Names of a list that are not among the known ones, or come twice.
fn listed(field: &str, names: &[String], known: &[&str]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let field = format!("{field}.{index}");
        if names[..index].contains(name) {
            problems.push(Problem::new(
                &field,
                format!("`{name}` a second time"),
                "name each language once",
            ));
        }
        if !known.contains(&name.as_str()) {
            problems.push(Problem::new(
                &field,
                format!("the language `{name}`, which is none of the study's here"),
                format!("choose among {}", known.join(", ")),
            ));
        }
    }
    problems
}
