//! What the benchmarks share: a host in this process, the graphs it serves, and pairs of measurements.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement that fails may panic; none of this serves anybody"
)]

pub mod batching;
pub mod decoding;
pub mod density;
pub mod echo;
pub mod graphs;
pub mod guests;
pub mod pairs;
pub mod report;
pub mod served;
