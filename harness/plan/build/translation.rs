//! Jobs that train translation models, translate test sets with them, and make the translations of inference sets that no file
//! holds.

use anyhow::{Context as _, Result};

use super::data::Role;
use super::{Builder, Files, Inputs};
use crate::data::source::NliInput;
use crate::fingerprint::Fingerprint;
use crate::objectives::translation::{Direction, language_pairs, languages};
use crate::plan::estimate::{self, Estimate};
use crate::plan::{OwnTranslator, TranslationRun, Translator};
use crate::spec::Variant;
use crate::spec::settings::Settings;
use crate::spec::translation::TranslationSettings;
use crate::spec::translator::{self, TranslatorSettings};
use crate::stages::{nli, translate, translate_nli, translation};

impl Builder<'_> {
    pub(super) fn translation(
        &mut self,
        variant: &str,
        settings: &Settings,
        translating: &TranslationSettings,
        seeds: (u64, u64),
    ) -> Result<()> {
        // Their curves stand in the report as the variant's.
        for start in [&translating.encoder, &translating.decoder] {
            if start.is_pretrained() {
                self.shown_pretrain(variant, settings, start.objectives(), seeds.0)?;
            }
        }
        let name = format!("translation {variant}, seeds {}/{}", seeds.0, seeds.1);
        let training = self.translation_model(&name, variant, settings, translating, seeds)?;
        let tested = translating.tested();
        let name = format!("translate {variant}, seeds {}/{}", seeds.0, seeds.1);
        let evaluation = self.translation_test(name, settings, translating, &training, tested)?;
        self.plan.translation_runs.push(TranslationRun {
            variant: variant.to_owned(),
            pretrain_seed: seeds.0,
            finetune_seed: seeds.1,
            training,
            evaluation,
        });
        Ok(())
    }

    /// The model that a section describes, built on a variant.
    fn translation_model(
        &mut self,
        name: &str,
        variant: &str,
        settings: &Settings,
        translating: &TranslationSettings,
        seeds: (u64, u64),
    ) -> Result<Fingerprint> {
        let mut inputs = Inputs::from([("tokenizer".to_owned(), self.tokenizer(settings)?)]);
        let directions = &translating.directions;
        if translating.train.uses_monolingual_text() {
            for language in languages(directions) {
                let corpus = self.corpus(settings, &language)?;
                inputs.insert(format!("corpus:{language}"), corpus);
            }
        }
        let supervised = translating.train.uses_sentence_pairs();
        for (first, second) in &language_pairs(directions) {
            let corpus = self.parallel_corpus(settings, (first, second), supervised)?;
            inputs.insert(format!("parallel_corpus:{first}-{second}"), corpus);
        }
        for (side, start) in [
            ("encoder", &translating.encoder),
            ("decoder", &translating.decoder),
        ] {
            if start.is_pretrained()
                && let Some(job) = self.pretrain(variant, settings, start.objectives(), seeds.0)?
            {
                inputs.insert(side.to_owned(), job);
            }
        }
        let stage = translation::Settings {
            model: settings.model.clone(),
            directions: directions.clone(),
            validated: translating.tested().to_vec(),
            encoder: translating.encoder.copied(),
            decoder: translating.decoder.copied(),
            train: translating.train.clone(),
            search: translating.test.searches[0],
            bleu: translating.test.bleu,
            initialisation_seed: seeds.0,
            seed: seeds.1,
        };
        self.add(
            (translation::NAME, translation::VERSION),
            &stage,
            inputs,
            Files::new(),
            format!("train {name}"),
            estimate::translating(settings, translating),
        )
    }

    /// Translations of the test sets of some directions.
    fn translation_test(
        &mut self,
        name: String,
        settings: &Settings,
        translating: &TranslationSettings,
        training: &Fingerprint,
        tested: &[Direction],
    ) -> Result<Fingerprint> {
        let mut inputs = Inputs::from([
            ("tokenizer".to_owned(), self.tokenizer(settings)?),
            ("translation".to_owned(), training.clone()),
        ]);
        for (first, second) in &language_pairs(tested) {
            let test = self.parallel_test(settings, (first, second))?;
            inputs.insert(format!("test:{first}-{second}"), test);
        }
        let stage = translate::Settings {
            directions: tested.to_vec(),
            searches: translating.test.searches.clone(),
            bleu: translating.test.bleu,
            precision: translating.train.precision,
        };
        self.add(
            (translate::NAME, translate::VERSION),
            &stage,
            inputs,
            Files::new(),
            name,
            Estimate::default(),
        )
    }

    /// Whether a set is to be translated by the study's own model.
    pub(super) fn translates(&self, settings: &Settings, role: Role, language: &str) -> bool {
        settings.data.nli.translator.is_some()
            && matches!(role, Role::TranslatedTrain | Role::TranslatedTest)
            && !role
                .sources(&settings.data.nli)
                .iter()
                .any(|source| source.covers(language))
    }

    /// A training or test set in the words of the study's own translator.
    pub(super) fn translated_nli(
        &mut self,
        settings: &Settings,
        role: Role,
        language: &str,
    ) -> Result<Fingerprint> {
        let (base, translator) = self.translator_variant(settings)?;
        let direction = direction(settings, role, language);
        let (training, _) = self.translator(base, translator)?;
        let source = settings.languages.source.as_str();
        let (of, into) = match role {
            Role::TranslatedTest => ((Role::Test, language), source),
            _ => ((Role::Train, source), language),
        };
        let inputs = Inputs::from([
            ("tokenizer".to_owned(), self.tokenizer(&base.settings)?),
            ("translation".to_owned(), training),
            ("examples".to_owned(), self.nli(settings, of.0, of.1)?),
        ]);
        let stage = translate_nli::Settings {
            direction,
            search: translator.search,
            precision: translator.train.precision,
        };
        let name = format!("nli {} {language}", role.name());
        let translated = self.add_data(
            (translate_nli::NAME, translate_nli::VERSION),
            &stage,
            (inputs, Files::new()),
            format!("translation of {name}"),
        )?;
        // From here on they are as if a file had held them.
        let mut inputs = self.exclusions(settings, role, language)?;
        inputs.insert("translated".to_owned(), translated);
        let stage = nli::Settings {
            split: role.split(),
            language: into.to_owned(),
            input: NliInput::Translated,
            text_pipeline: settings.data.text_pipeline,
            limit: None,
            seed: settings.seeds.data,
        };
        let identity = (nli::NAME, nli::VERSION);
        self.add_data(identity, &stage, (inputs, Files::new()), name)
    }

    /// Who translated for a language.
    pub(super) fn translator_of(
        &mut self,
        settings: &Settings,
        role: Role,
        language: &str,
    ) -> Result<Translator> {
        if self.translates(settings, role, language) {
            let (base, translator) = self.translator_variant(settings)?;
            let direction = direction(settings, role, language);
            let (training, evaluation) = self.translator(base, translator)?;
            let tested = translator::is_tested(&base.settings, &direction);
            return Ok(Translator::Own(OwnTranslator {
                variant: base.name.clone(),
                search: translator.search,
                bleu: translator.bleu,
                training,
                evaluation: evaluation.filter(|_| tested),
                direction,
            }));
        }
        if settings.data.synthetic.is_some() {
            return Ok(Translator::Other(
                "exact, from the family's grammar".to_owned(),
            ));
        }
        let mut sources = role.sources(&settings.data.nli).iter();
        let source = sources.find(|source| source.covers(language));
        let citation = source.and_then(|source| source.citation.clone());
        Ok(Translator::Other(
            citation.unwrap_or_else(|| "file of the study".to_owned()),
        ))
    }

    /// The study's translator, and what tests it where there are pairs to do it with.
    fn translator(
        &mut self,
        base: &Variant,
        translator: &TranslatorSettings,
    ) -> Result<(Fingerprint, Option<Fingerprint>)> {
        if let Some(planned) = &self.translator {
            return Ok(planned.clone());
        }
        let settings = &base.settings;
        let directions = translator::wanted(settings);
        let tested: Vec<Direction> = directions
            .iter()
            .filter(|direction| translator::is_tested(settings, direction))
            .cloned()
            .collect();
        let translating = translator.translation(directions);
        let seeds = (translator.seed, translator.seed);
        let name = format!("translator {}, seed {}", base.name, translator.seed);
        let training = self.translation_model(&name, &base.name, settings, &translating, seeds)?;
        let evaluation = match tested.is_empty() {
            true => None,
            false => Some(self.translation_test(
                format!("test {name}"),
                settings,
                &translating,
                &training,
                &tested,
            )?),
        };
        // What is missing is to be told at each place that asks for it.
        if self.missing.is_empty() {
            self.translator = Some((training.clone(), evaluation.clone()));
        }
        Ok((training, evaluation))
    }
}

impl<'a> Builder<'a> {
    /// The variant that the study's translator builds on.
    fn translator_variant<'s>(
        &self,
        settings: &'s Settings,
    ) -> Result<(&'a Variant, &'s TranslatorSettings)> {
        let translator = settings.data.nli.translator.as_deref();
        let translator = translator.context("the study has no translator")?;
        let mut variants = self.study.variants.iter();
        let base = variants.find(|variant| variant.name == translator.variant);
        let base = base.with_context(|| format!("unknown variant `{}`", translator.variant))?;
        Ok((base, translator))
    }
}

/// From which language into which a set is translated.
fn direction(settings: &Settings, role: Role, language: &str) -> Direction {
    let (source, language) = (settings.languages.source.clone(), language.to_owned());
    match role {
        Role::TranslatedTest => Direction {
            from: language,
            into: source,
        },
        _ => Direction {
            from: source,
            into: language,
        },
    }
}
