//! A Rust that can compile for WebAssembly: the target that rustup installs, or any Rust that has the
//! standard library's source, which is then compiled along.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::exit::Exit;
use crate::failure::Failure;

/// What models are compiled for: no WASI, so that a component imports nothing but the contract.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Where Debian puts its Rust, beside which rustup's is usually first in the PATH.
const DEBIAN: &str = "/usr/bin";

/// Linkers for WebAssembly, as distributions name them.
const LINKERS: [&str; 6] =
    ["wasm-ld", "wasm-ld-21", "wasm-ld-20", "wasm-ld-19", "wasm-ld-18", "rust-lld"];

/// 128 KiB of stack beside the data: Rust's own megabyte would be 16 more pages of each instance. Vector
/// instructions, for pre-processing. And for crates that ask for randomness, the guest SDK's answer.
const FLAGS: [&str; 3] = [
    "-Clink-arg=-zstack-size=131072",
    "-Ctarget-feature=+simd128",
    "--cfg=getrandom_backend=\"custom\"",
];

/// A way to compile for WebAssembly.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The target is installed.
    Target {
        /// The Rust that has it.
        sysroot: PathBuf,
    },
    /// The standard library is compiled from its source.
    Source {
        /// The folder of `cargo` and `rustc`.
        bin: PathBuf,
        /// A linker for WebAssembly.
        linker: PathBuf,
    },
}

impl Toolchain {
    /// Finds one.
    ///
    /// # Errors
    /// When there is none; the failure says how to get one.
    pub(crate) fn find() -> Result<Self, Failure> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<_> = std::env::split_paths(&path).collect();
        let own = folders.iter().find(|folder| folder.join("rustc").is_file());
        let sysroot_of = |bin: &Path| sysroot(&bin.join("rustc"));
        let own_sysroot = own.and_then(|bin| sysroot_of(bin));
        if let Some(sysroot) = own_sysroot.filter(|sysroot| has_target(sysroot)) {
            return Ok(Self::Target { sysroot });
        }
        let with_source = own.map(PathBuf::as_path).into_iter().chain([Path::new(DEBIAN)]);
        let bin = with_source
            .filter(|bin| bin.join("cargo").is_file())
            .find(|bin| sysroot_of(bin).is_some_and(|sysroot| has_source(&sysroot)));
        let linker = LINKERS.iter().find_map(|name| {
            folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
        });
        match (bin, linker) {
            (Some(bin), Some(linker)) => Ok(Self::Source { bin: bin.to_owned(), linker }),
            _ => Err(missing()),
        }
    }

    /// What it is, for people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Target { sysroot } => format!("the target {TARGET} of {}", sysroot.display()),
            Self::Source { bin, linker } => format!(
                "the Rust in {} with its library's source, linked by {}",
                bin.display(),
                linker.display()
            ),
        }
    }

    /// `cargo build --release` for the target, still to be told where.
    pub(crate) fn build(&self) -> Command {
        let mut command = match self {
            Self::Target { .. } => Command::new("cargo"),
            Self::Source { bin, linker } => {
                let mut command = Command::new(bin.join("cargo"));
                command
                    .env("RUSTC", bin.join("rustc"))
                    // -Zbuild-std is not stable; the library is the compiler's own, so it fits.
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
                command
            }
        };
        command.args(["build", "--release", "--target", TARGET]);
        if matches!(self, Self::Source { .. }) {
            command.arg("-Zbuild-std=std,panic_abort");
        }
        // Flags for the machine's own programs are not for WebAssembly, and would replace these.
        command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        let flags = FLAGS.into_iter().map(str::to_owned).chain(remap());
        let flags: Vec<_> = flags.map(toml::Value::from).collect();
        let flags = toml::Value::from(flags);
        command.args(["--config", &format!("target.{TARGET}.rustflags={flags}")]);
        command
    }
}

/// A component says nothing of the machine it was built on: panics name places in crates, not in the
/// author's home.
fn remap() -> Option<String> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)?;
    Some(format!("--remap-path-prefix={}=cargo", cargo.display()))
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(text.trim().into())
}

fn has_target(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir()
}

fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file()
}

fn missing() -> Failure {
    Failure::new(Exit::Failed, format!("no Rust here can compile for {TARGET}")).remedy(format!(
        "rustup target add {TARGET}; or on Debian: \
         apt-get install --no-install-recommends rustc-web cargo-web rust-web-src lld-19"
    ))
}
