//! The manifest of a study's results: what was asked for, where its data came from, and who computed it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::manifest::{
    Baseline, Configuration, Evaluation, FileHash, Languages, Manifest, Paper, Provenance,
    RunStatus, Seeds, Source, StageCost, TranslationScores, Variant,
};
use super::translators;
use crate::fingerprint::Fingerprint;
use crate::language;
use crate::metrics::bleu::{self, BleuCounts};
use crate::metrics::chrf::{self, ChrfVariant};
use crate::plan::{self, DataFile, Plan};
use crate::spec::settings::Scale;
use crate::spec::{Study, evaluations, selections};
use crate::stages::baselines;
use crate::store::Store;

/// What only the runs can tell of a manifest.
#[derive(Default)]
pub struct Told {
    /// Direction -> BLEU counts of the source as its own translation.
    pub copies: BTreeMap<String, BleuCounts>,
    pub configurations: Vec<Configuration>,
    pub statuses: Vec<RunStatus>,
}

/// What everything that decides scores has for a fingerprint: names of variants and the settings behind them.
pub fn settings_fingerprint(study: &Study) -> Result<Fingerprint> {
    Fingerprint::of(&settings_by_variant(study)?)
}

fn settings_by_variant(study: &Study) -> Result<BTreeMap<String, Value>> {
    study
        .variants
        .iter()
        .map(|variant| {
            Ok((
                variant.name.clone(),
                serde_json::to_value(&variant.settings).context("settings are not JSON")?,
            ))
        })
        .collect()
}

/// Of a plan, from whatever the store has of it.
pub fn manifest(
    study: &Study,
    plan: &Plan,
    store: &Store,
    threads: usize,
    told: Told,
) -> Result<Manifest> {
    let first = &study
        .variants
        .first()
        .context("a study without variants")?
        .settings;
    let mut jobs = BTreeMap::new();
    let mut stages: BTreeMap<String, StageCost> = BTreeMap::new();
    let (mut devices, mut instruction_sets) = (BTreeSet::new(), BTreeSet::new());
    for job in &plan.jobs {
        jobs.insert(job.label.clone(), job.fingerprint.short().to_owned());
        let Some(artifact) = store.find(&job.fingerprint)? else {
            continue;
        };
        let cost = stages.entry(job.stage.clone()).or_insert(StageCost {
            jobs: 0,
            seconds: 0.0,
            tokens: 0,
        });
        cost.jobs += 1;
        cost.seconds += artifact.record.seconds;
        cost.tokens += artifact.record.facts["tokens"].as_u64().unwrap_or(0);
        devices.insert(artifact.record.device.clone());
        instruction_sets.insert(artifact.record.instruction_set.clone());
    }
    for cost in stages.values_mut() {
        cost.seconds = (cost.seconds * 10.0).round() / 10.0;
    }
    let mut data_facts = Map::new();
    for (label, fingerprint) in &plan.data_jobs {
        if let Some(artifact) = store.find(fingerprint)? {
            data_facts.insert(label.clone(), artifact.record.facts);
        }
    }
    let truncated = truncated_examples(plan, store)?;
    if !truncated.is_empty() {
        data_facts.insert("sentences cut to the model".to_owned(), truncated.into());
    }
    let mut sources = Vec::new();
    for source in &plan.sources {
        let read = store.find(&source.job)?;
        let recorded = read.map(|artifact| artifact.record.facts[source.fact].clone());
        let stated = |said: &Option<String>| said.clone().unwrap_or_else(|| "not stated".into());
        sources.push(Source {
            name: source.name.clone(),
            files: source_files(source, recorded.as_ref().and_then(Value::as_array)),
            revision: source.revision.clone(),
            licence: stated(&source.licence),
            citation: stated(&source.citation),
        });
    }
    let names = first
        .languages
        .evaluated()
        .into_iter()
        .map(|code| {
            (
                code.to_owned(),
                if study.scale == Scale::Synthetic {
                    code.to_owned()
                } else {
                    language::name(code).unwrap_or(code).to_owned()
                },
            )
        })
        .collect();
    let baselines = match plan
        .baselines
        .as_ref()
        .map(|fingerprint| store.find(fingerprint))
        .transpose()?
        .flatten()
    {
        Some(artifact) => baselines::read_scores(&artifact.folder)?
            .into_iter()
            .map(|(name, scores)| Baseline {
                name,
                accuracy: scores
                    .into_iter()
                    .map(|(language, (correct, examples))| {
                        (language, 100.0 * correct as f64 / examples.max(1) as f64)
                    })
                    .collect(),
            })
            .collect(),
        None => Vec::new(),
    };
    Ok(Manifest {
        study: study.name.clone(),
        profile: study.profile.clone(),
        title: study.title.clone().unwrap_or_else(|| study.name.clone()),
        paper: study.paper.as_ref().map_or_else(
            || Paper {
                title: String::new(),
                url: String::new(),
            },
            |paper| Paper {
                title: paper.title.clone(),
                url: paper.url.clone(),
            },
        ),
        scale: study.scale,
        settings_fingerprint: settings_fingerprint(study)?.as_str().to_owned(),
        settings: settings_by_variant(study)?,
        variants: study
            .variants
            .iter()
            .map(|variant| Variant {
                name: variant.name.clone(),
                label: variant.label.clone(),
            })
            .collect(),
        languages: Languages {
            source: first.languages.source.clone(),
            targets: first.languages.targets.clone(),
            names,
        },
        evaluations: evaluations(first)
            .into_iter()
            .map(|(task, regime, languages)| Evaluation {
                task,
                regime,
                languages,
            })
            .collect(),
        selections: selections(first),
        seeds: Seeds {
            data: first.seeds.data,
            pretrain: first.seeds.pretrain.clone(),
            finetune: first.seeds.finetune.clone(),
        },
        sources,
        data_facts: Value::Object(data_facts),
        synthetic_deviations: plan.synthetic_deviations.clone(),
        jobs,
        provenance: Provenance {
            git_commit: git_commit(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            devices: devices.into_iter().collect(),
            instruction_sets: instruction_sets.into_iter().collect(),
            threads,
            stages,
        },
        configurations: told.configurations,
        statuses: told.statuses,
        baselines,
        translations: translators::in_words(plan, store)?,
        translation_scores: first.translation.as_ref().map(|translation| {
            let bleu = translation.test.bleu;
            let copies = told.copies.iter();
            TranslationScores {
                smoothing: bleu.smoothing,
                bleu_signature: bleu::signature(bleu.tokenization, bleu.smoothing, false),
                chrf_signature: chrf::signature(ChrfVariant::Chrf, false),
                copy: copies
                    .map(|(direction, counts)| (direction.clone(), counts.bleu(bleu.smoothing)))
                    .collect(),
            }
        }),
    })
}

/// How many examples each set had cut: training and dev sets by what was trained on, test sets by their input's name, test
/// sources by direction. One run stands for all of the study, whose lengths are the same; the largest count where tokenizers differ.
fn truncated_examples(plan: &Plan, store: &Store) -> Result<Map<String, Value>> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut add = |facts: &Value, field: &str, kind: &str| {
        for (set, count) in facts[field].as_object().into_iter().flatten() {
            let most = counts.entry(format!("{kind} {set}")).or_default();
            *most = count.as_u64().unwrap_or(0).max(*most);
        }
    };
    for run in &plan.runs {
        for (_, fingerprint) in &run.configurations {
            if let Some(artifact) = store.find(fingerprint)? {
                add(
                    &artifact.record.facts,
                    "truncated_training_examples",
                    "training",
                );
                add(&artifact.record.facts, "truncated_dev_examples", "dev");
            }
        }
        if let Some(artifact) = store.find(&run.evaluation)? {
            add(&artifact.record.facts, "truncated_test_examples", "test");
        }
    }
    for run in &plan.translation_runs {
        if let Some(artifact) = store.find(&run.evaluation)? {
            add(&artifact.record.facts, "sources_cut", "test");
        }
    }
    let counts = counts.into_iter();
    Ok(counts.map(|(set, count)| (set, count.into())).collect())
}

/// The files of a source with their hashes. A job records SHA-256 in the order in which it read its files: `file:0`,
/// `file:1`, or all of `first:` and then all of `second:`. Files of the hub are known from what the job recorded alone.
fn source_files(
    source: &plan::Source,
    recorded: Option<&Vec<Value>>,
) -> BTreeMap<String, FileHash> {
    let recorded = recorded.map_or(&[][..], Vec::as_slice);
    let mut local: Vec<(&str, u64, &DataFile)> = Vec::new();
    for (name, file) in &source.files {
        let (role, number) = name.split_once(':').unwrap_or((name, "0"));
        local.push((role, number.parse().unwrap_or(0), file));
    }
    local.sort_by_key(|(role, number, _)| (*role, *number));
    if local.is_empty() {
        let hash = |record: &Value| FileHash {
            bytes: record["bytes"].as_u64().unwrap_or(0),
            blake3: String::new(),
            sha256: record["sha256"].as_str().map(str::to_owned),
        };
        let name = |record: &Value| record["file"].as_str().unwrap_or_default().to_owned();
        return recorded
            .iter()
            .map(|record| (name(record), hash(record)))
            .collect();
    }
    let names = short_names(local.iter().map(|(_, _, file)| file.path.as_path()));
    let hash = |(index, (_, _, file)): (usize, (&str, u64, &DataFile))| {
        let sha256 = recorded
            .get(index)
            .and_then(|record| record["sha256"].as_str());
        let hash = FileHash {
            bytes: file.bytes,
            blake3: file.fingerprint.as_str().to_owned(),
            sha256: sha256.map(str::to_owned),
        };
        (names[index].clone(), hash)
    };
    local.into_iter().enumerate().map(hash).collect()
}

/// The last parts of paths, as many as tell them apart: no folder of this machine that is not needed.
fn short_names<'p>(paths: impl Iterator<Item = &'p Path> + Clone) -> Vec<String> {
    let last = |path: &Path, count: usize| {
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
        parts[parts.len().saturating_sub(count)..].join("/")
    };
    let distinct = |count: usize| {
        let names: BTreeSet<String> = paths.clone().map(|path| last(path, count)).collect();
        names.len() == paths.clone().count()
    };
    let deepest = paths.clone().map(|path| path.iter().count()).max();
    let count = (1..=deepest.unwrap_or(1)).find(|count| distinct(*count));
    paths.map(|path| last(path, count.unwrap_or(1))).collect()
}

/// The commit of the folder that the study runs in, when it is a checkout.
fn git_commit() -> Option<String> {
    let output = std::process::Command::new("git")
        .args(["rev-parse", "HEAD"])
        .output()
        .ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && commit.len() == 40).then_some(commit)
}
