//! What pretraining objectives hide and predict, and which text they read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Result;
use tempfile::TempDir;
use xlt::data::corpus::{Corpus, Lines, Part, binarise, side_name};
use xlt::data::tokenizer::{
    BpeSettings, END_OF_SENTENCE, FIRST_WORD, MASK, Sharing, Tokenizer, TokenizerSettings,
    count_file, train,
};
use xlt::kernels::Device;
use xlt::model::{Direction, LanguageModelBatch, ModelSettings};
use xlt::objectives::{
    self, BatchSettings, LanguagesPerBatch, ObjectiveSettings, PositionSampling, StreamStart, Text,
};
use xlt::random::Random;
use xlt::spec::pretrain::PretrainSettings;

/// Languages with their sentences: `aa` has three times as many as `bb`.
const LANGUAGES: [(&str, usize); 2] = [("aa", 600), ("bb", 200)];

/// A tokenizer, a corpus of each language (`aa`, `bb`) and of their sentence pairs (`aa-bb`), in a folder.
pub fn write_corpora(folder: &Path) -> Result<Tokenizer> {
    let device = Device::cpu(1);
    let mut texts = Vec::new();
    for (language, sentences) in LANGUAGES {
        fs::create_dir_all(folder.join(language))?;
        for (part, sentences) in [(Part::Train, sentences), (Part::Valid, 40)] {
            fs::write(
                folder.join(format!("{language}.{}.txt", part.name())),
                text(language, part.name(), sentences, 4),
            )?;
        }
        texts.push((
            language.to_owned(),
            count_file(&folder.join(format!("{language}.train.txt")), &device)?,
        ));
    }
    let settings = TokenizerSettings {
        bpe: BpeSettings { vocabulary: 80 },
        sharing: Sharing::Shared,
        sampling_exponent: 1.0,
        character_coverage: 1.0,
        maximum_unknown_rate: 0.05,
    };
    let tokenizer = train(&settings, &texts)?;
    tokenizer.save(folder)?;
    let pairs = folder.join("aa-bb");
    fs::create_dir_all(&pairs)?;
    let never = |_| Ok(());
    for (language, _) in LANGUAGES {
        for part in [Part::Train, Part::Valid] {
            let text_file = folder.join(format!("{language}.{}.txt", part.name()));
            binarise(
                (&text_file, Lines::Documents),
                (&tokenizer, language),
                (&folder.join(language), part.name()),
                &device,
                &never,
            )?;
            let aligned = folder.join(format!("aligned.{}.{language}.txt", part.name()));
            fs::write(&aligned, text(language, part.name(), 60, usize::MAX))?;
            binarise(
                (&aligned, Lines::Aligned),
                (&tokenizer, language),
                (&pairs, &side_name(part, language)),
                &device,
                &never,
            )?;
        }
    }
    Ok(tokenizer)
}

/// Sentences of 2 to 7 words, frequent ones and rare ones; a blank line after every `document` of them.
fn text(language: &str, part: &str, sentences: usize, document: usize) -> String {
    let mut random = Random::new(0, &format!("{language} {part}"), 0);
    let weights: Vec<f64> = (1..=12).map(|rank| 1.0 / f64::from(rank)).collect();
    let letter = language.chars().next().unwrap_or('x');
    let mut text = String::new();
    for sentence in 0..sentences {
        let words: Vec<String> = (0..2 + random.below(6))
            .map(|_| {
                let word = random.weighted(&weights).unwrap_or(0) as u8;
                format!("{letter}{}", char::from(b'k' + word))
            })
            .collect();
        text.push_str(&words.join(" "));
        text.push('\n');
        if (sentence + 1) % document == 0 {
            text.push('\n');
        }
    }
    text
}

fn open_text(with_pairs: bool) -> (TempDir, Text, Tokenizer) {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = write_corpora(folder.path()).unwrap();
    let mut text = Text::new(&tokenizer).unwrap();
    for (language, _) in LANGUAGES {
        text.add_language(language, &tokenizer, &folder.path().join(language))
            .unwrap();
    }
    if with_pairs {
        text.add_pair("aa", "bb", &tokenizer, &folder.path().join("aa-bb"))
            .unwrap();
    }
    (folder, text, tokenizer)
}

fn batches() -> BatchSettings {
    BatchSettings {
        sampling_exponent: 0.5,
        languages_per_batch: LanguagesPerBatch::One,
        stream_length: 24,
        stream_start: StreamStart::Anywhere,
        tokens_per_batch: 240,
        seed: 7,
    }
}

fn masked(rate: f64, position_sampling: PositionSampling) -> ObjectiveSettings {
    ObjectiveSettings::MaskedLm {
        rate,
        position_sampling,
    }
}

fn translation() -> ObjectiveSettings {
    ObjectiveSettings::TranslationLm {
        rate: 0.2,
        position_sampling: PositionSampling::Uniform,
    }
}

fn sequences(batch: &LanguageModelBatch) -> Vec<std::ops::Range<usize>> {
    batch
        .batch
        .offsets
        .windows(2)
        .map(|pair| pair[0] as usize..pair[1] as usize)
        .collect()
}

/// A batch's tokens before anything was hidden.
fn restored(batch: &LanguageModelBatch) -> Vec<u32> {
    let mut tokens = batch.batch.tokens.clone();
    for (row, label) in batch.targets.indices.iter().zip(&batch.targets.labels) {
        tokens[*row as usize] = *label;
    }
    tokens
}

/// `</s>`, then every sentence with its `</s>`; and the places where documents begin, `</s>` before them included.
fn whole_stream(corpus: &Corpus) -> (Vec<u32>, BTreeSet<usize>) {
    let (mut stream, mut documents) = (vec![END_OF_SENTENCE], BTreeSet::new());
    for sentence in 0..corpus.sentences() {
        if corpus.document_starts().contains(&(sentence as u64)) {
            documents.insert(stream.len() - 1);
        }
        corpus.sentence(sentence, &mut stream);
        stream.push(END_OF_SENTENCE);
    }
    (stream, documents)
}

fn places_of(window: &[u32], stream: &[u32]) -> Vec<usize> {
    stream
        .windows(window.len())
        .enumerate()
        .filter(|(_, other)| *other == window)
        .map(|(place, _)| place)
        .collect()
}

#[test]
fn windows_are_cut_anywhere_from_the_concatenated_sentences() {
    let (_folder, text, _) = open_text(false);
    let objective = objectives::open(&ObjectiveSettings::CausalLm, &text, &batches()).unwrap();
    let streams: BTreeMap<u32, Vec<u32>> = text
        .languages
        .iter()
        .map(|language| (language.id, whole_stream(&language.train).0))
        .collect();
    let mut begins_amid_a_sentence = 0;
    for update in 0..60 {
        let batch = objective.training_batch(update);
        assert_eq!(batch.batch.sequences(), 10);
        for sequence in sequences(&batch) {
            let row = &batch.batch.tokens[sequence.clone()];
            assert_eq!(row.len(), 24);
            assert!(
                !places_of(row, &streams[&batch.batch.languages[sequence.start]]).is_empty(),
                "{row:?}"
            );
            begins_amid_a_sentence += usize::from(row[0] != END_OF_SENTENCE);
        }
    }
    assert!(
        begins_amid_a_sentence > 300,
        "{begins_amid_a_sentence} of 600"
    );
}

#[test]
fn windows_may_begin_at_documents() {
    let (_folder, text, _) = open_text(false);
    let settings = BatchSettings {
        stream_start: StreamStart::Document,
        ..batches()
    };
    let objective = objectives::open(&ObjectiveSettings::CausalLm, &text, &settings).unwrap();
    let streams: BTreeMap<u32, _> = text
        .languages
        .iter()
        .map(|language| (language.id, whole_stream(&language.train)))
        .collect();
    let mut begun = BTreeSet::new();
    for update in 0..60 {
        let batch = objective.training_batch(update);
        for sequence in sequences(&batch) {
            let language = batch.batch.languages[sequence.start];
            let (stream, documents) = &streams[&language];
            let places = places_of(&batch.batch.tokens[sequence], stream);
            let place = places.iter().find(|place| documents.contains(place));
            begun.insert((
                language,
                *place.expect("a window that begins at no document"),
            ));
        }
    }
    assert!(begun.len() > 100, "{}", begun.len());
}

#[test]
fn text_without_documents_cannot_begin_streams_at_documents() {
    let (folder, mut text, tokenizer) = open_text(false);
    let flat = folder.path().join("flat");
    fs::create_dir_all(&flat).unwrap();
    fs::write(folder.path().join("flat.txt"), "ak al\nam an\n").unwrap();
    for part in ["train", "valid"] {
        let source = (folder.path().join("flat.txt"), Lines::Documents);
        binarise(
            (&source.0, source.1),
            (&tokenizer, "aa"),
            (&flat, part),
            &Device::cpu(1),
            &|_| Ok(()),
        )
        .unwrap();
    }
    text.add_language("aa", &tokenizer, &flat).unwrap();
    let settings = BatchSettings {
        stream_start: StreamStart::Document,
        ..batches()
    };
    let refused = objectives::open(&ObjectiveSettings::CausalLm, &text, &settings)
        .err()
        .unwrap();
    assert!(
        refused.to_string().contains("stream_start: anywhere"),
        "{refused}"
    );
}

#[test]
fn a_corpus_shorter_than_a_stream_is_one_window() {
    let (folder, mut text, tokenizer) = open_text(false);
    let short = folder.path().join("short");
    fs::create_dir_all(&short).unwrap();
    fs::write(folder.path().join("short.txt"), "ak al\n").unwrap();
    for part in ["train", "valid"] {
        let source = folder.path().join("short.txt");
        binarise(
            (&source, Lines::Documents),
            (&tokenizer, "aa"),
            (&short, part),
            &Device::cpu(1),
            &|_| Ok(()),
        )
        .unwrap();
    }
    text.languages.clear();
    text.add_language("aa", &tokenizer, &short).unwrap();
    let whole = whole_stream(&text.languages[0].train).0;
    let objective = objectives::open(&ObjectiveSettings::CausalLm, &text, &batches()).unwrap();
    let batch = objective.training_batch(0);
    for sequence in sequences(&batch) {
        assert_eq!(batch.batch.tokens[sequence], whole);
    }
}

#[test]
fn masked_lm_hides_the_asked_share_and_never_a_first_token() {
    let (_folder, text, _) = open_text(false);
    for sampling in [
        PositionSampling::Uniform,
        PositionSampling::CountPower { exponent: 0.5 },
    ] {
        let objective = objectives::open(&masked(0.15, sampling), &text, &batches()).unwrap();
        for update in 0..40 {
            let batch = objective.training_batch(update);
            assert_eq!(batch.targets.indices.len(), 36, "0.15 of 240");
            assert_eq!(batch.direction, Direction::Bidirectional);
            for sequence in sequences(&batch) {
                assert!(!batch.targets.indices.contains(&(sequence.start as u32)));
            }
        }
    }
    let objective =
        objectives::open(&masked(1.0, PositionSampling::Uniform), &text, &batches()).unwrap();
    assert_eq!(
        objective.training_batch(0).targets.indices.len(),
        230,
        "all but the ten first tokens"
    );
}

#[test]
fn hidden_tokens_are_masked_kept_or_random_at_80_10_10() {
    let (_folder, text, _) = open_text(false);
    let objective =
        objectives::open(&masked(0.4, PositionSampling::Uniform), &text, &batches()).unwrap();
    let (mut masks, mut kept, mut other, mut total) = (0, 0, 0, 0);
    let mut shown = BTreeSet::new();
    for update in 0..300 {
        let batch = objective.training_batch(update);
        for (row, label) in batch.targets.indices.iter().zip(&batch.targets.labels) {
            let token = batch.batch.tokens[*row as usize];
            total += 1;
            masks += usize::from(token == MASK && *label != MASK);
            kept += usize::from(token == *label);
            if token != MASK && token != *label {
                other += 1;
                shown.insert(token);
            }
        }
    }
    let share = |count: usize| count as f64 / f64::from(total);
    // A random token is the mask or the label itself once in 40.
    assert!((share(masks) - 0.8).abs() < 0.012, "{}", share(masks));
    assert!((share(kept) - 0.1).abs() < 0.012, "{}", share(kept));
    assert!((share(other) - 0.1).abs() < 0.012, "{}", share(other));
    let expected: BTreeSet<u32> = (0..text.vocabulary as u32)
        .filter(|id| *id != MASK)
        .collect();
    assert_eq!(
        shown, expected,
        "random tokens come from the whole vocabulary, special tokens too"
    );
}

/// At a small rate, a token's chance is proportional to count^-0.5.
#[test]
fn count_power_predicts_frequent_tokens_less_and_special_ones_never() {
    let (_folder, text, _) = open_text(false);
    let objective = objectives::open(
        &masked(0.02, PositionSampling::CountPower { exponent: 0.5 }),
        &text,
        &batches(),
    )
    .unwrap();
    let (mut seen, mut predicted) = (vec![0f64; text.vocabulary], vec![0f64; text.vocabulary]);
    // Of one language, so that all compete in the same batches.
    let of_first = (0..6000)
        .map(|update| objective.training_batch(update))
        .filter(|batch| batch.batch.languages[0] == 0);
    for batch in of_first {
        let tokens = restored(&batch);
        for sequence in sequences(&batch) {
            tokens[sequence]
                .iter()
                .skip(1)
                .for_each(|token| seen[*token as usize] += 1.0);
        }
        batch
            .targets
            .labels
            .iter()
            .for_each(|label| predicted[*label as usize] += 1.0);
    }
    assert!(
        predicted[..FIRST_WORD as usize]
            .iter()
            .all(|count| *count == 0.0)
    );
    let frequent: Vec<usize> = (FIRST_WORD as usize..text.vocabulary)
        .filter(|id| seen[*id] > 20_000.0)
        .collect();
    assert!(frequent.len() >= 4, "{frequent:?}");
    let scaled: Vec<f64> = frequent
        .iter()
        .map(|id| predicted[*id] / seen[*id] * (text.counts[*id] as f64).sqrt())
        .collect();
    let rates: Vec<f64> = frequent
        .iter()
        .map(|id| predicted[*id] / seen[*id])
        .collect();
    let spread = |values: &[f64]| {
        values.iter().copied().fold(0.0, f64::max)
            / values.iter().copied().fold(f64::INFINITY, f64::min)
    };
    assert!(
        spread(&scaled) < 1.35 && spread(&rates) > 1.5,
        "scaled {scaled:?}, unscaled {rates:?}"
    );
}

#[test]
fn causal_lm_predicts_the_next_token_of_the_same_window() {
    let (_folder, text, _) = open_text(false);
    let objective = objectives::open(&ObjectiveSettings::CausalLm, &text, &batches()).unwrap();
    let batch = objective.training_batch(3);
    assert_eq!(batch.direction, Direction::Causal);
    let ends: BTreeSet<usize> = sequences(&batch)
        .iter()
        .map(|sequence| sequence.end - 1)
        .collect();
    let rows: Vec<usize> = (0..batch.batch.token_count())
        .filter(|row| !ends.contains(row))
        .collect();
    assert_eq!(
        batch.targets.indices,
        rows.iter().map(|row| *row as u32).collect::<Vec<_>>()
    );
    assert_eq!(
        batch.targets.labels,
        rows.iter()
            .map(|row| batch.batch.tokens[row + 1])
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_translation_pair_has_four_ends_two_languages_and_positions_that_begin_again() {
    let (_folder, text, _) = open_text(true);
    let objective = objectives::open(&translation(), &text, &batches()).unwrap();
    let mut orders = BTreeSet::new();
    for update in 0..20 {
        let batch = objective.training_batch(update);
        assert!(batch.batch.token_count() <= 240 && batch.batch.sequences() > 5);
        let tokens = restored(&batch);
        for sequence in sequences(&batch) {
            let languages = &batch.batch.languages[sequence.clone()];
            let first = languages
                .iter()
                .take_while(|language| **language == languages[0])
                .count();
            assert!(
                languages[first..]
                    .iter()
                    .all(|language| *language == 1 - languages[0])
            );
            orders.insert(languages[0]);
            let positions = &batch.batch.positions[sequence.clone()];
            let again = (0..first as u32).chain(0..(languages.len() - first) as u32);
            assert!(positions.iter().copied().eq(again), "{positions:?}");
            let row = &tokens[sequence.clone()];
            let ends: Vec<usize> = (0..row.len())
                .filter(|place| row[*place] == END_OF_SENTENCE)
                .collect();
            assert_eq!(ends, [0, first - 1, first, row.len() - 1]);
            let pair = &text.pairs[0];
            let known = (0..pair.train.pairs()).any(|index| {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                pair.train.pair(index, &mut a, &mut b);
                if languages[0] == pair.ids.1 {
                    std::mem::swap(&mut a, &mut b);
                }
                row[1..first - 1] == a && row[first + 1..row.len() - 1] == b
            });
            assert!(known, "halves that are no translations of each other");
        }
    }
    assert_eq!(orders, BTreeSet::from([0, 1]));
}

#[test]
fn translation_lm_leaves_out_sentences_longer_than_a_stream() {
    let (_folder, text, _) = open_text(true);
    let settings = BatchSettings {
        stream_length: 8,
        ..batches()
    };
    let objective = objectives::open(&translation(), &text, &settings).unwrap();
    let longest = (0..30)
        .flat_map(|update| objective.training_batch(update).batch.positions)
        .max();
    assert_eq!(longest, Some(7));
    let refused = objectives::open(
        &translation(),
        &text,
        &BatchSettings {
            stream_length: 3,
            ..batches()
        },
    )
    .err()
    .unwrap();
    assert!(refused.to_string().contains("stream_length"), "{refused}");
}

#[test]
fn translation_lm_without_pairs_is_refused() {
    let (_folder, text, _) = open_text(false);
    let refused = objectives::open(&translation(), &text, &batches())
        .err()
        .unwrap();
    assert!(refused.to_string().contains("data.parallel"), "{refused}");
}

#[test]
fn a_batch_follows_from_seed_and_update_alone() {
    let (_folder, text, _) = open_text(true);
    for settings in [
        masked(0.15, PositionSampling::Uniform),
        ObjectiveSettings::CausalLm,
        translation(),
    ] {
        let open = |seed| {
            objectives::open(&settings, &text, &BatchSettings { seed, ..batches() }).unwrap()
        };
        let first = open(7);
        let fifth = first.training_batch(5);
        first.training_batch(6);
        assert_eq!(fifth, first.training_batch(5));
        assert_eq!(fifth, open(7).training_batch(5));
        assert_ne!(fifth, first.training_batch(6));
        assert_ne!(fifth, open(8).training_batch(5));
    }
}

#[test]
fn objectives_of_one_seed_read_the_same_text() {
    let (_folder, text, _) = open_text(false);
    let masked =
        objectives::open(&masked(0.4, PositionSampling::Uniform), &text, &batches()).unwrap();
    let causal = objectives::open(&ObjectiveSettings::CausalLm, &text, &batches()).unwrap();
    for update in 0..10 {
        assert_eq!(
            restored(&masked.training_batch(update)),
            causal.training_batch(update).batch.tokens
        );
    }
}

#[test]
fn languages_are_drawn_by_their_share_raised_to_the_exponent() {
    let (_folder, text, _) = open_text(false);
    let objective = objectives::open(&ObjectiveSettings::CausalLm, &text, &batches()).unwrap();
    let of_first = (0..3000)
        .filter(|update| objective.training_batch(*update).batch.languages[0] == 0)
        .count() as f64
        / 3000.0;
    // Three times the sentences: sqrt(3) to 1.
    let expected = 3f64.sqrt() / (1.0 + 3f64.sqrt());
    assert!(
        (of_first - expected).abs() < 0.03,
        "{of_first} instead of {expected}"
    );
}

#[test]
fn a_batch_of_all_languages_holds_each_by_its_share() {
    let (_folder, text, _) = open_text(false);
    let settings = BatchSettings {
        languages_per_batch: LanguagesPerBatch::All,
        ..batches()
    };
    let objective =
        objectives::open(&masked(0.15, PositionSampling::Uniform), &text, &settings).unwrap();
    for update in 0..50 {
        let batch = objective.training_batch(update);
        let of_first = sequences(&batch)
            .iter()
            .filter(|sequence| batch.batch.languages[sequence.start] == 0)
            .count();
        assert!(
            [6, 7].contains(&of_first),
            "{of_first} of 10 sequences where 6.34 are due"
        );
        let hidden = batch
            .targets
            .indices
            .iter()
            .filter(|row| batch.batch.languages[**row as usize] == 0)
            .count();
        assert_eq!(
            hidden,
            (0.15 * (24 * of_first) as f64).ceil() as usize,
            "each language is hidden at the rate"
        );
    }
}

#[test]
fn held_out_text_is_read_whole_and_hidden_alike_for_every_seed() {
    let (_folder, text, _) = open_text(true);
    for settings in [
        masked(0.3, PositionSampling::CountPower { exponent: 0.5 }),
        ObjectiveSettings::CausalLm,
        translation(),
    ] {
        let open = |seed| {
            objectives::open(&settings, &text, &BatchSettings { seed, ..batches() }).unwrap()
        };
        assert_eq!(open(1).validation(), open(2).validation());
    }
    let objective =
        objectives::open(&masked(0.3, PositionSampling::Uniform), &text, &batches()).unwrap();
    for (validation, language) in objective.validation().iter().zip(&text.languages) {
        assert_eq!(validation.of, language.name);
        let whole: Vec<u32> = validation.batches.iter().flat_map(restored).collect();
        let (stream, _) = whole_stream(&language.valid);
        // A last window of one token predicts nothing and is left out.
        assert!(stream.starts_with(&whole) && stream.len() - whole.len() <= 1);
        for batch in &validation.batches {
            assert!(
                batch
                    .targets
                    .indices
                    .iter()
                    .all(|row| batch.batch.tokens[*row as usize] == MASK)
            );
        }
    }
    let pairs = objectives::open(&translation(), &text, &batches())
        .unwrap()
        .validation();
    assert_eq!(pairs[0].of, "aa-bb");
    assert_eq!(
        pairs[0]
            .batches
            .iter()
            .map(|batch| batch.batch.sequences())
            .sum::<usize>(),
        60
    );
}

#[test]
fn objectives_are_read_as_the_study_file_writes_them() {
    let read = |text| serde_json::from_str::<ObjectiveSettings>(text);
    assert_eq!(read(r#""causal_lm""#).unwrap(), ObjectiveSettings::CausalLm);
    assert_eq!(
        read(r#"{"masked_lm": {"rate": 0.15, "position_sampling": {"count_power": {"exponent": 0.5}}}}"#).unwrap(),
        masked(0.15, PositionSampling::CountPower { exponent: 0.5 })
    );
    assert!(
        read(r#"{"masked_lm": {"rate": 0.15}}"#)
            .unwrap_err()
            .to_string()
            .contains("position_sampling")
    );
    assert!(
        read(r#"{"masked_lm": {"rate": 0.15, "position_sampling": "uniform", "rat": 1}}"#).is_err()
    );
}

#[test]
fn every_impossible_pretraining_setting_is_named() {
    let model = ModelSettings {
        layers: 1,
        hidden: 8,
        heads: 2,
        feed_forward: 16,
        positions: 64,
        dropout: 0.1,
        attention_dropout: 0.1,
        language_embeddings: true,
    };
    let read = |text: &str| serde_json::from_str::<PretrainSettings>(text).unwrap();
    let sound = read(
        r#"{"objectives": [{"masked_lm": {"rate": 0.4, "position_sampling": "uniform"}}], "sampling_exponent": 0.7, "stream_length": 32,
            "updates": 10, "tokens_per_batch": 2048, "precision": "f32", "optimizer": {"learning_rate": 0.001}}"#,
    );
    assert_eq!(sound.validate(&model), []);
    assert!(!sound.uses_parallel_text());
    let broken = read(
        r#"{"objectives": [{"masked_lm": {"rate": 0, "position_sampling": {"count_power": {"exponent": -1}}}}, "causal_lm", "causal_lm"],
            "sampling_exponent": 1.5, "stream_length": 128, "updates": 0, "tokens_per_batch": 64, "precision": "f32",
            "optimizer": {"learning_rate": -1}, "validation_every": 0}"#,
    );
    let fields: Vec<String> = broken
        .validate(&model)
        .into_iter()
        .map(|problem| problem.field)
        .collect();
    assert_eq!(
        fields,
        [
            "objectives.0.masked_lm.rate",
            "objectives.0.masked_lm.position_sampling.count_power.exponent",
            "objectives.2",
            "sampling_exponent",
            "stream_length",
            "updates",
            "tokens_per_batch",
            "validation_every",
            "optimizer.learning_rate",
        ]
    );
    let not_a_number = PretrainSettings {
        sampling_exponent: f64::NAN,
        objectives: vec![masked(f64::NAN, PositionSampling::Uniform)],
        ..sound
    };
    assert_eq!(not_a_number.validate(&model).len(), 2);
}
