//! What must hold of every decoder of the host, whatever bytes it is given.
//!
//! Each target is one function from bytes to an [`Outcome`]. It calls the decoder that the server
//! calls, panics where a property does not hold, and otherwise says whether the bytes were taken.
//! `tests/seeds.rs` runs all of them on the seeds and on damaged seeds in every test run; the binaries
//! in `fuzz_targets` hand them to libFuzzer, for `cargo xtask soak`.

mod component;
mod grpc;
mod inflate;
mod journal;
mod manifest;
mod multipart;
pub mod mutate;
mod names;
mod oip;
mod onnx;
mod raw;
mod tensor;
mod texts;

use std::path::{Path, PathBuf};

pub use component::component;
pub use grpc::grpc_request;
pub use inflate::inflate;
pub use journal::journal;
pub use manifest::manifest;
pub use multipart::multipart;
pub use names::names;
pub use oip::oip_request;
pub use onnx::onnx;
pub use raw::oip_raw;
pub use tensor::tensor;
pub use texts::texts;

/// What a decoder made of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It took them, and what it made of them has the properties asked for.
    Accepted,
    /// It refused them with an error.
    Refused,
}

/// A decoder under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: that of its folder of seeds and of its binary.
    pub name: &'static str,
    /// Runs it once.
    pub run: fn(&[u8]) -> Outcome,
    /// Mutated seeds of one test run: as many as some seconds are enough for.
    pub mutations: u64,
}

/// All of them.
pub const TARGETS: [Target; 12] = [
    Target { name: "component", run: component, mutations: 50_000 },
    Target { name: "grpc_request", run: grpc_request, mutations: 300_000 },
    Target { name: "inflate", run: inflate, mutations: 20_000 },
    Target { name: "journal", run: journal, mutations: 10_000 },
    Target { name: "manifest", run: manifest, mutations: 500_000 },
    Target { name: "multipart", run: multipart, mutations: 100_000 },
    Target { name: "names", run: names, mutations: 100_000 },
    Target { name: "onnx", run: onnx, mutations: 500_000 },
    Target { name: "oip_raw", run: oip_raw, mutations: 500_000 },
    Target { name: "oip_request", run: oip_request, mutations: 150_000 },
    Target { name: "tensor", run: tensor, mutations: 300_000 },
    Target { name: "texts", run: texts, mutations: 300_000 },
];

/// The folder of a target's seeds.
pub fn seeds(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target)
}

/// What a seed or a made-up input says in its first line, and what comes after.
fn first_line(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (line, rest) = data.split_at(end);
    (line, rest.get(1..).unwrap_or_default())
}

/// A number that follows from some bytes, for choices that must be the same in every run: FNV-1a.
fn hash(data: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    data.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
