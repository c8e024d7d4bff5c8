//! Fine-tunes an encoder on sentence pairs and scores every dev set after each epoch.
//!
//! One run is one configuration, one training set and one pair of seeds. It keeps the checkpoints that any selection rule
//! could ask for: the best on the source language's dev set, on the mean of all, and on each language's own. The test sets
//! are not seen here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::nli::read_examples;
use crate::data::tokenizer::Tokenizer;
use crate::model::{Model, ModelSettings, Shape};
use crate::random::Random;
use crate::spec::finetune::{FinetuneSchedule, Selection};
use crate::spec::pretrain::Precision;
use crate::stages::{Context, divergence};
use crate::tasks::pair_classification::{
    Classifier, EncodedPair, encode_examples, pack, predict, train_step,
};
use crate::tasks::pooling::Pooling;
use crate::training::{AdamSettings, Schedule, Trainer};

pub const NAME: &str = "finetune";
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the encoder starts.
    pub start: Start,
    /// Languages of the training sets `train:<language>`, all trained on together.
    pub training_languages: Vec<String>,
    /// Languages of the dev sets `dev:<language>`, the source language first.
    pub dev_languages: Vec<String>,
    pub pooling: Pooling,
    pub head_dropout: f32,
    pub maximum_length: usize,
    pub examples_per_epoch: u64,
    pub epochs: u64,
    pub encoder_learning_rate: f64,
    pub head_learning_rate: f64,
    pub batch_size: usize,
    pub schedule: FinetuneSchedule,
    pub clip: Option<f64>,
    pub precision: Precision,
    pub seed: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Start {
    /// From the input `pretrain`.
    Pretrained {},
    /// From random numbers.
    Random { model: ModelSettings, seed: u64 },
}

/// Dev scores of one epoch: pairs predicted correctly, by language.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: u64,
    pub updates: u64,
    pub examples: u64,
    /// Mean training loss of the epoch, in nats per pair.
    pub loss: f64,
    /// Of the dev set of each language.
    pub correct: BTreeMap<String, u64>,
}

/// What a run says about its epochs; `dev.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DevScores {
    /// Pairs in each dev set.
    pub examples: BTreeMap<String, u64>,
    pub epochs: Vec<Epoch>,
    /// Epochs whose model is kept.
    pub kept: Vec<u64>,
}

impl DevScores {
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("dev.json");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not a table of dev scores", path.display()))
    }

    /// Accuracy, 0 to 1, by which a rule judges an epoch for `language`.
    pub fn judge(&self, epoch: &Epoch, rule: Selection, language: &str, source: &str) -> f64 {
        let accuracy = |language: &str| {
            let examples = self.examples.get(language).copied().unwrap_or(0);
            let correct = epoch.correct.get(language).copied().unwrap_or(0);
            if examples == 0 {
                0.0
            } else {
                correct as f64 / examples as f64
            }
        };
        match rule {
            Selection::SourceDev => accuracy(source),
            Selection::TargetDev => accuracy(language),
            Selection::MeanDev => {
                self.examples
                    .keys()
                    .map(|language| accuracy(language))
                    .sum::<f64>()
                    / self.examples.len().max(1) as f64
            }
        }
    }

    /// The epoch that a rule chooses in this run: the first among the best.
    pub fn best(&self, rule: Selection, language: &str, source: &str) -> Option<&Epoch> {
        let mut best: Option<&Epoch> = None;
        for epoch in &self.epochs {
            if best.is_none_or(|best| {
                self.judge(epoch, rule, language, source) > self.judge(best, rule, language, source)
            }) {
                best = Some(epoch);
            }
        }
        best
    }

    /// Epochs that some rule would choose.
    fn wanted(&self, source: &str) -> BTreeSet<u64> {
        let of_rules = [Selection::SourceDev, Selection::MeanDev]
            .into_iter()
            .map(|rule| self.best(rule, source, source));
        let of_languages = self
            .examples
            .keys()
            .map(|language| self.best(Selection::TargetDev, language, source));
        of_rules
            .chain(of_languages)
            .flatten()
            .map(|epoch| epoch.epoch)
            .collect()
    }
}

/// File of an epoch's model, and of its classifier.
pub fn checkpoint_files(epoch: u64) -> (String, String) {
    (
        format!("epoch-{epoch}.safetensors"),
        format!("epoch-{epoch}.classifier.json"),
    )
}

/// A classifier as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredClassifier {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// Reads the encoder and the classifier of an epoch.
pub fn read_checkpoint(folder: &Path, epoch: u64, pooling: Pooling) -> Result<(Model, Classifier)> {
    let (model, classifier) = checkpoint_files(epoch);
    let model = Model::load(&folder.join(model))?;
    let path = folder.join(classifier);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let stored: StoredClassifier = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a classifier", path.display()))?;
    Ok((
        model,
        Classifier::from_values(stored.weight, stored.bias, pooling, 0.0)?,
    ))
}

/// Where a run is; saved in checkpoints.
#[derive(Serialize, Deserialize)]
struct Position {
    updates: u64,
    /// Sum of the losses of the updates of the epoch that is under way.
    loss: f64,
    scores: DevScores,
}

pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    let started = Instant::now();
    let tokenizer = Tokenizer::load(context.input("tokenizer")?)?;
    if settings.start == (Start::Pretrained {}) {
        divergence::refuse_diverged(context, "pretrain")?;
    }
    // A training set may be the work of a translator.
    for language in &settings.training_languages {
        divergence::refuse_diverged(context, &format!("train:{language}"))?;
    }
    let source = settings
        .dev_languages
        .first()
        .context("a run needs a dev set")?
        .clone();
    let training = encoded_sets(
        settings,
        context,
        &tokenizer,
        "train",
        &settings.training_languages,
    )?;
    let dev = encoded_sets(
        settings,
        context,
        &tokenizer,
        "dev",
        &settings.dev_languages,
    )?;
    let pairs: Vec<&EncodedPair> = training.iter().flat_map(|(_, pairs)| pairs).collect();
    ensure!(!pairs.is_empty(), "the training set is empty");

    let updates_per_epoch = settings
        .examples_per_epoch
        .div_ceil(settings.batch_size as u64);
    let total = updates_per_epoch * settings.epochs;
    let mut trainer = start(settings, context, &tokenizer, total)?;
    let mut position = Position {
        updates: 0,
        loss: 0.0,
        scores: DevScores {
            examples: dev
                .iter()
                .map(|(language, pairs)| (language.clone(), pairs.len() as u64))
                .collect(),
            epochs: Vec::new(),
            kept: Vec::new(),
        },
    };
    let kept = context.checkpoints.join("kept");
    fs::create_dir_all(&kept).with_context(|| format!("cannot create {}", kept.display()))?;
    if let Some((_, folder)) = super::checkpoint::latest(context.checkpoints)? {
        let text = fs::read_to_string(folder.join("position.json"))
            .context("cannot read a checkpoint's position")?;
        position = serde_json::from_str(&text)
            .context("a checkpoint's position is damaged; remove it with `xlt store remove`")?;
        trainer.load_state(&folder.join("trainer.safetensors"))?;
    }
    context.progress.begin(total, position.updates, "updates");
    let classifier =
        |trainer: &Trainer| Classifier::of(trainer, settings.pooling, settings.head_dropout);

    let mut saved = Instant::now();
    let mut order = Order::new(settings.seed);
    let before = position.updates;
    while position.updates < total {
        let update = position.updates;
        let chosen: Vec<&EncodedPair> = (0..settings.batch_size as u64)
            .map(|offset| {
                pairs[order.at(update * settings.batch_size as u64 + offset, pairs.len())]
            })
            .collect();
        position.loss += train_step(
            &mut trainer,
            &chosen,
            settings.pooling,
            settings.head_dropout,
            (settings.seed, update),
        )
        .map_err(|error| {
            let files = || {
                let position = serde_json::to_value(&position).unwrap_or_default();
                let batch = divergence::batch_json(&pack(chosen.iter().copied()));
                vec![("batch.json", batch), ("position.json", position)]
            };
            divergence::of_step(error, &trainer, files, context.checkpoints)
        })?;
        position.updates += 1;

        if position.updates.is_multiple_of(updates_per_epoch) {
            let epoch = position.updates / updates_per_epoch;
            let mut correct = BTreeMap::new();
            for (language, pairs) in &dev {
                let predicted = predict(trainer.encoder(), &classifier(&trainer)?, pairs)?;
                let right = predicted
                    .iter()
                    .zip(pairs)
                    .filter(|(class, pair)| usize::from(**class) == pair.label.index())
                    .count();
                correct.insert(language.clone(), right as u64);
            }
            let loss = position.loss / updates_per_epoch as f64;
            position.loss = 0.0;
            position.scores.epochs.push(Epoch {
                epoch,
                updates: position.updates,
                examples: position.updates * settings.batch_size as u64,
                loss,
                correct,
            });
            keep_wanted(
                &mut position.scores,
                &source,
                &kept,
                &trainer,
                &classifier(&trainer)?,
            )?;
        }
        context.progress.advance(
            position.updates,
            &note(&position, &source, settings, (started, before)),
        );
        let stopping = context.stop.asked();
        if position.updates < total && (stopping || saved.elapsed() >= context.checkpoint_interval)
        {
            super::checkpoint::save(context.checkpoints, position.updates, |folder| {
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

    for epoch in &position.scores.kept {
        let (model, head) = checkpoint_files(*epoch);
        for file in [model, head] {
            fs::copy(kept.join(&file), context.output.join(&file))
                .with_context(|| format!("cannot store {file}"))?;
        }
    }
    fs::write(
        context.output.join("dev.json"),
        serde_json::to_vec_pretty(&position.scores)?,
    )?;
    let truncated = |sets: &[(String, Vec<EncodedPair>)]| -> BTreeMap<String, usize> {
        sets.iter()
            .map(|(language, pairs)| {
                (
                    language.clone(),
                    pairs.iter().filter(|pair| pair.truncated).count(),
                )
            })
            .collect()
    };
    Ok(json!({
        "updates": position.updates,
        "examples": position.updates * settings.batch_size as u64,
        "tokens": tokens_of(&pairs, position.updates, settings),
        "training_examples": pairs.len(),
        "truncated_training_examples": truncated(&training),
        "truncated_dev_examples": truncated(&dev),
    }))
}

/// Tokens of the examples that `updates` updates have seen.
fn tokens_of(pairs: &[&EncodedPair], updates: u64, settings: &Settings) -> u64 {
    let seen = updates * settings.batch_size as u64;
    let count = pairs.len() as u64;
    let all: u64 = pairs.iter().map(|pair| pair.tokens.len() as u64).sum();
    let mut order = Order::new(settings.seed);
    let rest = seen / count * count..seen;
    let of_rest = rest.map(|position| pairs[order.at(position, pairs.len())].tokens.len() as u64);
    seen / count * all + of_rest.sum::<u64>()
}

/// The order of examples: each pass over the training set is a permutation of its own.
struct Order {
    seed: u64,
    pass: u64,
    permutation: Vec<usize>,
}

impl Order {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            pass: u64::MAX,
            permutation: Vec::new(),
        }
    }

    fn at(&mut self, position: u64, examples: usize) -> usize {
        let pass = position / examples as u64;
        if pass != self.pass {
            self.permutation = (0..examples).collect();
            Random::new(self.seed, "order of examples", pass).shuffle(&mut self.permutation);
            self.pass = pass;
        }
        self.permutation[(position % examples as u64) as usize]
    }
}

fn encoded_sets(
    settings: &Settings,
    context: &Context,
    tokenizer: &Tokenizer,
    role: &str,
    languages: &[String],
) -> Result<Vec<(String, Vec<EncodedPair>)>> {
    languages
        .iter()
        .map(|language| {
            let examples = read_examples(
                &context
                    .input(&format!("{role}:{language}"))?
                    .join("examples.jsonl"),
            )?;
            let pairs = encode_examples(
                &examples,
                tokenizer,
                (language, language, language),
                settings.maximum_length,
            )?;
            Ok((language.clone(), pairs))
        })
        .collect()
}

fn start(
    settings: &Settings,
    context: &Context,
    tokenizer: &Tokenizer,
    total: u64,
) -> Result<Trainer> {
    let model = match &settings.start {
        Start::Pretrained {} => Model::load(&context.input("pretrain")?.join("model.safetensors"))?,
        Start::Random { model, seed } => {
            let shape = Shape {
                settings: model.clone(),
                vocabulary: tokenizer.vocabulary(),
                languages: tokenizer.languages().len(),
                decoder: false,
            };
            Model::initialise(&shape, *seed)
        }
    };
    let longest = 2 * settings.maximum_length + 3;
    let positions = model.shape().settings.positions;
    ensure!(
        longest <= positions,
        "two sentences of {} tokens and three `</s>` need {longest} positions, but the model has {positions}; lower finetune.maximum_length to {}",
        settings.maximum_length,
        (positions - 3) / 2
    );
    let hidden = model.shape().settings.hidden;
    // Adam as XLM builds it for fine-tuning (optim.py defaults: betas 0.9 and 0.999, epsilon 1e-8, no decay).
    let adam = AdamSettings {
        learning_rate: settings.encoder_learning_rate,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        clip: settings.clip,
        schedule: match settings.schedule {
            FinetuneSchedule::Constant => Schedule::Constant,
            FinetuneSchedule::Linear { warm_up } => Schedule::Linear {
                warm_up_fraction: warm_up,
            },
        },
    };
    let mut trainer = Trainer::new(model, &adam, total, context.device, settings.seed)?
        .in_precision(settings.precision);
    let classifier = Classifier::initialise(
        hidden,
        settings.pooling,
        settings.head_dropout,
        settings.seed,
    )?;
    classifier.add_to(&mut trainer, settings.head_learning_rate)?;
    Ok(trainer)
}

/// Keeps the checkpoints that some rule asks for now, and drops those that none does any more.
fn keep_wanted(
    scores: &mut DevScores,
    source: &str,
    kept: &Path,
    trainer: &Trainer,
    classifier: &Classifier,
) -> Result<()> {
    let wanted = scores.wanted(source);
    let newest = scores.epochs.last().map_or(0, |epoch| epoch.epoch);
    if wanted.contains(&newest) {
        let (model, head) = checkpoint_files(newest);
        trainer.model()?.save(&kept.join(model))?;
        let stored = StoredClassifier {
            weight: classifier.weight.flatten_all()?.to_vec1()?,
            bias: classifier.bias.to_vec1()?,
        };
        fs::write(kept.join(head), serde_json::to_vec(&stored)?)?;
    }
    for entry in fs::read_dir(kept)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let epoch = name
            .strip_prefix("epoch-")
            .and_then(|rest| rest.split('.').next())
            .and_then(|epoch| epoch.parse().ok());
        if epoch.is_none_or(|epoch: u64| !wanted.contains(&epoch)) {
            fs::remove_file(&path)?;
        }
    }
    scores.kept = wanted.into_iter().collect();
    Ok(())
}

/// `since` is when this process began, and the updates made before.
fn note(position: &Position, source: &str, settings: &Settings, since: (Instant, u64)) -> String {
    let dev = position
        .scores
        .epochs
        .last()
        .map_or(String::new(), |epoch| {
            let accuracy = 100.0 * epoch.correct.get(source).copied().unwrap_or(0) as f64
                / position.scores.examples[source].max(1) as f64;
            format!("loss {:.3}, {source} dev {accuracy:.1}, ", epoch.loss)
        });
    let (started, before) = since;
    let examples = (position.updates - before) * settings.batch_size as u64;
    let speed = examples as f64 / started.elapsed().as_secs_f64();
    format!("{dev}{speed:.0} examples/s")
}
