//! What a generated family is like, measured on the text and not computed from the settings.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Drawn, Generated, Generator, inference};

/// Counts, and shares from 0 to 1, by name.
pub(super) fn measure(
    generator: &Generator,
    source: &str,
    drawn: &Drawn,
    generated: &Generated,
) -> BTreeMap<String, f64> {
    let mut facts = BTreeMap::new();
    let mut set = |name: String, value: f64| {
        facts.insert(name, value);
    };

    // Running words by form.
    let mut counts: BTreeMap<&str, HashMap<&str, usize>> = BTreeMap::new();
    for (code, documents) in &generated.monolingual {
        let forms = counts.entry(code).or_default();
        for word in documents
            .iter()
            .flatten()
            .flat_map(|sentence| sentence.split(' '))
        {
            *forms.entry(word).or_default() += 1;
        }
        set(
            format!("monolingual/{code}/documents"),
            documents.len() as f64,
        );
        set(
            format!("monolingual/{code}/sentences"),
            documents.iter().flatten().count() as f64,
        );
        set(
            format!("monolingual/{code}/words"),
            forms.values().sum::<usize>() as f64,
        );
        set(
            format!("monolingual/{code}/distinct_words"),
            forms.len() as f64,
        );
    }
    let reference = &counts[source];
    let content: Vec<usize> = (generator.family.world.concepts().iter().enumerate())
        .filter_map(|(index, concept)| concept.is_content().then_some(index))
        .collect();
    for (code, forms) in counts.iter().filter(|(code, _)| **code != source) {
        let (one, two) = (
            &generator.languages[source].stems,
            &generator.languages[*code].stems,
        );
        let anchors = content
            .iter()
            .filter(|&&index| one[index] == two[index])
            .count();
        set(
            format!("anchors/{code}"),
            anchors as f64 / content.len() as f64,
        );
        let shared = || {
            forms
                .iter()
                .filter(|(form, _)| reference.contains_key(*form))
        };
        let union = forms.len() + reference.len() - shared().count();
        set(
            format!("shared_distinct_words/{code}"),
            shared().count() as f64 / union as f64,
        );
        let running = shared().map(|(_, count)| count).sum::<usize>() as f64;
        let all = forms.values().sum::<usize>() as f64;
        set(format!("shared_running_words/{code}"), running / all);
    }

    let seen: HashSet<_> = drawn
        .nli
        .train
        .iter()
        .flat_map(inference::exchanged_words)
        .collect();
    for (split, pairs) in drawn.nli.iter() {
        set(format!("nli/{split}/pairs"), pairs.len() as f64);
        let general = pairs
            .iter()
            .filter(|pair| pair.premise.quantifier.is_some());
        set(
            format!("nli/{split}/pairs_with_quantifiers"),
            general.count() as f64,
        );
        let negated = pairs
            .iter()
            .filter(|pair| pair.premise.negated || pair.hypothesis.negated);
        set(
            format!("nli/{split}/pairs_with_negation"),
            negated.count() as f64,
        );
        let unseen = pairs.iter().filter(|pair| {
            inference::exchanged_words(pair)
                .iter()
                .any(|words| !seen.contains(words))
        });
        if split != "train" {
            set(
                format!("nli/{split}/pairs_with_unseen_exchanged_words"),
                unseen.count() as f64,
            );
        }
    }

    let is_held_out = |sentence: &str| generator.held_out.contains(sentence);
    let annotated = generated.annotated.train.values().flatten();
    let leaked = (generated.monolingual.values().flatten().flatten())
        .chain(
            (generated.parallel.values().flat_map(|splits| &splits.train))
                .flat_map(|(one, two)| [one, two]),
        )
        .chain(
            (generated.nli.train.values().flatten())
                .flat_map(|example| [&example.premise, &example.hypothesis]),
        )
        .filter(|sentence| is_held_out(sentence))
        .count()
        + annotated
            .filter(|sentence| is_held_out(&sentence.words.join(" ")))
            .count();
    set(
        "held_out_sentences_in_training_text".to_owned(),
        leaked as f64,
    );
    set(
        "held_out_sentences".to_owned(),
        generator.held_out.len() as f64,
    );
    facts
}
