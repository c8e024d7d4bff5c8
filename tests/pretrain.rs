//! The pretraining stage: what it writes does not depend on threads or interruptions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tempfile::TempDir;
use xlt::kernels::Device;
use xlt::model::{Model, ModelSettings};
use xlt::objectives::{LanguagesPerBatch, ObjectiveSettings, PositionSampling, StreamStart};
use xlt::report::manifest::StatusKind;
use xlt::report::results::Results;
use xlt::spec::pretrain::{Precision, PretrainSettings};
use xlt::stages::metrics::{Metrics, read_metrics};
use xlt::stages::pretrain::{self, Settings};
use xlt::stages::{Context, Diverged, Interrupted, Progress, Stop};
use xlt::training::{AdamSettings, Schedule};

use crate::command_line::{Place as StudyPlace, TINY};
use crate::objectives::write_corpora;

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

    /// Runs until after an update (0: to the end); checkpoints after every update when `interval` is zero.
    fn run(
        &self,
        settings: &Settings,
        name: &str,
        threads: usize,
        until: u64,
        interval: Duration,
    ) -> Result<Value> {
        let folder = |kind: &str| self.work.path().join(name).join(kind);
        let (output, checkpoints) = (folder("output"), folder("checkpoints"));
        fs::create_dir_all(&output)?;
        fs::create_dir_all(&checkpoints)?;
        let corpus = |name: &str| self.corpora.path().join(name);
        let inputs = BTreeMap::from([
            ("tokenizer".to_owned(), self.corpora.path().to_owned()),
            ("corpus:aa".to_owned(), corpus("aa")),
            ("corpus:bb".to_owned(), corpus("bb")),
            ("parallel_corpus:aa-bb".to_owned(), corpus("aa-bb")),
        ]);
        let (files, stop) = (BTreeMap::new(), Stop::default());
        let progress = StopAfter {
            update: until,
            stop: &stop,
        };
        let context = Context {
            inputs: &inputs,
            files: &files,
            output: &output,
            checkpoints: &checkpoints,
            device: &Device::cpu(threads),
            progress: &progress,
            stop: &stop,
            checkpoint_interval: interval,
        };
        pretrain::run(settings, &context)
    }

    fn output(&self, name: &str) -> PathBuf {
        self.work.path().join(name).join("output")
    }

    fn checkpoints(&self, name: &str) -> PathBuf {
        self.work.path().join(name).join("checkpoints")
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn settings(updates: u64) -> Settings {
    let (rate, position_sampling) = (0.3, PositionSampling::CountPower { exponent: 0.5 });
    Settings {
        model: ModelSettings {
            layers: 2,
            hidden: 16,
            heads: 2,
            feed_forward: 32,
            positions: 32,
            dropout: 0.1,
            attention_dropout: 0.1,
            language_embeddings: true,
        },
        pretrain: PretrainSettings {
            languages: None,
            objectives: vec![
                ObjectiveSettings::MaskedLm {
                    rate,
                    position_sampling,
                },
                ObjectiveSettings::CausalLm,
                ObjectiveSettings::TranslationLm {
                    rate,
                    position_sampling,
                },
            ],
            sampling_exponent: 0.7,
            languages_per_batch: LanguagesPerBatch::One,
            stream_length: 24,
            stream_start: StreamStart::Anywhere,
            updates,
            tokens_per_batch: 200,
            precision: Precision::F32,
            optimizer: AdamSettings {
                learning_rate: 5e-3,
                beta1: 0.9,
                beta2: 0.98,
                epsilon: 1e-8,
                weight_decay: 0.01,
                clip: Some(1.0),
                schedule: Schedule::Linear {
                    warm_up_fraction: 0.1,
                },
            },
            validation_every: Some(40),
        },
        languages: vec!["aa".into(), "bb".into()],
        pairs: vec![("aa".into(), "bb".into())],
        seed: 3,
    }
}

fn bytes(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    (
        fs::read(folder.join("model.safetensors")).unwrap(),
        fs::read(folder.join("metrics.jsonl")).unwrap(),
    )
}

#[test]
fn pretraining_writes_the_same_bytes_for_any_threads_and_after_interruptions() {
    let job = Job::new();
    let settings = settings(120);
    job.run(&settings, "one thread", 1, 0, HOUR).unwrap();
    job.run(&settings, "two threads", 2, 0, HOUR).unwrap();
    let uninterrupted = bytes(&job.output("one thread"));
    assert!(uninterrupted == bytes(&job.output("two threads")));
    for (until, interval) in [(1, HOUR), (40, HOUR), (73, Duration::ZERO)] {
        let stopped = job
            .run(&settings, "interrupted", 1, until, interval)
            .unwrap_err();
        assert!(stopped.is::<Interrupted>(), "{stopped:#}");
        assert!(
            fs::read_dir(job.output("interrupted"))
                .unwrap()
                .next()
                .is_none(),
            "an unfinished artifact"
        );
    }
    job.run(&settings, "interrupted", 2, 0, HOUR).unwrap();
    assert!(uninterrupted == bytes(&job.output("interrupted")));

    let other = Settings {
        seed: 4,
        ..settings
    };
    job.run(&other, "other seed", 1, 0, HOUR).unwrap();
    assert!(uninterrupted.0 != bytes(&job.output("other seed")).0);
}

#[test]
fn a_death_between_checkpoints_costs_only_what_came_after() {
    let job = Job::new();
    let settings = settings(30);
    job.run(&settings, "whole", 1, 0, HOUR).unwrap();
    job.run(&settings, "killed", 1, 20, HOUR).unwrap_err();
    // A kill amid a save leaves a half-written folder beside the whole one.
    let unfinished = job.checkpoints("killed").join("unfinished");
    fs::create_dir_all(&unfinished).unwrap();
    fs::write(unfinished.join("position.json"), "{\"updates\": 2").unwrap();
    job.run(&settings, "killed", 1, 0, Duration::ZERO).unwrap();
    assert!(bytes(&job.output("whole")) == bytes(&job.output("killed")));
}

#[test]
fn pretraining_learns_and_says_how_well_for_every_objective_and_language() {
    let job = Job::new();
    let facts = job.run(&settings(160), "run", 2, 0, HOUR).unwrap();
    let metrics = read_metrics(&job.output("run")).unwrap();
    let loss_at = |wanted: u64, objective: &str, of: &str| {
        metrics.iter().find_map(|line| match line {
            Metrics::Validation {
                update,
                objective: o,
                of: language,
                loss,
                ..
            } if *update == wanted && o == objective && language == of => Some(*loss),
            _ => None,
        })
    };
    for (objective, of) in [
        ("masked_lm", "aa"),
        ("masked_lm", "bb"),
        ("causal_lm", "aa"),
        ("causal_lm", "bb"),
        ("translation_lm", "aa-bb"),
    ] {
        let (early, late) = (
            loss_at(40, objective, of).unwrap(),
            loss_at(160, objective, of).unwrap(),
        );
        assert!(late < early, "{objective} {of}: {early} then {late}");
        assert_eq!(
            facts["validation_perplexity"][objective][of],
            json!(late.exp())
        );
    }
    let last = metrics
        .iter()
        .rfind(|line| matches!(line, Metrics::Validation { .. }));
    let Some(Metrics::Validation { update, tokens, .. }) = last else {
        panic!("no validation at the end")
    };
    assert_eq!((*update, json!(tokens)), (160, facts["tokens"].clone()));
    let lines: Vec<u64> = metrics
        .iter()
        .filter_map(|line| {
            if let Metrics::Training { update, .. } = line {
                Some(*update)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(lines, [50, 100, 150, 160]);
    assert_eq!(facts["updates"], 160);
    assert!(Model::load(&job.output("run").join("model.safetensors")).is_ok());
}

#[test]
fn a_study_whose_pretraining_diverged_is_reported_whether_it_showed_in_training_or_on_held_out_text()
 {
    // One update makes weights of which no loss is finite: the next update meets it, or what validates after the last.
    for updates in [2, 1] {
        let study = TINY
            .replace("learning_rate: 5.0e-3", "learning_rate: 1.0e+30")
            .replace(
                "schedule: {linear: {warm_up_fraction: 0.1}}",
                "schedule: constant",
            )
            .replace("updates: 20", &format!("updates: {updates}"));
        let place = StudyPlace::new(&study);
        let ran = place.xlt(&["run", "tiny.yaml"]).ends(0);
        let results = Results::read(&place.results()).unwrap();
        let statuses = results.manifest.statuses.iter();
        let of_mlm: Vec<_> = statuses.filter(|one| one.variant == "mlm").collect();
        let pretrained = of_mlm.iter().any(|one| one.what == "pretrain");
        assert!(pretrained, "{of_mlm:?} {ran:?}");
        let diverged = |one: &&xlt::report::manifest::RunStatus| one.kind == StatusKind::Diverged;
        assert!(of_mlm.iter().all(diverged), "{of_mlm:?}");
        assert!(!results.predictions.is_empty(), "{ran:?}");
        place.xlt(&["report", "tiny.yaml", "--check"]).ends(0);
    }
}

#[test]
fn divergence_keeps_the_last_finite_state_and_the_batch() {
    let job = Job::new();
    let mut settings = settings(60);
    settings.pretrain.optimizer = AdamSettings {
        learning_rate: 1e30,
        clip: None,
        schedule: Schedule::Constant,
        ..settings.pretrain.optimizer
    };
    let failed = job.run(&settings, "run", 1, 0, HOUR).unwrap_err();
    let diverged = failed
        .downcast_ref::<Diverged>()
        .unwrap_or_else(|| panic!("{failed:#}"));
    assert!(diverged.update >= 2, "the first update is finite");
    let folder = PathBuf::from(&diverged.folder);
    let position: Value =
        serde_json::from_slice(&fs::read(folder.join("position.json")).unwrap()).unwrap();
    assert_eq!(position["updates"], diverged.update - 1);
    let batch: Value =
        serde_json::from_slice(&fs::read(folder.join("batch.json")).unwrap()).unwrap();
    assert!(!batch["sequences"]["tokens"].as_array().unwrap().is_empty());
    assert!(folder.join("trainer.safetensors").exists());
    assert!(fs::read_dir(job.output("run")).unwrap().next().is_none());
}

#[test]
fn a_missing_corpus_is_named() {
    let job = Job::new();
    let settings = Settings {
        languages: vec!["aa".into(), "cc".into()],
        ..settings(10)
    };
    let failed = job.run(&settings, "run", 1, 0, HOUR).unwrap_err();
    assert!(format!("{failed:#}").contains("corpus:cc"), "{failed:#}");
}
