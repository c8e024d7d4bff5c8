//! NVIDIA GPUs: what a card can do (`Driver`), the kernels' source, and their calls.
//!
//! ```text
//! source/*.cu -> card: compiled on the machine that has the card, launched there
//!             -> tests/cuda: compiled for the CPU, run thread by thread
//! operations: one function for each kernel: grid, shared memory, arguments
//! ```
//!
//! The driver's and NVIDIA's libraries are opened when a card is asked for: a program that runs without one is the same program.

mod card;
mod compiler;
mod driver;
pub mod operations;
mod products;

pub use card::Card;
pub use driver::{
    Argument, AttentionArgument, Driver, DropoutArgument, Element, Launch, Memory, Product, Side,
    bytes_of, bytes_of_mut,
};

/// The kernels as one program.
pub const SOURCE: &str = concat!(
    include_str!("source/common.cu"),
    include_str!("source/normalise.cu"),
    include_str!("source/embedding.cu"),
    include_str!("source/gelu.cu"),
    include_str!("source/attention.cu"),
    include_str!("source/vocabulary.cu"),
    include_str!("source/adam.cu"),
);
