//! Jobs that train translation models and translate test sets with them.

use anyhow::Result;

use super::{Builder, Files, Inputs};
use crate::objectives::translation::{language_pairs, languages};
use crate::plan::TranslationRun;
use crate::plan::estimate::{self, Estimate};
use crate::spec::settings::Settings;
use crate::spec::translation::TranslationSettings;
use crate::stages::{translate, translation};

impl Builder<'_> {
    pub(super) fn translation(
        &mut self,
        variant: &str,
        settings: &Settings,
        translating: &TranslationSettings,
        seeds: (u64, u64),
    ) -> Result<()> {
        let tokenizer = self.tokenizer(settings)?;
        let mut inputs = Inputs::from([("tokenizer".to_owned(), tokenizer.clone())]);
        let directions = &translating.directions;
        if translating.train.uses_monolingual_text() {
            for language in languages(directions) {
                let corpus = self.corpus(settings, &language)?;
                inputs.insert(format!("corpus:{language}"), corpus);
            }
        }
        let pairs = language_pairs(directions);
        for (first, second) in &pairs {
            let corpus = self.parallel_corpus(settings, (first, second))?;
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
        let training = self.add(
            (translation::NAME, translation::VERSION),
            &stage,
            inputs,
            Files::new(),
            format!("train translation {variant}, seeds {}/{}", seeds.0, seeds.1),
            estimate::translating(settings, translating),
        )?;
        let mut inputs = Inputs::from([
            ("tokenizer".to_owned(), tokenizer),
            ("translation".to_owned(), training.clone()),
        ]);
        let tested = translating.tested();
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
        let evaluation = self.add(
            (translate::NAME, translate::VERSION),
            &stage,
            inputs,
            Files::new(),
            format!("translate {variant}, seeds {}/{}", seeds.0, seeds.1),
            Estimate::default(),
        )?;
        self.plan.translation_runs.push(TranslationRun {
            variant: variant.to_owned(),
            pretrain_seed: seeds.0,
            finetune_seed: seeds.1,
            training,
            evaluation,
        });
        Ok(())
    }
}
