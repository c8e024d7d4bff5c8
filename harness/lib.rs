//! `xlt` reproduces studies of cross-lingual transfer: one YAML file from text to verdicts.
//!
//! ```text
//! yaml -> spec -> plan -> stages -> store -> scores -> tables, plots, claims
//! ```
//! A module imports only from those below it in this list (`tests/architecture.rs` enforces it); `objectives` knows
//! nothing of tasks.
//!
//! ```text
//! commands     one file per command of the program
//! execution    runs a plan on this machine
//! report       scores, tables, plots, claims, pages: from the results alone
//! store        content-addressed artifacts, committed whole or not at all
//! plan         from a study to ordered, deduplicated jobs
//! stages       what a job does: from input folders to an output folder
//! spec         study files: sections, overrides, validation, schema
//! objectives   what pretraining predicts, one file each
//! tasks        what a fine-tuned model does
//! probes       what a pretrained model is asked as it is, one file each
//! data         sources, formats, synthetic languages, tokenizer, corpora
//! metrics      scores and their intervals
//! training     the loop: batches, Adam, schedules, exact resume
//! model        the encoder and its parameters
//! kernels      tensor operations with hand-written gradients; devices
//! language     codes, names and scripts of languages
//! fingerprint  identity of artifacts
//! random       the one generator
//! problem      what is wrong with a setting
//! ```
//!
//! What holds everywhere, and where it is proven, is in `docs/architecture.md`: fingerprints are identity, execution is
//! not; the same inputs give the same bits for any number of threads; randomness comes from [`random`] alone; test sets
//! are predicted once, with what dev sets chose.

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
pub mod probes;
pub mod problem;
pub mod random;
pub mod report;
pub mod spec;
pub mod stages;
pub mod store;
pub mod tasks;
pub mod training;
