//! Language codes.
