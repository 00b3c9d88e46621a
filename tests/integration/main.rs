//! Everything that is tested from outside, over real HTTP against the real program.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is wrong may panic")]

mod guests;
mod harness;
mod wire;

mod authors;
mod bad_input;
mod blobs;
mod clients;
mod command_line;
mod durability;
mod extensions;
mod gates;
mod graph_gate;
mod graphs;
mod grpc;
mod hostile_guests;
mod known_answers;
mod lifecycle;
mod limits;
mod memory;
mod neighbours;
mod openai;
mod overload;
mod path;
mod pools;
mod sharing;
mod storage;
mod streams;
mod telemetry;
