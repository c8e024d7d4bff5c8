//! Jobs that train and evaluate: pretraining, fine-tuning over the grid, selection and test, text baselines.

use std::collections::BTreeSet;

use anyhow::Result;

use super::data::Role;
use super::{Builder, Files, Inputs};
use crate::fingerprint::Fingerprint;
use crate::language;
use crate::objectives::ObjectiveSettings;
use crate::plan::estimate::{self, Estimate};
use crate::plan::{CellName, Pretraining, Run};
use crate::spec::finetune::{FinetuneSettings, Regime};
use crate::spec::pretrain::PretrainSettings;
use crate::spec::regime_languages;
use crate::spec::settings::Settings;
use crate::stages::evaluate::{TestCell, TestText};
use crate::stages::{baselines, evaluate, finetune, pretrain};

impl Builder<'_> {
    pub(super) fn variant(&mut self, variant: &str, settings: &Settings) -> Result<()> {
        if let Some(finetuning) = &settings.finetune {
            self.baselines(settings, finetuning)?;
        }
        for pretrain_seed in &settings.seeds.pretrain {
            self.measurements(variant, settings, *pretrain_seed)?;
            if let Some(finetuning) = &settings.finetune {
                let encoder = self.shown_pretrain(variant, settings, None, *pretrain_seed)?;
                for finetune_seed in &settings.seeds.finetune {
                    for training in training_sets(settings, finetuning) {
                        let seeds = (*pretrain_seed, *finetune_seed);
                        let start = encoder.as_ref();
                        self.run(variant, (settings, finetuning), seeds, start, &training)?;
                    }
                }
            }
            if let Some(translation) = &settings.translation {
                for finetune_seed in &settings.seeds.finetune {
                    let seeds = (*pretrain_seed, *finetune_seed);
                    self.translation(variant, settings, translation, seeds)?;
                }
            }
        }
        Ok(())
    }

    /// The pretrained encoder of a variant, on other objectives than the study's where they are given.
    pub(super) fn pretrain(
        &mut self,
        variant: &str,
        settings: &Settings,
        objectives: Option<&Vec<ObjectiveSettings>>,
        seed: u64,
    ) -> Result<Option<Fingerprint>> {
        let Some(pretraining) = settings.pretrain.settings() else {
            return Ok(None);
        };
        let all = settings.languages.all().into_iter().map(str::to_owned);
        let languages: Vec<String> = match &pretraining.languages {
            Some(some) => all.filter(|language| some.contains(language)).collect(),
            None => all.collect(),
        };
        // A stage has its languages, named or not.
        let pretraining = &PretrainSettings {
            objectives: objectives.unwrap_or(&pretraining.objectives).clone(),
            languages: None,
            ..pretraining.clone()
        };
        let mut inputs = Inputs::from([("tokenizer".to_owned(), self.tokenizer(settings)?)]);
        for language in &languages {
            inputs.insert(
                format!("corpus:{language}"),
                self.corpus(settings, language)?,
            );
        }
        let mut pairs = Vec::new();
        if pretraining.uses_parallel_text() {
            let source = &settings.languages.source;
            let targets = settings.languages.targets.iter();
            for target in targets.filter(|target| languages.contains(target)) {
                let (first, second) = language::ordered(source, target);
                let job = self.parallel_corpus(settings, (first, second), true)?;
                inputs.insert(format!("parallel_corpus:{first}-{second}"), job);
                pairs.push((first.to_owned(), second.to_owned()));
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
        // A translation model may start from several.
        let what = match objectives {
            Some(objectives) => {
                let names: Vec<&str> = objectives.iter().map(ObjectiveSettings::name).collect();
                format!("{variant} ({})", names.join(", "))
            }
            None => variant.to_owned(),
        };
        let label = format!("pretrain {what}, seed {seed}");
        let identity = (pretrain::NAME, pretrain::VERSION);
        let job = self.add(identity, &stage, inputs, Files::new(), label, estimate)?;
        Ok(Some(job))
    }

    /// As [`Builder::pretrain`], of a model whose curves stand in the report under the variant's name.
    pub(super) fn shown_pretrain(
        &mut self,
        variant: &str,
        settings: &Settings,
        objectives: Option<&Vec<ObjectiveSettings>>,
        seed: u64,
    ) -> Result<Option<Fingerprint>> {
        let job = self.pretrain(variant, settings, objectives, seed)?;
        let pretraining = job.clone().map(|fingerprint| Pretraining {
            variant: variant.to_owned(),
            seed,
            fingerprint,
        });
        // Both sides of a translation model may start from the same.
        if let Some(pretraining) = pretraining
            && !self.plan.pretrainings.contains(&pretraining)
        {
            self.plan.pretrainings.push(pretraining);
        }
        Ok(job)
    }

    fn run(
        &mut self,
        variant: &str,
        (settings, finetuning): (&Settings, &FinetuneSettings),
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
        let estimate = estimate::finetuning(settings, finetuning);
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
                        Files::new(),
                        label,
                        estimate,
                    )?;
                    configurations.push((configuration, job));
                }
            }
        }
        self.evaluate(
            variant,
            (settings, finetuning),
            seeds,
            training,
            tokenizer_job,
            configurations,
        )
    }

    fn evaluate(
        &mut self,
        variant: &str,
        (settings, finetuning): (&Settings, &FinetuneSettings),
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
            let Layout {
                task,
                name,
                premises,
                hypotheses,
                told,
                dev,
            } = layout(settings, finetuning, test);
            for text in [&premises, &hypotheses] {
                let (role, language) = match test {
                    Test::Translated(language) => (Role::TranslatedTest, language),
                    Test::Plain(_) | Test::Mixed(..) => (Role::Test, &text.language),
                };
                inputs.insert(text.input.clone(), self.nli(settings, role, language)?);
            }
            if let Test::Translated(language) = test {
                let translator = self.translator_of(settings, Role::TranslatedTest, language)?;
                let what = format!("test set, {language} -> {source}");
                self.plan.translations.insert(what, translator);
            }
            let dev_language = if training.dev_languages.contains(&dev) {
                dev
            } else {
                source.clone()
            };
            for selection in &finetuning.select_on {
                cells.push(TestCell {
                    regime: *regime,
                    selection: *selection,
                    dev_language: dev_language.clone(),
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
            let translator = self.translator_of(settings, Role::TranslatedTrain, language)?;
            let what = format!("training set, {source} -> {language}");
            self.plan.translations.insert(what, translator);
        }
        let stage = evaluate::Settings {
            source,
            runs: configurations.len(),
            pooling: finetuning.pooling,
            maximum_length: finetuning.maximum_length,
            precision: finetuning.precision,
            cells,
        };
        let label = format!(
            "evaluate {variant} trained on {}, seeds {}/{}",
            training.name, seeds.0, seeds.1
        );
        let identity = (evaluate::NAME, evaluate::VERSION);
        let evaluation = self.add(
            identity,
            &stage,
            inputs,
            Files::new(),
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

    fn baselines(&mut self, settings: &Settings, finetuning: &FinetuneSettings) -> Result<()> {
        if self.plan.baselines.is_some() {
            return Ok(());
        }
        let source = settings.languages.source.clone();
        let mut inputs = Inputs::new();
        let mut training_languages = vec![source.clone()];
        let translated = training_sets(settings, finetuning)
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
            Files::new(),
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

/// How a test is laid out.
struct Layout {
    task: String,
    /// The language, or premise and hypothesis language, as results name it.
    name: String,
    premises: TestText,
    hypotheses: TestText,
    /// The language the model is told.
    told: String,
    /// Whose dev set `target_dev` looks at.
    dev: String,
}

fn layout(settings: &Settings, finetuning: &FinetuneSettings, test: &Test) -> Layout {
    let task = finetuning.task.name();
    let source = &settings.languages.source;
    let text = |role: Role, of: &str, language: &str| TestText {
        input: format!("{}:{of}", role.name()),
        language: language.to_owned(),
    };
    match test {
        Test::Plain(language) => Layout {
            task: task.to_owned(),
            name: language.clone(),
            premises: text(Role::Test, language, language),
            hypotheses: text(Role::Test, language, language),
            told: language.clone(),
            dev: language.clone(),
        },
        // There is no translated dev set: every rule chooses on the source language's.
        Test::Translated(language) => Layout {
            task: task.to_owned(),
            name: language.clone(),
            premises: text(Role::TranslatedTest, language, source),
            hypotheses: text(Role::TranslatedTest, language, source),
            told: source.clone(),
            dev: source.clone(),
        },
        // The model takes one language for the whole input; the hypothesis is what is judged.
        Test::Mixed(premise, hypothesis) => Layout {
            task: format!("{task}_mixed"),
            name: format!("{premise}+{hypothesis}"),
            premises: text(Role::Test, premise, premise),
            hypotheses: text(Role::Test, hypothesis, hypothesis),
            told: hypothesis.clone(),
            dev: hypothesis.clone(),
        },
    }
}

fn training_sets(settings: &Settings, finetuning: &FinetuneSettings) -> Vec<TrainingSet> {
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
    for regime in &finetuning.regimes {
        let languages = regime_languages(settings, *regime);
        let plain = |language: &String| (*regime, Test::Plain(language.clone()));
        match regime {
            Regime::ZeroShot => {
                on_source.tests.extend(languages.iter().map(plain));
                if finetuning.mixed_pairs {
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
