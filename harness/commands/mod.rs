//! commands

pub mod compare;
