//! `cargo xtask test`: all that must pass, the quick stages first.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::bench;
use crate::cache::Partial;
use crate::check::{self, Part};
use crate::demo;
use crate::examples;
use crate::guests;
use crate::machine::CURL;
use crate::newcomer;
use crate::process::{self, workspace};
use crate::server::Server;
use crate::setup::{self, Ready};
use crate::stages::Stages;

/// The version that is installed where there is none; any newer one serves as well.
const NEXTEST_VERSION: &str = "0.9.143";

/// `cargo xtask test`: a failed stage stops only those that need it, so that one run shows all.
pub(crate) fn run() -> Result<()> {
    let mut stages = Stages::default();
    let ready = stages.run("set up", || setup::prepare(&[CURL]))?;
    stages.run("WebAssembly toolchain", guests::provide_toolchain)?;
    stages.run("cargo-nextest", install_nextest)?;
    for part in [Part::Format, Part::Tidy, Part::Licences] {
        stages.attempt(part.name(), || check::run_part(part));
    }
    stages.attempt("asset tests", || asset_tests(&ready));
    stages.attempt(Part::Lints.name(), || check::run_part(Part::Lints));
    stages.run("build", || nextest(&ready, &["--no-run"]))?;
    stages.run("modelet", || demo::build(&ready))?;
    stages.run("examples", || guests::build(&ready))?;
    stages.attempt("examples' tests", || guests::test(&ready));
    stages.attempt("clients", || against_a_server(&ready));
    stages.attempt("a newcomer's path", || newcomer::run(&ready));
    stages.attempt("demo, twice", || demo::twice(&ready));
    stages.attempt("benches, each once", || bench::try_each(&ready));
    stages.attempt("doc tests", || {
        process::run(ready.cargo().args(["test", "--doc", "--workspace", "--profile", "ci"]))
    });
    // Last, so that its count of tests closes the output.
    stages.attempt("rust tests", || nextest(&ready, &["--no-fail-fast"]));
    stages.finish()
}

/// Installs cargo-nextest unless it is there.
pub(crate) fn install_nextest() -> Result<()> {
    process::install("nextest", "cargo-nextest", NEXTEST_VERSION)
}

fn nextest(ready: &Ready, options: &[&str]) -> Result<()> {
    let mut nextest = ready.cargo();
    nextest.args(["nextest", "run", "--workspace", "--cargo-profile", "ci"]);
    process::run(nextest.args(options))
}

fn asset_tests(ready: &Ready) -> Result<()> {
    let mut tests = ready.command(&ready.python);
    tests.current_dir(workspace().join("assets"));
    process::run(tests.args(["-m", "unittest", "discover", "-t", ".", "-s", "tests"]))
}

/// Runs the README's examples and the real clients against one server with the example models.
fn against_a_server(ready: &Ready) -> Result<()> {
    let served = Served::start(ready)?;
    run_examples(ready, &served.server.url)?;
    process::run(served.clients(ready)?.args(["discover", "-t", ".", "-s", "clients"]))?;
    // Each in a process of its own: several define the protocol's messages, and one cannot hold two.
    for module in modules("peers")? {
        let mut peers = ready.command(ready.peers()?);
        peers.current_dir(workspace().join("tests")).env("MODELET_SERVER", &served.server.url);
        process::run(peers.args(["-m", "unittest", &module]))?;
    }
    served.server.stop()
}

/// The test modules of a folder of `tests`, in order.
fn modules(folder: &str) -> Result<Vec<String>> {
    let mut modules = Vec::new();
    for entry in std::fs::read_dir(workspace().join("tests").join(folder))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(module) = name.strip_suffix(".py").filter(|name| name.starts_with("test_")) {
            modules.push(format!("{folder}.{module}"));
        }
    }
    modules.sort();
    Ok(modules)
}

/// The load tester's tests at their full length; the server and the examples are built.
pub(crate) fn load_tester(ready: &Ready) -> Result<()> {
    let served = Served::start(ready)?;
    let mut tests = served.clients(ready)?;
    process::run(tests.env("MODELET_SOAK", "1").args(["-v", "clients.test_perf_analyzer"]))?;
    served.server.stop()
}

/// A server with the example models and those of the tests.
struct Served {
    server: Server,
    _data_dir: Partial,
}

impl Served {
    fn start(ready: &Ready) -> Result<Self> {
        let data_dir = ready.scratch("examples")?;
        let server = Server::start(ready, "127.0.0.1:0", data_dir.path())?;
        demo::publish(ready, &server.url)?;
        examples::publish(ready, &server.url)?;
        examples::publish_test_guests(ready, &server.url)?;
        Ok(Self { server, _data_dir: data_dir })
    }

    /// What runs tests of clients, once it is told which.
    fn clients(&self, ready: &Ready) -> Result<Command> {
        let mut clients = ready.command(&ready.python);
        clients.current_dir(workspace().join("tests")).env("MODELET_SERVER", &self.server.url);
        clients.env("MODELET", ready.built("modelet"));
        clients.env("MODELET_GUESTS", ready.folder("guests"));
        if let Some((program, libraries)) = ready.perf_analyzer()? {
            clients.env("MODELET_PERF_ANALYZER", program).env("LD_LIBRARY_PATH", libraries);
        }
        clients.args(["-m", "unittest"]);
        Ok(clients)
    }
}

/// `cargo xtask compatibility`: writes the page of what the clients' tests cover.
pub(crate) fn write_compatibility() -> Result<()> {
    let mut write = process::command("python3");
    write.current_dir(workspace()).args(["tests/compatibility.py", "--write"]);
    process::run(&mut write)
}

/// Runs every file of `docs/examples` and compares what it prints with the `.out` file beside it.
fn run_examples(ready: &Ready, url: &str) -> Result<()> {
    let folder = workspace().join("docs/examples");
    for entry in fs::read_dir(&folder)? {
        let example = entry?.path();
        let interpreter = match example.extension().and_then(|extension| extension.to_str()) {
            Some("sh") => Path::new("sh"),
            Some("py") => &ready.python,
            _ => continue,
        };
        let mut run = ready.command(interpreter);
        run.current_dir(&ready.models).arg(&example).env("MODELET_SERVER", url);
        let printed = String::from_utf8(process::output(&mut run)?)?;
        let expected = fs::read_to_string(example.with_extension(out_extension(&example)))
            .with_context(|| format!("{} has no expected output", example.display()))?;
        ensure!(
            printed == expected,
            "{} printed '{}', expected '{}'",
            example.display(),
            printed.trim_end(),
            expected.trim_end()
        );
        println!("    {} prints what it should", example.display());
    }
    Ok(())
}

fn out_extension(example: &Path) -> String {
    let extension = example.extension().unwrap_or_default().to_string_lossy();
    format!("{extension}.out")
}
