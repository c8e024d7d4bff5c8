//! From text to token ids and back: byte-pair encoding, one vocabulary for all languages or one for each.
//!
//! BPE (Sennrich et al. 2016, arXiv 1508.07909) is trained by the `tokenizers` crate; encoding is ours, with a cache of words,
//! and equals the crate's.
//! Differs: XLM splits with Moses and marks word ends as fastBPE does; here text is split at white space and around
//! punctuation, and `▁` marks where a word starts, so that decoding gives the text back up to white space.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{AddedToken, Model as _, Trainer as _};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::fingerprint::Fingerprint;
use crate::kernels::Device;
use crate::problem::Problem;

/// `<s>`, unused by XLM's objectives.
pub const START: u32 = 0;
/// `</s>`: begins and ends every sentence in XLM.
pub const END_OF_SENTENCE: u32 = 1;
/// `<pad>`: never in a packed batch; its embedding is zero.
pub const PADDING: u32 = 2;
/// `<unk>`: a character outside the alphabet.
pub const UNKNOWN: u32 = 3;
/// `<special1>`: hides a token in masked language modelling.
pub const MASK: u32 = 5;
/// The first id that is not special (XLM: dictionary.py, four named and ten numbered specials).
pub const FIRST_WORD: u32 = 14;
/// Marks the start of a word (U+2581).
const WORD_START: char = '▁';
/// Distinct words whose encoding a [`Encoder`] remembers; ours, a bound on memory.
const CACHED_WORDS: usize = 1 << 18;
/// Running words that BPE training sees at most, over all languages; ours, where more changes few merges.
const TRAINING_WORDS: f64 = 8e6;

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
    /// Share of running characters that the alphabet covers; rarer characters become `<unk>`. SentencePiece's default, 0.9995.
    #[serde(default = "default_character_coverage")]
    pub character_coverage: f64,
}

fn default_character_coverage() -> f64 {
    0.9995
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BpeSettings {
    /// Entries in all, special tokens included; with separate vocabularies each language gets an equal share.
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
            add("bpe.vocabulary", format!("a vocabulary of {} entries", self.bpe.vocabulary), "choose between 16 and 16777216");
        }
        if !(0.0..=1.0).contains(&self.sampling_exponent) {
            add("sampling_exponent", format!("{} is out of range", self.sampling_exponent), "choose between 0 (uniform) and 1 (proportional)");
        }
        if !(self.character_coverage > 0.5 && self.character_coverage <= 1.0) {
            add("character_coverage", format!("{} is out of range", self.character_coverage), "choose above 0.5 and at most 1");
        }
        problems
    }
}

/// How often each word occurs: what BPE learns from. A word carries its mark of a word's start.
pub type WordCounts = BTreeMap<String, u64>;

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
    /// One, or one per language.
    vocabularies: Vec<StoredVocabulary>,
    /// Expected occurrences of each id in the weighted training text.
    counts: Vec<u64>,
    /// Of entries and merges.
    fingerprint: Fingerprint,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredVocabulary {
    /// Id of the first entry.
    first: u32,
    /// Entries after the specials.
    entries: Vec<String>,
    /// Pairs of ids of this vocabulary, first merge first.
    merges: Vec<(u32, u32)>,
}

/// A vocabulary ready to encode.
#[derive(Debug, Clone)]
struct Vocabulary {
    characters: HashMap<char, u32>,
    /// Pair -> (rank, merged id).
    merges: HashMap<(u32, u32), (u32, u32)>,
}

/// Splits text into words: at white space and around every character that is no letter, mark or number. The flag says
/// whether white space (or the start of the text) came before.
pub fn words(text: &str) -> impl Iterator<Item = (bool, &str)> {
    text.split_whitespace().flat_map(|chunk| {
        let mut rest = chunk;
        let mut starts = true;
        std::iter::from_fn(move || {
            let first = rest.chars().next()?;
            let end = if is_word_character(first) {
                rest.find(|c| !is_word_character(c)).unwrap_or(rest.len())
            } else {
                first.len_utf8()
            };
            let (word, after) = rest.split_at(end);
            rest = after;
            Some((std::mem::replace(&mut starts, false), word))
        })
    })
}

fn is_word_character(c: char) -> bool {
    // Zero-width joiners shape letters in Indic and Arabic scripts.
    c.is_alphanumeric() || matches!(c, '\u{200c}' | '\u{200d}') || (!c.is_ascii() && c.general_category_group() == GeneralCategoryGroup::Mark)
}

/// Adds the words of a text to `counts`.
pub fn count_words(text: &str, counts: &mut HashMap<String, u64>) {
    let mut marked = String::new();
    for (starts, word) in words(text) {
        marked.clear();
        if starts {
            marked.push(WORD_START);
        }
        marked.push_str(word);
        match counts.get_mut(&marked) {
            Some(count) => *count += 1,
            None => {
                counts.insert(marked.clone(), 1);
            }
        }
    }
}

/// The words of one language's training text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LanguageCounts {
    pub words: WordCounts,
    pub sentences: u64,
}

/// Learns a tokenizer. `languages` are in the order of the study; all have text.
///
/// # Errors
/// When the vocabulary is smaller than the alphabet, with the size that is needed; when a language has no text.
pub fn train(settings: &TokenizerSettings, languages: &[(String, LanguageCounts)]) -> Result<Tokenizer> {
    for (language, counts) in languages {
        ensure!(!counts.words.is_empty(), "language `{language}` has no text to learn a vocabulary from; check data.monolingual");
    }
    let weighted = weigh(settings.sampling_exponent, languages);
    let names: Vec<String> = languages.iter().map(|(language, _)| language.clone()).collect();
    let groups: Vec<(String, usize, WordCounts)> = match settings.sharing {
        Sharing::Shared => {
            let mut all = WordCounts::new();
            for counts in weighted {
                for (word, count) in counts {
                    *all.entry(word).or_default() += count;
                }
            }
            vec![(names.join(", "), settings.bpe.vocabulary - FIRST_WORD as usize, all)]
        }
        Sharing::Separate => {
            let share = (settings.bpe.vocabulary - FIRST_WORD as usize) / languages.len();
            names.iter().zip(weighted).map(|(language, counts)| (language.clone(), share, counts)).collect()
        }
    };
    let mut vocabularies = Vec::new();
    let mut first = FIRST_WORD;
    for (of, size, counts) in &groups {
        let vocabulary = learn(counts, *size, settings.character_coverage, first, of)?;
        first += vocabulary.entries.len() as u32;
        vocabularies.push(vocabulary);
    }
    let fingerprint = Fingerprint::of(&vocabularies)?;
    let stored = Stored { languages: names, sharing: settings.sharing, vocabularies, counts: Vec::new(), fingerprint };
    let mut tokenizer = Tokenizer::from_stored(stored)?;
    let mut counts = vec![0u64; tokenizer.vocabulary()];
    for (index, (_, _, words)) in groups.iter().enumerate() {
        for (word, count) in words {
            for id in tokenizer.vocabularies[index].encode_word(word.chars()) {
                counts[id as usize] += count;
            }
        }
    }
    tokenizer.stored.counts = counts;
    Ok(tokenizer)
}

/// Word counts as if sentences had been drawn with q_i = p_i^a / sum_j p_j^a (Lample & Conneau 2019, section 3.1), in expectation.
/// Differs: counts are weighted where XLM draws sentences, which gives the same text on average and no sampling noise.
fn weigh(exponent: f64, languages: &[(String, LanguageCounts)]) -> Vec<WordCounts> {
    let total: f64 = languages.iter().map(|(_, counts)| counts.sentences as f64).sum();
    let shares: Vec<f64> = languages.iter().map(|(_, counts)| counts.sentences as f64 / total).collect();
    let norm: f64 = shares.iter().map(|share| share.powf(exponent)).sum();
    let factors: Vec<f64> = shares.iter().map(|share| share.powf(exponent) / norm / share).collect();
    let running: f64 = languages
        .iter()
        .zip(&factors)
        .map(|((_, counts), factor)| factor * counts.words.values().sum::<u64>() as f64)
        .sum();
    let scale = (TRAINING_WORDS / running).min(1.0);
    languages
        .iter()
        .zip(&factors)
        .map(|((_, counts), factor)| {
            let weighted = counts.words.iter().map(|(word, count)| (word.clone(), (*count as f64 * factor * scale).round() as u64));
            weighted.filter(|(_, count)| *count > 0).collect()
        })
        .collect()
}

fn learn(counts: &WordCounts, size: usize, coverage: f64, first: u32, of: &str) -> Result<StoredVocabulary> {
    let alphabet = alphabet(counts, coverage);
    ensure!(
        alphabet.len() <= size,
        "the text of {of} has an alphabet of {} characters (at a coverage of {coverage}), but its vocabulary has room for {size}; raise tokenizer.bpe.vocabulary by {} or more, or lower tokenizer.character_coverage",
        alphabet.len(),
        alphabet.len() - size
    );
    let specials: Vec<AddedToken> = (0..FIRST_WORD).map(|id| AddedToken::from(format!("\u{0}{id}"), true)).collect();
    let mut trainer = BpeTrainer::builder()
        .vocab_size(size + FIRST_WORD as usize)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(specials)
        .build();
    // A character outside the alphabet cuts its word in two, so that it can be in no entry.
    let pieces: Vec<(&str, u64)> = counts
        .iter()
        .flat_map(|(word, count)| word.split(|c| !alphabet.contains_key(&c)).filter(|piece| !piece.is_empty()).map(move |piece| (piece, *count)))
        .collect();
    let by_number: Vec<String> = (0..pieces.len()).map(|index| index.to_string()).collect();
    trainer
        .feed(by_number.iter(), |number| {
            let (piece, count) = pieces[number.parse::<usize>()?];
            Ok(vec![piece.to_owned(); count as usize])
        })
        .map_err(|error| anyhow::anyhow!("cannot count words: {error}"))?;
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(|error| anyhow::anyhow!("cannot learn a vocabulary: {error}"))?;
    let shift = |id: u32| id - FIRST_WORD + first;
    let mut entries = vec![String::new(); model.get_vocab_size().saturating_sub(FIRST_WORD as usize)];
    for (entry, id) in model.get_vocab() {
        if id >= FIRST_WORD {
            entries[(id - FIRST_WORD) as usize] = entry;
        }
    }
    // The crate keeps merges in a map; its JSON lists them in order of rank.
    let json = serde_json::to_value(&model).context("the vocabulary cannot be written")?;
    let ids = model.get_vocab();
    let mut merges = Vec::new();
    for merge in json["merges"].as_array().context("the vocabulary has no merges")? {
        let (left, right) = match (merge.get(0), merge.get(1)) {
            (Some(left), Some(right)) => (left.as_str(), right.as_str()),
            _ => (None, None),
        };
        match (left.and_then(|left| ids.get(left)), right.and_then(|right| ids.get(right))) {
            (Some(left), Some(right)) => merges.push((shift(*left), shift(*right))),
            _ => bail!("the vocabulary has a merge of unknown entries"),
        }
    }
    Ok(StoredVocabulary { first, entries, merges })
}

/// The most frequent characters that cover a share of all running characters; ties by code point.
fn alphabet(counts: &WordCounts, coverage: f64) -> BTreeMap<char, u64> {
    let mut characters = BTreeMap::<char, u64>::new();
    for (word, count) in counts {
        for c in word.chars() {
            *characters.entry(c).or_default() += count;
        }
    }
    let total: u64 = characters.values().sum();
    let mut sorted: Vec<(char, u64)> = characters.into_iter().collect();
    sorted.sort_by_key(|(c, count)| (std::cmp::Reverse(*count), *c));
    let mut covered = 0;
    sorted
        .into_iter()
        .take_while(|(_, count)| {
            let wanted = (covered as f64) < coverage * total as f64;
            covered += count;
            wanted
        })
        .collect()
}

impl Vocabulary {
    fn new(stored: &StoredVocabulary) -> Result<Self> {
        let id_of = |index: usize| stored.first + index as u32;
        let by_entry: HashMap<&str, u32> = stored.entries.iter().enumerate().map(|(index, entry)| (entry.as_str(), id_of(index))).collect();
        let entry = |id: u32| {
            let index = id.checked_sub(stored.first).map(|index| index as usize);
            index.and_then(|index| stored.entries.get(index)).context("a merge of an entry that does not exist")
        };
        let mut merges = HashMap::with_capacity(stored.merges.len());
        for (rank, (left, right)) in stored.merges.iter().enumerate() {
            let merged = format!("{}{}", entry(*left)?, entry(*right)?);
            let id = by_entry.get(merged.as_str()).with_context(|| format!("a merge into `{merged}`, which is no entry"))?;
            merges.insert((*left, *right), (rank as u32, *id));
        }
        let characters = stored
            .entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| {
                let mut characters = entry.chars();
                Some((characters.next()?, characters.next(), id_of(index)))
            })
            .filter(|(_, second, _)| second.is_none())
            .map(|(c, _, id)| (c, id))
            .collect();
        Ok(Self { characters, merges })
    }

    /// Ids of one word: characters, then the merge of lowest rank (leftmost among equals) until none applies.
    fn encode_word(&self, word: impl Iterator<Item = char>) -> Vec<u32> {
        let mut ids: Vec<u32> = word.map(|c| self.characters.get(&c).copied().unwrap_or(UNKNOWN)).collect();
        loop {
            let best = ids
                .windows(2)
                .enumerate()
                .filter_map(|(at, pair)| self.merges.get(&(pair[0], pair[1])).map(|(rank, id)| (*rank, at, *id)))
                .min();
            let Some((_, at, id)) = best else { return ids };
            ids[at] = id;
            ids.remove(at + 1);
        }
    }
}

impl Tokenizer {
    fn from_stored(stored: Stored) -> Result<Self> {
        let expected = match stored.sharing {
            Sharing::Shared => 1,
            Sharing::Separate => stored.languages.len(),
        };
        ensure!(stored.vocabularies.len() == expected && expected > 0, "the tokenizer has the wrong number of vocabularies");
        let vocabularies = stored.vocabularies.iter().map(Vocabulary::new).collect::<Result<_>>()?;
        Ok(Self { stored, vocabularies })
    }

    /// Reads `tokenizer.json` of an artifact.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let stored: Stored = serde_json::from_str(&text).with_context(|| format!("{} is not a tokenizer of this program", path.display()))?;
        Self::from_stored(stored).with_context(|| format!("{} is damaged", path.display()))
    }

    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join("tokenizer.json");
        fs::write(&path, serde_json::to_vec(&self.stored)?).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Number of ids, special tokens included.
    pub fn vocabulary(&self) -> usize {
        FIRST_WORD as usize + self.stored.vocabularies.iter().map(|vocabulary| vocabulary.entries.len()).sum::<usize>()
    }

    /// In the order of their embeddings.
    pub fn languages(&self) -> &[String] {
        &self.stored.languages
    }

    pub fn language_id(&self, language: &str) -> Result<u32> {
        let position = self.stored.languages.iter().position(|known| known == language);
        let position = position.with_context(|| format!("the tokenizer does not know language `{language}`; it knows {}", self.stored.languages.join(", ")))?;
        Ok(position as u32)
    }

    /// Ids of the entries that a language may use.
    pub fn language_range(&self, language: &str) -> Result<Range<u32>> {
        let vocabulary = &self.stored.vocabularies[self.vocabulary_of(language)?];
        Ok(vocabulary.first..vocabulary.first + vocabulary.entries.len() as u32)
    }

    /// Expected occurrences of each id in the weighted training text.
    pub fn counts(&self) -> &[u64] {
        &self.stored.counts
    }

    /// Of entries and merges: two tokenizers of one fingerprint encode alike.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.stored.fingerprint
    }

    fn vocabulary_of(&self, language: &str) -> Result<usize> {
        let id = self.language_id(language)? as usize;
        Ok(if self.vocabularies.len() == 1 { 0 } else { id })
    }

    /// A cache of words for encoding much text of one language.
    pub fn encoder(&self, language: &str) -> Result<Encoder<'_>> {
        Ok(Encoder {
            vocabulary: &self.vocabularies[self.vocabulary_of(language)?],
            starting: HashMap::new(),
            following: HashMap::new(),
        })
    }

    /// The entry behind an id; special tokens by their name.
    pub fn entry(&self, id: u32) -> Option<&str> {
        const SPECIALS: [&str; FIRST_WORD as usize] = [
            "<s>", "</s>", "<pad>", "<unk>", "<special0>", "<special1>", "<special2>", "<special3>", "<special4>", "<special5>",
            "<special6>", "<special7>", "<special8>", "<special9>",
        ];
        if id < FIRST_WORD {
            return SPECIALS.get(id as usize).copied();
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

/// Encodes text of one language, remembering words.
pub struct Encoder<'a> {
    vocabulary: &'a Vocabulary,
    starting: HashMap<Box<str>, Box<[u32]>>,
    following: HashMap<Box<str>, Box<[u32]>>,
}

impl Encoder<'_> {
    /// Appends the ids of `text`, without special tokens; returns how many words there were.
    pub fn encode(&mut self, text: &str, ids: &mut Vec<u32>) -> u64 {
        let mut count = 0;
        for (starts, word) in words(text) {
            count += 1;
            let cache = if starts { &mut self.starting } else { &mut self.following };
            if let Some(known) = cache.get(word) {
                ids.extend_from_slice(known);
                continue;
            }
            let mark = starts.then_some(WORD_START);
            let encoded = self.vocabulary.encode_word(mark.into_iter().chain(word.chars()));
            ids.extend_from_slice(&encoded);
            if cache.len() < CACHED_WORDS {
                cache.insert(word.into(), encoded.into());
            }
        }
        count
    }
}

/// Counts the words of a text file's lines on all threads of a device.
pub fn count_file(path: &Path, device: &Device) -> Result<LanguageCounts> {
    let text = super::corpus::map_text(path)?;
    let chunks = super::corpus::line_chunks(&text, 1 << 20);
    let parts = super::corpus::in_parallel(device, &chunks, |chunk| {
        let mut counts = HashMap::new();
        let mut sentences = 0u64;
        for line in super::corpus::lines(chunk) {
            let line = std::str::from_utf8(line).context("text that is not UTF-8 in an artifact")?;
            sentences += u64::from(!line.is_empty());
            count_words(line, &mut counts);
        }
        Ok((counts, sentences))
    })?;
    let mut all = LanguageCounts::default();
    for (counts, sentences) in parts {
        all.sentences += sentences;
        for (word, count) in counts {
            *all.words.entry(word).or_default() += count;
        }
    }
    Ok(all)
}
