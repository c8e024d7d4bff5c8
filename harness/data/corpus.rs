//! Corpora as memory-mapped token files: written once, in parallel, read without copying.
//!
//! A part (`train`, `valid`) of a corpus is three little-endian files: `<part>.tokens` (u16, or u32 where the vocabulary
//! needs it), `<part>.sentences` (u64: where each sentence starts, and the end) and `<part>.documents` (u64: the sentence
//! that each document starts with); `<part>.json` says how many of each there are. Special tokens are not stored.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use crate::data::tokenizer::{Encoder, Tokenizer, UNKNOWN};
use crate::fingerprint::Fingerprint;
use crate::kernels::Device;

/// Bytes of text that a thread encodes at a time, and how many such pieces between two writes; matters of memory only.
const CHUNK: usize = 1 << 18;
const CHUNKS_AT_ONCE: usize = 64;

const UNWRITTEN: &str = "cannot write a token file; is the disk full?";

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
    /// Fingerprint of the tokenizer that wrote it.
    pub tokenizer: Fingerprint,
    /// Bytes per token: 2 or 4.
    pub width: u64,
    pub tokens: u64,
    pub sentences: u64,
    pub documents: u64,
    /// Tokens that are `<unk>`.
    pub unknown: u64,
    pub words: u64,
    /// Without white space.
    pub characters: u64,
}

impl CorpusFacts {
    /// Share of `<unk>` among the tokens, 0 to 1.
    pub fn unknown_rate(&self) -> f64 {
        self.unknown as f64 / self.tokens.max(1) as f64
    }

    pub fn tokens_per_word(&self) -> f64 {
        self.tokens as f64 / self.words.max(1) as f64
    }
}

/// One part of a corpus, memory-mapped.
#[derive(Debug)]
pub struct Corpus {
    facts: CorpusFacts,
    tokens: Option<Mmap>,
    sentences: Vec<u64>,
    documents: Vec<u64>,
}

/// What lines are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// Sentences; blank lines end documents.
    Documents,
    /// One side of sentence pairs: every line counts, a blank one is a sentence without tokens.
    Aligned,
}

/// Encodes the lines of a text file into `<folder>/<name>.*` on all threads of a device. `watch` is told now and then how many
/// bytes are done; an error of its ends the work.
///
/// # Errors
/// Text that is not UTF-8, a language that the tokenizer does not know, files that cannot be read or written.
pub fn binarise(
    (path, kind): (&Path, Lines),
    (tokenizer, language): (&Tokenizer, &str),
    (folder, name): (&Path, &str),
    device: &Device,
    watch: &dyn Fn(u64) -> Result<()>,
) -> Result<CorpusFacts> {
    let text = map_text(path)?;
    let mut workers = Vec::new();
    for _ in 0..device.threads().max(1) {
        workers.push(tokenizer.encoder(language)?);
    }
    let mut writer = Writer::new(folder, name, tokenizer)?;
    let mut done = 0;
    for group in line_chunks(&text, CHUNK).chunks(CHUNKS_AT_ONCE) {
        let encoded = in_parallel(&mut workers, group, |encoder, chunk| {
            encode_chunk(chunk, kind, encoder, writer.facts.width)
        })
        .with_context(|| format!("cannot encode {}", path.display()))?;
        for part in &encoded {
            writer.add(part)?;
        }
        done += group.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        watch(done)?;
    }
    writer.finish(folder, name)
}

struct Encoded {
    /// Little-endian.
    tokens: Vec<u8>,
    /// Tokens of each line; `None` where a document ends.
    lengths: Vec<Option<u32>>,
    unknown: u64,
    words: u64,
    characters: u64,
}

fn encode_chunk(chunk: &[u8], kind: Lines, encoder: &mut Encoder, width: u64) -> Result<Encoded> {
    let text = utf8(chunk)?;
    let mut ids = Vec::with_capacity(chunk.len() / 3);
    let mut lengths = Vec::with_capacity(chunk.len() / 64);
    let mut words = 0;
    for line in text.lines() {
        let before = ids.len();
        words += encoder.encode(line, &mut ids);
        let length = (ids.len() - before) as u32;
        lengths.push((length > 0 || kind == Lines::Aligned).then_some(length));
    }
    let tokens = match width {
        2 => ids
            .iter()
            .flat_map(|id| (*id as u16).to_le_bytes())
            .collect(),
        _ => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
    };
    Ok(Encoded {
        tokens,
        lengths,
        unknown: ids.iter().filter(|id| **id == UNKNOWN).count() as u64,
        words,
        characters: text
            .chars()
            .filter(|character| !character.is_whitespace())
            .count() as u64,
    })
}

/// The files of a part under way.
struct Writer {
    facts: CorpusFacts,
    tokens: BufWriter<File>,
    sentences: BufWriter<File>,
    documents: BufWriter<File>,
    opens_document: bool,
}

impl Writer {
    fn new(folder: &Path, name: &str, tokenizer: &Tokenizer) -> Result<Self> {
        let facts = CorpusFacts {
            tokenizer: tokenizer.fingerprint().clone(),
            width: if tokenizer.vocabulary() <= 1 << 16 {
                2
            } else {
                4
            },
            tokens: 0,
            sentences: 0,
            documents: 0,
            unknown: 0,
            words: 0,
            characters: 0,
        };
        Ok(Self {
            facts,
            tokens: create(folder, name, "tokens")?,
            sentences: create(folder, name, "sentences")?,
            documents: create(folder, name, "documents")?,
            opens_document: true,
        })
    }

    fn add(&mut self, part: &Encoded) -> Result<()> {
        let facts = &mut self.facts;
        for length in &part.lengths {
            let Some(length) = length else {
                self.opens_document = true;
                continue;
            };
            if std::mem::take(&mut self.opens_document) {
                self.documents
                    .write_all(&facts.sentences.to_le_bytes())
                    .context(UNWRITTEN)?;
                facts.documents += 1;
            }
            self.sentences
                .write_all(&facts.tokens.to_le_bytes())
                .context(UNWRITTEN)?;
            facts.sentences += 1;
            facts.tokens += u64::from(*length);
        }
        facts.unknown += part.unknown;
        facts.words += part.words;
        facts.characters += part.characters;
        self.tokens.write_all(&part.tokens).context(UNWRITTEN)
    }

    fn finish(mut self, folder: &Path, name: &str) -> Result<CorpusFacts> {
        self.sentences
            .write_all(&self.facts.tokens.to_le_bytes())
            .context(UNWRITTEN)?;
        for mut file in [self.tokens, self.sentences, self.documents] {
            file.flush().context(UNWRITTEN)?;
        }
        fs::write(
            folder.join(format!("{name}.json")),
            serde_json::to_vec_pretty(&self.facts)?,
        )
        .context(UNWRITTEN)?;
        Ok(self.facts)
    }
}

fn create(folder: &Path, name: &str, kind: &str) -> Result<BufWriter<File>> {
    let path = folder.join(format!("{name}.{kind}"));
    Ok(BufWriter::new(File::create(&path).with_context(|| {
        format!("cannot create {}", path.display())
    })?))
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
        let text = fs::read(path("json"))
            .with_context(|| format!("cannot read {}", path("json").display()))?;
        let facts: CorpusFacts = serde_json::from_slice(&text)
            .with_context(|| format!("{} does not describe a corpus", path("json").display()))?;
        ensure!(
            matches!(facts.width, 2 | 4),
            "{} asks for {} bytes per token; a corpus has 2 or 4",
            path("json").display(),
            facts.width
        );
        let tokens = map(&path("tokens"), facts.tokens.saturating_mul(facts.width))?;
        let sentences = read_u64s(&path("sentences"), facts.sentences.saturating_add(1))?;
        let documents = read_u64s(&path("documents"), facts.documents)?;
        ensure!(
            sentences.windows(2).all(|pair| pair[0] <= pair[1])
                && sentences.last() == Some(&facts.tokens),
            "{} is damaged: its offsets do not match its tokens",
            path("sentences").display()
        );
        ensure!(
            documents.iter().all(|start| *start < facts.sentences),
            "{} is damaged",
            path("documents").display()
        );
        Ok(Self {
            facts,
            tokens,
            sentences,
            documents,
        })
    }

    pub fn facts(&self) -> &CorpusFacts {
        &self.facts
    }

    /// # Errors
    /// When another tokenizer wrote the corpus: its ids mean other words.
    pub fn ensure_written_with(&self, tokenizer: &Tokenizer) -> Result<()> {
        let (wrote, asked) = (&self.facts.tokenizer, tokenizer.fingerprint());
        ensure!(
            wrote == asked,
            "the corpus was encoded with tokenizer {}, not {}",
            wrote.short(),
            asked.short()
        );
        Ok(())
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
        let (start, end) = (
            self.sentences[index] as usize,
            self.sentences[index + 1] as usize,
        );
        let width = self.facts.width as usize;
        let bytes = self
            .tokens
            .as_ref()
            .map_or(&[][..], |tokens| &tokens[start * width..end * width]);
        if width == 2 {
            into.extend(
                bytes
                    .chunks_exact(2)
                    .map(|pair| u32::from(u16::from_le_bytes([pair[0], pair[1]]))),
            );
        } else {
            into.extend(
                bytes
                    .chunks_exact(4)
                    .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]])),
            );
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
        Ok(Self {
            first,
            second,
            languages: (languages.0.to_owned(), languages.1.to_owned()),
        })
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
    let bytes = fs::metadata(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .len();
    Ok(MappedText(map(path, bytes)?))
}

/// Maps a file that must have a given size.
fn map(path: &Path, bytes: u64) -> Result<Option<Mmap>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    ensure_size(path, file.metadata()?.len(), bytes)?;
    if bytes == 0 {
        return Ok(None);
    }
    // SAFETY: artifacts are never changed once they are finished, and the store verifies them before use.
    Ok(Some(unsafe { Mmap::map(&file) }.with_context(|| {
        format!("cannot map {}", path.display())
    })?))
}

fn ensure_size(path: &Path, found: u64, written: u64) -> Result<()> {
    ensure!(
        found == written,
        "{} has {found} bytes where {written} were written; the artifact is damaged, `xlt store verify` shows which",
        path.display()
    );
    Ok(())
}

fn read_u64s(path: &Path, count: u64) -> Result<Vec<u64>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure_size(path, bytes.len() as u64, count.saturating_mul(8))?;
    Ok(bytes
        .chunks_exact(8)
        .map(|eight| u64::from_le_bytes(std::array::from_fn(|index| eight[index])))
        .collect())
}

/// Cuts text into pieces of whole lines of about `size` bytes.
pub fn line_chunks(text: &[u8], size: usize) -> Vec<&[u8]> {
    let mut chunks = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = match rest
            .get(size..)
            .and_then(|tail| tail.iter().position(|byte| *byte == b'\n'))
        {
            Some(newline) => size + newline + 1,
            None => rest.len(),
        };
        let (chunk, after) = rest.split_at(end);
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

/// Text of an artifact.
pub fn utf8(chunk: &[u8]) -> Result<&str> {
    std::str::from_utf8(chunk).context("text that is not UTF-8; the stage that wrote it would have refused it, so the file is damaged")
}

/// Applies `work` to every item, one thread for each worker; results in the order of the items. Which worker gets which item
/// is left to chance, so that a result must not depend on what a worker did before.
pub fn in_parallel<W: Send, T: Sync, R: Send>(
    workers: &mut [W],
    items: &[T],
    work: impl Fn(&mut W, &T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    if let ([worker], _) | ([worker, ..], [] | [_]) = (&mut *workers, items) {
        return items.iter().map(|item| work(worker, item)).collect();
    }
    let next = AtomicUsize::new(0);
    let take = |worker: &mut W| -> Vec<(usize, Result<R>)> {
        let mut results = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else {
                return results;
            };
            results.push((index, work(worker, item)));
        }
    };
    let mut results: Vec<(usize, Result<R>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .iter_mut()
            .map(|worker| scope.spawn(|| take(worker)))
            .collect();
        let joined = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        joined.flatten().collect()
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
