//! What the workers are told, which the server starts.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use modelet_host::names::NameError;
use modelet_host::nn::backend::BackendKind;
use modelet_host::nn::gate::Task;
use modelet_host::worker::WorkerLimits;

use super::Backend;
use crate::failure::Failure;

/// What a worker limits itself to; the server says it.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct LimitArgs {
    /// The most address space the process may take
    #[arg(long, value_name = "BYTES")]
    memory_bytes: u64,
    /// The most processor time the process may take
    #[arg(long, value_name = "SECONDS")]
    cpu_s: u64,
    /// The longest file the process may write
    #[arg(long, value_name = "BYTES")]
    file_bytes: u64,
}

impl LimitArgs {
    /// The limits; the wall clock is for whoever started the worker.
    pub(crate) fn limits(self) -> WorkerLimits {
        let Self { memory_bytes, cpu_s, file_bytes } = self;
        WorkerLimits { memory_bytes, cpu_s, file_bytes, timeout_s: 0 }
    }
}

/// Compile a component in a process of its own; the server starts it
#[derive(Debug, Args)]
pub(crate) struct CompileWorkerArgs {
    /// The component to compile
    pub(crate) source: PathBuf,
    /// Where the compiled code goes
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

/// Load a graph and run it once in a process of its own; the server starts it
#[derive(Debug, Args)]
pub(crate) struct GraphWorkerArgs {
    /// The ONNX model
    model: PathBuf,
    /// External data under the location that the model gives; repeatable
    #[arg(long, num_args = 2, value_names = ["LOCATION", "FILE"], allow_hyphen_values = true)]
    external: Vec<OsString>,
    /// The engine
    #[arg(long, value_enum)]
    backend: Backend,
    /// The engine's library
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// Threads of one run
    #[arg(long, value_name = "N")]
    threads: NonZeroUsize,
    /// Run made-up rows together instead of once
    #[arg(long)]
    rows: bool,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

impl GraphWorkerArgs {
    /// What the worker is to do.
    ///
    /// # Errors
    /// When a location is no asset's name.
    pub(crate) fn task(self) -> Result<Task, Failure> {
        let mut external = Vec::new();
        for pair in self.external.chunks(2) {
            let [location, path] = pair else { continue };
            let location = location.to_str().unwrap_or_default().parse();
            let location =
                location.map_err(|error: NameError| Failure::usage(error.to_string()))?;
            external.push((location, PathBuf::from(path)));
        }
        Ok(Task {
            model: self.model,
            external,
            backend: match self.backend {
                Backend::Onnxruntime => BackendKind::Onnxruntime,
                Backend::Rten | Backend::Auto => BackendKind::Rten,
            },
            library: self.library,
            threads: self.threads,
            rows: self.rows,
        })
    }
}
