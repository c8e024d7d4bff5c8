//! Behaviour tests, one file per area.

mod claims;
mod corpus;
mod data;
mod data;
mod data;
mod engine;
mod engine_invariants;
mod execution;
mod execution;
mod execution;
mod hub;
mod hub;
mod hub;
mod objectives;
mod pretrain;
mod sample;
mod scores;
mod statistics;
mod store;
mod store;
mod synthetic;
mod synthetic;
mod tables;
mod tokenizer;
