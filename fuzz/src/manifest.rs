//! The manifest of an upload: what it says is what a version's record and annotations then say.

use std::collections::BTreeMap;

use modelet_host::digest::Digest;
use modelet_host::names::{AliasName, AssetName};
use modelet_host::publish::Manifest;
use modelet_host::version::{Annotations, BackendChoice, PoolWishes};
use serde_json::json;

use crate::Outcome;

/// A manifest's JSON.
///
/// # Panics
/// When a property of the decoder does not hold.
pub fn manifest(data: &[u8]) -> Outcome {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(data) else { return Outcome::Refused };
    let again = written(&manifest);
    let read = serde_json::from_slice::<Manifest>(&again);
    let read =
        read.unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&again)));
    assert_eq!(facts(&read), facts(&manifest));
    assert_eq!(written(&read), again);
    if let Some(accuracy) = &manifest.annotations.accuracy {
        assert!(accuracy.value.is_finite(), "JSON has no {}", accuracy.value);
    }
    Outcome::Accepted
}

fn written(manifest: &Manifest) -> Vec<u8> {
    let Manifest { backend, config, pool, annotations, task, alias, component, assets } = manifest;
    let document = json!({
        "backend": backend,
        "config": config,
        "pool": pool,
        "annotations": annotations,
        "task": task,
        "alias": alias,
        "component": component,
        "assets": assets,
    });
    document.to_string().into_bytes()
}

type Facts<'a> = (
    (BackendChoice, &'a PoolWishes, &'a Annotations, Option<&'a str>, Option<&'a AliasName>),
    (Option<&'a Digest>, &'a BTreeMap<AssetName, Digest>),
);

fn facts(manifest: &Manifest) -> (Facts<'_>, Vec<(&String, &String)>) {
    let Manifest { backend, config, pool, annotations, task, alias, component, assets } = manifest;
    let said = (*backend, pool, annotations, task.as_deref(), alias.as_ref());
    ((said, (component.as_ref(), assets)), config.iter().collect())
}
