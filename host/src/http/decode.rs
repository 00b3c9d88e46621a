//! Decode: the body of a request, read into one aligned buffer, then made into tensors.
//!
//! The buffer is laid out so that the first tensor after the JSON part is aligned; a binary tensor is
//! never copied again before the engine reads it.

use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::admit::{Permit, body_too_large, content_length};
use super::inflate;
use super::oip::{self, DecodeErrorKind, DecodeLimits, InferRequest, JSON_LENGTH_HEADER};
use super::request_body::RequestBody;
use crate::config::Limits;
use crate::error::{Error, Kind};
use crate::publish::blocking;
use crate::tensor::AlignedBuffer;
use crate::version::Signature;

/// Room for a body that does not say its length; it grows with what comes.
const UNSAID_LENGTH_BYTES: usize = 16 << 10;

/// Room that is set aside on the word of a Content-Length alone. A longer body grows into more.
const SAID_LENGTH_BYTES: u64 = 256 << 20;

/// Reads and decodes an Open Inference Protocol request.
///
/// # Errors
/// When the body is too long, too slow or cut short, or is no request this signature takes; see the
/// kinds of [`oip::DecodeError`].
pub async fn infer(
    head: &Parts,
    body: RequestBody,
    permit: &mut Permit,
    limits: &Limits,
    signature: &Signature,
) -> Result<InferRequest, Error> {
    let coding = inflate::coding(&head.headers)?;
    let length = content_length(head)?;
    let header = match head.headers.get(JSON_LENGTH_HEADER) {
        // What is not ASCII is certainly no number.
        Some(value) => Some(value.to_str().unwrap_or("not ASCII")),
        None => None,
    };
    // The header counts bytes as they are after inflating, which no Content-Length says.
    let whole = if coding.is_some() { None } else { length };
    let json = oip::json_length(header, whole).map_err(decode_error)?;
    let offset = json.tensor_offset();
    let mut body = read(body, length, offset, permit, limits).await?;
    if let Some(coding) = coding {
        let limit = limits.request_body_bytes;
        body = blocking(move || inflate::inflate(&body, coding, offset, limit)).await?;
        permit.reserve(body.len() as u64)?;
    }
    oip::decode_infer(body, json, signature, &decode_limits(limits)).map_err(decode_error)
}

fn decode_limits(limits: &Limits) -> DecodeLimits {
    DecodeLimits {
        json_depth: limits.json_depth as usize,
        tensor_elements: usize::try_from(limits.tensor_elements).unwrap_or(usize::MAX),
        inputs: limits.inputs as usize,
        ..DecodeLimits::default()
    }
}

fn decode_error(error: oip::DecodeError) -> Error {
    let kind = match error.kind() {
        DecodeErrorKind::BadRequest => Kind::BadRequest,
        DecodeErrorKind::TooLarge => Kind::TooLarge,
    };
    let place = match (error.tensor(), error.place()) {
        (_, Some(place)) => Some(place.to_owned()),
        (Some(tensor), None) => Some(format!("input {tensor:?}")),
        (None, None) => None,
    };
    let converted = Error::new(kind, error.to_string());
    match place {
        Some(place) => converted.at(place),
        None => converted,
    }
}

async fn read(
    mut body: RequestBody,
    length: Option<u64>,
    aligned_offset: usize,
    permit: &mut Permit,
    limits: &Limits,
) -> Result<Bytes, Error> {
    let room = match length {
        Some(length) => usize::try_from(length.min(SAID_LENGTH_BYTES)).unwrap_or(usize::MAX),
        None => UNSAID_LENGTH_BYTES,
    };
    let mut buffer = AlignedBuffer::with_aligned_offset(room, aligned_offset);
    let due = Instant::now() + Duration::from_millis(limits.body_timeout_ms);
    loop {
        let frame = tokio::time::timeout_at(due, body.frame()).await.map_err(|_| {
            Error::new(
                Kind::Deadline,
                format!(
                    "the body did not come within {} ms (limits.body_timeout_ms)",
                    limits.body_timeout_ms
                ),
            )
        })?;
        let Some(frame) = frame else { return Ok(buffer.freeze()) };
        let frame = frame.map_err(|error| {
            Error::new(Kind::BadRequest, "the body ended before its length").with_internal(error)
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if (buffer.len() + data.len()) as u64 > limits.request_body_bytes {
            return Err(body_too_large(None, limits.request_body_bytes));
        }
        permit.reserve(data.len() as u64)?;
        buffer.extend(&data);
    }
}
