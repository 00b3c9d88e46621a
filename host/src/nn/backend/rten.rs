//! The rten backend: pure Rust, always linked, the default where no library is installed.
//!
//! rten computes with `f32`, `i32`, `i8` and `u8`. INT64 and BOOL are `i32` inside: inputs that do
//! not fit are refused, never cut, and outputs come back as the graph declares them. Other types
//! are refused when the graph is loaded. A run cannot be stopped once it has begun.

use std::any::Any;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use ::rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use bytes::Bytes;
use rten_tensor::AsView as _;
use rten_tensor::Layout as _;

use super::{
    Backend, BackendKind, Cancel, LoadError, LoadOptions, LoadedGraph, RunError, check_inputs,
};
use crate::nn::onnx::Operator;
use crate::tensor::{Datatype, NamedTensor, Tensor};
use crate::version::{Signature, TensorSpec};

const KIND: BackendKind = BackendKind::Rten;

/// The version that is linked, which the crate does not say itself; a test compares it.
const VERSION: &str = "0.27.0";

/// rten.
pub struct Rten {
    pools: Arc<Pools>,
}

impl Rten {
    /// The engine. Threads are started as runs need them.
    pub fn new() -> Self {
        Self { pools: Arc::new(Pools::default()) }
    }
}

impl Default for Rten {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for Rten {
    fn kind(&self) -> BackendKind {
        KIND
    }

    fn version(&self) -> String {
        VERSION.to_owned()
    }

    fn load(
        &self,
        model: Bytes,
        signature: &Signature,
        options: &LoadOptions,
    ) -> Result<Box<dyn LoadedGraph>, LoadError> {
        for spec in signature.inputs.iter().chain(&signature.outputs) {
            check_datatype(spec)?;
        }
        let bytes = model.len() as u64;
        // Without a copy where nobody else holds the bytes. The engine copies weights out of them.
        let model = Vec::from(model);
        let loaded = catch_unwind(|| ModelOptions::with_all_ops().load(model));
        let model = loaded
            .map_err(|panic| LoadError::failed(KIND, panic_message(&*panic)))?
            .map_err(|error| refused(&error.to_string()))?;
        let node = |spec: &TensorSpec| {
            model.find_node(&spec.name).ok_or_else(|| {
                LoadError::tensor(KIND, &spec.name, "the engine's graph has no such tensor")
            })
        };
        Ok(Box::new(Graph {
            inputs: signature.inputs.iter().map(node).collect::<Result<_, _>>()?,
            outputs: signature.outputs.iter().map(node).collect::<Result<_, _>>()?,
            signature: signature.clone(),
            model,
            pools: Arc::clone(&self.pools),
            threads: options.intra_op_threads,
            bytes,
        }))
    }
}

fn check_datatype(spec: &TensorSpec) -> Result<(), LoadError> {
    match spec.datatype {
        Datatype::Fp32
        | Datatype::Int32
        | Datatype::Int64
        | Datatype::Bool
        | Datatype::Int8
        | Datatype::Uint8 => Ok(()),
        Datatype::Uint16
        | Datatype::Uint32
        | Datatype::Uint64
        | Datatype::Int16
        | Datatype::Fp16
        | Datatype::Fp64
        | Datatype::Bf16
        | Datatype::Bytes => {
            Err(LoadError::tensor(KIND, &spec.name, format!("it has no {}", spec.datatype)))
        }
    }
}

/// The error of a model that the engine does not take; it says a missing operator as
/// `… com.example/Op operator not supported or not enabled`.
fn refused(message: &str) -> LoadError {
    let operator = message.split_once(" operator not ").and_then(|(before, _)| {
        let name = before.rsplit([' ', '"']).next()?;
        let (domain, op_type) = name.rsplit_once('/').unwrap_or(("", name));
        Some(Operator::new(domain, op_type))
    });
    match operator {
        Some(operator) => LoadError::operator_missing(KIND, operator),
        None => LoadError::failed(KIND, message),
    }
}

/// A model and what a run of it needs.
struct Graph {
    model: Model,
    signature: Signature,
    /// In the signature's order.
    inputs: Vec<NodeId>,
    /// In the signature's order.
    outputs: Vec<NodeId>,
    pools: Arc<Pools>,
    /// Threads of one run.
    threads: NonZeroUsize,
    bytes: u64,
}

impl LoadedGraph for Graph {
    fn run(&self, inputs: &[NamedTensor], cancel: &Cancel) -> Result<Vec<NamedTensor>, RunError> {
        let tensors = check_inputs(&self.signature, inputs)?;
        let mut values: Vec<(NodeId, ValueOrView<'_>)> = Vec::with_capacity(tensors.len());
        for ((spec, node), tensor) in self.signature.inputs.iter().zip(&self.inputs).zip(tensors) {
            values.push((*node, input(spec, tensor)?.into()));
        }
        if cancel.is_cancelled() {
            return Err(RunError::cancelled());
        }
        let pool = self.pools.take(self.threads);
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&pool)));
        // An engine that panics on a shape it did not foresee must not take the thread with it. The
        // model is not changed by a run, so it is whole whatever happened.
        let ran =
            catch_unwind(AssertUnwindSafe(|| self.model.run(values, &self.outputs, Some(options))));
        self.pools.give_back(self.threads, pool);
        let values = ran
            .map_err(|panic| RunError::failed(panic_message(&*panic)))?
            .map_err(|error| RunError::failed(error.to_string()))?;
        let outputs = self.signature.outputs.iter().zip(values);
        outputs.map(|(spec, value)| Ok((spec.name.clone(), output(spec, value)?))).collect()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// `tensor`, which is what `spec` says, for the engine. One copy: its types want their alignment.
fn input(spec: &TensorSpec, tensor: &Tensor) -> Result<Value, RunError> {
    let data = tensor.data();
    let value = match tensor.datatype() {
        Datatype::Fp32 => {
            let elements = data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            shaped(tensor, elements.collect::<Vec<_>>())
        }
        Datatype::Int32 => {
            let elements = data.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes));
            shaped(tensor, elements.collect::<Vec<_>>())
        }
        Datatype::Int64 => shaped(tensor, narrowed(spec, data)?),
        Datatype::Bool => shaped(tensor, data.iter().map(|byte| i32::from(*byte)).collect()),
        Datatype::Int8 => shaped(tensor, data.iter().map(|byte| byte.cast_signed()).collect()),
        Datatype::Uint8 => shaped(tensor, data.to_vec()),
        // Refused when the graph was loaded.
        other => Err(format!("the engine has no {other}")),
    };
    value.map_err(|problem| RunError::failed(format!("input {:?}: {problem}", spec.name)))
}

fn shaped<T>(tensor: &Tensor, data: Vec<T>) -> Result<Value, String>
where
    Value: From<rten_tensor::Tensor<T>>,
{
    Value::from_shape(tensor.shape(), data).map_err(|error| error.to_string())
}

fn narrowed(spec: &TensorSpec, data: &[u8]) -> Result<Vec<i32>, RunError> {
    let elements = data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
    let narrow = |(index, element): (usize, i64)| {
        i32::try_from(element).map_err(|_| {
            RunError::invalid_input(
                &spec.name,
                format!(
                    "{} within the range of INT32, which is all that rten has",
                    spec.describe()
                ),
                format!("{element} in element {index}"),
            )
        })
    };
    elements.enumerate().map(narrow).collect()
}

/// What the engine computed for `spec`, in the datatype that the graph declares where the engine
/// has none of its own for it.
fn output(spec: &TensorSpec, value: Value) -> Result<Tensor, RunError> {
    let failed = |problem: String| RunError::failed(format!("output {:?}: {problem}", spec.name));
    let (datatype, shape, data) = match value {
        Value::FloatTensor(tensor) => {
            (Datatype::Fp32, tensor.shape().to_vec(), bytes_of(&tensor.to_vec(), f32::to_le_bytes))
        }
        Value::Int8Tensor(tensor) => {
            (Datatype::Int8, tensor.shape().to_vec(), bytes_of(&tensor.to_vec(), i8::to_le_bytes))
        }
        Value::UInt8Tensor(tensor) => (Datatype::Uint8, tensor.shape().to_vec(), tensor.to_vec()),
        Value::Int32Tensor(tensor) => {
            let (shape, elements) = (tensor.shape().to_vec(), tensor.to_vec());
            match spec.datatype {
                Datatype::Int64 => {
                    let data = bytes_of(&elements, |element| i64::from(element).to_le_bytes());
                    (Datatype::Int64, shape, data)
                }
                Datatype::Bool => {
                    let data = elements.iter().map(|element| u8::from(*element != 0)).collect();
                    (Datatype::Bool, shape, data)
                }
                _ => (Datatype::Int32, shape, bytes_of(&elements, i32::to_le_bytes)),
            }
        }
        Value::Sequence(_) => {
            return Err(failed("it is a sequence, and only tensors can be served".to_owned()));
        }
        // The engine may come to have more types than these.
        _ => return Err(failed("it is of a type that cannot be served".to_owned())),
    };
    Tensor::new(datatype, shape, data.into()).map_err(|error| failed(error.to_string()))
}

fn bytes_of<T: Copy, const N: usize>(elements: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut data = vec![0; elements.len() * N];
    for (chunk, element) in data.as_chunks_mut::<N>().0.iter_mut().zip(elements) {
        *chunk = bytes(*element);
    }
    data
}

/// What a panic said.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the engine panicked: {}", text.unwrap_or("it does not say why"))
}

/// Thread pools that no run is using.
///
/// The engine hands a run to a pool of threads and waits. In one pool for all, runs would wait for
/// one another's threads; in its default pool, each would spread over all cores. So each run has a
/// pool to itself, of as many threads as it may use; there are as many pools as runs at once.
#[derive(Default)]
struct Pools(Mutex<Vec<(NonZeroUsize, Arc<ThreadPool>)>>);

impl Pools {
    fn take(&self, threads: NonZeroUsize) -> Arc<ThreadPool> {
        let mut idle = self.lock();
        let place = idle.iter().position(|(have, _)| *have == threads);
        if let Some(place) = place {
            return idle.swap_remove(place).1;
        }
        drop(idle);
        Arc::new(ThreadPool::with_num_threads(threads.get()))
    }

    fn give_back(&self, threads: NonZeroUsize, pool: Arc<ThreadPool>) {
        self.lock().push((threads, pool));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(NonZeroUsize, Arc<ThreadPool>)>> {
        // The list is whole whatever a panicking holder was doing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
