//! Documents of the Open Inference Protocol: health, and what the server and its models are.

use std::sync::Arc;

use http::Response;
use serde_json::json;

use super::body::Body;
use super::encode;
use super::oip::{Live, ModelList, ModelMetadata, ModelReady, Ready, ServerMetadata};
use super::route::{Called, Counted, Document};
use crate::error::{Error, Kind};
use crate::grpc::proto::{ModelConfig, ModelStatistics, ModelStatisticsResponse};
use crate::host::Host;
use crate::model_config;
use crate::registry::{Registry as _, Snapshot, Status, Version};
use crate::statistics::Statistics;

/// What the server does beyond the protocol, as clients look for it: they act on this list, so it names
/// only what works.
pub const EXTENSIONS: [&str; 9] = [
    "binary_tensor_data",
    "classification",
    "generate",
    "generate_stream",
    "logging",
    "model_configuration",
    "model_repository",
    "statistics",
    "trace",
];

/// Answers a document's request.
///
/// # Errors
/// [`Kind::ModelUnavailable`] for readiness that is not there.
pub fn answer(
    host: &Host,
    snapshot: &Snapshot,
    document: &Document,
) -> Result<Response<Body>, Error> {
    Ok(match document {
        Document::Live => encode::json(&Live { live: true }),
        Document::Ready => {
            host.check_ready()?;
            encode::json(&Ready { live: true, ready: true })
        }
        Document::Server => encode::json(&ServerMetadata {
            name: &host.config().server.name,
            version: env!("CARGO_PKG_VERSION"),
            extensions: &EXTENSIONS,
        }),
        Document::Models => encode::json(&ModelList {
            models: snapshot.iter().map(|model| model.name.as_str()).collect(),
        }),
        Document::Model(called) => metadata(host, called),
        Document::ModelReady(called) => {
            host.check_ready()?;
            host.check_served(&called.version)?;
            encode::json(&ModelReady { name: called.model.name.as_str(), ready: true })
        }
        Document::ModelConfig(called) => encode::json(&config(host, called)),
        Document::Statistics(counted) => encode::json(&statistics(host, snapshot, counted)),
    })
}

/// What a version is, for clients that configure themselves by it.
pub fn config(host: &Host, Called { version, .. }: &Called) -> ModelConfig {
    let request_bytes = host.admission().limits().request_body_bytes;
    model_config::describe(version, &host.platform(version), request_bytes)
}

/// The statistics that are asked for.
pub fn statistics(host: &Host, snapshot: &Snapshot, counted: &Counted) -> ModelStatisticsResponse {
    let of = |version: &Arc<Version>| statistics_of(host, version);
    let model_stats = match counted {
        Counted::All => snapshot.iter().flat_map(|model| model.versions.values()).map(of).collect(),
        Counted::Model(model) => model.versions.values().map(of).collect(),
        Counted::Version(called) => vec![of(&called.version)],
    };
    ModelStatisticsResponse { model_stats }
}

fn statistics_of(host: &Host, version: &Version) -> ModelStatistics {
    let deployment = host.deployments().find(version);
    let graphs = deployment.iter().flat_map(|deployment| deployment.graphs());
    let bytes = graphs.map(|graph| graph.bytes()).sum();
    let metrics = host.metrics().find(&version.model, &version.name);
    let (model, name) = (version.model.as_str(), version.name.as_str());
    match metrics {
        Some(metrics) => metrics.statistics().message(model, name, bytes),
        None => Statistics::default().message(model, name, bytes),
    }
}

fn metadata(host: &Host, Called { model, version }: &Called) -> Response<Body> {
    let versions: Vec<_> = model.versions.keys().map(|name| name.as_str()).collect();
    let platform = host.platform(version);
    encode::json(&ModelMetadata::new(
        model.name.as_str(),
        &versions,
        &platform,
        &version.record.signature,
    ))
}

/// The state of the process for `/readyz`. A registry that takes no changes still serves its models, so
/// the server is ready, and says so.
pub fn readyz(host: &Host) -> Result<Response<Body>, Error> {
    host.check_ready()?;
    let models = host.snapshot().len();
    let registry = match host.registry().status() {
        Status::Writable => json!({ "state": "writable" }),
        Status::ReadOnly { reason } => json!({ "state": "read_only", "reason": reason }),
    };
    Ok(encode::json(&json!({ "status": "ready", "models": models, "registry": registry })))
}

/// The state of the process for `/healthz`: it answers, so it lives.
pub fn healthz() -> Response<Body> {
    encode::json(&json!({ "status": "ok" }))
}

/// A server that is draining takes no new work.
pub fn draining() -> Error {
    Error::new(Kind::ModelUnavailable, "the server is draining and takes no new requests")
}
