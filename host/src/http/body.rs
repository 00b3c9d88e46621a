//! The body of an answer: whole buffers on the data path, a stream from the management routes, and
//! what must live until the last byte is out.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use super::admit::Permit;
use super::connection::Exchange;
use super::under_way::UnderWay;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of a buffer that are handed on at a time. The HTTP library takes a buffer whole, however
/// slowly its bytes go out, so that all but the last of these are known to be on their way.
const CHUNK_BYTES: usize = 64 << 10;

/// The body of an answer.
pub struct Body {
    content: Content,
    /// What follows the last byte.
    trailers: Option<HeaderMap>,
    held: Held,
    /// When all of it will have been made at the latest, where that is later than its beginning.
    made_by: Option<Instant>,
}

enum Content {
    Parts(VecDeque<Bytes>),
    Stream(axum::body::Body),
}

/// What is given up when the last byte has been written or the body is dropped, not when the head went
/// out: a slow reader counts against its tenant until it has read.
#[derive(Default)]
struct Held {
    _permit: Option<Permit>,
    _under_way: Option<UnderWay>,
    /// The exchange on the connection, which ends when the answer has been written.
    exchange: Option<Exchange>,
}

/// The last bytes of an answer. HTTP takes frames out of a body ahead of the socket and then drops the
/// body, so what is held goes along with these bytes.
struct Last {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Last {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body {
    /// A body of whole buffers, written one after the other without a copy.
    pub fn parts(parts: impl IntoIterator<Item = Bytes>) -> Self {
        let parts = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let content = Content::Parts(parts);
        Self { content, trailers: None, held: Held::default(), made_by: None }
    }

    /// A body that comes as it is made.
    pub fn stream(stream: axum::body::Body) -> Self {
        let content = Content::Stream(stream);
        Self { content, trailers: None, held: Held::default(), made_by: None }
    }

    /// A body that comes as a call goes on, which ends by a deadline.
    pub fn live(stream: axum::body::Body, deadline: Instant) -> Self {
        Self { made_by: Some(deadline), ..Self::stream(stream) }
    }

    /// From when on its reader is waited for alone.
    pub fn made_by(&self) -> Option<Instant> {
        self.made_by
    }

    /// Sends these after the last byte.
    pub fn end_with(&mut self, trailers: HeaderMap) {
        self.trailers = Some(trailers);
    }

    /// Holds `permit` until the last byte is out.
    pub fn hold(&mut self, permit: Permit) {
        self.held._permit = Some(permit);
    }

    /// The request is under way until the last byte is out.
    pub fn track(&mut self, under_way: UnderWay) {
        self.held._under_way = Some(under_way);
    }

    /// Its buffers, if all of it is there; what is held stays.
    pub fn take_parts(&mut self) -> Option<VecDeque<Bytes>> {
        match &mut self.content {
            Content::Parts(parts) => Some(std::mem::take(parts)),
            Content::Stream(_) => None,
        }
    }

    /// Puts other buffers in the place of its content; what is held stays.
    pub fn put_parts(&mut self, parts: VecDeque<Bytes>) {
        self.content = Content::Parts(parts);
    }

    fn is_last_byte_out(&self) -> bool {
        match &self.content {
            Content::Parts(parts) => parts.is_empty(),
            Content::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.content {
            Content::Parts(parts) => {
                Poll::Ready(next_chunk(parts).map(|part| Ok(Frame::data(part))))
            }
            Content::Stream(stream) => {
                let frame = Pin::new(stream).poll_frame(cx);
                // Asked for more, the reader has taken what there was: it is not slow, and may wait
                // for longer than it may take to read.
                if let Some(exchange) = &self.held.exchange {
                    match &frame {
                        Poll::Pending => exchange.rest(Instant::now()),
                        Poll::Ready(_) => exchange.answer(Instant::now()),
                    }
                }
                frame.map(|frame| frame.map(|frame| frame.map_err(BoxError::from)))
            }
        }
    }

    /// `bytes`, which hold `permit` until they are out: a part of an answer that is made piece by
    /// piece.
    pub fn holding(bytes: Bytes, permit: Permit) -> Bytes {
        let held = Held { _permit: Some(permit), ..Held::default() };
        Bytes::from_owner(Last { bytes, _held: held })
    }

    /// Says when the last byte is out.
    pub fn ends(&mut self, exchange: Exchange) {
        self.held.exchange = Some(exchange);
    }
}

/// The next piece of buffers that are written one after the other.
fn next_chunk(parts: &mut VecDeque<Bytes>) -> Option<Bytes> {
    let first = parts.front_mut()?;
    if first.len() > CHUNK_BYTES { Some(first.split_to(CHUNK_BYTES)) } else { parts.pop_front() }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::parts([bytes])
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(self.poll_content(cx));
        if frame.is_none() {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        if !self.is_last_byte_out() {
            return Poll::Ready(frame);
        }
        let held = std::mem::take(&mut self.held);
        let last = |bytes| Bytes::from_owner(Last { bytes, _held: held });
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(last))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_last_byte_out() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Parts(parts) => {
                SizeHint::with_exact(parts.iter().map(|part| part.len() as u64).sum())
            }
            Content::Stream(stream) => stream.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::super::under_way::Requests;
    use super::*;

    #[tokio::test]
    async fn what_is_held_lives_as_long_as_the_last_bytes() {
        for stream in [false, true] {
            let requests = Requests::default();
            let mut body = match stream {
                false => Body::parts([Bytes::from_static(b"a"), Bytes::new(), "b".into()]),
                true => Body::stream(axum::body::Body::from("ab")),
            };
            body.track(requests.begin());
            let mut frames = Vec::new();
            while let Some(frame) = body.frame().await {
                frames.push(frame.unwrap().into_data().unwrap());
            }
            drop(body);
            assert_eq!(frames.concat(), b"ab");
            // A part of the last bytes is still to be written.
            let last = frames.pop().unwrap().slice(..1);
            drop(frames);
            assert_eq!(requests.under_way(), 1);
            drop(last);
            assert_eq!(requests.under_way(), 0);
        }
    }

    #[tokio::test]
    async fn a_body_that_is_dropped_unread_holds_nothing() {
        let requests = Requests::default();
        let mut body = Body::from(Bytes::from_static(b"a"));
        body.track(requests.begin());
        drop(body);
        assert_eq!(requests.under_way(), 0);
    }

    #[tokio::test]
    async fn large_buffers_go_out_in_pieces_and_whole() {
        let large = Bytes::from((0..300_000u32).map(|n| n as u8).collect::<Vec<_>>());
        let mut body = Body::parts([Bytes::from_static(b"head"), Bytes::new(), large.clone()]);
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(300_004));
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= CHUNK_BYTES);
            read.extend_from_slice(&piece);
        }
        assert_eq!(read, [b"head", &large[..]].concat());
    }
}
