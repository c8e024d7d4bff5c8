mod engine;
mod engine_invariants;
