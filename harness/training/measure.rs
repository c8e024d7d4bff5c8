//! How fast the engine is here: training steps and predictions on random tokens, and the matrix product's own rate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::settings::{AdamSettings, Schedule};
use super::trainer::Trainer;
use crate::kernels::Device;
use crate::kernels::buffer::Parts;
use crate::kernels::cuda::operations::Operations;
use crate::kernels::cuda::{Driver, Memory};
use crate::kernels::matmul::{Matrix, Precision, Write, packed_length};
use crate::model::trunk::cuda::upload;
use crate::model::trunk::{self, Part};
use crate::model::{Batch, Direction, LanguageModelBatch, Model, Shape, Targets};
use crate::random::Random;

/// Steps before those that are measured: buffers grow, caches fill.
const WARM_UP: usize = 2;

/// Different batches, which take turns.
const BATCHES: usize = 8;

/// Steps to measure.
#[derive(Debug, Clone)]
pub struct Workload {
    pub shape: Shape,
    /// Sequences of a step.
    pub sequences: usize,
    /// Tokens of the sequences, one number each, in turn and over again.
    pub lengths: Vec<usize>,
    pub precision: Precision,
    /// Share of the tokens that are predicted.
    pub predicted: f64,
    pub direction: Direction,
    /// Steps measured, after two that are not.
    pub steps: usize,
}

impl Workload {
    /// A step's sequences of random tokens.
    pub fn batch(&self, step: usize) -> Batch {
        let mut random = Random::new(1, "measure", step as u64);
        let mut batch = Batch::new();
        for sequence in 0..self.sequences {
            let length = self.lengths[(step * self.sequences + sequence) % self.lengths.len()];
            let language = random.below(self.shape.languages as u64) as u32;
            let tokens: Vec<u32> = (0..length)
                .map(|_| random.below(self.shape.vocabulary as u64) as u32)
                .collect();
            batch.push(&tokens, language);
        }
        batch
    }

    /// Multiplications and additions of the matrix products in the layers, forward, where the last one computes a share of its rows;
    /// with a decoder, whose sources are as long as its targets, of both sides and all rows.
    pub fn layer_operations(&self, batch: &Batch, computed: f64) -> f64 {
        let lengths = batch
            .offsets
            .windows(2)
            .map(|pair| f64::from(pair[1] - pair[0]));
        let of = |length: f64| length * self.shape.layer_products(length, computed);
        2.0 * lengths.map(of).sum::<f64>()
    }

    /// Of a model with a decoder, sources of the same lengths; every token of the batch is then predicted.
    fn language_model_batch(&self, step: usize) -> LanguageModelBatch {
        let batch = self.batch(step);
        let source = self.shape.decoder.then(|| batch.clone());
        let mut random = Random::new(1, "measure targets", step as u64);
        let mut targets = Targets::default();
        for (row, &token) in batch.tokens.iter().enumerate() {
            if random.uniform() < self.predicted {
                targets.indices.push(row as u32);
                targets.labels.push(token);
            }
        }
        LanguageModelBatch {
            batch,
            targets,
            direction: self.direction,
            source,
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Measurement {
    pub tokens_per_second: f64,
    pub sequences_per_second: f64,
    /// The median.
    pub milliseconds_per_step: f64,
    /// Mean time of a step by part; what the threads do side by side is divided by their number. Of a card, that of one further
    /// step by kernel.
    pub milliseconds: BTreeMap<String, f64>,
    /// Operations of the step's matrix products per second, in units of 1e9.
    pub gigaflops: f64,
    /// The matrix product alone, by all threads at once.
    pub matrix_product_gigaflops: f64,
    /// The first as a share of the second, 0 to 1.
    pub share_of_matrix_product: f64,
    /// Bytes taken of the card's memory, by whatever program. Buffers only grow: what is taken at the end is the most.
    pub card_memory_bytes: Option<u64>,
}

/// What one measured step did.
pub struct Step {
    pub tokens: usize,
    /// Of its matrix products.
    pub operations: f64,
}

/// Calls `step(number, parts)` for the warm-up and the measured steps. A step adds what it spends outside the trunk to
/// `parts`; `trunk` hands out what was spent inside since it was last asked.
pub fn measure_steps<State>(
    workload: &Workload,
    device: &Device,
    state: &mut State,
    mut step: impl FnMut(&mut State, usize, &mut BTreeMap<&'static str, Duration>) -> Result<Step>,
    trunk: impl Fn(&State) -> [Duration; Part::ALL.len()],
) -> Result<Measurement> {
    let mut parts = BTreeMap::new();
    for number in 0..WARM_UP {
        step(state, number, &mut parts)?;
    }
    parts.clear();
    trunk(state);
    let (mut seconds, mut tokens, mut operations) = (Vec::new(), 0, 0.0);
    for number in WARM_UP..WARM_UP + workload.steps.max(1) {
        let start = Instant::now();
        let done = step(state, number, &mut parts)?;
        seconds.push(start.elapsed().as_secs_f64());
        tokens += done.tokens;
        operations += done.operations;
    }
    let steps = seconds.len() as f64;
    let total: f64 = seconds.iter().sum();
    let threads = device.threads() as f64;
    let mut milliseconds: BTreeMap<String, f64> = parts
        .into_iter()
        .map(|(part, time)| (part.to_owned(), 1e3 * time.as_secs_f64() / steps))
        .collect();
    let mut card_memory_bytes = None;
    if let Some(card) = device.card() {
        let (free, all) = card.memory()?;
        card_memory_bytes = Some(all - free);
        card.record()?;
        step(state, WARM_UP + workload.steps, &mut BTreeMap::new())?;
        milliseconds = card.recorded()?;
    }
    let of_trunk = match device.card() {
        Some(_) => None,
        None => Some(Part::ALL.into_iter().zip(trunk(state))),
    };
    for (part, time) in of_trunk.into_iter().flatten() {
        *milliseconds.entry(part.name().to_owned()).or_default() +=
            1e3 * time.as_secs_f64() / steps / threads;
    }
    let gigaflops = operations / total / 1e9;
    let matrix_product_gigaflops = match device.card() {
        Some(card) => card_product_rate(card, workload.precision)?,
        None => matrix_product_rate(device, workload.precision),
    };
    seconds.sort_by(f64::total_cmp);
    Ok(Measurement {
        tokens_per_second: tokens as f64 / total,
        sequences_per_second: steps * workload.sequences as f64 / total,
        milliseconds_per_step: 1e3 * seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN),
        milliseconds,
        gigaflops,
        matrix_product_gigaflops,
        share_of_matrix_product: gigaflops / matrix_product_gigaflops,
        card_memory_bytes,
    })
}

/// The share of the last layer's rows that are computed where a share of them is read; a card computes all.
pub fn computed_share(device: &Device, read: f64) -> f64 {
    match device.card() {
        Some(_) => 1.0,
        None => trunk::computed_share(read),
    }
}

/// Measures language-modelling steps.
pub fn measure(workload: &Workload, device: &Device) -> Result<Measurement> {
    let shape = &workload.shape;
    let settings = AdamSettings {
        learning_rate: 1e-4,
        beta1: 0.9,
        beta2: 0.98,
        epsilon: 1e-8,
        weight_decay: 0.0,
        clip: Some(5.0),
        schedule: Schedule::Constant,
    };
    let model = Model::initialise(shape, 1);
    let total = (workload.steps + WARM_UP) as u64;
    // Made before, as training makes them beside the step.
    let inputs: Vec<LanguageModelBatch> = (0..workload.steps.min(BATCHES))
        .map(|number| workload.language_model_batch(number))
        .collect();
    let mut trainer =
        Trainer::new(model, &settings, total, device, 1)?.in_precision(workload.precision);
    let step =
        |trainer: &mut Trainer, number: usize, parts: &mut BTreeMap<&'static str, Duration>| {
            let input = &inputs[number % inputs.len()];
            let targets = input.targets.labels.len();
            if trainer.device().card().is_some() {
                trainer.language_model_step(std::slice::from_ref(input))?;
            } else {
                trainer.accumulate_language_model(std::slice::from_ref(input), 1.0)?;
                let start = Instant::now();
                trainer.apply(targets.max(1) as f64)?;
                *parts.entry("update").or_default() += start.elapsed();
            }
            let vocabulary = 2 * targets * shape.vocabulary * shape.settings.hidden;
            let tokens = input.batch.token_count();
            let computed = computed_share(trainer.device(), targets as f64 / tokens as f64);
            Ok(Step {
                tokens,
                operations: 3.0
                    * (workload.layer_operations(&input.batch, computed) + vocabulary as f64),
            })
        };
    measure_steps(workload, device, &mut trainer, step, |trainer| {
        trainer.encoder().take_times()
    })
}

/// Operations per second, in units of 1e9, of the product of two random matrices of 8192 x 8192 on a card: the median of twenty.
fn card_product_rate(card: &Arc<dyn Driver>, precision: Precision) -> Result<f64> {
    const SIZE: usize = 8192;
    const PART: usize = 1 << 20;
    let operations = Operations {
        driver: card.clone(),
        element: precision.into(),
    };
    let bytes = SIZE * SIZE * operations.element.bytes();
    let mut random = Random::new(1, "measure product", 0);
    let values: Vec<f32> = (0..PART).map(|_| random.normal() as f32).collect();
    let floats = Memory::zeros(card, 4 * PART)?;
    upload(&operations, floats.address(), &values)?;
    let [left, right, out] = [
        Memory::zeros(card, bytes)?,
        Memory::zeros(card, bytes)?,
        Memory::zeros(card, bytes)?,
    ]
    .map(|memory| (memory.address(), memory));
    for part in 0..SIZE * SIZE / PART {
        let offset = (part * PART * operations.element.bytes()) as u64;
        operations.from_float(floats.address(), left.0 + offset, PART)?;
        operations.from_float(floats.address(), right.0 + offset, PART)?;
    }
    let mut seconds = Vec::new();
    for _ in 0..25 {
        card.synchronise()?;
        let start = Instant::now();
        let addresses = [left.0, right.0, out.0];
        operations.linear(SIZE, SIZE, SIZE, addresses, None, operations.element, SIZE)?;
        card.synchronise()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let measured = &mut seconds[5..];
    measured.sort_by(f64::total_cmp);
    Ok(2.0 * (SIZE as f64).powi(3) / measured[measured.len() / 2] / 1e9)
}

/// Operations per second, in units of 1e9, of products of 256 x 512 by 512 x 512, one on each thread at once: the best of
/// ten.
fn matrix_product_rate(device: &Device, precision: Precision) -> f64 {
    let (rows, depth, columns) = (256, 512, 512);
    let left = vec![0.5f32; rows * depth];
    let right = vec![0.25f32; depth * columns];
    let mut panels = vec![0f32; packed_length(depth, columns)];
    precision.pack(Matrix::rows(&right, columns), depth, columns, &mut panels);
    let threads = device.threads();
    let mut out = vec![0f32; threads * rows * columns];
    let best = (0..10)
        .map(|_| {
            let parts = Parts::new(&mut out);
            let start = Instant::now();
            device.pool().each(threads, |thread| {
                // Safety: each task has its own part.
                let out =
                    unsafe { parts.range(thread * rows * columns..(thread + 1) * rows * columns) };
                precision.multiply(
                    rows,
                    depth,
                    columns,
                    Matrix::rows(&left, depth),
                    &panels,
                    out,
                    columns,
                    Write::Replace,
                );
            });
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    std::hint::black_box(&out);
    2.0 * (threads * rows * depth * columns) as f64 / best / 1e9
}
