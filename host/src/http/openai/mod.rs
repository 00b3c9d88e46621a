//! The shape of OpenAI's API: models, embeddings, chat completions, completions and transcriptions.
//!
//! The host checks the JSON and hands a model that serves the task its texts as tensors; `docs/tasks.md`
//! says which. What the API has and no model here can do is refused with its field, where an answer
//! without it would be another than the caller asked for; fields that are not known are ignored.

pub mod error;

mod chat;
mod completions;
mod embeddings;
mod generation;
mod models;
pub mod sampling;
mod transcriptions;

use std::sync::Arc;

use http::{Method, Response};
use serde_json::json;

use super::body::Body;
use super::encode;
use super::fields::Fields;
use super::route::{self, Called};
use super::stream::Request;
use crate::error::{Error, Kind};
use crate::names::Target;
use crate::registry::Snapshot;

/// A route of this API.
#[derive(Debug, Clone)]
pub enum OpenAi {
    /// `GET /v1/models`
    Models,
    /// `GET /v1/models/{id}`
    Model(String),
    /// A route that calls the model which the body names.
    Call(Operation),
}

/// What a model is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `POST /v1/embeddings`
    Embeddings,
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/audio/transcriptions`
    Transcriptions,
}

impl OpenAi {
    /// The route as metrics name it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Models | Self::Model(_) => "models",
            Self::Call(Operation::Embeddings) => "embeddings",
            Self::Call(Operation::Chat) => "chat",
            Self::Call(Operation::Completions) => "completions",
            Self::Call(Operation::Transcriptions) => "transcriptions",
        }
    }
}

/// Finds the route behind `/v1`; none where there is none.
///
/// # Errors
/// [`Kind::MethodNotAllowed`] with the methods there are.
pub fn route(method: &Method, segments: &[&str]) -> Result<Option<OpenAi>, Error> {
    let call = |operation| match *method {
        Method::POST => Ok(Some(OpenAi::Call(operation))),
        _ => Err(route::not_allowed(method, "POST")),
    };
    match segments {
        ["models"] => route::read(method, Some(OpenAi::Models)),
        ["models", id] => route::read(method, Some(OpenAi::Model(route::decoded(id)?))),
        ["embeddings"] => call(Operation::Embeddings),
        ["chat", "completions"] => call(Operation::Chat),
        ["completions"] => call(Operation::Completions),
        ["audio", "transcriptions"] => call(Operation::Transcriptions),
        _ => Ok(None),
    }
}

/// Answers a request for what models there are.
///
/// # Errors
/// [`Kind::NotFound`] where there is no such model.
pub fn models(snapshot: &Snapshot) -> Response<Body> {
    encode::json(&models::list(snapshot))
}

/// Answers a request for one model.
///
/// # Errors
/// [`Kind::NotFound`] where there is no such model.
pub fn model(snapshot: &Snapshot, id: &str) -> Result<Response<Body>, Error> {
    let called = find(snapshot, id, 0)?;
    Ok(encode::json(&models::one(id, &called)))
}

/// A call as its body describes it.
pub struct Context<'a> {
    /// What there is to be called.
    pub snapshot: &'a Snapshot,
    /// Spreads calls over weighted versions.
    pub ticket: u64,
    /// The request's id, of which the answer's is made.
    pub id: &'a str,
    /// Seconds since 1970.
    pub now_s: u64,
}

/// Decodes a call.
///
/// # Errors
/// [`Kind::BadRequest`] with the field that is wrong; [`Kind::NotFound`] where there is no such model.
pub fn decode(
    operation: Operation,
    fields: &Fields,
    context: &Context<'_>,
) -> Result<Request, Error> {
    let model: String = fields.required("model")?;
    let called = find(context.snapshot, &model, context.ticket)?;
    match operation {
        Operation::Embeddings => embeddings::decode(called, model, fields),
        Operation::Chat => chat::decode(called, model, fields, context),
        Operation::Completions => completions::decode(called, model, fields, context),
        Operation::Transcriptions => transcriptions::decode(called, fields),
    }
}

/// The version that a model's id means: `NAME`, `NAME@VERSION` or `NAME@ALIAS`.
fn find(snapshot: &Snapshot, id: &str, ticket: u64) -> Result<Called, Error> {
    let unknown = |message: String| {
        Error::new(Kind::NotFound, message).at("model").remedy("GET /v1/models lists the models")
    };
    let named = Target::split(id).ok();
    let found = named.and_then(|(name, target)| Some((snapshot.get(&name)?, target)));
    let (model, target) = found
        .ok_or_else(|| unknown(format!("the model {:?} does not exist", route::excerpt(id))))?;
    let version = model.resolve(&target, ticket).map_err(|error| unknown(error.to_string()))?;
    Ok(Called { model: Arc::clone(model), version: Arc::clone(version) })
}

/// Refuses what a field asks for, if it asks for it.
fn refuse(field: &str, is_asked: bool, reason: &str) -> Result<(), Error> {
    match is_asked {
        true => Err(super::fields::wrong(field, reason.to_owned())),
        false => Ok(()),
    }
}

/// The usage of an answer.
fn usage(prompt: u64, completion: u64) -> serde_json::Value {
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt.saturating_add(completion),
    })
}
