//! Jobs that ask pretrained models as they are: perplexity of held-out text, likeness of words.

use anyhow::Result;

use super::{Builder, Files, Inputs};
use crate::plan::MeasurementRun;
use crate::spec::settings::Settings;
use crate::stages::{language_modelling, word_embeddings};

impl Builder<'_> {
    pub(super) fn measurements(
        &mut self,
        variant: &str,
        settings: &Settings,
        seed: u64,
    ) -> Result<()> {
        let Some(pretraining) = settings.pretrain.settings() else {
            return Ok(());
        };
        if let Some(modelling) = &settings.language_modelling {
            let mut inputs = self.pretrained(variant, settings, seed)?;
            for language in &modelling.languages {
                let text = self.monolingual(settings, language)?;
                inputs.insert(format!("text:{language}"), text);
            }
            let stage = language_modelling::Settings {
                languages: modelling.languages.clone(),
                units: modelling.units.clone(),
                longest: pretraining.stream_length,
                precision: pretraining.precision,
            };
            let identity = (language_modelling::NAME, language_modelling::VERSION);
            self.measure((variant, seed, "perplexity of"), identity, &stage, inputs)?;
        }
        if let Some(words) = &settings.word_embeddings {
            let mut inputs = self.pretrained(variant, settings, seed)?;
            let dictionaries = words.dictionary_languages(&settings.languages.targets);
            for (input, languages, rated) in [
                ("dictionary", dictionaries, false),
                ("similarity", words.similarity.as_slice(), true),
            ] {
                for language in languages {
                    let pairs = self.word_pairs(settings, language, rated)?;
                    inputs.insert(format!("{input}:{language}"), pairs);
                }
            }
            let stage = word_embeddings::Settings {
                source: settings.languages.source.clone(),
                dictionaries: dictionaries.to_vec(),
                similarity: words.similarity.clone(),
                words: words.words,
                same_tokens: words.same_tokens,
            };
            let identity = (word_embeddings::NAME, word_embeddings::VERSION);
            self.measure((variant, seed, "words of"), identity, &stage, inputs)?;
        }
        Ok(())
    }

    fn pretrained(&mut self, variant: &str, settings: &Settings, seed: u64) -> Result<Inputs> {
        let mut inputs = Inputs::from([("tokenizer".to_owned(), self.tokenizer(settings)?)]);
        if let Some(job) = self.shown_pretrain(variant, settings, None, seed)? {
            inputs.insert("pretrain".to_owned(), job);
        }
        Ok(inputs)
    }

    fn measure(
        &mut self,
        (variant, seed, what): (&str, u64, &str),
        identity: (&str, u32),
        stage: &impl serde::Serialize,
        inputs: Inputs,
    ) -> Result<()> {
        let label = format!("{what} {variant}, seed {seed}");
        let job = self.add_data(identity, stage, (inputs, Files::new()), label)?;
        self.plan.measurement_runs.push(MeasurementRun {
            variant: variant.to_owned(),
            seed,
            what: identity.0.to_owned(),
            job,
        });
        Ok(())
    }
}
