//! Everything that is tested from outside, over real HTTP against the real program.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is wrong may panic")]

mod harness;

mod bad_input;
mod command_line;
mod durability;
mod gates;
mod graph_gate;
mod graphs;
mod known_answers;
mod lifecycle;
mod memory;
mod path;
