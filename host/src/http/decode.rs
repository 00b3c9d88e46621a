//! Decode: the body of a request, read into one aligned buffer, then made into tensors.
//!
//! The buffer is laid out so that the first tensor after the JSON part is aligned; a binary tensor is
//! never copied again before the engine reads it.

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::admit::{Receiving, body_too_large, content_length};
use super::fields::{self, Fields};
use super::inflate;
use super::oip::{self, DecodeErrorKind, DecodeLimits, InferRequest, JSON_LENGTH_HEADER};
use super::request_body::RequestBody;
use crate::config::Limits;
use crate::error::{Error, Kind};
use crate::limit::Limit;
use crate::publish::blocking;
use crate::tensor::{ALIGNMENT, AlignedBuffer, NamedTensor};
use crate::version::Signature;

/// Room for a body that does not say its length; it grows with what comes.
const UNSAID_LENGTH_BYTES: usize = 16 << 10;

/// Room that is set aside on the word of a Content-Length alone. A longer body grows into more.
pub(crate) const SAID_LENGTH_BYTES: u64 = 256 << 20;

/// JSON of more bytes than this is read and written where it keeps no other request waiting: a
/// megabyte takes some ten milliseconds.
const LONG_WORK_BYTES: usize = 1 << 20;

/// Does work that takes its time with `bytes` of text, and lets others have the thread's queue
/// meanwhile.
pub fn out_of_the_way<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes > LONG_WORK_BYTES { tokio::task::block_in_place(work) } else { work() }
}

/// Reads and decodes an Open Inference Protocol request.
///
/// # Errors
/// When the body is too long, too slow or cut short, or is no request this signature takes; see the
/// kinds of [`oip::DecodeError`].
pub async fn infer(
    head: &Parts,
    body: RequestBody,
    room: &mut Receiving,
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
    let mut body = read(body, length, offset, room, limits).await?;
    if let Some(coding) = coding {
        body = inflated(body, coding, offset, room, limits.request_body_bytes).await?;
    }
    let mut refusal = None;
    let mut take = |bytes: usize| {
        refusal = room.reserve(bytes as u64).err();
        refusal.is_none()
    };
    let (bytes, limits) = (body.len(), decode_limits(limits));
    let decoded = out_of_the_way(bytes, || {
        oip::decode_infer_within(body, json, signature, &limits, &mut take)
    });
    let request = decoded.map_err(|error| refusal.unwrap_or_else(|| decode_error(error)))?;
    room.reserve(unaligned_bytes(&request.inputs))?;
    Ok(request)
}

/// Bytes that an engine has copied before it can read them: those of all binary inputs but the first,
/// unless they happen to be aligned.
pub(crate) fn unaligned_bytes(inputs: &[NamedTensor]) -> u64 {
    let data = inputs.iter().map(|(_, tensor)| tensor.data());
    data.filter(|data| data.as_ptr().align_offset(ALIGNMENT) != 0).map(|d| d.len() as u64).sum()
}

/// Inflates a body where that may take its time, with room taken step by step as it grows.
pub(crate) async fn inflated(
    body: Bytes,
    coding: inflate::Coding,
    offset: usize,
    room: &mut Receiving,
    limit: u64,
) -> Result<Bytes, Error> {
    let mut more = room.part();
    let work = move || {
        let body = inflate::inflate(&body, coding, offset, limit, |bytes| more.reserve(bytes))?;
        Ok((body, more))
    };
    let (body, more) = blocking(work).await?;
    room.join(more);
    Ok(body)
}

/// Reads a JSON object whose fields a protocol reads one by one.
///
/// # Errors
/// When the body is too long, too slow or cut short, or is no object.
pub async fn fields(
    head: &Parts,
    body: RequestBody,
    room: &mut Receiving,
    limits: &Limits,
) -> Result<Fields, Error> {
    let body = plain(head, body, room, limits).await?;
    room.reserve((body.len() as u64).saturating_mul(PARSED_PER_BYTE))?;
    out_of_the_way(body.len(), || Fields::read(&body))
}

/// All of a body, inflated if it came compressed.
async fn plain(
    head: &Parts,
    body: RequestBody,
    room: &mut Receiving,
    limits: &Limits,
) -> Result<Bytes, Error> {
    let coding = inflate::coding(&head.headers)?;
    let body = read(body, content_length(head)?, 0, room, limits).await?;
    match coding {
        Some(coding) => inflated(body, coding, 0, room, limits.request_body_bytes).await,
        None => Ok(body),
    }
}

/// Reads a form of texts and at most one file, as browsers send it.
///
/// # Errors
/// When the body is too long, too slow or cut short, or is no such form.
pub async fn form(
    head: &Parts,
    body: RequestBody,
    room: &mut Receiving,
    limits: &Limits,
) -> Result<Fields, Error> {
    let body = plain(head, body, room, limits).await?;
    // It is copied while it is cut into parts; what is in the file once more, and into its tensor.
    room.reserve((body.len() as u64).saturating_mul(3))?;
    let mut request = http::Request::new(axum::body::Body::from(body));
    // What it may have is checked.
    DefaultBodyLimit::disable().apply(&mut request);
    if let Some(kind) = head.headers.get(CONTENT_TYPE) {
        request.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    let mut parts = Multipart::from_request(request, &()).await.map_err(|error| {
        Error::new(Kind::BadRequest, format!("the body is no form: {error}"))
            .remedy("send multipart/form-data")
    })?;
    let (mut texts, mut file) = (Vec::new(), None);
    while let Some(part) = parts.next_field().await.map_err(form_error)? {
        let name = part.name().unwrap_or_default().to_owned();
        if part.file_name().is_some() {
            let bytes = part.bytes().await.map_err(form_error)?;
            if file.replace(bytes).is_some() {
                return Err(fields::wrong(name, "the form has more than one file"));
            }
        } else {
            if texts.len() == FORM_TEXTS {
                return Err(fields::wrong(name, format!("more than {FORM_TEXTS} fields")));
            }
            let text = part.text().await.map_err(form_error)?;
            texts.push((name, text));
        }
    }
    Fields::of_form(texts, file)
}

/// Texts of a form; clients send fewer than ten.
const FORM_TEXTS: usize = 64;

fn form_error(error: axum::extract::multipart::MultipartError) -> Error {
    Error::new(Kind::BadRequest, format!("the body is no valid form: {error}"))
}

/// Bytes that one of a JSON body may take when it is parsed: an element of a list is two characters at
/// least, and then some forty bytes.
const PARSED_PER_BYTE: u64 = 24;

/// The limits of the codec.
pub fn decode_limits(limits: &Limits) -> DecodeLimits {
    DecodeLimits {
        json_depth: limits.json_depth as usize,
        tensor_elements: usize::try_from(limits.tensor_elements).unwrap_or(usize::MAX),
        rank: limits.tensor_rank as usize,
        inputs: limits.inputs as usize,
        outputs: limits.outputs as usize,
        parameters: limits.parameters as usize,
    }
}

/// What the codec refuses, as an error of the pipeline.
pub fn decode_error(error: oip::DecodeError) -> Error {
    let kind = match error.kind() {
        DecodeErrorKind::BadRequest => Kind::BadRequest,
        DecodeErrorKind::TooLarge => Kind::TooLarge,
        DecodeErrorKind::NoRoom => Kind::Overloaded,
    };
    let place = match (error.tensor(), error.place()) {
        (_, Some(place)) => Some(place.to_owned()),
        (Some(tensor), None) => Some(format!("input {tensor:?}")),
        (None, None) => None,
    };
    let converted = Error::new(kind, error.to_string()).for_limit(error.limit());
    match place {
        Some(place) => converted.at(place),
        None => converted,
    }
}

/// The next bytes of a body; none at its end.
///
/// # Errors
/// When they do not come until `due`, or the body is cut short.
pub(crate) async fn next(
    body: &mut RequestBody,
    due: Instant,
    limits: &Limits,
) -> Result<Option<Bytes>, Error> {
    tokio::time::timeout_at(due, data(body)).await.map_err(|_| {
        let message = format!("the body did not come within {} ms", limits.body_timeout_ms);
        Error::over(Kind::Deadline, Limit::BodyTime, message)
    })?
}

/// The next bytes of a body, whenever they come; none at its end.
///
/// # Errors
/// When the body is cut short.
pub(crate) async fn data(body: &mut RequestBody) -> Result<Option<Bytes>, Error> {
    loop {
        let Some(frame) = body.frame().await else { return Ok(None) };
        let frame = frame.map_err(|error| {
            Error::new(Kind::BadRequest, "the body ended before its length").with_internal(error)
        })?;
        // Trailers say nothing here.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

async fn read(
    mut body: RequestBody,
    length: Option<u64>,
    aligned_offset: usize,
    receiving: &mut Receiving,
    limits: &Limits,
) -> Result<Bytes, Error> {
    let room = match length {
        Some(length) => usize::try_from(length.min(SAID_LENGTH_BYTES)).unwrap_or(usize::MAX),
        None => UNSAID_LENGTH_BYTES,
    };
    let mut buffer = AlignedBuffer::with_aligned_offset(room, aligned_offset);
    let due = Instant::now() + Duration::from_millis(limits.body_timeout_ms);
    loop {
        let Some(data) = next(&mut body, due, limits).await? else { return Ok(buffer.freeze()) };
        if (buffer.len() + data.len()) as u64 > limits.request_body_bytes {
            return Err(body_too_large(None, limits.request_body_bytes));
        }
        receiving.reserve(data.len() as u64)?;
        buffer.extend(&data);
    }
}
