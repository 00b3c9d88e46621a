//! Requests that a guest answers itself: a component that exports wasi:http's handler is given one, and
//! answers while both bodies are still on their way.
//!
//! With `call` the one file that names a guest's exports.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::oneshot;
use tokio::time::Instant;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::{Error as HttpError, WasiHttpView as _};

use super::call::{self, CallError, Called, on_the_clock, trap};
use super::instance::{Guest, Instance};
use super::pool::Lease;

/// A body on its way to or from a guest.
pub type WasiBody = UnsyncBoxBody<Bytes, HttpError>;

/// What a guest answers with before the rest of its answer is there.
pub type Head = Response<WasiBody>;

/// One request, owned: it may move to another thread between two polls.
pub struct Handling {
    /// The instance that answers.
    pub lease: Lease,
    /// What it is asked, and what is still to come of it.
    pub request: Request<WasiBody>,
    /// The request's id, for the guest's log lines.
    pub id: String,
    /// When the answer must have ended.
    pub deadline: Instant,
    /// Where the head of the answer goes.
    pub head: oneshot::Sender<Head>,
}

impl Handling {
    /// Lets the guest answer, and takes the instance back if it is as good as before.
    pub async fn run(self) -> Called {
        let Self { mut lease, request, id, deadline, head } = self;
        let before = lease.instance().account.snapshot().buckets;
        lease.instance().store.data_mut().begin_call(id, None);
        let outcome = handle(lease.instance(), request, deadline, head).await;
        lease.instance().store.data_mut().end_call();
        call::settle(lease, &before, 0, outcome.map(|()| Vec::new()))
    }
}

async fn handle(
    instance: &mut Instance,
    request: Request<WasiBody>,
    deadline: Instant,
    head: oneshot::Sender<Head>,
) -> Result<(), CallError> {
    let answered = Arc::new(OnceLock::new());
    let given = {
        let answered = Arc::clone(&answered);
        move |answer: Result<Head, ErrorCode>| {
            // A guest can give one answer; a caller that has left is no fault of it.
            let _ = answered.set(answer.map(|answer| _ = head.send(answer)));
        }
    };
    let mut http = instance.store.data_mut().http();
    let request = http.new_incoming_request(Scheme::Http, request);
    let answer = http.new_response_outparam_from_callback(given);
    let (request, answer) = match (request, answer) {
        (Ok(request), Ok(answer)) => (request, answer),
        (Err(error), _) | (_, Err(error)) => return Err(CallError::NoResponse(error.to_string())),
    };
    let Instance { store, guest, account, inline, .. } = instance;
    let Guest::Http(guest) = guest else {
        return Err(CallError::NoResponse("it serves tensors and no HTTP".to_owned()));
    };
    let handling = guest.wasi_http_incoming_handler().call_handle(store, request, answer);
    let ended = tokio::time::timeout_at(deadline, on_the_clock(account, inline, handling)).await;
    match ended {
        Err(_) => return Err(CallError::Deadline),
        Ok(Err(error)) => return Err(trap(instance, &error)),
        Ok(Ok(())) => {}
    }
    match answered.get() {
        Some(Ok(())) => Ok(()),
        Some(Err(code)) => {
            Err(CallError::Failed(format!("it gave an error for an answer: {code}")))
        }
        None => Err(CallError::NoResponse("it gave none".to_owned())),
    }
}
