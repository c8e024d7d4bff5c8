//! `xlt bench`: how fast training and prediction are here, on random tokens of the sizes asked for.
//!
//! `benches/peers/` runs the same workloads in PyTorch and in transformers, in turn with this command.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;

use super::run::MachineArguments;
use super::{DONE, exit};
use crate::data::corpus::{Lines, binarise};
use crate::data::nli::Label;
use crate::data::tokenizer::{self, END_OF_SENTENCE, TokenizerSettings};
use crate::kernels::{Device, Precision};
use crate::model::{Batch, Direction, Encoder, Model, ModelSettings, Search, Shape};
use crate::tasks::pair_classification::{Classifier, EncodedPair, predict, train_step};
use crate::tasks::pooling::Pooling;
use crate::training::{
    AdamSettings, Measurement, Schedule, Step, Trainer, Workload, computed_share, measure,
    measure_steps,
};

/// Share of the tokens that masked language modelling predicts (BERT, XLM).
const MASKED: f64 = 0.15;

/// Far beyond what is worth measuring; sums stay far from overflow below these. Ours.
const MOST_STEPS: u64 = 100_000;
const LARGEST_VOCABULARY: usize = 1 << 24;
const MOST_TOKENS: usize = 1 << 26;
const MOST_BYTES: u64 = 1 << 40;
const MOST_HYPOTHESES: usize = 1000;

#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub other: Option<Other>,
    #[command(flatten)]
    pub steps: StepArguments,
}

/// What else can be measured than steps.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Other {
    /// Learn a tokenizer from a text, and measure how fast the text becomes token files
    TokenFiles(TokenFileArguments),
}

#[derive(Debug, Clone, clap::Args)]
pub struct TokenFileArguments {
    /// The text, a sentence in each line
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Entries of the tokenizer
    #[arg(long, default_value_t = 8000)]
    pub vocabulary: usize,
    /// How often the text is encoded; the median is printed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=MOST_STEPS))]
    pub steps: u64,
    #[command(flatten)]
    pub machine: MachineArguments,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub struct StepArguments {
    /// What a step does
    #[arg(long, value_enum, default_value_t = Objective::MaskedLm)]
    pub objective: Objective,
    #[arg(long, default_value_t = 4)]
    pub layers: usize,
    #[arg(long, default_value_t = 256)]
    pub hidden: usize,
    #[arg(long, default_value_t = 4)]
    pub heads: usize,
    #[arg(long, default_value_t = 1024)]
    pub feed_forward: usize,
    #[arg(long, default_value_t = 8000)]
    pub vocabulary: usize,
    /// Sequences of a step
    #[arg(long, default_value_t = 32)]
    pub sequences: usize,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 64)]
    pub length: usize,
    /// A file with the tokens of a sequence in each line, instead of one length for all
    #[arg(long, value_name = "FILE", conflicts_with = "length")]
    pub lengths: Option<PathBuf>,
    /// The arithmetic of matrix products
    #[arg(long, value_enum, default_value_t = PrecisionChoice::F32)]
    pub precision: PrecisionChoice,
    /// Dropout, of attention too
    #[arg(long, default_value_t = 0.1)]
    pub dropout: f32,
    /// Hypotheses that generation keeps at every length
    #[arg(long, default_value_t = 1)]
    pub beam: usize,
    /// Steps to measure, after two that are not
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=MOST_STEPS))]
    pub steps: u64,
    #[command(flatten)]
    pub machine: MachineArguments,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[value(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Predict 15 % of the tokens from both sides, and update
    MaskedLm,
    /// Predict every next token, and update
    CausalLm,
    /// Classify sentence pairs, and update
    Xnli,
    /// Classify sentence pairs only
    XnliPrediction,
    /// Predict every token of translations from sources of the same lengths, and update; tokens are those of the translations
    Translation,
    /// Translate, each source into as many tokens; what is counted are those
    Generation,
}

/// As [`Precision`], on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionChoice {
    /// 32 bits throughout
    F32,
    /// Operands in bfloat16, sums in 32 bits
    Bf16,
}

pub fn run(arguments: &Arguments, output: &mut dyn Write) -> Result<ExitCode> {
    match &arguments.other {
        Some(Other::TokenFiles(arguments)) => measure_token_files(arguments, output),
        None => measure_step(&arguments.steps, output),
    }
}

fn measure_step(arguments: &StepArguments, output: &mut dyn Write) -> Result<ExitCode> {
    let device = arguments
        .machine
        .device
        .open(arguments.machine.threads()?)?;
    ensure!(
        device.card().is_none() || arguments.objective != Objective::Generation,
        "translations are searched for on the processor; measure that with `--device cpu`"
    );
    let workload = workload(arguments)?;
    let measured = match arguments.objective {
        Objective::MaskedLm | Objective::CausalLm | Objective::Translation => {
            measure(&workload, &device)?
        }
        Objective::Xnli => measure_finetuning(&workload, &device)?,
        Objective::XnliPrediction => measure_prediction(&workload, &device)?,
        Objective::Generation => measure_generation(&workload, arguments.beam, &device)?,
    };
    let memory = peak_memory_bytes();
    if arguments.json {
        let object = json!({
            "objective": arguments.objective,
            "precision": workload.precision,
            "device": device.description(),
            "threads": device.threads(),
            "parameters": workload.shape.parameters(),
            "tokens_per_second": measured.tokens_per_second,
            "examples_per_second": measured.sequences_per_second,
            "milliseconds_per_step": measured.milliseconds_per_step,
            "milliseconds": measured.milliseconds,
            "gigaflops": measured.gigaflops,
            "matrix_product_gigaflops": measured.matrix_product_gigaflops,
            "share_of_matrix_product": measured.share_of_matrix_product,
            "peak_memory_bytes": memory,
            "card_memory_bytes": measured.card_memory_bytes,
        });
        writeln!(output, "{}", serde_json::to_string_pretty(&object)?)?;
    } else {
        if let Some(bytes) = measured.card_memory_bytes {
            writeln!(output, "{} MB of the card's memory", bytes / 1_000_000)?;
        }
        print(&measured, &workload.shape, &device, memory, output)?;
    }
    Ok(exit(DONE))
}

fn print(
    measured: &Measurement,
    shape: &Shape,
    device: &Device,
    memory: Option<u64>,
    output: &mut dyn Write,
) -> Result<()> {
    writeln!(output, "{device:?}, {} parameters", shape.parameters())?;
    writeln!(
        output,
        "{:.0} tokens/s, {:.1} sequences/s, {:.1} ms a step",
        measured.tokens_per_second, measured.sequences_per_second, measured.milliseconds_per_step
    )?;
    writeln!(
        output,
        "{:.0} GFLOP/s, {:.0} % of the matrix product's {:.0}",
        measured.gigaflops,
        100.0 * measured.share_of_matrix_product,
        measured.matrix_product_gigaflops
    )?;
    if let Some(memory) = memory {
        writeln!(output, "{} MB of memory at most", memory / 1_000_000)?;
    }
    for (part, milliseconds) in &measured.milliseconds {
        writeln!(output, "{part:>18} {milliseconds:8.2} ms")?;
    }
    Ok(())
}

fn workload(arguments: &StepArguments) -> Result<Workload> {
    ensure!(
        arguments.sequences > 0,
        "--sequences 0 is an empty step; name at least 1"
    );
    let lengths = match &arguments.lengths {
        None => vec![arguments.length],
        Some(file) => read_lengths(file)?,
    };
    let longest = lengths.iter().copied().max().unwrap_or(0);
    ensure!(
        lengths.iter().all(|length| *length > 0),
        "a sequence of no tokens cannot be measured; name lengths of at least 1"
    );
    let settings = ModelSettings {
        layers: arguments.layers,
        hidden: arguments.hidden,
        heads: arguments.heads,
        feed_forward: arguments.feed_forward,
        positions: longest,
        dropout: arguments.dropout,
        attention_dropout: arguments.dropout,
        language_embeddings: true,
    };
    if let Err(problems) = settings.validate() {
        let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
        bail!("the model is impossible: {}", list.join(", "));
    }
    ensure!(
        (1..=LARGEST_VOCABULARY).contains(&arguments.vocabulary),
        "--vocabulary {}; name a number from 1 to {LARGEST_VOCABULARY}",
        arguments.vocabulary
    );
    for (option, value, most) in [
        ("--layers", arguments.layers, 1024),
        ("--hidden", arguments.hidden, 1 << 16),
        ("--feed-forward", arguments.feed_forward, 1 << 18),
    ] {
        ensure!(
            value <= most,
            "{option} {value}; name a number from 1 to {most}"
        );
    }
    ensure!(
        (1..=MOST_HYPOTHESES).contains(&arguments.beam),
        "--beam {}; name a number from 1 to {MOST_HYPOTHESES}",
        arguments.beam
    );
    let tokens = longest.saturating_mul(arguments.sequences);
    ensure!(
        tokens <= MOST_TOKENS,
        "a step of up to {tokens} tokens; name fewer --sequences or shorter ones, {MOST_TOKENS} tokens at most"
    );
    let predicted = match arguments.objective {
        Objective::MaskedLm => MASKED,
        Objective::CausalLm | Objective::Translation => 1.0,
        Objective::Xnli | Objective::XnliPrediction | Objective::Generation => 0.0,
    };
    let shape = Shape {
        settings,
        vocabulary: arguments.vocabulary,
        languages: 4,
        decoder: matches!(
            arguments.objective,
            Objective::Translation | Objective::Generation
        ),
    };
    let bytes = shape.training_bytes(tokens);
    ensure!(
        bytes <= MOST_BYTES,
        "such a step needs about {} GB of memory; choose smaller sizes",
        bytes / 1_000_000_000
    );
    Ok(Workload {
        shape,
        sequences: arguments.sequences,
        lengths,
        precision: match arguments.precision {
            PrecisionChoice::F32 => Precision::F32,
            PrecisionChoice::Bf16 => Precision::Bf16,
        },
        predicted,
        direction: match arguments.objective {
            Objective::CausalLm | Objective::Translation => Direction::Causal,
            _ => Direction::Bidirectional,
        },
        steps: arguments.steps as usize,
    })
}

fn read_lengths(file: &PathBuf) -> Result<Vec<usize>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let lengths = text
        .lines()
        .enumerate()
        .map(|(line, text)| {
            text.trim().parse().with_context(|| {
                format!(
                    "{}:{}: `{text}` is no number of tokens",
                    file.display(),
                    line + 1
                )
            })
        })
        .collect::<Result<Vec<usize>>>()?;
    ensure!(!lengths.is_empty(), "{} has no lines", file.display());
    Ok(lengths)
}

/// The sequences of a batch as sentence pairs.
fn pairs(batch: &Batch) -> Vec<EncodedPair> {
    batch
        .offsets
        .windows(2)
        .enumerate()
        .map(|(item, bounds)| EncodedPair {
            tokens: batch.tokens[bounds[0] as usize..bounds[1] as usize].to_vec(),
            language: 0,
            label: Label::ALL[item % Label::ALL.len()],
            premise_id: item as u32,
            item: item as u32,
            truncated: false,
        })
        .collect()
}

/// A step over pairs, of which the classifier reads the first token.
fn step_of(workload: &Workload, batch: &Batch, passes: f64, device: &Device) -> Step {
    let tokens = batch.token_count();
    let computed = computed_share(device, batch.sequences() as f64 / tokens as f64);
    Step {
        tokens,
        operations: passes * workload.layer_operations(batch, computed),
    }
}

fn classifier(workload: &Workload) -> Result<Classifier> {
    Classifier::initialise(workload.shape.settings.hidden, Pooling::First, 0.0, 1)
}

fn measure_finetuning(workload: &Workload, device: &Device) -> Result<Measurement> {
    // XLM's optimizer for fine-tuning; the rates do not matter here.
    let adam = AdamSettings {
        learning_rate: 1e-5,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        clip: None,
        schedule: Schedule::Constant,
    };
    let model = Model::initialise(&workload.shape, 1);
    let mut trainer = Trainer::new(model, &adam, workload.steps as u64 + 2, device, 1)?
        .in_precision(workload.precision);
    classifier(workload)?.add_to(&mut trainer, 1e-5)?;
    let step = |trainer: &mut Trainer, number: usize, _: &mut BTreeMap<&'static str, Duration>| {
        let batch = workload.batch(number);
        let pairs = pairs(&batch);
        let chosen: Vec<&EncodedPair> = pairs.iter().collect();
        train_step(trainer, &chosen, Pooling::First, 0.0, (1, number as u64))?;
        Ok(step_of(workload, &batch, 3.0, device))
    };
    measure_steps(workload, device, &mut trainer, step, |trainer| {
        trainer.encoder().take_times()
    })
}

fn measure_prediction(workload: &Workload, device: &Device) -> Result<Measurement> {
    let classifier = classifier(workload)?;
    let mut encoder = Encoder::new(Model::initialise(&workload.shape, 1), device)
        .in_precision(workload.precision);
    let step =
        |encoder: &mut Encoder, number: usize, parts: &mut BTreeMap<&'static str, Duration>| {
            let batch = workload.batch(number);
            let pairs = pairs(&batch);
            let start = Instant::now();
            predict(encoder, &classifier, &pairs)?;
            *parts.entry("all").or_default() += start.elapsed();
            Ok(step_of(workload, &batch, 1.0, device))
        };
    measure_steps(workload, device, &mut encoder, step, Encoder::take_times)
}

/// A random model hardly ever ends a sentence, and here it never does: each source is translated into as many tokens.
fn measure_generation(workload: &Workload, beam: usize, device: &Device) -> Result<Measurement> {
    let mut model = Model::initialise(&workload.shape, 1);
    let end = END_OF_SENTENCE;
    if let Some(bias) = model
        .parameter_mut("decoder.output.bias")
        .and_then(|bias| bias.get_mut(end as usize))
    {
        *bias = -100.0;
    }
    let search = Search {
        beam,
        length_penalty: 1.0,
        longest: (1.0, 0),
        end,
    };
    let mut encoder = Encoder::new(model, device).in_precision(workload.precision);
    let step =
        |encoder: &mut Encoder, number: usize, parts: &mut BTreeMap<&'static str, Duration>| {
            let batch = workload.batch(number);
            let start = Instant::now();
            let found = encoder.translate(&batch, &vec![0; batch.sequences()], &search)?;
            *parts.entry("all").or_default() += start.elapsed();
            let best = found.iter().filter_map(|hypotheses| hypotheses.first());
            Ok(Step {
                tokens: best.map(|best| best.tokens.len()).sum(),
                operations: beam as f64 * workload.layer_operations(&batch, 1.0),
            })
        };
    measure_steps(workload, device, &mut encoder, step, Encoder::take_times)
}

/// Learns a tokenizer from a file and encodes it, the latter as often as asked.
fn measure_token_files(arguments: &TokenFileArguments, output: &mut dyn Write) -> Result<ExitCode> {
    const LANGUAGE: &str = "en";
    let text = arguments.text.as_path();
    let device = &arguments
        .machine
        .device
        .open(arguments.machine.threads()?)?;
    let settings: TokenizerSettings = serde_json::from_value(json!({
        "bpe": {"vocabulary": arguments.vocabulary},
        "sharing": "shared",
        "sampling_exponent": 1.0,
    }))?;
    if let Some(problem) = settings.validate().first() {
        bail!("--vocabulary: {}; {}", problem.what, problem.remedy);
    }
    let counts = tokenizer::count_file(text, device)?;
    let learnt = tokenizer::train(&settings, &[(LANGUAGE.to_owned(), counts)])?;
    let bytes = fs::metadata(text)
        .with_context(|| format!("cannot read {}", text.display()))?
        .len();
    let folder = tempfile::tempdir().context("cannot create a folder for the token files")?;
    let (mut seconds, mut cpu_seconds, mut tokens) = (Vec::new(), Vec::new(), 0);
    for _ in 0..arguments.steps {
        let (start, before) = (Instant::now(), processor_seconds());
        let facts = binarise(
            (text, Lines::Documents),
            (&learnt, LANGUAGE),
            (folder.path(), "train"),
            device,
            &|_| Ok(()),
        )?;
        seconds.push(start.elapsed().as_secs_f64());
        cpu_seconds.extend(before.zip(processor_seconds()).map(|(a, b)| b - a));
        tokens = facts.tokens;
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let megabytes = bytes as f64 / 1e6;
    let rate = |seconds: Option<f64>| seconds.map(|seconds| megabytes / seconds);
    let (per_second, per_cpu_second) = (rate(median(&mut seconds)), rate(median(&mut cpu_seconds)));
    if arguments.json {
        let object = json!({
            "device": device.description(),
            "threads": device.threads(),
            "bytes": bytes,
            "tokens": tokens,
            "megabytes_per_second": per_second,
            "megabytes_per_processor_second": per_cpu_second,
            "peak_memory_bytes": peak_memory_bytes(),
        });
        writeln!(output, "{}", serde_json::to_string_pretty(&object)?)?;
    } else {
        writeln!(
            output,
            "{tokens} tokens of {megabytes:.1} MB; {:.1} MB a second, {} MB a second of a processor",
            per_second.unwrap_or(f64::NAN),
            per_cpu_second.map_or("unknown".to_owned(), |rate| format!("{rate:.1}"))
        )?;
    }
    Ok(exit(DONE))
}

/// Seconds that all threads of this process have run; Linux tells, in hundredths.
fn processor_seconds() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in brackets, may hold anything.
    let fields: Vec<&str> = status.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = [11, 12]
        .into_iter()
        .filter_map(|field| fields.get(field)?.parse::<f64>().ok())
        .sum();
    Some(ticks / 100.0)
}

/// The most memory this process has held; Linux tells.
fn peak_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kibibytes)
}
