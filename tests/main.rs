//! Behaviour tests, one file per area.

mod claims;
mod data;
mod execution;
mod hub;
mod sample;
mod scores;
mod statistics;
mod data;
mod execution;
mod hub;
mod objectives;
mod pretrain;
mod store;
mod synthetic;
mod engine;
mod engine_invariants;
mod tables;
mod corpus;
mod data;
mod execution;
mod hub;
mod store;
mod synthetic;
mod tokenizer;
