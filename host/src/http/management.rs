//! The management API, `/api/v1`: models, versions, aliases, and what the host knows of itself.
//!
//! axum routes here; it is off the data path.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::multipart::Multipart;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, head, post, put};
use axum::{Extension, Json};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Collected, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tower::ServiceExt as _;

use super::authenticate::DEFAULT_TENANT;
use super::blobs;
use super::body::Body;
use super::request_body::RequestBody;
use super::route::excerpt;
use crate::config::Limits;
use crate::error::{Error, Kind};
use crate::host::Host;
use crate::ledger::Window;
use crate::limit::Limit;
use crate::names::{AliasName, ModelName, VersionName};
use crate::publish::{self, Outcome, Published};
use crate::registry::{
    Alias, Change, Expect, HistoryError, Model, Op, Registry as _, Version, WeightedTarget,
};
use crate::version::Annotations;

/// Records of a history that are sent unless more are asked for.
const DEFAULT_HISTORY: usize = 100;

/// Answers a management request.
///
/// # Errors
/// [`Kind::Overloaded`] when there are too many at once; what is wrong with a body that is no upload;
/// what a handler refused with.
pub async fn answer(
    host: &Arc<Host>,
    request: Request<RequestBody>,
) -> Result<http::Response<Body>, Error> {
    let _place = host.admission().manage()?;
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (head, body) = request.into_parts();
    // Uploads are read as they come, and limited part by part, by what the part is. The only thing that
    // is patched is a blob.
    let is_form = head.headers.get(CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().to_ascii_lowercase().starts_with(b"multipart/form-data")
    });
    let body = match is_form || method == Method::PATCH {
        true => axum::body::Body::new(body),
        false => read_whole(body, &host.config().limits).await?.into(),
    };
    // The router is a tree of a few nodes; making it costs microseconds, off the data path.
    let routed = router(Arc::clone(host)).oneshot(Request::from_parts(head, body));
    let mut response = routed.await.unwrap_or_else(|never| match never {});
    let Some(Refusal(error)) = response.extensions_mut().remove() else {
        return Ok(response.map(Body::stream));
    };
    // Only axum knows which methods a route has, and says so in a header.
    let allow = response.headers().get(ALLOW).and_then(|methods| methods.to_str().ok());
    Err(match allow {
        Some(methods) if error.kind() == Kind::MethodNotAllowed => {
            let methods = methods.replace(',', ", ");
            error.at(format!("{method} {path}")).remedy(format!("use {methods}")).allow(methods)
        }
        _ => error,
    })
}

/// Reads a body that is no upload, which is short.
async fn read_whole(body: RequestBody, limits: &Limits) -> Result<Bytes, Error> {
    let limit = limits.management_body_bytes;
    let reading = Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX)).collect();
    let time = Duration::from_millis(limits.body_timeout_ms);
    let read = tokio::time::timeout(time, reading).await.map_err(|_| {
        let message = format!("the body did not come within {} ms", time.as_millis());
        Error::over(Kind::Deadline, Limit::BodyTime, message)
    })?;
    read.map(Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            let message = format!("the body is over the limit of {limit} bytes");
            return Error::over(Kind::TooLarge, Limit::ManagementBodyBytes, message);
        }
        Error::new(Kind::BadRequest, "the body ended before its length").with_internal(error)
    })
}

fn router(host: Arc<Host>) -> axum::Router {
    axum::Router::new()
        .route("/api/v1/models", get(models))
        .route("/api/v1/models/{model}", get(model).delete(delete_model))
        .route("/api/v1/models/{model}/versions", get(versions))
        .route(
            "/api/v1/models/{model}/versions/{version}",
            get(version).put(publish_version).delete(delete_version),
        )
        .route("/api/v1/models/{model}/versions/{version}/annotations", put(annotate))
        .route("/api/v1/models/{model}/versions/{version}/quarantine", delete(release))
        .route("/api/v1/models/{model}/aliases", get(aliases))
        .route("/api/v1/models/{model}/aliases/{alias}", put(set_alias).delete(remove_alias))
        .route("/api/v1/models/{model}/aliases/{alias}/rollback", post(rollback_alias))
        .route("/api/v1/models/{model}/history", get(history))
        .route("/api/v1/blobs/{digest}", head(blobs::look_up).patch(blobs::append))
        .route("/api/v1/instances", get(instances))
        .route("/api/v1/efficiency", get(efficiency))
        .route("/api/v1/bill", get(bill))
        .route("/api/v1/config", get(config))
        .route("/api/v1/openapi.json", get(openapi))
        .fallback(|uri: Uri| async move {
            let error = Error::new(Kind::NotFound, "there is no such management route");
            Refusal(
                error
                    .at(excerpt(uri.path()))
                    .remedy("GET /api/v1/openapi.json lists the routes there are"),
            )
        })
        .method_not_allowed_fallback(|| async {
            Refusal(Error::new(Kind::MethodNotAllowed, "this route does not take that method"))
        })
        // Every body is limited before it gets here, or part by part.
        .layer(DefaultBodyLimit::disable())
        .with_state(host)
}

pub(super) type Answer = Result<Response, Refusal>;

/// An error on its way out of a handler, which goes through axum as an extension of an empty response.
#[derive(Clone)]
pub(super) struct Refusal(Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (Extension(self), ()).into_response()
    }
}

macro_rules! from_rejection {
    ($($rejection:ty),*) => {
        $(impl From<$rejection> for Refusal {
            fn from(rejection: $rejection) -> Self {
                Self(Error::new(Kind::BadRequest, rejection.body_text()))
            }
        })*
    };
}
from_rejection!(JsonRejection, PathRejection, QueryRejection);

pub(super) type Shared = State<Arc<Host>>;

/// The query of every route that changes something.
#[derive(Debug, Deserialize)]
struct ChangeQuery {
    #[serde(default)]
    dry_run: bool,
}

fn parse<T: std::str::FromStr<Err = crate::names::NameError>>(name: &str) -> Result<T, Error> {
    name.parse().map_err(Error::from)
}

fn find_model(host: &Host, name: &str) -> Result<Arc<Model>, Error> {
    let name: ModelName = parse(name)?;
    host.snapshot().get(&name).cloned().ok_or_else(|| {
        Error::new(Kind::NotFound, format!("model '{name}' does not exist"))
            .remedy("GET /api/v1/models lists the models there are")
    })
}

fn find_version(
    host: &Host,
    model: &str,
    version: &str,
) -> Result<(Arc<Model>, Arc<Version>), Error> {
    let model = find_model(host, model)?;
    let target = crate::names::Target::Named(version.to_owned());
    let found = model.resolve(&target, 0).map(Arc::clone);
    let version = found.map_err(|error| Error::new(Kind::NotFound, error.to_string()))?;
    Ok((model, version))
}

#[derive(Serialize)]
struct ModelDocument<'a> {
    name: &'a ModelName,
    id: String,
    owner: &'a str,
    created_ms: u64,
    description: &'a str,
    versions: Vec<&'a VersionName>,
    aliases: BTreeMap<&'a AliasName, &'a [WeightedTarget]>,
}

fn model_document(model: &Model) -> ModelDocument<'_> {
    let live = model.resolve(&crate::names::Target::Live, 0);
    ModelDocument {
        name: &model.name,
        id: model.id.to_string(),
        owner: &model.owner,
        created_ms: model.created_ms,
        description: live.map_or("", |version| &version.annotations.description),
        versions: model.versions.keys().collect(),
        aliases: model.aliases.iter().map(|(name, alias)| (name, &*alias.targets)).collect(),
    }
}

async fn models(State(host): Shared) -> Answer {
    let snapshot = host.snapshot();
    let models: Vec<_> = snapshot.iter().map(|model| model_document(model)).collect();
    Ok(Json(json!({ "models": models })).into_response())
}

async fn model(State(host): Shared, path: Result<Path<String>, PathRejection>) -> Answer {
    let model = find_model(&host, &path?.0)?;
    Ok(Json(model_document(&model)).into_response())
}

fn version_document(host: &Host, model: &Model, version: &Version) -> serde_json::Value {
    let record = &version.record;
    let quarantined = host.check_quarantine(version).err().map(|error| error.to_string());
    json!({
        "model": version.model,
        "version": version.name,
        "digest": version.digest,
        "created_ms": version.created_ms,
        "actor": version.actor,
        "component": record.component,
        "assets": record.assets,
        "signature": record.signature,
        "backend": record.backend,
        "engine": host.engine_of(version),
        "sharing": host.sharing_of(version),
        "config": record.config,
        "pool": record.pool,
        "annotations": version.annotations,
        "aliases": model.aliases_of(&version.name).collect::<Vec<_>>(),
        "state": if quarantined.is_some() { "quarantined" } else { "ready" },
        "reason": quarantined,
    })
}

fn with_etag(epoch: u64, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{epoch}\"")) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

async fn versions(State(host): Shared, path: Result<Path<String>, PathRejection>) -> Answer {
    let model = find_model(&host, &path?.0)?;
    let versions: Vec<_> =
        model.versions.values().map(|version| version_document(&host, &model, version)).collect();
    Ok(Json(json!({ "versions": versions })).into_response())
}

type VersionPath = Result<Path<(String, String)>, PathRejection>;

async fn version(State(host): Shared, path: VersionPath) -> Answer {
    let Path((model, version)) = path?;
    let (model, version) = find_version(&host, &model, &version)?;
    let document = Json(version_document(&host, &model, &version));
    Ok(with_etag(version.annotations_epoch, document))
}

async fn publish_version(
    State(host): Shared,
    path: VersionPath,
    query: Result<Query<ChangeQuery>, QueryRejection>,
    parts: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Answer {
    let Path((model, version)) = path?;
    let parts = parts.map_err(|error| {
        Error::new(Kind::BadRequest, error.body_text())
            .remedy("send multipart/form-data with the parts manifest, component and asset:NAME")
    })?;
    let (model, version) = (parse(&model)?, parse(&version)?);
    let published = publish::publish(&host, model, version, query?.dry_run, parts).await?;
    let Published { version, outcome, warnings } = published;
    if outcome == Outcome::Dry {
        let body = json!({
            "dry_run": true,
            "warnings": warnings,
            "version": { "model": version.model, "version": version.name, "digest": version.digest,
                "component": version.record.component, "assets": version.record.assets,
                "signature": version.record.signature },
        });
        return Ok(Json(body).into_response());
    }
    let created = outcome == Outcome::Created;
    let snapshot = host.snapshot();
    let model = snapshot.get(&version.model);
    let mut aliases = model.into_iter().flat_map(|model| model.aliases_of(&version.name));
    let live = aliases.any(|alias| alias.as_str() == crate::names::LIVE);
    let document = model.map(|model| version_document(&host, model, &version));
    let body = json!({
        "created": created, "live": live, "warnings": warnings, "version": document,
    });
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(body)).into_response())
}

/// Makes a change and what it leaves behind goes; a dry run only checks it.
async fn change(host: &Arc<Host>, op: Op, dry_run: bool) -> Result<Option<Arc<Model>>, Error> {
    let change = Change { actor: DEFAULT_TENANT.to_owned(), op };
    if dry_run {
        return Ok(publish::check(host, change).await?.after);
    }
    let after = publish::commit(host, change).await?.after;
    let host = Arc::clone(host);
    publish::blocking(move || {
        host.settle();
        host.collect();
        Ok(after)
    })
    .await
}

async fn delete_model(
    State(host): Shared,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<ChangeQuery>, QueryRejection>,
) -> Answer {
    let model = find_model(&host, &path?.0)?;
    let dry_run = query?.dry_run;
    change(&host, Op::DeleteModel { model: model.name.clone() }, dry_run).await?;
    let versions: Vec<_> = model.versions.keys().collect();
    let body = json!({ "deleted": model.name, "versions": versions, "dry_run": dry_run });
    Ok(Json(body).into_response())
}

async fn delete_version(
    State(host): Shared,
    path: VersionPath,
    query: Result<Query<ChangeQuery>, QueryRejection>,
) -> Answer {
    let Path((model, version)) = path?;
    let (model, version): (ModelName, VersionName) = (parse(&model)?, parse(&version)?);
    let dry_run = query?.dry_run;
    let deleted = format!("{model}@{version}");
    change(&host, Op::DeleteVersion { model, version }, dry_run).await?;
    Ok(Json(json!({ "deleted": deleted, "dry_run": dry_run })).into_response())
}

/// Ends the quarantine of a version. Nothing is recorded: a quarantine is this process's own.
async fn release(
    State(host): Shared,
    path: VersionPath,
    query: Result<Query<ChangeQuery>, QueryRejection>,
) -> Answer {
    let Path((model, version)) = path?;
    let (model, version) = find_version(&host, &model, &version)?;
    let dry_run = query?.dry_run;
    if host.check_quarantine(&version).is_ok() {
        let (model, version) = (&model.name, &version.name);
        let text = format!("{model}@{version} is not quarantined");
        return Err(Error::new(Kind::Conflict, text).into());
    }
    let deployment = host.deployments().find(&version);
    if !dry_run && deployment.is_some_and(|deployment| !deployment.release_quarantine()) {
        return Err(Error::new(Kind::Conflict, "a run that could not be stopped still goes on")
            .remedy("wait for it to end, or restart the server")
            .into());
    }
    Ok(Json(json!({ "released": version.name, "dry_run": dry_run })).into_response())
}

async fn annotate(
    State(host): Shared,
    path: VersionPath,
    query: Result<Query<ChangeQuery>, QueryRejection>,
    headers: HeaderMap,
    annotations: Result<Json<Annotations>, JsonRejection>,
) -> Answer {
    let Path((model, version)) = path?;
    let (model, version): (ModelName, VersionName) = (parse(&model)?, parse(&version)?);
    let expect = expected(&headers)?;
    let Json(annotations) = annotations?;
    let op = Op::Annotate { model: model.clone(), version: version.clone(), annotations, expect };
    let after = change(&host, op, query?.dry_run).await?;
    let after = after.ok_or_else(|| Error::internal("an annotated model is gone"))?;
    let version = after
        .versions
        .get(&version)
        .ok_or_else(|| Error::internal("an annotated version is gone"))?;
    let document = Json(version_document(&host, &after, version));
    Ok(with_etag(version.annotations_epoch, document))
}

/// What the headers say must be so: `If-Match: "12"` or `If-None-Match: *`.
fn expected(headers: &HeaderMap) -> Result<Expect, Error> {
    if let Some(value) = headers.get(IF_MATCH) {
        let epoch = value.to_str().ok().and_then(|text| text.trim().trim_matches('"').parse().ok());
        return epoch.map(Expect::Epoch).ok_or_else(|| {
            Error::new(Kind::BadRequest, "not an ETag of this server")
                .at("header If-Match")
                .remedy("send the ETag that was answered, such as \"12\"")
        });
    }
    match headers.get(IF_NONE_MATCH) {
        None => Ok(Expect::Any),
        Some(value) if value == "*" => Ok(Expect::Absent),
        Some(_) => {
            Err(Error::new(Kind::BadRequest, "only * is understood").at("header If-None-Match"))
        }
    }
}

fn alias_document(name: &AliasName, alias: &Alias) -> serde_json::Value {
    json!({ "alias": name, "targets": alias.targets, "etag": alias.epoch.to_string() })
}

async fn aliases(State(host): Shared, path: Result<Path<String>, PathRejection>) -> Answer {
    let model = find_model(&host, &path?.0)?;
    let aliases: Vec<_> =
        model.aliases.iter().map(|(name, alias)| alias_document(name, alias)).collect();
    Ok(Json(json!({ "aliases": aliases })).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Targets {
    targets: Vec<WeightedTarget>,
}

async fn set_alias(
    State(host): Shared,
    path: VersionPath,
    query: Result<Query<ChangeQuery>, QueryRejection>,
    headers: HeaderMap,
    targets: Result<Json<Targets>, JsonRejection>,
) -> Answer {
    let Path((model, alias)) = path?;
    let (model, alias): (ModelName, AliasName) = (parse(&model)?, parse(&alias)?);
    let expect = expected(&headers)?;
    let Json(Targets { targets }) = targets?;
    let op = Op::SetAlias { model, alias: alias.clone(), targets, expect };
    moved_alias(change(&host, op, query?.dry_run).await?, &alias)
}

async fn rollback_alias(
    State(host): Shared,
    path: VersionPath,
    query: Result<Query<ChangeQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Answer {
    let Path((model, alias)) = path?;
    let (model, alias): (ModelName, AliasName) = (parse(&model)?, parse(&alias)?);
    let op = Op::RollbackAlias { model, alias: alias.clone(), expect: expected(&headers)? };
    moved_alias(change(&host, op, query?.dry_run).await?, &alias)
}

fn moved_alias(model: Option<Arc<Model>>, name: &AliasName) -> Answer {
    let alias = model.as_ref().and_then(|model| model.aliases.get(name));
    let alias = alias.ok_or_else(|| Error::internal("an alias that was moved is gone"))?;
    Ok(with_etag(alias.epoch, Json(alias_document(name, alias))))
}

async fn remove_alias(
    State(host): Shared,
    path: VersionPath,
    query: Result<Query<ChangeQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Answer {
    let Path((model, alias)) = path?;
    let (model, alias): (ModelName, AliasName) = (parse(&model)?, parse(&alias)?);
    let dry_run = query?.dry_run;
    let op = Op::RemoveAlias { model, alias: alias.clone(), expect: expected(&headers)? };
    change(&host, op, dry_run).await?;
    Ok(Json(json!({ "removed": alias, "dry_run": dry_run })).into_response())
}

#[derive(Debug, Deserialize)]
struct HistoryQuery {
    limit: Option<usize>,
}

async fn history(
    State(host): Shared,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Answer {
    let name: ModelName = parse(&path?.0)?;
    let limit = query?.limit.unwrap_or(DEFAULT_HISTORY);
    let records = publish::blocking(move || {
        host.registry().history(name.as_str(), limit).map_err(|error| match error {
            HistoryError::NotFound { .. } => Error::new(Kind::NotFound, error.to_string()),
            _ => Error::internal(error),
        })
    })
    .await?;
    Ok(Json(json!({ "records": records })).into_response())
}

async fn instances(State(host): Shared) -> Answer {
    Ok(Json(json!({ "instances": host.ledger().instances() })).into_response())
}

#[derive(Debug, Deserialize)]
struct WindowQuery {
    window: Option<String>,
}

impl WindowQuery {
    fn window(&self) -> Result<Window, Error> {
        let Some(text) = &self.window else { return Ok(Window::default()) };
        text.parse().map_err(|error: crate::ledger::WindowError| {
            Error::new(Kind::BadRequest, error.to_string()).at("query window")
        })
    }
}

async fn efficiency(
    State(host): Shared,
    query: Result<Query<WindowQuery>, QueryRejection>,
) -> Answer {
    Ok(Json(host.efficiency(query?.window()?)).into_response())
}

async fn bill(State(host): Shared, query: Result<Query<WindowQuery>, QueryRejection>) -> Answer {
    let window = query?.window()?;
    let (bill, waste) = (host.ledger().bill(window), host.ledger().waste(window));
    Ok(Json(json!({ "window": window, "bill": bill, "waste": waste })).into_response())
}

/// What all routes take and give, those of other families too.
const OPENAPI: &str = include_str!("openapi.json");

async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn config(State(host): Shared) -> Answer {
    Ok(Json(json!({ "settings": host.config().settings() })).into_response())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::Method;

    use super::*;
    use crate::http::route::route;
    use crate::registry::Snapshot;

    fn document() -> serde_json::Value {
        serde_json::from_str(OPENAPI).unwrap()
    }

    #[test]
    fn the_openapi_document_lists_the_routes_of_this_router() {
        let source = include_str!("management.rs");
        let routes = source.split(".route(").skip(1).map(|rest| rest.split('"').nth(1).unwrap());
        let routes: BTreeSet<_> = routes.filter(|route| route.starts_with("/api")).collect();
        let document = document();
        let documented = document["paths"].as_object().unwrap().keys().map(String::as_str);
        let documented: BTreeSet<_> = documented.filter(|path| path.starts_with("/api")).collect();
        assert_eq!(documented, routes);
    }

    #[test]
    fn every_other_route_of_the_openapi_document_is_there() {
        for (path, operations) in document()["paths"].as_object().unwrap() {
            let path = path.replace("{model}", "m").replace("{version}", "1").replace("{id}", "m");
            for method in operations.as_object().unwrap().keys() {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                match route(&method, &path, &Snapshot::default(), 0) {
                    Ok(_) => {}
                    // There is the route, and no model.
                    Err(error) => assert!(error.text().contains("unknown model"), "{error}"),
                }
            }
        }
    }

    /// Words that stand in paths, and a name.
    fn words() -> BTreeSet<String> {
        let document = document();
        let paths = document["paths"].as_object().unwrap().keys();
        let documented = paths.flat_map(|path| path.split('/')).map(str::to_owned);
        let sources = [include_str!("route.rs"), include_str!("openai/mod.rs")];
        let written = sources.into_iter().flat_map(|source| source.split('"')).map(str::to_owned);
        let is_word = |word: &String| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        };
        let mut words: BTreeSet<_> = documented.chain(written).filter(is_word).collect();
        words.extend(["v1", "v2", "m"].map(str::to_owned));
        words
    }

    /// Goes to every path of up to so many segments behind `path`.
    fn visit(path: &str, words: &BTreeSet<String>, segments: usize, seen: &mut BTreeSet<String>) {
        for word in words {
            let path = format!("{path}/{word}");
            for method in ["GET", "POST"] {
                let tried = Method::from_bytes(method.as_bytes()).unwrap();
                let found = route(&tried, &path, &Snapshot::default(), 0);
                // A model is looked for where there is a route, and before its method is.
                let method = match found {
                    Ok(_) => method,
                    Err(error) if error.text().contains("unknown model") => "",
                    Err(_) => continue,
                };
                // The same routes are there under another name.
                seen.insert(format!("{method} {}", path.trim_start_matches("/openai")));
            }
            if segments > 1 {
                visit(&path, words, segments - 1, seen);
            }
        }
    }

    #[test]
    fn every_route_of_the_data_path_is_in_the_openapi_document() {
        let words = words();
        let mut seen = BTreeSet::new();
        visit("", &words, 3, &mut seen);
        visit("/v2/models/m", &words, 2, &mut seen);
        visit("/v2/models/m/versions/m", &words, 2, &mut seen);
        visit("/v2/repository/models", &words, 2, &mut seen);
        for kind in ["system", "cuda"] {
            visit(&format!("/v2/{kind}sharedmemory"), &words, 3, &mut seen);
        }
        let document = document();
        let documented: Vec<_> = document["paths"].as_object().unwrap().iter().collect();
        let is_documented = |route: &str| {
            let (method, path) = route.split_once(' ').unwrap();
            documented.iter().any(|(template, operations)| {
                (method.is_empty() || operations.get(method.to_lowercase()).is_some())
                    && template.split('/').count() == path.split('/').count()
                    && template
                        .split('/')
                        .zip(path.split('/'))
                        .all(|(template, segment)| template == segment || template.starts_with('{'))
            })
        };
        assert!(seen.len() > 40, "{seen:?}");
        // Management has a test of its own, and below `/fn` the paths are the models'.
        let others = |route: &str| route.contains(" /api/") || route.contains(" /fn/");
        seen.retain(|route| !others(route) && !is_documented(route));
        assert!(seen.is_empty(), "not in the document: {seen:?}");
    }
}
