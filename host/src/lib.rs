//! Everything a Modelet server does, as a library: it takes models packaged as WebAssembly components,
//! keeps them in a registry, and serves them over HTTP from pooled instances, with every nanosecond of
//! every instance on a closed account.
//!
//! It is not the command line (crate `modelet`), nor what a model author depends on (`guest-sdk`).
//!
//! Modules stand in the order a reader needs them: first the words, then the request's path, then what
//! stands behind it.

pub mod digest;
pub mod error;
pub mod limit;
pub mod names;
pub mod tensor;
pub mod version;

pub mod config;
pub mod host;
pub mod process;
pub mod server;

pub mod grpc;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod model_config;
pub mod model_control;
pub mod publish;
pub mod shared_memory;
pub mod statistics;
pub mod telemetry;
pub mod trace_settings;
pub mod uploads;

pub mod checks;
pub mod inspect;
pub mod verdicts;
pub mod worker;

pub mod cost;
pub mod engine;
pub mod ledger;
pub mod nn;
pub mod priority;
pub mod registry;
