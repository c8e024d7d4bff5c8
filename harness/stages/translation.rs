//! Trains a translation model: an encoder and a decoder that start from pretrained models or from nothing.
//!
//! ```text
//! pretrained models -> start -> objectives in turn -> trainer -> BLEU on held-out pairs, the best is kept
//!                   -> model.safetensors, metrics.jsonl
//! ```
//! What is written follows from settings and inputs alone: not from threads, interruptions or the clock.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::tokenizer::{Tokenizer, UNKNOWN_TEXT};
use crate::metrics::bleu::{BleuCounts, bleu_counts};
use crate::model::layout::Side;
use crate::model::{Batch, Model, ModelSettings, Shape};
use crate::objectives::Text;
use crate::objectives::translation::{
    self, Direction, Pairs, TranslationObjective, between_ends, language_pairs, languages,
};
use crate::spec::translation::{BleuSettings, Copied, SearchSettings, TranslationTraining};
use crate::stages::metrics::{Losses, Metrics, UPDATES_PER_LINE, write_metrics};
use crate::stages::translating::{text_of, translated};
use crate::stages::{Context, checkpoint, divergence, pretrain};
use crate::training::{StepReport, Trainer};

pub const NAME: &str = "translation";
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub model: ModelSettings,
    pub directions: Vec<Direction>,
    /// Those whose BLEU chooses the model.
    pub validated: Vec<Direction>,
    /// What of the input `encoder` the encoder begins with.
    pub encoder: Copied,
    /// What of the input `decoder` the decoder begins with.
    pub decoder: Copied,
    pub train: TranslationTraining,
    /// The search and the BLEU of validation.
    pub search: SearchSettings,
    pub bleu: BleuSettings,
    /// Of whatever is not copied.
    pub initialisation_seed: u64,
    /// Of batches, noise and dropout.
    pub seed: u64,
}

/// Where a run is; saved in checkpoints.
#[derive(Default, Serialize, Deserialize)]
struct Position {
    /// Objectives whose turn it was, updates made or left out.
    turns: u64,
    updates: u64,
    tokens: u64,
    /// Since the last line.
    #[serde(rename = "sums")]
    losses: Losses,
    metrics: Vec<Metrics>,
    /// The best validation: its update and mean BLEU.
    best: Option<(u64, f64)>,
    /// Validations since.
    worse: u64,
}

impl Position {
    fn add(&mut self, objective: &str, report: &StepReport) {
        self.updates += 1;
        self.tokens += report.tokens as u64;
        self.losses.add(objective, report);
    }

    fn write_line(&mut self, report: &StepReport) {
        let line = self.losses.line(self.updates, self.tokens, report);
        self.metrics.push(line);
    }
}

pub fn run(settings: &Settings, context: &Context) -> Result<Value> {
    let tokenizer = Tokenizer::load(context.input("tokenizer")?)?;
    for input in ["encoder", "decoder"] {
        if context.inputs.contains_key(input) {
            divergence::refuse_diverged(context, input)?;
        }
    }
    let text = open_text(settings, context, &tokenizer)?;
    let train = &settings.train;
    let batches = train.batches(settings.seed);
    let objectives = translation::open(&train.objectives, &settings.directions, &text, &batches)?;
    let held_out = settings
        .validated
        .iter()
        .map(|direction| HeldOut::open(direction, &text, &tokenizer, &settings.model))
        .collect::<Result<Vec<_>>>()?;

    let model = start(settings, context, &tokenizer)?;
    let shape = model.shape().clone();
    let mut trainer = Trainer::new(
        model,
        &train.optimizer,
        train.updates,
        context.device,
        settings.seed,
    )?
    .in_precision(train.precision);
    let (mut position, mut best) = resume(&mut trainer, context.checkpoints)?;
    context
        .progress
        .begin(train.updates, position.updates, "updates");

    let started = Instant::now();
    let tokens_before = position.tokens;
    let mut saved = Instant::now();
    let mut last = None;
    let done = |position: &Position| {
        position.updates >= train.updates
            || train
                .patience
                .is_some_and(|patience| position.worse >= patience)
    };
    while !done(&position) {
        let objective = of_turn(&objectives, position.turns);
        position.turns += 1;
        let weight = objective.weight(position.updates);
        if weight == 0.0 {
            ensure!(
                objectives
                    .iter()
                    .any(|objective| objective.weight(position.updates) > 0.0),
                "after {} updates every objective has the weight 0; end earlier with translation.train.updates",
                position.updates
            );
            continue;
        }
        let batch = objective.batch(position.updates, trainer.encoder())?;
        let report = trainer
            .weighted_step(std::slice::from_ref(&batch), weight as f32)
            .map_err(|error| {
                let files = || {
                    let position = serde_json::to_value(&position).unwrap_or_default();
                    vec![
                        ("batch.json", pretrain::batch_json(&batch)),
                        ("position.json", position),
                    ]
                };
                divergence::of_step(error, &trainer, files, context.checkpoints)
            })?;
        position.add(&objective.name(), &report);
        let ends = position.updates == train.updates;
        if ends || position.updates.is_multiple_of(UPDATES_PER_LINE) {
            position.write_line(&report);
        }
        if ends || position.updates.is_multiple_of(train.validation_every) {
            let bleu = validate(settings, &held_out, &tokenizer, &trainer, &mut position)?;
            if position.best.is_none_or(|(_, best)| bleu > best) {
                position.best = Some((position.updates, bleu));
                position.worse = 0;
                best = Some(trainer.model()?.clone());
            } else {
                position.worse += 1;
            }
        }
        let speed =
            (position.tokens - tokens_before) as f64 / started.elapsed().as_secs_f64().max(1e-9);
        let note = match position.best {
            Some((_, bleu)) => format!(
                "loss {:.3}, best BLEU {bleu:.1}, {:.1}k tokens/s",
                report.loss,
                speed / 1e3
            ),
            None => format!("loss {:.3}, {:.1}k tokens/s", report.loss, speed / 1e3),
        };
        context.progress.advance(position.updates, &note);
        last = Some(report);
        if !done(&position)
            && (context.stop.asked() || saved.elapsed() >= context.checkpoint_interval)
        {
            checkpoint::save(context.checkpoints, position.updates, |folder| {
                trainer.save_state(&folder.join("trainer.safetensors"))?;
                if let Some(best) = &best {
                    best.save(&folder.join("best.safetensors"))?;
                }
                Ok(fs::write(
                    folder.join("position.json"),
                    serde_json::to_vec(&position)?,
                )?)
            })?;
            saved = Instant::now();
            context.stop_if_asked()?;
        }
    }

    if let Some(report) = last.filter(|_| !position.losses.is_empty()) {
        position.write_line(&report);
    }
    match &best {
        Some(best) => best,
        None => trainer.model()?,
    }
    .save(&context.output.join("model.safetensors"))?;
    write_metrics(&position.metrics, &context.output.join("metrics.jsonl"))?;
    let (best_update, best_bleu) = position.best.unwrap_or((position.updates, 0.0));
    Ok(json!({
        "parameters": shape.parameters(),
        "updates": position.updates,
        "tokens": position.tokens,
        "best_update": best_update,
        "best_validation_bleu": best_bleu,
        "validation_pairs": held_out
            .iter()
            .map(|held_out| (held_out.direction.to_string(), held_out.references.len()))
            .collect::<BTreeMap<_, _>>(),
        "tokens_per_second": (position.tokens - tokens_before) as f64
            / started.elapsed().as_secs_f64().max(1e-9),
    }))
}

/// Objectives take turns.
fn of_turn<'a>(
    objectives: &'a [Box<dyn TranslationObjective + '_>],
    turn: u64,
) -> &'a dyn TranslationObjective {
    &*objectives[(turn % objectives.len() as u64) as usize]
}

fn open_text(settings: &Settings, context: &Context, tokenizer: &Tokenizer) -> Result<Text> {
    let mut text = Text::new(tokenizer)?;
    if settings.train.uses_monolingual_text() {
        for language in languages(&settings.directions) {
            let folder = context.input(&format!("corpus:{language}"))?;
            text.add_language(&language, tokenizer, folder)?;
        }
    }
    for (first, second) in language_pairs(&settings.directions) {
        let folder = context.input(&format!("parallel_corpus:{first}-{second}"))?;
        text.add_pair(&first, &second, tokenizer, folder)?;
    }
    Ok(text)
}

/// The model before its first update.
fn start(settings: &Settings, context: &Context, tokenizer: &Tokenizer) -> Result<Model> {
    let shape = Shape {
        settings: settings.model.clone(),
        vocabulary: tokenizer.vocabulary(),
        languages: tokenizer.languages().len(),
        decoder: true,
    };
    let mut model = Model::initialise(&shape, settings.initialisation_seed);
    for (side, copied, input) in [
        (Side::Encoder, settings.encoder, "encoder"),
        (Side::Decoder, settings.decoder, "decoder"),
    ] {
        if copied == Copied::Nothing {
            continue;
        }
        let pretrained = Model::load(&context.input(input)?.join("model.safetensors"))?;
        copy(&pretrained, &mut model, side, copied)
            .with_context(|| format!("the pretrained model of the {input}"))?;
    }
    Ok(model)
}

/// Copies what a side has in common with a pretrained encoder. XLM (model/__init__.py): a decoder takes the encoder's layers
/// and output, and its attention over the source stays at random.
fn copy(pretrained: &Model, model: &mut Model, side: Side, copied: Copied) -> Result<()> {
    const TABLE: &str = "embeddings.token";
    let wanted = |name: &str| match copied {
        Copied::Nothing => false,
        Copied::Embeddings => name == TABLE,
        Copied::Everything => true,
        Copied::EverythingButEmbeddings => name != TABLE,
    };
    for (name, _, values) in pretrained.parameters().filter(|(name, ..)| wanted(name)) {
        let own = format!("{}{name}", side.prefix());
        // An encoder beside a decoder predicts nothing: it has no output bias.
        if let Some(target) = model.parameter_mut(&own) {
            ensure!(
                target.len() == values.len(),
                "`{name}` has {} values where {} are needed",
                values.len(),
                target.len()
            );
            target.copy_from_slice(values);
        }
    }
    Ok(())
}

fn resume(trainer: &mut Trainer, checkpoints: &Path) -> Result<(Position, Option<Model>)> {
    let Some((_, folder)) = checkpoint::latest(checkpoints)? else {
        return Ok(Default::default());
    };
    let position: Position = checkpoint::position(&folder)?;
    let best = match position.best {
        Some(_) => Some(Model::load(&folder.join("best.safetensors"))?),
        None => None,
    };
    trainer.load_state(&folder.join("trainer.safetensors"))?;
    Ok((position, best))
}

/// Held-out pairs of one direction.
struct HeldOut {
    direction: Direction,
    /// Id of the language translated into.
    into: u32,
    sources: Batch,
    references: Vec<String>,
}

impl HeldOut {
    /// Pairs whose source is longer than the model's positions are left out.
    fn open(
        direction: &Direction,
        text: &Text,
        tokenizer: &Tokenizer,
        model: &ModelSettings,
    ) -> Result<Self> {
        let pairs = Pairs::open(direction, text)?;
        let (from, into) = pairs.languages;
        let valid = &pairs.text.valid;
        let (mut sources, mut references) = (Batch::new(), Vec::new());
        for index in 0..valid.pairs() {
            let (source, target) = pairs.read(valid, index);
            if source.len() + 2 <= model.positions {
                sources.push(&between_ends(&source), from);
                references.push(reference_of(&target, tokenizer));
            }
        }
        ensure!(
            valid.pairs() > 0,
            "there are no validation pairs of `{direction}`; set data.parallel_validation or data.parallel_dev"
        );
        ensure!(
            !references.is_empty(),
            "all {} validation pairs of `{direction}` have a source of more than {} tokens; raise model.positions",
            valid.pairs(),
            model.positions.saturating_sub(2)
        );
        Ok(Self {
            direction: direction.clone(),
            into,
            sources,
            references,
        })
    }
}

/// A held-out sentence as XLM rebuilds its references, from ids: an unknown token is written so that a translation's does not
/// match it (XLM: evaluator.py, create_reference_files).
fn reference_of(tokens: &[u32], tokenizer: &Tokenizer) -> String {
    text_of(tokens, tokenizer).replace(UNKNOWN_TEXT, "<<unk>>")
}

/// BLEU of every direction on its held-out pairs; the mean comes back.
fn validate(
    settings: &Settings,
    held_out: &[HeldOut],
    tokenizer: &Tokenizer,
    trainer: &Trainer,
    position: &mut Position,
) -> Result<f64> {
    let mut total = 0.0;
    for pairs in held_out {
        let hypotheses = translated(
            trainer.encoder(),
            &pairs.sources,
            pairs.into,
            &settings.search,
            tokenizer,
        )?;
        let mut counts = BleuCounts::default();
        for (hypothesis, reference) in hypotheses.iter().zip(&pairs.references) {
            counts.add(&bleu_counts(
                hypothesis,
                reference,
                settings.bleu.tokenization,
            ));
        }
        let bleu = counts.bleu(settings.bleu.smoothing);
        total += bleu;
        position.metrics.push(Metrics::Translation {
            update: position.updates,
            tokens: position.tokens,
            of: pairs.direction.to_string(),
            bleu,
        });
    }
    Ok(total / held_out.len().max(1) as f64)
}
