//! Made-up results of any size, the same in every process: what plots, pages and notebooks are tested on.

use serde_json::json;
use std::collections::BTreeMap;
use xlt::random::Random;
use xlt::report::manifest::{
    Baseline, Configuration, Evaluation, FileHash, Languages, Manifest, Paper, Provenance,
    RunStatus, Scale, Seeds, Source, StageCost, StatusKind, Variant,
};
use xlt::report::results::Results;
use xlt::report::scores::{
    Cell, CellPredictions, CurvePoint, CurveStage, ItemPrediction, score_rows,
};

/// What the made-up study has.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Code and name; the first is the source.
    pub languages: Vec<(&'static str, &'static str)>,
    /// Name and label.
    pub variants: Vec<(&'static str, &'static str)>,
    pub regimes: Vec<&'static str>,
    pub pretrain_seeds: Vec<u64>,
    pub premises: u32,
    pub scale: Scale,
}

impl Shape {
    pub fn usual() -> Self {
        Self {
            languages: vec![
                ("en", "English"),
                ("ko", "Korean"),
                ("fr", "French"),
                ("sw", "Swahili"),
            ],
            variants: vec![
                ("random", "random initialisation"),
                ("clm", "CLM"),
                ("mlm", "MLM"),
                ("mlm+tlm", "MLM + TLM"),
            ],
            regimes: vec!["zero_shot", "translate_train", "translate_test"],
            pretrain_seeds: vec![1, 2, 3],
            premises: 200,
            scale: Scale::Small,
        }
    }

    /// One language besides the source, one variant, one seed.
    pub fn least() -> Self {
        Self {
            languages: vec![("aa", ""), ("ab", "")],
            variants: vec![("mlm", "MLM")],
            regimes: vec!["zero_shot"],
            pretrain_seeds: vec![1],
            premises: 60,
            scale: Scale::Synthetic,
        }
    }

    /// Fifteen languages and eight variants.
    pub fn large() -> Self {
        let languages = [
            ("en", "English"),
            ("ar", "Arabic"),
            ("bg", "Bulgarian"),
            ("de", "German"),
            ("el", "Greek"),
            ("es", "Spanish"),
            ("fr", "French"),
            ("hi", "Hindi"),
            ("ko", "한국어"),
            ("ru", "Русский"),
            ("sw", "Swahili"),
            ("th", "Thai"),
            ("tr", "Turkish"),
            ("ur", "Urdu"),
            ("vi", "Tiếng Việt"),
            ("zh", "中文"),
        ];
        let variants = [
            ("random", "random initialisation, shared vocabulary"),
            ("clm", "CLM"),
            ("mlm", "MLM"),
            ("tlm", "MLM + TLM"),
            ("random-separate", "random, separate vocabularies"),
            ("clm-separate", "CLM, separate vocabularies"),
            ("mlm-separate", "MLM, separate vocabularies"),
            ("tlm-separate", "MLM + TLM, separate vocabularies"),
        ];
        Self {
            languages: languages.to_vec(),
            variants: variants.to_vec(),
            regimes: vec![
                "zero_shot",
                "translate_train",
                "translate_test",
                "translate_train_all",
            ],
            pretrain_seeds: vec![1, 2],
            premises: 40,
            scale: Scale::SingleGpu,
        }
    }
}

/// Results in which later variants and nearer languages do better, the first variant is at chance, and one cell of the
/// last variant is missing.
pub fn results(shape: &Shape) -> Results {
    let codes: Vec<String> = shape
        .languages
        .iter()
        .map(|(code, _)| code.to_string())
        .collect();
    let (source, targets) = (codes[0].clone(), codes[1..].to_vec());
    let of_regime = |regime: &str| match regime {
        "translate_test" => targets.iter().take(2).cloned().collect(),
        "translate_train" => targets.clone(),
        _ => codes.clone(),
    };
    let mut predictions = Vec::new();
    let mut curves = Vec::new();
    for (level, (variant, _)) in shape.variants.iter().enumerate() {
        for &pretrain_seed in &shape.pretrain_seeds {
            for (place, regime) in shape.regimes.iter().enumerate() {
                for (distance, language) in codes.iter().enumerate() {
                    let last = level + 1 == shape.variants.len() && level > 0;
                    let missing = last && distance == 1 && place == 1;
                    if !of_regime(regime).contains(language) || missing {
                        continue;
                    }
                    for selection in ["source_dev", "target_dev"] {
                        let skill = if level == 0 && shape.variants.len() > 1 {
                            0.0
                        } else {
                            let loss = 0.45 - 0.04 * level as f64 - 0.03 * place as f64;
                            1.0 - loss - 0.03 * distance as f64 + 0.01 * pretrain_seed as f64
                        };
                        let purpose = format!("{variant} {regime} {language}");
                        let cell = Cell {
                            variant: variant.to_string(),
                            pretrain_seed,
                            finetune_seed: 1,
                            task: "xnli".to_string(),
                            regime: regime.to_string(),
                            language: language.clone(),
                            selection: selection.to_string(),
                        };
                        let items = items(
                            Random::new(pretrain_seed, &purpose, 0),
                            shape.premises,
                            skill,
                        );
                        predictions.push(CellPredictions { cell, items });
                    }
                }
            }
            curves.extend(learning_curves(variant, level, pretrain_seed, &codes));
        }
    }
    predictions.sort_by(|a, b| a.cell.cmp(&b.cell));
    let manifest = manifest(shape, source, targets.clone(), of_regime);
    Results {
        scores: score_rows(&manifest, &predictions, &[], &[]),
        manifest,
        predictions,
        translations: Vec::new(),
        measurements: Vec::new(),
        curves,
    }
}

fn items(mut random: Random, premises: u32, skill: f64) -> Vec<ItemPrediction> {
    let mut items = Vec::new();
    for premise in 0..premises {
        for gold in 0..3u8 {
            let guess = random.below(3) as u8;
            let predicted = if random.uniform() < skill {
                gold
            } else {
                guess
            };
            items.push(ItemPrediction {
                premise,
                item: premise * 3 + u32::from(gold),
                predicted,
                gold,
            });
        }
    }
    items
}

fn learning_curves(
    variant: &str,
    level: usize,
    pretrain_seed: u64,
    codes: &[String],
) -> Vec<CurvePoint> {
    let mut random = Random::new(pretrain_seed, variant, 1);
    let mut points = Vec::new();
    let mut push = |stage, series: String, step: u64, tokens, value| {
        points.push(CurvePoint {
            variant: variant.to_string(),
            pretrain_seed,
            finetune_seed: (stage == CurveStage::Finetune).then_some(1),
            stage,
            series,
            updates: step * 100,
            tokens,
            value,
        });
    };
    for step in 1..=12u64 {
        let decay = 1.0 / step as f64;
        for (distance, code) in codes.iter().enumerate() {
            let objective = if variant.contains("clm") {
                "causal_lm"
            } else {
                "masked_lm"
            };
            if level > 0 || variant == "mlm" {
                let value = 30.0 + 900.0 * decay + 10.0 * distance as f64 - 3.0 * level as f64
                    + random.uniform();
                push(
                    CurveStage::Pretrain,
                    format!("valid perplexity {code} {objective}"),
                    step,
                    step * 819_200,
                    value,
                );
            }
            let value = if level == 0 {
                34.0
            } else {
                72.0 - 30.0 * decay - 4.0 * distance as f64
            } + 2.0 * random.uniform();
            push(
                CurveStage::Finetune,
                format!("dev accuracy {code}"),
                step,
                step * 3_200,
                value,
            );
        }
    }
    points
}

fn manifest(
    shape: &Shape,
    source: String,
    targets: Vec<String>,
    of_regime: impl Fn(&str) -> Vec<String>,
) -> Manifest {
    let codes: Vec<String> = std::iter::once(source.clone())
        .chain(targets.clone())
        .collect();
    let names = shape.languages.iter().filter(|(_, name)| !name.is_empty());
    let first = shape.variants[0].0.to_string();
    Manifest {
        study: "made-up".to_string(),
        profile: "small".to_string(),
        title: "A made-up study of <transfer> & its gaps".to_string(),
        paper: Paper {
            title: "Cross-lingual Language Model Pretraining".to_string(),
            url: "https://arxiv.org/abs/1901.07291".to_string(),
        },
        scale: shape.scale,
        settings_fingerprint: "0123456789abcdef".to_string(),
        settings: shape
            .variants
            .iter()
            .map(|(name, _)| {
                (
                    name.to_string(),
                    json!({"model": {"layers": 4, "hidden": 256}, "objectives": ["masked_lm"]}),
                )
            })
            .collect(),
        variants: shape
            .variants
            .iter()
            .map(|(name, label)| Variant {
                name: name.to_string(),
                label: label.to_string(),
            })
            .collect(),
        evaluations: shape
            .regimes
            .iter()
            .map(|regime| Evaluation {
                task: "xnli".to_string(),
                regime: regime.to_string(),
                languages: of_regime(regime),
            })
            .collect(),
        languages: Languages {
            source,
            targets,
            names: names
                .map(|(code, name)| (code.to_string(), name.to_string()))
                .collect(),
        },
        selections: vec!["source_dev".to_string(), "target_dev".to_string()],
        seeds: Seeds {
            data: 0,
            pretrain: shape.pretrain_seeds.clone(),
            finetune: vec![1],
        },
        sources: vec![Source {
            name: "XNLI 1.0".to_string(),
            files: BTreeMap::from([(
                "xnli/test.tsv".to_string(),
                FileHash {
                    bytes: 1_234_567,
                    blake3: "ab".repeat(32),
                    sha256: Some("cd".repeat(32)),
                },
            )]),
            revision: None,
            licence: "CC BY-NC 4.0".to_string(),
            citation:
                "Conneau et al. 2018, XNLI: Evaluating Cross-lingual Sentence Representations"
                    .to_string(),
        }],
        data_facts: json!({"monolingual": {"en": {"sentences": 120_000, "tokens": 2_450_000}, "ko": {"sentences": 80_000, "tokens": 1_900_000}}}),
        synthetic_deviations: vec!["word order of ab: verb last".to_string()],
        jobs: BTreeMap::from([("tokenizer".to_string(), "f00d".repeat(16))]),
        provenance: Provenance {
            git_commit: Some("0123abcd".to_string()),
            program_version: "0.1.0".to_string(),
            devices: vec!["cpu".to_string()],
            instruction_sets: vec!["avx2".to_string()],
            threads: 2,
            stages: BTreeMap::from([
                (
                    "pretrain".to_string(),
                    StageCost {
                        jobs: 9,
                        seconds: 5432.1,
                        tokens: 90_000_000,
                    },
                ),
                (
                    "tokenizer".to_string(),
                    StageCost {
                        jobs: 1,
                        seconds: 12.3,
                        tokens: 0,
                    },
                ),
            ]),
        },
        configurations: vec![
            Configuration {
                variant: first.clone(),
                pretrain_seed: 1,
                finetune_seed: 1,
                training_set: codes[0].clone(),
                configuration: "encoder_learning_rate 2.5e-5, batch_size 16".to_string(),
                dev_scores: BTreeMap::from([
                    ("source_dev".to_string(), 61.25),
                    ("target_dev ko".to_string(), 48.5),
                ]),
                chosen: vec!["source_dev".to_string()],
            },
            Configuration {
                variant: first.clone(),
                pretrain_seed: 1,
                finetune_seed: 1,
                training_set: codes[0].clone(),
                configuration: "encoder_learning_rate 5.0e-5, batch_size 16".to_string(),
                dev_scores: BTreeMap::from([
                    ("source_dev".to_string(), 60.0),
                    ("target_dev ko".to_string(), 49.75),
                ]),
                chosen: vec!["target_dev ko".to_string()],
            },
        ],
        statuses: vec![RunStatus {
            variant: first,
            pretrain_seed: 1,
            finetune_seed: None,
            what: "pretrain".to_string(),
            kind: StatusKind::Diverged,
            detail: "the loss was not finite at update 1200".to_string(),
        }],
        baselines: vec![
            Baseline {
                name: "majority".to_string(),
                accuracy: codes.iter().map(|code| (code.clone(), 33.3)).collect(),
            },
            Baseline {
                name: "hypothesis_only".to_string(),
                accuracy: BTreeMap::from([(codes[0].clone(), 41.0)]),
            },
        ],
        translations: BTreeMap::from([(
            "en -> sw".to_string(),
            "XNLI 1.0's machine translation".to_string(),
        )]),

        translation_scores: None,
    }
}
