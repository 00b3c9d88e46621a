//! Stream: an answer that is sent while the call goes on.
//!
//! The call runs by itself, so that its deadline holds however slowly its caller reads; it ends when
//! its caller leaves. What comes before the first event is a failure like any other, with its status;
//! what comes later is an event, and the account is closed when the call has ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response};
use http_body::Frame;

use super::account::Account;
use super::admit::Permit;
use super::body::Body;
use super::encode;
use super::route::Called;
use crate::engine::background;
use crate::engine::call::{self, Call};
use crate::engine::deployment::Deployment;
use crate::engine::stream::{Partial, Partials};
use crate::error::Error;
use crate::host::Host;
use crate::tensor::NamedTensor;

/// A request that a protocol has decoded, and how its answer is encoded.
pub struct Request {
    /// The version that answers.
    pub called: Called,
    /// The tensors it gets.
    pub inputs: Vec<NamedTensor>,
    /// What becomes of those it gives.
    pub answer: Answer,
}

/// How a protocol answers.
pub enum Answer {
    /// With one JSON document.
    Whole(Box<Whole>),
    /// With one text of this content type.
    Text(&'static str, Box<Whole>),
    /// With events, while the call goes on.
    Stream(Box<dyn Events>),
}

/// Encodes outputs as a JSON document, or as a text.
pub type Whole = dyn FnOnce(&[NamedTensor]) -> Result<Vec<u8>, Error> + Send;

/// What a protocol makes of the answers of one call; each is one event or several.
pub trait Events: Send + 'static {
    /// Encodes a partial answer.
    ///
    /// # Errors
    /// When it is none of the model's task; the stream then ends.
    fn partial(&mut self, outputs: &[NamedTensor]) -> Result<Bytes, Error>;

    /// Encodes the last answer, and the end of the stream.
    ///
    /// # Errors
    /// When it is none of the model's task.
    fn last(&mut self, outputs: &[NamedTensor]) -> Result<Bytes, Error>;

    /// Encodes a failure, after which the stream ends.
    fn error(&self, error: &Error) -> Bytes;
}

/// An event of a stream of server-sent events.
pub fn event(data: &impl serde::Serialize) -> Bytes {
    let mut event = b"data: ".to_vec();
    serde_json::to_writer(&mut event, data).expect("documents have only string keys");
    event.extend_from_slice(b"\n\n");
    event.into()
}

/// A call under way whose partial answers are sent meanwhile. Dropping it ends the call.
pub(crate) struct Running {
    partials: Partials,
    /// None when the call has ended.
    call: Option<Pin<Box<dyn Future<Output = call::Called> + Send>>>,
}

/// What comes of a call under way.
pub(crate) enum Step {
    /// A partial answer.
    Partial(Partial),
    /// What the call came to.
    Last(Box<call::Called>),
}

impl Running {
    /// Begins a call, with room for its partial answers under `permit`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Overloaded`] where there is no such room.
    pub(crate) fn begin(
        host: &Arc<Host>,
        deployment: Arc<Deployment>,
        mut call: Call,
        permit: &mut Permit,
    ) -> Result<Self, Error> {
        let limit = host.admission().limits().stream_bytes;
        permit.reserve(u64::from(limit))?;
        let (emitter, partials) = crate::engine::stream::channel(Arc::clone(&call.version), limit);
        call.emitter = Some(emitter);
        let runs = Arc::clone(host);
        let call = async move { deployment.answer(call, runs.background()).await };
        Ok(Self { partials, call: Some(Box::pin(background::detach(call))) })
    }

    /// What comes next; none after the last.
    pub(crate) fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Option<Step>> {
        let Some(call) = &mut self.call else { return Poll::Ready(None) };
        if let Some(partial) = ready!(self.partials.poll_next(cx)) {
            return Poll::Ready(Some(Step::Partial(partial)));
        }
        let called = ready!(call.as_mut().poll(cx));
        self.call = None;
        Poll::Ready(Some(Step::Last(Box::new(called))))
    }

    fn end(&mut self) {
        self.call = None;
    }

    fn has_ended(&self) -> bool {
        self.call.is_none()
    }
}

/// The body of a streamed answer.
struct Streaming {
    /// The call; it has ended by itself or because the stream did.
    running: Running,
    events: Box<dyn Events>,
    /// The first event, which was waited for before the head of the answer.
    first: Option<Bytes>,
    /// What is to be accounted when the call has ended.
    account: Option<Account>,
}

/// Begins a call whose answer is a stream, and waits for its first event.
///
/// # Errors
/// What the call fails with before there is an event.
pub async fn begin(
    host: &Arc<Host>,
    deployment: Arc<Deployment>,
    call: Call,
    mut permit: Permit,
    events: Box<dyn Events>,
    account: &mut Account,
) -> Result<Response<Body>, Error> {
    let running = Running::begin(host, deployment, call, &mut permit)?;
    let mut streaming = Streaming { running, events, first: None, account: None };
    let first = std::future::poll_fn(|cx| streaming.poll_event(cx)).await;
    streaming.first = Some(first.unwrap_or_else(|| Ok(Bytes::new()))?);
    let mut account = account.hand_over();
    match streaming.running.has_ended() {
        // It was all there was.
        true => account.close(None),
        false => streaming.account = Some(account),
    }
    Ok(response(streaming, permit))
}

fn response(streaming: Streaming, permit: Permit) -> Response<Body> {
    let mut body = Body::live(axum::body::Body::new(streaming), permit.deadline());
    body.hold(permit);
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let text = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(CONTENT_TYPE, text);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that collect answers hold back a stream.
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    headers.insert(unbuffered, HeaderValue::from_static("no"));
    response
}

impl Streaming {
    /// The next event; none after the last. The call has ended, or is ended, with an error.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let called = match ready!(self.running.poll_step(cx)) {
            None => return Poll::Ready(None),
            Some(Step::Partial(partial)) => {
                let event = self.events.partial(&partial.outputs);
                if event.is_err() {
                    self.running.end();
                }
                return Poll::Ready(Some(event));
            }
            Some(Step::Last(called)) => called,
        };
        if let Some(account) = &mut self.account {
            account.answered(&called);
        }
        let outputs =
            called.outcome.map_err(|error| encode::call_failed(error, called.met.refused));
        Poll::Ready(Some(outputs.and_then(|outputs| self.events.last(&outputs))))
    }

    fn close(&mut self, error: Option<&Error>) {
        if let Some(mut account) = self.account.take() {
            account.close(error);
        }
    }
}

impl http_body::Body for Streaming {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let event = match ready!(self.poll_event(cx)) {
            None => return Poll::Ready(None),
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                self.close(Some(&error));
                self.events.error(&error)
            }
        };
        if self.running.has_ended() {
            self.close(None);
        }
        Poll::Ready(Some(Ok(Frame::data(event))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.running.has_ended()
    }
}
