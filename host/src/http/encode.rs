//! Encode: what the pipeline came to, as a response. Statuses come from the one table of
//! [`Kind::status`].

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response};
use serde::Serialize;

use super::body::Body;
use super::oip::{self, Answer, EncodeErrorKind, JSON_LENGTH_HEADER, RequestedOutputs};
use super::route::Called;
use crate::engine::call::CallError;
use crate::engine::deployment::LoadError;
use crate::engine::instance::StartError;
use crate::engine::pool::AcquireError;
use crate::error::{Error, Kind};
use crate::tensor::NamedTensor;

/// When a model that could not be loaded may be called again.
const UNAVAILABLE_RETRY: std::time::Duration = std::time::Duration::from_secs(5);

/// The answer to an Open Inference Protocol request.
///
/// # Errors
/// When an output was asked for in a form that cannot carry it.
pub fn infer(
    called: &Called,
    id: Option<&str>,
    requested: &RequestedOutputs,
    outputs: &[NamedTensor],
) -> Result<Response<Body>, Error> {
    let version = &called.version;
    let answer =
        Answer { model: version.model.as_str(), version: version.name.as_str(), id, outputs };
    let signature = &version.record.signature;
    let encoded = oip::encode_infer(&answer, requested, signature).map_err(|error| {
        let kind = match error.kind() {
            EncodeErrorKind::BadRequest => Kind::BadRequest,
            EncodeErrorKind::GuestError => Kind::NoResponse,
        };
        Error::new(kind, error.to_string()).at(format!("output {:?}", error.tensor()))
    })?;
    let mut response = Response::new(Body::from(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(encoded.content_type()));
    if let Some(length) = encoded.header_length {
        headers.insert(JSON_LENGTH_HEADER, HeaderValue::from(length as u64));
    }
    *response.body_mut() = Body::parts(encoded.parts);
    Ok(response)
}

/// A JSON document, with status 200.
pub fn json(document: &impl Serialize) -> Response<Body> {
    let bytes = serde_json::to_vec(document).expect("documents have only string keys");
    let mut response = Response::new(Body::from(Bytes::from(bytes)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error: its status, its JSON, and the headers that go with its kind.
pub fn error(error: &Error) -> Response<Body> {
    let mut response = json(&error.body());
    *response.status_mut() = error.kind().status();
    let headers = response.headers_mut();
    if let Some(wait) = error.wait() {
        // Whole seconds, and never zero: zero means at once.
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    if let Some(methods) = error.allowed().and_then(|methods| methods.parse().ok()) {
        headers.insert(ALLOW, methods);
    }
    if let Some(codings) = error.accepted() {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(codings));
    }
    response
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        if matches!(error, LoadError::GraphsFull { .. } | LoadError::StillLoading) {
            return Self::new(
                Kind::Overloaded,
                format!("the version cannot be served now: {error}"),
            )
            .retry_after(UNAVAILABLE_RETRY);
        }
        Self::new(Kind::ModelUnavailable, format!("the version cannot be loaded: {error}"))
            .retry_after(UNAVAILABLE_RETRY)
    }
}

impl From<AcquireError> for Error {
    fn from(error: AcquireError) -> Self {
        let second = std::time::Duration::from_secs(1);
        match &error {
            AcquireError::QueueFull(_) => {
                Self::new(Kind::Overloaded, error.to_string()).retry_after(second)
            }
            AcquireError::Deadline => Self::new(Kind::Deadline, error.to_string())
                .remedy("the model is busy; try again, or raise limits.request_timeout_ms"),
            AcquireError::Start(StartError::HostFull(_)) => {
                Self::new(Kind::Overloaded, error.to_string()).retry_after(second)
            }
            AcquireError::Start(StartError::Timeout(_) | StartError::Failed(_)) => {
                Self::new(Kind::InstantiationFailed, "the model's instance did not start")
                    .with_internal(&error)
                    .retry_after(second)
            }
        }
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let kind = match &error {
            CallError::InvalidInput { .. } => Kind::BadRequest,
            CallError::Unavailable(_) => Kind::ModelUnavailable,
            CallError::Failed(_) => Kind::GuestError,
            CallError::NoResponse(_) => Kind::NoResponse,
            CallError::Trap(_) => Kind::Trap,
            CallError::Deadline => Kind::Deadline,
        };
        let converted = Self::new(kind, error.to_string());
        match error {
            CallError::InvalidInput { tensor: Some(tensor), .. } => {
                converted.at(format!("input {tensor:?}"))
            }
            CallError::Unavailable(_) => converted.retry_after(UNAVAILABLE_RETRY),
            CallError::Trap(_) => {
                converted.remedy("the model's publisher can find the reason in the server's log")
            }
            _ => converted,
        }
    }
}
