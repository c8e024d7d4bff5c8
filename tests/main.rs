//! Behaviour tests, one file per area.

mod claims;
mod corpus;
mod data;
mod documentation;
mod engine;
mod engine_invariants;
mod execution;
mod experiments;
mod fake_results;
mod html;
mod hub;
mod notebook;
mod objectives;
mod pack;
mod pitfalls;
mod plots;
mod pretrain;
mod sample;
mod scores;
mod statistics;
mod store;
mod synthetic;
mod tables;
mod tokenizer;
