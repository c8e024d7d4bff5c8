//! Text of one language: read, piped, cleared of evaluation sentences, split into training and validation.
//!
//! Writes `train.txt` and `valid.txt`: a sentence per line, a blank line between documents.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Context;
use super::inputs::{self, evaluation_text};
use crate::data::files::{FileFormat, LineCounts, Lines};
use crate::data::input::{self, InputFile};
use crate::data::leakage::{EvaluationText, sentence_key};
use crate::data::source::TextInput;
use crate::data::split::{self, Part};
use crate::data::tables;
use crate::data::text::TextPipeline;

pub const NAME: &str = "monolingual";
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub language: String,
    pub input: TextInput,
    pub text_pipeline: TextPipeline,
    /// At most so many sentences for training; all without it.
    pub limit: Option<u64>,
    pub validation_sentences: u64,
    /// The data seed of the study.
    pub seed: u64,
}

/// Consecutive lines of a document that go to one part together, at most (our choice: about eight streams of 256 tokens).
///
/// Differs: XLM shuffles the lines of a corpus and takes its last 10,000 for validation and test. Here the order of a
/// document is kept, so that streams read as text, and validation takes runs of lines, so that its streams do as well.
const BLOCK: u32 = 64;

/// Sentences between two looks at the stop flag.
const STRIDE: u64 = 1 << 15;

/// Inputs: `synthesize` where the text is synthetic, and `exclude:...` with the evaluation sets (`examples.jsonl`) of the
/// language, whose sentences are removed. Facts count everything that was met.
pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    let here = || format!("monolingual text in {}", settings.language);
    let files = input_files(settings, context).with_context(here)?;
    let evaluation = evaluation_text(context)?;
    context.progress.begin(0, 0, "sentences");
    let spool = context.checkpoints.join("sentences.txt");
    let mut gathered = Gathered::new(&spool, settings.text_pipeline, &evaluation)?;
    for file in &files {
        read(&file.path, &settings.input, &mut gathered, context).with_context(here)?;
        gathered.end_document();
    }
    let gathered = gathered.finish()?;
    if gathered.keys.is_empty() {
        let names: Vec<String> = files
            .iter()
            .map(|file| format!("`{}`", file.path.display()))
            .collect();
        bail!(
            "{} is empty: there is no sentence in {}; {} are in an evaluation set and the text pipeline leaves nothing of {}; supply other text",
            here(),
            names.join(" and "),
            gathered.evaluation_sentences,
            gathered.emptied
        );
    }
    let lengths: Vec<u32> = gathered.blocks.iter().map(|block| block.lines).collect();
    let parts = split::assign(
        &lengths,
        ("data.monolingual_validation", settings.validation_sentences),
        settings.limit,
        settings.seed,
        &format!("monolingual split {}", settings.language),
    )
    .with_context(here)?;
    write(&spool, &gathered.blocks, &parts, context)?;
    std::fs::remove_file(&spool).with_context(|| format!("cannot remove `{}`", spool.display()))?;

    let count = |wanted| parts.iter().filter(|&&part| part == wanted).count();
    let overlap = Overlap::of(&gathered.keys, &parts);
    Ok(json!({
        "sentences": gathered.keys.len(),
        "train_sentences": count(Part::Train),
        "validation_sentences": count(Part::Validation),
        "unused_sentences": count(Part::Unused),
        "documents": gathered.blocks.iter().filter(|block| block.opens_document).count(),
        "bytes": gathered.bytes,
        "duplicate_sentences": overlap.duplicates,
        "validation_sentences_also_in_train": overlap.shared,
        "evaluation_sentences_removed": gathered.evaluation_sentences,
        "sentences_emptied_by_the_pipeline": gathered.emptied,
        "lines": gathered.lines.lines,
        "byte_order_marks": gathered.lines.byte_order_marks,
        "carriage_returns": gathered.lines.carriage_returns,
        "sources": files.iter().map(|file| &file.record).collect::<Vec<_>>(),
    }))
}

/// What duplicates there are, across parts and within.
pub(super) struct Overlap {
    /// Lines that occurred before.
    pub duplicates: usize,
    /// Lines of the validation part that the training part has as well.
    pub shared: usize,
}

impl Overlap {
    pub fn of(keys: &[u128], parts: &[Part]) -> Self {
        let mut sorted: Vec<(u128, Part)> =
            keys.iter().copied().zip(parts.iter().copied()).collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        let (mut duplicates, mut shared) = (0, 0);
        for same in sorted.chunk_by(|one, other| one.0 == other.0) {
            duplicates += same.len() - 1;
            if same.iter().any(|(_, part)| *part == Part::Train) {
                shared += same
                    .iter()
                    .filter(|(_, part)| *part == Part::Validation)
                    .count();
            }
        }
        Self { duplicates, shared }
    }
}

fn input_files(settings: &Settings, context: &Context) -> Result<Vec<InputFile>> {
    match &settings.input {
        TextInput::Files { .. } => input::local(context.files, "file"),
        TextInput::Hub { files, .. } => inputs::from_hub(files, context),
        TextInput::Synthetic => {
            let name = format!("monolingual/{}.txt", settings.language);
            Ok(vec![input::of_path(
                &context.input("synthesize")?.join(name),
            )?])
        }
    }
}

/// Lines go one by one; a table's row with several lines is a document.
fn read(path: &Path, input: &TextInput, gathered: &mut Gathered, context: &Context) -> Result<()> {
    let (format, column) = match input {
        TextInput::Files { format, column } | TextInput::Hub { format, column, .. } => {
            (*format, column.as_deref())
        }
        TextInput::Synthetic => (FileFormat::Text, None),
    };
    if format == FileFormat::Text {
        let mut lines = Lines::open(path)?;
        while let Some(line) = lines.next_line()? {
            gathered.line(line, context)?;
        }
        gathered.lines.add(&lines.counts());
        return Ok(());
    }
    let column = column.context("the files are tables; name the column with the text")?;
    let counts = tables::for_each_row(path, format, &[column], &mut |_, row| {
        let document = row[0].trim().contains('\n');
        if document {
            gathered.end_document();
        }
        for line in row[0].lines() {
            gathered.line(line, context)?;
        }
        if document {
            gathered.end_document();
        }
        Ok(())
    })?;
    gathered.lines.add(&counts);
    Ok(())
}

/// A run of lines that stay together.
struct Block {
    lines: u32,
    opens_document: bool,
}

/// Sentences on their way to the spool file, and what is counted on the way.
struct Gathered<'a> {
    spool: BufWriter<File>,
    text_pipeline: TextPipeline,
    evaluation: &'a EvaluationText,
    blocks: Vec<Block>,
    between_documents: bool,
    keys: Vec<u128>,
    bytes: u64,
    evaluation_sentences: u64,
    emptied: u64,
    lines: LineCounts,
}

impl<'a> Gathered<'a> {
    fn new(
        spool: &Path,
        text_pipeline: TextPipeline,
        evaluation: &'a EvaluationText,
    ) -> Result<Self> {
        let file =
            File::create(spool).with_context(|| format!("cannot write `{}`", spool.display()))?;
        Ok(Self {
            spool: BufWriter::new(file),
            text_pipeline,
            evaluation,
            blocks: Vec::new(),
            between_documents: true,
            keys: Vec::new(),
            bytes: 0,
            evaluation_sentences: 0,
            emptied: 0,
            lines: LineCounts::default(),
        })
    }

    fn line(&mut self, line: &str, context: &Context) -> Result<()> {
        let line = line.trim();
        if line.is_empty() {
            self.end_document();
            return Ok(());
        }
        let piped = self.text_pipeline.apply(line);
        let sentence = piped.trim();
        if sentence.is_empty() {
            self.emptied += 1;
            return Ok(());
        }
        let key = sentence_key(sentence);
        if self.evaluation.has_sentence_key(key) {
            self.evaluation_sentences += 1;
            return Ok(());
        }
        self.spool
            .write_all(sentence.as_bytes())
            .context("cannot write the spool file")?;
        self.spool
            .write_all(b"\n")
            .context("cannot write the spool file")?;
        self.bytes += sentence.len() as u64 + 1;
        self.keys.push(key);
        match self.blocks.last_mut() {
            Some(block) if block.lines < BLOCK && !self.between_documents => block.lines += 1,
            _ => self.blocks.push(Block {
                lines: 1,
                opens_document: self.between_documents,
            }),
        }
        self.between_documents = false;
        let sentences = self.keys.len() as u64;
        if sentences.is_multiple_of(STRIDE) {
            context.progress.advance(sentences, "");
            context.stop_if_asked()?;
        }
        Ok(())
    }

    fn end_document(&mut self) {
        self.between_documents = true;
    }

    fn finish(mut self) -> Result<Self> {
        self.spool.flush().context("cannot write the spool file")?;
        Ok(self)
    }
}

/// Sends the lines of the spool file to their parts, with a blank line wherever lines do not follow each other.
fn write(spool: &Path, blocks: &[Block], parts: &[Part], context: &Context) -> Result<()> {
    let mut train = Documents::create(&context.output.join("train.txt"))?;
    let mut validation = Documents::create(&context.output.join("valid.txt"))?;
    let mut lines = Lines::open(spool)?;
    let mut at = 0;
    for block in blocks {
        for within in 0..block.lines {
            let line = lines.next_line()?.context("the spool file lost a line")?;
            let opens_document = block.opens_document && within == 0;
            match parts[at] {
                Part::Train => train.write(at, line, opens_document)?,
                Part::Validation => validation.write(at, line, opens_document)?,
                Part::Unused => {}
            }
            at += 1;
        }
    }
    train.finish()?;
    validation.finish()
}

struct Documents {
    file: BufWriter<File>,
    /// The number that continues the document.
    next: Option<usize>,
}

impl Documents {
    fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Self {
            file: BufWriter::new(file),
            next: None,
        })
    }

    fn write(&mut self, number: usize, line: &str, opens_document: bool) -> Result<()> {
        let continues = self.next == Some(number) && !opens_document;
        if self.next.is_some() && !continues {
            self.file
                .write_all(b"\n")
                .context("cannot write the corpus")?;
        }
        self.file
            .write_all(line.as_bytes())
            .context("cannot write the corpus")?;
        self.file
            .write_all(b"\n")
            .context("cannot write the corpus")?;
        self.next = Some(number + 1);
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.file.flush().context("cannot write the corpus")
    }
}
