//! `cargo xtask check`: what can be said of the code without running it.

mod code;
mod licences;
mod tidy;

use std::str::FromStr;

use anyhow::{Result, bail};

use crate::process::{self, workspace};
use crate::setup;
use crate::stages::Stages;

/// One part of the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Format,
    Tidy,
    Licences,
    Lints,
}

impl Part {
    /// All parts, the quick ones first.
    pub(crate) const ALL: [Self; 4] = [Self::Format, Self::Tidy, Self::Licences, Self::Lints];

    /// What it is called on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Tidy => "tidy",
            Self::Licences => "licences",
            Self::Lints => "lints",
        }
    }
}

impl FromStr for Part {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|part| part.name() == name) {
            Some(part) => Ok(part),
            None => bail!("no part '{name}' to check; `cargo xtask check --help` lists them"),
        }
    }
}

/// Runs the parts one after another; all of them, so that one run shows all that is wrong.
pub(crate) fn run(parts: &[Part]) -> Result<()> {
    let mut stages = Stages::default();
    for part in parts {
        stages.attempt(part.name(), || run_part(*part));
    }
    stages.finish()
}

/// Runs one part.
pub(crate) fn run_part(part: Part) -> Result<()> {
    match part {
        Part::Format => process::run(setup::cargo()?.args(["fmt", "--all", "--check"])),
        Part::Tidy => tidy::run(workspace()),
        Part::Licences => licences::run(),
        Part::Lints => lints(),
    }
}

/// Clippy in the profile of the tests: build scripts and macros are then compiled only once.
fn lints() -> Result<()> {
    let mut clippy = setup::cargo()?;
    clippy.args(["clippy", "--workspace", "--all-targets", "--profile", "ci", "--quiet"]);
    process::run(clippy.args(["--", "--deny", "warnings"]))
}
