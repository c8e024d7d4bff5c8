//! What each stage writes, as hashes: a change without a raised `VERSION` would let old artifacts pass for new ones.
//!
//! Stages that prepare data are pinned by their bytes. Training stages are pinned by their losses: exponentials of the C
//! library may differ in the last bit between machines.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use xlt::data::nli::read_examples;
use xlt::execution::progress::Silent;
use xlt::execution::{self, Options};
use xlt::kernels::Device;
use xlt::metrics::Measurement;
use xlt::plan::hashes::FileHashes;
use xlt::plan::{Plan, build};
use xlt::spec::anchors::Anchors;
use xlt::stages::measured::{self, MeasuredSet};
use xlt::stages::{self, Stop};
use xlt::store::{Artifact, Store};

use crate::command_line::TINY;

/// Stage and version; the hash of all that its jobs write, in the order of the plan.
const BYTES: [(&str, u32, &str); 9] = [
    ("synthesize", 1, "da894f6b82db6505"),
    ("nli", 1, "6b424e96935dcf0b"),
    ("baselines", 1, "b2dac5b5b471187c"),
    ("monolingual", 1, "1e6b6926a3255079"),
    ("parallel", 2, "2eed81ed45f97957"),
    ("parallel test", 1, "81212dd7a16cc0f7"),
    ("tokenizer", 2, "459fad06c17f61c8"),
    ("corpus", 2, "bf60921c7adaeb92"),
    ("word_pairs", 1, "fa46f8c57df5175f"),
];

/// Stage and version; the losses that its jobs write, in the order of the plan.
const LOSSES: [(&str, u32, &[f64]); 5] = [
    (
        "pretrain",
        1,
        &[
            5.16313, 5.13075, 5.15412, 5.37463, 5.13457, 5.09340, 5.45774, 5.02187, 5.21713,
            5.17021, 5.26178,
        ],
    ),
    (
        "finetune",
        1,
        &[
            1.38277, 1.20416, 1.44453, 1.22461, 1.52891, 1.38734, 1.47322, 1.30229, 1.50740,
            1.40209, 1.40998, 1.25880,
        ],
    ),
    (
        "translation",
        1,
        &[
            5.01355, 4.89745, 5.05882, 5.10342, 5.16374, 5.01545, 4.80242, 4.71783, 4.85901,
            4.92211, 5.11849, 4.80445,
        ],
    ),
    (
        "language_modelling",
        1,
        &[
            5.12042, 1.63896, 5.00254, 1.60794, 5.23515, 1.67619, 5.10667, 1.64138,
        ],
    ),
    ("word_embeddings", 1, &[1.10406, 1.10744]),
];

/// Stage and version; the hash of what it writes without what the models decided.
const EVALUATION: [(&str, u32, &str); 3] = [
    ("evaluate", 1, "74cee74148700e88"),
    ("translate", 1, "3d400ff4058e8a58"),
    ("translate_nli", 2, "ac7df507a2d1af6d"),
];

/// Stages that the first study does not have; those of the second are pinned for them alone.
const SECOND: [&str; 4] = [
    "translate_nli",
    "word_pairs",
    "language_modelling",
    "word_embeddings",
];

/// Largest difference of a loss, in nats.
const TOLERANCE: f64 = 1e-4;

fn study() -> String {
    let tlm = "  tlm: {pretrain.objectives: [causal_lm, translation_lm: {rate: 0.3, position_sampling: uniform}]}\n";
    let study = TINY.replace(
        "regimes: [zero_shot]",
        "regimes: [zero_shot, translate_train, translate_test]",
    );
    let study = study.replace("text_pipeline: none", "text_pipeline: xlm") + tlm;
    // The section of the tiny study of translation, for all variants.
    let translating = crate::translation::study();
    let start = translating.find("translation:\n").unwrap();
    let end = translating.find("seeds:").unwrap();
    let section = translating[start..end]
        .replace(
            "encoder: random",
            "encoder: {pretrained: {objectives: [causal_lm]}}",
        )
        .replace(
            "decoder: random",
            "decoder: {embeddings: {objectives: [causal_lm]}}",
        );
    let study = study.replacen("seeds:", &format!("{section}seeds:"), 1);
    let kept = "monolingual_validation: 20";
    let study = study.replace(kept, &format!("{kept}\n  parallel_validation: 8"));
    // A study without pretraining has nothing to start from.
    study.replace(
        "random: {pretrain: none}",
        "random: {pretrain: none, translation.encoder: random, translation.decoder: random}",
    )
}

/// A translator, and what pretrained models are asked as they are.
fn second_study() -> String {
    let probes = "language_modelling: {languages: [aa, bb], units: [token, character]}\n\
                  word_embeddings: {words: mean_of_tokens, same_tokens: keep}\nseeds:";
    crate::translator::study()
        .replace(
            "objectives: [masked_lm",
            "objectives: [causal_lm, masked_lm",
        )
        .replacen("seeds:", probes, 1)
        .replace(
            "  random: {pretrain: none}\n",
            "  clm: {pretrain.objectives: [causal_lm]}\n",
        )
        .replace("than: random", "than: clm")
}

/// Runs a study in this process.
fn run(store: &Store, study: &str) -> Plan {
    let study = xlt::spec::read_text(Path::new("tiny.yaml"), study, None, Anchors::default());
    let plan = build(&study.unwrap(), None, &mut FileHashes::default()).unwrap();
    let options = Options {
        jobs: 1,
        threads: 2,
        device: &|threads| Ok(Device::cpu(threads)),
        checkpoint_interval: Duration::from_secs(60),
        resume_anywhere: false,
        targets: None,
    };
    let outcome = execution::run(
        &plan,
        store,
        &options,
        &|job, context| stages::run(&job.stage, &job.settings, context),
        &Silent,
        &Stop::default(),
    );
    let outcome = outcome.unwrap();
    assert!(
        outcome.complete() && outcome.diverged.is_empty(),
        "{outcome:?}"
    );
    plan
}

fn told(stage: &str, version: u32, pinned: u32) -> String {
    if version == pinned {
        let file = stage.split(' ').next().unwrap_or(stage);
        format!(
            "what the stage `{stage}` writes has changed, but its VERSION is still {version}: artifacts of before would pass for \
             its own. Raise it in harness/stages/{file}.rs (or in the stage before it, when only its input changed), then pin this"
        )
    } else {
        format!("the stage `{stage}` has version {version}; pin what it writes now")
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn losses(artifact: &Artifact) -> Vec<f64> {
    match artifact.record.stage.as_str() {
        "pretrain" | "translation" => {
            let text = fs::read_to_string(artifact.folder.join("metrics.jsonl")).unwrap();
            let lines = text
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap());
            let of = |line: Value| -> Vec<f64> {
                let training = line["training"]["loss"].as_object().into_iter().flatten();
                let training = training.map(|(_, loss)| loss.as_f64().unwrap());
                training
                    .chain(line["validation"]["loss"].as_f64())
                    .collect()
            };
            lines.flat_map(of).collect()
        }
        "language_modelling" | "word_embeddings" => {
            let sets = measured::read(&artifact.folder).unwrap();
            let mean = |set: &MeasuredSet| {
                let values = set.items.iter().map(|(_, item)| match *item {
                    Measurement::Text { loss, units } => loss / units as f64,
                    Measurement::Pair {
                        cosine, distance, ..
                    } => cosine + distance,
                    Measurement::Rated { cosine, .. } => cosine,
                });
                values.sum::<f64>() / set.items.len() as f64
            };
            sets.iter().map(mean).collect()
        }
        _ => json(&artifact.folder.join("dev.json"))["epochs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|epoch| epoch["loss"].as_f64().unwrap())
            .collect(),
    }
}

#[test]
fn what_a_stage_writes_changes_only_with_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let (plan, second) = (run(&store, &study()), run(&store, &second_study()));
    let second = second.jobs.iter();
    let second = second.filter(|job| SECOND.contains(&job.stage.as_str()));
    let mut versions = BTreeMap::new();
    let mut hashers: BTreeMap<&str, blake3::Hasher> = BTreeMap::new();
    let mut trained: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for job in plan.jobs.iter().chain(second) {
        let stage = match job.settings["used_for"] == "test" {
            true => "parallel test",
            false => job.stage.as_str(),
        };
        versions.insert(stage, job.version);
        let artifact = store.find(&job.fingerprint).unwrap().unwrap();
        let hasher = hashers.entry(stage).or_default();
        for (name, file) in &artifact.record.files {
            hasher.update(name.as_bytes());
            match stage {
                "pretrain" | "finetune" | "translation" => {}
                "language_modelling" | "word_embeddings" => {}
                "translate_nli" => {
                    for example in read_examples(&artifact.folder.join(name)).unwrap() {
                        let row = (example.item, example.premise_id, example.label.name());
                        hasher.update(format!("{row:?}").as_bytes());
                    }
                }
                "translate" if name != "results.json" => {}
                "translate" => {
                    let results = json(&artifact.folder.join(name));
                    for result in results.as_array().unwrap() {
                        hasher.update(result["direction"].to_string().as_bytes());
                        hasher.update(result["search"].to_string().as_bytes());
                        for sentence in result["sentences"].as_array().unwrap() {
                            let told = match result["search"] == "copy" {
                                true => sentence.to_string(),
                                false => sentence["chrf"]["reference"].to_string(),
                            };
                            hasher.update(told.as_bytes());
                        }
                    }
                }
                "evaluate" => {
                    let mut cells = json(&artifact.folder.join(name));
                    for cell in cells.as_array_mut().unwrap() {
                        for decided in ["run", "epoch", "dev", "predicted"] {
                            let there = cell.as_object_mut().unwrap().remove(decided);
                            assert!(there.is_some(), "{decided}");
                        }
                    }
                    hasher.update(cells.to_string().as_bytes());
                }
                _ => {
                    hasher.update(file.blake3.as_str().as_bytes());
                }
            }
        }
        if LOSSES.iter().any(|(name, ..)| *name == stage) {
            trained.entry(stage).or_default().extend(losses(&artifact));
        }
    }
    let mut wrong = Vec::new();
    for (stage, pinned, hash) in BYTES.into_iter().chain(EVALUATION) {
        let version = versions[stage];
        let found = hashers[stage].finalize().to_hex()[..16].to_owned();
        if (version, found.as_str()) != (pinned, hash) {
            wrong.push(format!(
                "{}:\n    (\"{stage}\", {version}, \"{found}\"),",
                told(stage, version, pinned)
            ));
        }
    }
    for (stage, pinned, losses) in LOSSES {
        let version = versions[stage];
        let found = &trained[stage];
        let close = found.len() == losses.len()
            && found
                .iter()
                .zip(losses)
                .all(|(found, pinned)| (found - pinned).abs() <= TOLERANCE);
        if version != pinned || !close {
            let found: Vec<String> = found.iter().map(|loss| format!("{loss:.5}")).collect();
            wrong.push(format!(
                "{}:\n    (\"{stage}\", {version}, &[{}]),",
                told(stage, version, pinned),
                found.join(", ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let pinned = BYTES.len() + LOSSES.len() + EVALUATION.len();
    assert_eq!(
        versions.len(),
        pinned,
        "a stage is not pinned: {:?}",
        versions.keys()
    );
}
