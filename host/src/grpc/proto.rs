//! The messages of the protocol, compiled from `proto/` when the crate is built.

#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    reason = "generated; `proto/` has the words"
)]

include!(concat!(env!("OUT_DIR"), "/inference.rs"));
