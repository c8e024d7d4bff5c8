//! Behaviour tests, one file per area.

mod claims;
mod data;
mod execution;
mod fake_results;
mod html;
mod hub;
mod notebook;
mod plots;
mod sample;
mod scores;
mod statistics;
mod store;
mod synthetic;
mod tables;
