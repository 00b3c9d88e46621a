//! The ONNX Runtime backend: one session per graph, on which any number of threads run at once.
//!
//! The ort crate locks a session for every run, which would serialise all instances of a model. The
//! engine documents that `Run` may be called from several threads on one session; on the CPU
//! provider, the only one used here, a run keeps its state in a frame of its own. So runs go
//! through the C interface, and a stress test compares their outputs.

mod library;
mod value;

use std::ffi::CString;
use std::path::Path;
use std::ptr;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use ort::AsPointer as _;
use ort::ep::CPU;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{RunOptions, Session};

pub use library::LibraryError;

use super::cancel::Stop;
use super::{
    Backend, BackendKind, Cancel, LoadError, LoadOptions, LoadedGraph, RunError, check_inputs,
};
use crate::nn::onnx::Operator;
use crate::tensor::NamedTensor;
use crate::version::Signature;
use library::Library;
use value::{Input, Value};

const KIND: BackendKind = BackendKind::Onnxruntime;

/// ONNX Runtime.
pub struct OnnxRuntime {
    library: Arc<Library>,
}

impl OnnxRuntime {
    /// Loads the engine's library. A process has one: the same path gives the same engine again.
    ///
    /// # Errors
    /// When the file is no usable library, or another one is loaded already.
    pub fn open(path: &Path) -> Result<Self, LibraryError> {
        Ok(Self { library: library::load(path)? })
    }

    /// The settings of every session.
    fn session(&self, options: &LoadOptions) -> Result<SessionBuilder, ort::Error> {
        let builder = SessionBuilder::new(&self.library.environment)?
            .with_intra_threads(options.intra_op_threads.get())?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            // Threads of a run that wait by spinning would look busy and keep other runs waiting.
            .with_intra_op_spinning(false)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            // A pattern is planned for one set of shapes and kept for each that comes: memory that
            // grows with callers' choices, for graphs that are dynamic most of the time.
            .with_memory_pattern(false)?
            // The arena keeps the most that any run ever needed, for as long as the graph lives; an
            // idle graph must cost its weights only.
            .with_execution_providers([CPU::default().with_arena_allocator(false).build()])?
            // Otherwise the bytes choose the format, and a producer called `ORTM` turns a checked
            // ONNX model into a file of the engine's own format, which nothing here has checked.
            .with_config_entry("session.load_model_format", "ONNX")?;
        Ok(builder)
    }
}

impl Backend for OnnxRuntime {
    fn kind(&self) -> BackendKind {
        KIND
    }

    fn version(&self) -> String {
        self.library.version.clone()
    }

    fn library(&self) -> Option<&Path> {
        Some(&self.library.path)
    }

    fn load(
        &self,
        model: Bytes,
        signature: &Signature,
        options: &LoadOptions,
    ) -> Result<Box<dyn LoadedGraph>, LoadError> {
        let mut builder = self.session(options).map_err(|error| refused(error.message()))?;
        // The engine parses the bytes into messages of its own and keeps no pointer to them (only
        // its own format, asked to, is used in place).
        let session =
            builder.commit_from_memory(&model).map_err(|error| refused(error.message()))?;
        let inputs = session.inputs().iter().map(|outlet| outlet.name());
        let input_names = names(signature.inputs.iter().map(|spec| spec.name.as_str()), inputs)?;
        let outputs = session.outputs().iter().map(|outlet| outlet.name());
        let output_names = names(signature.outputs.iter().map(|spec| spec.name.as_str()), outputs)?;
        Ok(Box::new(Graph {
            library: Arc::clone(&self.library),
            session: Arc::new(session),
            signature: signature.clone(),
            input_names,
            output_names,
            bytes: model.len() as u64,
        }))
    }
}

/// `wanted` as the C interface takes names; each must be one the engine has.
fn names<'a>(
    wanted: impl Iterator<Item = &'a str>,
    have: impl Iterator<Item = &'a str> + Clone,
) -> Result<Vec<CString>, LoadError> {
    wanted
        .map(|name| {
            if !have.clone().any(|other| other == name) {
                return Err(LoadError::tensor(KIND, name, "the engine's graph has no such tensor"));
            }
            CString::new(name)
                .map_err(|_| LoadError::tensor(KIND, name, "its name has a zero byte"))
        })
        .collect()
}

/// The error of a model that the engine does not take.
fn refused(message: &str) -> LoadError {
    match missing_operator(message) {
        Some(operator) => LoadError::operator_missing(KIND, operator),
        None => LoadError::failed(KIND, message.trim()),
    }
}

/// The operator that the engine says it lacks. It says so in one of four sentences.
fn missing_operator(message: &str) -> Option<Operator> {
    // "Fatal error: com.example:Op(-1) is not a registered function/op"
    if let Some((before, _)) = message.split_once(" is not a registered function/op") {
        let (domain, rest) = before.rsplit(' ').next()?.rsplit_once(':')?;
        return Some(Operator::new(domain, rest.split('(').next()?));
    }
    // "Could not find an implementation for Op(17) node with name 'x'"
    // "Failed to find kernel for com.example.Op(1) (node:'x' ep:'CPUExecutionProvider')"
    let sentences = ["Could not find an implementation for ", "Failed to find kernel for "];
    if let Some((_, rest)) = sentences.iter().find_map(|sentence| message.split_once(sentence)) {
        let name = rest.split('(').next()?;
        let (domain, op_type) = name.rsplit_once([':', '.']).unwrap_or(("", name));
        return Some(Operator::new(domain, op_type));
    }
    // "In Node, ("x", Op, "com.example", -1) : … No Op registered for Op with domain_version …"
    let (before, rest) = message.split_once("No Op registered for ")?;
    let op_type = rest.split(' ').next()?;
    let domain = before
        .split_once("In Node, (")
        .and_then(|(_, node)| node.split(", ").nth(2))
        .map_or("", |domain| domain.trim_matches('"'));
    Some(Operator::new(domain, op_type))
}

/// A session and what a run of it needs.
struct Graph {
    library: Arc<Library>,
    /// Shared with outputs that still live in its memory.
    session: Arc<Session>,
    signature: Signature,
    /// In the signature's order.
    input_names: Vec<CString>,
    /// In the signature's order.
    output_names: Vec<CString>,
    bytes: u64,
}

impl LoadedGraph for Graph {
    fn run(&self, inputs: &[NamedTensor], cancel: &Cancel) -> Result<Vec<NamedTensor>, RunError> {
        let tensors = check_inputs(&self.signature, inputs)?;
        let options = Arc::new(Options(RunOptions::new().map_err(failed)?));
        let weak: Weak<dyn Stop> = Arc::downgrade(&options) as Weak<dyn Stop>;
        cancel.attach(weak);
        if cancel.is_cancelled() {
            return Err(RunError::cancelled());
        }
        let inputs: Vec<Input> = tensors
            .into_iter()
            .map(|tensor| Input::new(&self.library, tensor).map_err(RunError::failed))
            .collect::<Result<_, _>>()?;
        let outputs = self.run_values(&options.0, &inputs).map_err(|problem| {
            if cancel.is_cancelled() { RunError::cancelled() } else { RunError::failed(problem) }
        })?;
        self.signature
            .outputs
            .iter()
            .zip(outputs)
            .map(|(spec, value)| {
                let tensor = value.ok_or_else(|| "it was not computed".to_owned());
                let tensor = tensor.and_then(|v| value::output(v, &self.session, &inputs));
                let tensor = tensor.map_err(|problem| {
                    RunError::failed(format!("output {:?}: {problem}", spec.name))
                })?;
                Ok((spec.name.clone(), tensor))
            })
            .collect()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Graph {
    #[allow(
        unsafe_code,
        reason = "the ort crate runs a session only by exclusive reference, one run at a time"
    )]
    fn run_values(
        &self,
        options: &RunOptions,
        inputs: &[Input],
    ) -> Result<Vec<Option<Value>>, String> {
        let input_names: Vec<_> = self.input_names.iter().map(|name| name.as_ptr()).collect();
        let output_names: Vec<_> = self.output_names.iter().map(|name| name.as_ptr()).collect();
        let values: Vec<_> = inputs.iter().map(|input| input.value.as_ptr().cast_const()).collect();
        if values.len() != input_names.len() {
            return Err("the inputs are not those of the signature".to_owned());
        }
        let mut outputs = vec![ptr::null_mut(); output_names.len()];
        // SAFETY: names and values are as many as said, and live through the call, as do the
        // options. The session is used by several threads at once, which the engine allows for
        // `Run` on the CPU provider: it changes no state of the session beyond counters and caches
        // it locks itself, and the one such cache, of memory patterns, is off.
        let ran = unsafe {
            value::check((ort::api().Run)(
                self.session.ptr().cast_mut(),
                options.ptr(),
                input_names.as_ptr(),
                values.as_ptr(),
                values.len(),
                output_names.as_ptr(),
                output_names.len(),
                outputs.as_mut_ptr(),
            ))
        };
        // SAFETY: each was null before and is null or a value given to us now. They are taken
        // before the error is looked at, so that none is lost with it.
        let outputs = outputs.into_iter().map(|value| unsafe { Value::owned(value) }).collect();
        ran.map(|()| outputs)
    }
}

/// The options of one run, by which another thread stops it.
struct Options(RunOptions);

impl Stop for Options {
    fn stop(&self) {
        // It only sets a flag, which cannot fail; and a run that ends anyway is no loss.
        let _ = self.0.terminate();
    }
}

fn failed(error: ort::Error) -> RunError {
    RunError::failed(error.message())
}

#[cfg(test)]
mod tests;
