//! `xlt` reproduces studies of cross-lingual transfer: one YAML file from text to verdicts.
//!
//! ```text
//! yaml -> spec -> plan -> stages -> store -> scores -> tables, plots, claims
//! ```
//! A module imports only from those below it in this list (`tests/architecture.rs` enforces it):
//!
//! ```text
//! commands      run, plan, status, report, check, compare, schema, store: one file each
//! report        results gathered; tables, plots, claims, pages made from them
//! execution     runs a plan: several jobs side by side, progress, interruption
//! store         content-addressed artifacts: finished whole or not at all
//! plan          a study -> ordered, deduplicated jobs with fingerprints and estimates; pure
//! stages        synthesize, monolingual, parallel, nli, tokenizer, corpus, pretrain, finetune, evaluate, baselines
//! spec          the study file: sections, profiles, variants, validation, schema
//! objectives    one file per pretraining objective
//! tasks         what a fine-tuned model does: classification of sentence pairs
//! training      the trainer: passes, heads, optimizer, exact resume
//! data          sources, text pipelines, dataset formats, synthetic languages, tokenizer, token files
//! model         encoder: settings, parameters, packed batches, the trunk's forward and backward
//! kernels       fused operations with hand-written backward, the device and its threads
//! metrics       one file per metric; intervals
//! language  fingerprint  problem  random
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
pub mod problem;
pub mod random;
pub mod report;
pub mod spec;
pub mod stages;
pub mod store;
pub mod tasks;
pub mod training;
