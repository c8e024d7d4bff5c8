//! Pretrains an encoder on the text of all languages.
//!
//! ```text
//! tokenizer, corpora -> objectives -> (a batch ahead, on a thread of its own) -> trainer
//!                    -> model.safetensors, metrics.jsonl
//! ```
//! What is written follows from settings and inputs alone: not from threads, interruptions or the clock.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::tokenizer::Tokenizer;
use crate::model::{LanguageModelBatch, LossSum, Model, ModelSettings, Shape};
use crate::objectives::{self, Objective, Text, Validation};
use crate::spec::pretrain::PretrainSettings;
use crate::stages::metrics::{Losses, Metrics, UPDATES_PER_LINE, write_metrics};
use crate::stages::{Context, checkpoint, divergence};
use crate::training::{NotFinite, StepReport, Trainer};

pub const NAME: &str = "pretrain";
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub model: ModelSettings,
    pub pretrain: PretrainSettings,
    /// Languages with an input `corpus:<language>`.
    pub languages: Vec<String>,
    /// Pairs of languages with an input `parallel_corpus:<first>-<second>`.
    pub pairs: Vec<(String, String)>,
    /// Of initialisation, batches, masks and dropout.
    pub seed: u64,
}

/// Where a run is; saved in checkpoints.
#[derive(Default, Serialize, Deserialize)]
struct Position {
    updates: u64,
    tokens: u64,
    targets: u64,
    /// Since the last line.
    #[serde(rename = "sums")]
    losses: Losses,
    metrics: Vec<Metrics>,
}

/// Clock readings of this process; they reach the progress and the facts, never the artifact.
struct Speed {
    started: Instant,
    tokens_before: u64,
    waiting: Duration,
}

pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    let tokenizer = Tokenizer::load(context.input("tokenizer")?)?;
    let text = open_text(settings, context, &tokenizer)?;
    let batches = settings.pretrain.batches(settings.seed);
    let open = |objective| objectives::open(objective, &text, &batches);
    let objectives = settings
        .pretrain
        .objectives
        .iter()
        .map(open)
        .collect::<Result<Vec<_>>>()?;
    let held_out: Vec<(&str, Vec<Validation>)> = objectives
        .iter()
        .map(|objective| (objective.name(), objective.validation()))
        .collect();

    let shape = Shape {
        settings: settings.model.clone(),
        vocabulary: tokenizer.vocabulary(),
        languages: tokenizer.languages().len(),
        decoder: false,
    };
    let model = Model::initialise(&shape, settings.seed);
    let total = settings.pretrain.updates;
    let mut trainer = Trainer::new(
        model,
        &settings.pretrain.optimizer,
        total,
        context.device,
        settings.seed,
    )?
    .in_precision(settings.pretrain.precision);
    let mut position = resume(&mut trainer, context.checkpoints)?;
    context.progress.begin(total, position.updates, "updates");

    let mut speed = Speed {
        started: Instant::now(),
        tokens_before: position.tokens,
        waiting: Duration::ZERO,
    };
    std::thread::scope(|threads| -> Result<()> {
        let (sender, prepared) = sync_channel(1);
        let (objectives, first) = (&objectives, position.updates);
        threads.spawn(move || {
            for update in first..total {
                let objective = of_update(objectives, update);
                // The receiver is gone when training stops early.
                if sender
                    .send((objective.name(), objective.training_batch(update)))
                    .is_err()
                {
                    break;
                }
            }
        });
        let mut saved = Instant::now();
        while position.updates < total {
            let asked = Instant::now();
            let (objective, batch) = prepared
                .recv()
                .context("the thread that prepares batches has died")?;
            speed.waiting += asked.elapsed();
            let report = trainer
                .language_model_step(std::slice::from_ref(&batch))
                .map_err(|error| diverged(error, &trainer, &position, &batch, context))?;
            position.add(objective, &report);
            let ends = position.updates == total;
            if ends || position.updates.is_multiple_of(UPDATES_PER_LINE) {
                position.write_line(&report);
            }
            if ends
                || settings
                    .pretrain
                    .validation_every
                    .is_some_and(|every| position.updates.is_multiple_of(every))
            {
                validate(&trainer, &held_out, &mut position)
                    .map_err(|error| diverged(error, &trainer, &position, &batch, context))?;
            }
            context
                .progress
                .advance(position.updates, &note(&report, &position, &speed));
            if !ends && (context.stop.asked() || saved.elapsed() >= context.checkpoint_interval) {
                checkpoint::save(context.checkpoints, position.updates, |folder| {
                    trainer.save_state(&folder.join("trainer.safetensors"))?;
                    Ok(fs::write(
                        folder.join("position.json"),
                        serde_json::to_vec(&position)?,
                    )?)
                })?;
                saved = Instant::now();
                context.stop_if_asked()?;
            }
        }
        Ok(())
    })?;

    trainer
        .model()?
        .save(&context.output.join("model.safetensors"))?;
    write_metrics(&position.metrics, &context.output.join("metrics.jsonl"))?;
    Ok(facts(&shape, &position, &speed))
}

fn diverged(
    error: anyhow::Error,
    trainer: &Trainer,
    position: &Position,
    batch: &LanguageModelBatch,
    context: &Context,
) -> anyhow::Error {
    let files = || {
        let position = serde_json::to_value(position).unwrap_or_default();
        vec![
            ("batch.json", batch_json(batch)),
            ("position.json", position),
        ]
    };
    divergence::of_step(error, trainer, files, context.checkpoints)
}

fn open_text(settings: &Settings, context: &Context, tokenizer: &Tokenizer) -> Result<Text> {
    let mut text = Text::new(tokenizer)?;
    if settings.pretrain.uses_monolingual_text() {
        for language in &settings.languages {
            text.add_language(
                language,
                tokenizer,
                context.input(&format!("corpus:{language}"))?,
            )?;
        }
    }
    if settings.pretrain.uses_parallel_text() {
        for (first, second) in &settings.pairs {
            text.add_pair(
                first,
                second,
                tokenizer,
                context.input(&format!("parallel_corpus:{first}-{second}"))?,
            )?;
        }
    }
    Ok(text)
}

/// Objectives take turns.
fn of_update<'a>(objectives: &'a [Box<dyn Objective + '_>], update: u64) -> &'a dyn Objective {
    &*objectives[(update % objectives.len() as u64) as usize]
}

fn resume(trainer: &mut Trainer, checkpoints: &Path) -> Result<Position> {
    let Some((_, folder)) = checkpoint::latest(checkpoints)? else {
        return Ok(Position::default());
    };
    let position = checkpoint::position(&folder)?;
    trainer.load_state(&folder.join("trainer.safetensors"))?;
    Ok(position)
}

impl Position {
    fn add(&mut self, objective: &str, report: &StepReport) {
        self.updates += 1;
        self.tokens += report.tokens as u64;
        self.targets += report.targets as u64;
        self.losses.add(objective, report);
    }

    fn write_line(&mut self, report: &StepReport) {
        let line = self.losses.line(self.updates, self.tokens, report);
        self.metrics.push(line);
    }
}

/// Adds the losses of held-out text.
///
/// # Errors
/// [`NotFinite`] when one is not finite: the update before it was the last, and no number that is none is written.
fn validate(
    trainer: &Trainer,
    held_out: &[(&str, Vec<Validation>)],
    position: &mut Position,
) -> Result<()> {
    for (objective, texts) in held_out {
        for text in texts {
            let mut sum = LossSum::default();
            for batch in &text.batches {
                sum.add(trainer.language_model_loss(batch)?);
            }
            if sum.targets > 0 && !sum.nats.is_finite() {
                let not_finite = NotFinite {
                    update: position.updates,
                    loss: Some(sum.mean()),
                    gradient_norm: None,
                    held_out: true,
                };
                return Err(not_finite.into());
            }
            if sum.targets > 0 {
                position.metrics.push(Metrics::Validation {
                    update: position.updates,
                    tokens: position.tokens,
                    objective: (*objective).to_owned(),
                    of: text.of.clone(),
                    targets: sum.targets,
                    loss: sum.mean(),
                    accuracy: sum.correct as f64 / sum.targets as f64,
                });
            }
        }
    }
    Ok(())
}

/// A batch as it is kept when an update diverged.
pub(super) fn batch_json(batch: &LanguageModelBatch) -> Value {
    json!({
        "sequences": divergence::batch_json(&batch.batch),
        "indices": batch.targets.indices,
        "labels": batch.targets.labels,
        "direction": batch.direction,
        "sources": batch.source.as_ref().map(divergence::batch_json),
    })
}

impl Speed {
    fn tokens_per_second(&self, position: &Position) -> f64 {
        (position.tokens - self.tokens_before) as f64
            / self.started.elapsed().as_secs_f64().max(1e-9)
    }
}

fn note(report: &StepReport, position: &Position, speed: &Speed) -> String {
    format!(
        "loss {:.3}, {:.1}k tokens/s",
        report.loss,
        speed.tokens_per_second(position) / 1e3
    )
}

fn facts(shape: &Shape, position: &Position, speed: &Speed) -> Value {
    let mut perplexities = BTreeMap::<&str, BTreeMap<&str, f64>>::new();
    for line in &position.metrics {
        if let Metrics::Validation {
            update,
            objective,
            of,
            loss,
            ..
        } = line
            && *update == position.updates
        {
            perplexities
                .entry(objective)
                .or_default()
                .insert(of, loss.exp());
        }
    }
    json!({
        "parameters": shape.parameters(),
        "updates": position.updates,
        "tokens": position.tokens,
        "targets": position.targets,
        "validation_perplexity": perplexities,
        "tokens_per_second": speed.tokens_per_second(position),
        "seconds_waiting_for_batches": speed.waiting.as_secs_f64(),
    })
}
