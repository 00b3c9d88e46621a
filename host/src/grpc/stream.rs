//! A stream of inferences: messages answered one after the other, in their order, each on an account
//! of its own. A model that generates text, which its configuration calls decoupled, answers a message
//! several times: with what it emits while it is called, and at last with what it returns.
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
use super::infer::{Asked, Encoding};
use super::proto::infer_parameter::ParameterChoice;
use super::proto::{InferParameter, ModelStreamInferResponse};
use super::{Call, no_message, status, streamed, timeout};
use crate::engine::stream::Partial;
use crate::error::{Error, Kind};
use crate::http::account::Account;
use crate::http::admit::{Permit, blame};
use crate::http::body::Body;
use crate::http::documents::draining;
use crate::http::encode;
use crate::http::request_body::RequestBody;
use crate::http::stream::{Running, Step};
use crate::http::task;
use crate::server;

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
        under_way: None,
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
    /// The call whose answers are being sent.
    under_way: Option<Box<UnderWay>>,
    /// What is left of the answer that is being sent.
    parts: VecDeque<Bytes>,
    /// Held until the last of them is out.
    permit: Option<Permit>,
    /// The trailers are out.
    is_over: bool,
}

/// A call that answers more than once.
struct UnderWay {
    running: Running,
    encoding: Encoding,
    permit: Permit,
    /// Bytes that the call holds room for besides its answers.
    held: u64,
    /// How long the client waits for it, and how long the host does.
    waits: Option<Duration>,
    limit_ms: u64,
    account: Account,
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

    /// Makes the next answer, if only to see that it has nothing to send; `false` where none follows.
    ///
    /// # Errors
    /// What ends the stream.
    async fn next(&mut self) -> Result<bool, Error> {
        let answered = match self.under_way.take() {
            Some(under_way) => under_way.next().await,
            None if self.follows().await? => self.answer_one().await,
            None => return Ok(false),
        };
        let message = match answered {
            Ok(Answered::Begun(under_way)) => {
                self.under_way = Some(under_way);
                return Ok(true);
            }
            Ok(Answered::Part(parts, under_way)) => {
                self.under_way = Some(under_way);
                wrapped(parts)
            }
            Ok(Answered::Last(parts, permit)) => {
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

    async fn answer_one(&mut self) -> Result<Answered, Refusal> {
        let host = &self.call.host;
        let ticket = host.request_ids().ticket();
        let mut account = Account::open(host, &self.call.head, ticket);
        account.labelled("infer");
        let answered = self.answer_on(ticket, &mut account).await;
        if !matches!(answered, Ok(Answered::Begun(_))) {
            account.close(answered.as_ref().err().map(Refusal::error));
        }
        answered
    }

    async fn answer_on(&mut self, ticket: u64, account: &mut Account) -> Result<Answered, Refusal> {
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
        let asked = self.call.asked(message, room, ticket, account);
        let Asked { encoding, inputs, room, timeout } = asked.map_err(Refusal::Message)?;
        let (host, called) = (&self.call.host, &encoding.called);
        let waits = self.waits.into_iter().chain(timeout).min();
        let blamed = |error| Refusal::Message(blame(error, waits, limits.request_timeout_ms));
        if task::generates(&called.version.record.signature) {
            let begun = server::begin(host, called, inputs, room, account).await;
            let (running, permit) = begun.map_err(blamed)?;
            let (held, account) = (permit.held(), account.hand_over());
            let limit_ms = limits.request_timeout_ms;
            let under_way = UnderWay { running, encoding, permit, held, waits, limit_ms, account };
            return Ok(Answered::Begun(Box::new(under_way)));
        }
        let answer = server::call(host, called, inputs, room, account).await;
        let (outputs, mut permit) = answer.map_err(blamed)?;
        let parts = encoding.whole(&outputs, is_final(true), &mut permit);
        Ok(Answered::Last(parts.map_err(Refusal::Message)?, permit))
    }
}

/// What came of the next answer.
enum Answered {
    /// The call has begun, and its answers follow.
    Begun(Box<UnderWay>),
    /// One of several.
    Part(Vec<Bytes>, Box<UnderWay>),
    /// The last one to its message, and the permit that it is held under.
    Last(Vec<Bytes>, Permit),
}

impl UnderWay {
    /// The next answer of the call.
    async fn next(mut self: Box<Self>) -> Result<Answered, Refusal> {
        match self.answer().await {
            Ok((parts, false)) => Ok(Answered::Part(parts, self)),
            Ok((parts, true)) => {
                self.account.close(None);
                Ok(Answered::Last(parts, self.permit))
            }
            Err(error) => {
                self.account.close(Some(&error));
                Err(Refusal::Message(error))
            }
        }
    }

    /// The next answer, and whether it is the last.
    async fn answer(&mut self) -> Result<(Vec<Bytes>, bool), Error> {
        while let Some(step) = std::future::poll_fn(|cx| self.running.poll_step(cx)).await {
            let (encoding, permit) = (&self.encoding, &mut self.permit);
            let called = match step {
                Step::Partial(Partial { outputs, .. }) => {
                    match encoding.partial(&outputs, is_final(false), permit, self.held)? {
                        Some(parts) => return Ok((parts, false)),
                        None => continue,
                    }
                }
                Step::Last(called) => called,
            };
            self.account.answered(&called);
            let outputs = called.outcome.map_err(|error| {
                let error = encode::call_failed(error, called.met.refused);
                blame(error, self.waits, self.limit_ms)
            })?;
            return Ok((encoding.whole(&outputs, is_final(true), permit)?, true));
        }
        Err(Error::internal("a call was asked for more than its last answer"))
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

/// The parameters of an answer: whether it is the last one to its message.
fn is_final(last: bool) -> BTreeMap<String, InferParameter> {
    let parameter_choice = Some(ParameterChoice::BoolParam(last));
    BTreeMap::from([(FINAL_RESPONSE.to_owned(), InferParameter { parameter_choice })])
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
