//! One vocabulary of byte-pair encoding: its alphabet and merges, and the encoding of words.

use std::collections::HashMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::UNKNOWN;
use super::words::{WORD_START, WordHash, chunks, words_of_chunk};

/// Stretches between white space that an [`Encoder`] remembers, and the bytes of the longest; ours, bounds on memory.
const CACHED: usize = 1 << 19;
const LONGEST_CACHED: usize = 64;
/// Rank of a pair that does not merge.
const NEVER: u32 = u32::MAX;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredVocabulary {
    /// Id of the first entry.
    pub first: u32,
    /// Entries after the specials.
    pub entries: Vec<String>,
    /// Pairs of ids, first merge first.
    pub merges: Vec<(u32, u32)>,
}

/// A vocabulary ready to encode.
#[derive(Debug, Clone)]
pub(super) struct Vocabulary {
    characters: HashMap<char, u32, WordHash>,
    /// Pair of ids (left in the upper half) -> (rank, merged id).
    merges: HashMap<u64, (u32, u32), WordHash>,
}

/// A symbol of a word under way, and what it would become together with the next one.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    id: u32,
    rank: u32,
    merged: u32,
}

impl Vocabulary {
    /// # Errors
    /// A merge of, or into, an entry that does not exist.
    pub fn new(stored: &StoredVocabulary) -> Result<Self> {
        let id_of = |index: usize| stored.first + index as u32;
        let by_entry: HashMap<&str, u32> = stored
            .entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (entry.as_str(), id_of(index)))
            .collect();
        let entry = |id: u32| {
            let index = id.checked_sub(stored.first).map(|index| index as usize);
            index
                .and_then(|index| stored.entries.get(index))
                .context("a merge of an entry that does not exist")
        };
        let mut merges = HashMap::with_capacity_and_hasher(stored.merges.len(), WordHash);
        for (rank, (left, right)) in stored.merges.iter().enumerate() {
            let merged = format!("{}{}", entry(*left)?, entry(*right)?);
            let id = by_entry
                .get(merged.as_str())
                .with_context(|| format!("a merge into `{merged}`, which is no entry"))?;
            merges.insert(pair(*left, *right), (rank as u32, *id));
        }
        let mut characters = HashMap::with_hasher(WordHash);
        for (index, entry) in stored.entries.iter().enumerate() {
            let mut all = entry.chars();
            if let (Some(only), None) = (all.next(), all.next()) {
                characters.insert(only, id_of(index));
            }
        }
        Ok(Self { characters, merges })
    }

    /// Appends the ids of one word: its characters, then the merge of lowest rank, leftmost among equals, until none
    /// applies (Sennrich et al. 2016).
    pub fn encode_word(&self, starts: bool, word: &str, ids: &mut Vec<u32>) {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(word.len() + 1);
        for character in starts.then_some(WORD_START).into_iter().chain(word.chars()) {
            let id = self.characters.get(&character).copied().unwrap_or(UNKNOWN);
            symbols.push(Symbol {
                id,
                rank: NEVER,
                merged: 0,
            });
        }
        for at in 0..symbols.len() {
            self.rank(&mut symbols, at);
        }
        while let Some((at, best)) = symbols
            .iter()
            .enumerate()
            .min_by_key(|(_, symbol)| symbol.rank)
            && best.rank != NEVER
        {
            symbols[at].id = best.merged;
            symbols.remove(at + 1);
            self.rank(&mut symbols, at);
            if at > 0 {
                self.rank(&mut symbols, at - 1);
            }
        }
        ids.extend(symbols.iter().map(|symbol| symbol.id));
    }

    /// Looks up what the symbol at `at` and the next one merge into.
    fn rank(&self, symbols: &mut [Symbol], at: usize) {
        let merge = symbols
            .get(at + 1)
            .and_then(|next| self.merges.get(&pair(symbols[at].id, next.id)));
        (symbols[at].rank, symbols[at].merged) = merge.copied().unwrap_or((NEVER, 0));
    }
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// Encodes text of one language, remembering what stands between white space.
pub struct Encoder<'a> {
    vocabulary: &'a Vocabulary,
    /// Where the ids are in `ids`, how many, and how many words they are.
    known: HashMap<Box<str>, (u32, u16, u16), WordHash>,
    ids: Vec<u32>,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(vocabulary: &'a Vocabulary) -> Self {
        Self {
            vocabulary,
            known: HashMap::with_hasher(WordHash),
            ids: Vec::new(),
        }
    }

    /// Appends the ids of `text`, without special tokens; returns how many words there were.
    pub fn encode(&mut self, text: &str, ids: &mut Vec<u32>) -> u64 {
        let mut words = 0;
        for chunk in chunks(text) {
            if let Some((at, length, count)) = self.known.get(chunk) {
                ids.extend_from_slice(&self.ids[*at as usize..][..usize::from(*length)]);
                words += u64::from(*count);
                continue;
            }
            let before = ids.len();
            let mut count = 0;
            for (starts, word) in words_of_chunk(chunk) {
                self.vocabulary.encode_word(starts, word, ids);
                count += 1;
            }
            words += u64::from(count);
            if chunk.len() <= LONGEST_CACHED && self.known.len() < CACHED {
                // At most 64 bytes and a mark each: 65 ids, and 2^19 times as many are far below 2^32.
                self.known.insert(
                    chunk.into(),
                    (self.ids.len() as u32, (ids.len() - before) as u16, count),
                );
                self.ids.extend_from_slice(&ids[before..]);
            }
        }
        words
    }
}
