//! Compute engines behind one small trait, and what is the same for all of them: loading options,
//! errors, cancelling, and the check of inputs.

mod cancel;
mod discover;
mod inputs;
mod onnxruntime;
mod rten;
#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

pub use cancel::Cancel;
pub use discover::{Backends, Search};
pub use inputs::{MAX_PROBE_BYTES, check_inputs, probe, probe_inputs};
pub use onnxruntime::{LibraryError, OnnxRuntime};
pub use rten::Rten;

use super::onnx::Operator;
use crate::tensor::NamedTensor;
use crate::version::Signature;

/// The engines there can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendKind {
    /// ONNX Runtime, from a library found when the server starts.
    Onnxruntime,
    /// rten, linked in.
    Rten,
}

impl BackendKind {
    /// The engine's name, as versions ask for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Onnxruntime => "onnxruntime",
            Self::Rten => "rten",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The variable of the environment, and its value, that keeps ONNX Runtime's library from collecting
/// and sending usage events. It is read when the library is loaded; later is too late.
pub const NO_TELEMETRY: (&str, &str) = ("ORT_DISABLE_TELEMETRY", "1");

/// One thread, because calls already run side by side: more would only take turns with them.
pub const DEFAULT_INTRA_OP_THREADS: NonZeroUsize = NonZeroUsize::MIN;

/// How a graph is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Threads that one run is spread over.
    pub intra_op_threads: NonZeroUsize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { intra_op_threads: DEFAULT_INTRA_OP_THREADS }
    }
}

/// A compute engine.
pub trait Backend: Send + Sync {
    /// Which engine it is.
    fn kind(&self) -> BackendKind;

    /// The engine's version, as it says itself.
    fn version(&self) -> String;

    /// The file that the engine was loaded from; none where it is linked in.
    fn library(&self) -> Option<&Path> {
        None
    }

    /// Loads a model. Called once per graph and host; takes from milliseconds to many seconds.
    ///
    /// `model` is what [`Onnx::resolve_external`](super::onnx::Onnx::resolve_external) gave and
    /// `signature` what its [`signature`](super::onnx::Onnx::signature) says: an engine is never
    /// handed bytes that nobody read before. The bytes are not needed after this returns.
    ///
    /// # Errors
    /// When the engine cannot run the model; the error names the operator where that is why.
    fn load(
        &self,
        model: Bytes,
        signature: &Signature,
        options: &LoadOptions,
    ) -> Result<Box<dyn LoadedGraph>, LoadError>;
}

/// A model loaded into an engine. Dropping it unloads it.
pub trait LoadedGraph: Send + Sync {
    /// Runs the graph on the calling thread, which must have a native stack: an engine on a guest's
    /// fiber overflows it. Called from several threads at once; no run waits for another.
    ///
    /// Outputs come in the signature's order, with the datatypes and shapes the engine gave them.
    /// They may keep the graph's memory alive until they are dropped.
    ///
    /// # Errors
    /// When an input is not what the signature says, when `cancel` came first, or what the engine
    /// says.
    fn run(&self, inputs: &[NamedTensor], cancel: &Cancel) -> Result<Vec<NamedTensor>, RunError>;

    /// Bytes that the graph takes at least: those of its file.
    fn bytes(&self) -> u64;
}

/// Why an engine does not take a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(LoadProblem);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum LoadProblem {
    #[error("{backend} has no operator {operator}{remedy}")]
    Operator { backend: BackendKind, operator: Operator, remedy: &'static str },
    #[error("{backend} cannot serve {tensor:?}: {problem}{remedy}")]
    Tensor { backend: BackendKind, tensor: String, problem: String, remedy: &'static str },
    #[error("{backend} is not available: {problem}")]
    Unavailable { backend: BackendKind, problem: String },
    #[error("{backend} refused the model: {problem}")]
    Failed { backend: BackendKind, problem: String },
}

/// The kinds of [`LoadError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadErrorKind {
    /// The engine lacks an operator the model uses.
    UnsupportedOperator,
    /// The engine has no such type for an input or output.
    UnsupportedTensor,
    /// The engine is not installed, or broken.
    Unavailable,
    /// Anything else the engine says.
    Failed,
}

impl LoadError {
    fn operator_missing(backend: BackendKind, operator: Operator) -> Self {
        Self(LoadProblem::Operator { backend, operator, remedy: remedy(backend) })
    }

    fn tensor(backend: BackendKind, tensor: &str, problem: impl Into<String>) -> Self {
        let (tensor, problem) = (tensor.to_owned(), problem.into());
        Self(LoadProblem::Tensor { backend, tensor, problem, remedy: remedy(backend) })
    }

    fn unavailable(backend: BackendKind, problem: impl Into<String>) -> Self {
        Self(LoadProblem::Unavailable { backend, problem: problem.into() })
    }

    fn failed(backend: BackendKind, problem: impl Into<String>) -> Self {
        Self(LoadProblem::Failed { backend, problem: problem.into() })
    }

    /// What kind of error it is.
    pub fn kind(&self) -> LoadErrorKind {
        match &self.0 {
            LoadProblem::Operator { .. } => LoadErrorKind::UnsupportedOperator,
            LoadProblem::Tensor { .. } => LoadErrorKind::UnsupportedTensor,
            LoadProblem::Unavailable { .. } => LoadErrorKind::Unavailable,
            LoadProblem::Failed { .. } => LoadErrorKind::Failed,
        }
    }

    /// The operator the engine lacks, where that is why.
    pub fn operator(&self) -> Option<&Operator> {
        match &self.0 {
            LoadProblem::Operator { operator, .. } => Some(operator),
            _ => None,
        }
    }
}

/// What to do about something an engine lacks.
const fn remedy(backend: BackendKind) -> &'static str {
    match backend {
        BackendKind::Rten => "; the onnxruntime backend may have it: see `modelet setup`",
        BackendKind::Onnxruntime => "",
    }
}

/// Why a run gave no outputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RunError(RunProblem);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum RunProblem {
    #[error("input {tensor:?}: wanted {wanted}, given {given}")]
    InvalidInput { tensor: String, wanted: String, given: String },
    #[error("the run was cancelled")]
    Cancelled,
    #[error("the graph gave no result within {} ms, its queue included (compute.timeout_ms)", .0.as_millis())]
    Timeout(Duration),
    #[error("{0} jobs wait for a compute thread already (compute.queue_length)")]
    Overloaded(usize),
    #[error("{0}")]
    Failed(String),
}

/// The kinds of [`RunError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunErrorKind {
    /// The caller's tensors are not what the graph takes.
    InvalidInput,
    /// The caller went away, or its deadline passed.
    Cancelled,
    /// The run took longer than one may.
    Timeout,
    /// Too many runs wait already.
    Overloaded,
    /// The engine could not compute.
    Failed,
}

impl RunError {
    /// An input that is not what the graph takes.
    pub fn invalid_input(
        tensor: impl Into<String>,
        wanted: impl Into<String>,
        given: impl Into<String>,
    ) -> Self {
        let (tensor, wanted, given) = (tensor.into(), wanted.into(), given.into());
        Self(RunProblem::InvalidInput { tensor, wanted, given })
    }

    /// A run that was stopped, or never begun, because nobody waits for it.
    pub fn cancelled() -> Self {
        Self(RunProblem::Cancelled)
    }

    /// A run that took longer than `limit`.
    pub fn timeout(limit: Duration) -> Self {
        Self(RunProblem::Timeout(limit))
    }

    /// Anything else.
    pub fn failed(problem: impl Into<String>) -> Self {
        Self(RunProblem::Failed(problem.into()))
    }

    /// No more runs may wait than `limit`, which wait already.
    pub fn overloaded(limit: usize) -> Self {
        Self(RunProblem::Overloaded(limit))
    }

    /// What kind of error it is.
    pub fn kind(&self) -> RunErrorKind {
        match &self.0 {
            RunProblem::InvalidInput { .. } => RunErrorKind::InvalidInput,
            RunProblem::Cancelled => RunErrorKind::Cancelled,
            RunProblem::Timeout(_) => RunErrorKind::Timeout,
            RunProblem::Overloaded(_) => RunErrorKind::Overloaded,
            RunProblem::Failed(_) => RunErrorKind::Failed,
        }
    }

    /// The input that is not what the graph takes, where that is why.
    pub fn tensor(&self) -> Option<&str> {
        match &self.0 {
            RunProblem::InvalidInput { tensor, .. } => Some(tensor),
            _ => None,
        }
    }
}
