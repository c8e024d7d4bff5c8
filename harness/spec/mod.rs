//! spec

pub mod anchors;
pub mod claims;
pub mod tables;
