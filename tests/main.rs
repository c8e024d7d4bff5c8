//! Behaviour tests, one file per area.

mod data;
mod execution;
mod hub;
mod pack;
mod store;
mod synthetic;
