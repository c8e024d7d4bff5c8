//! What an evaluation leaves: predictions per example, and the long table of scores computed from them.
//!
//! Predictions are the source; every score, interval, table and plot derives from them.

use serde::{Deserialize, Serialize};

use crate::metrics::{Confusion, Metric, TranslationCounts};
use crate::report::clusters::Clusters;
use crate::report::manifest::Manifest;
use crate::report::measurements::CellMeasurements;
use crate::report::translations::CellTranslations;

/// Which model was scored on what. Sorted by its fields in this order wherever cells are written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell {
    pub variant: String,
    pub pretrain_seed: u64,
    /// 0 where a pretrained model is measured as it is.
    pub finetune_seed: u64,
    /// `xnli`, `xnli_mixed` when premise and hypothesis are in different languages, `translation`, `language_modelling`,
    /// `word_translation` or `word_similarity`.
    pub task: String,
    /// `zero_shot`, `translate_train`, `translate_train_all` or `translate_test`; of translation the search, of language
    /// modelling the unit, of words where their vectors come from.
    pub regime: String,
    /// `ko`; a mixed pair is `en+ko` (premise, hypothesis), a direction `en-ko`.
    pub language: String,
    /// The dev set that chose configuration and checkpoint: `source_dev`, `mean_dev`, `target_dev` or `validation_bleu`; nothing
    /// did where it is `last_update`.
    pub selection: String,
}

/// One test example. Classes are 0 contradiction, 1 neutral, 2 entailment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ItemPrediction {
    /// The cluster: examples that share a premise, the same number in every language.
    pub premise: u32,
    /// The row that is the same pair in every language.
    pub item: u32,
    pub predicted: u8,
    pub gold: u8,
}

/// The predictions of one cell, in the order of the test set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellPredictions {
    pub cell: Cell,
    pub items: Vec<ItemPrediction>,
}

/// One row of `scores.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreRow {
    pub study: String,
    pub profile: String,
    pub variant: String,
    pub pretrain_seed: u64,
    pub finetune_seed: u64,
    pub task: String,
    pub regime: String,
    pub language: String,
    pub selection: String,
    /// A [`Metric`]'s name, or a count: `correct`, `confusion_<gold>_<predicted>`.
    pub metric: String,
    /// In the metric's unit (percent 0-100 for most), a whole number for counts.
    pub value: f64,
    /// How many examples were scored.
    pub examples: u64,
}

/// Which training a point of a learning curve belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CurveStage {
    Pretrain,
    Finetune,
    Translation,
}

impl CurveStage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pretrain => "pretrain",
            Self::Finetune => "finetune",
            Self::Translation => "translation",
        }
    }
}

/// One row of `curves.csv`: a validation figure during training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    pub variant: String,
    pub pretrain_seed: u64,
    /// Empty for pretraining.
    pub finetune_seed: Option<u64>,
    pub stage: CurveStage,
    /// `valid perplexity aa masked_lm`, `dev accuracy ko`.
    pub series: String,
    pub updates: u64,
    /// Tokens seen in pretraining and translation, examples seen in fine-tuning.
    pub tokens: u64,
    pub value: f64,
}

/// The scores of all cells: those of classes, of translations, then of measurements, each sorted by cell, then metric in the order of
/// [`Metric::ALL`], then counts.
pub fn score_rows(
    manifest: &Manifest,
    predictions: &[CellPredictions],
    translations: &[CellTranslations],
    measurements: &[CellMeasurements],
) -> Vec<ScoreRow> {
    let mut rows = Vec::new();
    let mut push = |cell: &Cell, metric: &str, value: f64, examples: u64| {
        rows.push(ScoreRow {
            study: manifest.study.clone(),
            profile: manifest.profile.clone(),
            variant: cell.variant.clone(),
            pretrain_seed: cell.pretrain_seed,
            finetune_seed: cell.finetune_seed,
            task: cell.task.clone(),
            regime: cell.regime.clone(),
            language: cell.language.clone(),
            selection: cell.selection.clone(),
            metric: metric.to_owned(),
            value,
            examples,
        });
    };
    let mut cells: Vec<&CellPredictions> = predictions.iter().collect();
    cells.sort_by(|a, b| a.cell.cmp(&b.cell));
    for CellPredictions { cell, items } in cells {
        let confusion = Confusion::of(items.iter().map(|item| (item.gold, item.predicted)));
        let examples = confusion.total();
        for metric in Metric::OF_CLASSES {
            push(cell, metric.name(), metric.percent(&confusion), examples);
        }
        push(cell, "correct", confusion.correct() as f64, examples);
        for (name, count) in confusion.named_counts() {
            push(cell, &name, count as f64, examples);
        }
    }
    let mut cells: Vec<&CellTranslations> = translations.iter().collect();
    cells.sort_by(|a, b| a.cell.cmp(&b.cell));
    for CellTranslations { cell, sentences } in cells {
        let mut total = TranslationCounts::default();
        for counts in sentences {
            total += counts;
        }
        let examples = sentences.len() as u64;
        for metric in Metric::OF_TRANSLATIONS {
            if let Some(percent) = total.percent(metric, manifest.smoothing()) {
                push(cell, metric.name(), percent, examples);
            }
        }
        let bleu = &total.bleu;
        push(
            cell,
            "hypothesis_length",
            bleu.hypothesis_length as f64,
            examples,
        );
        push(
            cell,
            "reference_length",
            bleu.reference_length as f64,
            examples,
        );
    }
    let mut cells: Vec<&CellMeasurements> = measurements.iter().collect();
    cells.sort_by(|a, b| a.cell.cmp(&b.cell));
    for CellMeasurements { cell, items } in cells {
        let clusters = Clusters::of_measurements(items);
        for metric in Metric::fitting(&cell.task) {
            let value = clusters.score(*metric).value;
            push(cell, metric.name(), value, items.len() as u64);
        }
    }
    rows
}
