//! Likeness of words by the input embeddings of a pretrained model: of translations, and of words that people have rated.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::tokenizer::{Tokenizer, UNKNOWN};
use crate::metrics::{WORD_SIMILARITY_TASK, WORD_TRANSLATION_TASK};
use crate::model::Model;
use crate::probes::word_embeddings::{
    Embeddings, INPUT_EMBEDDINGS, SameTokens, TokenPair, WordVectors, likeness, rated,
};
use crate::stages::measured::{self, MeasuredSet};
use crate::stages::word_pairs::{self, WordPair};
use crate::stages::{Context, divergence};

pub const NAME: &str = "word_embeddings";
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The language of the first words.
    pub source: String,
    /// Each has an input `dictionary:<language>`.
    pub dictionaries: Vec<String>,
    /// Each has an input `similarity:<language>`.
    pub similarity: Vec<String>,
    pub words: WordVectors,
    pub same_tokens: SameTokens,
}

/// Inputs: `tokenizer`, `pretrain` and pairs of words.
pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    divergence::refuse_diverged(context, "pretrain")?;
    let tokenizer = Tokenizer::load(context.input("tokenizer")?)?;
    let model = Model::load(&context.input("pretrain")?.join("model.safetensors"))?;
    let embeddings = Embeddings::of(&model, settings.words)?;
    let total = settings.dictionaries.len() + settings.similarity.len();
    context.progress.begin(total as u64, 0, "languages");
    let (mut sets, mut facts) = (Vec::new(), BTreeMap::new());
    let kinds = [
        (WORD_TRANSLATION_TASK, "dictionary", &settings.dictionaries),
        (WORD_SIMILARITY_TASK, "similarity", &settings.similarity),
    ];
    let mut lists = Vec::new();
    for (task, input, languages) in kinds {
        for language in languages {
            let pairs = word_pairs::read(context.input(&format!("{input}:{language}"))?)?;
            lists.push((task, input, language, pairs));
        }
    }
    // A word has one number in all lists, whatever has a vector, so that variants and languages are compared word by word.
    let all = lists.iter().flat_map(|(.., pairs)| pairs);
    let all: BTreeSet<&str> = all.map(|(first, ..)| first.as_str()).collect();
    let numbers: BTreeMap<&str, u32> = all.into_iter().zip(0..).collect();
    for (task, input, language, pairs) in &lists {
        let found = Found::of(
            pairs,
            settings,
            (task, language),
            &tokenizer,
            &embeddings,
            &numbers,
        )?;
        ensure!(
            found.words.len() > 1,
            "of {} pairs of words in {}-{language} only {} have vectors; set word_embeddings.words: mean_of_tokens, or supply other words",
            pairs.len(),
            settings.source,
            found.words.len()
        );
        let measurements = match *task {
            WORD_TRANSLATION_TASK => likeness(&found.words, &found.clusters, &embeddings),
            _ => rated(&found.words, &found.ratings, &embeddings),
        };
        facts.insert(
            format!("{input} {}-{language}", settings.source),
            json!({"pairs": pairs.len(), "pairs_with_vectors": measurements.len()}),
        );
        sets.push(MeasuredSet {
            task: (*task).to_owned(),
            regime: INPUT_EMBEDDINGS.to_owned(),
            language: (*language).clone(),
            items: found.clusters.into_iter().zip(measurements).collect(),
        });
        context.progress.advance(sets.len() as u64, language);
        context.stop_if_asked()?;
    }
    measured::write(context.output, &sets)?;
    Ok(json!(facts))
}

/// The pairs whose words both have a vector.
#[derive(Default)]
struct Found {
    words: Vec<TokenPair>,
    ratings: Vec<f64>,
    /// Pairs with the same first word are one cluster.
    clusters: Vec<u32>,
}

impl Found {
    fn of(
        pairs: &[WordPair],
        settings: &Settings,
        (task, language): (&str, &str),
        tokenizer: &Tokenizer,
        embeddings: &Embeddings,
        numbers: &BTreeMap<&str, u32>,
    ) -> Result<Self> {
        let mut ours = tokenizer.encoder(&settings.source)?;
        let mut theirs = tokenizer.encoder(language)?;
        let known = |tokens: &[u32]| !tokens.contains(&UNKNOWN) && embeddings.has(tokens);
        let counts = |one: &[u32], two: &[u32]| {
            let translations = task == WORD_TRANSLATION_TASK;
            !(translations && settings.same_tokens == SameTokens::LeaveOut && one == two)
        };
        let mut found: Vec<(u32, TokenPair, f64)> = Vec::new();
        for (first, second, rating) in pairs {
            let (mut one, mut two) = (Vec::new(), Vec::new());
            ours.encode(first, &mut one);
            theirs.encode(second, &mut two);
            if known(&one) && known(&two) && counts(&one, &two) {
                let number = numbers.get(first.as_str()).copied().unwrap_or_default();
                found.push((number, (one, two), rating.unwrap_or(0.0)));
            }
        }
        // Pairs of one word stand together.
        found.sort_by_key(|(cluster, ..)| *cluster);
        let mut all = Self::default();
        for (cluster, words, rating) in found {
            all.clusters.push(cluster);
            all.words.push(words);
            all.ratings.push(rating);
        }
        Ok(all)
    }
}
