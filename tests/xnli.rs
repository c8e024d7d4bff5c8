//! Fine-tuning as a study asks for it: every regime, several configurations, every rule that selects, mixed pairs.

use std::collections::{BTreeMap, BTreeSet};

use xlt::report::manifest::Manifest;
use xlt::report::results::Results;

use crate::command_line::{Place, TINY};

/// The tiny study with a third language, two learning rates, three rules, four regimes of which two leave a language out.
fn study() -> String {
    TINY.replace("targets: [bb]", "targets: [bb, cc]")
        .replace(
            "  synthetic:\n",
            "  synthetic:\n    languages: {aa: {}, bb: {}, cc: {order: sov}}\n",
        )
        .replace(
            "  regimes: [zero_shot]\n",
            "  regimes: [zero_shot, translate_train, translate_train_all, translate_test]\n  \
               regime_languages: {translate_train: [bb], translate_test: [cc]}\n  mixed_pairs: true\n",
        )
        .replace("encoder_learning_rate: [2.0e-3]", "encoder_learning_rate: [2.0e-3, 5.0e-3]")
        .replace("select_on: [source_dev]", "select_on: [source_dev, mean_dev, target_dev]")
}

fn read(place: &Place) -> (Manifest, Results) {
    let results = Results::read(&place.results()).unwrap();
    (results.manifest.clone(), results)
}

#[test]
fn every_regime_rule_and_mixed_pair_is_predicted_by_what_its_dev_set_chose() {
    let place = Place::new(&study());
    place.xlt(&["run", "tiny.yaml", "--jobs", "2"]).ends(0);
    let (manifest, results) = read(&place);

    let mut cells: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let mut predicted = BTreeMap::new();
    for prediction in &results.predictions {
        let cell = &prediction.cell;
        cells
            .entry((cell.task.clone(), cell.regime.clone()))
            .or_default()
            .insert(cell.language.clone());
        let key = (
            cell.variant.as_str(),
            cell.task.as_str(),
            cell.regime.as_str(),
            cell.language.as_str(),
            cell.selection.as_str(),
        );
        predicted.insert(key, &prediction.items);
    }
    let languages = |task: &str, regime: &str| {
        let key = (task.to_owned(), regime.to_owned());
        let found = cells.get(&key).cloned().unwrap_or_default();
        found.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(languages("xnli", "zero_shot"), "aa bb cc");
    assert_eq!(languages("xnli", "translate_train"), "aa bb");
    assert_eq!(languages("xnli", "translate_train_all"), "aa bb cc");
    assert_eq!(languages("xnli", "translate_test"), "aa cc");
    assert_eq!(
        languages("xnli_mixed", "zero_shot"),
        "aa+bb aa+cc bb+aa bb+cc cc+aa cc+bb"
    );

    let of =
        |task, regime, language, selection| predicted[&("mlm", task, regime, language, selection)];
    for rule in ["source_dev", "mean_dev", "target_dev"] {
        // Translations of generated languages are exact: a translated test set is the source language's.
        let source = of("xnli", "zero_shot", "aa", rule);
        assert_eq!(of("xnli", "translate_test", "aa", rule), source);
        if rule == "source_dev" {
            assert_eq!(of("xnli", "translate_test", "cc", rule), source);
        }
        // Training in another language is another model; training in all is a third.
        assert_ne!(
            of("xnli", "translate_train", "bb", rule),
            of("xnli", "zero_shot", "bb", rule)
        );
        assert_ne!(
            of("xnli", "translate_train_all", "bb", rule),
            of("xnli", "zero_shot", "bb", rule)
        );
        let mixed = of("xnli_mixed", "zero_shot", "aa+bb", rule);
        let gold: Vec<u8> = mixed.iter().map(|item| item.gold).collect();
        let plain: Vec<u8> = source.iter().map(|item| item.gold).collect();
        assert_eq!(gold, plain, "a pair keeps its label in any language");
    }

    // Both learning rates are reported for each training set of each variant: aa, bb, and all.
    assert_eq!(manifest.configurations.len(), 2 * 3 * 2);
    let page = std::fs::read_to_string(place.results().join("report.html")).unwrap();
    for rate in ["2e-3", "5e-3"] {
        assert!(page.contains(rate), "{rate}");
    }
    place.xlt(&["report", "tiny.yaml", "--check"]).ends(0);
}

#[test]
fn a_limit_of_training_pairs_is_that_of_every_training_set() {
    let limited = study().replace(
        "  monolingual_validation: 20\n",
        "  monolingual_validation: 20\n  nli: {train_limit: 31}\n",
    );
    let place = Place::new(&limited);
    place.xlt(&["run", "tiny.yaml", "--jobs", "2"]).ends(0);
    let facts = read(&place).0.data_facts;
    let trained: Vec<&str> = facts
        .as_object()
        .unwrap()
        .keys()
        .filter(|name| name.starts_with("nli ") && name.contains("train"))
        .map(String::as_str)
        .collect();
    assert!(trained.len() > 1, "{trained:?}");
    for name in trained {
        assert_eq!(facts[name]["examples"], 30, "{name}");
    }
    assert_eq!(facts["nli test aa"]["examples"], 120);
    place.write(&limited.replace("train_limit: 31", "train_limit: 0"));
    let told = place.xlt(&["plan", "tiny.yaml"]).ends(2).err;
    assert!(told.contains("a limit of 0 leaves no text"), "{told}");
}
