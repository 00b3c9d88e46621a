//! Errors as this API's clients read them: an object, with the field that is wrong.

use http::{HeaderName, HeaderValue, Response};
use serde_json::{Value, json};

use crate::error::{Error, Kind};
use crate::http::body::Body;
use crate::http::encode;

/// Tells clients whether to try again, whatever they would make of the status.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Whether a path is of this API, so that even what is not found there is told in its form.
pub fn speaks(path: &str) -> bool {
    let path = path.strip_prefix("/openai").unwrap_or(path);
    path.strip_prefix("/v1").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// An error as a response.
pub fn response(error: &Error) -> Response<Body> {
    let mut response = encode::error_with(error, &body(error));
    // Clients try every 5xx again, and what failed inside the model would fail again.
    if error.kind().status().is_server_error() && error.wait().is_none() {
        response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    response
}

/// An error as a document.
pub fn body(error: &Error) -> Value {
    let parts = error.body();
    let message = match parts.remedy {
        Some(remedy) => format!("{}; {remedy}", parts.message),
        None => parts.message.to_owned(),
    };
    let param = parts.place.and_then(field);
    let kind = error.kind();
    let code = match (kind, param) {
        (Kind::NotFound, Some("model")) => "model_not_found",
        (Kind::QuotaExceeded, _) => "rate_limit_exceeded",
        (Kind::Unauthenticated, _) => "invalid_api_key",
        _ => kind.as_str(),
    };
    json!({ "error": { "message": message, "type": class(kind), "param": param, "code": code } })
}

/// The field that a place is, or the input that the field became.
fn field(place: &str) -> Option<&str> {
    let place =
        place.strip_prefix("input \"").and_then(|input| input.strip_suffix('"')).unwrap_or(place);
    (!place.contains(' ')).then_some(place)
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::NotFound
        | Kind::MethodNotAllowed
        | Kind::BadRequest
        | Kind::TooLarge
        | Kind::Conflict
        | Kind::PreconditionFailed => "invalid_request_error",
        Kind::Unauthenticated => "authentication_error",
        Kind::Forbidden => "permission_error",
        Kind::QuotaExceeded => "rate_limit_error",
        Kind::Overloaded
        | Kind::Deadline
        | Kind::Trap
        | Kind::NoResponse
        | Kind::GuestError
        | Kind::InstantiationFailed
        | Kind::ModelUnavailable
        | Kind::ReadOnly
        | Kind::ClientGone
        | Kind::Unsupported
        | Kind::Internal => "server_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_api_and_no_others_get_its_errors() {
        for path in ["/v1", "/v1/", "/v1/models", "/v1/nothing", "/openai/v1/models"] {
            assert!(speaks(path), "{path}");
        }
        for path in ["/", "/v2/models", "/v10", "/api/v1/models", "/openai/v2"] {
            assert!(!speaks(path), "{path}");
        }
    }

    #[test]
    fn an_error_has_message_type_param_and_code() {
        let error = Error::new(Kind::BadRequest, "no").at("messages[0].role").remedy("send one");
        let wanted = json!({ "error": { "message": "no; send one", "type": "invalid_request_error",
            "param": "messages[0].role", "code": "bad_request" } });
        assert_eq!(body(&error), wanted);
        for (place, param) in [
            ("input \"messages\"", json!("messages")),
            ("header Content-Length", Value::Null),
            ("output \"text\"", Value::Null),
        ] {
            assert_eq!(
                body(&Error::new(Kind::BadRequest, "no").at(place))["error"]["param"],
                param
            );
        }
    }

    #[test]
    fn only_what_may_end_otherwise_is_tried_again() {
        for kind in Kind::ALL {
            let response = response(&Error::new(kind, "no"));
            let says_no = response.headers().contains_key(SHOULD_RETRY);
            let is_final = matches!(response.status().as_u16(), 500 | 501 | 504);
            assert_eq!(says_no, is_final, "{kind:?}");
        }
    }
}
