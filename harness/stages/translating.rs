//! Sentences through a translation model: text to tokens, search, tokens to text.

use anyhow::Result;

use crate::data::tokenizer::{END_OF_SENTENCE, FIRST_WORD, Tokenizer, UNKNOWN};
use crate::model::{Batch, Encoder, Search};
use crate::objectives::translation::between_ends;
use crate::spec::translation::SearchSettings;

/// XLM (evaluator.py, evaluate_mt): a translation has at most int(1.5 * source + 10) tokens.
const LONGEST: (f64, usize) = (1.5, 10);

/// Text of translated tokens: special tokens other than the unknown one say nothing.
pub fn text_of(tokens: &[u32], tokenizer: &Tokenizer) -> String {
    let words: Vec<u32> = tokens
        .iter()
        .copied()
        .filter(|token| *token >= FIRST_WORD || *token == UNKNOWN)
        .collect();
    tokenizer.decode(&words)
}

/// As XLM searches when it evaluates, with a beam of the study's. Differs: XLM's limit is that of a batch's longest source.
fn search(settings: &SearchSettings) -> Search {
    Search {
        beam: settings.beam,
        length_penalty: settings.length_penalty,
        longest: LONGEST,
        end: END_OF_SENTENCE,
    }
}

/// Sources between their ends, cut to what the model can read; how many were cut.
pub fn encode_sources<T: AsRef<str>>(
    lines: &[T],
    language: &str,
    tokenizer: &Tokenizer,
    encoder: &Encoder,
) -> Result<(Vec<Vec<u32>>, usize)> {
    let mut words = tokenizer.encoder(language)?;
    let room = encoder.shape().settings.positions.saturating_sub(2);
    let mut cut = 0;
    let sources = lines
        .iter()
        .map(|line| {
            let mut ids = Vec::new();
            words.encode(line.as_ref(), &mut ids);
            cut += usize::from(ids.len() > room);
            ids.truncate(room);
            between_ends(&ids)
        })
        .collect();
    Ok((sources, cut))
}

/// The best translation of each source, as text.
pub fn translated(
    encoder: &Encoder,
    sources: &Batch,
    into: u32,
    settings: &SearchSettings,
    tokenizer: &Tokenizer,
) -> Result<Vec<String>> {
    let languages = vec![into; sources.sequences()];
    let found = encoder.translate(sources, &languages, &search(settings))?;
    Ok(found
        .into_iter()
        .map(|hypotheses| {
            let best = hypotheses.first();
            best.map(|best| text_of(&best.tokens, tokenizer))
                .unwrap_or_default()
        })
        .collect())
}
