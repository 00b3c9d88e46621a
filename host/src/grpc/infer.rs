//! An inference over gRPC: one message for another.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;

use super::frames::{self, Frames};
use super::proto::{InferParameter, ModelInferRequest};
use super::{Call, answered, no_message, timeout};
use crate::error::{Error, Kind};
use crate::http::account::Account;
use crate::http::admit::{Permit, Receiving};
use crate::http::body::Body;
use crate::http::decode::{decode_error, decode_limits, out_of_the_way, unaligned_bytes};
use crate::http::encode::encode_error;
use crate::http::oip::grpc as codec;
use crate::http::oip::{Answer, DecodeError, InferRequest};
use crate::http::request_body::RequestBody;
use crate::http::route::{Called, locate};
use crate::http::shed;
use crate::names::Target;
use crate::server;
use crate::tensor::{NamedTensor, total_bytes};

/// Answers `ModelInfer`: receive → read → route → decode → `server::call` → encode.
pub(super) async fn answer(
    call: Call,
    body: RequestBody,
    account: &mut Account,
) -> Result<Response<Body>, Error> {
    let limits = call.host.admission().limits();
    let mut room = call.host.admission().receive(&call.caller, &call.head)?;
    let waits = timeout::of(&call.head)?;
    waits.into_iter().for_each(|waits| room.due(waits));
    let mut frames = Frames::new(&call.head, body)?;
    let most = limits.request_body_bytes;
    let reading = frames.message(&mut room, most, limits);
    let message = Account::time(&mut account.stages.decode, reading).await?;
    let message = message.ok_or_else(no_message)?;
    let answer = call.answer(message, room, call.ticket, BTreeMap::new(), account).await;
    let (parts, permit) = answer.map_err(|error| blame(error, waits, limits.request_timeout_ms))?;
    let parts = frames::frame(parts, frames.coding()).await?;
    let mut body = Body::parts(parts);
    body.hold(permit);
    Ok(answered(body, frames.coding()))
}

/// A deadline that the caller set itself is no limit of this host's.
pub(super) fn blame(error: Error, waits: Option<Duration>, limit_ms: u64) -> Error {
    let own = waits.is_some_and(|waits| waits < Duration::from_millis(limit_ms));
    if own && error.kind() == Kind::Deadline { error.for_limit(None) } else { error }
}

impl Call {
    /// Answers one message with the parts of another, and the permit that they are held under.
    pub(super) async fn answer(
        &self,
        message: Bytes,
        mut room: Receiving,
        ticket: u64,
        parameters: BTreeMap<String, InferParameter>,
        account: &mut Account,
    ) -> Result<(Vec<Bytes>, Permit), Error> {
        let begun = Instant::now();
        let message = self.read(message, &mut room)?;
        let snapshot = self.host.snapshot();
        let target = match &*message.model_version {
            "" => Target::Live,
            version => Target::Named(version.to_owned()),
        };
        let called = locate(&snapshot, &message.model_name, &target, ticket)?;
        account.called(&called);
        self.host.ledger().called(&self.caller.tenant, &called.version.model);
        if let Some(deployment) = self.host.deployments().find(&called.version) {
            shed::pass(&called, &deployment, self.host.admission().limits(), room.left())?;
        }
        let request = self.decode(message, &called, &mut room)?;
        account.stages.decode += begun.elapsed();
        let InferRequest { id, inputs, outputs: requested, .. } = request;
        let (outputs, mut permit) =
            server::call(&self.host, &called, inputs, room, account).await?;
        let parts = encode(&called, id.as_deref(), &requested, &outputs, parameters, &mut permit)?;
        Ok((parts, permit))
    }

    fn read(&self, message: Bytes, room: &mut Receiving) -> Result<ModelInferRequest, Error> {
        let limits = decode_limits(self.host.admission().limits());
        let bytes = message.len();
        within(room, |budget| {
            out_of_the_way(bytes, || codec::read_message(message, &limits, budget))
        })
    }

    fn decode(
        &self,
        message: ModelInferRequest,
        called: &Called,
        room: &mut Receiving,
    ) -> Result<InferRequest, Error> {
        let limits = decode_limits(self.host.admission().limits());
        let signature = &called.version.record.signature;
        let request = within(room, |budget| {
            // Typed contents are turned over one by one; raw ones are not touched.
            let typed = codec::typed_elements(&message);
            out_of_the_way(typed, || codec::decode(message, signature, &limits, budget))
        })?;
        room.reserve(unaligned_bytes(&request.inputs))?;
        Ok(request)
    }
}

/// Decodes with the room of a request as the budget.
fn within<T>(
    room: &mut Receiving,
    decode: impl FnOnce(&mut dyn crate::http::oip::Budget) -> Result<T, DecodeError>,
) -> Result<T, Error> {
    let mut refusal = None;
    let mut take = |bytes: usize| {
        refusal = room.reserve(bytes as u64).err();
        refusal.is_none()
    };
    let decoded = decode(&mut take);
    decoded.map_err(|error| refusal.unwrap_or_else(|| decode_error(error)))
}

/// The parts of an answer's message. Room is held for the outputs while they are encoded, and then for
/// the bytes of the message.
fn encode(
    called: &Called,
    id: Option<&str>,
    requested: &crate::http::oip::RequestedOutputs,
    outputs: &[NamedTensor],
    parameters: BTreeMap<String, InferParameter>,
    permit: &mut Permit,
) -> Result<Vec<Bytes>, Error> {
    let bytes = total_bytes(outputs);
    permit.hold(bytes)?;
    let version = &called.version;
    let answer =
        Answer { model: version.model.as_str(), version: version.name.as_str(), id, outputs };
    let mut refusal = None;
    let mut take = |more: usize| {
        refusal = permit.reserve(more as u64).err();
        refusal.is_none()
    };
    let signature = &version.record.signature;
    let encoded = out_of_the_way(usize::try_from(bytes).unwrap_or(usize::MAX), || {
        codec::encode(&answer, requested, signature, parameters, &mut take)
    });
    let parts = encoded.map_err(|error| refusal.unwrap_or_else(|| encode_error(&error)))?;
    permit.hold(parts.iter().map(|part| part.len() as u64).sum())?;
    Ok(parts)
}
