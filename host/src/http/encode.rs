//! Encode: what the pipeline came to, as a response. Statuses come from the one table of
//! [`Kind::status`].

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response};
use serde::Serialize;

use super::admit::Permit;
use super::blobs::UPLOAD_OFFSET;
use super::body::Body;
use super::decode::out_of_the_way;
use super::oip::{self, Answer, EncodeErrorKind, JSON_LENGTH_HEADER, RequestedOutputs};
use super::route::Called;
use super::stream::Whole;
use crate::engine::call::CallError;
use crate::engine::deployment::LoadError;
use crate::engine::instance::StartError;
use crate::engine::pool::AcquireError;
use crate::error::{Error, Kind};
use crate::limit::Limit;
use crate::tensor::NamedTensor;

/// The answer to an Open Inference Protocol request. Room is held for the outputs while they are
/// encoded, and then for the bytes of the answer until the last one is out.
///
/// # Errors
/// When an output was asked for in a form that cannot carry it; [`Kind::Overloaded`] when there is no
/// room for the answer.
pub fn infer(
    called: &Called,
    id: Option<&str>,
    requested: &RequestedOutputs,
    outputs: &[NamedTensor],
    mut permit: Permit,
) -> Result<Response<Body>, Error> {
    let bytes: usize = outputs.iter().map(|(_, tensor)| tensor.data().len()).sum();
    permit.hold(bytes as u64)?;
    let mut refusal = None;
    let mut take = |more: usize| {
        refusal = permit.reserve(more as u64).err();
        refusal.is_none()
    };
    let version = &called.version;
    let answer =
        Answer { model: version.model.as_str(), version: version.name.as_str(), id, outputs };
    let signature = &version.record.signature;
    let encoded = out_of_the_way(bytes, || {
        oip::encode_infer_within(&answer, requested, signature, &mut take)
    });
    let encoded = encoded.map_err(|error| refusal.unwrap_or_else(|| encode_error(&error)))?;
    permit.hold(encoded.body_length() as u64)?;
    let mut response = Response::new(Body::from(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(encoded.content_type()));
    if let Some(length) = encoded.header_length {
        headers.insert(JSON_LENGTH_HEADER, HeaderValue::from(length as u64));
    }
    *response.body_mut() = Body::parts(encoded.parts);
    response.body_mut().hold(permit);
    Ok(response)
}

/// The content type of JSON documents.
pub const JSON: &str = "application/json";

/// The answer to a request that is answered with one document. Room is held as for [`infer`].
///
/// # Errors
/// What `encode` fails with; [`Kind::Overloaded`] when there is no room for the answer.
pub fn document(
    (content_type, encode): (&'static str, Box<Whole>),
    outputs: &[NamedTensor],
    mut permit: Permit,
) -> Result<Response<Body>, Error> {
    let bytes: usize = outputs.iter().map(|(_, tensor)| tensor.data().len()).sum();
    permit.hold((bytes as u64).saturating_mul(JSON_PER_BYTE))?;
    let document = out_of_the_way(bytes, || encode(outputs))?;
    permit.hold(document.len() as u64)?;
    let mut response = Response::new(Body::from(Bytes::from(document)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.body_mut().hold(permit);
    Ok(response)
}

/// Bytes that one of a tensor may take while it is written as JSON: a number of four bytes is a value
/// of 32 and up to 12 characters, beside itself.
const JSON_PER_BYTE: u64 = 12;

/// What a caller is told of an answer that cannot be encoded.
pub(crate) fn encode_error(error: &oip::EncodeError) -> Error {
    let kind = match error.kind() {
        EncodeErrorKind::BadRequest => Kind::BadRequest,
        EncodeErrorKind::GuestError => Kind::NoResponse,
        EncodeErrorKind::NoRoom => Kind::Overloaded,
    };
    Error::new(kind, error.to_string()).at(format!("output {:?}", error.tensor()))
}

/// A JSON document, with status 200.
pub fn json(document: &impl Serialize) -> Response<Body> {
    let bytes = serde_json::to_vec(document).expect("documents have only string keys");
    let mut response = Response::new(Body::from(Bytes::from(bytes)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error: its status, its JSON, and the headers that go with its kind. The error itself goes along
/// for the account, which takes it out.
pub fn error(error: &Error) -> Response<Body> {
    error_with(error, &error.body())
}

/// An error with the JSON of another protocol.
pub fn error_with(error: &Error, body: &impl Serialize) -> Response<Body> {
    let mut response = json(body);
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
    if let Some(offset) = error.uploaded() {
        headers.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
    }
    response.extensions_mut().insert(error.clone());
    response
}

/// A call that has no answer, and the limit it met inside the guest.
pub fn call_failed(error: CallError, limit: Option<Limit>) -> Error {
    // The guest reports what it was told as well as it can; for the caller it is the host that is full.
    if limit == Some(Limit::ComputeQueue) && error.keeps_instance() {
        return Error::new(Kind::Overloaded, error.to_string()).for_limit(limit);
    }
    let deadline = (error == CallError::Deadline).then_some(Limit::RequestTime);
    Error::from(error).for_limit(deadline.or(limit))
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        let (kind, limit) = match &error {
            LoadError::GraphsFull { .. } => (Kind::Overloaded, Some(Limit::ResidentGraphs)),
            LoadError::StillLoading => (Kind::Overloaded, Some(Limit::RequestTime)),
            _ => (Kind::ModelUnavailable, None),
        };
        Self::new(kind, format!("the version cannot be served: {error}")).for_limit(limit)
    }
}

impl From<AcquireError> for Error {
    fn from(error: AcquireError) -> Self {
        match &error {
            AcquireError::QueueFull(_) => {
                Self::new(Kind::Overloaded, error.to_string()).for_limit(Limit::QueueLength)
            }
            AcquireError::Deadline => Self::new(Kind::Deadline, error.to_string())
                .for_limit(Limit::RequestTime)
                .remedy("the model is busy; try again, or raise limits.request_timeout_ms"),
            AcquireError::Start(StartError::HostFull { limit, .. }) => {
                Self::new(Kind::Overloaded, error.to_string()).for_limit(*limit)
            }
            AcquireError::Start(StartError::Timeout(_) | StartError::Failed(_)) => {
                let late = matches!(error, AcquireError::Start(StartError::Timeout(_)));
                Self::new(Kind::InstantiationFailed, "the model's instance did not start")
                    .for_limit(late.then_some(Limit::StartTime))
                    .with_internal(&error)
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
            CallError::Trap(_) => {
                converted.remedy("the model's publisher can find the reason in the server's log")
            }
            _ => converted,
        }
    }
}
