//! An inference over gRPC: one message for another.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;

use super::frames::{self, Frames};
use super::proto::{InferParameter, ModelInferRequest};
use super::{Call, answered, no_message, timeout};
use crate::error::Error;
use crate::http::account::Account;
use crate::http::admit::{Permit, Receiving, blame};
use crate::http::body::Body;
use crate::http::decode::{decode_error, decode_limits, out_of_the_way, unaligned_bytes};
use crate::http::encode::encode_error;
use crate::http::oip::grpc as codec;
use crate::http::oip::{Answer, DecodeError, InferRequest, RequestedOutput, RequestedOutputs};
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
    let Asked { encoding, inputs, room, timeout } =
        call.asked(message, room, call.ticket, account)?;
    let answer = server::call(&call.host, &encoding.called, inputs, room, account).await;
    let waits = waits.into_iter().chain(timeout).min();
    let (outputs, mut permit) =
        answer.map_err(|error| blame(error, waits, limits.request_timeout_ms))?;
    let parts = encoding.whole(&outputs, BTreeMap::new(), &mut permit)?;
    let parts = frames::frame(parts, frames.coding()).await?;
    let mut body = Body::parts(parts);
    body.hold(permit);
    Ok(answered(body, frames.coding()))
}

/// A request that was read, and how its answers are written.
pub(super) struct Asked {
    pub(super) encoding: Encoding,
    pub(super) inputs: Vec<NamedTensor>,
    pub(super) room: Receiving,
    /// How long the caller will wait, where the request says so.
    pub(super) timeout: Option<Duration>,
}

/// How the answers to one request are written.
pub(super) struct Encoding {
    pub(super) called: Called,
    id: Option<String>,
    requested: RequestedOutputs,
}

impl Call {
    /// Reads one message and finds what it is for.
    pub(super) fn asked(
        &self,
        message: Bytes,
        mut room: Receiving,
        ticket: u64,
        account: &mut Account,
    ) -> Result<Asked, Error> {
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
        let InferRequest { id, inputs, outputs: requested, timeout, .. } = request;
        timeout.into_iter().for_each(|timeout| room.due(timeout));
        let encoding = Encoding { called, id, requested };
        Ok(Asked { encoding, inputs, room, timeout })
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

impl Encoding {
    /// The parts of an answer's message. Room is held for the outputs while they are encoded, and then
    /// for the bytes of the message.
    pub(super) fn whole(
        &self,
        outputs: &[NamedTensor],
        parameters: BTreeMap<String, InferParameter>,
        permit: &mut Permit,
    ) -> Result<Vec<Bytes>, Error> {
        permit.hold(total_bytes(outputs))?;
        let parts = self.parts(&self.requested, outputs, parameters, permit)?;
        permit.hold(bytes_of(&parts))?;
        Ok(parts)
    }

    /// The same of a partial answer, which has some of the outputs, besides the `held` bytes of the
    /// call that goes on; none where it has none of those that were asked for.
    pub(super) fn partial(
        &self,
        outputs: &[NamedTensor],
        parameters: BTreeMap<String, InferParameter>,
        permit: &mut Permit,
        held: u64,
    ) -> Result<Option<Vec<Bytes>>, Error> {
        let given = |name: &str| outputs.iter().any(|(given, _)| given == name);
        let listed: Vec<_> = match &self.requested.listed {
            Some(listed) => listed.iter().filter(|asked| given(&asked.name)).cloned().collect(),
            None => outputs.iter().map(|(name, _)| RequestedOutput::named(name)).collect(),
        };
        if listed.is_empty() {
            return Ok(None);
        }
        let requested = RequestedOutputs { listed: Some(listed), ..self.requested };
        permit.hold(held.saturating_add(total_bytes(outputs)))?;
        let parts = self.parts(&requested, outputs, parameters, permit)?;
        permit.hold(held.saturating_add(bytes_of(&parts)))?;
        Ok(Some(parts))
    }

    fn parts(
        &self,
        requested: &RequestedOutputs,
        outputs: &[NamedTensor],
        parameters: BTreeMap<String, InferParameter>,
        permit: &mut Permit,
    ) -> Result<Vec<Bytes>, Error> {
        let version = &self.called.version;
        let answer = Answer {
            model: version.model.as_str(),
            version: version.name.as_str(),
            id: self.id.as_deref(),
            outputs,
        };
        let mut refusal = None;
        let mut take = |more: usize| {
            refusal = permit.reserve(more as u64).err();
            refusal.is_none()
        };
        let signature = &version.record.signature;
        let bytes = usize::try_from(total_bytes(outputs)).unwrap_or(usize::MAX);
        let encoded = out_of_the_way(bytes, || {
            codec::encode(&answer, requested, signature, parameters, &mut take)
        });
        encoded.map_err(|error| refusal.unwrap_or_else(|| encode_error(&error)))
    }
}

fn bytes_of(parts: &[Bytes]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}
