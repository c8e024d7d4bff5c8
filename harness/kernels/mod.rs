//! The arithmetic of the trunk: fused operations over slices with hand-written backward, one file per operation.
//!
//! Every kernel computes each output element with a fixed order of operations, written out with fused multiply-add
//! and sixteen explicit lanes, so that its bits depend neither on the number of rows it is given together nor on the
//! instruction set that runs it.

#![allow(
    clippy::needless_range_loop,
    reason = "fixed numbers of lanes, indexed by number, stay in registers"
)]

pub mod adam;
pub mod attention;
pub mod buffer;
pub mod cached_attention;
pub mod cuda;
pub mod device;
pub mod dropout;
pub mod embedding;
pub mod gelu;
pub mod lanes;
pub mod matmul;
pub mod normalise;
pub mod pool;
pub mod vocabulary;

pub use device::{Device, DeviceChoice};
pub use matmul::Precision;
