//! Documents of the Open Inference Protocol: health, and what the server and its models are.

use http::Response;

use super::body::Body;
use super::encode::json;
use super::oip::{
    CODEC_EXTENSIONS, Live, ModelList, ModelMetadata, ModelReady, Ready, ServerMetadata,
};
use super::route::{Called, Document};
use crate::error::{Error, Kind};
use crate::host::Host;
use crate::registry::Snapshot;

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
        Document::Live => json(&Live { live: true }),
        Document::Ready => {
            host.check_ready()?;
            json(&Ready { live: true, ready: true })
        }
        Document::Server => json(&ServerMetadata {
            name: &host.config().server.name,
            version: env!("CARGO_PKG_VERSION"),
            extensions: &CODEC_EXTENSIONS,
        }),
        Document::Models => {
            json(&ModelList { models: snapshot.iter().map(|model| model.name.as_str()).collect() })
        }
        Document::Model(called) => metadata(host, called),
        Document::ModelReady(called) => {
            host.check_ready()?;
            host.check_quarantine(&called.version)?;
            json(&ModelReady { name: called.model.name.as_str(), ready: true })
        }
    })
}

fn metadata(host: &Host, Called { model, version }: &Called) -> Response<Body> {
    let versions: Vec<_> = model.versions.keys().map(|name| name.as_str()).collect();
    let platform = host.platform(version);
    json(&ModelMetadata::new(model.name.as_str(), &versions, &platform, &version.record.signature))
}

/// The state of the process for `/readyz`.
pub fn readyz(host: &Host) -> Result<Response<Body>, Error> {
    host.check_ready()?;
    let models = host.snapshot().len();
    Ok(json(&serde_json::json!({ "status": "ready", "models": models })))
}

/// The state of the process for `/healthz`: it answers, so it lives.
pub fn healthz() -> Response<Body> {
    json(&serde_json::json!({ "status": "ok" }))
}

/// A server that is draining takes no new work.
pub fn draining() -> Error {
    Error::new(Kind::ModelUnavailable, "the server is draining and takes no new requests")
}
