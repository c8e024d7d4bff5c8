//! Synthetic languages: what a study relies on when it takes labels, translations and splits for granted.

use std::collections::{BTreeMap, BTreeSet};

use xlt::data::nli::{Label, NliExample};
use xlt::data::synthetic::{
    FamilySettings, Generated, LanguageSettings, Morphology, Script, Side, SplitSizes, WordOrder,
    generate, write,
};
use xlt::tasks::baselines;

/// The default family with less text.
fn small() -> FamilySettings {
    FamilySettings {
        monolingual_words: 20_000,
        parallel: SplitSizes {
            train: 500,
            dev: 100,
            test: 100,
        },
        nli: SplitSizes {
            train: 900,
            dev: 150,
            test: 300,
        },
        annotated: SplitSizes {
            train: 100,
            dev: 50,
            test: 50,
        },
        ..FamilySettings::default()
    }
}

/// Monolingual text only.
fn text_only() -> FamilySettings {
    let none = SplitSizes {
        train: 0,
        dev: 0,
        test: 0,
    };
    FamilySettings {
        parallel: none,
        nli: none,
        annotated: none,
        ..small()
    }
}

/// Languages that differ in everything, where shared words in other orders could say held-out sentences by chance.
fn varied() -> FamilySettings {
    let mut family = FamilySettings {
        quantifiers: 0.3,
        negation: 0.3,
        anchors: 0.9,
        ..small()
    };
    family.languages.insert(
        "aa".into(),
        LanguageSettings {
            order: WordOrder::Vso,
            ..LanguageSettings::default()
        },
    );
    family.languages.insert(
        "cc".into(),
        LanguageSettings {
            anchors: Some(0.1),
            shared_function_words: Some(false),
            script: Script::Hangul,
            order: WordOrder::Sov,
            adjective: Side::After,
            adposition: Side::After,
            morphology: Morphology {
                case: true,
                agreement: true,
                suffix_syllables: 2,
            },
            domain: 0.5,
            monolingual_words: Some(10_000),
        },
    );
    family.languages.insert(
        "dd".into(),
        LanguageSettings {
            order: WordOrder::Vso,
            adjective: Side::After,
            anchors: Some(1.0),
            ..LanguageSettings::default()
        },
    );
    family
}

fn text(documents: &[Vec<String>]) -> impl Iterator<Item = &str> {
    documents.iter().flatten().map(String::as_str)
}

fn accuracy(predicted: &[Label], examples: &[NliExample]) -> f64 {
    assert_eq!(predicted.len(), examples.len());
    let correct = predicted
        .iter()
        .zip(examples)
        .filter(|(label, example)| **label == example.label);
    correct.count() as f64 / examples.len() as f64
}

#[test]
fn the_same_seed_gives_the_same_family_and_another_seed_another() {
    let family = varied();
    let first = generate(&family, "aa", 100).unwrap();
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    assert!(first == threads.install(|| generate(&family, "aa", 100)).unwrap());
    assert!(first.nli != generate(&family, "aa", 101).unwrap().nli);
}

/// Changed on purpose only: results of synthetic studies change with it.
#[test]
fn the_default_family_says_what_it_said() {
    let generated = generate(&small(), "aa", 0).unwrap();
    let first = &generated.nli.test["aa"][0];
    let lines = [
        generated.monolingual["aa"][0][0].as_str(),
        generated.monolingual["bb"][0][0].as_str(),
        &first.premise,
        &first.hypothesis,
    ];
    assert_eq!(lines, GOLDEN);
}

const GOLDEN: [&str; 4] = [
    "bako nomu pobi fi kuso",
    "bahu rihe habi sonu gati",
    "nobe zale megi fepo posa fi goma",
    "nobe piza megi fepo piza fi goma",
];

#[test]
fn a_new_language_or_a_larger_corpus_leaves_other_text_as_it_was() {
    let before = generate(&small(), "aa", 100).unwrap();
    let mut family = small();
    family
        .languages
        .insert("zz".into(), LanguageSettings::default());
    family.monolingual_words *= 2;
    let after = generate(&family, "aa", 100).unwrap();
    for code in ["aa", "bb"] {
        let documents = &before.monolingual[code];
        assert_eq!(documents[..], after.monolingual[code][..documents.len()]);
        assert_eq!(before.nli.train[code], after.nli.train[code]);
        assert_eq!(before.nli.test[code], after.nli.test[code]);
    }
}

#[test]
fn each_hypothesis_has_three_premises_one_per_label() {
    let generated = generate(&varied(), "aa", 100).unwrap();
    for (_, languages) in generated.nli.iter() {
        for examples in languages.values() {
            assert!(!examples.is_empty());
            for (triple, rows) in examples.chunks(3).enumerate() {
                let labels: BTreeSet<Label> = rows.iter().map(|row| row.label).collect();
                assert_eq!(labels.len(), 3);
                for row in rows {
                    assert_eq!(row.hypothesis, rows[0].hypothesis);
                    assert_eq!(row.premise_id, triple as u32);
                    assert_eq!(
                        row.premise.split(' ').count(),
                        rows[0].premise.split(' ').count()
                    );
                }
            }
            let items: Vec<u32> = examples.iter().map(|row| row.item).collect();
            assert_eq!(items, (0..examples.len() as u32).collect::<Vec<_>>());
        }
    }
}

#[test]
fn rows_are_the_same_pair_in_every_language() {
    let generated = generate(&varied(), "aa", 100).unwrap();
    for (_, languages) in generated.nli.iter() {
        let meaning = |code: &str| {
            let rows = languages[code].iter();
            rows.map(|row| (row.label, row.premise_id, row.item))
                .collect::<Vec<_>>()
        };
        assert_eq!(meaning("aa"), meaning("bb"));
        assert_eq!(meaning("aa"), meaning("cc"));
        // Two sentences are equal in one language exactly when they are in another.
        for code in ["bb", "cc", "dd"] {
            let mut translation = BTreeMap::new();
            let mut back = BTreeMap::new();
            for (one, two) in languages["aa"].iter().zip(&languages[code]) {
                for (one, two) in [
                    (&one.premise, &two.premise),
                    (&one.hypothesis, &two.hypothesis),
                ] {
                    assert_eq!(translation.entry(one).or_insert(two), &two);
                    assert_eq!(back.entry(two).or_insert(one), &one);
                }
            }
        }
    }
}

/// Every dev and test sentence, in every language, against all text to learn from.
fn assert_no_leak(generated: &Generated) {
    let mut held_out = BTreeSet::new();
    for languages in [&generated.nli.dev, &generated.nli.test] {
        for row in languages.values().flatten() {
            held_out.extend([row.premise.clone(), row.hypothesis.clone()]);
        }
    }
    for splits in generated.parallel.values() {
        for (one, two) in splits.dev.iter().chain(&splits.test) {
            held_out.extend([one.clone(), two.clone()]);
        }
    }
    for languages in [&generated.annotated.dev, &generated.annotated.test] {
        held_out.extend(
            languages
                .values()
                .flatten()
                .map(|sentence| sentence.words.join(" ")),
        );
    }
    assert!(held_out.len() > 1_000);
    let none =
        |sentence: &str, place: &str| assert!(!held_out.contains(sentence), "{place}: {sentence}");
    for documents in generated.monolingual.values() {
        text(documents).for_each(|sentence| none(sentence, "monolingual"));
    }
    for (one, two) in generated.parallel.values().flat_map(|splits| &splits.train) {
        none(one, "parallel");
        none(two, "parallel");
    }
    for row in generated.nli.train.values().flatten() {
        none(&row.premise, "nli");
        none(&row.hypothesis, "nli");
    }
    for sentence in generated.annotated.train.values().flatten() {
        none(&sentence.words.join(" "), "annotated");
    }
}

#[test]
fn held_out_sentences_never_stand_in_training_text() {
    assert_no_leak(&generate(&small(), "aa", 100).unwrap());
    assert_no_leak(&generate(&varied(), "aa", 101).unwrap());
}

#[test]
fn dev_and_test_share_no_sentence() {
    let generated = generate(&small(), "aa", 100).unwrap();
    let sentences = |rows: &[NliExample]| -> BTreeSet<String> {
        rows.iter()
            .flat_map(|row| [row.premise.clone(), row.hypothesis.clone()])
            .collect()
    };
    let (dev, test) = (
        sentences(&generated.nli.dev["aa"]),
        sentences(&generated.nli.test["aa"]),
    );
    assert!(dev.is_disjoint(&test));
}

/// With 1,998 pairs of which three share a hypothesis, four points are more than three standard errors.
#[test]
fn words_alone_do_not_tell_the_labels_of_the_default_family() {
    let nli = FamilySettings::default().nli;
    let family = FamilySettings { nli, ..text_only() };
    let generated = generate(&family, "aa", 100).unwrap();
    for code in ["aa", "bb"] {
        let (train, test) = (&generated.nli.train[code], &generated.nli.test[code]);
        assert_eq!((train.len(), test.len()), (8_001, 1_998));
        let third = |name: &str, predicted: Vec<Label>| {
            let accuracy = accuracy(&predicted, test);
            assert!((accuracy - 1.0 / 3.0).abs() < 1e-9, "{name} {accuracy}");
        };
        third("majority", baselines::majority(train, test));
        third("overlap", baselines::overlap(train, test));
        third("hypothesis only", baselines::hypothesis_only(train, test));
        let bag = accuracy(&baselines::bag_of_words(train, test), test);
        assert!((0.30..0.50).contains(&bag), "bag of words {bag}");
    }
}

#[test]
fn anchors_measured_are_anchors_asked() {
    for asked in [0.0, 0.15, 0.4, 1.0] {
        let generated = generate(
            &FamilySettings {
                anchors: asked,
                ..text_only()
            },
            "aa",
            100,
        )
        .unwrap();
        // 69 content words: within half a word.
        assert!((generated.facts["anchors/bb"] - asked).abs() <= 0.5 / 69.0 + 1e-9);
        let pairs = &generated.dictionary[&("aa".to_owned(), "bb".to_owned())];
        let same = pairs.iter().filter(|(one, two)| one == two).count();
        assert_eq!(same as f64 / 69.0, generated.facts["anchors/bb"]);
    }
    let nothing = FamilySettings {
        anchors: 0.0,
        shared_function_words: false,
        ..text_only()
    };
    let generated = generate(&nothing, "aa", 100).unwrap();
    assert_eq!(generated.facts["shared_distinct_words/bb"], 0.0);
    assert_eq!(generated.facts["shared_running_words/bb"], 0.0);
}

#[test]
fn heads_form_a_tree_and_entities_are_well_formed() {
    let generated = generate(&varied(), "aa", 100).unwrap();
    let mut inside = 0;
    for sentence in generated.annotated.train.values().flatten() {
        let words = sentence.words.len();
        for column in [
            sentence.tags.len(),
            sentence.entities.len(),
            sentence.heads.len(),
            sentence.relations.len(),
        ] {
            assert_eq!(column, words);
        }
        assert_eq!(sentence.heads.iter().filter(|head| **head == 0).count(), 1);
        for mut word in 1..=words {
            let mut steps = 0;
            while sentence.heads[word - 1] != 0 {
                word = sentence.heads[word - 1];
                steps += 1;
                assert!(steps < words, "a cycle: {sentence:?}");
            }
            assert_eq!(sentence.relations[word - 1], "root");
            assert_eq!(sentence.tags[word - 1], "VERB");
        }
        for (previous, entity) in ["O"]
            .iter()
            .chain(&sentence.entities)
            .zip(&sentence.entities)
        {
            if let Some(kind) = entity.strip_prefix("I-") {
                inside += 1;
                assert_eq!(
                    previous.split_once('-').map(|(_, kind)| kind),
                    Some(kind),
                    "{sentence:?}"
                );
            }
        }
    }
    assert!(inside > 20);
    // The same tree in every language: relations differ in order only.
    let annotated = &generated.annotated.test;
    for (one, two) in annotated["aa"].iter().zip(&annotated["cc"]) {
        let sorted = |relations: &[&'static str]| {
            let mut relations = relations.to_vec();
            relations.sort_unstable();
            relations
        };
        assert_eq!(sorted(&one.relations), sorted(&two.relations));
    }
}

#[test]
fn a_domain_of_its_own_changes_what_a_language_speaks_of() {
    let mut family = FamilySettings {
        anchors: 1.0,
        ..text_only()
    };
    // Words are shared, so that counts can be compared between languages.
    let distance = |family: &FamilySettings| {
        let generated = generate(family, "aa", 100).unwrap();
        let counts = |code: &str| {
            let mut counts: BTreeMap<String, f64> = BTreeMap::new();
            let words: Vec<&str> = text(&generated.monolingual[code])
                .flat_map(|sentence| sentence.split(' '))
                .collect();
            for word in &words {
                *counts.entry((*word).to_owned()).or_default() += 1.0 / words.len() as f64;
            }
            counts
        };
        let (one, two) = (counts("aa"), counts("bb"));
        one.iter()
            .map(|(word, share)| (share - two.get(word).unwrap_or(&0.0)).abs())
            .sum::<f64>()
    };
    let same = distance(&family);
    family.languages.get_mut("bb").unwrap().domain = 1.0;
    assert!(distance(&family) > 2.0 * same);
}

#[test]
fn texts_are_as_long_as_asked() {
    let generated = generate(&varied(), "aa", 100).unwrap();
    for (code, asked) in [("aa", 20_000), ("bb", 20_000), ("cc", 10_000)] {
        let words = text(&generated.monolingual[code])
            .map(|sentence| sentence.split(' ').count())
            .sum::<usize>();
        assert!((asked..asked + 40).contains(&words), "{code} {words}");
        assert_eq!(
            generated.facts[&format!("monolingual/{code}/words")],
            words as f64
        );
    }
    let pair = &generated.parallel[&("aa".to_owned(), "cc".to_owned())];
    assert_eq!(
        (pair.train.len(), pair.dev.len(), pair.test.len()),
        (500, 100, 100)
    );
}

#[test]
fn a_world_too_small_for_its_test_set_is_an_error() {
    let mut family = small();
    family.world.verbs = 3;
    family.world.categories = 2;
    family.world.nouns_per_category = 2;
    family.world.adjective_dimensions = 1;
    family.world.adjectives_per_dimension = 2;
    family.world.places = 2;
    family.nli.test = 6_000;
    let message = generate(&family, "aa", 100).unwrap_err().to_string();
    assert!(message.contains("synthetic.world"), "{message}");
}

#[test]
fn files_hold_what_was_generated() {
    let generated = generate(&varied(), "bb", 100).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(&generated, folder.path()).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();

    let documents: Vec<Vec<String>> = read("monolingual/cc.txt")
        .split("\n\n")
        .map(|document| document.lines().map(str::to_owned).collect())
        .collect();
    assert_eq!(documents, generated.monolingual["cc"]);
    let pairs = &generated.parallel[&("bb".to_owned(), "aa".to_owned())];
    assert!(
        read("parallel/aa-bb.bb")
            .lines()
            .eq(pairs.train.iter().map(|pair| &pair.0))
    );
    assert!(
        read("parallel/aa-bb.aa")
            .lines()
            .eq(pairs.train.iter().map(|pair| &pair.1))
    );
    assert!(
        read("parallel/test/aa-bb.aa")
            .lines()
            .eq(pairs.test.iter().map(|pair| &pair.1))
    );
    let table = read("nli/dev.bb.tsv");
    let mut rows = table.lines();
    assert_eq!(rows.next(), Some("premise\thypothesis\tlabel\tpremise_id"));
    for (row, example) in rows.zip(&generated.nli.dev["bb"]) {
        let columns: Vec<&str> = row.split('\t').collect();
        let id = example.premise_id.to_string();
        assert_eq!(
            columns,
            [
                &*example.premise,
                &*example.hypothesis,
                example.label.name(),
                &*id
            ]
        );
    }
    let trees = read("annotated/test.cc.conllu");
    assert_eq!(
        trees.matches("\n\n").count(),
        generated.annotated.test["cc"].len()
    );
    let dictionary = read("dictionary/aa-bb.txt");
    assert_eq!(dictionary.lines().count(), 69);
    let (bb, aa) = &generated.dictionary[&("bb".to_owned(), "aa".to_owned())][0];
    assert_eq!(
        dictionary.lines().next(),
        Some(format!("{aa} {bb}").as_str())
    );
}
