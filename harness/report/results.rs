//! The source files of a results folder: predictions, scores, curves and the manifest. All else is made from them.

use crate::report::manifest::Manifest;
use crate::report::scores::{CellPredictions, CurvePoint, ScoreRow};

/// What a run leaves, as far as reports need it.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    pub manifest: Manifest,
    /// Sorted by cell.
    pub predictions: Vec<CellPredictions>,
    /// Computed from the predictions by [`super::scores::score_rows`].
    pub scores: Vec<ScoreRow>,
    /// Sorted by variant, seeds, stage, series, updates.
    pub curves: Vec<CurvePoint>,
}
