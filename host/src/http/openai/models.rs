//! The models there are, as this API lists them.

use serde_json::{Value, json};

use crate::http::route::Called;
use crate::registry::Snapshot;

/// All models, each by its name.
pub(super) fn list(snapshot: &Snapshot) -> Value {
    let models = snapshot.iter().map(|model| {
        json!({
            "id": model.name.as_str(),
            "object": "model",
            "created": model.created_ms / 1000,
            "owned_by": model.owner,
        })
    });
    json!({ "object": "list", "data": models.collect::<Vec<_>>() })
}

/// One model, or one of its versions, under the id that the caller knows it by.
pub(super) fn one(id: &str, Called { model, version }: &Called) -> Value {
    json!({
        "id": id,
        "object": "model",
        "created": version.created_ms / 1000,
        "owned_by": model.owner,
    })
}
