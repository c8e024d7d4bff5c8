//! The section `data.nli.translator`: a translation model of the study's own, for translate-train and translate-test where no
//! file holds the translations.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::language;
use crate::objectives::translation::Direction;
use crate::spec::finetune::Regime;
use crate::spec::regime_languages;
use crate::spec::settings::Settings;
use crate::spec::translation::{
    BleuSettings, SearchSettings, Start, TranslationSettings, TranslationTest, TranslationTraining,
};

/// One model makes the translations of all variants, so that they differ in nothing but what the study compares. It learns
/// the directions that are asked for, all at once, from `data.parallel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TranslatorSettings {
    /// The variant whose tokenizer, model and pretraining the translator has.
    pub variant: String,
    /// What the encoder starts from.
    pub encoder: Start,
    /// What the decoder starts from.
    pub decoder: Start,
    /// How the model is trained.
    pub train: TranslationTraining,
    /// The search for translations, in validation too.
    pub search: SearchSettings,
    /// The BLEU that chooses the model, and that the report states.
    pub bleu: BleuSettings,
    /// The pretraining that it starts from, its initialisation, batches, noise and dropout.
    pub seed: u64,
}

impl TranslatorSettings {
    /// The translator as a section `translation`.
    pub fn translation(&self, directions: Vec<Direction>) -> TranslationSettings {
        TranslationSettings {
            directions,
            encoder: self.encoder.clone(),
            decoder: self.decoder.clone(),
            train: self.train.clone(),
            test: TranslationTest {
                directions: None,
                searches: vec![self.search],
                bleu: self.bleu,
            },
        }
    }
}

/// What a study's regimes need translated and no file supplies, each direction once.
pub fn wanted(settings: &Settings) -> Vec<Direction> {
    let Some(finetune) = &settings.finetune else {
        return Vec::new();
    };
    let source = &settings.languages.source;
    let nli = &settings.data.nli;
    let mut directions = BTreeSet::new();
    for regime in &finetune.regimes {
        let languages = regime_languages(settings, *regime);
        for language in languages.iter().filter(|language| *language != source) {
            let (from, into, sources) = match regime {
                Regime::ZeroShot => continue,
                Regime::TranslateTrain | Regime::TranslateTrainAll => {
                    (source, language, &nli.translated_train)
                }
                Regime::TranslateTest => (language, source, &nli.translated_test),
            };
            if !sources.iter().any(|source| source.covers(language)) {
                directions.insert(Direction {
                    from: from.clone(),
                    into: into.clone(),
                });
            }
        }
    }
    directions.into_iter().collect()
}

/// Pairs of languages, in alphabetical order, that a study with a translator may test it on: their sentences are trained on
/// nowhere. They do not follow from the regimes, lest a change of those change all text. Generated test sentences are in no
/// training text anyway.
pub fn tested_pairs(settings: &Settings) -> Vec<(String, String)> {
    let source = &settings.languages.source;
    if settings.data.nli.translator.is_none() || settings.data.synthetic.is_some() {
        return Vec::new();
    }
    let covered = settings.languages.targets.iter().filter(|target| {
        let mut sources = settings.data.parallel_test.iter();
        sources.any(|source| source.covers(target))
    });
    let pair = |target: &String| {
        let (first, second) = language::ordered(source, target);
        (first.to_owned(), second.to_owned())
    };
    covered.map(pair).collect()
}

/// Whether the study has sentence pairs to test a direction with.
pub fn is_tested(settings: &Settings, direction: &Direction) -> bool {
    match &settings.data.synthetic {
        Some(family) => family.parallel.test > 0,
        None => {
            let target = direction.target(&settings.languages.source);
            let mut sources = settings.data.parallel_test.iter();
            sources.any(|source| source.covers(target))
        }
    }
}
