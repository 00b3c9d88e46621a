//! A stream of inferences: messages answered one after the other, in their order, each on an account
//! of its own.
//!
//! The answer is made as it is read: a client that stops reading is not computed for, and one that
//! leaves ends what is being computed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio::time::Instant;

use super::frames::{self, Frames};
use super::infer::blame;
use super::proto::infer_parameter::ParameterChoice;
use super::proto::{InferParameter, ModelStreamInferResponse};
use super::{Call, no_message, status, streamed, timeout};
use crate::error::{Error, Kind};
use crate::http::account::Account;
use crate::http::admit::Permit;
use crate::http::body::Body;
use crate::http::documents::draining;
use crate::http::request_body::RequestBody;

/// Says on an answer that it is the last one to its request.
const FINAL_RESPONSE: &str = "triton_final_response";

/// Set by clients that want a stream to end with the first error, as other gRPC streams do.
const GRPC_ERROR: &str = "triton_grpc_error";

/// The number of `infer_response`.
const INFER_RESPONSE: u32 = 2;

/// Answers `ModelStreamInfer`.
pub(super) fn answer(call: Call, body: RequestBody) -> Result<Response<Body>, Error> {
    let waits = timeout::of(&call.head)?;
    let frames = Frames::new(&call.head, body)?;
    let coding = frames.coding();
    let ends_with_error =
        call.head.headers.get(GRPC_ERROR).is_some_and(|value| value.as_bytes() == b"true");
    let session = Session {
        due: waits.and_then(|waits| Instant::now().checked_add(waits)),
        waits,
        call,
        frames,
        ends_with_error,
        parts: VecDeque::new(),
        permit: None,
        is_over: false,
    };
    let answers = futures_util::stream::unfold(session, |mut session| async {
        let frame = session.frame().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), session))
    });
    let body = Body::stream(axum::body::Body::new(StreamBody::new(answers)));
    Ok(streamed(body, coding))
}

/// A stream under way.
struct Session {
    call: Call,
    frames: Frames,
    /// How long the client said it would wait, and until when that is.
    waits: Option<Duration>,
    due: Option<Instant>,
    ends_with_error: bool,
    /// What is left of the answer that is being sent.
    parts: VecDeque<Bytes>,
    /// Held until the last of them is out.
    permit: Option<Permit>,
    /// The trailers are out.
    is_over: bool,
}

impl Session {
    /// The next part of an answer, or the trailers; none after those.
    async fn frame(&mut self) -> Option<Frame<Bytes>> {
        while !self.is_over {
            if let Some(part) = self.parts.pop_front() {
                let permit = self.permit.take_if(|_| self.parts.is_empty());
                return Some(Frame::data(match permit {
                    Some(permit) => Body::holding(part, permit),
                    None => part,
                }));
            }
            let end = match self.next().await {
                Ok(true) => continue,
                Ok(false) => status::ok(),
                Err(error) => status::trailers(&error),
            };
            self.is_over = true;
            return Some(Frame::trailers(end));
        }
        None
    }

    /// Answers the next message; `false` where none follows.
    ///
    /// # Errors
    /// What ends the stream.
    async fn next(&mut self) -> Result<bool, Error> {
        if !self.follows().await? {
            return Ok(false);
        }
        let host = &self.call.host;
        let ticket = host.request_ids().ticket();
        let mut account = Account::open(host, &self.call.head, ticket);
        account.labelled("infer");
        let answered = self.answer_one(ticket, &mut account).await;
        account.close(answered.as_ref().err().map(|refusal| refusal.error()));
        let message = match answered {
            Ok((parts, permit)) => {
                self.permit = Some(permit);
                wrapped(parts)
            }
            Err(Refusal::Message(error)) if !self.ends_with_error => {
                let message =
                    ModelStreamInferResponse { error_message: error.text(), infer_response: None };
                vec![message.encode_to_vec().into()]
            }
            Err(Refusal::Message(error) | Refusal::Stream(error)) => return Err(error),
        };
        self.parts = frames::frame(message, self.frames.coding()).await?;
        Ok(true)
    }

    /// Waits for a message, for as long as the host and the client do.
    async fn follows(&mut self) -> Result<bool, Error> {
        let host = &self.call.host;
        let idle = Duration::from_secs(host.config().server.stream_idle_timeout_s);
        let due = self.due;
        let is_due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            follows = self.frames.follows(idle) => follows,
            () = is_due => {
                Err(Error::new(Kind::Deadline, "the time that the client gave the stream is over"))
            }
            () = host.drains() => Err(draining()),
        }
    }

    async fn answer_one(
        &mut self,
        ticket: u64,
        account: &mut Account,
    ) -> Result<(Vec<Bytes>, Permit), Refusal> {
        let admission = self.call.host.admission();
        let limits = admission.limits();
        // Without room for it a message cannot be read past either.
        let mut room =
            admission.receive(&self.call.caller, &self.call.head).map_err(Refusal::Stream)?;
        if let Some(due) = self.due {
            room.due(due.saturating_duration_since(Instant::now()));
        }
        let reading = self.frames.message(&mut room, limits.request_body_bytes, limits);
        let message = Account::time(&mut account.stages.decode, reading).await;
        let message = message.and_then(|message| message.ok_or_else(no_message));
        let message = message.map_err(Refusal::Stream)?;
        let choice = Some(ParameterChoice::BoolParam(true));
        let parameters = BTreeMap::from([(
            FINAL_RESPONSE.to_owned(),
            InferParameter { parameter_choice: choice },
        )]);
        let answer = self.call.answer(message, room, ticket, parameters, account).await;
        answer
            .map_err(|error| Refusal::Message(blame(error, self.waits, limits.request_timeout_ms)))
    }
}

/// Whom a refusal is for.
enum Refusal {
    /// The message alone.
    Message(Error),
    /// The stream: what comes next cannot be told apart.
    Stream(Error),
}

impl Refusal {
    fn error(&self) -> &Error {
        match self {
            Self::Message(error) | Self::Stream(error) => error,
        }
    }
}

/// An answer as the field of a stream's message.
fn wrapped(mut parts: Vec<Bytes>) -> Vec<Bytes> {
    let length: usize = parts.iter().map(Bytes::len).sum();
    let mut head = BytesMut::with_capacity(16);
    encode_key(INFER_RESPONSE, WireType::LengthDelimited, &mut head);
    encode_varint(length as u64, &mut head);
    parts.insert(0, head.freeze());
    parts
}
