//! wasi-nn for guests: graphs shared by all instances, compute threads beside them, and the host
//! functions that lead from the one to the other.

pub mod backend;
pub mod compute;
mod gain;
pub mod gate;
pub mod graph;
pub mod onnx;
pub mod rows;

pub(crate) mod bytes;
pub(crate) mod guest;

pub use guest::{GuestContext, GuestError, GuestGraph};
