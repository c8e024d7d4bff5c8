//! What must hold for every batch of the training engine: packing, threads, micro-batches, resume, errors.

use candle_core::Tensor;
use xlt::kernels::Device;
use xlt::model::{Batch, Direction, LanguageModelBatch, Model, Tap, Targets};
use xlt::training::{AdamSettings, NotFinite, Trainer};

use crate::engine::{adam, all_values, gradients, random_batch, tiny, trainer, values};

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
            source: None,
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
        (losses, all_values(trainer.model().unwrap()))
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
            source: None,
        }
    };
    let mut unsplit = trainer(&shape, 2);
    let mut split = trainer(&shape, 2);
    let first = unsplit
        .language_model_step(std::slice::from_ref(&whole))
        .unwrap();
    let second = split.language_model_step(&[half(0), half(32)]).unwrap();
    assert_eq!(first, second);
    assert_eq!(
        all_values(unsplit.model().unwrap()),
        all_values(split.model().unwrap())
    );
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
    assert_eq!(
        all_values(whole.model().unwrap()),
        all_values(resumed.model().unwrap())
    );
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
    assert_eq!(
        all_values(plain.model().unwrap()),
        all_values(evaluated.model().unwrap())
    );
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
    assert_eq!(all_values(trainer.model().unwrap()), before);
    assert_eq!(trainer.updates(), 0);
    assert!(
        gradients(&trainer)
            .iter()
            .all(|(_, gradient)| gradient.iter().all(|&g| g == 0.0))
    );

    let mut trainer = crate::engine::trainer(&shape, 1);
    let before = all_values(trainer.model().unwrap());
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
    assert_eq!(all_values(trainer.model().unwrap()), before);
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
    check(&|input| input.batch.languages.truncate(12), "languages");
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

/// The last layer then computes these alone, unless another tap reads all of it.
#[test]
fn first_tokens_have_the_states_and_gradients_that_they_have_among_all() {
    let shape = tiny(0.1);
    let input = random_batch(&shape, &[1, 30, 64, 1, 17, 64, 2, 64, 40], 3);
    let first = Tensor::new(&input.batch.offsets[..9], &candle_core::Device::Cpu).unwrap();
    let run = |taps: &[Tap]| {
        let mut trainer = trainer(&shape, 2);
        let pass = trainer
            .forward(&input.batch, Direction::Bidirectional, taps)
            .unwrap();
        let mut read = Vec::new();
        let mut loss = Tensor::zeros((), candle_core::DType::F32, first.device()).unwrap();
        for &tap in taps {
            let mut states = pass.tap(tap).unwrap();
            if tap == Tap::Last {
                states = states.index_select(&first, 0).unwrap();
            }
            read.push(values(&states));
            let sum = states.sin().unwrap().sum_all().unwrap();
            loss = (loss + sum).unwrap();
        }
        trainer.backward_loss(vec![pass], &loss).unwrap();
        let predicted = trainer.predict(&input.batch, Direction::Bidirectional, taps[0]);
        let mut predicted = predicted.unwrap();
        if taps[0] == Tap::Last {
            predicted = predicted.index_select(&first, 0).unwrap();
        }
        (read, values(&predicted), gradients(&trainer))
    };
    assert_eq!(run(&[Tap::Last]), run(&[Tap::First]));
    assert_eq!(
        run(&[Tap::Last, Tap::Layer(1)]),
        run(&[Tap::First, Tap::Layer(1)])
    );
    // A gradient below the last layer leaves it out, and one at a tap that the pass has not is refused.
    let lower = |top: Tap| {
        let mut trainer = trainer(&shape, 2);
        let taps = [top, Tap::Layer(1)];
        let pass = trainer
            .forward(&input.batch, Direction::Bidirectional, &taps)
            .unwrap();
        let loss = pass.tap(Tap::Layer(1)).unwrap().sin().unwrap();
        trainer
            .backward_loss(vec![pass], &loss.sum_all().unwrap())
            .unwrap();
        gradients(&trainer)
    };
    assert_eq!(lower(Tap::Last), lower(Tap::First));
    let mut trainer_of_first = trainer(&shape, 2);
    let pass = trainer_of_first
        .forward(&input.batch, Direction::Bidirectional, &[Tap::First])
        .unwrap();
    let all = Tensor::zeros((283, 16), candle_core::DType::F32, first.device()).unwrap();
    let error = trainer_of_first.backward(pass, &[(Tap::Last, all)]);
    assert!(error.unwrap_err().to_string().contains("no tap Last"));
    // Twice the gradient, of which half comes from each.
    let (states, predicted, both) = run(&[Tap::First, Tap::Last]);
    let (_, alone, once) = run(&[Tap::First]);
    assert_eq!((&states[0], predicted), (&states[1], alone));
    for ((name, both), (_, once)) in both.iter().zip(&once) {
        for (both, once) in both.iter().zip(once) {
            assert!(
                (both - 2.0 * once).abs() <= 1e-5 * once.abs().max(1.0),
                "{name}"
            );
        }
    }
}
