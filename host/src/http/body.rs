//! The body of an answer: whole buffers on the data path, a stream from the management routes, and
//! what must live until the last byte is out.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::admit::Permit;
use super::connection::Exchange;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of a buffer that are handed on at a time. The HTTP library takes a buffer whole, however
/// slowly its bytes go out, so that all but the last of these are known to be on their way.
const CHUNK_BYTES: usize = 64 << 10;

/// The body of an answer.
pub struct Body {
    content: Content,
    /// Given up when the body has been written or is dropped, not when the head went out: a slow
    /// reader counts against its tenant until it has read.
    permit: Option<Permit>,
    /// The exchange on the connection, which ends when the answer has been written.
    exchange: Option<Exchange>,
}

enum Content {
    Parts(VecDeque<Bytes>),
    Stream(axum::body::Body),
}

impl Body {
    /// A body of whole buffers, written one after the other without a copy.
    pub fn parts(parts: impl IntoIterator<Item = Bytes>) -> Self {
        let parts = parts.into_iter().filter(|part| !part.is_empty()).collect();
        Self { content: Content::Parts(parts), permit: None, exchange: None }
    }

    /// A body that comes as it is made.
    pub fn stream(stream: axum::body::Body) -> Self {
        Self { content: Content::Stream(stream), permit: None, exchange: None }
    }

    /// Holds `permit` until the last byte is out.
    pub fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Says when the last byte is out.
    pub fn ends(&mut self, exchange: Exchange) {
        self.exchange = Some(exchange);
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
        match &mut self.content {
            Content::Parts(parts) => {
                Poll::Ready(next_chunk(parts).map(|part| Ok(Frame::data(part))))
            }
            Content::Stream(stream) => Pin::new(stream)
                .poll_frame(cx)
                .map(|frame| frame.map(|f| f.map_err(BoxError::from))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Parts(parts) => parts.is_empty(),
            Content::Stream(stream) => stream.is_end_stream(),
        }
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

    use super::*;

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
