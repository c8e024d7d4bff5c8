//! Study to jobs.
