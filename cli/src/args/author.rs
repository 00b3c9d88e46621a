//! What model authors may type: a project from its first file to a server that follows it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use modelet_host::names::ModelName;

use super::{Backend, DEFAULT_LISTEN};

/// Make a project for a model of your own
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  modelet new sentiment && cd sentiment && cargo test && modelet build\n\n\
    The project has a copy of the guest SDK, a graph of four weights, and tests; it can be built and\n\
    published as it is."
)]
pub(crate) struct NewArgs {
    /// The model's name
    pub(crate) name: ModelName,
    /// The folder to make [default: NAME]
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// Use the guest SDK in this folder instead of a copy
    #[arg(long, value_name = "DIR")]
    pub(crate) sdk: Option<PathBuf>,
}

/// Compile a project to a component and check it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  modelet build\n  modelet build examples/embedding\n\n\
    Needs a Rust that can compile for wasm32-unknown-unknown: 'rustup target add\n\
    wasm32-unknown-unknown', or Debian's packages rustc-web, cargo-web, rust-web-src and lld-19.\n\
    Says which it took, and ends with 5 if the component could not be published.")]
pub(crate) struct BuildArgs {
    /// The project's folder
    #[arg(default_value = ".", value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

/// Serve a project as its code is now, and follow every change
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  modelet dev   # in another terminal: modelet infer NAME ...\n\n\
    Runs a server with a data directory of its own, publishes the project as the version dev-1, and\n\
    as dev-2, dev-3, ... after changes. The server's log is shown. Ctrl-C ends it all."
)]
pub(crate) struct DevArgs {
    /// The project's folder
    #[arg(default_value = ".", value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// The address and port to serve at; port 0 takes any free one
    #[arg(long, value_name = "ADDR:PORT", default_value_t = DEFAULT_LISTEN)]
    pub(crate) listen: SocketAddr,
}

/// Print a script that completes this command line in a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  modelet completions bash > ~/.local/share/bash-completion/completions/modelet"
)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Print the manual as a man page
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  modelet man > ~/.local/share/man/man1/modelet.1")]
pub(crate) struct ManArgs {}

/// Put a component or an ONNX graph through the checks of a publication, without a server
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  modelet inspect model.wasm\n  modelet inspect model.onnx --json\n  \
    modelet inspect model.onnx --backend rten\n\n\
    A file named .onnx is taken for a graph, with the files beside it that it names; any other for a\n\
    component. Components are compiled, and graphs loaded and run once on made-up inputs, in a process\n\
    with the limits of the settings. What would not be published is exit code 5."
)]
pub(crate) struct InspectArgs {
    /// The file to look into
    pub(crate) file: PathBuf,
    /// The engine for a graph
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub(crate) backend: Backend,
    /// A TOML file of settings, as for 'modelet serve': its limits are kept
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}
