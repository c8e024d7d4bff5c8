//! Sentence pairs of two languages: read, piped, cleared of empty sides and evaluation sentences, split.
//!
//! Writes `train.<first>`, `train.<second>`, `valid.<first>` and `valid.<second>`, aligned line by line; of a test set
//! `test.<first>` and `test.<second>`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Context;
use super::inputs::{self, evaluation_text};
use crate::data::files::{LineCounts, Lines};
use crate::data::input::{self, InputFile, SourceRecord};
use crate::data::leakage::{EvaluationText, pair_key};
use crate::data::source::{ParallelInput, ParallelLayout};
use crate::data::split::{self, Part};
use crate::data::tables;
use crate::data::text::TextPipeline;

pub const NAME: &str = "parallel";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The languages in alphabetical order.
    pub first: String,
    pub second: String,
    /// Pairs to train on; `None` where a study only validates.
    pub input: Option<ParallelInput>,
    /// Pairs to validate with, all of them, in place of `validation_pairs` of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ParallelInput>,
    pub text_pipeline: TextPipeline,
    /// At most so many pairs for training; all without it.
    pub limit: Option<u64>,
    pub validation_pairs: u64,
    #[serde(default, skip_serializing_if = "Use::is_training")]
    pub used_for: Use,
    /// The data seed of the study.
    pub seed: u64,
}

/// What sentence pairs are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// `train` and `valid`, drawn at random.
    #[default]
    Training,
    /// `test`, all of them in their order.
    Test,
}

impl Use {
    /// The stage's `VERSION`, one for each use: what one writes changes without the other, and most of a store depends on test sets.
    pub fn version(self) -> u32 {
        match self {
            Self::Training => 2,
            Self::Test => 1,
        }
    }

    fn is_training(&self) -> bool {
        *self == Self::Training
    }
}

/// Pairs between two looks at the stop flag.
const STRIDE: u64 = 1 << 15;

/// Inputs: `synthesize` where the text is synthetic, and `exclude:...` with the evaluation sets of both languages: a pair
/// with one of their sentences on either side is removed. Validation pairs are drawn one by one, as XLM draws them; a pair that
/// has a sentence of theirs on either side is not trained on. Differs: XLM leaves such pairs in the training text.
pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    if settings.first >= settings.second {
        bail!(
            "a pair's languages come in alphabetical order, not {}-{}",
            settings.first,
            settings.second
        );
    }
    let here = || format!("parallel text in {}-{}", settings.first, settings.second);
    let evaluation = evaluation_text(context)?;
    let spool = context.checkpoints.join("pairs.tsv");
    let mut gathered = Gathered::new(&spool, settings.text_pipeline, &evaluation)?;
    let (mut sources, mut validation_sources) = (Vec::new(), Vec::new());
    if let Some(input) = &settings.input {
        let read = gathered.read((input, ""), settings, context);
        sources = read.with_context(here)?;
    }
    let of_input = gathered.keys.len();
    if let Some(input) = &settings.validation {
        let read = gathered.read((input, VALIDATION_FILES), settings, context);
        validation_sources = read.with_context(here)?;
    }
    let gathered = gathered.finish()?;
    let mut parts = match settings.used_for {
        Use::Training if of_input > 0 => split::assign(
            &vec![1; of_input],
            ("data.parallel_validation", settings.validation_pairs),
            settings.limit,
            settings.seed,
            &format!("parallel split {}-{}", settings.first, settings.second),
        )
        .with_context(here)?,
        _ => vec![Part::Train; of_input],
    };
    parts.resize(gathered.keys.len(), Part::Validation);
    let left_out = write(&spool, &parts, settings, context)?;
    std::fs::remove_file(&spool).with_context(|| format!("cannot remove `{}`", spool.display()))?;

    let count = |wanted| parts.iter().filter(|&&part| part == wanted).count();
    let mut facts = json!({
        "pairs": gathered.keys.len(),
        "bytes": gathered.bytes,
        "pairs_with_an_empty_side_dropped": gathered.empty,
        "duplicate_pairs": duplicates(&gathered.keys),
        "evaluation_pairs_removed": gathered.evaluation_pairs,
        "lines": gathered.lines.lines,
        "byte_order_marks": gathered.lines.byte_order_marks,
        "carriage_returns": gathered.lines.carriage_returns,
        "sources": sources,
    });
    if settings.used_for == Use::Training {
        let trained = count(Part::Train) - left_out;
        if trained == 0 && settings.input.is_some() {
            let remedy = match settings.validation {
                Some(_) => "take others for data.parallel_dev",
                None => "lower data.parallel_validation",
            };
            bail!(
                "{} leaves nothing to train on: each pair has a sentence in common with one to validate with; {remedy} or supply more pairs",
                here()
            );
        }
        facts["train_pairs"] = trained.into();
        facts["train_pairs_with_a_validation_sentence_left_out"] = left_out.into();
        if settings.validation.is_some() {
            facts[VALIDATION_SOURCES] = json!(validation_sources);
        }
        facts["validation_pairs"] = count(Part::Validation).into();
        facts["unused_pairs"] = count(Part::Unused).into();
    }
    Ok(facts)
}

/// Pairs that occurred before.
fn duplicates(keys: &[u128]) -> usize {
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    keys.len() - sorted.len()
}

/// The names that a job's files for validation begin with.
pub const VALIDATION_FILES: &str = "validation_";
/// The fact that lists them.
pub const VALIDATION_SOURCES: &str = "validation_sources";

fn layout(input: &ParallelInput) -> ParallelLayout {
    match input {
        ParallelInput::Files { layout } | ParallelInput::Hub { layout, .. } => layout.clone(),
        ParallelInput::Synthetic => ParallelLayout::Sides,
    }
}

/// The files of either side; of a table, all are in the first list.
fn input_files(
    (input, prefix): (&ParallelInput, &str),
    settings: &Settings,
    context: &Context,
) -> Result<(Vec<InputFile>, Vec<InputFile>)> {
    let named = |name: &str| input::local(context.files, &format!("{prefix}{name}"));
    match input {
        ParallelInput::Files {
            layout: ParallelLayout::Sides,
        } => {
            let sides = (named("first")?, named("second")?);
            if sides.0.len() != sides.1.len() {
                bail!("{} files stand against {}", sides.0.len(), sides.1.len());
            }
            Ok(sides)
        }
        ParallelInput::Files {
            layout: ParallelLayout::Table { .. },
        } => Ok((named("table")?, Vec::new())),
        ParallelInput::Hub { files, .. } => {
            let mut sides = files.iter().map(|files| inputs::from_hub(files, context));
            let first = sides.next().context("a hub source lists no files")??;
            Ok((first, sides.next().transpose()?.unwrap_or_default()))
        }
        ParallelInput::Synthetic => {
            let mut folder = context.input("synthesize")?.join("parallel");
            if settings.used_for == Use::Test {
                folder.push("test");
            }
            let pair = format!("{}-{}", settings.first, settings.second);
            let side = |language: &str| input::of_path(&folder.join(format!("{pair}.{language}")));
            Ok((vec![side(&settings.first)?], vec![side(&settings.second)?]))
        }
    }
}

/// # Errors
/// Files with different numbers of lines: from the first line too many or too few on, nothing is aligned.
fn read_sides(
    first: &Path,
    second: &Path,
    gathered: &mut Gathered,
    context: &Context,
) -> Result<()> {
    let (mut firsts, mut seconds) = (Lines::open(first)?, Lines::open(second)?);
    loop {
        match (firsts.next_line()?, seconds.next_line()?) {
            (Some(first), Some(second)) => gathered.pair(first, second, context)?,
            (None, None) => break,
            _ => {
                while firsts.next_line()?.is_some() {}
                while seconds.next_line()?.is_some() {}
                bail!(
                    "`{}` has {} lines and `{}` has {}; line k of one must belong to line k of the other",
                    first.display(),
                    firsts.number(),
                    second.display(),
                    seconds.number()
                );
            }
        }
    }
    gathered.lines.add(&firsts.counts());
    gathered.lines.add(&seconds.counts());
    Ok(())
}

/// Pairs on their way to the spool file (first TAB second; tabs inside became spaces), and what is counted on the way.
struct Gathered<'a> {
    spool: BufWriter<File>,
    text_pipeline: TextPipeline,
    evaluation: &'a EvaluationText,
    keys: Vec<u128>,
    bytes: u64,
    empty: u64,
    evaluation_pairs: u64,
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
            keys: Vec::new(),
            bytes: 0,
            empty: 0,
            evaluation_pairs: 0,
            lines: LineCounts::default(),
        })
    }

    /// Reads a source's files, which the job has under names that begin with a prefix; what its record says of them comes back.
    ///
    /// # Errors
    /// Files that hold no pair that may be used.
    fn read(
        &mut self,
        source: (&ParallelInput, &str),
        settings: &Settings,
        context: &Context,
    ) -> Result<Vec<SourceRecord>> {
        let (firsts, seconds) = input_files(source, settings, context)?;
        let before = self.keys.len();
        context.progress.begin(0, before as u64, "sentence pairs");
        let (empty, evaluation) = (self.empty, self.evaluation_pairs);
        match layout(source.0) {
            ParallelLayout::Sides => {
                for (first, second) in firsts.iter().zip(&seconds) {
                    read_sides(&first.path, &second.path, self, context)?;
                }
            }
            ParallelLayout::Table {
                format,
                first,
                second,
            } => {
                for file in &firsts {
                    let counts = tables::for_each_row(
                        &file.path,
                        format,
                        &[&first, &second],
                        &mut |_, row| self.pair(row[0], row[1], context),
                    )?;
                    self.lines.add(&counts);
                }
            }
        }
        if self.keys.len() == before {
            let files = firsts.iter().chain(&seconds);
            let names: Vec<String> = files
                .map(|file| format!("`{}`", file.path.display()))
                .collect();
            bail!(
                "there is no pair in {}: {} have an empty side and {} have a sentence of an evaluation set; supply others",
                names.join(" and "),
                self.empty - empty,
                self.evaluation_pairs - evaluation
            );
        }
        let files = firsts.into_iter().chain(seconds);
        Ok(files.map(|file| file.record).collect())
    }

    fn pair(&mut self, first: &str, second: &str, context: &Context) -> Result<()> {
        let sides = [first, second].map(|side| one_line(&self.text_pipeline.apply(side)));
        if sides.iter().any(String::is_empty) {
            self.empty += 1;
            return Ok(());
        }
        if sides.iter().any(|side| self.evaluation.has_sentence(side)) {
            self.evaluation_pairs += 1;
            return Ok(());
        }
        writeln!(self.spool, "{}\t{}", sides[0], sides[1])
            .context("cannot write the spool file")?;
        self.bytes += (sides[0].len() + sides[1].len() + 2) as u64;
        self.keys.push(pair_key(&sides[0], &sides[1]));
        let pairs = self.keys.len() as u64;
        if pairs.is_multiple_of(STRIDE) {
            context.progress.advance(pairs, "");
            context.stop_if_asked()?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Self> {
        self.spool.flush().context("cannot write the spool file")?;
        Ok(self)
    }
}

/// A side without the tabs and line breaks that a table's column may hold.
fn one_line(side: &str) -> String {
    side.trim().replace(['\t', '\n', '\r'], " ")
}

/// Writes the parts; returns how many pairs for training were left out as validation has a sentence of theirs.
fn write(spool: &Path, parts: &[Part], settings: &Settings, context: &Context) -> Result<usize> {
    let create = |part: &str, language: &str| -> Result<BufWriter<File>> {
        let path = context.output.join(format!("{part}.{language}"));
        let file =
            File::create(&path).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(BufWriter::new(file))
    };
    let both = |part: &str| -> Result<Vec<BufWriter<File>>> {
        Ok(vec![
            create(part, &settings.first)?,
            create(part, &settings.second)?,
        ])
    };
    let (mut train, mut validation) = match settings.used_for {
        Use::Training => (both("train")?, both("valid")?),
        Use::Test => (both("test")?, Vec::new()),
    };
    let mut held_out = EvaluationText::default();
    if parts.contains(&Part::Validation) {
        for_each_pair(spool, parts, &mut |part, sides| {
            if part == Part::Validation {
                sides.iter().for_each(|side| held_out.add_sentence(side));
            }
            Ok(())
        })?;
    }
    let mut left_out = 0;
    for_each_pair(spool, parts, &mut |part, sides| {
        let files = match part {
            Part::Train if sides.iter().any(|side| held_out.has_sentence(side)) => {
                left_out += 1;
                return Ok(());
            }
            Part::Train => &mut train,
            Part::Validation => &mut validation,
            Part::Unused => return Ok(()),
        };
        for (file, side) in files.iter_mut().zip(sides) {
            writeln!(file, "{side}").context("cannot write the pairs")?;
        }
        Ok(())
    })?;
    for file in train.iter_mut().chain(&mut validation) {
        file.flush().context("cannot write the pairs")?;
    }
    Ok(left_out)
}

/// The pairs of a spool file, each with its part.
fn for_each_pair(
    spool: &Path,
    parts: &[Part],
    take: &mut dyn FnMut(Part, [&str; 2]) -> Result<()>,
) -> Result<()> {
    let mut lines = Lines::open(spool)?;
    for part in parts {
        let line = lines.next_line()?.context("the spool file lost a line")?;
        let (first, second) = line.split_once('\t').context("the spool file lost a tab")?;
        take(*part, [first, second])?;
    }
    Ok(())
}
