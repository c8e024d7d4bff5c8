//! Behaviour tests, one file per area.

mod corpus;
mod data;
mod execution;
mod hub;
mod objectives;
mod pretrain;
mod store;
mod synthetic;
mod tokenizer;
