//! The methods that answer with a document: what the server and its models are.

use bytes::Bytes;
use prost::Message;

use super::method::Method;
use super::proto::model_metadata_response::TensorMetadata;
use super::proto::{
    CudaSharedMemoryStatusRequest, CudaSharedMemoryStatusResponse, ModelConfigRequest,
    ModelConfigResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse, RepositoryIndexRequest,
    RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse, ServerLiveResponse, ServerMetadataResponse, ServerReadyResponse,
    SystemSharedMemoryStatusRequest, SystemSharedMemoryStatusResponse,
};
use super::{Call, bytes_of, settings};
use crate::error::{Error, Kind};
use crate::http::documents::{self, EXTENSIONS};
use crate::http::route::{Called, Counted, locate, model_named};
use crate::model_control;
use crate::names::Target;
use crate::shared_memory::{self, Shared};
use crate::version::TensorSpec;

/// Answers a method with the bytes of its message.
pub(super) async fn answer(call: &Call, method: Method, message: Bytes) -> Result<Bytes, Error> {
    Ok(match method {
        Method::ServerLive => bytes_of(&ServerLiveResponse { live: true }),
        Method::ServerReady => {
            bytes_of(&ServerReadyResponse { ready: call.host.check_ready().is_ok() })
        }
        Method::ModelReady => bytes_of(&model_ready(call, &read(message)?)?),
        Method::ServerMetadata => bytes_of(&server_metadata(call)),
        Method::ModelMetadata => bytes_of(&model_metadata(call, &read(message)?)?),
        Method::ModelConfig => bytes_of(&model_config(call, &read(message)?)?),
        Method::ModelStatistics => bytes_of(&model_statistics(call, &read(message)?)?),
        Method::RepositoryIndex => {
            let RepositoryIndexRequest { ready, .. } = read(message)?;
            bytes_of(&model_control::index(&call.host, &call.host.snapshot(), ready))
        }
        Method::RepositoryModelLoad => bytes_of(&load(call, read(message)?).await?),
        Method::RepositoryModelUnload => bytes_of(&unload(call, read(message)?).await?),
        Method::SystemSharedMemoryStatus => bytes_of(&system_status(read(message)?)?),
        Method::CudaSharedMemoryStatus => bytes_of(&cuda_status(read(message)?)?),
        Method::SystemSharedMemoryRegister | Method::CudaSharedMemoryRegister => {
            shared_memory::answer(&Shared::Register).map(|_| Bytes::new())?
        }
        Method::SystemSharedMemoryUnregister | Method::CudaSharedMemoryUnregister => {
            shared_memory::answer(&Shared::Unregister).map(|_| Bytes::new())?
        }
        Method::TraceSetting => bytes_of(&settings::trace(call, read(message)?)?),
        Method::LogSettings => bytes_of(&settings::log(call, read(message)?)?),
        Method::ModelInfer | Method::ModelStreamInfer => {
            return Err(Error::internal("an inference was taken for a document"));
        }
    })
}

fn read<M: Message + Default>(message: Bytes) -> Result<M, Error> {
    M::decode(message).map_err(|error| {
        Error::new(Kind::BadRequest, format!("the message is not the method's: {error}"))
    })
}

impl Call {
    /// The version that a document is about.
    pub(super) fn find(&self, name: &str, version: &str) -> Result<Called, Error> {
        let target = match version {
            "" => Target::Live,
            version => Target::Named(version.to_owned()),
        };
        locate(&self.host.snapshot(), name, &target, self.ticket)
    }
}

/// A model that is not there is not ready: clients that wait for one ask until it is.
fn model_ready(call: &Call, request: &ModelReadyRequest) -> Result<ModelReadyResponse, Error> {
    let called = match call.find(&request.name, &request.version) {
        Ok(called) => called,
        Err(error) if error.kind() == Kind::NotFound => {
            return Ok(ModelReadyResponse { ready: false });
        }
        Err(error) => return Err(error),
    };
    let ready = call.host.check_ready().is_ok() && call.host.check_served(&called.version).is_ok();
    Ok(ModelReadyResponse { ready })
}

fn server_metadata(call: &Call) -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: call.host.config().server.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.iter().map(ToString::to_string).collect(),
    }
}

fn model_metadata(
    call: &Call,
    request: &ModelMetadataRequest,
) -> Result<ModelMetadataResponse, Error> {
    let Called { model, version } = call.find(&request.name, &request.version)?;
    let signature = &version.record.signature;
    let tensors = |specs: &[TensorSpec]| specs.iter().map(tensor).collect();
    Ok(ModelMetadataResponse {
        name: model.name.to_string(),
        versions: model.versions.keys().map(ToString::to_string).collect(),
        platform: call.host.platform(&version),
        inputs: tensors(&signature.inputs),
        outputs: tensors(&signature.outputs),
    })
}

fn model_config(call: &Call, request: &ModelConfigRequest) -> Result<ModelConfigResponse, Error> {
    let called = call.find(&request.name, &request.version)?;
    Ok(ModelConfigResponse { config: Some(documents::config(&call.host, &called)) })
}

fn model_statistics(
    call: &Call,
    request: &ModelStatisticsRequest,
) -> Result<ModelStatisticsResponse, Error> {
    let snapshot = call.host.snapshot();
    let counted = match (&*request.name, &*request.version) {
        ("", _) => Counted::All,
        (model, "") => Counted::Model(model_named(&snapshot, model)?),
        (model, version) => Counted::Version(call.find(model, version)?),
    };
    Ok(documents::statistics(&call.host, &snapshot, &counted))
}

async fn load(
    call: &Call,
    request: RepositoryModelLoadRequest,
) -> Result<RepositoryModelLoadResponse, Error> {
    let _permit = call.host.admission().manage()?;
    model_control::check_load_parameters(request.parameters.keys().map(String::as_str))?;
    let model = model_of(&request.model_name, &request.repository_name);
    model_control::load(&call.host, model).await?;
    Ok(RepositoryModelLoadResponse {})
}

async fn unload(
    call: &Call,
    request: RepositoryModelUnloadRequest,
) -> Result<RepositoryModelUnloadResponse, Error> {
    let _permit = call.host.admission().manage()?;
    let model = model_of(&request.model_name, &request.repository_name);
    model_control::unload(&call.host, model).await?;
    Ok(RepositoryModelUnloadResponse {})
}

/// The model that is meant: KServe's clients write its name into the first field, where Triton's have
/// a repository.
fn model_of<'a>(model: &'a str, repository: &'a str) -> &'a str {
    if model.is_empty() { repository } else { model }
}

fn system_status(
    request: SystemSharedMemoryStatusRequest,
) -> Result<SystemSharedMemoryStatusResponse, Error> {
    shared_memory::answer(&Shared::Status(region(request.name)))?;
    Ok(SystemSharedMemoryStatusResponse::default())
}

fn cuda_status(
    request: CudaSharedMemoryStatusRequest,
) -> Result<CudaSharedMemoryStatusResponse, Error> {
    shared_memory::answer(&Shared::Status(region(request.name)))?;
    Ok(CudaSharedMemoryStatusResponse::default())
}

fn region(name: String) -> Option<String> {
    (!name.is_empty()).then_some(name)
}

fn tensor(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.datatype.to_string(),
        shape: spec.shape.clone(),
    }
}
