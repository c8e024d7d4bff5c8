//! Gathers the results of a study from the artifacts of its plan. Works on partial runs: what is not there is said so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use super::manifest::{Configuration, RunStatus, StatusKind};
use super::measurements::CellMeasurements;
use super::provenance::{self, Told};
use super::results::Results;
use super::scores::{Cell, CellPredictions, CurvePoint, CurveStage, ItemPrediction};
use super::translations::CellTranslations;
use crate::metrics::TranslationCounts;
use crate::metrics::bleu::BleuCounts;
use crate::plan::{MeasurementRun, Plan, Run, TranslationRun};
use crate::spec::{LAST_UPDATE, Study, TRANSLATION_TASK, VALIDATION_BLEU};
use crate::stages::finetune::DevScores;
use crate::stages::metrics::{self, Metrics};
use crate::stages::{evaluate, measured, translate};
use crate::store::{Artifact, Store};

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
    let manifest = provenance::manifest(study, plan, store, threads, gathered.told)?;
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
    curves: Vec<CurvePoint>,
    told: Told,
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
        self.told.statuses.push(RunStatus {
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
            // A configuration's divergence has been told above.
            Some(artifact) if artifact.record.diverged() => Vec::new(),
            Some(artifact) => evaluate::read_results(&artifact.folder)?,
            None => {
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
            self.told.configurations.push(Configuration {
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
                self.told.copies.insert(direction, counts);
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
