//! Whether a device computes what the CPU does: losses, gradients, steps and states at awkward shapes, and whether it repeats
//! itself. `xlt selftest` prints it; the tests run it on an emulated card.

use anyhow::{Context, Result};

use super::settings::{AdamSettings, Schedule};
use super::trainer::Trainer;
use crate::kernels::{Device, Precision};
use crate::model::{
    Batch, Direction, Encoder, LanguageModelBatch, Model, ModelSettings, Shape, Tap, Targets,
};
use crate::random::Random;

/// What was compared, how far the device is off, and how far it may be: a share of the largest entry of what is compared, or of
/// the loss. Limits are ours: those of 32 bits are the engine's against PyTorch; those of bf16 cover what rounding to 8 bits
/// does in models as small as these.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Check {
    pub name: String,
    pub error: f64,
    pub limit: f64,
}

impl Check {
    /// An error that is no number does not pass.
    pub fn passes(&self) -> bool {
        self.error <= self.limit
    }
}

/// Lengths of sequences around the tiles of attention (64), of one token, and one sequence alone.
const LENGTHS: [&[usize]; 4] = [&[1, 64, 7, 130], &[65], &[1], &[33, 2, 2, 90, 16]];

/// Lengths for what is too slow for an emulator.
const LARGE: &[usize] = &[300, 1, 128, 77, 256, 64];

const STEPS: u64 = 20;

/// Runs all checks and hands out each; `large` adds models of real sizes.
pub fn run(device: &Device, large: bool, each: &mut dyn FnMut(&Check)) -> Result<()> {
    let mut sizes = vec![
        (Precision::F32, 48, 4, &LENGTHS[..]),
        (Precision::F32, 64, 2, &LENGTHS),
        (Precision::F32, 16, 1, &LENGTHS),
        // Widths of attention that tensor cores compute, and one that they do not.
        (Precision::Bf16, 64, 2, &LENGTHS),
        (Precision::Bf16, 64, 1, &LENGTHS),
        (Precision::Bf16, 128, 1, &LENGTHS),
        (Precision::Bf16, 48, 4, &LENGTHS),
    ];
    if large {
        let lengths: &[&[usize]] = &[LARGE];
        sizes.extend([
            (Precision::F32, 512, 8, lengths),
            (Precision::Bf16, 512, 8, lengths),
            (Precision::Bf16, 1024, 16, lengths),
            (Precision::Bf16, 2048, 16, lengths),
        ]);
    }
    for (precision, hidden, heads, lengths) in sizes {
        let shape = shape(hidden, heads, 1, 0.1, false);
        for direction in [Direction::Bidirectional, Direction::Causal] {
            let inputs: Vec<LanguageModelBatch> = lengths
                .iter()
                .enumerate()
                .map(|(seed, lengths)| batch(&shape, lengths, seed as u64, direction))
                .collect();
            let what = format!("hidden {hidden}, {heads} heads, {direction:?}");
            gradients(device, &shape, &inputs, precision, &what, each)?;
        }
    }
    for precision in [Precision::F32, Precision::Bf16] {
        let shape = shape(32, 1, 2, 0.1, true);
        let inputs = [
            translation(&shape, &[3, 70, 1], &[66, 2, 5]),
            translation(&shape, &[9, 4], &[1, 80]),
        ];
        let what = "encoder and decoder, two batches";
        gradients(device, &shape, &inputs, precision, what, each)?;
        steps(device, precision, each)?;
        repeats(device, precision, each)?;
    }
    heads(device, each)?;
    evaluation(device, each)
}

fn shape(hidden: usize, heads: usize, layers: usize, dropout: f32, decoder: bool) -> Shape {
    Shape {
        settings: ModelSettings {
            layers,
            hidden,
            heads,
            feed_forward: 2 * hidden,
            positions: 300,
            dropout,
            attention_dropout: dropout,
            language_embeddings: true,
        },
        // No multiple of eight: rows of logits are padded.
        vocabulary: 45,
        languages: 3,
        decoder,
    }
}

fn batch(shape: &Shape, lengths: &[usize], seed: u64, direction: Direction) -> LanguageModelBatch {
    let mut random = Random::new(seed, "selftest", 0);
    let mut batch = Batch::new();
    let mut targets = Targets::default();
    let mut below = |most: usize| random.below(most as u64) as u32;
    for &length in lengths {
        let tokens: Vec<u32> = (0..length).map(|_| below(shape.vocabulary)).collect();
        for row in batch.tokens.len()..batch.tokens.len() + length {
            if below(5) < 2 {
                targets.indices.push(row as u32);
                targets.labels.push(below(shape.vocabulary));
            }
        }
        batch.push(&tokens, below(shape.languages));
    }
    LanguageModelBatch {
        batch,
        targets,
        direction,
        source: None,
    }
}

fn translation(shape: &Shape, lengths: &[usize], sources: &[usize]) -> LanguageModelBatch {
    LanguageModelBatch {
        source: Some(batch(shape, sources, 7, Direction::Bidirectional).batch),
        ..batch(shape, lengths, 3, Direction::Causal)
    }
}

fn trainer(shape: &Shape, device: &Device, precision: Precision) -> Result<Trainer> {
    let settings = AdamSettings {
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.98,
        epsilon: 1e-8,
        weight_decay: 0.01,
        clip: Some(1.0),
        schedule: Schedule::Constant,
    };
    let model = Model::initialise(shape, 5);
    Ok(Trainer::new(model, &settings, 100, device, 9)?.in_precision(precision))
}

/// The device's trainer, and the CPU's in 32 bits.
fn pair(shape: &Shape, device: &Device, precision: Precision) -> Result<[Trainer; 2]> {
    Ok([
        trainer(shape, device, precision)?,
        trainer(shape, &device.without_card(), Precision::F32)?,
    ])
}

fn limit(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1e-4,
        Precision::Bf16 => 0.04,
    }
}

fn bits(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    }
}

/// The largest error of two lists, NaN where there is one.
fn largest_error(ours: &[f32], theirs: &[f32]) -> f64 {
    ours.iter()
        .zip(theirs)
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, |most: f64, error| {
            if most.is_nan() || error.is_nan() {
                f64::NAN
            } else {
                most.max(error)
            }
        })
}

fn largest(values: &[f32]) -> f64 {
    values
        .iter()
        .fold(0f64, |most, value| most.max(f64::from(value.abs())))
}

/// Largest error of a gradient, as a share of its tensor's largest entry; of tensors whose gradient is next to nothing beside the
/// others, such as the key biases', as a share of a thousandth of all gradients' norm.
fn gradient_error([ours, cpu]: &[Trainer; 2]) -> Result<(f64, String)> {
    let names: Vec<String> = cpu
        .model()?
        .parameters()
        .map(|(name, _, _)| name.to_owned())
        .collect();
    let mut squares = 0f64;
    for name in &names {
        let gradient = cpu.gradient(name)?;
        squares += gradient
            .iter()
            .map(|value| f64::from(*value).powi(2))
            .sum::<f64>();
    }
    let floor = (1e-3 * squares.sqrt()).max(f64::MIN_POSITIVE);
    let mut worst = (0f64, String::new());
    for name in names {
        let expected = cpu.gradient(&name)?;
        let error =
            largest_error(&ours.gradient(&name)?, &expected) / largest(&expected).max(floor);
        if error.is_nan() || error > worst.0 {
            worst = (error, name);
        }
        if worst.0.is_nan() {
            break;
        }
    }
    Ok(worst)
}

fn gradients(
    device: &Device,
    shape: &Shape,
    inputs: &[LanguageModelBatch],
    precision: Precision,
    what: &str,
    each: &mut dyn FnMut(&Check),
) -> Result<()> {
    let mut worst = [(0f64, String::new()), (0f64, String::new())];
    let sets: Vec<&[LanguageModelBatch]> = match shape.decoder {
        true => vec![inputs],
        false => inputs.chunks(1).collect(),
    };
    for inputs in sets {
        let mut trainers = pair(shape, device, precision)?;
        let mut losses = Vec::new();
        for trainer in &mut trainers {
            losses.push(trainer.accumulate_language_model(inputs, 0.5)?);
        }
        let scale = losses[1].nats.max(f64::MIN_POSITIVE);
        let loss = (losses[0].nats - losses[1].nats).abs() / scale;
        for (worst, found) in worst
            .iter_mut()
            .zip([(loss, String::new()), gradient_error(&trainers)?])
        {
            if found.0.is_nan() || found.0 > worst.0 {
                *worst = found;
            }
        }
    }
    let [loss, gradient] = worst;
    let bits = bits(precision);
    each(&Check {
        name: format!("{bits}: loss, {what}"),
        error: loss.0,
        limit: limit(precision),
    });
    each(&Check {
        name: format!("{bits}: gradients, {what} (worst: {})", gradient.1),
        error: gradient.0,
        limit: limit(precision),
    });
    Ok(())
}

/// Losses of twenty steps without dropout: absolute, in nats.
fn steps(device: &Device, precision: Precision, each: &mut dyn FnMut(&Check)) -> Result<()> {
    let shape = shape(32, 1, 2, 0.0, false);
    let mut trainers = pair(&shape, device, precision)?;
    let mut worst = 0f64;
    for step in 0..STEPS {
        let input = [batch(&shape, &[12, 20, 5], step, Direction::Bidirectional)];
        let mut losses = Vec::new();
        for trainer in &mut trainers {
            losses.push(trainer.language_model_step(&input)?.loss);
        }
        worst = worst.max((losses[0] - losses[1]).abs());
    }
    each(&Check {
        name: format!("{}: losses of {STEPS} steps", bits(precision)),
        error: worst,
        limit: match precision {
            Precision::F32 => 1e-4,
            Precision::Bf16 => 0.02,
        },
    });
    Ok(())
}

/// Parameters that differ in any bit between two runs, and between one run and one that was saved and resumed.
fn repeats(device: &Device, precision: Precision, each: &mut dyn FnMut(&Check)) -> Result<()> {
    let shape = shape(64, 1, 1, 0.1, false);
    let input = |step| [batch(&shape, &[12, 70, 5], step, Direction::Bidirectional)];
    let folder = tempfile::tempdir().context("cannot create a folder for a checkpoint")?;
    let state = folder.path().join("state.safetensors");
    let mut trainers = [
        trainer(&shape, device, precision)?,
        trainer(&shape, device, precision)?,
        trainer(&shape, device, precision)?,
    ];
    for step in 0..4 {
        for trainer in &mut trainers[..2] {
            trainer.language_model_step(&input(step))?;
        }
        if step == 1 {
            trainers[0].save_state(&state)?;
            trainers[2].load_state(&state)?;
        }
        if step > 1 {
            trainers[2].language_model_step(&input(step))?;
        }
    }
    let [first, second, resumed] = &trainers;
    for (what, other) in [("of a second run", second), ("after resuming", resumed)] {
        let [ours, theirs] = [first.model()?, other.model()?];
        let differing: usize = ours
            .parameters()
            .zip(theirs.parameters())
            .map(|((_, _, a), (_, _, b))| {
                let pairs = a.iter().zip(b);
                pairs.filter(|(a, b)| a.to_bits() != b.to_bits()).count()
            })
            .sum();
        each(&Check {
            name: format!("{}: parameters that differ {what}", bits(precision)),
            error: differing as f64,
            limit: 0.0,
        });
    }
    Ok(())
}

/// A loss at two taps with a tied parameter, and frozen layers below.
fn heads(device: &Device, each: &mut dyn FnMut(&Check)) -> Result<()> {
    let shape = shape(32, 2, 3, 0.1, false);
    let input = batch(&shape, &[5, 1, 70, 3], 1, Direction::Bidirectional).batch;
    let mut trainers = pair(&shape, device, Precision::F32)?;
    for trainer in &mut trainers {
        trainer.freeze(|name| name.starts_with("embeddings") || name.starts_with("layers.0"))?;
        let taps = [Tap::Last, Tap::Layer(2), Tap::First];
        let pass = trainer.forward(&input, Direction::Bidirectional, &taps)?;
        let upper = pass.tap(Tap::Last)?.tanh()?.sum_all()?;
        let lower = pass.tap(Tap::Layer(2))?.sqr()?.sum_all()?;
        let tied = trainer.parameter("output.bias")?.sqr()?.sum_all()?;
        let first = pass.tap(Tap::First)?.sin()?.sum_all()?;
        let loss = (((upper + lower)? + tied)? + first)?;
        trainer.backward_loss(vec![pass], &loss)?;
    }
    let (error, name) = gradient_error(&trainers)?;
    each(&Check {
        name: format!("f32: gradients from three taps, frozen layers (worst: {name})"),
        error,
        limit: 1e-4,
    });
    let mut norms = Vec::new();
    for trainer in &mut trainers {
        norms.push(trainer.apply(10.0)?.gradient_norm);
    }
    each(&Check {
        name: "f32: norm of that gradient".to_owned(),
        error: (norms[0] / norms[1] - 1.0).abs(),
        limit: 1e-4,
    });
    let [ours, cpu] = [trainers[0].model()?, trainers[1].model()?];
    let frozen = ours
        .parameters()
        .zip(cpu.parameters())
        .filter(|((name, _, a), (_, _, b))| name.starts_with("layers.0") && a != b)
        .count();
    each(&Check {
        name: "f32: frozen parameters that moved".to_owned(),
        error: frozen as f64,
        limit: 0.0,
    });
    Ok(())
}

/// States at every tap, and the loss, without dropout.
fn evaluation(device: &Device, each: &mut dyn FnMut(&Check)) -> Result<()> {
    let shape = shape(48, 4, 2, 0.1, true);
    let encoders = [device.clone(), device.without_card()]
        .map(|device| Encoder::new(Model::initialise(&shape, 5), &device));
    let input = translation(&shape, &[3, 70, 1], &[66, 2, 5]);
    let mut losses = Vec::new();
    for encoder in &encoders {
        losses.push(encoder.language_model_loss(&input)?);
    }
    each(&Check {
        name: "f32: loss in evaluation".to_owned(),
        error: (losses[0].nats / losses[1].nats - 1.0).abs(),
        limit: 1e-5,
    });
    let mut worst = 0f64;
    for tap in [Tap::Embeddings, Tap::Layer(1), Tap::Last, Tap::First] {
        let mut states = Vec::new();
        for encoder in &encoders {
            let found = encoder.predict(&input.batch, Direction::Bidirectional, tap)?;
            states.push(found.flatten_all()?.to_vec1::<f32>()?);
        }
        worst = worst.max(largest_error(&states[0], &states[1]) / largest(&states[1]));
    }
    each(&Check {
        name: "f32: states in evaluation".to_owned(),
        error: worst,
        limit: 1e-4,
    });
    Ok(())
}
