//! The training engine against PyTorch (`oracles/engine.py`), finite differences and its own invariants.

use std::path::Path;

use candle_core::Tensor;
use safetensors::SafeTensors;
use serde::Deserialize;
use xlt::kernels::Device;
use xlt::model::{
    Batch, Direction, Encoder, LanguageModelBatch, Model, ModelSettings, Shape, Tap, Targets,
};
use xlt::random::Random;
use xlt::training::{AdamSettings, NotFinite, Schedule, Trainer};

// Helpers

fn settings(
    layers: usize,
    hidden: usize,
    heads: usize,
    feed_forward: usize,
    dropout: f32,
) -> ModelSettings {
    ModelSettings {
        layers,
        hidden,
        heads,
        feed_forward,
        positions: 64,
        dropout,
        attention_dropout: dropout,
        language_embeddings: true,
    }
}

fn tiny(dropout: f32) -> Shape {
    Shape {
        settings: settings(2, 16, 2, 32, dropout),
        vocabulary: 41,
        languages: 3,
    }
}

fn adam(learning_rate: f64) -> AdamSettings {
    AdamSettings {
        learning_rate,
        beta1: 0.9,
        beta2: 0.98,
        epsilon: 1e-8,
        weight_decay: 0.01,
        clip: Some(1.0),
        schedule: Schedule::Constant,
    }
}

fn trainer(shape: &Shape, threads: usize) -> Trainer {
    Trainer::new(
        Model::initialise(shape, 5),
        &adam(1e-3),
        100,
        &Device::cpu(threads),
        9,
    )
    .unwrap()
}

fn random_batch(shape: &Shape, lengths: &[usize], seed: u64) -> LanguageModelBatch {
    let mut random = Random::new(seed, "test batch", 0);
    let mut batch = Batch::new();
    let mut targets = Targets::default();
    for &length in lengths {
        let tokens: Vec<u32> = (0..length)
            .map(|_| random.below(shape.vocabulary as u64) as u32)
            .collect();
        for row in batch.tokens.len()..batch.tokens.len() + length {
            if random.uniform() < 0.4 {
                targets.indices.push(row as u32);
                targets
                    .labels
                    .push(random.below(shape.vocabulary as u64) as u32);
            }
        }
        batch.push(&tokens, random.below(shape.languages as u64) as u32);
    }
    LanguageModelBatch {
        batch,
        targets,
        direction: Direction::Bidirectional,
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn gradients(trainer: &Trainer) -> Vec<(String, Vec<f32>)> {
    trainer
        .model()
        .parameters()
        .map(|(name, _, _)| (name.to_owned(), trainer.gradient(name).unwrap().to_vec()))
        .collect()
}

fn all_values(model: &Model) -> Vec<u32> {
    model
        .parameters()
        .flat_map(|(_, _, values)| values.iter().map(|value| value.to_bits()))
        .collect()
}

// PyTorch

#[derive(Deserialize)]
struct Record {
    shape: Shape,
    causal: bool,
    batches: Vec<OracleBatch>,
    losses: Vec<f64>,
    #[serde(default)]
    norms: Vec<f64>,
}

#[derive(Deserialize)]
struct OracleBatch {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    languages: Vec<u32>,
    offsets: Vec<u32>,
    indices: Vec<u32>,
    labels: Vec<u32>,
}

struct Oracle {
    bytes: Vec<u8>,
    record: Record,
}

impl Oracle {
    fn read(name: &str) -> Oracle {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("tests/fixtures/engine_{name}.safetensors"));
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let record =
            serde_json::from_str(&metadata.metadata().as_ref().unwrap()["record"]).unwrap();
        Oracle { bytes, record }
    }

    fn tensor(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let data = file.tensor(name).unwrap().data().to_vec();
        data.chunks(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect()
    }

    fn model(&self) -> Model {
        let mut model = Model::initialise(&self.record.shape, 0);
        let names: Vec<String> = model
            .parameters()
            .map(|(name, _, _)| name.to_owned())
            .collect();
        for name in names {
            let stored = self.tensor(&format!("parameters/{name}"));
            model.parameter_mut(&name).unwrap().copy_from_slice(&stored);
        }
        model
    }

    fn batches(&self) -> Vec<LanguageModelBatch> {
        let direction = if self.record.causal {
            Direction::Causal
        } else {
            Direction::Bidirectional
        };
        self.record
            .batches
            .iter()
            .map(|b| LanguageModelBatch {
                batch: Batch {
                    tokens: b.tokens.clone(),
                    positions: b.positions.clone(),
                    languages: b.languages.clone(),
                    offsets: b.offsets.clone(),
                },
                targets: Targets {
                    indices: b.indices.clone(),
                    labels: b.labels.clone(),
                },
                direction,
            })
            .collect()
    }
}

/// The rows of key biases in the fused projection's bias.
fn is_key_bias(name: &str, index: usize, hidden: usize) -> bool {
    name.ends_with("query_key_value.bias") && (hidden..2 * hidden).contains(&index)
}

#[test]
fn loss_and_every_gradient_agree_with_pytorch() {
    for name in ["bidirectional", "causal", "parts", "odd", "long"] {
        let oracle = Oracle::read(name);
        let model = oracle.model();
        let hidden = oracle.record.shape.settings.hidden;
        let mut trainer = Trainer::new(model, &adam(1e-3), 1, &Device::cpu(2), 0).unwrap();
        let batches = oracle.batches();
        let expected = oracle.record.losses[0];
        let evaluated: f64 = batches
            .iter()
            .map(|batch| trainer.language_model_loss(batch).unwrap().nats)
            .sum();
        let loss = trainer
            .accumulate_language_model(&batches, 1.0)
            .unwrap()
            .nats;
        assert!(
            (loss - expected).abs() < 1e-5 * expected,
            "{name}: {loss} {expected}"
        );
        assert!(
            (evaluated - expected).abs() < 1e-5 * expected,
            "{name}: {evaluated} {expected}"
        );
        let found = gradients(&trainer);
        let norm = found
            .iter()
            .flat_map(|(_, g)| g)
            .map(|g| f64::from(*g).powi(2))
            .sum::<f64>()
            .sqrt();
        for (parameter, gradient) in &found {
            let truth = oracle.tensor(&format!("gradients/{parameter}"));
            let largest = truth.iter().fold(0f32, |a, b| a.max(b.abs()));
            for (index, (got, want)) in gradient.iter().zip(&truth).enumerate() {
                if is_key_bias(parameter, index, hidden) {
                    assert!(
                        f64::from(got.abs()) <= 1e-6 * norm,
                        "{name} {parameter}[{index}]: {got}"
                    );
                } else {
                    // A sequence of one token gives query and key no gradient at all.
                    let slack = 1e-4 * largest + 1e-7 * norm as f32;
                    assert!(
                        (got - want).abs() <= slack,
                        "{name} {parameter}[{index}]: {got} {want} of {largest}"
                    );
                }
            }
        }
    }
}

#[test]
fn twenty_steps_have_the_losses_of_pytorch() {
    let oracle = Oracle::read("steps");
    let mut trainer = Trainer::new(oracle.model(), &adam(1e-3), 20, &Device::cpu(2), 0).unwrap();
    let batches = oracle.batches();
    for (step, (&loss, &norm)) in oracle
        .record
        .losses
        .iter()
        .zip(&oracle.record.norms)
        .enumerate()
    {
        let report = trainer
            .language_model_step(&batches[step % batches.len()..][..1])
            .unwrap();
        assert!(
            (report.loss - loss).abs() < 1e-4,
            "step {step}: {} {loss}",
            report.loss
        );
        assert!(
            (report.gradient_norm / norm - 1.0).abs() < 1e-3,
            "step {step}: {} {norm}",
            report.gradient_norm
        );
    }
}

// Finite differences, through a candle head at taps

/// sum over tokens of weight . tanh(states) at two taps, and of the squares at the embeddings.
fn head_loss(weight: &Tensor, taps: [&Tensor; 3]) -> Tensor {
    let first = taps[0]
        .tanh()
        .unwrap()
        .matmul(weight)
        .unwrap()
        .sum_all()
        .unwrap();
    let second = taps[1]
        .matmul(weight)
        .unwrap()
        .sqr()
        .unwrap()
        .sum_all()
        .unwrap();
    let third = taps[2].powf(3.0).unwrap().sum_all().unwrap();
    ((first + (second * 0.5).unwrap()).unwrap() + (third * 0.1).unwrap()).unwrap()
}

const TAPS: [Tap; 3] = [Tap::Last, Tap::Layer(1), Tap::Embeddings];

#[test]
fn gradients_through_a_head_at_three_taps_agree_with_finite_differences() {
    let shape = tiny(0.0);
    let mut trainer = trainer(&shape, 2);
    let initial: Vec<f32> = (0..16).map(|i| (i as f32 * 0.7).sin()).collect();
    trainer
        .add_head_parameter("head", &[16, 1], initial.clone(), 1e-3)
        .unwrap();
    let batch = random_batch(&shape, &[5, 1, 4], 3).batch;
    let pass = trainer.forward(&batch, Direction::Causal, &TAPS).unwrap();
    let states = TAPS.map(|tap| pass.tap(tap).unwrap());
    let weight = trainer.head_parameter("head").unwrap();
    let loss = head_loss(&weight, [&states[0], &states[1], &states[2]]);
    trainer.backward_loss(vec![pass], &loss).unwrap();
    let found = gradients(&trainer);

    let loss_of = |model: &Model, initial: &[f32]| -> f64 {
        let encoder = Encoder::new(model.clone(), &Device::cpu(1));
        let states = TAPS.map(|tap| encoder.predict(&batch, Direction::Causal, tap).unwrap());
        let weight = Tensor::from_slice(initial, (16, 1), &candle_core::Device::Cpu).unwrap();
        f64::from(
            head_loss(&weight, [&states[0], &states[1], &states[2]])
                .to_scalar::<f32>()
                .unwrap(),
        )
    };
    // Along random directions in each parameter, all entries at once: f32 leaves too little of single entries.
    for (name, gradient) in &found {
        if name == "output.bias" {
            assert!(gradient.iter().all(|&g| g == 0.0));
            continue;
        }
        let mut random = Random::new(1, name, 0);
        let direction: Vec<f32> = gradient.iter().map(|_| random.normal() as f32).collect();
        let step = 2e-3f32;
        let moved = |sign: f32| {
            let mut model = trainer.model().clone();
            for (value, d) in model
                .parameter_mut(name)
                .unwrap()
                .iter_mut()
                .zip(&direction)
            {
                *value += sign * step * d;
            }
            loss_of(&model, &initial)
        };
        let numeric = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(step));
        let mut analytic: f64 = gradient
            .iter()
            .zip(&direction)
            .map(|(g, d)| f64::from(g * d))
            .sum();
        if name == "embeddings.token" {
            // Lookups of the padding token train nothing, yet the loss depends on them.
            let uses_pad = batch.tokens.contains(&2);
            assert!(!uses_pad, "choose a batch without padding tokens");
        }
        analytic += 0.0;
        let scale = gradient
            .iter()
            .map(|g| f64::from(*g).powi(2))
            .sum::<f64>()
            .sqrt();
        assert!(
            (numeric - analytic).abs() < 1e-2 * scale + 5e-3,
            "{name}: {numeric} {analytic} of {scale}"
        );
    }
    // One update moves the head against its gradient.
    trainer.apply(1.0).unwrap();
    assert_ne!(values(&trainer.head_parameter("head").unwrap()), initial);
}

#[test]
fn two_live_passes_add_their_gradients_in_either_order() {
    let shape = tiny(0.1);
    let batches = [
        random_batch(&shape, &[5, 9], 1).batch,
        random_batch(&shape, &[7, 2, 3], 2).batch,
    ];
    let run = |order: [usize; 2]| {
        let mut trainer = trainer(&shape, 2);
        let mut passes: Vec<_> = batches
            .iter()
            .map(|batch| {
                Some(
                    trainer
                        .forward(batch, Direction::Bidirectional, &[Tap::Last])
                        .unwrap(),
                )
            })
            .collect();
        for index in order {
            let pass = passes[index].take().unwrap();
            let loss = pass
                .tap(Tap::Last)
                .unwrap()
                .powf(3.0)
                .unwrap()
                .sum_all()
                .unwrap();
            trainer.backward_loss(vec![pass], &loss).unwrap();
        }
        gradients(&trainer)
    };
    let (forward, reverse) = (run([0, 1]), run([1, 0]));
    let mut single = trainer(&shape, 1);
    let pass = single
        .forward(&batches[0], Direction::Bidirectional, &[Tap::Last])
        .unwrap();
    let loss = pass
        .tap(Tap::Last)
        .unwrap()
        .powf(3.0)
        .unwrap()
        .sum_all()
        .unwrap();
    single.backward_loss(vec![pass], &loss).unwrap();
    let mut differs = false;
    for (((name, a), (_, b)), (_, c)) in forward.iter().zip(&reverse).zip(&gradients(&single)) {
        let largest = a.iter().fold(0f32, |x, y| x.max(y.abs()));
        assert!(
            a.iter()
                .zip(b)
                .all(|(x, y)| (x - y).abs() <= 1e-5 * largest),
            "{name}"
        );
        differs |= a != c;
    }
    assert!(differs, "the second pass adds nothing");
}

#[test]
fn taps_and_the_fused_loss_give_the_same_gradients() {
    let shape = tiny(0.1);
    let input = random_batch(&shape, &[6, 3, 9, 1], 4);
    let mut fused = trainer(&shape, 2);
    let total = fused
        .accumulate_language_model(std::slice::from_ref(&input), 1.0)
        .unwrap();
    // The same with the output layer in candle; the masks are those of the first pass in both.
    let mut tapped = trainer(&shape, 2);
    let pass = tapped
        .forward(&input.batch, Direction::Bidirectional, &[Tap::Last])
        .unwrap();
    let cpu = &candle_core::Device::Cpu;
    let table = Tensor::from_slice(
        fused.model().parameter("embeddings.token").unwrap(),
        (41, 16),
        cpu,
    )
    .unwrap();
    let bias =
        Tensor::from_slice(fused.model().parameter("output.bias").unwrap(), 41, cpu).unwrap();
    let indices =
        Tensor::from_slice(&input.targets.indices, input.targets.indices.len(), cpu).unwrap();
    let labels =
        Tensor::from_slice(&input.targets.labels, (input.targets.labels.len(), 1), cpu).unwrap();
    let states = pass
        .tap(Tap::Last)
        .unwrap()
        .index_select(&indices, 0)
        .unwrap();
    let logits = states
        .matmul(&table.t().unwrap())
        .unwrap()
        .broadcast_add(&bias)
        .unwrap();
    let log_sum = logits.exp().unwrap().sum_keepdim(1).unwrap().log().unwrap();
    let loss = (log_sum - logits.gather(&labels, 1).unwrap())
        .unwrap()
        .sum_all()
        .unwrap();
    let value = tapped.backward_loss(vec![pass], &loss).unwrap();
    assert!((value - total.nats).abs() < 1e-4 * value);
    for ((name, a), (_, b)) in gradients(&fused).iter().zip(&gradients(&tapped)) {
        if name == "embeddings.token" || name == "output.bias" {
            continue;
        }
        let largest = a.iter().fold(0f32, |x, y| x.max(y.abs()));
        assert!(
            a.iter()
                .zip(b)
                .all(|(x, y)| (x - y).abs() <= 1e-4 * largest + 1e-5),
            "{name}"
        );
    }
}

// Invariants

#[test]
fn packing_does_not_change_the_loss() {
    let shape = tiny(0.1);
    let trainer = trainer(&shape, 2);
    let whole = random_batch(&shape, &[9, 1, 30, 64, 2, 17, 64], 8);
    let total = trainer.language_model_loss(&whole).unwrap();
    let mut nats = 0.0;
    let mut correct = 0;
    for sequence in 0..whole.batch.sequences() {
        let (start, end) = (
            whole.batch.offsets[sequence],
            whole.batch.offsets[sequence + 1],
        );
        let rows = start as usize..end as usize;
        let mut batch = Batch::new();
        batch.push(
            &whole.batch.tokens[rows.clone()],
            whole.batch.languages[rows.start],
        );
        let mut targets = Targets::default();
        for (&index, &label) in whole.targets.indices.iter().zip(&whole.targets.labels) {
            if (start..end).contains(&index) {
                targets.indices.push(index - start);
                targets.labels.push(label);
            }
        }
        let alone = LanguageModelBatch {
            batch,
            targets,
            direction: whole.direction,
        };
        let loss = trainer.language_model_loss(&alone).unwrap();
        nats += loss.nats;
        correct += loss.correct;
        // Not close: equal, bit for bit.
        let together = trainer
            .predict(&whole.batch, whole.direction, Tap::Last)
            .unwrap();
        let single = trainer
            .predict(&alone.batch, whole.direction, Tap::Last)
            .unwrap();
        assert_eq!(
            values(&together)[rows.start * 16..rows.end * 16],
            values(&single)
        );
    }
    assert!((nats - total.nats).abs() < 1e-9 * nats);
    assert_eq!(correct, total.correct);
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let shape = tiny(0.1);
    let run = |threads: usize| {
        let mut trainer = trainer(&shape, threads);
        trainer
            .add_head_parameter("head", &[16], vec![0.1; 16], 1e-2)
            .unwrap();
        let mut losses = Vec::new();
        for step in 0..4 {
            let input = random_batch(&shape, &[60, 3, 44, 64, 9, 64, 64, 1, 30, 64], step);
            losses.push(
                trainer
                    .language_model_step(std::slice::from_ref(&input))
                    .unwrap()
                    .loss
                    .to_bits(),
            );
            let pass = trainer
                .forward(&input.batch, Direction::Causal, &[Tap::Layer(1)])
                .unwrap();
            let head = trainer.head_parameter("head").unwrap();
            let loss = pass
                .tap(Tap::Layer(1))
                .unwrap()
                .broadcast_mul(&head)
                .unwrap()
                .sum_all()
                .unwrap();
            losses.push(trainer.backward_loss(vec![pass], &loss).unwrap().to_bits());
            trainer.apply(7.0).unwrap();
        }
        (losses, all_values(trainer.model()))
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(3));
    assert_eq!(one, run(8));
}

#[test]
fn micro_batches_of_whole_shards_give_the_bits_of_the_whole_batch() {
    let shape = tiny(0.1);
    let whole = random_batch(&shape, &[32; 64], 6);
    let half = |first: usize| {
        let (start, end) = (first as u32 * 32, (first as u32 + 32) * 32);
        let rows = start as usize..end as usize;
        let inside = |index: &u32| (start..end).contains(index);
        let labels = whole.targets.indices.iter().zip(&whole.targets.labels);
        LanguageModelBatch {
            batch: Batch {
                tokens: whole.batch.tokens[rows.clone()].to_vec(),
                positions: whole.batch.positions[rows.clone()].to_vec(),
                languages: whole.batch.languages[rows].to_vec(),
                offsets: (0..=32).map(|sequence| sequence * 32).collect(),
            },
            targets: Targets {
                labels: labels
                    .filter(|(index, _)| inside(index))
                    .map(|(_, label)| *label)
                    .collect(),
                indices: whole
                    .targets
                    .indices
                    .iter()
                    .filter(|index| inside(index))
                    .map(|index| index - start)
                    .collect(),
            },
            direction: whole.direction,
        }
    };
    let mut unsplit = trainer(&shape, 2);
    let mut split = trainer(&shape, 2);
    let first = unsplit
        .language_model_step(std::slice::from_ref(&whole))
        .unwrap();
    let second = split.language_model_step(&[half(0), half(32)]).unwrap();
    assert_eq!(first, second);
    assert_eq!(all_values(unsplit.model()), all_values(split.model()));
}

#[test]
fn a_resumed_run_has_the_bits_of_an_uninterrupted_one() {
    let shape = tiny(0.1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let fresh = || {
        let mut trainer = trainer(&shape, 2);
        trainer
            .add_head_parameter("head", &[16], vec![0.1; 16], 1e-2)
            .unwrap();
        trainer
    };
    let step = |trainer: &mut Trainer, seed: u64| {
        let input = random_batch(&shape, &[20, 7, 30], seed);
        trainer
            .accumulate_language_model(std::slice::from_ref(&input), 1.0)
            .unwrap();
        let pass = trainer
            .forward(&input.batch, Direction::Bidirectional, &[Tap::Last])
            .unwrap();
        let head = trainer.head_parameter("head").unwrap();
        let loss = pass
            .tap(Tap::Last)
            .unwrap()
            .broadcast_mul(&head)
            .unwrap()
            .sum_all()
            .unwrap();
        trainer.backward_loss(vec![pass], &loss).unwrap();
        trainer.apply(10.0).unwrap();
    };
    let mut whole = fresh();
    (0..3).for_each(|seed| step(&mut whole, seed));
    whole.save_state(&path).unwrap();
    let mut resumed = fresh();
    resumed.load_state(&path).unwrap();
    assert_eq!(resumed.updates(), 3);
    for seed in 3..6 {
        step(&mut whole, seed);
        step(&mut resumed, seed);
    }
    assert_eq!(all_values(whole.model()), all_values(resumed.model()));
    let heads = [&whole, &resumed].map(|trainer| values(&trainer.head_parameter("head").unwrap()));
    assert_eq!(heads[0], heads[1]);

    let bytes = std::fs::read(&path).unwrap();
    resumed.load_state(&path).unwrap();
    resumed.save_state(&path).unwrap();
    assert_eq!(
        bytes,
        std::fs::read(&path).unwrap(),
        "saving is deterministic"
    );
    let other = AdamSettings {
        beta2: 0.999,
        ..adam(1e-3)
    };
    let mut other = Trainer::new(
        Model::initialise(&shape, 5),
        &other,
        100,
        &Device::cpu(1),
        9,
    )
    .unwrap();
    let error = format!("{:#}", other.load_state(&path).unwrap_err());
    assert!(error.contains("optimizer differs"), "{error}");
    std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    assert!(format!("{:#}", resumed.load_state(&path).unwrap_err()).contains("truncated"));
}

#[test]
fn evaluation_touches_no_dropout_stream() {
    let shape = tiny(0.1);
    let input = random_batch(&shape, &[20, 7, 30], 1);
    let mut plain = trainer(&shape, 1);
    let mut evaluated = trainer(&shape, 1);
    for _ in 0..2 {
        evaluated.language_model_loss(&input).unwrap();
        evaluated
            .predict(&input.batch, Direction::Causal, Tap::Embeddings)
            .unwrap();
        let report = evaluated
            .language_model_step(std::slice::from_ref(&input))
            .unwrap();
        assert_eq!(
            report,
            plain
                .language_model_step(std::slice::from_ref(&input))
                .unwrap()
        );
    }
    assert_eq!(all_values(plain.model()), all_values(evaluated.model()));
}

#[test]
fn training_learns_to_copy() {
    let shape = tiny(0.0);
    let mut trainer = Trainer::new(
        Model::initialise(&shape, 1),
        &adam(1e-2),
        150,
        &Device::cpu(2),
        1,
    )
    .unwrap();
    let mut last = f64::NAN;
    for step in 0..150 {
        let mut input = random_batch(&shape, &[8; 16], step);
        input.targets.labels = input
            .targets
            .indices
            .iter()
            .map(|&i| input.batch.tokens[i as usize])
            .collect();
        last = trainer
            .language_model_step(std::slice::from_ref(&input))
            .unwrap()
            .loss;
    }
    assert!(last < 0.1, "{last}");
}

#[test]
fn a_diverged_step_changes_nothing() {
    let shape = tiny(0.0);
    let mut model = Model::initialise(&shape, 1);
    model
        .parameter_mut("layers.1.feed_forward.outer.bias")
        .unwrap()[3] = f32::NAN;
    let before = all_values(&model);
    let mut trainer = Trainer::new(model, &adam(1e-3), 10, &Device::cpu(2), 1).unwrap();
    let input = random_batch(&shape, &[8; 4], 1);
    let error = trainer
        .language_model_step(std::slice::from_ref(&input))
        .unwrap_err();
    let diverged = error.downcast_ref::<NotFinite>().unwrap();
    assert_eq!(diverged.update, 1);
    assert!(diverged.loss.unwrap().is_nan());
    assert_eq!(all_values(trainer.model()), before);
    assert_eq!(trainer.updates(), 0);
    assert!(
        gradients(&trainer)
            .iter()
            .all(|(_, gradient)| gradient.iter().all(|&g| g == 0.0))
    );

    let mut trainer = self::trainer(&shape, 1);
    let before = all_values(trainer.model());
    let pass = trainer
        .forward(&input.batch, Direction::Causal, &[Tap::Last])
        .unwrap();
    let huge = Tensor::full(f32::INFINITY, (32, 16), &candle_core::Device::Cpu).unwrap();
    trainer.backward(pass, &[(Tap::Last, huge)]).unwrap();
    let error = trainer.apply(1.0).unwrap_err();
    assert!(
        error
            .downcast_ref::<NotFinite>()
            .unwrap()
            .gradient_norm
            .is_some()
    );
    assert_eq!(all_values(trainer.model()), before);
}

#[test]
fn impossible_batches_are_errors() {
    let shape = tiny(0.0);
    let mut trainer = trainer(&shape, 2);
    let good = random_batch(&shape, &[8, 5], 1);
    let mut check = |change: &dyn Fn(&mut LanguageModelBatch), says: &str| {
        let mut input = good.clone();
        change(&mut input);
        let error = format!(
            "{:#}",
            trainer
                .language_model_step(std::slice::from_ref(&input))
                .unwrap_err()
        );
        assert!(error.contains(says), "{error}");
    };
    check(&|input| input.batch.tokens[3] = 41, "token 41");
    check(&|input| input.batch.positions[3] = 64, "position 64");
    check(&|input| input.batch.languages[3] = 3, "language 3");
    check(&|input| input.batch.offsets[1] = 0, "no tokens");
    check(&|input| input.batch.offsets[1] = 99, "no tokens");
    check(&|input| input.batch.offsets[2] = 12, "offsets");
    check(&|input| input.batch.offsets.clear(), "offsets");
    check(&|input| drop(input.batch.languages.pop()), "languages");
    check(&|input| input.targets.labels[0] = 41, "vocabulary");
    check(&|input| input.targets.indices.reverse(), "order");
    check(
        &|input| *input.targets.indices.last_mut().unwrap() = 13,
        "behind",
    );
    check(&|input| input.targets = Targets::default(), "target");
    assert!(
        trainer
            .predict(&Batch::new(), Direction::Causal, Tap::Last)
            .unwrap()
            .dims()
            == [0, 16]
    );
    assert!(
        trainer
            .predict(&good.batch, Direction::Causal, Tap::Layer(3))
            .is_err()
    );
}

#[test]
fn models_survive_their_file_and_damaged_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let model = Model::initialise(&tiny(0.1), 3);
    assert!(
        model.parameter("embeddings.token").unwrap()[32..48]
            .iter()
            .all(|&value| value == 0.0)
    );
    model.save(&path).unwrap();
    let read = Model::load(&path).unwrap();
    assert_eq!(read.shape(), model.shape());
    assert_eq!(all_values(&read), all_values(&model));
    let bytes = std::fs::read(&path).unwrap();
    model.save(&path).unwrap();
    assert_eq!(bytes, std::fs::read(&path).unwrap());
    for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = format!("{:#}", Model::load(&path).unwrap_err());
        assert!(error.contains("model.safetensors"), "{error}");
    }
    assert!(Model::load(&folder.path().join("none")).is_err());
}
