//! The project's automation, run as `cargo xtask COMMAND`.
//!
//! It builds in seconds, because it depends on no other member of the workspace, and it keeps all
//! that it downloads or builds in one cache folder outside the checkout (`cache.rs`).

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program that reports to the person who started it"
)]

mod args;
mod bench;
mod cache;
mod check;
mod demo;
mod download;
mod examples;
mod guests;
mod machine;
mod newcomer;
mod pins;
mod process;
mod server;
mod setup;
mod soak;
mod stages;
mod suite;

use std::process::ExitCode;

use args::Command;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    match args::parse(std::env::args_os().skip(1))? {
        Command::Help(text) => {
            println!("{text}");
            Ok(())
        }
        Command::Setup => setup::run(),
        Command::Assets => setup::run_assets(),
        Command::Demo(options) => demo::run(&options),
        Command::Test => suite::run(),
        Command::Bench => bench::run(),
        Command::Compatibility => suite::write_compatibility(),
        Command::Check(parts) => check::run(&parts),
        Command::Soak(options) => soak::run(options.minutes, &options.parts),
    }
}
