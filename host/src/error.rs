//! What a caller is told when a request cannot be answered, and the one table from kinds to statuses,
//! those of HTTP and those of gRPC.
//!
//! Every operation has an error type of its own; at the edge each becomes an [`Error`]: a kind, a
//! message that is safe for strangers, the place and the remedy where there are any, and, apart from
//! them, what only the operator may read.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use tonic::Code;

use crate::limit::Limit;

/// Whose fault it is and what to do about it, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nothing has that name.
    NotFound,
    /// The route exists, with other methods.
    MethodNotAllowed,
    /// The request is malformed or does not fit the model.
    BadRequest,
    /// A limit on size is in the way.
    TooLarge,
    /// No or unknown credentials.
    Unauthenticated,
    /// Known credentials that do not reach here.
    Forbidden,
    /// What exists contradicts what was asked for.
    Conflict,
    /// It changed since the caller looked (If-Match, If-None-Match).
    PreconditionFailed,
    /// This caller's own share is used up.
    QuotaExceeded,
    /// The host has no room.
    Overloaded,
    /// Time ran out.
    Deadline,
    /// The guest trapped.
    Trap,
    /// The guest ended without an answer that could be used.
    NoResponse,
    /// The guest said that it failed.
    GuestError,
    /// No instance could be started.
    InstantiationFailed,
    /// The model cannot be served now.
    ModelUnavailable,
    /// The registry takes no changes.
    ReadOnly,
    /// The caller went away before the answer.
    ClientGone,
    /// This host does not do it.
    Unsupported,
    /// A fault of the host.
    Internal,
}

impl Kind {
    /// All kinds, for documents and tests.
    pub const ALL: [Self; 20] = [
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::BadRequest,
        Self::TooLarge,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::Conflict,
        Self::PreconditionFailed,
        Self::QuotaExceeded,
        Self::Overloaded,
        Self::Deadline,
        Self::Trap,
        Self::NoResponse,
        Self::GuestError,
        Self::InstantiationFailed,
        Self::ModelUnavailable,
        Self::ReadOnly,
        Self::ClientGone,
        Self::Unsupported,
        Self::Internal,
    ];

    /// The HTTP status; every protocol's encoder reads this table and no other.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Conflict => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded
            | Self::InstantiationFailed
            | Self::ModelUnavailable
            | Self::ReadOnly => StatusCode::SERVICE_UNAVAILABLE,
            Self::Deadline => StatusCode::GATEWAY_TIMEOUT,
            Self::Trap | Self::NoResponse | Self::GuestError | Self::Internal => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            // Nobody reads it; it is for logs and metrics, as nginx's 499.
            Self::ClientGone => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// The gRPC status that goes with it.
    pub fn code(self) -> Code {
        match self {
            Self::NotFound => Code::NotFound,
            Self::MethodNotAllowed | Self::Unsupported => Code::Unimplemented,
            Self::BadRequest => Code::InvalidArgument,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Forbidden => Code::PermissionDenied,
            Self::Conflict | Self::PreconditionFailed => Code::FailedPrecondition,
            // gRPC's own word for a message over a limit of size, too.
            Self::QuotaExceeded | Self::TooLarge => Code::ResourceExhausted,
            Self::Overloaded
            | Self::InstantiationFailed
            | Self::ModelUnavailable
            | Self::ReadOnly => Code::Unavailable,
            Self::Deadline => Code::DeadlineExceeded,
            Self::Trap | Self::NoResponse | Self::GuestError | Self::Internal => Code::Internal,
            Self::ClientGone => Code::Cancelled,
        }
    }

    /// When a caller that is told so may come back, unless the error knows better: every 429 and 503
    /// says when.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            // About as long as a burst takes to pass.
            Self::QuotaExceeded | Self::Overloaded | Self::InstantiationFailed => Some(BURST),
            // Somebody has to do something first, or a model to load.
            Self::ModelUnavailable => Some(RECOVERY),
            // Only a restart helps, and that takes an operator.
            Self::ReadOnly => Some(REPAIR),
            Self::NotFound
            | Self::MethodNotAllowed
            | Self::BadRequest
            | Self::TooLarge
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::Conflict
            | Self::PreconditionFailed
            | Self::Deadline
            | Self::Trap
            | Self::NoResponse
            | Self::GuestError
            | Self::ClientGone
            | Self::Unsupported
            | Self::Internal => None,
        }
    }

    /// The spelling in answers, logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BadRequest => "bad_request",
            Self::TooLarge => "too_large",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Conflict => "conflict",
            Self::PreconditionFailed => "precondition_failed",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Overloaded => "overloaded",
            Self::Deadline => "deadline",
            Self::Trap => "trap",
            Self::NoResponse => "no_response",
            Self::GuestError => "guest_error",
            Self::InstantiationFailed => "instantiation_failed",
            Self::ModelUnavailable => "model_unavailable",
            Self::ReadOnly => "read_only",
            Self::ClientGone => "client_gone",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }
}

const BURST: Duration = Duration::from_secs(1);
const RECOVERY: Duration = Duration::from_secs(5);
const REPAIR: Duration = Duration::from_secs(60);

/// A refusal or a failure, on its way to a caller.
#[derive(Debug, Clone)]
pub struct Error(Box<Details>);

/// Boxed, so that a `Result` on the data path is as small as its success.
#[derive(Debug, Clone)]
struct Details {
    kind: Kind,
    message: Cow<'static, str>,
    place: Option<String>,
    remedy: Option<Cow<'static, str>>,
    /// For the operator's log only.
    internal: Option<String>,
    retry_after: Option<Duration>,
    /// The methods a route takes, for 405.
    allow: Option<Cow<'static, str>>,
    /// The codings of a body that are understood.
    accept_encoding: Option<&'static str>,
    /// Where the upload goes on that this is about.
    upload_offset: Option<u64>,
    /// The limit it was refused for.
    limit: Option<Limit>,
}

impl Error {
    /// An error of `kind` with a message that is safe for strangers.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Details {
            kind,
            message: message.into(),
            place: None,
            remedy: None,
            internal: None,
            retry_after: kind.retry_after(),
            allow: None,
            accept_encoding: None,
            upload_offset: None,
            limit: None,
        }))
    }

    /// A refusal for a limit, whose key ends the message.
    pub fn over(kind: Kind, limit: Limit, message: impl fmt::Display) -> Self {
        Self::new(kind, format!("{message} ({})", limit.key())).for_limit(limit)
    }

    /// A fault of the host: strangers read a fixed text, the operator reads `internal`.
    pub fn internal(internal: impl fmt::Display) -> Self {
        Self::new(Kind::Internal, "the server failed in an unexpected way")
            .with_internal(internal)
            .remedy("try again; if it happens again, the server's log has the reason")
    }

    /// Where it is: a tensor, a header, a part of the request.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.0.place = Some(place.into());
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// What only the operator may read.
    #[must_use]
    pub fn with_internal(mut self, internal: impl fmt::Display) -> Self {
        self.0.internal = Some(internal.to_string());
        self
    }

    /// When to come back, sent as `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// The limit it was refused for, which the message names already.
    #[must_use]
    pub fn for_limit(mut self, limit: impl Into<Option<Limit>>) -> Self {
        self.0.limit = limit.into();
        self
    }

    /// Which methods would do, sent as `Allow`.
    #[must_use]
    pub fn allow(mut self, methods: impl Into<Cow<'static, str>>) -> Self {
        self.0.allow = Some(methods.into());
        self
    }

    /// Which methods would do, if that is the matter.
    pub fn allowed(&self) -> Option<&str> {
        self.0.allow.as_deref()
    }

    /// Which codings of a body would do, sent as `Accept-Encoding`.
    #[must_use]
    pub fn accept_encoding(mut self, codings: &'static str) -> Self {
        self.0.accept_encoding = Some(codings);
        self
    }

    /// Which codings of a body would do, if that is the matter.
    pub fn accepted(&self) -> Option<&'static str> {
        self.0.accept_encoding
    }

    /// Where the upload goes on that this is about, sent as `Upload-Offset`.
    #[must_use]
    pub fn upload_offset(mut self, offset: u64) -> Self {
        self.0.upload_offset = Some(offset);
        self
    }

    /// Where an upload goes on, if this is about one.
    pub fn uploaded(&self) -> Option<u64> {
        self.0.upload_offset
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// When to come back, if that is known.
    pub fn wait(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The limit it was refused for, if it was.
    pub fn limit(&self) -> Option<Limit> {
        self.0.limit
    }

    /// What only the operator may read, if there is more than the message.
    pub fn operator_detail(&self) -> Option<&str> {
        self.0.internal.as_deref()
    }

    /// The whole text for a caller: what, where, and what to do.
    pub fn text(&self) -> String {
        let mut text = self.0.message.to_string();
        if let Some(place) = &self.0.place {
            text.push_str("; where: ");
            text.push_str(place);
        }
        if let Some(remedy) = &self.0.remedy {
            text.push_str("; ");
            text.push_str(remedy);
        }
        text
    }

    /// The JSON body of an error: `error` is a string, as Open Inference Protocol clients read it.
    pub fn body(&self) -> ErrorBody<'_> {
        ErrorBody {
            error: self.text(),
            message: &self.0.message,
            kind: self.0.kind.as_str(),
            place: self.0.place.as_deref(),
            remedy: self.0.remedy.as_deref(),
            limit: self.0.limit,
        }
    }
}

/// The JSON body of an error.
#[derive(Debug, Serialize)]
pub struct ErrorBody<'a> {
    /// What was wrong, where, and what to do, in one string.
    pub error: String,
    /// What was wrong alone.
    pub message: &'a str,
    /// The kind, for programs.
    pub kind: &'static str,
    /// The place alone.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub place: Option<&'a str>,
    /// The remedy alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'a str>,
    /// The key of the limit's setting, where a limit was in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl std::error::Error for Error {}

impl From<crate::names::NameError> for Error {
    fn from(error: crate::names::NameError) -> Self {
        Self::new(Kind::BadRequest, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_an_error_status_and_its_own_spelling() {
        let spellings: std::collections::BTreeSet<_> =
            Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(spellings.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(kind.status().is_client_error() || kind.status().is_server_error());
            assert_ne!(kind.code(), Code::Ok);
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn every_429_and_503_says_when_to_come_back_and_nothing_else_does() {
        for kind in Kind::ALL {
            let busy = matches!(kind.status().as_u16(), 429 | 503);
            assert_eq!(Error::new(kind, "busy").wait().is_some(), busy, "{kind:?}");
        }
    }

    #[test]
    fn a_refusal_for_a_limit_names_its_key_in_words_and_for_programs() {
        for limit in Limit::ALL {
            let error = Error::over(Kind::TooLarge, *limit, "too much");
            assert_eq!(error.text(), format!("too much ({})", limit.key()));
            assert_eq!(serde_json::to_value(error.body()).unwrap()["limit"], limit.key());
        }
    }

    #[test]
    fn a_caller_reads_what_where_and_what_to_do_but_not_what_is_internal() {
        let error = Error::new(Kind::BadRequest, "wrong shape")
            .at("input \"image\"")
            .remedy("send [1,1,28,28]")
            .with_internal("secret");
        let body = serde_json::to_string(&error.body()).unwrap();
        assert_eq!(error.text(), "wrong shape; where: input \"image\"; send [1,1,28,28]");
        assert!(!body.contains("secret"));
    }
}
