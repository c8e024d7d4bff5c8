//! Translations of inference sets by a model of the study: translate-train and translate-test without a file of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tempfile::TempDir;
use xlt::data::nli::{Label, NliExample, read_examples, write_examples};
use xlt::data::tokenizer::Tokenizer;
use xlt::kernels::Device;
use xlt::model::{Batch, Encoder, Model, ModelSettings, Shape};
use xlt::report::results::Results;
use xlt::spec::pretrain::Precision;
use xlt::spec::translation::SearchSettings;
use xlt::stages::translate_nli::{self, Settings};
use xlt::stages::translating::{encode_sources, translated};
use xlt::stages::{Context, Interrupted, Progress, Stop};
use xlt::store::Store;

use crate::command_line::{Place, TINY};
use crate::objectives::write_corpora;

/// The tiny study with a translator and the regimes that need one.
pub fn study() -> String {
    let translator = "\
monolingual_validation: 20
  parallel_validation: 8
  nli:
    translator:
      variant: mlm
      encoder: {pretrained: {}}
      decoder: random
      train:
        objectives: [supervised: {}]
        maximum_length: 40
        updates: 16
        tokens_per_batch: 200
        precision: f32
        optimizer: {learning_rate: 5.0e-3, clip: 1.0, schedule: constant}
        validation_every: 8
      search: {beam: 2}
      bleu: {tokenization: none, smoothing: exp}
      seed: 1
";
    TINY.replace("monolingual_validation: 20\n", translator)
        .replace(
            "regimes: [zero_shot]",
            "regimes: [zero_shot, translate_train, translate_test]",
        )
}

#[test]
fn a_study_translates_its_inference_sets_itself() {
    let place = Place::new(&study());
    place.xlt(&["run", "tiny.yaml"]).ends(0);
    let results = Results::read(&place.results()).unwrap();
    let regimes: Vec<&str> = results
        .manifest
        .evaluations
        .iter()
        .map(|evaluation| evaluation.regime.as_str())
        .collect();
    assert_eq!(regimes, ["zero_shot", "translate_train", "translate_test"]);
    let of_bb = |regime: &str| {
        let mut cells = results.predictions.iter();
        cells
            .find(|one| {
                one.cell.variant == "mlm" && one.cell.regime == regime && one.cell.language == "bb"
            })
            .map(|one| one.items.len())
    };
    assert_eq!(of_bb("translate_train"), Some(120));
    assert_eq!(of_bb("translate_test"), Some(120));

    // One translator for both variants, with what it scores beside what it made.
    let made: Vec<&str> = results
        .manifest
        .translations
        .values()
        .map(String::as_str)
        .collect();
    assert_eq!(made.len(), 2, "{made:?}");
    for words in made {
        for part in [
            "built on `mlm`",
            "beam 2",
            "on the 8 held-out pairs that chose it",
            "on 10 test pairs (translated)",
            "(copying the source)",
            "tok:none",
        ] {
            assert!(words.contains(part), "{part}: {words}");
        }
    }
    let report = fs::read_to_string(place.results().join("report.html")).unwrap();
    assert!(report.contains("built on `mlm`"));

    // Pretraining shows once: the translator starts from the variant's own.
    let curves: BTreeSet<(&str, &str, u64)> = results
        .curves
        .iter()
        .map(|point| (point.variant.as_str(), point.series.as_str(), point.updates))
        .collect();
    assert_eq!(curves.len(), results.curves.len());

    // The training set is the source's, row by row, in other words.
    let store = Store::open(&place.path().join(".xlt")).unwrap();
    let artifacts = store.artifacts().unwrap();
    let of = |stage: &str, split: &str, language: &str| {
        let found: Vec<Vec<NliExample>> = artifacts
            .iter()
            .filter(|artifact| {
                let settings = &artifact.record.settings;
                artifact.record.stage == stage
                    && match stage {
                        "nli" => settings["split"] == split && settings["language"] == language,
                        _ => settings["direction"] == language,
                    }
            })
            .map(|artifact| read_examples(&artifact.folder.join("examples.jsonl")).unwrap())
            .collect();
        assert_eq!(found.len(), 1, "{stage} {split} {language}");
        found.into_iter().next().unwrap()
    };
    for (original, translation) in [
        (of("nli", "train", "aa"), of("translate_nli", "", "aa-bb")),
        (of("nli", "test", "bb"), of("translate_nli", "", "bb-aa")),
    ] {
        let rows = |examples: &[NliExample]| -> Vec<(u32, u32, Label)> {
            let row = |example: &NliExample| (example.item, example.premise_id, example.label);
            examples.iter().map(row).collect()
        };
        assert_eq!(rows(&original), rows(&translation));
        assert_ne!(original, translation);
    }

    let second = place.xlt(&["run", "tiny.yaml", "--json"]).ends(0).json();
    assert_eq!(second["jobs_finished"], 0);
    place.xlt(&["report", "tiny.yaml", "--check"]).ends(0);
}

#[test]
fn wrong_settings_of_a_translator_are_shown_at_their_lines() {
    for (from, to, told) in [
        ("variant: mlm", "variant: clm", "the study has: random, mlm"),
        ("variant: mlm", "variant: random", "pretrain: none"),
        (
            "regimes: [zero_shot, translate_train, translate_test]",
            "regimes: [zero_shot]",
            "nothing is left to translate",
        ),
        (
            "parallel_validation: 8",
            "parallel_validation: 0",
            "held-out pairs",
        ),
        (
            "maximum_length: 40\n        u",
            "maximum_length: 127\n        u",
            "126",
        ),
        ("search: {beam: 2}", "search: {beam: 0}", "beam of 0"),
        (
            "  random: {pretrain: none}",
            "  random: {pretrain: none, data.nli.translator.seed: 2}",
            "another `data.nli.translator`",
        ),
        (
            "  random: {pretrain: none}",
            "  random: {pretrain: none, data.text_pipeline: xlm}",
            "another `data.text_pipeline`",
        ),
        (
            "  random: {pretrain: none}",
            "  random: {pretrain: none, data.synthetic.anchors: 0.0}",
            "another `data.synthetic`",
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

/// Asks to stop at the first sign of progress.
struct Impatient<'a>(Option<&'a Stop>);

impl Progress for Impatient<'_> {
    fn begin(&self, _total: u64, _done: u64, _unit: &str) {}

    fn advance(&self, _done: u64, _note: &str) {
        if let Some(stop) = self.0 {
            stop.ask();
        }
    }

    fn message(&self, _line: &str) {}
}

fn translate(folder: &Path, name: &str, threads: usize, impatient: bool) -> Result<Value> {
    let path = |kind: &str| folder.join(name).join(kind);
    fs::create_dir_all(path("output"))?;
    fs::create_dir_all(path("checkpoints"))?;
    let inputs = BTreeMap::from([
        ("tokenizer".to_owned(), folder.to_owned()),
        ("translation".to_owned(), folder.to_owned()),
        ("examples".to_owned(), folder.to_owned()),
    ]);
    let (files, stop) = (BTreeMap::new(), Stop::default());
    translate_nli::run(
        &settings(),
        &Context {
            inputs: &inputs,
            files: &files,
            output: &path("output"),
            checkpoints: &path("checkpoints"),
            device: &Device::cpu(threads),
            progress: &Impatient(impatient.then_some(&stop)),
            stop: &stop,
            checkpoint_interval: Duration::from_secs(3600),
        },
    )
}

fn settings() -> Settings {
    Settings {
        direction: "aa-bb".parse().unwrap(),
        search: SearchSettings {
            beam: 1,
            length_penalty: 1.0,
        },
        precision: Precision::F32,
    }
}

/// A tokenizer, a model at random and 400 examples with 800 sentences, one of them empty and some twice.
fn prepared() -> (TempDir, Vec<NliExample>) {
    let folder = tempfile::tempdir().unwrap();
    write_corpora(folder.path()).unwrap();
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    let shape = Shape {
        settings: ModelSettings {
            layers: 1,
            hidden: 16,
            heads: 2,
            feed_forward: 32,
            positions: 64,
            dropout: 0.1,
            attention_dropout: 0.1,
            language_embeddings: true,
        },
        vocabulary: tokenizer.vocabulary(),
        languages: tokenizer.languages().len(),
        decoder: true,
    };
    let model = Model::initialise(&shape, 5);
    model
        .save(&folder.path().join("model.safetensors"))
        .unwrap();
    let examples: Vec<NliExample> = (0..400)
        .map(|item| NliExample {
            premise: format!("ba {} da", "ka ".repeat(item as usize / 3 % 20)),
            hypothesis: match item {
                7 => String::new(),
                item => format!("da {item} ba"),
            },
            label: Label::ALL[item as usize % 3],
            premise_id: item / 3,
            item,
        })
        .collect();
    write_examples(&folder.path().join("examples.jsonl"), &examples).unwrap();
    (folder, examples)
}

#[test]
fn interrupted_translation_of_examples_equals_uninterrupted() {
    let (folder, examples) = prepared();
    let facts = translate(folder.path(), "whole", 1, false).unwrap();
    // Four hundred hypotheses and twenty premises: each is translated once.
    assert_eq!(facts["sentences_translated"], 420);
    let read = |name: &str| read_examples(&folder.path().join(name).join("output/examples.jsonl"));
    let whole = read("whole").unwrap();
    translate(folder.path(), "other threads", 2, false).unwrap();
    assert_eq!(whole, read("other threads").unwrap());

    // Every sentence is translated as it is by itself, in its place.
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    let model = Model::load(&folder.path().join("model.safetensors")).unwrap();
    let encoder = Encoder::new(model, &Device::cpu(1));
    let languages = ["aa", "bb"].map(|language| tokenizer.language_id(language).unwrap());
    for (original, translation) in examples.iter().zip(&whole).step_by(37) {
        for (from, into) in [
            (&original.premise, &translation.premise),
            (&original.hypothesis, &translation.hypothesis),
        ] {
            let (sources, _) = encode_sources(&[from], "aa", &tokenizer, &encoder).unwrap();
            let mut batch = Batch::new();
            batch.push(&sources[0], languages[0]);
            let alone = translated(
                &encoder,
                &batch,
                languages[1],
                &settings().search,
                &tokenizer,
            );
            assert_eq!(&alone.unwrap()[0], into);
        }
    }

    // More sentences than one part: the first stop leaves a checkpoint.
    let more: Vec<NliExample> = (0..600)
        .map(|item| NliExample {
            premise: format!("ba {item}"),
            hypothesis: format!("ka {item}"),
            label: Label::ALL[item as usize % 3],
            premise_id: item,
            item,
        })
        .collect();
    write_examples(&folder.path().join("examples.jsonl"), &more).unwrap();
    translate(folder.path(), "straight", 2, false).unwrap();
    for _ in 0..2 {
        let stopped = translate(folder.path(), "stopped", 2, true).unwrap_err();
        assert!(stopped.is::<Interrupted>(), "{stopped:#}");
    }
    translate(folder.path(), "stopped", 1, false).unwrap();
    assert_eq!(read("straight").unwrap(), read("stopped").unwrap());
}

#[test]
fn a_diverged_translator_takes_nothing_with_it_but_what_it_was_to_translate() {
    let optimizer =
        "optimizer: {learning_rate: 5.0e-3, clip: 1.0, schedule: constant}\n        validation";
    let study = study();
    assert!(study.contains(optimizer));
    let wild = optimizer.replace("5.0e-3, clip: 1.0", "1.0e+30, clip: null");
    let place = Place::new(&study.replace(optimizer, &wild));
    place.xlt(&["run", "tiny.yaml"]).ends(0);
    let results = Results::read(&place.results()).unwrap();
    let scored = |regime: &str, language: &str| {
        let mut cells = results.predictions.iter();
        cells.any(|one| {
            let cell = &one.cell;
            (
                cell.variant.as_str(),
                cell.regime.as_str(),
                cell.language.as_str(),
            ) == ("mlm", regime, language)
        })
    };
    assert!(scored("zero_shot", "bb") && scored("translate_test", "aa"));
    assert!(!scored("translate_test", "bb") && !scored("translate_train", "bb"));
    let told = results.manifest.statuses.iter();
    let told: Vec<&str> = told
        .filter(|status| status.detail.contains("diverged"))
        .map(|status| status.what.as_str())
        .collect();
    assert!(told.contains(&"xnli/translate_test/bb"), "{told:?}");
    let words: Vec<&String> = results.manifest.translations.values().collect();
    assert!(
        words.iter().all(|words| words.contains("diverged")),
        "{words:?}"
    );
    assert!(!results.manifest.baselines.is_empty());
}
