//! Where text comes from and what is done to it before a model sees numbers: sources (local files, the hub, synthetic
//! languages), text pipelines, one file per dataset format, the tokenizer and the token files.

pub mod corpus;
pub mod files;
pub mod formats;
pub mod git_blob;
pub mod hub;
pub mod input;
pub mod leakage;
pub mod nli;
pub mod parquet;
pub mod paths;
pub mod source;
pub mod split;
pub mod synthetic;
pub mod tables;
pub mod text;
pub mod tokenizer;
