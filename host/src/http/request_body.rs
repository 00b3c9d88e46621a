//! The body of a request: lent to whoever answers it, and read on when they did not want all of it.
//!
//! A client that writes all of its request before it reads would find the connection broken, and never
//! the reason why it was refused.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::request::Parts;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// How long the rest of a body is read that nobody wants: past this the client is too slow to wait
/// for. On a fast network it is enough for all of [`DISCARD_BYTES`].
const DISCARD_TIME: Duration = Duration::from_secs(10);

/// Bytes of a body that are read although nobody wants them: several times what
/// `limits.request_body_bytes` lets in, so that a request somewhat over the limit is told so, and
/// little enough that reading it costs a second or two.
const DISCARD_BYTES: u64 = 1 << 30;

/// The body of a request. Dropped, it leaves what is still to come to its [`Remainder`].
pub struct RequestBody {
    /// There until this is dropped.
    incoming: Option<Incoming>,
    /// Whether anybody has asked for a byte of it.
    is_asked_for: bool,
    rest: Rest,
}

/// What is still to come of a body that was given up.
pub struct Remainder {
    rest: Rest,
    /// The client waits to be asked for the body: nothing may ever come of it.
    waits_for_continue: bool,
}

/// The rest of a body, and whether it has been asked for.
type Rest = Arc<Mutex<Option<(Incoming, bool)>>>;

/// Lends the body of the request with this head.
pub fn lend(head: &Parts, incoming: Incoming) -> (RequestBody, Remainder) {
    let rest = Rest::default();
    let remainder = Remainder {
        rest: Arc::clone(&rest),
        waits_for_continue: head.headers.contains_key(EXPECT),
    };
    (RequestBody { incoming: Some(incoming), is_asked_for: false, rest }, remainder)
}

impl Remainder {
    /// Reads on, for a while and not without end, in a task of its own: the answer need not wait. To
    /// be called when the answer is there and holds no room for what is read here.
    pub fn discard(self) {
        let rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((incoming, is_asked_for)) = rest else { return };
        if self.waits_for_continue && !is_asked_for {
            // Reading would ask for it; without, the connection is closed after the answer.
            return;
        }
        tokio::spawn(read_on(incoming, DISCARD_BYTES, DISCARD_TIME));
    }
}

/// Reads what comes, for at most this many bytes and this long.
async fn read_on(mut body: impl http_body::Body<Data = Bytes> + Unpin, bytes: u64, time: Duration) {
    let read = async {
        let mut left = bytes;
        while let Some(Ok(frame)) = body.frame().await {
            let read = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(read) {
                Some(fewer) => left = fewer,
                None => return,
            }
        }
    };
    // Either way nobody waits for what came of it.
    let _ = tokio::time::timeout(time, read).await;
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_asked_for = true;
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(incoming).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            // Nothing more comes.
            self.incoming = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let rest = self.incoming.take().filter(|incoming| !incoming.is_end_stream());
        let rest = rest.map(|incoming| (incoming, self.is_asked_for));
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Chunks without end, or the beginning of a body that never goes on.
    struct Endless<'a> {
        /// How many chunks were taken.
        given: &'a AtomicU64,
        stops_after: u64,
    }

    impl http_body::Body for Endless<'_> {
        type Data = Bytes;
        type Error = hyper::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
            if self.given.load(Ordering::Relaxed) == self.stops_after {
                return Poll::Pending;
            }
            self.given.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"1234")))))
        }
    }

    #[tokio::test]
    async fn nobody_is_read_without_end() {
        let given = AtomicU64::new(0);
        let endless = Endless { given: &given, stops_after: u64::MAX };
        read_on(endless, 10, DISCARD_TIME).await;
        assert_eq!(given.swap(0, Ordering::Relaxed), 3);
        let stuck = Endless { given: &given, stops_after: 2 };
        read_on(stuck, 1000, Duration::from_millis(1)).await;
        assert_eq!(given.load(Ordering::Relaxed), 2);
    }
}
