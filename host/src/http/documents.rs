//! Documents of the Open Inference Protocol: health, and what the server and its models are.

use http::Response;
use serde_json::json;

use super::body::Body;
use super::encode;
use super::oip::{
    CODEC_EXTENSIONS, Live, ModelList, ModelMetadata, ModelReady, Ready, ServerMetadata,
};
use super::route::{Called, Document};
use crate::error::{Error, Kind};
use crate::host::Host;
use crate::registry::{Registry as _, Snapshot, Status};

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
            extensions: &CODEC_EXTENSIONS,
        }),
        Document::Models => encode::json(&ModelList {
            models: snapshot.iter().map(|model| model.name.as_str()).collect(),
        }),
        Document::Model(called) => metadata(host, called),
        Document::ModelReady(called) => {
            host.check_ready()?;
            host.check_quarantine(&called.version)?;
            encode::json(&ModelReady { name: called.model.name.as_str(), ready: true })
        }
    })
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
