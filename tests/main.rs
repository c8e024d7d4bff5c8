mod data;
mod hub;
//! Behaviour tests, one file per area.

mod execution;
mod store;
mod synthetic;
