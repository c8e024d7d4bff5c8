//! Corpora as memory-mapped token files: written once, in parallel, read without copying.
//!
//! A part (`train`, `valid`) of a corpus is three little-endian files: `<part>.tokens` (u16, or u32 where the vocabulary
//! needs it), `<part>.sentences` (u64: where each sentence starts, and the end) and `<part>.documents` (u64: the sentence
//! that each document starts with); `<part>.json` says how many of each there are. Special tokens are not stored.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use memmap2::Mmap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::tokenizer::{Tokenizer, UNKNOWN};
use crate::kernels::Device;

/// Text encoded between two writes; a matter of memory only.
const CHUNKS_AT_ONCE: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Train,
    Valid,
}

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
        }
    }
}

/// What a token file holds; `<part>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusFacts {
    /// Bytes per token: 2 or 4.
    pub width: u64,
    pub tokens: u64,
    pub sentences: u64,
    pub documents: u64,
    /// Tokens that are `<unk>`.
    pub unknown: u64,
    pub words: u64,
    pub characters: u64,
}

/// One part of a corpus, memory-mapped.
#[derive(Debug)]
pub struct Corpus {
    facts: CorpusFacts,
    tokens: Option<Mmap>,
    sentences: Vec<u64>,
    documents: Vec<u64>,
}

/// Encodes the lines of a text file into `<folder>/<name>.*`. Blank lines end documents.
pub fn binarise(text: &Path, tokenizer: &Tokenizer, language: &str, folder: &Path, name: &str, device: &Device) -> Result<CorpusFacts> {
    let text = map_text(text)?;
    let width: u64 = if tokenizer.vocabulary() <= 1 << 16 { 2 } else { 4 };
    let mut tokens = create(folder, name, "tokens")?;
    let mut sentences = create(folder, name, "sentences")?;
    let mut documents = create(folder, name, "documents")?;
    let mut facts = CorpusFacts { width, tokens: 0, sentences: 0, documents: 0, unknown: 0, words: 0, characters: 0 };
    let mut new_document = true;
    for group in line_chunks(&text, 1 << 18).chunks(CHUNKS_AT_ONCE) {
        let encoded = in_parallel(device, group, |chunk| encode_chunk(chunk, tokenizer, language))?;
        for part in encoded {
            for length in &part.lengths {
                match length {
                    None => new_document = true,
                    Some(length) => {
                        if std::mem::take(&mut new_document) {
                            documents.write_all(&facts.sentences.to_le_bytes())?;
                            facts.documents += 1;
                        }
                        sentences.write_all(&facts.tokens.to_le_bytes())?;
                        facts.sentences += 1;
                        facts.tokens += length;
                    }
                }
            }
            facts.unknown += part.tokens.iter().filter(|token| **token == UNKNOWN).count() as u64;
            facts.words += part.words;
            facts.characters += part.characters;
            let bytes: Vec<u8> = if width == 2 {
                part.tokens.iter().flat_map(|token| (*token as u16).to_le_bytes()).collect()
            } else {
                part.tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
            };
            tokens.write_all(&bytes)?;
        }
    }
    sentences.write_all(&facts.tokens.to_le_bytes())?;
    for mut file in [tokens, sentences, documents] {
        file.flush().context("cannot write a token file; is the disk full?")?;
    }
    fs::write(folder.join(format!("{name}.json")), serde_json::to_vec_pretty(&facts)?)?;
    Ok(facts)
}

struct Encoded {
    tokens: Vec<u32>,
    /// Tokens of each line; `None` for a blank one.
    lengths: Vec<Option<u64>>,
    words: u64,
    characters: u64,
}

fn encode_chunk(chunk: &[u8], tokenizer: &Tokenizer, language: &str) -> Result<Encoded> {
    let mut encoder = tokenizer.encoder(language)?;
    let mut encoded = Encoded { tokens: Vec::with_capacity(chunk.len() / 3), lengths: Vec::new(), words: 0, characters: 0 };
    for line in lines(chunk) {
        let line = std::str::from_utf8(line).context("text that is not UTF-8 in an artifact")?;
        let before = encoded.tokens.len();
        encoded.words += encoder.encode(line, &mut encoded.tokens);
        encoded.characters += line.chars().count() as u64;
        let length = encoded.tokens.len() - before;
        encoded.lengths.push((length > 0).then_some(length as u64));
    }
    Ok(encoded)
}

fn create(folder: &Path, name: &str, kind: &str) -> Result<BufWriter<File>> {
    let path = folder.join(format!("{name}.{kind}"));
    Ok(BufWriter::new(File::create(&path).with_context(|| format!("cannot create {}", path.display()))?))
}

impl Corpus {
    /// Opens a part of a corpus.
    ///
    /// # Errors
    /// When a file is missing, or its size is not what the part's facts say.
    pub fn open(folder: &Path, part: Part) -> Result<Self> {
        Self::open_named(folder, part.name())
    }

    fn open_named(folder: &Path, name: &str) -> Result<Self> {
        let path = |kind: &str| folder.join(format!("{name}.{kind}"));
        let text = fs::read(path("json")).with_context(|| format!("cannot read {}", path("json").display()))?;
        let facts: CorpusFacts = serde_json::from_slice(&text).with_context(|| format!("{} does not describe a corpus", path("json").display()))?;
        ensure!(matches!(facts.width, 2 | 4), "{} asks for {} bytes per token; a corpus has 2 or 4", path("json").display(), facts.width);
        let tokens = map(&path("tokens"), facts.tokens * facts.width)?;
        let sentences = read_u64s(&path("sentences"), facts.sentences + 1)?;
        let documents = read_u64s(&path("documents"), facts.documents)?;
        ensure!(
            sentences.windows(2).all(|pair| pair[0] <= pair[1]) && sentences.last() == Some(&facts.tokens),
            "{} is damaged: its offsets do not match its tokens",
            path("sentences").display()
        );
        ensure!(documents.iter().all(|start| *start < facts.sentences), "{} is damaged", path("documents").display());
        Ok(Self { facts, tokens, sentences, documents })
    }

    pub fn facts(&self) -> &CorpusFacts {
        &self.facts
    }

    pub fn sentences(&self) -> usize {
        self.facts.sentences as usize
    }

    pub fn tokens(&self) -> u64 {
        self.facts.tokens
    }

    /// The sentence that each document starts with.
    pub fn document_starts(&self) -> &[u64] {
        &self.documents
    }

    /// Appends the tokens of sentence `index`, without special tokens.
    pub fn sentence(&self, index: usize, into: &mut Vec<u32>) {
        let (start, end) = (self.sentences[index] as usize, self.sentences[index + 1] as usize);
        let width = self.facts.width as usize;
        let bytes = self.tokens.as_ref().map_or(&[][..], |tokens| &tokens[start * width..end * width]);
        if width == 2 {
            into.extend(bytes.chunks_exact(2).map(|pair| u32::from(u16::from_le_bytes([pair[0], pair[1]]))));
        } else {
            into.extend(bytes.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]])));
        }
    }

    /// Number of tokens of sentence `index`.
    pub fn sentence_length(&self, index: usize) -> usize {
        (self.sentences[index + 1] - self.sentences[index]) as usize
    }
}

/// Sentences of two languages, row by row translations of each other.
#[derive(Debug)]
pub struct ParallelCorpus {
    first: Corpus,
    second: Corpus,
    languages: (String, String),
}

impl ParallelCorpus {
    pub fn open(folder: &Path, languages: (&str, &str), part: Part) -> Result<Self> {
        let side = |language: &str| Corpus::open_named(folder, &side_name(part, language));
        let (first, second) = (side(languages.0)?, side(languages.1)?);
        ensure!(
            first.sentences() == second.sentences(),
            "{}: {} sentences in {} but {} in {}",
            folder.display(),
            first.sentences(),
            languages.0,
            second.sentences(),
            languages.1
        );
        Ok(Self { first, second, languages: (languages.0.to_owned(), languages.1.to_owned()) })
    }

    pub fn languages(&self) -> (&str, &str) {
        (&self.languages.0, &self.languages.1)
    }

    pub fn pairs(&self) -> usize {
        self.first.sentences()
    }

    pub fn sides(&self) -> (&Corpus, &Corpus) {
        (&self.first, &self.second)
    }

    /// Appends the tokens of both sentences of pair `index`.
    pub fn pair(&self, index: usize, first: &mut Vec<u32>, second: &mut Vec<u32>) {
        self.first.sentence(index, first);
        self.second.sentence(index, second);
    }

    /// Number of tokens of pair `index`, both sides together.
    pub fn pair_length(&self, index: usize) -> usize {
        self.first.sentence_length(index) + self.second.sentence_length(index)
    }
}

/// Name of one side's files.
pub fn side_name(part: Part, language: &str) -> String {
    format!("{}.{language}", part.name())
}

/// A text file in memory; empty files are empty text.
pub struct MappedText(Option<Mmap>);

impl std::ops::Deref for MappedText {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}

pub fn map_text(path: &Path) -> Result<MappedText> {
    let bytes = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    Ok(MappedText(map(path, bytes)?))
}

/// Maps a file that must have a given size.
fn map(path: &Path, bytes: u64) -> Result<Option<Mmap>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let found = file.metadata()?.len();
    if found != bytes {
        bail!("{} has {found} bytes where {bytes} were written; remove the artifact with `xlt store verify --remove` and run again", path.display());
    }
    if bytes == 0 {
        return Ok(None);
    }
    // SAFETY: artifacts are never changed once they are finished, and the store verifies them before use.
    Ok(Some(unsafe { Mmap::map(&file) }.with_context(|| format!("cannot map {}", path.display()))?))
}

fn read_u64s(path: &Path, count: u64) -> Result<Vec<u64>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(bytes.len() as u64 == count * 8, "{} has {} bytes where {} were written", path.display(), bytes.len(), count * 8);
    Ok(bytes.chunks_exact(8).map(|eight| u64::from_le_bytes(std::array::from_fn(|index| eight[index]))).collect())
}

/// Cuts text into pieces of whole lines of about `size` bytes.
pub fn line_chunks(text: &[u8], size: usize) -> Vec<&[u8]> {
    let mut chunks = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = match rest.get(size..).and_then(|tail| tail.iter().position(|byte| *byte == b'\n')) {
            Some(newline) => size + newline + 1,
            None => rest.len(),
        };
        let (chunk, after) = rest.split_at(end);
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

/// Lines without their ends; the last line needs none.
pub fn lines(chunk: &[u8]) -> impl Iterator<Item = &[u8]> {
    let chunk = chunk.strip_suffix(b"\n").unwrap_or(chunk);
    chunk.split(|byte| *byte == b'\n')
}

/// Applies `work` to every item on the threads of a device; results in the order of the items.
pub fn in_parallel<T: Sync, R: Send>(device: &Device, items: &[T], work: impl Fn(&T) -> Result<R> + Sync + Send) -> Result<Vec<R>> {
    let threads = device.threads().max(1);
    if threads == 1 || items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads")?;
    pool.install(|| items.par_iter().map(work).collect())
}
