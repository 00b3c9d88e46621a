//! Route: what a request is for, from its method, its path and the snapshot. Pure.
//!
//! Query strings play no part (Triton's own examples send some), and a trailing slash none either.

use std::sync::Arc;

use http::Method;
use percent_encoding::percent_decode_str;

use super::control::Control;
use super::openai::{self, OpenAi};
use crate::error::{Error, Kind};
use crate::names::Target;
use crate::registry::{Model, Snapshot, Version};
use crate::shared_memory::Shared;

/// What a request is for.
#[derive(Debug, Clone)]
pub enum Route {
    /// An inference, by the Open Inference Protocol.
    Infer(Called),
    /// A generation, by Triton's extension; whether its answer is a stream.
    Generate(Called, bool),
    /// A request that the model answers itself, and the bytes of its path up to what the model sees.
    Handler(Called, usize),
    /// A route in the shape of OpenAI's API.
    OpenAi(OpenAi),
    /// A document about the server or a model.
    Document(Document),
    /// The model repository, settings and shared memory.
    Control(Control),
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
    /// `/v2/models/{m}[/versions/{v}]/config`
    ModelConfig(Called),
    /// `/v2/models/stats` and `/v2/models/{m}[/versions/{v}]/stats`
    Statistics(Counted),
}

/// Whose statistics are asked for.
#[derive(Debug, Clone)]
pub enum Counted {
    /// Those of all versions of all models.
    All,
    /// Those of all versions of one.
    Model(Arc<Model>),
    /// Those of one version.
    Version(Called),
}

impl Route {
    /// The route as metrics and logs name it: never a path that a caller chose.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Infer(_) => "infer",
            Self::Generate(..) => "generate",
            Self::Handler(..) => "fn",
            Self::OpenAi(route) => route.label(),
            Self::Document(Document::Live | Document::Ready) => "health",
            Self::Document(Document::Statistics(_)) => "statistics",
            Self::Document(_) => "metadata",
            Self::Control(_) => "control",
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
    if let Some(rest) = path.strip_prefix("/fn/") {
        return handler(rest, snapshot, ticket);
    }
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
        ["v2", "repository" | "logging" | "trace", ..]
        | ["v2", "systemsharedmemory" | "cudasharedmemory", ..]
        | ["v2", "models", _, "trace", ..] => {
            let called = |model: &str| find(snapshot, model, None, ticket);
            control(method, segments, called).unwrap_or_else(|| Err(no_route(method, path)))
        }
        ["v2", "models"] => read(method, Route::Document(Document::Models)),
        ["v2", "models", "stats"] => {
            read(method, Route::Document(Document::Statistics(Counted::All)))
        }
        ["v2", "models", model, rest @ ..] => {
            let (target, verb) = match rest {
                ["versions", version, verb @ ..] => (Some(*version), verb),
                verb => (None, verb),
            };
            let called = || find(snapshot, model, target, ticket);
            match verb {
                [] => read(method, Route::Document(Document::Model(called()?))),
                ["ready"] => read(method, Route::Document(Document::ModelReady(called()?))),
                ["config"] => read(method, Route::Document(Document::ModelConfig(called()?))),
                ["stats"] => {
                    let counted = match target {
                        None => Counted::Model(model_named(snapshot, &decoded(model)?)?),
                        Some(_) => Counted::Version(called()?),
                    };
                    read(method, Route::Document(Document::Statistics(counted)))
                }
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

/// `/fn/{model}[@{version-or-alias}]/…`, of any method.
fn handler(path: &str, snapshot: &Snapshot, ticket: u64) -> Result<Route, Error> {
    let named = path.split('/').next().unwrap_or_default();
    let (model, target) = match named.split_once('@') {
        Some((model, target)) => (model, Some(target)),
        None => (named, None),
    };
    Ok(Route::Handler(find(snapshot, model, target, ticket)?, "/fn/".len() + named.len()))
}

/// The routes of [`Control`]; none where there is no such route.
fn control(
    method: &Method,
    segments: &[&str],
    called: impl Fn(&str) -> Result<Called, Error>,
) -> Option<Result<Route, Error>> {
    let post = |control: Result<Control, Error>| match *method {
        Method::POST => control.map(Route::Control),
        _ => Err(not_allowed(method, "POST")),
    };
    let get = |control| read(method, Route::Control(control));
    let both = |asked, changed| match *method {
        Method::POST => Ok(Route::Control(changed)),
        Method::GET | Method::HEAD => Ok(Route::Control(asked)),
        _ => Err(not_allowed(method, "GET, HEAD, POST")),
    };
    Some(match segments {
        ["v2", "repository", "index"] => post(Ok(Control::Index)),
        ["v2", "repository", "models", model, "load"] => post(decoded(model).map(Control::Load)),
        ["v2", "repository", "models", model, "unload"] => {
            post(decoded(model).map(Control::Unload))
        }
        ["v2", "logging"] => both(Control::Logging, Control::ChangeLogging),
        ["v2", "trace", "setting"] => both(Control::Trace(None), Control::ChangeTrace(None)),
        ["v2", "models", model, "trace", "setting"] => called(model).and_then(|called| {
            both(Control::Trace(Some(called.clone())), Control::ChangeTrace(Some(called)))
        }),
        ["v2", "systemsharedmemory" | "cudasharedmemory", rest @ ..] => match rest {
            ["status"] => get(Control::SharedMemory(Shared::Status(None))),
            ["region", region, "status"] => decoded(region)
                .and_then(|region| get(Control::SharedMemory(Shared::Status(Some(region))))),
            ["region", _, "register"] => post(Ok(Control::SharedMemory(Shared::Register))),
            ["unregister"] | ["region", _, "unregister"] => {
                post(Ok(Control::SharedMemory(Shared::Unregister)))
            }
            _ => return None,
        },
        _ => return None,
    })
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
    let target = match target {
        Some(target) => Target::Named(decoded(target)?),
        None => Target::Live,
    };
    locate(snapshot, &decoded(model)?, &target, ticket)
}

/// The version that a call of a model goes to. `ticket` spreads calls over the versions of a weighted
/// alias.
///
/// # Errors
/// [`Kind::NotFound`] where there is no such model, version or alias.
pub fn locate(
    snapshot: &Snapshot,
    name: &str,
    target: &Target,
    ticket: u64,
) -> Result<Called, Error> {
    let model = model_named(snapshot, name)?;
    let version = model.resolve(target, ticket).map_err(|error| {
        Error::new(Kind::NotFound, format!("Request for unknown model: {error}"))
    })?;
    Ok(Called { version: Arc::clone(version), model })
}

/// The model of this name.
///
/// # Errors
/// [`Kind::NotFound`] where there is none.
pub fn model_named(snapshot: &Snapshot, name: &str) -> Result<Arc<Model>, Error> {
    snapshot.get(name).cloned().ok_or_else(|| {
        // Clients look for these words at the beginning.
        Error::new(
            Kind::NotFound,
            format!("Request for unknown model: {:?} is not found", excerpt(name)),
        )
        .remedy("GET /v2/models lists the models there are")
    })
}

pub(super) fn decoded(segment: &str) -> Result<String, Error> {
    percent_decode_str(segment).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| {
        Error::new(Kind::BadRequest, "a name in the path is not UTF-8 when percent-decoded")
    })
}

/// The beginning of something a caller chose, for messages.
pub(crate) fn excerpt(text: &str) -> String {
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
    fn routes_that_change_something_are_posted_to() {
        for (path, get, post) in [
            ("/v2/repository/index", Err(Kind::MethodNotAllowed), Ok("control")),
            ("/v2/repository/models/a%20b/load", Err(Kind::MethodNotAllowed), Ok("control")),
            ("/v2/repository/models/m/unload", Err(Kind::MethodNotAllowed), Ok("control")),
            ("/v2/logging", Ok("control"), Ok("control")),
            ("/v2/trace/setting/", Ok("control"), Ok("control")),
            ("/v2/models/nope/trace/setting", Err(Kind::NotFound), Err(Kind::NotFound)),
            ("/v2/models/stats", Ok("statistics"), Err(Kind::MethodNotAllowed)),
            ("/v2/systemsharedmemory/status", Ok("control"), Err(Kind::MethodNotAllowed)),
            ("/v2/cudasharedmemory/unregister", Err(Kind::MethodNotAllowed), Ok("control")),
            ("/v2/cudasharedmemory/region/r/register", Err(Kind::MethodNotAllowed), Ok("control")),
            ("/v2/systemsharedmemory/region/r/eat", Err(Kind::NotFound), Err(Kind::NotFound)),
            ("/v2/repository", Err(Kind::NotFound), Err(Kind::NotFound)),
        ] {
            assert_eq!(routed(Method::GET, path), get, "GET {path}");
            assert_eq!(routed(Method::POST, path), post, "POST {path}");
        }
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
