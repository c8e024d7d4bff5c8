//! Who translated training and test sets of inference, in words; of the study's own model with what it scores.

use std::collections::BTreeMap;

use anyhow::Result;

use super::collect::diverged_detail;
use crate::metrics::bleu::{self, BleuCounts};
use crate::plan::{OwnTranslator, Plan, Translator};
use crate::stages::metrics::{self, Metrics};
use crate::stages::translate;
use crate::store::Store;

/// By what was translated: `test set, ko -> en`.
pub(super) fn in_words(plan: &Plan, store: &Store) -> Result<BTreeMap<String, String>> {
    let described = plan.translations.iter().map(|(what, translator)| {
        let words = match translator {
            Translator::Other(words) => words.clone(),
            Translator::Own(own) => own_translator(own, store)?,
        };
        Ok((what.clone(), words))
    });
    described.collect()
}

fn own_translator(own: &OwnTranslator, store: &Store) -> Result<String> {
    let search = own.search;
    let mut words = format!(
        "a model of this study, built on `{}` ({}, {}, length penalty {})",
        own.variant,
        own.training.short(),
        search.name().replace('_', " "),
        search.length_penalty
    );
    let Some(training) = store.find(&own.training)? else {
        words.push_str(", which is not trained yet");
        return Ok(words);
    };
    if training.record.diverged() {
        words.push_str(&format!(", which diverged: {}", diverged_detail(&training)));
        return Ok(words);
    }
    let direction = own.direction.to_string();
    let update = training.record.facts["best_update"].as_u64();
    let held_out = &training.record.facts["validation_pairs"][&direction];
    for line in metrics::read_metrics(&training.folder)? {
        if let Metrics::Translation {
            update: of_update,
            of,
            bleu,
            ..
        } = line
            && Some(of_update) == update
            && of == direction
        {
            words.push_str(&format!(
                ": BLEU {bleu:.1} on the {held_out} held-out pairs that chose it"
            ));
        }
    }
    if let Some(evaluation) = &own.evaluation
        && let Some(evaluation) = store.find(evaluation)?
    {
        for result in translate::read_results(&evaluation.folder)? {
            if result.direction == own.direction {
                let mut counts = BleuCounts::default();
                for sentence in &result.sentences {
                    counts.add(&sentence.bleu);
                }
                words.push_str(&format!(
                    "; {:.1} on {} test pairs ({})",
                    counts.bleu(own.bleu.smoothing),
                    result.sentences.len(),
                    match result.search == translate::COPY {
                        true => "copying the source",
                        false => "translated",
                    }
                ));
            }
        }
    }
    let signature = bleu::signature(own.bleu.tokenization, own.bleu.smoothing, false);
    words.push_str(&format!(" ({signature})"));
    Ok(words)
}
