//! Gathers the results of a study from the artifacts of its plan. Works on partial runs: what is not there is said so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::manifest::{
    Baseline, Configuration, Evaluation, FileHash, Languages, Manifest, Paper, Provenance,
    RunStatus, Seeds, Source, StageCost, StatusKind, TranslationScores, Variant,
};
use super::measurements::CellMeasurements;
use super::results::Results;
use super::scores::{Cell, CellPredictions, CurvePoint, CurveStage, ItemPrediction};
use super::translations::CellTranslations;
use super::translators;
use crate::fingerprint::Fingerprint;
use crate::language;
use crate::metrics::TranslationCounts;
use crate::metrics::bleu::{self, BleuCounts};
use crate::metrics::chrf::{self, ChrfVariant};
use crate::plan::{self, DataFile, MeasurementRun, Plan, Run, TranslationRun};
use crate::spec::settings::Scale;
use crate::spec::{LAST_UPDATE, Study, TRANSLATION_TASK, VALIDATION_BLEU, evaluations, selections};
use crate::stages::finetune::DevScores;
use crate::stages::metrics::{self, Metrics};
use crate::stages::{baselines, evaluate, measured, translate};
use crate::store::{Artifact, Store};

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

/// Reads whatever the store has of a plan.
pub fn collect(study: &Study, plan: &Plan, store: &Store, threads: usize) -> Result<Results> {
    let mut gathered = Gathered::default();
    for run in &plan.runs {
        gathered.run(run, study, store)?;
    }
    for pretraining in &plan.pretrainings {
        match store.find(&pretraining.fingerprint)? {
            Some(artifact) => {
                let (variant, seed) = (&pretraining.variant, pretraining.seed);
                if artifact.record.diverged() {
                    let detail = diverged_detail(&artifact);
                    let kind = StatusKind::Diverged;
                    gathered.status(variant, seed, None, "pretrain", kind, detail);
                } else {
                    gathered.pretraining_curve(variant, seed, &artifact.folder)?;
                }
            }
            None => gathered.status(
                &pretraining.variant,
                pretraining.seed,
                None,
                "pretrain",
                StatusKind::Missing,
                "not run yet, or its job failed".into(),
            ),
        }
    }
    for run in &plan.translation_runs {
        gathered.translation_run(run, store)?;
    }
    for run in &plan.measurement_runs {
        gathered.measurement_run(run, store)?;
    }
    let manifest = manifest(study, plan, store, threads, &mut gathered)?;
    Ok(Results::new(
        manifest,
        gathered.predictions,
        gathered.translations,
        gathered.measurements,
        gathered.curves,
    ))
}

#[derive(Default)]
struct Gathered {
    predictions: Vec<CellPredictions>,
    translations: Vec<CellTranslations>,
    measurements: Vec<CellMeasurements>,
    /// Direction -> BLEU counts of the source as its own translation.
    copies: BTreeMap<String, BleuCounts>,
    curves: Vec<CurvePoint>,
    configurations: Vec<Configuration>,
    statuses: Vec<RunStatus>,
}

impl Gathered {
    fn status(
        &mut self,
        variant: &str,
        pretrain_seed: u64,
        finetune_seed: Option<u64>,
        what: &str,
        kind: StatusKind,
        detail: String,
    ) {
        self.statuses.push(RunStatus {
            variant: variant.to_owned(),
            pretrain_seed,
            finetune_seed,
            what: what.to_owned(),
            kind,
            detail,
        });
    }

    fn run(&mut self, run: &Run, study: &Study, store: &Store) -> Result<()> {
        let source = study
            .variants
            .first()
            .map(|variant| variant.settings.languages.source.clone())
            .unwrap_or_default();
        let what = format!("fine-tune on {}", run.training_set);
        let mut dev = Vec::new();
        for (configuration, fingerprint) in &run.configurations {
            let Some(artifact) = store.find(fingerprint)? else {
                continue;
            };
            if artifact.record.diverged() {
                self.status(
                    &run.variant,
                    run.pretrain_seed,
                    Some(run.finetune_seed),
                    &what,
                    StatusKind::Diverged,
                    format!("{configuration}: {}", diverged_detail(&artifact)),
                );
                continue;
            }
            let scores = DevScores::read(&artifact.folder)?;
            if run.configurations.len() == 1 {
                self.finetuning_curve(run, &scores, &source);
            }
            dev.push((configuration, fingerprint, scores));
        }
        let results = match store.find(&run.evaluation)? {
            Some(artifact) if !artifact.record.diverged() => {
                evaluate::read_results(&artifact.folder)?
            }
            _ => {
                self.status(
                    &run.variant,
                    run.pretrain_seed,
                    Some(run.finetune_seed),
                    &what,
                    StatusKind::Missing,
                    "not run yet, or its job failed".into(),
                );
                Vec::new()
            }
        };
        let mut chosen: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for (name, result) in run.cells.iter().zip(results) {
            if result.items.is_empty() {
                self.status(
                    &run.variant,
                    run.pretrain_seed,
                    Some(run.finetune_seed),
                    &format!("{}/{}/{}", name.task, name.regime.name(), name.language),
                    StatusKind::Diverged,
                    "the translator of its test set diverged".into(),
                );
                continue;
            }
            let rule = if name.selection == "target_dev" {
                format!("target_dev {}", name.language)
            } else {
                name.selection.clone()
            };
            chosen.entry(result.run).or_default().insert(rule);
            let items = result
                .premises
                .iter()
                .zip(&result.items)
                .zip(&result.predicted)
                .zip(&result.gold);
            self.predictions.push(CellPredictions {
                cell: Cell {
                    variant: run.variant.clone(),
                    pretrain_seed: run.pretrain_seed,
                    finetune_seed: run.finetune_seed,
                    task: name.task.clone(),
                    regime: name.regime.name().to_owned(),
                    language: name.language.clone(),
                    selection: name.selection.clone(),
                },
                items: items
                    .map(|(((premise, item), predicted), gold)| ItemPrediction {
                        premise: *premise,
                        item: *item,
                        predicted: *predicted,
                        gold: *gold,
                    })
                    .collect(),
            });
        }
        let rules = study
            .variants
            .first()
            .and_then(|variant| variant.settings.finetune.as_ref())
            .map(|finetune| finetune.select_on.clone())
            .unwrap_or_default();
        for (index, (configuration, fingerprint)) in run.configurations.iter().enumerate() {
            let Some((_, _, scores)) = dev.iter().find(|(_, found, _)| *found == fingerprint)
            else {
                continue;
            };
            let mut dev_scores = BTreeMap::new();
            for rule in &rules {
                let languages: Vec<&String> = match rule.name() {
                    "target_dev" => scores.examples.keys().collect(),
                    _ => vec![&source],
                };
                for language in languages {
                    let name = if rule.name() == "target_dev" {
                        format!("target_dev {language}")
                    } else {
                        rule.name().to_owned()
                    };
                    if let Some(best) = scores.best(*rule, language, &source) {
                        dev_scores
                            .insert(name, 100.0 * scores.judge(best, *rule, language, &source));
                    }
                }
            }
            self.configurations.push(Configuration {
                variant: run.variant.clone(),
                pretrain_seed: run.pretrain_seed,
                finetune_seed: run.finetune_seed,
                training_set: run.training_set.clone(),
                configuration: configuration.clone(),
                dev_scores,
                chosen: chosen
                    .remove(&index)
                    .unwrap_or_default()
                    .into_iter()
                    .collect(),
            });
        }
        Ok(())
    }

    fn translation_run(&mut self, run: &TranslationRun, store: &Store) -> Result<()> {
        let seeds = (run.pretrain_seed, run.finetune_seed);
        let missing = |gathered: &mut Self, kind: StatusKind, detail: String| {
            gathered.status(
                &run.variant,
                seeds.0,
                Some(seeds.1),
                "train translation",
                kind,
                detail,
            );
        };
        if let Some(training) = store.find(&run.training)? {
            if training.record.diverged() {
                let detail = diverged_detail(&training);
                missing(self, StatusKind::Diverged, detail);
                return Ok(());
            }
            self.translation_curve(run, &training.folder)?;
        }
        let Some(evaluation) = store.find(&run.evaluation)? else {
            let detail = "not run yet, or its job failed".to_owned();
            missing(self, StatusKind::Missing, detail);
            return Ok(());
        };
        if evaluation.record.diverged() {
            return Ok(());
        }
        for result in translate::read_results(&evaluation.folder)? {
            let direction = result.direction.to_string();
            if result.search == translate::COPY {
                let mut counts = BleuCounts::default();
                for sentence in &result.sentences {
                    counts.add(&sentence.bleu);
                }
                self.copies.insert(direction, counts);
                continue;
            }
            self.translations.push(CellTranslations {
                cell: Cell {
                    variant: run.variant.clone(),
                    pretrain_seed: seeds.0,
                    finetune_seed: seeds.1,
                    task: TRANSLATION_TASK.to_owned(),
                    regime: result.search,
                    language: direction,
                    selection: VALIDATION_BLEU.to_owned(),
                },
                sentences: result
                    .sentences
                    .iter()
                    .map(|sentence| TranslationCounts {
                        sentences: 1,
                        bleu: sentence.bleu,
                        chrf: sentence.chrf,
                    })
                    .collect(),
            });
        }
        Ok(())
    }

    fn measurement_run(&mut self, run: &MeasurementRun, store: &Store) -> Result<()> {
        let mut missing = |kind: StatusKind, detail: String| {
            let what = run.what.replace('_', " ");
            self.status(&run.variant, run.seed, None, &what, kind, detail);
            Ok(())
        };
        let artifact = match store.find(&run.job)? {
            Some(artifact) if artifact.record.diverged() => {
                return missing(StatusKind::Diverged, diverged_detail(&artifact));
            }
            Some(artifact) => artifact,
            None => {
                let detail = "not run yet, or its job failed".to_owned();
                return missing(StatusKind::Missing, detail);
            }
        };
        let sets = measured::read(&artifact.folder)?.into_iter();
        self.measurements.extend(sets.map(|set| CellMeasurements {
            cell: Cell {
                variant: run.variant.clone(),
                pretrain_seed: run.seed,
                finetune_seed: 0,
                task: set.task,
                regime: set.regime,
                language: set.language,
                selection: LAST_UPDATE.to_owned(),
            },
            items: set.items,
        }));
        Ok(())
    }

    fn translation_curve(&mut self, run: &TranslationRun, folder: &Path) -> Result<()> {
        for line in metrics::read_metrics(folder)? {
            if let Metrics::Translation {
                update,
                tokens,
                of,
                bleu,
            } = line
            {
                self.curves.push(CurvePoint {
                    variant: run.variant.clone(),
                    pretrain_seed: run.pretrain_seed,
                    finetune_seed: Some(run.finetune_seed),
                    stage: CurveStage::Translation,
                    series: format!("valid BLEU {of}"),
                    updates: update,
                    tokens,
                    value: bleu,
                });
            }
        }
        Ok(())
    }

    /// Dev accuracy by examples seen. Only of studies without a grid: a curve per configuration would say little.
    fn finetuning_curve(&mut self, run: &Run, scores: &DevScores, source: &str) {
        if run.training_set != source {
            return;
        }
        for epoch in &scores.epochs {
            for (language, examples) in &scores.examples {
                let correct = epoch.correct.get(language).copied().unwrap_or(0);
                self.curves.push(CurvePoint {
                    variant: run.variant.clone(),
                    pretrain_seed: run.pretrain_seed,
                    finetune_seed: Some(run.finetune_seed),
                    stage: CurveStage::Finetune,
                    series: format!("dev accuracy {language}"),
                    updates: epoch.updates,
                    tokens: epoch.examples,
                    value: 100.0 * correct as f64 / (*examples).max(1) as f64,
                });
            }
        }
    }

    fn pretraining_curve(&mut self, variant: &str, seed: u64, folder: &Path) -> Result<()> {
        for line in metrics::read_metrics(folder)? {
            let Metrics::Validation {
                update,
                tokens,
                objective,
                of,
                loss,
                ..
            } = line
            else {
                continue;
            };
            self.curves.push(CurvePoint {
                variant: variant.to_owned(),
                pretrain_seed: seed,
                finetune_seed: None,
                stage: CurveStage::Pretrain,
                series: format!("valid perplexity {of} {objective}"),
                updates: update,
                tokens,
                value: loss.exp(),
            });
        }
        Ok(())
    }
}

pub(super) fn diverged_detail(artifact: &Artifact) -> String {
    let said = &artifact.record.facts["diverged"];
    format!(
        "{} was not finite at update {}",
        said["what"].as_str().unwrap_or("a number"),
        said["update"]
    )
}

fn manifest(
    study: &Study,
    plan: &Plan,
    store: &Store,
    threads: usize,
    gathered: &mut Gathered,
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
        configurations: std::mem::take(&mut gathered.configurations),
        statuses: std::mem::take(&mut gathered.statuses),
        baselines,
        translations: translators::in_words(plan, store)?,
        translation_scores: first.translation.as_ref().map(|translation| {
            let bleu = translation.test.bleu;
            let copies = gathered.copies.iter();
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
