//! `cargo xtask soak`: for minutes or hours what the tests do for seconds.

mod conversations;
mod fuzz;
mod report;

use std::str::FromStr;

use anyhow::{Result, bail};

use crate::demo;
use crate::guests;
use crate::process;
use crate::setup::{self, Ready};
use crate::stages::Stages;
use crate::suite;

/// One thing that is worth more time than the tests have.
#[derive(Debug, PartialEq)]
pub(crate) struct Part {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    work: Work,
}

/// What a part does.
#[derive(Debug, PartialEq)]
enum Work {
    /// Gives every decoder to libFuzzer.
    Fuzz,
    /// Has Triton's load tester measure in long windows, over every protocol.
    LoadTester,
    /// Runs the integration tests that this nextest expression picks at their full length, which they
    /// know by themselves.
    Tests(&'static str),
    /// Talks with a language model.
    Conversations,
}

/// All parts. Another kind of soak is another entry, with its line in the help of `args.rs`.
pub(crate) const PARTS: &[Part] = &[
    Part { name: "fuzz", work: Work::Fuzz },
    Part { name: "load-tester", work: Work::LoadTester },
    Part { name: "tests", work: Work::Tests("test(soak) | test(/^overload::/)") },
    Part { name: "conversations", work: Work::Conversations },
];

impl FromStr for &'static Part {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match PARTS.iter().find(|part| part.name == name) {
            Some(part) => Ok(part),
            None => bail!("no part '{name}' to soak; `cargo xtask soak --help` lists them"),
        }
    }
}

/// Runs each part, one after another, whatever one finds; the fuzzers for so many minutes.
pub(crate) fn run(minutes: u32, parts: &[&Part]) -> Result<()> {
    let mut stages = Stages::default();
    let ready = stages.run("set up", || setup::prepare(&[]))?;
    for part in parts {
        stages.attempt(part.name, || match part.work {
            Work::Fuzz => fuzz::run(&ready, minutes),
            Work::LoadTester => load_tester(&ready),
            Work::Tests(filter) => tests(&ready, filter),
            Work::Conversations => conversations::run(&ready),
        });
    }
    stages.finish()
}

fn load_tester(ready: &Ready) -> Result<()> {
    guests::provide_toolchain()?;
    demo::build(ready)?;
    guests::build(ready)?;
    suite::load_tester(ready)
}

fn tests(ready: &Ready, filter: &str) -> Result<()> {
    suite::install_nextest()?;
    let mut nextest = ready.cargo();
    nextest.args(["nextest", "run", "--workspace", "--cargo-profile", "ci"]);
    // One at a time: each measures, and would measure the others too.
    nextest.args(["--no-fail-fast", "--test-threads", "1", "--filter-expr", filter]);
    process::run(nextest.env("MODELET_SOAK", "1"))
}
