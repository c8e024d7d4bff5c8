//! From text to token ids and back: byte-pair encoding, one vocabulary for all languages or one for each.
//!
//! BPE (Sennrich et al. 2016, arXiv 1508.07909) is learnt by the `tokenizers` crate; encoding is ours, with a cache, and
//! equals the crate's.
//!
//! ```text
//! words        text -> words, counts          training    counts of all languages -> vocabularies
//! vocabulary   words -> ids
//! ```

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;
use crate::problem::Problem;

mod training;
mod vocabulary;
mod words;

pub use training::train;
pub use vocabulary::Encoder;
pub use words::{LanguageCounts, WordCounts, count_file, words};

use vocabulary::{StoredVocabulary, Vocabulary};
use words::WORD_START;

/// `<s>`, unused by XLM's objectives.
pub const START: u32 = 0;
/// `</s>`: begins and ends every sentence in XLM.
pub const END_OF_SENTENCE: u32 = 1;
/// `<pad>`: never in a packed batch; its embedding is zero.
pub const PADDING: u32 = 2;
/// `<unk>`: a character outside the alphabet.
pub const UNKNOWN: u32 = 3;
/// How [`UNKNOWN`] is written in decoded text.
pub const UNKNOWN_TEXT: &str = "<unk>";
/// `<special1>`: hides a token in masked language modelling.
pub const MASK: u32 = 5;
/// The first id that is not special (XLM: dictionary.py, four named and ten numbered specials).
pub const FIRST_WORD: u32 = 14;
const SPECIALS: [&str; FIRST_WORD as usize] = [
    "<s>",
    "</s>",
    "<pad>",
    UNKNOWN_TEXT,
    "<special0>",
    "<special1>",
    "<special2>",
    "<special3>",
    "<special4>",
    "<special5>",
    "<special6>",
    "<special7>",
    "<special8>",
    "<special9>",
];

/// The YAML section `tokenizer:`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizerSettings {
    /// Byte-pair encoding.
    pub bpe: BpeSettings,
    /// One vocabulary for all languages, or one for each.
    pub sharing: Sharing,
    /// Languages weigh in training with probability proportional to (share of sentences)^exponent (XLM: 0.5). No default:
    /// papers and code differ.
    pub sampling_exponent: f64,
    /// Share of each language's running characters that the alphabet covers; rarer characters become `<unk>`.
    /// SentencePiece's default, 0.9995.
    #[serde(default = "default_character_coverage")]
    pub character_coverage: f64,
    /// Share of `<unk>` among the tokens of a corpus above which the study stops: the tokenizer does not fit the text.
    /// Our default, 0.05: fifty times what the default alphabet leaves out.
    #[serde(default = "default_maximum_unknown_rate")]
    pub maximum_unknown_rate: f64,
}

fn default_character_coverage() -> f64 {
    0.9995
}

fn default_maximum_unknown_rate() -> f64 {
    0.05
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BpeSettings {
    /// Entries in all, special tokens included; with separate vocabularies each language gets an equal share,
    /// so that models of both kinds have the same number of parameters.
    pub vocabulary: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// One vocabulary, learnt on all languages together.
    Shared,
    /// Each language has entries of its own, even for equal strings; only the special tokens are common.
    Separate,
}

impl TokenizerSettings {
    /// Problems with ranges: field, what is wrong, what would be right.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |field: &str, what: String, remedy: &str| {
            problems.push(Problem::new(field, what, remedy));
        };
        if !(FIRST_WORD as usize + 2..=1 << 24).contains(&self.bpe.vocabulary) {
            add(
                "bpe.vocabulary",
                format!("a vocabulary of {} entries", self.bpe.vocabulary),
                "choose between 16 and 16777216",
            );
        }
        if !(0.0..=1.0).contains(&self.sampling_exponent) {
            add(
                "sampling_exponent",
                format!("{} is out of range", self.sampling_exponent),
                "choose between 0 (uniform) and 1 (proportional)",
            );
        }
        if !(self.character_coverage > 0.5 && self.character_coverage <= 1.0) {
            add(
                "character_coverage",
                format!("{} is out of range", self.character_coverage),
                "choose above 0.5 and at most 1",
            );
        }
        if !(0.0..=1.0).contains(&self.maximum_unknown_rate) {
            add(
                "maximum_unknown_rate",
                format!("{} is out of range", self.maximum_unknown_rate),
                "choose between 0 and 1",
            );
        }
        problems
    }
}

/// A trained tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    stored: Stored,
    vocabularies: Vec<Vocabulary>,
}

/// `tokenizer.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    /// Languages in the order of their embeddings.
    languages: Vec<String>,
    sharing: Sharing,
    /// Share of `<unk>` above which a corpus is refused.
    maximum_unknown_rate: f64,
    /// One, or one per language.
    vocabularies: Vec<StoredVocabulary>,
    /// Expected occurrences of each id in the weighted training text.
    counts: Vec<u64>,
    /// Of entries and merges.
    fingerprint: Fingerprint,
}

impl Tokenizer {
    /// From what training found. `words` are what each vocabulary was learnt from.
    fn learnt<'a>(
        languages: Vec<String>,
        settings: &TokenizerSettings,
        vocabularies: Vec<StoredVocabulary>,
        words: impl Iterator<Item = &'a WordCounts>,
    ) -> Result<Self> {
        let entries: usize = vocabularies
            .iter()
            .map(|vocabulary| vocabulary.entries.len())
            .sum();
        let mut stored = Stored {
            languages,
            sharing: settings.sharing,
            maximum_unknown_rate: settings.maximum_unknown_rate,
            fingerprint: Fingerprint::of(&vocabularies)?,
            vocabularies,
            counts: vec![0; FIRST_WORD as usize + entries],
        };
        let ready = ready(&stored)?;
        let mut ids = Vec::new();
        for (vocabulary, words) in ready.iter().zip(words) {
            for (word, count) in words {
                ids.clear();
                let (starts, word) = word
                    .strip_prefix(WORD_START)
                    .map_or((false, word.as_str()), |word| (true, word));
                vocabulary.encode_word(starts, word, &mut ids);
                for id in ids.iter().filter(|id| **id >= FIRST_WORD) {
                    stored.counts[*id as usize] += count;
                }
            }
        }
        Ok(Self {
            stored,
            vocabularies: ready,
        })
    }

    /// Reads `tokenizer.json` of an artifact.
    ///
    /// # Errors
    /// When the file is missing, is no tokenizer, or its entries and merges are not those that were written.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let stored: Stored = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a tokenizer of this program", path.display()))?;
        let vocabularies =
            ready(&stored).with_context(|| format!("{} is damaged", path.display()))?;
        Ok(Self {
            stored,
            vocabularies,
        })
    }

    /// Writes `tokenizer.json`.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join("tokenizer.json");
        fs::write(&path, serde_json::to_vec(&self.stored)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Number of ids, special tokens included.
    pub fn vocabulary(&self) -> usize {
        self.stored.counts.len()
    }

    /// In the order of their embeddings.
    pub fn languages(&self) -> &[String] {
        &self.stored.languages
    }

    /// Place of a language among the embeddings.
    pub fn language_id(&self, language: &str) -> Result<u32> {
        let position = self
            .stored
            .languages
            .iter()
            .position(|known| known == language);
        let position = position.with_context(|| {
            format!(
                "the tokenizer does not know language `{language}`; it knows {}",
                self.stored.languages.join(", ")
            )
        })?;
        Ok(position as u32)
    }

    /// Ids of the entries that a language may use.
    pub fn language_range(&self, language: &str) -> Result<Range<u32>> {
        let vocabulary = &self.stored.vocabularies[self.vocabulary_of(language)?];
        Ok(vocabulary.first..vocabulary.first + vocabulary.entries.len() as u32)
    }

    /// Expected occurrences of each id in the weighted training text; none of special tokens.
    pub fn counts(&self) -> &[u64] {
        &self.stored.counts
    }

    /// Of entries and merges: two tokenizers of one fingerprint encode alike.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.stored.fingerprint
    }

    /// Share of `<unk>` among the tokens of a corpus above which the corpus is refused.
    pub fn maximum_unknown_rate(&self) -> f64 {
        self.stored.maximum_unknown_rate
    }

    fn vocabulary_of(&self, language: &str) -> Result<usize> {
        let id = self.language_id(language)? as usize;
        Ok(if self.vocabularies.len() == 1 { 0 } else { id })
    }

    /// For encoding text of one language; remembers what it has met.
    pub fn encoder(&self, language: &str) -> Result<Encoder<'_>> {
        Ok(Encoder::new(
            &self.vocabularies[self.vocabulary_of(language)?],
        ))
    }

    /// The entry behind an id; special tokens by their name.
    pub fn entry(&self, id: u32) -> Option<&str> {
        if let Some(special) = SPECIALS.get(id as usize) {
            return Some(special);
        }
        self.stored.vocabularies.iter().find_map(|vocabulary| {
            let index = id.checked_sub(vocabulary.first)? as usize;
            vocabulary.entries.get(index).map(String::as_str)
        })
    }

    /// Text of token ids; words are separated by one space.
    pub fn decode(&self, ids: &[u32]) -> String {
        let text: String = ids.iter().filter_map(|id| self.entry(*id)).collect();
        text.replace(WORD_START, " ").trim_start().to_owned()
    }
}

/// Vocabularies ready to encode.
///
/// # Errors
/// When what is stored does not fit together.
fn ready(stored: &Stored) -> Result<Vec<Vocabulary>> {
    let expected = match stored.sharing {
        Sharing::Shared => 1,
        Sharing::Separate => stored.languages.len(),
    };
    let found = stored.vocabularies.len();
    ensure!(
        found == expected && found > 0,
        "it has {found} vocabularies where its languages need {expected}"
    );
    let mut first = FIRST_WORD as usize;
    for vocabulary in &stored.vocabularies {
        ensure!(
            vocabulary.first as usize == first,
            "the ids of its vocabularies are not consecutive"
        );
        first += vocabulary.entries.len();
    }
    ensure!(
        stored.counts.len() == first,
        "it counts {} ids but has {first}",
        stored.counts.len()
    );
    ensure!(
        Fingerprint::of(&stored.vocabularies)? == stored.fingerprint,
        "its entries and merges are not those that were written"
    );
    stored.vocabularies.iter().map(Vocabulary::new).collect()
}
