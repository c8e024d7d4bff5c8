//! Behaviour tests, one file per area.

mod corpus;
mod data;
mod execution;
mod hub;
mod store;
mod synthetic;
mod tokenizer;
