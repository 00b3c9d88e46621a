//! Frames: messages in the body of a request and of an answer, each behind a flag and its length.
//!
//! The framing is our own, five bytes before each message, because what a message takes is ours to
//! account for: room is taken as its bytes come and as they are inflated, and an answer's tensors are
//! not copied.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use http::request::Parts;
use tokio::time::Instant;

use crate::config::Limits;
use crate::error::{Error, Kind};
use crate::http::admit::{Receiving, body_too_large};
use crate::http::compress;
use crate::http::decode::{SAID_LENGTH_BYTES, data, inflated, next};
use crate::http::inflate::Coding;
use crate::http::oip::grpc::raw_offset;
use crate::http::request_body::RequestBody;
use crate::limit::Limit;
use crate::tensor::AlignedBuffer;

/// How the messages of a request are compressed, and which compression an answer may have.
pub const ENCODING: &str = "grpc-encoding";

/// The codings that are understood, as a refusal of any other lists them.
const UNDERSTOOD: &str = "identity,deflate,gzip";

/// A flag and a length.
const PREFIX_BYTES: usize = 5;

/// The messages of a request, in their order.
pub struct Frames {
    body: RequestBody,
    /// What has come of the next message.
    left: Bytes,
    coding: Option<Coding>,
}

impl Frames {
    /// The messages of a request's body.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a coding that is not understood.
    pub fn new(head: &Parts, body: RequestBody) -> Result<Self, Error> {
        Ok(Self { body, left: Bytes::new(), coding: coding(head)? })
    }

    /// How its messages are compressed; what an answer to it may be too.
    pub fn coding(&self) -> Option<Coding> {
        self.coding
    }

    /// Waits until something of a next message is there; `false` where none follows.
    ///
    /// # Errors
    /// When nothing comes for `idle`, or the caller leaves.
    pub async fn follows(&mut self, idle: Duration) -> Result<bool, Error> {
        while self.left.is_empty() {
            let coming = tokio::time::timeout(idle, data(&mut self.body)).await;
            let coming = coming.map_err(|_| {
                let message = format!("no message came for {} s", idle.as_secs());
                Error::over(Kind::Deadline, Limit::StreamIdleTime, message)
            })?;
            match coming? {
                Some(data) => self.left = data,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The next message, inflated, with the room for it taken from `room`; none at the end.
    ///
    /// # Errors
    /// When it is over `most` bytes, too slow, cut short or damaged, or finds no room.
    pub async fn message(
        &mut self,
        room: &mut Receiving,
        most: u64,
        limits: &Limits,
    ) -> Result<Option<Bytes>, Error> {
        let due = Instant::now() + Duration::from_millis(limits.body_timeout_ms);
        let Some((flag, length)) = self.prefix(due, limits).await? else { return Ok(None) };
        if u64::from(length) > most {
            return Err(body_too_large(Some(length.into()), most));
        }
        if self.left.is_empty() && length > 0 {
            self.left = next(&mut self.body, due, limits).await?.ok_or_else(cut_short)?;
        }
        let capacity = u64::from(length).min(SAID_LENGTH_BYTES) as usize;
        // An engine reads the tensor where it stands, and would have a copy of one that is not aligned.
        let mut message = AlignedBuffer::with_aligned_offset(capacity, raw_offset(&self.left));
        while message.len() < length as usize {
            if self.left.is_empty() {
                self.left = next(&mut self.body, due, limits).await?.ok_or_else(cut_short)?;
                continue;
            }
            let wanted = (length as usize - message.len()).min(self.left.len());
            room.reserve(wanted as u64)?;
            message.extend(&self.left.split_to(wanted));
        }
        let message = message.freeze();
        match (flag, self.coding) {
            (0, _) => Ok(Some(message)),
            (1, Some(coding)) => inflated(message, coding, 0, room, most).await.map(Some).map_err(
                |error| match error.kind() {
                    Kind::BadRequest => error.at("the message"),
                    _ => error,
                },
            ),
            (1, None) => Err(Error::new(
                Kind::BadRequest,
                format!("a message is marked as compressed, and {ENCODING} names no coding"),
            )),
            _ => Err(Error::new(Kind::BadRequest, "a message begins with neither 0 nor 1")),
        }
    }

    /// The flag and the length of the next message; none at the end.
    async fn prefix(&mut self, due: Instant, limits: &Limits) -> Result<Option<(u8, u32)>, Error> {
        let mut prefix = [0; PREFIX_BYTES];
        let mut filled = 0;
        while let Some(rest) = prefix.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            if self.left.is_empty() {
                match next(&mut self.body, due, limits).await? {
                    Some(data) => self.left = data,
                    None if filled == 0 => return Ok(None),
                    None => return Err(cut_short()),
                }
                continue;
            }
            let taken = rest.len().min(self.left.len());
            self.left.split_to(taken).copy_to_slice(rest.split_at_mut(taken).0);
            filled += taken;
        }
        let mut prefix = &prefix[..];
        Ok(Some((prefix.get_u8(), prefix.get_u32())))
    }
}

fn cut_short() -> Error {
    Error::new(Kind::BadRequest, "the request ended inside a message")
}

fn coding(head: &Parts) -> Result<Option<Coding>, Error> {
    let Some(value) = head.headers.get(ENCODING) else { return Ok(None) };
    match value.as_bytes() {
        b"identity" => Ok(None),
        b"gzip" => Ok(Some(Coding::Gzip)),
        b"deflate" => Ok(Some(Coding::Deflate)),
        _ => Err(Error::new(Kind::Unsupported, "the messages' compression is not understood")
            .at("metadata grpc-encoding")
            .remedy("use gzip or deflate, or send them as they are")
            .accept_encoding(UNDERSTOOD)),
    }
}

/// A message of an answer behind its prefix, compressed where `coding` says so and it is worth it.
///
/// # Errors
/// When it is longer than a length can say.
pub async fn frame(message: Vec<Bytes>, coding: Option<Coding>) -> Result<VecDeque<Bytes>, Error> {
    let (parts, packed) = compress::pack_parts(message.into(), coding).await?;
    let length: usize = parts.iter().map(Bytes::len).sum();
    let length = u32::try_from(length).map_err(|_| {
        let message = format!("the answer has {length} bytes, and a message at most {}", u32::MAX);
        Error::new(Kind::TooLarge, message).remedy("ask for fewer outputs or rows")
    })?;
    let mut prefix = Vec::with_capacity(PREFIX_BYTES);
    prefix.put_u8(packed.into());
    prefix.put_u32(length);
    Ok(joined(prefix, parts))
}

/// A part of fewer bytes goes into one with its neighbours: each is a frame of HTTP/2, and a client may
/// take many small ones for an attack.
const SMALL_BYTES: usize = 1 << 10;

/// `first` and the parts behind it, small ones joined; large ones are not copied.
fn joined(first: Vec<u8>, parts: VecDeque<Bytes>) -> VecDeque<Bytes> {
    let (mut joined, mut small) = (VecDeque::with_capacity(parts.len() + 1), first);
    for part in parts {
        if part.len() < SMALL_BYTES {
            small.extend_from_slice(&part);
            continue;
        }
        if !small.is_empty() {
            joined.push_back(std::mem::take(&mut small).into());
        }
        joined.push_back(part);
    }
    if !small.is_empty() {
        joined.push_back(small.into());
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_parts_are_one_frame_and_large_ones_stay_where_they_are() {
        let large = Bytes::from(vec![7; SMALL_BYTES]);
        let parts = vec![Bytes::from_static(b"ab"), "c".into(), large.clone(), "d".into()];
        let framed = frame(parts.clone(), None).await.unwrap();
        let lengths: Vec<_> = framed.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [PREFIX_BYTES + 3, SMALL_BYTES, 1]);
        assert_eq!(framed[1].as_ptr(), large.as_ptr());
        let whole: Vec<u8> = framed.iter().flatten().copied().collect();
        assert_eq!(whole[..PREFIX_BYTES], [0, 0, 0, 4, 4]);
        assert_eq!(whole[PREFIX_BYTES..], parts.concat());
        assert_eq!(frame(vec![], None).await.unwrap(), [Bytes::from_static(&[0; PREFIX_BYTES])]);
    }
}
