//! `xlt` reproduces studies of cross-lingual transfer: one YAML file from text to verdicts.
//!
//! ```text
//! yaml -> spec -> plan -> stages -> store -> scores -> tables, plots, claims
//! ```
//! A module imports only from those below it in this list (`tests/architecture.rs` enforces it).

pub mod commands;
pub mod data;
pub mod execution;
pub mod fingerprint;
pub mod kernels;
pub mod language;
pub mod metrics;
pub mod model;
pub mod objectives;
pub mod plan;
pub mod problem;
pub mod random;
pub mod report;
pub mod spec;
pub mod stages;
pub mod store;
pub mod tasks;
pub mod training;
