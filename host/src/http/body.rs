//! The body of an answer: whole buffers on the data path, a stream from the management routes, and
//! what must live until the last byte is out.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::admit::Permit;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub struct Body {
    content: Content,
    /// Given up when the body has been written or is dropped, not when the head went out: a slow
    /// reader counts against its tenant until it has read.
    permit: Option<Permit>,
}

enum Content {
    Parts(VecDeque<Bytes>),
    Stream(axum::body::Body),
}

impl Body {
    /// A body of whole buffers, written one after the other without a copy.
    pub fn parts(parts: impl IntoIterator<Item = Bytes>) -> Self {
        let parts = parts.into_iter().filter(|part| !part.is_empty()).collect();
        Self { content: Content::Parts(parts), permit: None }
    }

    /// A body that comes as it is made.
    pub fn stream(stream: axum::body::Body) -> Self {
        Self { content: Content::Stream(stream), permit: None }
    }

    /// Holds `permit` until the last byte is out.
    pub fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }
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
                Poll::Ready(parts.pop_front().map(|part| Ok(Frame::data(part))))
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
