//! Blobs by digest, `/api/v1/blobs/sha256:HEX`: whether one is there, and an upload in pieces that goes
//! on where an earlier one ended.
//!
//! `HEAD` answers 200 with the blob's length, or 404 with `Upload-Offset`, where its upload goes on.
//! `PATCH` appends at `Upload-Offset`; the first one announces the whole in `Upload-Length`. It answers
//! 204 with the new offset, or 201 once the blob is whole and has its digest.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use axum::extract::rejection::PathRejection;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::management::{Answer, Shared};
use crate::config::Limits;
use crate::digest::Digest;
use crate::error::{Error, Kind};
use crate::host::Host;
use crate::limit::Limit;
use crate::publish::{CHUNKS_WAITING, blob_error, blocking};
use crate::registry::{BlobStore as _, PartialWriter};
use crate::uploads::{Begun, partial_error};
use crate::version::BlobRef;

/// Where in a blob the bytes of a request begin, and where the next ones go.
pub const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
/// The bytes of the whole blob.
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");

type BlobPath = Result<Path<String>, PathRejection>;

/// `HEAD`: whether a blob is there.
pub(super) async fn look_up(State(host): Shared, path: BlobPath) -> Answer {
    let digest = digest_of(&path?.0)?;
    let size = blocking(move || {
        let blobs = host.registry().blobs();
        let size = blobs.size(&digest).map_err(blob_error)?;
        size.ok_or_else(|| {
            let offset = blobs.partial(&digest).map_or(0, |partial| partial.bytes);
            Error::new(Kind::NotFound, format!("blob {digest} is not stored"))
                .upload_offset(offset)
                .remedy(format!("send its bytes from {offset} on with PATCH"))
        })
    });
    let headers = [(CONTENT_LENGTH, HeaderValue::from(size.await?)), (CACHE_CONTROL, NO_STORE)];
    Ok((StatusCode::OK, headers).into_response())
}

/// A blob may be gone at the next collection.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// `PATCH`: adds the body to what has come of a blob.
pub(super) async fn append(
    State(host): Shared,
    path: BlobPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let digest = digest_of(&path?.0)?;
    let at = number(&headers, &UPLOAD_OFFSET)?.ok_or_else(|| {
        Error::new(Kind::BadRequest, "it does not say where in the blob its bytes begin")
            .at("header Upload-Offset")
            .remedy("send 0 for a new upload; HEAD says where another goes on")
    })?;
    let (length, coming) = (number(&headers, &UPLOAD_LENGTH)?, number(&headers, &CONTENT_LENGTH)?);
    let beginning = Arc::clone(&host);
    let begun = blocking(move || {
        beginning.uploads().begin(beginning.registry().blobs(), digest, length, at)
    });
    let writer = match begun.await? {
        Begun::Whole(blob) => return Ok(whole(&host, StatusCode::OK, blob).await?),
        Begun::Part(writer) => writer,
    };
    let left = writer.state().length - at;
    if let Some(coming) = coming.filter(|coming| *coming > left) {
        let text = format!("the body has {coming} bytes, and {left} of the blob are to come");
        let error = Error::new(Kind::BadRequest, text).upload_offset(at);
        return Err(error.remedy("announce the length that the file has").into());
    }
    match receive(&host, writer, body).await? {
        Received::Whole(blob) => Ok(whole(&host, StatusCode::CREATED, blob).await?),
        Received::Part(offset) => {
            let headers = [(UPLOAD_OFFSET, HeaderValue::from(offset))];
            Ok((StatusCode::NO_CONTENT, headers).into_response())
        }
    }
}

/// The answer for a blob that is there; it is kept from now on for a version to name it.
async fn whole(host: &Arc<Host>, status: StatusCode, blob: BlobRef) -> Result<Response, Error> {
    if status == StatusCode::OK {
        let host = Arc::clone(host);
        blocking(move || {
            let lease = host.registry().blobs().lease(&blob.digest).map_err(blob_error)?;
            let lease = lease.ok_or_else(|| {
                Error::new(Kind::Conflict, format!("blob {} was just removed", blob.digest))
                    .upload_offset(0)
                    .remedy("send it")
            })?;
            host.uploads().hold_unnamed(&host.snapshot(), blob, lease);
            Ok(())
        })
        .await?;
    }
    Ok((status, Json(json!({ "digest": blob.digest, "bytes": blob.bytes }))).into_response())
}

/// What a body came to.
enum Received {
    /// The blob is whole and held for a version to name it.
    Whole(BlobRef),
    /// It goes on here.
    Part(u64),
}

/// Streams a body into a blob; memory holds some chunks of it at a time. Whatever ends it early, what
/// came stays.
async fn receive(
    host: &Arc<Host>,
    mut writer: PartialWriter,
    body: Body,
) -> Result<Received, Error> {
    let (chunks, mut arriving) = mpsc::channel::<Bytes>(CHUNKS_WAITING);
    let (ended, has_ended) = oneshot::channel::<()>();
    let limits = &host.config().limits;
    let host = Arc::clone(host);
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(chunk) = arriving.blocking_recv() {
            let offset = writer.state().bytes;
            writer.write(&chunk).map_err(|error| partial_error(error).upload_offset(offset))?;
        }
        let offset = writer.state().bytes;
        if has_ended.blocking_recv().is_err() || !writer.is_whole() {
            return Ok(Received::Part(offset));
        }
        let (blob, lease) = writer.finish().map_err(partial_error)?;
        // Here and not where the answer is made, which nobody may wait for any more.
        host.uploads().hold_unnamed(&host.snapshot(), blob, lease);
        Ok(Received::Whole(blob))
    });
    let sent = send(body, &chunks, limits).await;
    if sent.is_ok() {
        let _ = ended.send(());
    } else {
        drop(ended);
    }
    drop(chunks);
    let written: Result<_, Error> = writing.await.map_err(Error::internal)?;
    match (sent, written?) {
        (Ok(()), received) => Ok(received),
        (Err(error), Received::Part(offset)) => Err(error.upload_offset(offset)),
        (Err(error), Received::Whole(_)) => Err(error),
    }
}

/// Hands on the chunks of a body, as long as they keep coming.
async fn send(mut body: Body, chunks: &mpsc::Sender<Bytes>, limits: &Limits) -> Result<(), Error> {
    let (each, all) = (limits.body_timeout_ms, limits.upload_timeout_ms);
    let late = |limit: Limit, text: String| {
        Error::over(Kind::Deadline, limit, text).remedy("what came stays; go on from there")
    };
    let sending = async {
        loop {
            let frame = tokio::time::timeout(Duration::from_millis(each), body.frame()).await;
            let frame = frame.map_err(|_| {
                late(Limit::BodyTime, format!("nothing of the body came for {each} ms"))
            })?;
            let Some(frame) = frame else { return Ok(()) };
            let frame = frame.map_err(|error| {
                Error::new(Kind::BadRequest, "the body ended before its length")
                    .with_internal(error)
                    .remedy("what came stays; go on from there")
            })?;
            let Ok(chunk) = frame.into_data() else { continue };
            if chunks.send(chunk).await.is_err() {
                // The writer gave up; it says why.
                return Ok(());
            }
        }
    };
    tokio::time::timeout(Duration::from_millis(all), sending).await.unwrap_or_else(|_| {
        Err(late(Limit::UploadTime, format!("the request took more than {all} ms")))
    })
}

fn digest_of(text: &str) -> Result<Digest, Error> {
    text.parse().map_err(|error: crate::digest::DigestError| {
        Error::new(Kind::BadRequest, error.to_string()).at("path")
    })
}

/// The number that a header holds; none if it is not there.
fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Error> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| {
        Error::new(Kind::BadRequest, "not a number of bytes").at(format!("header {name}"))
    })
}
