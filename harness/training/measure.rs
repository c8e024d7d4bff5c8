//! How fast the engine is here: a masked language-modelling step on random tokens, and the matrix product's own rate.

use std::time::Instant;

use anyhow::Result;

use super::settings::{AdamSettings, Schedule};
use super::trainer::Trainer;
use crate::kernels::Device;
use crate::kernels::matmul::{Matrix, Write, multiply, pack, packed_length};
use crate::model::{Batch, Direction, LanguageModelBatch, Model, Shape, Targets};
use crate::random::Random;

/// A step to measure.
#[derive(Debug, Clone)]
pub struct Workload {
    pub shape: Shape,
    pub sequences: usize,
    /// Tokens of each sequence.
    pub length: usize,
    /// Share of the tokens that are predicted.
    pub predicted: f64,
    pub direction: Direction,
    /// Steps measured, after two that are not.
    pub steps: usize,
}

/// Medians over the measured steps.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Measurement {
    pub tokens_per_second: f64,
    pub milliseconds_per_step: f64,
    /// Forward, loss and backward.
    pub gradient_milliseconds: f64,
    /// Norm and optimizer.
    pub update_milliseconds: f64,
    /// Operations of the step's matrix products per second, in units of 1e9.
    pub gigaflops: f64,
    /// The matrix product alone, one thread, times the threads.
    pub matrix_product_gigaflops: f64,
}

/// Measures training steps on random tokens.
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
    let mut trainer = Trainer::new(model, &settings, workload.steps as u64 + 2, device, 1)?;
    let (mut gradient_times, mut update_times) = (Vec::new(), Vec::new());
    let mut targets = 0;
    for step in 0..workload.steps + 2 {
        let input = random_batch(workload, step as u64);
        targets = input.targets.labels.len();
        let start = Instant::now();
        trainer.accumulate_language_model(std::slice::from_ref(&input), 1.0)?;
        let middle = Instant::now();
        trainer.apply(targets.max(1) as f64)?;
        if step >= 2 {
            gradient_times.push((middle - start).as_secs_f64());
            update_times.push(middle.elapsed().as_secs_f64());
        }
    }
    let (gradient, update) = (median(&mut gradient_times), median(&mut update_times));
    let seconds = gradient + update;
    let tokens = workload.sequences * workload.length;
    let s = &shape.settings;
    let layer =
        4 * s.hidden * s.hidden + 2 * s.hidden * s.feed_forward + 2 * workload.length * s.hidden;
    let operations =
        6.0 * (tokens * s.layers * layer + targets * shape.vocabulary * s.hidden) as f64;
    Ok(Measurement {
        tokens_per_second: tokens as f64 / seconds,
        milliseconds_per_step: 1e3 * seconds,
        gradient_milliseconds: 1e3 * gradient,
        update_milliseconds: 1e3 * update,
        gigaflops: operations / seconds / 1e9,
        matrix_product_gigaflops: matrix_product_rate() * device.threads() as f64,
    })
}

/// Operations per second, in units of 1e9, of a product of 256 x 512 by 512 x 512 on one thread: the best of ten.
pub fn matrix_product_rate() -> f64 {
    let (rows, depth, columns) = (256, 512, 512);
    let left = vec![0.5f32; rows * depth];
    let right = vec![0.25f32; depth * columns];
    let mut panels = vec![0f32; packed_length(depth, columns)];
    pack(Matrix::rows(&right, columns), depth, columns, &mut panels);
    let mut out = vec![0f32; rows * columns];
    let best = (0..10)
        .map(|_| {
            let start = Instant::now();
            multiply(
                rows,
                depth,
                columns,
                Matrix::rows(&left, depth),
                &panels,
                &mut out,
                columns,
                Write::Replace,
            );
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    std::hint::black_box(&out);
    2.0 * (rows * depth * columns) as f64 / best / 1e9
}

fn random_batch(workload: &Workload, step: u64) -> LanguageModelBatch {
    let mut random = Random::new(1, "measure", step);
    let shape = &workload.shape;
    let mut batch = Batch::new();
    let mut targets = Targets::default();
    for _ in 0..workload.sequences {
        let language = random.below(shape.languages as u64) as u32;
        let tokens: Vec<u32> = (0..workload.length)
            .map(|_| random.below(shape.vocabulary as u64) as u32)
            .collect();
        for (row, &token) in (batch.tokens.len() as u32..).zip(&tokens) {
            if random.uniform() < workload.predicted {
                targets.indices.push(row);
                targets.labels.push(token);
            }
        }
        batch.push(&tokens, language);
    }
    LanguageModelBatch {
        batch,
        targets,
        direction: workload.direction,
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
