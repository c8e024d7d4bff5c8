//! Learning a tokenizer: languages weighed, rare characters left out, merges learnt by the `tokenizers` crate.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokenizers::models::bpe::{BPE, BpeTrainer};

use super::vocabulary::StoredVocabulary;
use super::words::{LanguageCounts, WordCounts};
use super::{FIRST_WORD, Sharing, Tokenizer, TokenizerSettings};

/// Running words that BPE learns from at most, over all languages. Ours: more change few merges, and the crate counts
/// pairs in 31 bits.
const TRAINING_WORDS: f64 = 2e7;
/// Occurrences below which a pair is not merged (the default of subword-nmt).
const LEAST_OCCURRENCES: u64 = 2;

/// What one vocabulary is learnt from.
struct Group {
    /// "en, ko"
    of: String,
    /// Entries to learn, specials not counted.
    size: usize,
    words: WordCounts,
    alphabet: BTreeSet<char>,
}

/// Learns a tokenizer. `languages` are in the order of the study; all have text.
///
/// # Errors
/// When the vocabulary is smaller than the alphabet, with the size that is needed; when a language has no text.
pub fn train(
    settings: &TokenizerSettings,
    languages: &[(String, LanguageCounts)],
) -> Result<Tokenizer> {
    ensure!(
        !languages.is_empty(),
        "a tokenizer needs at least one language"
    );
    for (language, counts) in languages {
        ensure!(
            !counts.words.is_empty(),
            "language `{language}` has no text to learn a vocabulary from; check data.monolingual"
        );
    }
    let groups = groups(settings, languages);
    for group in &groups {
        let (alphabet, size) = (group.alphabet.len(), group.size);
        ensure!(
            alphabet <= size,
            "the alphabet of {} has {alphabet} characters (at a coverage of {}), but the vocabulary has room for {size}; raise tokenizer.bpe.vocabulary to {} or more, or lower tokenizer.character_coverage",
            group.of,
            settings.character_coverage,
            settings.bpe.vocabulary + groups.len() * (alphabet - size),
        );
    }
    let mut vocabularies = Vec::new();
    let mut first = FIRST_WORD;
    for group in &groups {
        let vocabulary = learn(group, first)
            .with_context(|| format!("cannot learn a vocabulary for {}", group.of))?;
        first += vocabulary.entries.len() as u32;
        vocabularies.push(vocabulary);
    }
    let names = languages
        .iter()
        .map(|(language, _)| language.clone())
        .collect();
    Tokenizer::learnt(
        names,
        settings,
        vocabularies,
        groups.iter().map(|group| &group.words),
    )
}

fn groups(settings: &TokenizerSettings, languages: &[(String, LanguageCounts)]) -> Vec<Group> {
    let room = settings.bpe.vocabulary.saturating_sub(FIRST_WORD as usize);
    let each: Vec<Group> = languages
        .iter()
        .zip(weigh(settings.sampling_exponent, languages))
        .enumerate()
        .map(|(index, ((language, counts), words))| Group {
            of: language.clone(),
            size: room / languages.len() + usize::from(index < room % languages.len()),
            words,
            alphabet: alphabet(&counts.words, settings.character_coverage),
        })
        .collect();
    match settings.sharing {
        Sharing::Separate => each,
        Sharing::Shared => {
            let mut all = Group {
                of: String::new(),
                size: room,
                words: WordCounts::new(),
                alphabet: BTreeSet::new(),
            };
            let names: Vec<&str> = each.iter().map(|group| group.of.as_str()).collect();
            all.of = names.join(", ");
            for group in each {
                all.alphabet.extend(group.alphabet);
                for (word, count) in group.words {
                    *all.words.entry(word).or_default() += count;
                }
            }
            vec![all]
        }
    }
}

/// Word counts as if sentences had been drawn with q_i = p_i^a / sum_j p_j^a (Lample & Conneau 2019, section 3.1), in
/// expectation.
/// Differs: counts are weighted where XLM draws sentences, which gives the same text on average and no sampling noise.
fn weigh(exponent: f64, languages: &[(String, LanguageCounts)]) -> Vec<WordCounts> {
    let total: f64 = languages
        .iter()
        .map(|(_, counts)| counts.sentences as f64)
        .sum();
    let shares: Vec<f64> = languages
        .iter()
        .map(|(_, counts)| counts.sentences as f64 / total)
        .collect();
    let norm: f64 = shares.iter().map(|share| share.powf(exponent)).sum();
    let factors: Vec<f64> = shares
        .iter()
        .map(|share| share.powf(exponent) / norm / share)
        .collect();
    let running: f64 = languages
        .iter()
        .zip(&factors)
        .map(|((_, counts), factor)| factor * counts.words.values().sum::<u64>() as f64)
        .sum();
    let scale = (TRAINING_WORDS / running).min(1.0);
    languages
        .iter()
        .zip(&factors)
        .map(|((_, counts), factor)| {
            let weighted = counts.words.iter().map(|(word, count)| {
                (
                    word.clone(),
                    (*count as f64 * factor * scale).round() as u64,
                )
            });
            weighted.filter(|(_, count)| *count > 0).collect()
        })
        .collect()
}

/// The most frequent characters of a language that cover a share of its running characters; ties by code point.
fn alphabet(words: &WordCounts, coverage: f64) -> BTreeSet<char> {
    let mut characters = BTreeMap::<char, u64>::new();
    for (word, count) in words {
        for character in word.chars() {
            *characters.entry(character).or_default() += count;
        }
    }
    let wanted = coverage * characters.values().sum::<u64>() as f64;
    let mut sorted: Vec<(char, u64)> = characters.into_iter().collect();
    sorted.sort_by_key(|(character, count)| (std::cmp::Reverse(*count), *character));
    let mut covered = 0u64;
    let mut kept = BTreeSet::new();
    for (character, count) in sorted {
        if covered as f64 >= wanted {
            break;
        }
        covered += count;
        kept.insert(character);
    }
    kept
}

fn learn(group: &Group, first: u32) -> Result<StoredVocabulary> {
    // A character outside the alphabet cuts its word in two, so that no entry spans it.
    let mut pieces = BTreeMap::<&str, u64>::new();
    for (word, count) in &group.words {
        for piece in word
            .split(|character| !group.alphabet.contains(&character))
            .filter(|piece| !piece.is_empty())
        {
            *pieces.entry(piece).or_default() += count;
        }
    }
    let trainer = BpeTrainer::builder()
        .vocab_size(group.size)
        .min_frequency(LEAST_OCCURRENCES)
        .initial_alphabet(group.alphabet.iter().copied().collect())
        .show_progress(false)
        .build();
    let mut model = BPE::default();
    let counts = pieces
        .into_iter()
        .map(|(piece, count)| (piece.into(), count))
        .collect();
    trainer
        .do_train(&counts, &mut model)
        .map_err(|error| anyhow!("{error}"))?;

    let ids = model.get_vocab();
    let mut entries = vec![String::new(); ids.len()];
    for (entry, id) in &ids {
        entries[*id as usize].clone_from(entry);
    }
    // The crate keeps merges in a map; its JSON lists them by rank.
    let json = serde_json::to_value(&model).context("the vocabulary cannot be written")?;
    let mut merges = Vec::new();
    for merge in json["merges"]
        .as_array()
        .context("the vocabulary has no merges")?
    {
        let id = |side: usize| {
            merge
                .get(side)
                .and_then(|entry| ids.get(entry.as_str()?))
                .map(|id| id + first)
        };
        match (id(0), id(1)) {
            (Some(left), Some(right)) => merges.push((left, right)),
            _ => bail!("the vocabulary has a merge of unknown entries"),
        }
    }
    Ok(StoredVocabulary {
        first,
        entries,
        merges,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(words: &[(&str, u64)], sentences: u64) -> LanguageCounts {
        LanguageCounts {
            words: words
                .iter()
                .map(|(word, count)| (word.to_string(), *count))
                .collect(),
            sentences,
        }
    }

    #[test]
    fn weighing_gives_the_shares_of_sampled_sentences() {
        let languages = [
            ("a".to_owned(), counts(&[("▁x", 900_000)], 90_000)),
            ("b".to_owned(), counts(&[("▁y", 100_000)], 10_000)),
        ];
        for (exponent, share) in [(1.0, 0.9), (0.0, 0.5), (0.5, 0.75)] {
            let weighed = weigh(exponent, &languages);
            let (x, y) = (weighed[0]["▁x"] as f64, weighed[1]["▁y"] as f64);
            assert!((x / (x + y) - share).abs() < 1e-5, "{exponent}: {x} {y}");
            assert!((x + y - 1e6).abs() < 2.0);
        }
    }

    #[test]
    fn the_alphabet_leaves_out_what_is_rarest() {
        let words = counts(&[("aaab", 100), ("c", 100), ("z", 1)], 1).words;
        assert_eq!(alphabet(&words, 0.99), ['a', 'b', 'c'].into());
        assert_eq!(alphabet(&words, 0.7), ['a', 'b'].into());
        assert_eq!(alphabet(&words, 1.0), ['a', 'b', 'c', 'z'].into());
    }
}
