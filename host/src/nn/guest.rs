//! The host functions behind a guest's imports: wasi-nn, tensors, assets, config, log and reply.
//!
//! Both namespaces, `wasi:nn` and `modelet:nn`, get the same bodies from one macro; those that move a
//! tensor's bytes are in `bytes.rs`. What a guest may
//! cause in good faith comes back as a WIT error; a trap is left for what no interface can say.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::Resource;
use wasmtime::format_err;

use super::backend::{RunErrorKind, check_inputs};
use super::graph::Graph;
use crate::engine::contract::types;
use crate::engine::state::{GuestState, LogLevel};
use crate::engine::stream::EmitError;
use crate::limit::Limit;
use crate::tensor::{Datatype, NamedTensor, Tensor, total_bytes};

/// A guest's handle to a graph.
pub struct GuestGraph(Arc<Graph>);

/// A guest's handle to something it can compute with. Stateless, so one is as good as many.
pub struct GuestContext(Arc<Graph>);

/// A guest's handle to an error.
#[derive(Debug)]
pub struct GuestError {
    code: Code,
    message: String,
}

/// The kinds of error of wasi-nn, apart from either namespace's generated type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    InvalidArgument,
    Timeout,
    RuntimeError,
    UnsupportedOperation,
    TooLarge,
    NotFound,
}

impl GuestError {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// How deep a guest's string may reach into an error: enough to recognise it.
const QUOTED_NAME_CHARS: usize = 80;

impl GuestState {
    fn refuse<T>(
        &mut self,
        code: Code,
        message: impl Into<String>,
    ) -> wasmtime::Result<Result<T, Resource<GuestError>>> {
        Ok(Err(self.hold(GuestError::new(code, message))?))
    }

    /// The graph in one of the version's assets.
    fn find_graph(&mut self, name: &str) -> Result<Arc<Graph>, GuestError> {
        self.version.graphs.get(name).cloned().ok_or_else(|| {
            let name: String = name.chars().take(QUOTED_NAME_CHARS).collect();
            let have: Vec<_> = self.version.graphs.keys().map(ToString::to_string).collect();
            GuestError::new(
                Code::NotFound,
                format!("this version has no graph {name:?}; its graphs are {have:?}"),
            )
        })
    }

    /// Takes the tensors out of the guest's hands; they are the host's from here on.
    fn take_named(
        &mut self,
        named: Vec<(String, Resource<Tensor>)>,
    ) -> wasmtime::Result<Vec<NamedTensor>> {
        named.into_iter().map(|(name, handle)| Ok((name, self.take_tensor(handle)?))).collect()
    }

    async fn run(
        &mut self,
        context: Resource<GuestContext>,
        inputs: Vec<(String, Resource<Tensor>)>,
    ) -> wasmtime::Result<Result<Vec<(String, Resource<Tensor>)>, Resource<GuestError>>> {
        let inputs = self.take_named(inputs)?;
        let graph = Arc::clone(&self.table.get(&context)?.0);
        if let Err(error) = check_inputs(graph.signature(), &inputs) {
            return self.refuse(Code::InvalidArgument, error.to_string());
        }
        let outputs = match self.compute.run(graph, inputs, &self.payer).await {
            Ok(outputs) => outputs,
            Err(error) => {
                let code = match error.kind() {
                    RunErrorKind::InvalidInput => Code::InvalidArgument,
                    RunErrorKind::Cancelled => Code::Timeout,
                    RunErrorKind::Timeout => {
                        self.met(Limit::ComputeTime);
                        Code::Timeout
                    }
                    RunErrorKind::Overloaded => {
                        self.met(Limit::ComputeQueue);
                        Code::RuntimeError
                    }
                    RunErrorKind::Failed => Code::RuntimeError,
                };
                return self.refuse(code, error.to_string());
            }
        };
        let bytes = total_bytes(&outputs);
        if !self.has_room_for(bytes) {
            return self.refuse(
                Code::TooLarge,
                format!(
                    "the outputs take {bytes} bytes, more than is left of guest.tensor_bytes for this call"
                ),
            );
        }
        outputs
            .into_iter()
            .map(|(name, tensor)| Ok((name, self.give_tensor(tensor)?)))
            .collect::<wasmtime::Result<Vec<_>>>()
            .map(Ok)
    }

    /// Sends a partial answer, and has the guest wait while its caller does not keep up.
    async fn send(&mut self, outputs: Vec<NamedTensor>) -> Result<(), types::Problem> {
        let Some(emitter) = self.emitter() else {
            return Err(problem("the caller asked for no stream".to_owned()));
        };
        emitter.emit(outputs).await.map_err(|error| {
            if matches!(error, EmitError::TooLarge { .. }) {
                self.met(Limit::StreamBytes);
            }
            let tensor = error.tensor().map(str::to_owned);
            types::Problem { message: error.to_string(), tensor }
        })
    }

    /// A handle to what a guest made by wasi-nn's constructor, which has no way to refuse but a trap.
    pub(super) fn constructed(
        &mut self,
        built: Result<Tensor, String>,
    ) -> wasmtime::Result<Resource<Tensor>> {
        let tensor = built
            .map_err(|message| format_err!("the guest made an impossible tensor: {message}"))?;
        self.give_tensor(tensor)
    }

    /// A handle to what a guest made by `make`.
    pub(super) fn made(
        &mut self,
        built: Result<Tensor, String>,
    ) -> wasmtime::Result<Result<Resource<Tensor>, types::Problem>> {
        match built {
            Ok(tensor) => Ok(Ok(self.give_tensor(tensor)?)),
            Err(message) => Ok(Err(problem(message))),
        }
    }

    /// The bytes of a tensor, shared.
    pub(super) fn data_of(&self, tensor: &Resource<Tensor>) -> wasmtime::Result<Bytes> {
        Ok(self.table.get(tensor)?.data().clone())
    }

    /// Says in one sentence that a tensor of `bytes` bytes has no room.
    pub(super) fn check_room_for(&mut self, bytes: u64) -> Result<(), String> {
        match self.has_room_for(bytes) {
            true => Ok(()),
            false => Err(format!(
                "{bytes} bytes are more than is left of guest.tensor_bytes for this call"
            )),
        }
    }

    /// Rows of axis 0, sharing the data; needs elements of one size.
    fn slice_rows(&self, of: &Resource<Tensor>, start: u32, count: u32) -> Result<Tensor, String> {
        let tensor = self.table.get(of).map_err(|error| error.to_string())?;
        tensor.rows(start as usize, count as usize)
    }
}

fn dimensions_of(tensor: &Tensor) -> Vec<u32> {
    // A tensor whose axis does not fit is larger than any guest's memory; saturation is as good as
    // any number, and data() refuses by its own limit.
    tensor.shape().iter().map(|dim| u32::try_from(*dim).unwrap_or(u32::MAX)).collect()
}

fn problem(message: String) -> types::Problem {
    types::Problem { message, tensor: None }
}

/// What the generated functions answer that `bytes.rs` has other ones for: never called.
fn linked_elsewhere() -> wasmtime::Error {
    format_err!("the host has linked the wrong function for a tensor's bytes")
}

impl From<types::Datatype> for Datatype {
    fn from(datatype: types::Datatype) -> Self {
        match datatype {
            types::Datatype::Boolean => Self::Bool,
            types::Datatype::Uint8 => Self::Uint8,
            types::Datatype::Uint16 => Self::Uint16,
            types::Datatype::Uint32 => Self::Uint32,
            types::Datatype::Uint64 => Self::Uint64,
            types::Datatype::Int8 => Self::Int8,
            types::Datatype::Int16 => Self::Int16,
            types::Datatype::Int32 => Self::Int32,
            types::Datatype::Int64 => Self::Int64,
            types::Datatype::Fp16 => Self::Fp16,
            types::Datatype::Fp32 => Self::Fp32,
            types::Datatype::Fp64 => Self::Fp64,
            types::Datatype::Bf16 => Self::Bf16,
            types::Datatype::Bytes => Self::Bytes,
        }
    }
}

impl From<Datatype> for types::Datatype {
    fn from(datatype: Datatype) -> Self {
        match datatype {
            Datatype::Bool => Self::Boolean,
            Datatype::Uint8 => Self::Uint8,
            Datatype::Uint16 => Self::Uint16,
            Datatype::Uint32 => Self::Uint32,
            Datatype::Uint64 => Self::Uint64,
            Datatype::Int8 => Self::Int8,
            Datatype::Int16 => Self::Int16,
            Datatype::Int32 => Self::Int32,
            Datatype::Int64 => Self::Int64,
            Datatype::Fp16 => Self::Fp16,
            Datatype::Fp32 => Self::Fp32,
            Datatype::Fp64 => Self::Fp64,
            Datatype::Bf16 => Self::Bf16,
            Datatype::Bytes => Self::Bytes,
        }
    }
}

/// wasi-nn, tensors and reply for one namespace; the two differ in nothing but their generated types.
macro_rules! serve_namespace {
    ($nn:path, $tensors:path, $reply:path) => {
        const _: () = {
            use $nn as nn;
            use $reply as reply;
            use $tensors as tensors;

            impl nn::tensor::Host for GuestState {}

            impl From<nn::tensor::TensorType> for Datatype {
                fn from(datatype: nn::tensor::TensorType) -> Self {
                    match datatype {
                        nn::tensor::TensorType::Fp16 => Self::Fp16,
                        nn::tensor::TensorType::Fp32 => Self::Fp32,
                        nn::tensor::TensorType::Fp64 => Self::Fp64,
                        nn::tensor::TensorType::Bf16 => Self::Bf16,
                        nn::tensor::TensorType::U8 => Self::Uint8,
                        nn::tensor::TensorType::I32 => Self::Int32,
                        nn::tensor::TensorType::I64 => Self::Int64,
                    }
                }
            }

            impl nn::tensor::HostTensor for GuestState {
                fn new(
                    &mut self,
                    _dimensions: Vec<u32>,
                    _ty: nn::tensor::TensorType,
                    _data: Vec<u8>,
                ) -> wasmtime::Result<Resource<Tensor>> {
                    Err(linked_elsewhere())
                }

                fn dimensions(&mut self, this: Resource<Tensor>) -> wasmtime::Result<Vec<u32>> {
                    Ok(dimensions_of(self.table.get(&this)?))
                }

                fn ty(
                    &mut self,
                    this: Resource<Tensor>,
                ) -> wasmtime::Result<nn::tensor::TensorType> {
                    Ok(match self.table.get(&this)?.datatype() {
                        Datatype::Fp16 => nn::tensor::TensorType::Fp16,
                        Datatype::Fp32 => nn::tensor::TensorType::Fp32,
                        Datatype::Fp64 => nn::tensor::TensorType::Fp64,
                        Datatype::Bf16 => nn::tensor::TensorType::Bf16,
                        Datatype::Int32 => nn::tensor::TensorType::I32,
                        Datatype::Int64 => nn::tensor::TensorType::I64,
                        _ => nn::tensor::TensorType::U8,
                    })
                }

                fn data(&mut self, _this: Resource<Tensor>) -> wasmtime::Result<Vec<u8>> {
                    Err(linked_elsewhere())
                }

                fn drop(&mut self, this: Resource<Tensor>) -> wasmtime::Result<()> {
                    self.take_tensor(this).map(|_| ())
                }
            }

            impl nn::errors::Host for GuestState {}

            impl nn::errors::HostError for GuestState {
                fn code(
                    &mut self,
                    this: Resource<GuestError>,
                ) -> wasmtime::Result<nn::errors::ErrorCode> {
                    Ok(match self.table.get(&this)?.code {
                        Code::InvalidArgument => nn::errors::ErrorCode::InvalidArgument,
                        Code::Timeout => nn::errors::ErrorCode::Timeout,
                        Code::RuntimeError => nn::errors::ErrorCode::RuntimeError,
                        Code::UnsupportedOperation => nn::errors::ErrorCode::UnsupportedOperation,
                        Code::TooLarge => nn::errors::ErrorCode::TooLarge,
                        Code::NotFound => nn::errors::ErrorCode::NotFound,
                    })
                }

                fn data(&mut self, this: Resource<GuestError>) -> wasmtime::Result<String> {
                    Ok(self.table.get(&this)?.message.clone())
                }

                fn drop(&mut self, this: Resource<GuestError>) -> wasmtime::Result<()> {
                    Ok(self.table.delete(this).map(|_| ())?)
                }
            }

            impl nn::graph::Host for GuestState {
                fn load(
                    &mut self,
                    _builder: Vec<Vec<u8>>,
                    _encoding: nn::graph::GraphEncoding,
                    _target: nn::graph::ExecutionTarget,
                ) -> wasmtime::Result<Result<Resource<GuestGraph>, Resource<GuestError>>> {
                    self.refuse(
                        Code::UnsupportedOperation,
                        "graphs are not loaded from a guest's bytes here: publish the graph as an asset and use load-by-name",
                    )
                }

                fn load_by_name(
                    &mut self,
                    name: String,
                ) -> wasmtime::Result<Result<Resource<GuestGraph>, Resource<GuestError>>> {
                    match self.find_graph(&name) {
                        Ok(graph) => Ok(Ok(self.hold(GuestGraph(graph))?)),
                        Err(error) => Ok(Err(self.hold(error)?)),
                    }
                }
            }

            impl nn::graph::HostGraph for GuestState {
                fn init_execution_context(
                    &mut self,
                    this: Resource<GuestGraph>,
                ) -> wasmtime::Result<Result<Resource<GuestContext>, Resource<GuestError>>> {
                    let graph = Arc::clone(&self.table.get(&this)?.0);
                    Ok(Ok(self.hold(GuestContext(graph))?))
                }

                fn drop(&mut self, this: Resource<GuestGraph>) -> wasmtime::Result<()> {
                    Ok(self.table.delete(this).map(|_| ())?)
                }
            }

            impl nn::inference::Host for GuestState {}

            impl nn::inference::HostGraphExecutionContext for GuestState {
                async fn compute(
                    &mut self,
                    this: Resource<GuestContext>,
                    inputs: Vec<(String, Resource<Tensor>)>,
                ) -> wasmtime::Result<
                    Result<Vec<(String, Resource<Tensor>)>, Resource<GuestError>>,
                > {
                    self.run(this, inputs).await
                }

                fn drop(&mut self, this: Resource<GuestContext>) -> wasmtime::Result<()> {
                    Ok(self.table.delete(this).map(|_| ())?)
                }
            }

            impl tensors::Host for GuestState {
                fn datatype(&mut self, of: Resource<Tensor>) -> wasmtime::Result<types::Datatype> {
                    Ok(self.table.get(&of)?.datatype().into())
                }

                fn make(
                    &mut self,
                    _datatype: types::Datatype,
                    _shape: Vec<u32>,
                    _data: Vec<u8>,
                ) -> wasmtime::Result<Result<Resource<Tensor>, types::Problem>> {
                    Err(linked_elsewhere())
                }

                fn share(&mut self, of: Resource<Tensor>) -> wasmtime::Result<Resource<Tensor>> {
                    let tensor = self.table.get(&of)?.clone();
                    self.give_tensor(tensor)
                }

                fn rows(
                    &mut self,
                    of: Resource<Tensor>,
                    start: u32,
                    count: u32,
                ) -> wasmtime::Result<Result<Resource<Tensor>, types::Problem>> {
                    match self.slice_rows(&of, start, count) {
                        Ok(tensor) => Ok(Ok(self.give_tensor(tensor)?)),
                        Err(message) => Ok(Err(problem(message))),
                    }
                }
            }

            impl reply::Host for GuestState {
                fn is_streamed(&mut self) -> wasmtime::Result<bool> {
                    Ok(self.emitter().is_some())
                }

                async fn emit(
                    &mut self,
                    outputs: Vec<(String, Resource<Tensor>)>,
                ) -> wasmtime::Result<Result<(), types::Problem>> {
                    let outputs = self.take_named(outputs)?;
                    Ok(self.send(outputs).await)
                }
            }
        };
    };
}

serve_namespace!(
    crate::engine::contract::standard::wasi::nn,
    crate::engine::contract::standard::modelet::model::tensors,
    crate::engine::contract::standard::modelet::model::reply
);
serve_namespace!(
    crate::engine::contract::own::modelet::nn,
    crate::engine::contract::own::modelet::model::tensors_own,
    crate::engine::contract::own::modelet::model::reply_own
);

use crate::engine::contract::standard::modelet::model as capabilities;

impl types::Host for GuestState {}

impl capabilities::assets::Host for GuestState {
    fn read(&mut self, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.version.read_asset(&name)
    }

    fn names(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.version.assets.keys().map(ToString::to_string).collect())
    }
}

impl capabilities::config::Host for GuestState {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        Ok(self.version.config.get(&key).cloned())
    }
}

impl capabilities::log::Host for GuestState {
    fn write(&mut self, level: capabilities::log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            capabilities::log::Level::Trace => LogLevel::TRACE,
            capabilities::log::Level::Debug => LogLevel::DEBUG,
            capabilities::log::Level::Info => LogLevel::INFO,
            capabilities::log::Level::Warn => LogLevel::WARN,
            capabilities::log::Level::Error => LogLevel::ERROR,
        };
        self.log(level, &message);
        Ok(())
    }
}
