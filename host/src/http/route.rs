//! Route: what a request is for, from its method, its path and the snapshot. Pure.
//!
//! Query strings play no part (Triton's own examples send some), and a trailing slash none either.

use std::sync::Arc;

use http::Method;
use percent_encoding::percent_decode_str;

use super::openai::{self, OpenAi};
use crate::error::{Error, Kind};
use crate::names::Target;
use crate::registry::{Model, Snapshot, Version};

/// What a request is for.
#[derive(Debug, Clone)]
pub enum Route {
    /// An inference, by the Open Inference Protocol.
    Infer(Called),
    /// A generation, by Triton's extension; whether its answer is a stream.
    Generate(Called, bool),
    /// A route in the shape of OpenAI's API.
    OpenAi(OpenAi),
    /// A document about the server or a model.
    Document(Document),
    /// Prometheus metrics.
    Metrics,
    /// Whether the process lives.
    Healthz,
    /// Whether it should get requests.
    Readyz,
    /// The management API, which routes on by itself.
    Management,
}

/// A model and the version a request goes to.
#[derive(Debug, Clone)]
pub struct Called {
    /// The model.
    pub model: Arc<Model>,
    /// The version, whatever alias was called.
    pub version: Arc<Version>,
}

/// Documents of the Open Inference Protocol.
#[derive(Debug, Clone)]
pub enum Document {
    /// `/v2/health/live`
    Live,
    /// `/v2/health/ready`
    Ready,
    /// `/v2`
    Server,
    /// `/v2/models`
    Models,
    /// `/v2/models/{m}[/versions/{v}]`
    Model(Called),
    /// `/v2/models/{m}[/versions/{v}]/ready`
    ModelReady(Called),
}

impl Route {
    /// The route as metrics and logs name it: never a path that a caller chose.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Infer(_) => "infer",
            Self::Generate(..) => "generate",
            Self::OpenAi(route) => route.label(),
            Self::Document(Document::Live | Document::Ready) => "health",
            Self::Document(_) => "metadata",
            Self::Metrics => "metrics",
            Self::Healthz => "healthz",
            Self::Readyz => "readyz",
            Self::Management => "management",
        }
    }
}

/// Finds the route. `ticket` spreads calls over the versions of a weighted alias.
///
/// # Errors
/// [`Kind::NotFound`] where there is no such route, model, version or alias;
/// [`Kind::MethodNotAllowed`] with the methods there are.
pub fn route(
    method: &Method,
    path: &str,
    snapshot: &Snapshot,
    ticket: u64,
) -> Result<Route, Error> {
    let mut segments = [""; MAX_SEGMENTS];
    let segments = split(path, &mut segments).ok_or_else(|| no_route(method, path))?;
    match segments {
        ["healthz"] => read(method, Route::Healthz),
        ["readyz"] => read(method, Route::Readyz),
        ["metrics"] => read(method, Route::Metrics),
        ["api", "v1", ..] => Ok(Route::Management),
        ["v1", rest @ ..] | ["openai", "v1", rest @ ..] => {
            openai::route(method, rest)?.map(Route::OpenAi).ok_or_else(|| no_route(method, path))
        }
        ["v2"] => read(method, Route::Document(Document::Server)),
        ["v2", "health", "live"] => read(method, Route::Document(Document::Live)),
        ["v2", "health", "ready"] => read(method, Route::Document(Document::Ready)),
        ["v2", "models"] => read(method, Route::Document(Document::Models)),
        ["v2", "models", model, rest @ ..] => {
            let (target, verb) = match rest {
                ["versions", version, verb @ ..] => (Some(*version), verb),
                verb => (None, verb),
            };
            let called = || find(snapshot, model, target, ticket);
            match verb {
                [] => read(method, Route::Document(Document::Model(called()?))),
                ["ready"] => read(method, Route::Document(Document::ModelReady(called()?))),
                ["infer"] if method == Method::POST => Ok(Route::Infer(called()?)),
                [generate @ ("generate" | "generate_stream")] if method == Method::POST => {
                    Ok(Route::Generate(called()?, *generate == "generate_stream"))
                }
                ["infer" | "generate" | "generate_stream"] => Err(not_allowed(method, "POST")),
                _ => Err(no_route(method, path)),
            }
        }
        _ => Err(no_route(method, path)),
    }
}

/// Segments of the longest route there is, and one more to see that a path is longer.
const MAX_SEGMENTS: usize = 12;

/// Splits a path at its slashes, without the empty ends; none if it has more than any route.
fn split<'a, 'b>(
    path: &'a str,
    segments: &'b mut [&'a str; MAX_SEGMENTS],
) -> Option<&'b [&'a str]> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut count = 0;
    for segment in path.split('/') {
        *segments.get_mut(count)? = segment;
        count += 1;
    }
    segments.get(..count)
}

pub(super) fn read<T>(method: &Method, route: T) -> Result<T, Error> {
    if matches!(*method, Method::GET | Method::HEAD) {
        Ok(route)
    } else {
        Err(not_allowed(method, "GET, HEAD"))
    }
}

fn find(
    snapshot: &Snapshot,
    model: &str,
    target: Option<&str>,
    ticket: u64,
) -> Result<Called, Error> {
    let name = decoded(model)?;
    let model = snapshot.get(name.as_str()).ok_or_else(|| {
        // Clients look for these words at the beginning.
        Error::new(
            Kind::NotFound,
            format!("Request for unknown model: {:?} is not found", excerpt(&name)),
        )
        .remedy("GET /v2/models lists the models there are")
    })?;
    let target = match target {
        Some(target) => Target::Named(decoded(target)?),
        None => Target::Live,
    };
    let version = model.resolve(&target, ticket).map_err(|error| {
        Error::new(Kind::NotFound, format!("Request for unknown model: {error}"))
    })?;
    Ok(Called { model: Arc::clone(model), version: Arc::clone(version) })
}

pub(super) fn decoded(segment: &str) -> Result<String, Error> {
    percent_decode_str(segment).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| {
        Error::new(Kind::BadRequest, "a name in the path is not UTF-8 when percent-decoded")
    })
}

/// The beginning of something a caller chose, for messages.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

fn no_route(method: &Method, path: &str) -> Error {
    Error::new(Kind::NotFound, format!("there is no route {method} {:?}", excerpt(path)))
        .remedy("models are at /v2/models/{model}/infer, management at /api/v1")
}

pub(super) fn not_allowed(method: &Method, allow: &'static str) -> Error {
    Error::new(Kind::MethodNotAllowed, format!("this route does not take {method}"))
        .remedy(format!("use {allow}"))
        .allow(allow)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(method: Method, path: &str) -> Result<&'static str, Kind> {
        route(&method, path, &Snapshot::default(), 0)
            .map(|route| route.label())
            .map_err(|error| error.kind())
    }

    #[test]
    fn trailing_slashes_and_missing_ones_are_the_same() {
        for path in ["/v2", "/v2/"] {
            assert_eq!(routed(Method::GET, path), Ok("metadata"));
        }
        assert_eq!(routed(Method::GET, "/v2/health/live"), Ok("health"));
        assert_eq!(routed(Method::HEAD, "/healthz"), Ok("healthz"));
    }

    #[test]
    fn a_wrong_method_says_which_are_right() {
        let error = route(&Method::POST, "/v2", &Snapshot::default(), 0).unwrap_err();
        assert_eq!(error.kind(), Kind::MethodNotAllowed);
        assert_eq!(error.allowed(), Some("GET, HEAD"));
    }

    #[test]
    fn unknown_paths_and_models_are_not_found_and_never_a_panic() {
        for path in [
            "",
            "/",
            "//",
            "/v3",
            "/v2/models/nope",
            "/v2/models/nope/infer/x",
            "/a/b/c/d/e/f/g/h/i/j/k/l/m/n",
        ] {
            assert_eq!(routed(Method::GET, path), Err(Kind::NotFound), "{path}");
        }
        assert_eq!(routed(Method::GET, "/v2/models/%ff"), Err(Kind::BadRequest));
        let error = route(&Method::GET, "/v2/models/nope", &Snapshot::default(), 0).unwrap_err();
        assert!(error.text().starts_with("Request for unknown model"));
    }
}
