//! A decoder over an encoder: training, and the search for translations.

use xlt::kernels::{Device, Precision};
use xlt::model::{
    Batch, Direction, Encoder, Hypothesis, LanguageModelBatch, Model, Search, Shape, Targets,
};
use xlt::objectives::translation::{between_ends, pairs_batch};
use xlt::random::Random;
use xlt::training::Trainer;

use crate::engine::{adam, all_values, gradients, settings};

const END: u32 = 1;

fn shape(vocabulary: usize, dropout: f32) -> Shape {
    Shape {
        settings: settings(2, 16, 2, 32, dropout),
        vocabulary,
        languages: 3,
        decoder: true,
    }
}

fn trainer(shape: &Shape, threads: usize) -> Trainer {
    let model = Model::initialise(shape, 5);
    Trainer::new(model, &adam(1e-3), 100, &Device::cpu(threads), 9).unwrap()
}

fn sentence(shape: &Shape, length: usize, random: &mut Random) -> Vec<u32> {
    let word = |_| 3 + random.below(shape.vocabulary as u64 - 3) as u32;
    let words: Vec<u32> = (0..length).map(word).collect();
    [vec![END], words, vec![END]].concat()
}

/// Pairs of sentences with these numbers of words.
fn pairs(shape: &Shape, lengths: &[(usize, usize)], seed: u64) -> LanguageModelBatch {
    let mut random = Random::new(seed, "pairs", 0);
    let (mut source, mut batch, mut targets) = (Batch::new(), Batch::new(), Targets::default());
    for &(from, to) in lengths {
        source.push(&sentence(shape, from, &mut random), 0);
        let tokens = sentence(shape, to, &mut random);
        for (row, label) in tokens.iter().enumerate().skip(1) {
            targets.indices.push((batch.token_count() + row - 1) as u32);
            targets.labels.push(*label);
        }
        batch.push(&tokens, 1);
    }
    LanguageModelBatch {
        batch,
        targets,
        direction: Direction::Causal,
        source: Some(source),
    }
}

/// As [`pairs`], each pair in a batch of its own.
fn one_by_one(together: &LanguageModelBatch) -> Vec<LanguageModelBatch> {
    let part = |batch: &Batch, index: usize| {
        let rows = batch.offsets[index] as usize..batch.offsets[index + 1] as usize;
        let mut one = Batch::new();
        one.push(&batch.tokens[rows.clone()], batch.languages[rows.start]);
        one
    };
    let sequences = 0..together.batch.sequences();
    sequences
        .map(|index| {
            let batch = part(&together.batch, index);
            let targets = Targets {
                indices: (0..batch.token_count() as u32 - 1).collect(),
                labels: batch.tokens[1..].to_vec(),
            };
            LanguageModelBatch {
                source: Some(part(together.source.as_ref().unwrap(), index)),
                batch,
                targets,
                direction: Direction::Causal,
            }
        })
        .collect()
}

#[test]
fn pairs_have_the_loss_of_each_by_itself() {
    let shape = shape(41, 0.0);
    let batch = pairs(&shape, &[(5, 9), (1, 1), (12, 3), (0, 4), (60, 60)], 1);
    let encoder = Encoder::new(Model::initialise(&shape, 5), &Device::cpu(2));
    let together = encoder.language_model_loss(&batch).unwrap();
    let alone: f64 = one_by_one(&batch)
        .iter()
        .map(|batch| encoder.language_model_loss(batch).unwrap().nats)
        .sum();
    assert!(
        (together.nats - alone).abs() < 1e-9 * alone,
        "{} {alone}",
        together.nats
    );
}

#[test]
fn translation_steps_have_the_same_bits_for_any_number_of_threads() {
    let shape = shape(41, 0.1);
    let run = |threads: usize| {
        let mut trainer = trainer(&shape, threads);
        for step in 0..3 {
            let lengths: Vec<(usize, usize)> = (0..40).map(|i| (3 + i % 11, 2 + i % 7)).collect();
            let batch = pairs(&shape, &lengths, step);
            trainer.language_model_step(&[batch]).unwrap();
        }
        all_values(trainer.model().unwrap())
    };
    assert_eq!(run(1), run(2));
    assert_eq!(run(1), run(5));
}

#[test]
fn a_frozen_encoder_leaves_the_decoder_its_gradients() {
    let shape = shape(41, 0.1);
    let batch = pairs(&shape, &[(5, 9), (7, 3), (12, 3)], 1);
    let run = |frozen: fn(&str) -> bool| {
        let mut trainer = trainer(&shape, 2);
        trainer.freeze(frozen).unwrap();
        trainer
            .accumulate_language_model(std::slice::from_ref(&batch), 1.0)
            .unwrap();
        gradients(&trainer)
    };
    let all = run(|_| false);
    let decoder = run(|name| !name.starts_with("decoder."));
    // The decoder wholly frozen, the encoder's gradient still comes through it.
    let encoder = run(|name| name.starts_with("decoder."));
    for (((name, all), (_, decoder)), (_, encoder)) in all.iter().zip(&decoder).zip(&encoder) {
        let (kept, frozen) = match name.starts_with("decoder.") {
            true => (decoder, encoder),
            false => (encoder, decoder),
        };
        assert!(all.iter().any(|&value| value != 0.0), "{name}");
        assert_eq!(kept, all, "{name}");
        assert!(frozen.iter().all(|&value| value == 0.0), "{name}");
    }
}

#[test]
fn a_decoder_reads_sources_and_nothing_else_does() {
    let translating = shape(41, 0.0);
    let plain = Shape {
        decoder: false,
        ..translating.clone()
    };
    let batch = pairs(&translating, &[(3, 4), (2, 5)], 1);
    let message =
        |shape: &Shape, batch: &LanguageModelBatch| batch.validate(shape).unwrap_err().to_string();
    assert!(message(&plain, &batch).contains("decoder"));
    let mut without = batch.clone();
    without.source = None;
    assert!(message(&translating, &without).contains("decoder"));
    let mut fewer = batch.clone();
    fewer.source = Some(pairs(&translating, &[(3, 4)], 1).batch);
    assert!(message(&translating, &fewer).contains("1 sources"));
    let search = Search {
        beam: 1,
        length_penalty: 1.0,
        longest: (1.0, 5),
        end: END,
    };
    let sources = batch.source.unwrap();
    let encoder = Encoder::new(Model::initialise(&plain, 5), &Device::cpu(1));
    assert!(encoder.translate(&sources, &[1, 1], &search).is_err());
    let encoder = Encoder::new(Model::initialise(&translating, 5), &Device::cpu(1));
    assert!(encoder.translate(&sources, &[1], &search).is_err());
    assert!(encoder.translate(&sources, &[1, 7], &search).is_err());
    assert_eq!(
        encoder.translate(&sources, &[1, 1], &search).unwrap().len(),
        2
    );
}

#[test]
fn a_model_learns_to_translate_sentences_it_has_not_seen() {
    let shape = Shape {
        settings: settings(1, 32, 2, 64, 0.0),
        vocabulary: 14 + 16,
        languages: 2,
        decoder: true,
    };
    // Words 14 to 21 of one language are 22 to 29 of the other, the other way round.
    let source = |random: &mut Random| -> Vec<u32> {
        let words = 1 + random.below(4);
        (0..words).map(|_| 14 + random.below(8) as u32).collect()
    };
    let translation =
        |source: &[u32]| -> Vec<u32> { source.iter().rev().map(|word| word + 8).collect() };
    let mut trainer = Trainer::new(
        Model::initialise(&shape, 1),
        &adam(3e-3),
        1000,
        &Device::cpu(2),
        1,
    )
    .unwrap();
    for step in 0..350 {
        let mut random = Random::new(1, "sentences", step);
        let sentences: Vec<(Vec<u32>, Vec<u32>)> = (0..32)
            .map(|_| {
                let source = source(&mut random);
                let translation = translation(&source);
                (source, translation)
            })
            .collect();
        let pairs = sentences
            .iter()
            .map(|(from, into)| (from.as_slice(), into.as_slice()));
        trainer
            .language_model_step(&[pairs_batch(pairs, (0, 1))])
            .unwrap();
    }
    let mut random = Random::new(2, "sentences", 0);
    let (mut batch, mut expected) = (Batch::new(), Vec::new());
    for _ in 0..200 {
        let source = source(&mut random);
        batch.push(&between_ends(&source), 0);
        expected.push(translation(&source));
    }
    let found = trainer
        .encoder()
        .translate(&batch, &[1; 200], &search(3, 1.0, (1.5, 5)))
        .unwrap();
    let right = found
        .iter()
        .zip(&expected)
        .filter(|(found, expected)| found[0].tokens == **expected)
        .count();
    assert!(right > 180, "{right} of 200");
}

// Search

/// ln p of every token after `tokens`, from the training code: nothing kept, one at a time.
fn next_log_probabilities(
    encoder: &Encoder,
    source: &[u32],
    language: u32,
    tokens: &[u32],
) -> Vec<f64> {
    let read: Vec<u32> = [&[END], tokens].concat();
    let loss = |label: u32| {
        let (mut of_source, mut batch) = (Batch::new(), Batch::new());
        of_source.push(source, 0);
        batch.push(&read, language);
        let input = LanguageModelBatch {
            targets: Targets {
                indices: vec![read.len() as u32 - 1],
                labels: vec![label],
            },
            batch,
            direction: Direction::Causal,
            source: Some(of_source),
        };
        -encoder.language_model_loss(&input).unwrap().nats
    };
    (0..encoder.shape().vocabulary as u32).map(loss).collect()
}

fn ranked(log_probability: f64, length: usize, penalty: f64) -> f64 {
    log_probability / (length as f64).powf(penalty)
}

/// Every sequence of at most `longest` tokens, its end among them.
fn brute_force(
    encoder: &Encoder,
    source: &[u32],
    language: u32,
    longest: usize,
    penalty: f64,
) -> Vec<(f64, Vec<u32>)> {
    let mut found = Vec::new();
    let mut open = vec![(0.0, Vec::new())];
    for length in 1..=longest {
        let mut longer = Vec::new();
        for (so_far, tokens) in &open {
            let next = next_log_probabilities(encoder, source, language, tokens);
            for (token, nats) in next.into_iter().enumerate() {
                let total: f64 = so_far + nats;
                let ends = token as u32 == END;
                let mut extended: Vec<u32> = tokens.clone();
                if !ends {
                    extended.push(token as u32);
                }
                if ends || length == longest {
                    found.push((ranked(total, length, penalty), extended));
                } else {
                    longer.push((total, extended));
                }
            }
        }
        open = longer;
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found
}

/// Beam search as textbooks have it: nothing kept, nothing shared.
fn plain_beam(
    encoder: &Encoder,
    source: &[u32],
    language: u32,
    longest: usize,
    (beam, penalty): (usize, f64),
) -> Vec<(f64, Vec<u32>)> {
    let mut ended: Vec<(f64, Vec<u32>)> = Vec::new();
    let mut open: Vec<(f64, Vec<u32>)> = vec![(0.0, Vec::new())];
    for length in 1..=longest {
        let mut all = Vec::new();
        for (so_far, tokens) in &open {
            let next = next_log_probabilities(encoder, source, language, tokens);
            all.extend(
                next.iter()
                    .enumerate()
                    .map(|(token, nats)| (so_far + nats, tokens.clone(), token as u32)),
            );
        }
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        open.clear();
        for (rank, (total, mut tokens, token)) in all.into_iter().enumerate() {
            if open.len() == beam || (length == longest && rank >= beam) {
                break;
            }
            let ends = token == END;
            if ends && rank >= beam {
                continue;
            }
            if !ends {
                tokens.push(token);
            }
            if ends || length == longest {
                ended.push((ranked(total, length, penalty), tokens));
            } else {
                open.push((total, tokens));
            }
        }
    }
    ended.sort_by(|a, b| b.0.total_cmp(&a.0));
    ended.truncate(beam);
    ended
}

fn search(beam: usize, length_penalty: f64, longest: (f64, usize)) -> Search {
    Search {
        beam,
        length_penalty,
        longest,
        end: END,
    }
}

/// A model whose next tokens are far from equally probable, and whose translations end, but not at once.
fn lively(vocabulary: usize, seed: u64) -> Encoder {
    let shape = shape(vocabulary, 0.0);
    let mut model = Model::initialise(&shape, seed);
    let table = model.parameter_mut("decoder.embeddings.token").unwrap();
    table.iter_mut().for_each(|value| *value *= 3.0);
    model.parameter_mut("decoder.output.bias").unwrap()[END as usize] -= 1.0;
    Encoder::new(model, &Device::cpu(2))
}

fn assert_same(found: &[Hypothesis], expected: &[(f64, Vec<u32>)], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, (score, tokens)) in found.iter().zip(expected) {
        assert_eq!(&found.tokens, tokens, "{what}");
        assert!(
            (found.score - score).abs() < 1e-4,
            "{what}: {found:?} {score}"
        );
    }
}

#[test]
fn a_beam_as_wide_as_the_space_finds_what_brute_force_finds() {
    for (seed, penalty) in [(1, 0.0), (2, 1.0), (3, 0.6), (4, 2.0)] {
        let encoder = lively(6, seed);
        let mut sources = Batch::new();
        let mut random = Random::new(seed, "sources", 0);
        sources.push(&sentence(encoder.shape(), 3, &mut random), 0);
        let everything = brute_force(&encoder, &sources.tokens, 1, 3, penalty);
        let found = encoder
            .translate(&sources, &[1], &search(200, penalty, (0.0, 3)))
            .unwrap();
        assert_same(
            &found[0],
            &everything[..everything.len().min(200)],
            "exhaustive",
        );
    }
}

#[test]
fn beam_search_finds_what_an_uncached_search_finds() {
    let mut different = 0;
    for seed in 0..6 {
        let encoder = lively(14, seed);
        let mut random = Random::new(seed, "sources", 0);
        let mut sources = Batch::new();
        for length in [4, 0, 7] {
            sources.push(&sentence(encoder.shape(), length, &mut random), 0);
        }
        let languages = [1, 2, 1];
        for (beam, penalty) in [(1, 1.0), (2, 0.0), (3, 1.0), (4, 1.5)] {
            let found = encoder
                .translate(&sources, &languages, &search(beam, penalty, (0.5, 5)))
                .unwrap();
            for (index, found) in found.iter().enumerate() {
                let rows = sources.offsets[index] as usize..sources.offsets[index + 1] as usize;
                let longest = rows.len() / 2 + 5;
                let source = &sources.tokens[rows];
                let expected =
                    plain_beam(&encoder, source, languages[index], longest, (beam, penalty));
                assert_same(found, &expected, &format!("seed {seed}, beam {beam}"));
                different += usize::from(found[0].tokens.len() > 1);
            }
        }
    }
    assert!(different > 20, "the models translate nothing: {different}");
}

#[test]
fn translations_do_not_depend_on_their_company_or_the_threads() {
    for precision in [Precision::F32, Precision::Bf16] {
        let encoder = lively(41, 3).in_precision(precision);
        let alone =
            Encoder::new(encoder.model().unwrap().clone(), &Device::cpu(1)).in_precision(precision);
        let mut random = Random::new(7, "sources", 0);
        let mut sources = Batch::new();
        let mut each = Vec::new();
        for index in 0..90 {
            let tokens = sentence(encoder.shape(), index % 17, &mut random);
            sources.push(&tokens, 0);
            let mut one = Batch::new();
            one.push(&tokens, 0);
            each.push(one);
        }
        for beam in [1, 4] {
            let search = search(beam, 1.0, (1.5, 10));
            let together = encoder.translate(&sources, &[1; 90], &search).unwrap();
            for (one, together) in each.iter().zip(&together) {
                let by_itself = alone.translate(one, &[1], &search).unwrap();
                assert_eq!(&by_itself[0], together);
            }
        }
    }
}

#[test]
fn a_translation_that_does_not_end_is_cut_and_said_to_be() {
    let shape = shape(20, 0.0);
    let mut model = Model::initialise(&shape, 1);
    model.parameter_mut("decoder.output.bias").unwrap()[END as usize] = -50.0;
    let encoder = Encoder::new(model, &Device::cpu(1));
    let mut sources = Batch::new();
    sources.push(&[END, 5, 6, END], 0);
    let found = encoder
        .translate(&sources, &[1], &search(2, 1.0, (1.0, 3)))
        .unwrap();
    assert_eq!(found[0].len(), 2);
    assert!(
        found[0]
            .iter()
            .all(|one| !one.ended && one.tokens.len() == 7)
    );
    // Never longer than the model's positions.
    let found = encoder
        .translate(&sources, &[1], &search(1, 1.0, (0.0, 10_000)))
        .unwrap();
    assert_eq!(found[0][0].tokens.len(), shape.settings.positions);
}
