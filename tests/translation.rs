//! Translation as a study asks for it: starts of both sides, objectives, tests, reports.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tempfile::TempDir;
use xlt::kernels::Device;
use xlt::metrics::bleu::Smoothing;
use xlt::metrics::translation_tokens::Tokenization;
use xlt::model::{Model, ModelSettings, Shape};
use xlt::objectives::translation::noise::Noise;
use xlt::objectives::translation::{TranslationObjectiveSettings, Weight};
use xlt::report::compare::compare;
use xlt::report::results::Results;
use xlt::spec::pretrain::Precision;
use xlt::spec::translation::{BleuSettings, Copied, SearchSettings, TranslationTraining};
use xlt::stages::metrics::{Metrics, read_metrics};
use xlt::stages::translation::{self, Settings};
use xlt::stages::{Context, Interrupted, Progress, Stop};
use xlt::training::{AdamSettings, Schedule};

use crate::command_line::{Place, TINY};
use crate::objectives::write_corpora;

/// The tiny study with translation in place of fine-tuning.
pub fn study() -> String {
    let start = TINY.find("finetune:\n").unwrap();
    let end = TINY.find("seeds:").unwrap();
    let translation = "\
translation:
  directions: [aa-bb, bb-aa]
  encoder: random
  decoder: random
  train:
    objectives: [supervised: {}, denoising: {}, back_translation: {weight: [[0, 1.0], [20, 0.5]]}]
    maximum_length: 40
    updates: 24
    tokens_per_batch: 200
    precision: f32
    optimizer: {learning_rate: 5.0e-3, clip: 1.0, schedule: constant}
    validation_every: 12
  test:
    searches: [{beam: 1}, {beam: 2, length_penalty: 0.8}]
    bleu: {tokenization: none, smoothing: exp}
";
    let study = format!("{}{translation}{}", &TINY[..start], &TINY[end..]);
    study
        .replace("monolingual_validation: 20", "monolingual_validation: 20\n  parallel_validation: 8")
        .replace("on: xnli/zero_shot/bb", "on: translation/beam_2/mean")
        .replace(
            "columns: languages, regime: zero_shot}",
            "columns: languages, task: translation, regime: greedy}",
        )
        .replace("random: {pretrain: none}", "random: {}")
        .replace(
            "mlm: {}",
            "mlm: {translation.encoder: {pretrained: {}}, translation.decoder: {pretrained: {objectives: [causal_lm]}}}\n  \
             words: {translation.encoder: {embeddings: {}}, translation.decoder: {pretrained: {embeddings: false}}}",
        )
}

#[test]
fn a_study_of_translation_runs_from_text_to_verdicts() {
    let place = Place::new(&study());
    place.xlt(&["run", "tiny.yaml"]).ends(0);
    let results = Results::read(&place.results()).unwrap();
    let mut cells = BTreeMap::new();
    for translation in &results.translations {
        let cell = &translation.cell;
        assert_eq!(cell.task, "translation");
        assert_eq!(translation.sentences.len(), 10);
        let key = (
            cell.variant.as_str(),
            cell.regime.as_str(),
            cell.language.as_str(),
        );
        cells.insert(key, &translation.sentences);
    }
    assert_eq!(cells.len(), 3 * 2 * 2);
    let bleu = |row: &&xlt::report::scores::ScoreRow| row.metric == "bleu";
    assert_eq!(results.scores.iter().filter(bleu).count(), 12);
    let manifest = &results.manifest;
    let scores = manifest.translation_scores.as_ref().unwrap();
    assert!(
        scores.bleu_signature.contains("tok:none"),
        "{}",
        scores.bleu_signature
    );
    assert_eq!(scores.copy.keys().collect::<Vec<_>>(), ["aa-bb", "bb-aa"]);
    for name in [
        "translations.parquet",
        "plots/translation.svg",
        "plots/initialisation_grid.png",
        "plots/learning_curves.svg",
        "tables/main.md",
    ] {
        assert!(place.results().join(name).exists(), "{name}");
    }
    assert!(!place.results().join("plots/accuracy.svg").exists());
    place.xlt(&["report", "tiny.yaml", "--check"]).ends(0);
    let again = place.xlt(&["run", "tiny.yaml", "--json"]).ends(0).json();
    assert_eq!(again["jobs_finished"], 0);
    // Scores of another way to count are not compared with these.
    let compared = compare(&results, &results);
    assert_eq!((compared.compared, compared.other_test_set), (12, 0));
    let mut others = results.clone();
    let scores = others.manifest.translation_scores.as_mut().unwrap();
    scores.bleu_signature = scores.bleu_signature.replace("tok:none", "tok:13a");
    let compared = compare(&results, &others);
    assert_eq!((compared.compared, compared.other_test_set), (0, 12));
    // MLM is pretrained once: two variants start from it.
    let pretrained = manifest
        .jobs
        .keys()
        .filter(|label| label.starts_with("pretrain"));
    assert_eq!(pretrained.count(), 2);
    // Scores that were changed by hand are found out.
    let path = place.results().join("scores.csv");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen(",bleu,", ",chrf,", 1)).unwrap();
    place.xlt(&["report", "tiny.yaml", "--check"]).ends(3);
}

#[test]
fn translation_without_pairs_to_train_on_is_chosen_by_a_dev_set() {
    let start = TINY.find("  synthetic:\n").unwrap();
    let end = TINY.find("  monolingual_validation").unwrap();
    let study = study()
        .replace(
            &TINY[start..end],
            "  monolingual: [{files: \"{language}.txt\"}]\n  parallel_dev: [{files: \"dev-{language}.{side}\"}]\n  parallel_test: [{files: \"test-{language}.{side}\"}]\n",
        )
        .replace("  parallel_validation: 8\n", "")
        .replace("objectives: [supervised: {}, ", "objectives: [")
        .replace("aa", "en")
        .replace("bb", "fr");
    let place = Place::new(&study);
    let sentences = |language: &str, lines: std::ops::Range<usize>| -> String {
        lines
            .map(|line| {
                format!(
                    "{language}a {language}{} {language}{}\n",
                    line % 7,
                    line % 11
                )
            })
            .collect()
    };
    for language in ["en", "fr"] {
        for (name, lines) in [
            (format!("{language}.txt"), 0..300),
            (format!("dev-fr.{language}"), 300..312),
            (format!("test-fr.{language}"), 77 * 5..77 * 5 + 9),
        ] {
            fs::write(place.path().join(name), sentences(language, lines)).unwrap();
        }
    }
    place.xlt(&["run", "tiny.yaml", "--data", "."]).ends(0);
    let results = Results::read(&place.results()).unwrap();
    assert_eq!(results.translations.len(), 3 * 2 * 2);
    let sources = fs::read_to_string(place.results().join("manifest.json")).unwrap();
    assert!(sources.contains("parallel en-fr, dev"), "{sources}");

    // Who trains on pairs must have some.
    place.write(&study.replace(
        "objectives: [denoising",
        "objectives: [supervised: {}, denoising",
    ));
    let told = place.xlt(&["run", "tiny.yaml", "--data", "."]).ends(2).err;
    assert!(told.contains("name them under data.parallel"), "{told}");
}

#[test]
fn wrong_settings_of_translation_are_shown_at_their_lines() {
    for (from, to, told) in [
        (
            "directions: [aa-bb, bb-aa]",
            "directions: [aa-bb, aa-bb]",
            "second time",
        ),
        (
            "directions: [aa-bb, bb-aa]",
            "directions: [aa]",
            "no direction",
        ),
        ("directions: [aa-bb, bb-aa]", "directions: [aa-cc]", "`cc`"),
        (
            "on: translation/beam_2/mean",
            "on: translation/beam_2/target_mean",
            "mean",
        ),
        (
            "higher: mlm,",
            "selection: source_dev, higher: mlm,",
            "validation_bleu",
        ),
        (
            "[supervised: {}, denoising: {}, back_translation: {weight: [[0, 1.0], [20, 0.5]]}]",
            "[denoising: {weight: [[0, 1.0], [10, 0.0]]}]",
            "zero after 10 updates",
        ),
        (
            "searches: [{beam: 1}",
            "directions: [bb-cc]\n    searches: [{beam: 1}",
            "not learnt",
        ),
        ("maximum_length: 40", "maximum_length: 127", "126"),
        ("searches: [{beam: 1}", "searches: [{beam: 0}", "beam of 0"),
        ("validation_every: 12", "validation_every: 0", "number 0"),
        (
            "[[0, 1.0], [20, 0.5]]",
            "[[20, 1.0], [0, 0.5]]",
            "ascending",
        ),
        (
            "on: translation/beam_2/mean",
            "on: translation/beam_3/mean",
            "beam_2",
        ),
        (
            "on: translation/beam_2/mean",
            "on: translation/beam_2/mean/accuracy",
            "bleu",
        ),
        ("tokenization: none", "tokenization: 14a", "13a"),
        (
            "language_embeddings: true",
            "language_embeddings: false",
            "more than one language to write for a sentence in `aa`",
        ),
        (
            "parallel_validation: 8",
            "parallel_validation: 0",
            "held-out pairs",
        ),
    ] {
        let study = study();
        assert!(study.contains(from), "{from}");
        let place = Place::new(&study.replace(from, to));
        let ran = place.xlt(&["plan", "tiny.yaml"]).ends(2);
        assert!(ran.err.contains(told), "{to}: {}", ran.err);
        assert!(ran.err.contains("tiny.yaml:"), "{to}: {}", ran.err);
    }
}

/// Asks to stop after an update.
struct StopAfter<'a> {
    update: u64,
    stop: &'a Stop,
}

impl Progress for StopAfter<'_> {
    fn begin(&self, _total: u64, _done: u64, _unit: &str) {}

    fn advance(&self, done: u64, _note: &str) {
        if done == self.update {
            self.stop.ask();
        }
    }

    fn message(&self, _line: &str) {}
}

fn model() -> ModelSettings {
    ModelSettings {
        layers: 1,
        hidden: 16,
        heads: 2,
        feed_forward: 32,
        positions: 64,
        dropout: 0.1,
        attention_dropout: 0.1,
        language_embeddings: true,
    }
}

fn settings(learning_rate: f64, updates: u64) -> Settings {
    let weight = Weight::default();
    Settings {
        model: model(),
        directions: vec!["aa-bb".parse().unwrap(), "bb-aa".parse().unwrap()],
        validated: vec!["aa-bb".parse().unwrap(), "bb-aa".parse().unwrap()],
        encoder: Copied::Nothing,
        decoder: Copied::Nothing,
        train: TranslationTraining {
            objectives: vec![
                TranslationObjectiveSettings::Denoising {
                    noise: Noise::default(),
                    weight: weight.clone(),
                },
                TranslationObjectiveSettings::BackTranslation { weight },
            ],
            maximum_length: 30,
            updates,
            tokens_per_batch: 150,
            precision: Precision::F32,
            optimizer: AdamSettings {
                learning_rate,
                beta1: 0.9,
                beta2: 0.98,
                epsilon: 1e-8,
                weight_decay: 0.0,
                clip: Some(1.0),
                schedule: Schedule::Constant,
            },
            validation_every: 4,
            patience: None,
        },
        search: SearchSettings {
            beam: 1,
            length_penalty: 1.0,
        },
        bleu: BleuSettings {
            tokenization: Tokenization::None,
            smoothing: Smoothing::Exponential,
        },
        initialisation_seed: 3,
        seed: 4,
    }
}

/// Corpora, and folders for one artifact.
struct Job {
    corpora: TempDir,
    work: TempDir,
}

impl Job {
    fn new() -> Self {
        let job = Self {
            corpora: tempfile::tempdir().unwrap(),
            work: tempfile::tempdir().unwrap(),
        };
        write_corpora(job.corpora.path()).unwrap();
        job
    }

    /// Runs until after an update (0: to the end).
    fn run(&self, settings: &Settings, name: &str, threads: usize, until: u64) -> Result<Value> {
        let folder = |kind: &str| self.work.path().join(name).join(kind);
        let (output, checkpoints) = (folder("output"), folder("checkpoints"));
        fs::create_dir_all(&output)?;
        fs::create_dir_all(&checkpoints)?;
        let corpus = |name: &str| self.corpora.path().join(name);
        let mut inputs = BTreeMap::from([
            ("tokenizer".to_owned(), self.corpora.path().to_owned()),
            ("corpus:aa".to_owned(), corpus("aa")),
            ("corpus:bb".to_owned(), corpus("bb")),
            ("parallel_corpus:aa-bb".to_owned(), corpus("aa-bb")),
        ]);
        for side in ["encoder", "decoder"] {
            if self.pretrained(side).exists() {
                inputs.insert(side.to_owned(), self.pretrained(side));
            }
        }
        let (files, stop) = (BTreeMap::new(), Stop::default());
        translation::run(
            settings,
            &Context {
                inputs: &inputs,
                files: &files,
                output: &output,
                checkpoints: &checkpoints,
                device: &Device::cpu(threads),
                progress: &StopAfter {
                    update: until,
                    stop: &stop,
                },
                stop: &stop,
                checkpoint_interval: Duration::from_secs(3600),
            },
        )
    }

    fn output(&self, name: &str) -> PathBuf {
        self.work.path().join(name).join("output")
    }

    fn pretrained(&self, side: &str) -> PathBuf {
        self.work.path().join("pretrained").join(side)
    }

    /// A model of the right size to start a side from.
    fn pretrain(&self, side: &str, seed: u64, shape: &Shape) -> Model {
        let model = Model::initialise(shape, seed);
        fs::create_dir_all(self.pretrained(side)).unwrap();
        model
            .save(&self.pretrained(side).join("model.safetensors"))
            .unwrap();
        model
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

#[test]
fn translation_writes_the_same_bytes_for_any_threads_and_after_interruptions() {
    let job = Job::new();
    let settings = settings(5e-3, 14);
    job.run(&settings, "one", 1, 0).unwrap();
    job.run(&settings, "two", 2, 0).unwrap();
    assert_eq!(files(&job.output("one")), files(&job.output("two")));
    for until in [3, 6, 9] {
        let stopped = job.run(&settings, "stopped", 2, until).unwrap_err();
        assert!(stopped.is::<Interrupted>(), "{stopped:#}");
        assert!(files(&job.output("stopped")).is_empty());
    }
    job.run(&settings, "stopped", 2, 0).unwrap();
    assert_eq!(files(&job.output("one")), files(&job.output("stopped")));
    let metrics = read_metrics(&job.output("one")).unwrap();
    let validations: Vec<u64> = metrics
        .iter()
        .filter_map(|line| match line {
            Metrics::Translation { update, of, .. } if of == "aa-bb" => Some(*update),
            _ => None,
        })
        .collect();
    assert_eq!(validations, [4, 8, 12, 14]);
}

#[test]
fn each_side_begins_with_what_the_study_says() {
    let job = Job::new();
    // Too small a step to be seen.
    let mut settings = settings(1e-12, 1);
    job.run(&settings, "random", 1, 0).unwrap();
    let read = |name: &str| Model::load(&job.output(name).join("model.safetensors")).unwrap();
    let random = read("random");
    let shape = Shape {
        decoder: false,
        ..random.shape().clone()
    };
    let of_encoder = job.pretrain("encoder", 70, &shape);
    let of_decoder = job.pretrain("decoder", 71, &shape);
    let close =
        |left: &[f32], right: &[f32]| left.iter().zip(right).all(|(a, b)| (a - b).abs() < 1e-6);
    let cases = [
        (Copied::Everything, Copied::Embeddings),
        (Copied::Embeddings, Copied::EverythingButEmbeddings),
        (Copied::Nothing, Copied::Everything),
    ];
    for (index, (encoder, decoder)) in cases.into_iter().enumerate() {
        (settings.encoder, settings.decoder) = (encoder, decoder);
        let name = format!("case{index}");
        job.run(&settings, &name, 1, 0).unwrap();
        let model = read(&name);
        for (name, _, values) in model.parameters() {
            let (own, copied, source) = match name.strip_prefix("decoder.") {
                Some(own) => (own, decoder, &of_decoder),
                None => (name, encoder, &of_encoder),
            };
            let table = own == "embeddings.token";
            let wanted = match copied {
                Copied::Nothing => false,
                Copied::Embeddings => table,
                Copied::Everything => true,
                Copied::EverythingButEmbeddings => !table,
            };
            let expected = match source.parameter(own) {
                Some(pretrained) if wanted => pretrained,
                // Attention over the source is nobody's.
                _ => random.parameter(name).unwrap(),
            };
            assert!(close(values, expected), "{encoder:?} {decoder:?} {name}");
        }
    }
    // A model of another size is refused.
    let narrow = Shape {
        vocabulary: shape.vocabulary - 1,
        ..shape
    };
    job.pretrain("decoder", 71, &narrow);
    let error = format!("{:#}", job.run(&settings, "narrow", 1, 0).unwrap_err());
    assert!(
        error.contains("embeddings.token") && error.contains("decoder"),
        "{error}"
    );
}

#[test]
fn training_ends_when_validation_gets_no_better() {
    let job = Job::new();
    let mut settings = settings(1e-12, 400);
    settings.train.patience = Some(2);
    let facts = job.run(&settings, "patient", 2, 0).unwrap();
    // The first validation is the best; the two after it are no better.
    assert_eq!(
        (&facts["updates"], &facts["best_update"]),
        (&12.into(), &4.into())
    );
}
