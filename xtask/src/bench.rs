//! `cargo xtask bench`: what Modelet costs, measured in pairs, into `docs/benchmarks.md`.

use anyhow::Result;

use crate::guests;
use crate::machine::{self, WRK};
use crate::process::{self, workspace};
use crate::setup::{self, Ready};

/// Measures everything; takes some twenty minutes, in which the machine should do nothing else.
pub(crate) fn run() -> Result<()> {
    let ready = setup::prepare(&[])?;
    machine::provide(&[WRK])?;
    let mut build = ready.cargo();
    process::run(build.args([
        "build",
        "--workspace",
        "--profile",
        "ci",
        "--bin",
        "modelet-bench",
        "--bin",
        "modelet",
    ]))?;
    let mut report = ready.command(ready.built("modelet-bench"));
    process::run(report.arg("report").arg(workspace().join("docs")))?;
    cost_of_examples(&ready)
}

/// What the examples' own code costs in the sandbox, on standard output.
fn cost_of_examples(ready: &Ready) -> Result<()> {
    guests::provide_toolchain()?;
    guests::build(ready)?;
    guests::measure_cost(ready, &ready.built("modelet-bench"))
}

/// Runs every criterion bench once, so that none rots; measures nothing.
pub(crate) fn try_each(ready: &Ready) -> Result<()> {
    let mut benches = ready.cargo();
    benches.args([
        "bench",
        "--workspace",
        "--profile",
        "ci",
        "--bench",
        "path",
        "--bench",
        "stages",
    ]);
    process::run(benches.args(["--", "--test"]))
}
