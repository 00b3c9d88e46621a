//! Uploads: the parser that the publish route reads them with, walked as that route walks it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use axum::extract::{FromRequest as _, Multipart};
use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body::{Body as HttpBody, Frame};
use modelet_host::names::AssetName;

use crate::{Outcome, first_line, hash};

/// Polls that a body of any number of chunks may take. Its chunks are always there, so more of them
/// can only mean that the parser stands still.
const MAX_POLLS: usize = 1 << 20;

/// What came of an upload: its whole parts, and whether it came to its end.
#[derive(Debug, PartialEq)]
struct Walked {
    parts: Vec<(String, Vec<u8>)>,
    whole: bool,
}

/// The first line is the Content-Type; the rest is the body.
///
/// # Panics
/// When a property of the parser does not hold.
pub fn multipart(data: &[u8]) -> Outcome {
    let (content_type, body) = first_line(data);
    let body = Bytes::copy_from_slice(body);
    let walked = walk(content_type, [body.clone()].into());
    let in_chunks = walk(content_type, chunks(&body));
    assert_eq!(in_chunks, walked, "chunks change what an upload is");
    let Some(walked) = walked else { return Outcome::Refused };
    let bytes: usize = walked.parts.iter().map(|(_, part)| part.len()).sum();
    assert!(bytes <= body.len(), "{bytes} bytes in parts of {}", body.len());
    for (name, _) in &walked.parts {
        if let Some(Ok(asset)) = name.strip_prefix("asset:").map(str::parse::<AssetName>) {
            assert!(crate::names::is_plain_path(asset.as_str()), "{asset:?}");
        }
    }
    if !walked.whole {
        return Outcome::Refused;
    }
    check_again(&walked);
    Outcome::Accepted
}

/// The parts of an upload, written as clients write them, are read as those parts.
fn check_again(walked: &Walked) {
    let boundary = format!("modelet-{:016x}", hash(format!("{walked:?}").as_bytes()));
    let mut body = Vec::new();
    for (name, part) in &walked.parts {
        if name.is_empty() || name.contains(|c: char| c.is_control() || matches!(c, '"' | '\\')) {
            // How such names are quoted, clients do not agree.
            return;
        }
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let content_type = format!("multipart/form-data; boundary={boundary}");
    let again = walk(content_type.as_bytes(), [body.into()].into());
    assert_eq!(again.as_ref(), Some(walked));
}

/// Walks an upload; none where it is no multipart body at all.
fn walk(content_type: &[u8], chunks: VecDeque<Bytes>) -> Option<Walked> {
    let request = Request::post("/").header(CONTENT_TYPE, content_type);
    let request = request.body(Body::new(Chunks(chunks))).ok()?;
    ready(async {
        let mut parts = Multipart::from_request(request, &()).await.ok()?;
        let mut walked = Walked { parts: Vec::new(), whole: false };
        loop {
            match parts.next_field().await {
                Ok(Some(mut field)) => {
                    let name = field.name().unwrap_or_default().to_owned();
                    let mut part = Vec::new();
                    loop {
                        match field.chunk().await {
                            Ok(Some(chunk)) => part.extend_from_slice(&chunk),
                            Ok(None) => break,
                            Err(_) => return Some(walked),
                        }
                    }
                    walked.parts.push((name, part));
                }
                Ok(None) => {
                    walked.whole = true;
                    return Some(walked);
                }
                Err(_) => return Some(walked),
            }
        }
    })
}

/// The body in chunks of 1 to 32 bytes, as a slow network would bring it.
fn chunks(body: &Bytes) -> VecDeque<Bytes> {
    let mut state = hash(body);
    let mut rest = body.clone();
    let mut chunks = VecDeque::new();
    while !rest.is_empty() {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let length = (1 + (state >> 59) as usize).min(rest.len());
        chunks.push_back(rest.split_to(length));
    }
    chunks
}

/// A body whose chunks are all there.
struct Chunks(VecDeque<Bytes>);

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// Runs a future that waits for nothing.
fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..MAX_POLLS {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("the parser waits though all is there")
}
