//! Control: the protocol's routes that are no inference and no document: the model repository, log and
//! trace settings, and shared memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::{Duration, timeout};

use super::authenticate;
use super::body::Body;
use super::encode;
use super::request_body::RequestBody;
use super::route::Called;
use crate::error::{Error, Kind};
use crate::host::Host;
use crate::limit::Limit;
use crate::model_control;
use crate::shared_memory::{self, Shared};

/// What such a route is for.
#[derive(Debug, Clone)]
pub enum Control {
    /// `POST /v2/repository/index`
    Index,
    /// `POST /v2/repository/models/{m}/load`
    Load(String),
    /// `POST /v2/repository/models/{m}/unload`
    Unload(String),
    /// `GET /v2/logging`
    Logging,
    /// `POST /v2/logging`
    ChangeLogging,
    /// `GET /v2/trace/setting` and `GET /v2/models/{m}/trace/setting`
    Trace(Option<Called>),
    /// `POST` to the same.
    ChangeTrace(Option<Called>),
    /// `/v2/systemsharedmemory/…` and `/v2/cudasharedmemory/…`
    SharedMemory(Shared),
}

impl Control {
    /// Whether it changes something, which no web page may.
    fn changes(&self) -> bool {
        match self {
            Self::Index | Self::Logging | Self::Trace(_) => false,
            Self::Load(_) | Self::Unload(_) | Self::ChangeLogging | Self::ChangeTrace(_) => true,
            Self::SharedMemory(shared) => !shared.is_status(),
        }
    }
}

/// Answers such a route.
///
/// # Errors
/// What the route refuses; [`Kind::BadRequest`] for a body that is not the route's.
pub async fn answer(
    host: &Arc<Host>,
    head: &Parts,
    body: RequestBody,
    control: Control,
) -> Result<Response<Body>, Error> {
    if control.changes() {
        authenticate::guard_management(head, &host.config().server.hosts)?;
    }
    let _permit = host.admission().manage()?;
    Ok(match control {
        Control::Index => {
            let Ready { ready } = read(host, head, body).await?;
            encode::json(&model_control::index(host, &host.snapshot(), ready).models)
        }
        Control::Load(model) => {
            let Parameters { parameters } = read(host, head, body).await?;
            model_control::check_load_parameters(parameters.keys().map(String::as_str))?;
            model_control::load(host, &model).await?;
            done()
        }
        Control::Unload(model) => {
            // Its one parameter is about models that consist of others, which none here does.
            let Parameters { .. } = read(host, head, body).await?;
            model_control::unload(host, &model).await?;
            done()
        }
        Control::Logging => encode::json(&host.logging().settings()),
        Control::ChangeLogging => {
            host.check_client_control()?;
            let changes: Map<String, Value> = read(host, head, body).await?;
            encode::json(&host.logging().change(&changes)?)
        }
        Control::Trace(called) => {
            let model = called.as_ref().map(|called| &called.model.name);
            encode::json(&host.tracing().settings(model))
        }
        Control::ChangeTrace(called) => {
            host.check_client_control()?;
            let model = called.as_ref().map(|called| &called.model.name);
            let changes: BTreeMap<String, Option<OneOrMany>> = read(host, head, body).await?;
            let changes = changes
                .into_iter()
                .map(|(name, value)| (name, value.map_or_else(Vec::new, OneOrMany::values)));
            encode::json(&host.tracing().change(model, &changes.collect())?)
        }
        Control::SharedMemory(shared) => match shared_memory::answer(&shared)? {
            true => encode::json(&[(); 0]),
            false => done(),
        },
    })
}

#[derive(Debug, Default, Deserialize)]
struct Ready {
    #[serde(default)]
    ready: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// A setting's value.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn values(self) -> Vec<String> {
        match self {
            Self::One(value) => vec![value],
            Self::Many(values) => values,
        }
    }
}

/// An answer that says nothing but that it was done.
fn done() -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::new()));
    response.headers_mut().insert(header::CONTENT_LENGTH, 0.into());
    response
}

/// Reads a body of JSON, of whatever content type; an empty one is an empty object.
async fn read<T: serde::de::DeserializeOwned>(
    host: &Host,
    head: &Parts,
    body: RequestBody,
) -> Result<T, Error> {
    let limits = host.admission().limits();
    let most = limits.management_body_bytes;
    let body = Limited::new(body, usize::try_from(most).unwrap_or(usize::MAX));
    let due = Duration::from_millis(limits.body_timeout_ms);
    let body = timeout(due, body.collect()).await.map_err(|_| {
        let message = format!("the body did not come within {} ms", limits.body_timeout_ms);
        Error::over(Kind::Deadline, Limit::BodyTime, message)
    })?;
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let message = format!("the body has more than {most} bytes");
            return Error::over(Kind::TooLarge, Limit::ManagementBodyBytes, message);
        }
        Error::new(Kind::BadRequest, "the body ended before its length").with_internal(error)
    })?;
    let body = body.to_bytes();
    let body = if body.trim_ascii().is_empty() { Bytes::from_static(b"{}") } else { body };
    serde_json::from_slice(&body).map_err(|error| {
        Error::new(Kind::BadRequest, format!("the body is not the route's JSON: {error}")).at(head
            .uri
            .path()
            .chars()
            .take(80)
            .collect::<String>())
    })
}
