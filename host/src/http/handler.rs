//! Handler: a request for a model that speaks HTTP itself, below `/fn`. The host finds the model, admits
//! the request and leases an instance; what is asked and what is answered are between the two.
//!
//! Both bodies stream. The instance is leased before the request's body has come, since it is the guest
//! that reads it, and for no longer than the deadline.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Limited};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wasmtime_wasi_http::Error as HttpError;

use super::account::Account;
use super::authenticate::Caller;
use super::body::Body;
use super::encode;
use super::request_body::RequestBody;
use super::route::Called;
use crate::engine::handle::{Handling, Head, WasiBody};
use crate::engine::http::{CHUNK_BYTES, unread as read_on};
use crate::error::{Error, Kind};
use crate::host::Host;
use crate::server;

/// The path that was cut off, for guests that write links.
const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Room for what is on its way between a guest and its caller: a piece each way, and one that waits.
const WAY_BYTES: u64 = 4 * CHUNK_BYTES as u64;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Answers a request below `/fn/{model}`, of which `prefix` bytes of the path name the model.
///
/// # Errors
/// What keeps the guest from being asked, and what becomes of it before it answers.
pub(crate) async fn answer(
    host: &Arc<Host>,
    caller: &Caller,
    called: &Called,
    prefix: usize,
    (head, body): (Parts, RequestBody),
    account: &mut Account,
) -> Result<Response<Body>, Error> {
    host.ledger().called(&caller.tenant, &called.version.model);
    let receiving = host.admission().receive(caller, &head)?;
    let is_head = head.method == Method::HEAD;
    let body = upload(body, host.admission().limits().request_body_bytes);
    let request = incoming(head, prefix, body)?;
    let (deployment, lease, mut permit) =
        server::leased(host, called, server::Speaks::Http, receiving, account).await?;
    permit.reserve(WAY_BYTES)?;
    let (sender, answered) = oneshot::channel();
    let deadline = permit.deadline();
    let handling = Handling { lease, request, id: account.id.clone(), deadline, head: sender };
    let (ending, ended) = oneshot::channel();
    let mut account = account.hand_over();
    let runs = Arc::clone(host);
    let task = tokio::spawn(async move {
        let called = deployment.handle(handling, runs.background()).await;
        account.answered(&called);
        let outcome = called.outcome;
        let error = outcome.err().map(|error| encode::call_failed(error, called.met.refused));
        account.close(error.as_ref());
        // Whoever asked may have all there was, and be gone.
        let _ = ending.send(error);
    });
    let running = Running { task, is_over: false };
    match answered.await {
        Ok(answer) => {
            let served = Served::new(answer, is_head, running, ended);
            let mut response = served.map(|served| {
                let served = axum::body::Body::new(served);
                Body::live(served, deadline)
            });
            response.body_mut().hold(permit);
            Ok(response)
        }
        Err(_) => Err(match ended.await {
            Ok(Some(error)) => error,
            _ => Error::internal("a call ended without an answer and without a reason"),
        }),
    }
}

/// The request as the guest sees it: at its own root.
fn incoming(mut head: Parts, prefix: usize, body: WasiBody) -> Result<Request<WasiBody>, Error> {
    let path = head.uri.path();
    let (cut, rest) = path.split_at_checked(prefix).unwrap_or((path, ""));
    let cut = HeaderValue::from_str(cut).ok();
    let rest = if rest.is_empty() { "/" } else { rest };
    let rest = match head.uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    let wrong = |error: &dyn std::fmt::Display| {
        Error::new(Kind::BadRequest, format!("the path cannot be passed on: {error}"))
    };
    let mut uri = head.uri.into_parts();
    uri.path_and_query = Some(PathAndQuery::try_from(rest).map_err(|error| wrong(&error))?);
    head.uri = http::Uri::from_parts(uri).map_err(|error| wrong(&error))?;
    cut.map(|cut| head.headers.insert(PREFIX, cut));
    // Requests of HTTP/1.0 may come without, and a guest always has one.
    if head.uri.authority().is_none() && !head.headers.contains_key(HOST) {
        head.headers.insert(HOST, HeaderValue::from_static("localhost"));
    }
    Ok(Request::from_parts(head, body))
}

/// A request's body on its way to the guest, no longer than any may be.
fn upload(body: RequestBody, limit: u64) -> WasiBody {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let limited = Limited::new(body, limit).map_err(|error| match error.downcast() {
        Ok(error) => HttpError::Hyper(*error),
        Err(_) => HttpError::HttpRequestBodySize(None),
    });
    limited.boxed_unsync()
}

/// A call that ends when its caller leaves before its answer does.
struct Running {
    task: JoinHandle<()>,
    /// The caller has all of the answer, and the guest may see to what is left.
    is_over: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_over {
            self.task.abort();
        }
    }
}

/// An answer's body on its way from the guest.
struct Served {
    body: WasiBody,
    running: Running,
    /// Why the call failed, once it has ended.
    ended: oneshot::Receiver<Option<Error>>,
    /// Bytes still to come, where the guest has said how many.
    left: Option<u64>,
}

impl Served {
    fn new(
        answer: Head,
        is_head: bool,
        running: Running,
        ended: oneshot::Receiver<Option<Error>>,
    ) -> Response<Self> {
        let (head, body) = answer.into_parts();
        let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let without = is_head || matches!(head.status.as_u16(), 100..200 | 204 | 304);
        let (left, body) = match without {
            // What the guest writes all the same has to go somewhere.
            true => (Some(0), unread(body)),
            false => (length.and_then(|length| length.parse().ok()), body),
        };
        let mut served = Self { body, running, ended, left };
        served.running.is_over = left == Some(0);
        Response::from_parts(head, served)
    }

    fn took(&mut self, bytes: u64) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(bytes);
            // Nobody asks for what comes after the last byte.
            self.running.is_over = *left == 0;
        }
    }
}

/// Has a body read that nobody wants, and gives one without a byte.
fn unread(body: WasiBody) -> WasiBody {
    tokio::spawn(read_on(body));
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

impl http_body::Body for Served {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.took(frame.data_ref().map_or(0, |data| data.len() as u64));
                return Poll::Ready(Some(Ok(frame)));
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(format!("{error:?}").into()))),
            None => {}
        }
        if self.running.is_over {
            return Poll::Ready(None);
        }
        // A body whose guest has stopped ends like one that is whole; which of the two it is, the end of
        // the call says.
        let error = ready!(Pin::new(&mut self.ended).poll(cx)).ok().flatten();
        self.running.is_over = true;
        Poll::Ready(error.map(|error| Err(error.text().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
