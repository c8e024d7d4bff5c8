//! Where words begin and end, and how often each occurs.
//!
//! Differs: XLM splits text with Moses (and segmenters for Chinese, Japanese and Thai) and marks word ends as fastBPE does.
//! Here text is split at white space and around every character that is no letter, mark or number, and `▁` marks a word
//! that white space precedes, so that decoding gives the text back up to white space.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::path::Path;

use anyhow::Result;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::data::corpus;
use crate::kernels::Device;

/// Marks the start of a word (U+2581). In text it counts as white space.
pub(super) const WORD_START: char = '▁';
/// Characters of the longest word; what is longer is cut. Ours: it bounds the time of the merges in text without spaces,
/// and no entry of a vocabulary comes near it.
const LONGEST_WORD: usize = 64;
/// Bytes of text that a thread counts at a time; no matter for the result.
const CHUNK: usize = 1 << 20;

/// How often each word occurs: what BPE learns from. A word carries its mark of a word's start.
pub type WordCounts = BTreeMap<String, u64>;

/// The words of one language's training text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LanguageCounts {
    pub words: WordCounts,
    pub sentences: u64,
}

/// Splits text into words. The flag says whether white space (or the start of the text) comes before.
pub fn words(text: &str) -> impl Iterator<Item = (bool, &str)> {
    chunks(text).flat_map(words_of_chunk)
}

/// What stands between white space.
pub(super) fn chunks(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || c == WORD_START)
        .filter(|chunk| !chunk.is_empty())
}

/// The words of text without white space, and whether each is the first.
pub(super) fn words_of_chunk(chunk: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = chunk;
    let mut first = true;
    std::iter::from_fn(move || {
        let character = rest.chars().next()?;
        let end = if is_word_character(character) {
            let within = |(number, (_, c)): &(usize, (usize, char))| {
                *number < LONGEST_WORD && is_word_character(*c)
            };
            let last = rest.char_indices().enumerate().take_while(within).last();
            last.map_or(rest.len(), |(_, (at, c))| at + c.len_utf8())
        } else {
            character.len_utf8()
        };
        let (word, after) = rest.split_at(end);
        rest = after;
        Some((std::mem::replace(&mut first, false), word))
    })
}

fn is_word_character(c: char) -> bool {
    // Zero-width joiners shape letters in Indic and Arabic scripts.
    c.is_alphanumeric()
        || matches!(c, '\u{200c}' | '\u{200d}')
        || (!c.is_ascii() && c.general_category_group() == GeneralCategoryGroup::Mark)
}

/// Counts the words of a text file's lines on all threads of a device. Blank lines are no sentences.
pub fn count_file(path: &Path, device: &Device) -> Result<LanguageCounts> {
    let text = corpus::map_text(path)?;
    count_text(&text, device.threads())
}

fn count_text(text: &[u8], threads: usize) -> Result<LanguageCounts> {
    let mut workers: Vec<(HashMap<&str, u64, WordHash>, u64)> =
        vec![Default::default(); threads.max(1)];
    corpus::in_parallel(
        &mut workers,
        &corpus::line_chunks(text, CHUNK),
        |(counts, sentences), text| {
            for line in corpus::utf8(text)?.lines() {
                let mut blank = true;
                for chunk in chunks(line) {
                    *counts.entry(chunk).or_default() += 1;
                    blank = false;
                }
                *sentences += u64::from(!blank);
            }
            Ok(())
        },
    )?;
    let mut all = LanguageCounts::default();
    let mut marked = String::new();
    for (counts, sentences) in workers {
        all.sentences += sentences;
        for (chunk, count) in counts {
            for (starts, word) in words_of_chunk(chunk) {
                marked.clear();
                marked.extend(starts.then_some(WORD_START));
                marked.push_str(word);
                match all.words.get_mut(&marked) {
                    Some(known) => *known += count,
                    None => {
                        all.words.insert(marked.clone(), count);
                    }
                }
            }
        }
    }
    Ok(all)
}

/// A quick hash for maps that are only looked up in: nothing depends on its values or on the order of a map's entries.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WordHash;

pub(super) struct WordHasher(u64);

impl BuildHasher for WordHash {
    type Hasher = WordHasher;
    fn build_hasher(&self) -> WordHasher {
        WordHasher(0)
    }
}

impl WordHasher {
    /// Both halves of the product with 2^64 divided by the golden ratio (Fibonacci hashing), folded.
    fn mix(&mut self, value: u64) {
        let product =
            u128::from(self.0.rotate_left(23) ^ value) * u128::from(0x9E37_79B9_7F4A_7C15_u64);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            self.mix(u64::from_le_bytes(*eight));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    fn write_u8(&mut self, value: u8) {
        self.0 ^= u64::from(value);
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(bool, &str)> {
        words(text).collect()
    }

    #[test]
    fn text_is_split_at_white_space_and_around_punctuation() {
        assert_eq!(
            split(" Don't stop,\u{3000}now!"),
            [
                (true, "Don"),
                (false, "'"),
                (false, "t"),
                (true, "stop"),
                (false, ","),
                (true, "now"),
                (false, "!")
            ]
        );
        assert_eq!(split("한국어 2026년"), [(true, "한국어"), (true, "2026년")]);
        assert_eq!(split("a▁b"), [(true, "a"), (true, "b")]);
        assert_eq!(split(" \t"), []);
    }

    #[test]
    fn marks_and_joiners_stay_with_their_letters() {
        assert_eq!(
            split("हिन्दी क्‍ष e\u{301}"),
            [(true, "हिन्दी"), (true, "क्‍ष"), (true, "e\u{301}")]
        );
    }

    #[test]
    fn a_text_without_spaces_is_cut_into_words_of_bounded_length() {
        let text = "语".repeat(150);
        let lengths: Vec<usize> = words(&text).map(|(_, word)| word.chars().count()).collect();
        assert_eq!(lengths, [64, 64, 22]);
        assert_eq!(words(&text).filter(|(starts, _)| *starts).count(), 1);
    }

    #[test]
    fn counts_are_those_of_one_thread_for_any_number() -> Result<()> {
        let text = "b a, b\n\n  \nç a\n".repeat(200_000);
        let one = count_text(text.as_bytes(), 1)?;
        assert_eq!(one.sentences, 400_000);
        assert_eq!(one.words["▁b"], 400_000);
        assert_eq!(one.words[","], 200_000);
        assert_eq!(one, count_text(text.as_bytes(), 3)?);
        assert!(count_text(b"ok\n\xff\n", 1).is_err());
        Ok(())
    }
}
