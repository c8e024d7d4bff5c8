//! Made-up results for the tests of reports: predictions drawn with a chosen accuracy, and a manifest around them.

use std::collections::BTreeMap;

use serde_json::Value;
use xlt::random::Random;
use xlt::report::manifest::{
    Evaluation, Languages, Manifest, Paper, Provenance, Scale, Seeds, Variant,
};
use xlt::report::results::Results;
use xlt::report::scores::{Cell, CellPredictions, ItemPrediction};

pub const PREMISES: u32 = 200;

/// Two variants (`random`, `mlm`), source `en`, targets `fr` and `sw`, zero-shot and translate-train, one rule.
pub fn manifest(pretrain_seeds: &[u64]) -> Manifest {
    let variant = |name: &str, label: &str| Variant {
        name: name.to_owned(),
        label: label.to_owned(),
    };
    let evaluation = |regime: &str| Evaluation {
        task: "xnli".to_owned(),
        regime: regime.to_owned(),
        languages: ["en", "fr", "sw"].map(str::to_owned).to_vec(),
    };
    Manifest {
        study: "made_up".to_owned(),
        profile: "quick".to_owned(),
        title: "A made-up study".to_owned(),
        paper: Paper {
            title: "A paper".to_owned(),
            url: "https://example.org".to_owned(),
        },
        scale: Scale::Small,
        settings_fingerprint: "0123".to_owned(),
        settings: BTreeMap::new(),
        variants: vec![variant("random", "random"), variant("mlm", "MLM")],
        languages: Languages {
            source: "en".to_owned(),
            targets: vec!["fr".to_owned(), "sw".to_owned()],
            names: BTreeMap::new(),
        },
        evaluations: vec![evaluation("zero_shot"), evaluation("translate_train")],
        selections: vec!["source_dev".to_owned(), "target_dev".to_owned()],
        seeds: Seeds {
            data: 0,
            pretrain: pretrain_seeds.to_vec(),
            finetune: vec![1],
        },
        sources: Vec::new(),
        data_facts: Value::Null,
        synthetic_deviations: Vec::new(),
        jobs: BTreeMap::new(),
        provenance: Provenance {
            git_commit: None,
            program_version: "0.1.0".to_owned(),
            devices: vec!["cpu".to_owned()],
            instruction_sets: vec!["avx512".to_owned()],
            threads: 1,
            stages: BTreeMap::new(),
        },
        configurations: Vec::new(),
        statuses: Vec::new(),
        baselines: Vec::new(),
        translations: BTreeMap::new(),
        translation_scores: None,
    }
}

/// Every cell of the manifest, right with the probability that `accuracy(variant, regime, language, seed)` gives;
/// `None` leaves the cell out. An item's difficulty is the same in every cell.
pub fn results(
    manifest: Manifest,
    accuracy: impl Fn(&str, &str, &str, u64) -> Option<f64>,
) -> Results {
    let mut predictions = Vec::new();
    for variant in &manifest.variants {
        for evaluation in &manifest.evaluations {
            for language in &evaluation.languages {
                for selection in &manifest.selections {
                    for &seed in &manifest.seeds.pretrain {
                        let cell = Cell {
                            variant: variant.name.clone(),
                            pretrain_seed: seed,
                            finetune_seed: 1,
                            task: evaluation.task.clone(),
                            regime: evaluation.regime.clone(),
                            language: language.clone(),
                            selection: selection.clone(),
                        };
                        if let Some(accuracy) =
                            accuracy(&variant.name, &evaluation.regime, language, seed)
                        {
                            let purpose =
                                format!("{}/{}/{language}", variant.name, evaluation.regime);
                            predictions.push(CellPredictions {
                                cell,
                                items: items(accuracy, seed, &purpose),
                            });
                        }
                    }
                }
            }
        }
    }
    Results::new(manifest, predictions, Vec::new(), Vec::new(), Vec::new())
}

/// Three items per premise, one of each class.
pub fn items(accuracy: f64, seed: u64, purpose: &str) -> Vec<ItemPrediction> {
    let mut noise = Random::new(seed, purpose, 0);
    let mut difficulty = Random::new(0, "difficulty", 0);
    (0..3 * PREMISES)
        .map(|item| {
            let gold = (item % 3) as u8;
            let luck = 0.7 * difficulty.uniform() + 0.3 * noise.uniform();
            // The luck is not uniform; its distribution is close enough for results that are made up.
            let predicted = if luck < accuracy {
                gold
            } else {
                (gold + 1 + (noise.next_u32() % 2) as u8) % 3
            };
            ItemPrediction {
                premise: item / 3,
                item,
                predicted,
                gold,
            }
        })
        .collect()
}
