//! The jobs of a study, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::to_value;

use crate::data::nli::Split;
use crate::data::source::{NliInput, NliSource, ParallelInput, TextInput};
use crate::fingerprint::Fingerprint;
use crate::plan::estimate::{self, Estimate};
use crate::plan::hashes::FileHashes;
use crate::plan::{CellName, DataFile, Job, Plan, Pretraining, Run, Source};
use crate::spec::finetune::Regime;
use crate::spec::settings::{NliData, Settings};
use crate::spec::{Study, regime_languages};
use crate::stages::evaluate::{TestCell, TestText};
use crate::stages::{
    baselines, corpus, evaluate, finetune, monolingual, nli, parallel, pretrain, synthesize,
    tokenizer,
};

/// Data that a study asks for and nobody supplies.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Missing(pub Vec<String>);

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the study asks for data that nobody supplies:")?;
        for line in &self.0 {
            write!(formatter, "\n  {line}")?;
        }
        Ok(())
    }
}

/// Plans a study. `root` is where relative paths of data start; none means the working folder.
///
/// # Errors
/// [`Missing`] with every language and role that has no data; files that cannot be read.
pub fn build(study: &Study, root: Option<&Path>, hashes: &mut FileHashes) -> Result<Plan> {
    let mut builder = Builder {
        plan: Plan::default(),
        known: BTreeSet::new(),
        missing: BTreeSet::new(),
        root,
        hashes,
    };
    for variant in &study.variants {
        builder.variant(&variant.name, &variant.settings)?;
    }
    builder.hashes.keep();
    if !builder.missing.is_empty() {
        return Err(Missing(builder.missing.into_iter().collect()).into());
    }
    Ok(builder.plan)
}

struct Builder<'a> {
    plan: Plan,
    known: BTreeSet<Fingerprint>,
    missing: BTreeSet<String>,
    root: Option<&'a Path>,
    hashes: &'a mut FileHashes,
}

type Inputs = BTreeMap<String, Fingerprint>;

/// A placeholder for the artifact of data that is missing: planning goes on, so that everything missing is told at once.
fn nothing() -> Fingerprint {
    Fingerprint::of_bytes(b"missing")
}

/// Parts of a natural language inference data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Train,
    Dev,
    Test,
    TranslatedTrain,
    TranslatedTest,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Test => "test",
            Self::TranslatedTrain => "translated_train",
            Self::TranslatedTest => "translated_test",
        }
    }

    fn split(self) -> Split {
        match self {
            Self::Train | Self::TranslatedTrain => Split::Train,
            Self::Dev => Split::Dev,
            Self::Test | Self::TranslatedTest => Split::Test,
        }
    }

    fn sources(self, data: &NliData) -> &[NliSource] {
        match self {
            Self::Train => &data.train,
            Self::Dev => &data.dev,
            Self::Test => &data.test,
            Self::TranslatedTrain => &data.translated_train,
            Self::TranslatedTest => &data.translated_test,
        }
    }
}

impl Builder<'_> {
    fn add(
        &mut self,
        (stage, version): (&str, u32),
        settings: &impl Serialize,
        inputs: Inputs,
        files: BTreeMap<String, DataFile>,
        label: String,
        estimate: Estimate,
    ) -> Result<Fingerprint> {
        let settings =
            to_value(settings).with_context(|| format!("the settings of {label} are not JSON"))?;
        let fingerprint = Job::identify(stage, version, &settings, &inputs, &files)?;
        if self.known.insert(fingerprint.clone()) {
            self.plan.jobs.push(Job {
                stage: stage.to_owned(),
                version,
                settings,
                inputs,
                files,
                fingerprint: fingerprint.clone(),
                label,
                estimate,
            });
        }
        Ok(fingerprint)
    }

    fn hashed(&mut self, files: BTreeMap<String, PathBuf>) -> Result<BTreeMap<String, DataFile>> {
        files
            .into_iter()
            .map(|(name, path)| Ok((name, self.hashes.of(&path)?)))
            .collect()
    }

    /// Files of a source, or a note of what is missing.
    fn files(
        &mut self,
        what: &str,
        found: Result<BTreeMap<String, PathBuf>>,
    ) -> Result<Option<BTreeMap<String, DataFile>>> {
        match found {
            Ok(files) => Ok(Some(self.hashed(files)?)),
            Err(error) => {
                self.missing.insert(format!("{what}: {error:#}"));
                Ok(None)
            }
        }
    }

    fn note_source(
        &mut self,
        name: String,
        files: &BTreeMap<String, DataFile>,
        revision: Option<String>,
        licence: &Option<String>,
        citation: &Option<String>,
    ) {
        if !self.plan.sources.iter().any(|source| source.name == name) {
            self.plan.sources.push(Source {
                name,
                files: files.clone(),
                revision,
                licence: licence.clone(),
                citation: citation.clone(),
            });
        }
    }

    fn data_job(&mut self, name: String, fingerprint: &Fingerprint) {
        self.plan
            .data_jobs
            .entry(name)
            .or_insert_with(|| fingerprint.clone());
    }

    fn synthesize(&mut self, settings: &Settings) -> Result<Option<Fingerprint>> {
        let Some(family) = &settings.data.synthetic else {
            return Ok(None);
        };
        self.plan.synthetic_deviations = family.deviations();
        let settings = synthesize::Settings {
            family: family.clone(),
            source: settings.languages.source.clone(),
            seed: settings.seeds.data,
        };
        let job = self.add(
            (synthesize::NAME, synthesize::VERSION),
            &settings,
            Inputs::new(),
            BTreeMap::new(),
            "synthetic languages".into(),
            Estimate::default(),
        )?;
        self.data_job("synthetic languages".into(), &job);
        Ok(Some(job))
    }

    fn nli(&mut self, settings: &Settings, role: Role, language: &str) -> Result<Fingerprint> {
        let name = format!("nli {} {language}", role.name());
        let mut inputs = Inputs::new();
        let mut files = BTreeMap::new();
        // Of a synthetic family, translations are exact: the same rows in the other language.
        let mut text_language = language.to_owned();
        let input = match self.synthesize(settings)? {
            Some(job) => {
                inputs.insert("synthesize".into(), job);
                if role == Role::TranslatedTest {
                    text_language = settings.languages.source.clone();
                }
                NliInput::Synthetic
            }
            None => {
                let sources = role.sources(&settings.data.nli);
                let Some(source) = sources.iter().find(|source| source.covers(language)) else {
                    self.missing.insert(match role {
                        Role::TranslatedTrain => format!("{language}: the training set translated into {language}; name it under data.nli.translated_train, or drop {language} from translate_train with finetune.regime_languages"),
                        Role::TranslatedTest => format!("{language}: the test set translated from {language} into {}; name it under data.nli.translated_test, or drop {language} from translate_test with finetune.regime_languages", settings.languages.source),
                        _ => format!("{language}: the {} set; name it under data.nli.{}", role.name(), role.name()),
                    });
                    return Ok(nothing());
                };
                match self.files(&name, source.files(language, self.root))? {
                    Some(found) => files = found,
                    None => return Ok(nothing()),
                }
                let input = source.input(language)?;
                let revision = match &input {
                    NliInput::Hub { files, .. } => Some(files.revision.clone()),
                    _ => None,
                };
                self.note_source(
                    name.clone(),
                    &files,
                    revision,
                    &source.licence,
                    &source.citation,
                );
                input
            }
        };
        if role.split() == Split::Train {
            for (other, role) in [("dev", Role::Dev), ("test", Role::Test)] {
                inputs.insert(
                    format!("exclude:{other}"),
                    self.nli(settings, role, language)?,
                );
            }
        }
        let stage = nli::Settings {
            split: role.split(),
            language: text_language,
            input,
            text_pipeline: settings.data.text_pipeline,
            limit: None,
            seed: settings.seeds.data,
        };
        let job = self.add(
            (nli::NAME, nli::VERSION),
            &stage,
            inputs,
            files,
            name.clone(),
            Estimate::default(),
        )?;
        self.data_job(name, &job);
        Ok(job)
    }

    /// Dev and test sets of a language, whose sentences must not be trained on.
    fn evaluation_sets(&mut self, settings: &Settings, languages: &[&str]) -> Result<Inputs> {
        let evaluated = settings.languages.evaluated();
        let mut inputs = Inputs::new();
        for language in languages
            .iter()
            .filter(|language| evaluated.contains(language))
        {
            for role in [Role::Dev, Role::Test] {
                inputs.insert(
                    format!("exclude:{}:{language}", role.name()),
                    self.nli(settings, role, language)?,
                );
            }
        }
        Ok(inputs)
    }

    fn monolingual(&mut self, settings: &Settings, language: &str) -> Result<Fingerprint> {
        let name = format!("monolingual {language}");
        let mut inputs = self.evaluation_sets(settings, &[language])?;
        let mut files = BTreeMap::new();
        let input = match self.synthesize(settings)? {
            Some(job) => {
                inputs.insert("synthesize".into(), job);
                TextInput::Synthetic
            }
            None => {
                // Several sources may share a language: the first whose files are there has it.
                let mut found = None;
                let mut reason = "name it under data.monolingual".to_owned();
                for source in &settings.data.monolingual {
                    match source.files(language, self.root) {
                        Ok(paths) => {
                            found = Some((source.clone(), paths));
                            break;
                        }
                        Err(error) => reason = format!("{error:#}"),
                    }
                }
                let Some((source, paths)) = found else {
                    self.missing
                        .insert(format!("{language}: monolingual text; {reason}"));
                    return Ok(nothing());
                };
                files = self.hashed(paths)?;
                let input = source.input(language)?;
                let revision = match &input {
                    TextInput::Hub { files, .. } => Some(files.revision.clone()),
                    _ => None,
                };
                self.note_source(
                    name.clone(),
                    &files,
                    revision,
                    &source.licence,
                    &source.citation,
                );
                input
            }
        };
        let stage = monolingual::Settings {
            language: language.to_owned(),
            input,
            text_pipeline: settings.data.text_pipeline,
            limit: settings.data.monolingual_limit,
            validation_sentences: settings.data.monolingual_validation,
            seed: settings.seeds.data,
        };
        let job = self.add(
            (monolingual::NAME, monolingual::VERSION),
            &stage,
            inputs,
            files,
            name.clone(),
            Estimate::default(),
        )?;
        self.data_job(name, &job);
        Ok(job)
    }

    fn parallel(
        &mut self,
        settings: &Settings,
        target: &str,
    ) -> Result<(String, String, Fingerprint)> {
        let source_language = settings.languages.source.as_str();
        let (first, second) = if source_language < target {
            (source_language, target)
        } else {
            (target, source_language)
        };
        let name = format!("parallel {first}-{second}");
        let mut inputs = self.evaluation_sets(settings, &[first, second])?;
        let mut files = BTreeMap::new();
        let input = match self.synthesize(settings)? {
            Some(job) => {
                inputs.insert("synthesize".into(), job);
                ParallelInput::Synthetic
            }
            None => {
                let mut found = None;
                let mut reason = "name them under data.parallel".to_owned();
                for source in &settings.data.parallel {
                    match source.files(source_language, target, self.root) {
                        Ok(paths) => {
                            found = Some((source.clone(), paths));
                            break;
                        }
                        Err(error) => reason = format!("{error:#}"),
                    }
                }
                let Some((source, paths)) = found else {
                    self.missing.insert(format!("{first}-{second}: sentence pairs for translation language modelling; {reason}"));
                    return Ok((first.into(), second.into(), nothing()));
                };
                files = self.hashed(paths)?;
                let input = source.input(source_language, target)?;
                let revision = match &input {
                    ParallelInput::Hub { files, .. } => {
                        files.first().map(|files| files.revision.clone())
                    }
                    _ => None,
                };
                self.note_source(
                    name.clone(),
                    &files,
                    revision,
                    &source.licence,
                    &source.citation,
                );
                input
            }
        };
        let stage = parallel::Settings {
            first: first.to_owned(),
            second: second.to_owned(),
            input,
            text_pipeline: settings.data.text_pipeline,
            limit: settings.data.parallel_limit,
            validation_pairs: settings.data.parallel_validation,
            seed: settings.seeds.data,
        };
        let job = self.add(
            (parallel::NAME, parallel::VERSION),
            &stage,
            inputs,
            files,
            name.clone(),
            Estimate::default(),
        )?;
        self.data_job(name, &job);
        Ok((first.into(), second.into(), job))
    }

    fn tokenizer(&mut self, settings: &Settings) -> Result<Fingerprint> {
        let languages: Vec<String> = settings
            .languages
            .all()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let mut inputs = Inputs::new();
        for language in &languages {
            inputs.insert(
                format!("monolingual:{language}"),
                self.monolingual(settings, language)?,
            );
        }
        let stage = tokenizer::Settings {
            tokenizer: settings.tokenizer.clone(),
            languages,
        };
        let label = format!(
            "tokenizer {} {:?}",
            settings.tokenizer.bpe.vocabulary, settings.tokenizer.sharing
        )
        .to_lowercase();
        let job = self.add(
            (tokenizer::NAME, tokenizer::VERSION),
            &stage,
            inputs,
            BTreeMap::new(),
            label.clone(),
            Estimate::default(),
        )?;
        self.data_job(label, &job);
        Ok(job)
    }

    fn pretrain(
        &mut self,
        variant: &str,
        settings: &Settings,
        seed: u64,
    ) -> Result<Option<Fingerprint>> {
        let Some(pretraining) = settings.pretrain.settings() else {
            return Ok(None);
        };
        let tokenizer_job = self.tokenizer(settings)?;
        let languages: Vec<String> = settings
            .languages
            .all()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let mut inputs = Inputs::from([("tokenizer".to_owned(), tokenizer_job.clone())]);
        for language in &languages {
            let text = self.monolingual(settings, language)?;
            let stage = corpus::Settings::monolingual(language);
            let of_corpus = Inputs::from([
                ("tokenizer".to_owned(), tokenizer_job.clone()),
                ("text".to_owned(), text),
            ]);
            let label = format!("corpus {language}");
            let job = self.add(
                (corpus::NAME, corpus::VERSION),
                &stage,
                of_corpus,
                BTreeMap::new(),
                label.clone(),
                Estimate::default(),
            )?;
            self.data_job(label, &job);
            inputs.insert(format!("corpus:{language}"), job);
        }
        let mut pairs = Vec::new();
        if pretraining.uses_parallel_text() {
            for target in &settings.languages.targets {
                let (first, second, text) = self.parallel(settings, target)?;
                let stage = corpus::Settings::parallel(&first, &second);
                let of_corpus = Inputs::from([
                    ("tokenizer".to_owned(), tokenizer_job.clone()),
                    ("text".to_owned(), text),
                ]);
                let label = format!("parallel corpus {first}-{second}");
                let job = self.add(
                    (corpus::NAME, corpus::VERSION),
                    &stage,
                    of_corpus,
                    BTreeMap::new(),
                    label.clone(),
                    Estimate::default(),
                )?;
                self.data_job(label, &job);
                inputs.insert(format!("parallel_corpus:{first}-{second}"), job);
                pairs.push((first, second));
            }
        }
        let stage = pretrain::Settings {
            model: settings.model.clone(),
            pretrain: pretraining.clone(),
            languages,
            pairs,
            seed,
        };
        let estimate = estimate::pretraining(settings, pretraining);
        let job = self.add(
            (pretrain::NAME, pretrain::VERSION),
            &stage,
            inputs,
            BTreeMap::new(),
            format!("pretrain {variant}, seed {seed}"),
            estimate,
        )?;
        self.plan.pretrainings.push(Pretraining {
            variant: variant.to_owned(),
            seed,
            fingerprint: job.clone(),
        });
        Ok(Some(job))
    }

    fn variant(&mut self, variant: &str, settings: &Settings) -> Result<()> {
        self.baselines(settings)?;
        for pretrain_seed in &settings.seeds.pretrain {
            let encoder = self.pretrain(variant, settings, *pretrain_seed)?;
            for finetune_seed in &settings.seeds.finetune {
                for training in training_sets(settings) {
                    self.run(
                        variant,
                        settings,
                        (*pretrain_seed, *finetune_seed),
                        encoder.as_ref(),
                        &training,
                    )?;
                }
            }
        }
        Ok(())
    }

    fn run(
        &mut self,
        variant: &str,
        settings: &Settings,
        seeds: (u64, u64),
        encoder: Option<&Fingerprint>,
        training: &TrainingSet,
    ) -> Result<()> {
        let tokenizer_job = self.tokenizer(settings)?;
        let source = settings.languages.source.as_str();
        let mut inputs = Inputs::from([("tokenizer".to_owned(), tokenizer_job.clone())]);
        if let Some(encoder) = encoder {
            inputs.insert("pretrain".into(), encoder.clone());
        }
        for language in &training.languages {
            let role = if language == source {
                Role::Train
            } else {
                Role::TranslatedTrain
            };
            inputs.insert(
                format!("train:{language}"),
                self.nli(settings, role, language)?,
            );
        }
        for language in &training.dev_languages {
            inputs.insert(
                format!("dev:{language}"),
                self.nli(settings, Role::Dev, language)?,
            );
        }
        let finetuning = &settings.finetune;
        let estimate = estimate::finetuning(settings);
        let mut configurations = Vec::new();
        for batch_size in &finetuning.grid.batch_size {
            for encoder_learning_rate in &finetuning.grid.encoder_learning_rate {
                for head_learning_rate in &finetuning.grid.head_learning_rate {
                    let stage = finetune::Settings {
                        start: match encoder {
                            Some(_) => finetune::Start::Pretrained {},
                            None => finetune::Start::Random {
                                model: settings.model.clone(),
                                seed: seeds.0,
                            },
                        },
                        training_languages: training.languages.clone(),
                        dev_languages: training.dev_languages.clone(),
                        pooling: finetuning.pooling,
                        head_dropout: finetuning.head_dropout as f32,
                        maximum_length: finetuning.maximum_length,
                        examples_per_epoch: finetuning.examples_per_epoch,
                        epochs: finetuning.epochs,
                        encoder_learning_rate: *encoder_learning_rate,
                        head_learning_rate: *head_learning_rate,
                        batch_size: *batch_size,
                        schedule: finetuning.schedule,
                        clip: finetuning.clip,
                        precision: finetuning.precision,
                        seed: seeds.1,
                    };
                    let configuration = format!(
                        "encoder learning rate {encoder_learning_rate:e}, classifier {head_learning_rate:e}, batch {batch_size}"
                    );
                    let label = format!(
                        "fine-tune {variant} on {}, seeds {}/{}, {configuration}",
                        training.name, seeds.0, seeds.1
                    );
                    let job = self.add(
                        (finetune::NAME, finetune::VERSION),
                        &stage,
                        inputs.clone(),
                        BTreeMap::new(),
                        label,
                        estimate,
                    )?;
                    configurations.push((configuration, job));
                }
            }
        }
        self.evaluate(
            variant,
            settings,
            seeds,
            training,
            tokenizer_job,
            configurations,
        )
    }

    fn evaluate(
        &mut self,
        variant: &str,
        settings: &Settings,
        seeds: (u64, u64),
        training: &TrainingSet,
        tokenizer_job: Fingerprint,
        configurations: Vec<(String, Fingerprint)>,
    ) -> Result<()> {
        let source = settings.languages.source.clone();
        let mut inputs = Inputs::from([("tokenizer".to_owned(), tokenizer_job)]);
        for (index, (_, job)) in configurations.iter().enumerate() {
            inputs.insert(format!("finetune:{index}"), job.clone());
        }
        let mut cells = Vec::new();
        let mut names = Vec::new();
        for (regime, test) in &training.tests {
            let task = settings.finetune.task.name();
            let (name, premises, hypotheses, told, dev_language, task) = match test {
                Test::Plain(language) => {
                    let input = format!("test:{language}");
                    inputs.insert(input.clone(), self.nli(settings, Role::Test, language)?);
                    let text = TestText {
                        input,
                        language: language.clone(),
                    };
                    (
                        language.clone(),
                        text.clone(),
                        text,
                        language.clone(),
                        language.clone(),
                        task.to_owned(),
                    )
                }
                Test::Translated(language) => {
                    let input = format!("translated_test:{language}");
                    inputs.insert(
                        input.clone(),
                        self.nli(settings, Role::TranslatedTest, language)?,
                    );
                    let translator = match settings.data.synthetic {
                        Some(_) => "exact, from the family's grammar".to_owned(),
                        None => {
                            let sources = &settings.data.nli.translated_test;
                            let citation = sources
                                .iter()
                                .find(|found| found.covers(language))
                                .and_then(|found| found.citation.clone());
                            citation.unwrap_or_else(|| "file of the study".into())
                        }
                    };
                    self.plan
                        .translations
                        .insert(format!("test set, {language} -> {source}"), translator);
                    let text = TestText {
                        input,
                        language: source.clone(),
                    };
                    // There is no translated dev set: every rule chooses on the source language's.
                    (
                        language.clone(),
                        text.clone(),
                        text,
                        source.clone(),
                        source.clone(),
                        task.to_owned(),
                    )
                }
                Test::Mixed(premise, hypothesis) => {
                    let mut text = |language: &str| -> Result<TestText> {
                        let input = format!("test:{language}");
                        inputs.insert(input.clone(), self.nli(settings, Role::Test, language)?);
                        Ok(TestText {
                            input,
                            language: language.to_owned(),
                        })
                    };
                    let (premises, hypotheses) = (text(premise)?, text(hypothesis)?);
                    // The model takes one language for the whole input; the hypothesis is what is judged.
                    (
                        format!("{premise}+{hypothesis}"),
                        premises,
                        hypotheses,
                        hypothesis.clone(),
                        hypothesis.clone(),
                        format!("{task}_mixed"),
                    )
                }
            };
            for selection in &settings.finetune.select_on {
                let dev_language = if training.dev_languages.contains(&dev_language) {
                    dev_language.clone()
                } else {
                    source.clone()
                };
                cells.push(TestCell {
                    regime: *regime,
                    selection: *selection,
                    dev_language,
                    premises: premises.clone(),
                    hypotheses: hypotheses.clone(),
                    told: told.clone(),
                });
                names.push(CellName {
                    task: task.clone(),
                    regime: *regime,
                    language: name.clone(),
                    selection: selection.name().to_owned(),
                });
            }
        }
        for language in training
            .languages
            .iter()
            .filter(|language| **language != source)
        {
            let translator = match settings.data.synthetic {
                Some(_) => "exact, from the family's grammar".to_owned(),
                None => {
                    let sources = &settings.data.nli.translated_train;
                    let citation = sources
                        .iter()
                        .find(|found| found.covers(language))
                        .and_then(|found| found.citation.clone());
                    citation.unwrap_or_else(|| "file of the study".into())
                }
            };
            self.plan
                .translations
                .insert(format!("training set, {source} -> {language}"), translator);
        }
        let stage = evaluate::Settings {
            source,
            runs: configurations.len(),
            pooling: settings.finetune.pooling,
            maximum_length: settings.finetune.maximum_length,
            cells,
        };
        let label = format!(
            "evaluate {variant} trained on {}, seeds {}/{}",
            training.name, seeds.0, seeds.1
        );
        let evaluation = self.add(
            (evaluate::NAME, evaluate::VERSION),
            &stage,
            inputs,
            BTreeMap::new(),
            label,
            Estimate::default(),
        )?;
        self.plan.runs.push(Run {
            variant: variant.to_owned(),
            pretrain_seed: seeds.0,
            finetune_seed: seeds.1,
            training_set: training.name.clone(),
            configurations,
            evaluation,
            cells: names,
        });
        Ok(())
    }

    fn baselines(&mut self, settings: &Settings) -> Result<()> {
        if self.plan.baselines.is_some() {
            return Ok(());
        }
        let source = settings.languages.source.clone();
        let mut inputs = Inputs::new();
        let mut training_languages = vec![source.clone()];
        let translated = training_sets(settings)
            .into_iter()
            .flat_map(|set| set.languages);
        training_languages.extend(
            translated
                .filter(|language| *language != source)
                .collect::<BTreeSet<_>>(),
        );
        for language in &training_languages {
            let role = if *language == source {
                Role::Train
            } else {
                Role::TranslatedTrain
            };
            inputs.insert(
                format!("train:{language}"),
                self.nli(settings, role, language)?,
            );
        }
        let test_languages: Vec<String> = settings
            .languages
            .evaluated()
            .into_iter()
            .map(str::to_owned)
            .collect();
        for language in &test_languages {
            inputs.insert(
                format!("test:{language}"),
                self.nli(settings, Role::Test, language)?,
            );
        }
        let stage = baselines::Settings {
            source,
            test_languages,
            training_languages,
        };
        let job = self.add(
            (baselines::NAME, baselines::VERSION),
            &stage,
            inputs,
            BTreeMap::new(),
            "baselines that read text alone".into(),
            Estimate::default(),
        )?;
        self.plan.baselines = Some(job);
        Ok(())
    }
}

/// A training set and the tests that models trained on it take.
struct TrainingSet {
    name: String,
    languages: Vec<String>,
    dev_languages: Vec<String>,
    tests: Vec<(Regime, Test)>,
}

enum Test {
    Plain(String),
    /// Translated from this language into the source language.
    Translated(String),
    /// Premise in one language, hypothesis in another.
    Mixed(String, String),
}

fn training_sets(settings: &Settings) -> Vec<TrainingSet> {
    let source = &settings.languages.source;
    let evaluated: Vec<String> = settings
        .languages
        .evaluated()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let mut on_source = TrainingSet {
        name: source.clone(),
        languages: vec![source.clone()],
        dev_languages: evaluated.clone(),
        tests: Vec::new(),
    };
    let mut others = Vec::new();
    for regime in &settings.finetune.regimes {
        let languages = regime_languages(settings, *regime);
        let plain = |language: &String| (*regime, Test::Plain(language.clone()));
        match regime {
            Regime::ZeroShot => {
                on_source.tests.extend(languages.iter().map(plain));
                if settings.finetune.mixed_pairs {
                    for premise in &evaluated {
                        for hypothesis in
                            evaluated.iter().filter(|hypothesis| *hypothesis != premise)
                        {
                            on_source
                                .tests
                                .push((*regime, Test::Mixed(premise.clone(), hypothesis.clone())));
                        }
                    }
                }
            }
            Regime::TranslateTest => {
                on_source.tests.push(plain(source));
                on_source.tests.extend(
                    languages
                        .iter()
                        .filter(|language| *language != source)
                        .map(|language| (*regime, Test::Translated(language.clone()))),
                );
            }
            Regime::TranslateTrain => {
                on_source.tests.push(plain(source));
                others.extend(languages.iter().filter(|language| *language != source).map(
                    |language| TrainingSet {
                        name: format!("{language} (translated)"),
                        languages: vec![language.clone()],
                        dev_languages: vec![source.clone(), language.clone()],
                        tests: vec![plain(language)],
                    },
                ));
            }
            Regime::TranslateTrainAll => others.push(TrainingSet {
                name: "all".into(),
                languages: languages.clone(),
                dev_languages: evaluated.clone(),
                tests: languages.iter().map(plain).collect(),
            }),
        }
    }
    if !on_source.tests.is_empty() {
        others.insert(0, on_source);
    }
    others
}
