//! gRPC: the Open Inference Protocol's service `inference.GRPCInferenceService`, on the port that HTTP
//! is on, with health and reflection beside it.
//!
//! It is another way into the pipeline and out of it: [`answer`] is what `server.rs` calls for a
//! request that speaks it, and what is between decoded tensors and outputs is the same as for REST.

pub mod frames;
pub mod method;
pub mod proto;
pub mod services;
pub mod status;

mod documents;
mod infer;
mod settings;
mod spell;
mod stream;
mod timeout;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response};

use self::frames::Frames;
use self::method::{Method, Rpc};
use crate::error::{Error, Kind};
use crate::host::Host;
use crate::http::account::Account;
use crate::http::authenticate::Caller;
use crate::http::body::Body;
use crate::http::inflate::Coding;
use crate::http::request_body::RequestBody;

/// One gRPC request: what came of it besides its messages.
pub(crate) struct Call {
    /// The host that answers.
    host: Arc<Host>,
    caller: Caller,
    head: Parts,
    /// Spreads calls over the versions of a weighted alias.
    ticket: u64,
}

/// Answers a gRPC request.
///
/// # Errors
/// What the pipeline refuses it for.
pub(crate) async fn answer(
    host: &Arc<Host>,
    caller: Caller,
    head: Parts,
    body: RequestBody,
    ticket: u64,
    account: &mut Account,
) -> Result<Response<Body>, Error> {
    let rpc = method::rpc(&head)?;
    account.labelled(rpc.label());
    let call = Call { host: Arc::clone(host), caller, head, ticket };
    match rpc {
        Rpc::Inference(Method::ModelInfer) => infer::answer(call, body, account).await,
        Rpc::Inference(Method::ModelStreamInfer) => stream::answer(call, body),
        Rpc::Inference(method) => document(&call, method, body).await,
        Rpc::Health => {
            let request = Request::from_parts(call.head, body);
            within(host, host.services().health(request)).await
        }
        Rpc::Reflection => {
            let request = Request::from_parts(call.head, body);
            within(host, host.services().reflection(request)).await
        }
    }
}

/// Answers a method of one short message for another.
async fn document(call: &Call, method: Method, body: RequestBody) -> Result<Response<Body>, Error> {
    let admission = call.host.admission();
    let limits = admission.limits();
    let mut room = admission.receive(&call.caller, &call.head)?;
    let mut frames = Frames::new(&call.head, body)?;
    let most = limits.management_body_bytes;
    let message = frames.message(&mut room, most, limits).await?.ok_or_else(no_message)?;
    let answer = documents::answer(call, method, message).await?;
    let parts = frames::frame(vec![answer], frames.coding()).await?;
    Ok(answered(Body::parts(parts), frames.coding()))
}

/// The head of an answer with messages, and its body; the status goes into the trailers.
fn answered(mut body: Body, coding: Option<Coding>) -> Response<Body> {
    body.end_with(status::ok());
    streamed(body, coding)
}

/// The head of an answer with messages, and its body, which ends with trailers of its own.
fn streamed(body: Body, coding: Option<Coding>) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(coding) = coding {
        let name = HeaderName::from_static(frames::ENCODING);
        headers.insert(name, HeaderValue::from_static(coding.name()));
    }
    response
}

/// Waits for the head of an answer, for as long as any request may take.
async fn within(
    host: &Host,
    answer: impl Future<Output = Response<Body>>,
) -> Result<Response<Body>, Error> {
    let limit = Duration::from_millis(host.admission().limits().request_timeout_ms);
    tokio::time::timeout(limit, answer).await.map_err(|_| {
        Error::over(Kind::Deadline, crate::limit::Limit::RequestTime, "no message came")
    })
}

fn no_message() -> Error {
    Error::new(Kind::BadRequest, "the request has no message")
}

/// The bytes of a message.
fn bytes_of(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}
