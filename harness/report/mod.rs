//! Tables, claims, plots and pages, all made from the source files of a results folder (`results.rs`).

pub mod claims;
pub mod format;
pub mod manifest;
pub mod results;
pub mod scores;
pub mod summary;
pub mod tables;

use std::collections::BTreeMap;

use crate::spec::anchors::Anchors;
use crate::spec::claims::Claim;
use crate::spec::tables::Table;

/// What a report is made from.
#[derive(Debug, Clone, Copy)]
pub struct ReportInput<'a> {
    pub results: &'a results::Results,
    pub claims: &'a [Claim],
    pub tables: &'a [Table],
    /// Variant or regime -> how tables and plots name it; its own name where absent.
    pub labels: &'a BTreeMap<String, String>,
    pub anchors: &'a Anchors,
    /// The profile is the paper's own: only there can a claim be reproduced.
    pub profile_is_paper: bool,
}
