//! The example models: compiled by `modelet build`, as their authors would, and tested on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::machine::{self, Need};
use crate::process::{self, workspace};
use crate::setup::Ready;

/// The folders below `examples`.
pub(crate) const EXAMPLES: [&str; 6] =
    ["chat", "embedding", "image-classifier", "recommender", "transcriber", "voice-activity"];

/// Models that only tests call, there too.
pub(crate) const TEST_GUESTS: [&str; 3] = ["guests/parrot", "guests/reader", "guests/relay"];

/// What rustup's target for WebAssembly spares.
const TARGET: &str = "wasm32-unknown-unknown";

/// A Rust with the source of its library, where rustup's has no target for WebAssembly.
const WEB_RUST: [Need; 4] = [
    Need {
        name: "a Rust that has its library's source",
        package: "rustc-web",
        check: &["/usr/bin/rustc", "--version"],
    },
    Need { name: "its cargo", package: "cargo-web", check: &["/usr/bin/cargo", "--version"] },
    Need {
        name: "the source of its library",
        package: "rust-web-src",
        check: &["test", "-f", "/usr/lib/rustlib/src/rust/library/std/Cargo.toml"],
    },
    Need {
        name: "a linker for WebAssembly",
        package: "lld-19",
        check: &["wasm-ld-19", "--version"],
    },
];

/// Sees to a Rust that can compile for WebAssembly.
pub(crate) fn provide_toolchain() -> Result<()> {
    let mut rustc = process::command("rustc");
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    let libraries = process::output(&mut rustc).ok().and_then(|path| String::from_utf8(path).ok());
    if libraries.is_some_and(|path| PathBuf::from(path.trim()).is_dir()) {
        return Ok(());
    }
    machine::provide(&WEB_RUST)
}

/// Compiles all examples and the tests' models; the `modelet` command is there.
pub(crate) fn build(ready: &Ready) -> Result<()> {
    EXAMPLES.iter().chain(&TEST_GUESTS).try_for_each(|example| build_one(ready, example))
}

/// Compiles the one in this folder below `examples`.
pub(crate) fn build_one(ready: &Ready, example: &str) -> Result<()> {
    let mut build = modelet(ready);
    process::run(build.arg("build").arg(workspace().join("examples").join(example)))
}

/// Runs the examples' own tests on this machine.
pub(crate) fn test(ready: &Ready) -> Result<()> {
    let mut cargo = in_target_dir(ready, ready.cargo());
    process::run(cargo.arg("test").current_dir(workspace().join("examples")))
}

/// Builds the guest of `examples/cost`, and has the program there compare it with the same code native.
pub(crate) fn measure_cost(ready: &Ready, bench: &Path) -> Result<()> {
    let examples = workspace().join("examples");
    process::run(modelet(ready).arg("build").arg(examples.join("cost")))?;
    let mut cargo = in_target_dir(ready, ready.cargo());
    cargo.args(["run", "--release", "--package", "cost", "--"]).arg(bench);
    process::run(cargo.arg(ready.folder("guests").join("modelet")).current_dir(examples))
}

/// The `modelet` command as an author of the examples runs it.
pub(crate) fn modelet(ready: &Ready) -> Command {
    in_target_dir(ready, ready.command(ready.built("modelet")))
}

/// Guests have a target directory of their own, which all of them share.
fn in_target_dir(ready: &Ready, mut command: Command) -> Command {
    command.env("CARGO_TARGET_DIR", ready.folder("guests"));
    command
}
