//! Status: how a gRPC call ends, in trailers, or at once in the head of an answer without messages.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::error::Error;
use crate::http::body::Body;

/// The kind of an error, for programs: finer than a status.
const ERROR_KIND: &str = "modelet-error";

/// The key of the limit's setting that a request was refused for.
const ERROR_LIMIT: &str = "modelet-limit";

/// When to try again, as gRPC's own retries read it.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Characters of a message: percent-encoded it still fits the 8 KiB of metadata that clients take.
const MESSAGE_CHARS: usize = 2000;

/// The status that tells of an error.
pub fn of(error: &Error) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(ERROR_KIND, error.kind().as_str().parse().expect("kinds are words"));
    if let Some(limit) = error.limit() {
        metadata.insert(ERROR_LIMIT, limit.key().parse().expect("keys are words with dots"));
    }
    if let Some(wait) = error.wait() {
        metadata.insert(PUSHBACK, wait.as_millis().to_string().parse().expect("digits"));
    }
    if let Some(codings) = error.accepted() {
        metadata.insert("grpc-accept-encoding", codings.parse().expect("a list of words"));
    }
    let text: String = error.text().chars().take(MESSAGE_CHARS).collect();
    Status::with_metadata(error.kind().code(), text, metadata)
}

/// An answer that is only an error. The error itself goes along for the account, which takes it out.
pub fn refuse(error: &Error) -> Response<Body> {
    let (mut parts, ()) = of(error).into_http::<()>().into_parts();
    parts.extensions.insert(error.clone());
    Response::from_parts(parts, Body::from(Bytes::new()))
}

/// The trailers of a call that went well.
pub fn ok() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// The trailers of a stream that ends with an error.
pub fn trailers(error: &Error) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // A message is made of characters that can be encoded, and the rest was checked above.
    if of(error).add_header(&mut trailers).is_err() {
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("13"));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::limit::Limit;

    #[test]
    fn a_refusal_has_its_code_its_words_and_what_programs_read() {
        let error = Error::over(Kind::Overloaded, Limit::QueueLength, "too many \u{fc}\n");
        let response = refuse(&error);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((response.status().as_u16(), header("grpc-status")), (200, "14".to_owned()));
        assert_eq!(header("content-type"), "application/grpc");
        assert_eq!(header("grpc-message"), "too%20many%20%C3%BC%0A%20(limits.queue_length)");
        assert_eq!(header(ERROR_KIND), "overloaded");
        assert_eq!(header(ERROR_LIMIT), "limits.queue_length");
        assert_eq!(header(PUSHBACK), "1000");
    }

    #[test]
    fn a_long_message_still_fits_the_metadata_of_clients() {
        let error = Error::new(Kind::BadRequest, "\u{1f600}".repeat(10_000));
        let bytes: usize = trailers(&error).values().map(HeaderValue::len).sum();
        assert!(bytes < 32 << 10, "{bytes}");
    }
}
