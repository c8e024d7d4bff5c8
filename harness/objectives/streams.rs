//! Streams: a language's sentences behind each other, `</s>` before the first and after each, read in windows.
//!
//! XLM's StreamDataset (Lample and Conneau 2019, section 3.1; data/dataset.py) with windows of 256 tokens.

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BatchSettings;
use super::text::{Text, shares};
use crate::data::corpus::Corpus;
use crate::data::tokenizer::END_OF_SENTENCE;
use crate::random::Random;

/// Sentences between two entries of a stream's index; ours, a matter of memory only.
const BLOCK: usize = 64;

/// How many languages a batch holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LanguagesPerBatch {
    /// One, drawn for each update (XLM).
    #[default]
    One,
    /// All, each with its share of the sequences. Steadier where batches are few or small.
    All,
}

/// Where a window of a stream begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamStart {
    /// At any token (XLM).
    #[default]
    Anywhere,
    /// At the first sentence of a document. For short windows, which would else begin amid a sentence.
    Document,
}

/// Windows of one language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// Id of the language.
    pub language: u32,
    /// Token ids, two at least in each.
    pub rows: Vec<Vec<u32>>,
}

/// The streams of all languages.
pub struct Streams<'a> {
    languages: Vec<LanguageStreams<'a>>,
    shares: Vec<f64>,
    settings: BatchSettings,
}

struct LanguageStreams<'a> {
    name: &'a str,
    id: u32,
    train: Stream<'a>,
    valid: Stream<'a>,
}

impl<'a> Streams<'a> {
    pub fn open(text: &'a Text, settings: &BatchSettings) -> Result<Self> {
        ensure!(
            !text.languages.is_empty(),
            "there is no monolingual text to pretrain on; check data.monolingual"
        );
        for language in &text.languages {
            ensure!(
                settings.stream_start == StreamStart::Anywhere
                    || language.train.document_starts().len() > 1,
                "the text of `{}` has no blank lines between documents, so that every stream would be its beginning; set pretrain.stream_start: anywhere",
                language.name
            );
        }
        let sentences: Vec<usize> = text
            .languages
            .iter()
            .map(|language| language.train.sentences())
            .collect();
        let languages = text.languages.iter().map(|language| LanguageStreams {
            name: &language.name,
            id: language.id,
            train: Stream::new(&language.train),
            valid: Stream::new(&language.valid),
        });
        Ok(Self {
            languages: languages.collect(),
            shares: shares(&sentences, settings.sampling_exponent),
            settings: settings.clone(),
        })
    }

    /// The windows of an update, by language.
    pub fn training(&self, update: u64) -> Vec<Windows> {
        let sequences = (self.settings.tokens_per_batch / self.settings.stream_length).max(1);
        let mut random = Random::new(self.settings.seed, "languages of batches", update);
        let numbers = match self.settings.languages_per_batch {
            LanguagesPerBatch::One => {
                let drawn = random.weighted(&self.shares).unwrap_or(0);
                (0..self.languages.len())
                    .map(|index| if index == drawn { sequences } else { 0 })
                    .collect()
            }
            LanguagesPerBatch::All => divide(sequences, &self.shares, random.uniform()),
        };
        let mut random = Random::new(self.settings.seed, "windows of streams", update);
        let languages = self
            .languages
            .iter()
            .zip(numbers)
            .filter(|(_, number)| *number > 0);
        languages
            .map(|(language, number)| Windows {
                language: language.id,
                rows: (0..number)
                    .map(|_| language.train.draw(&self.settings, &mut random))
                    .collect(),
            })
            .collect()
    }

    /// Held-out windows, end to end: the language's name, and windows cut into batches.
    pub fn validation(&self) -> Vec<(&str, Vec<Windows>)> {
        let sequences = (self.settings.tokens_per_batch / self.settings.stream_length).max(1);
        let held_out = self.languages.iter().map(|language| {
            let rows = language.valid.windows(&self.settings);
            let batches = rows.chunks(sequences).map(|rows| Windows {
                language: language.id,
                rows: rows.to_vec(),
            });
            (language.name, batches.collect::<Vec<_>>())
        });
        held_out
            .filter(|(_, batches)| !batches.is_empty())
            .collect()
    }
}

/// Divides `number` among `shares` that sum to one: each gets its part rounded down or up, its part exactly in expectation
/// over `offset`, uniform in 0..1 (systematic sampling: Madow 1949).
fn divide(number: usize, shares: &[f64], offset: f64) -> Vec<usize> {
    let mut given = vec![0; shares.len()];
    let mut language = 0;
    let mut until = shares.first().copied().unwrap_or(0.0);
    for index in 0..number {
        let point = (index as f64 + offset) / number as f64;
        while point >= until && language + 1 < shares.len() {
            language += 1;
            until += shares[language];
        }
        given[language] += 1;
    }
    given
}

/// One corpus read as a stream. Place 0 is `</s>`; sentence i and its `</s>` follow those before it.
struct Stream<'a> {
    corpus: &'a Corpus,
    /// Place of the first token of every [`BLOCK`]th sentence.
    blocks: Vec<usize>,
    /// Number of places.
    length: usize,
}

impl<'a> Stream<'a> {
    fn new(corpus: &'a Corpus) -> Self {
        let mut blocks = Vec::with_capacity(corpus.sentences() / BLOCK + 1);
        let mut place = 1;
        for sentence in 0..corpus.sentences() {
            if sentence.is_multiple_of(BLOCK) {
                blocks.push(place);
            }
            place += corpus.sentence_length(sentence) + 1;
        }
        Self {
            corpus,
            blocks,
            length: place,
        }
    }

    /// A window drawn at random.
    fn draw(&self, settings: &BatchSettings, random: &mut Random) -> Vec<u32> {
        match settings.stream_start {
            StreamStart::Anywhere => {
                let length = settings.stream_length.min(self.length);
                self.window_at(
                    random.below((self.length - length) as u64 + 1) as usize,
                    length,
                )
            }
            StreamStart::Document => {
                let documents = self.corpus.document_starts();
                let document = random.below(documents.len() as u64) as usize;
                self.window_of(documents[document] as usize, settings.stream_length)
            }
        }
    }

    /// Windows that do not overlap, from the beginning on.
    fn windows(&self, settings: &BatchSettings) -> Vec<Vec<u32>> {
        let length = settings.stream_length;
        let rows = match settings.stream_start {
            StreamStart::Anywhere => (0..self.length)
                .step_by(length)
                .map(|place| self.window_at(place, length.min(self.length - place)))
                .collect(),
            StreamStart::Document => {
                let mut rows = Vec::new();
                let mut end = 0;
                for sentence in self.corpus.document_starts() {
                    // A window begins with the `</s>` before its first sentence.
                    let place = self.place(*sentence as usize) - 1;
                    if place >= end {
                        rows.push(self.window_of(*sentence as usize, length));
                        end = place + length;
                    }
                }
                rows
            }
        };
        rows.into_iter()
            .filter(|row: &Vec<u32>| row.len() > 1)
            .collect()
    }

    /// Place of a sentence's first token.
    fn place(&self, sentence: usize) -> usize {
        let first = sentence / BLOCK * BLOCK;
        let before: usize = (first..sentence)
            .map(|sentence| self.corpus.sentence_length(sentence) + 1)
            .sum();
        self.blocks[sentence / BLOCK] + before
    }

    /// `length` tokens from a place on; `place + length` lies within the stream.
    fn window_at(&self, place: usize, length: usize) -> Vec<u32> {
        let block = self
            .blocks
            .partition_point(|start| *start <= place)
            .saturating_sub(1);
        let mut sentence = block * BLOCK;
        let mut row = Vec::with_capacity(length);
        let mut skip = match self.blocks.get(block) {
            Some(start) if place >= *start => place - start,
            // Place 0, or a stream without sentences.
            _ => {
                row.push(END_OF_SENTENCE);
                0
            }
        };
        while sentence < self.corpus.sentences() && skip > self.corpus.sentence_length(sentence) {
            skip -= self.corpus.sentence_length(sentence) + 1;
            sentence += 1;
        }
        self.read_on(sentence, skip, length, row)
    }

    /// `</s>` and up to `length - 1` tokens from a sentence's beginning on.
    fn window_of(&self, sentence: usize, length: usize) -> Vec<u32> {
        let mut row = Vec::with_capacity(length);
        row.push(END_OF_SENTENCE);
        self.read_on(sentence, 0, length, row)
    }

    fn read_on(&self, first: usize, mut skip: usize, length: usize, mut row: Vec<u32>) -> Vec<u32> {
        let mut tokens = Vec::new();
        for sentence in first..self.corpus.sentences() {
            if row.len() >= length {
                break;
            }
            tokens.clear();
            self.corpus.sentence(sentence, &mut tokens);
            tokens.push(END_OF_SENTENCE);
            let missing = length - row.len();
            row.extend(tokens.iter().skip(std::mem::take(&mut skip)).take(missing));
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_rounds_parts_down_or_up_and_keeps_the_sum() {
        let shares = [0.5, 0.3, 0.2];
        let mut sums = [0; 3];
        for step in 0..100 {
            let parts = divide(32, &shares, f64::from(step) / 100.0);
            assert_eq!(parts.iter().sum::<usize>(), 32);
            for ((part, share), sum) in parts.iter().zip(shares).zip(&mut sums) {
                assert!((*part as f64 - 32.0 * share).abs() < 1.0, "{parts:?}");
                *sum += part;
            }
        }
        assert_eq!(sums, [1600, 960, 640]);
    }
}
