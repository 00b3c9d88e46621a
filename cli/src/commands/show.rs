//! `modelet show`: a model, or everything known of one of its versions.

use std::collections::BTreeMap;

use modelet_host::names::{ModelName, VersionName};
use modelet_host::version::TensorSpec;

use super::models::{aliases_text, targets_text};
use crate::args::ShowArgs;
use crate::client::{Answer, Client};
use crate::documents::{Accuracy, Alias, GraphSharing, Model, Version};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::{table, units};

pub(super) fn run(args: &ShowArgs, client: &Client, out: &Out) -> Result<(), Failure> {
    match &args.target.version {
        None => {
            let answer = client.model(&args.target.model)?;
            let model: Model = answer.read("")?;
            out.answer(&answer.document, || model_text(&model))
        }
        Some(named) => {
            let answer = version_or_alias(&args.target.model, named, client)?;
            let version: Version = answer.read("")?;
            out.answer(&answer.document, || version_text(&version))
        }
    }
}

/// The version of that name, or the one that the alias of that name points at.
fn version_or_alias(
    model: &ModelName,
    named: &VersionName,
    client: &Client,
) -> Result<Answer, Failure> {
    let no_version = match client.version(model, named) {
        Err(failure) if failure.is_not_found() => failure,
        answer => return answer,
    };
    // The first failure tells better what is missing than one about an alias nobody meant.
    let Ok(aliases) = client.aliases(model) else { return Err(no_version) };
    let aliases: Vec<Alias> = aliases.read("/aliases")?;
    match aliases.iter().find(|alias| alias.alias == named.as_str()).map(|alias| &*alias.targets) {
        None => Err(no_version),
        Some([only]) => {
            let version = only.version.parse().map_err(anyhow::Error::new)?;
            client.version(model, &version)
        }
        Some(several) => Err(Failure::new(
            Exit::Failed,
            format!("the alias '{named}' of '{model}' points at several versions"),
        )
        .at(targets_text(several))
        .remedy(format!("show one of them: modelet show {model}@VERSION"))),
    }
}

fn model_text(model: &Model) -> String {
    table::fields([
        ("model", model.name.clone()),
        ("id", model.id.clone()),
        ("owner", model.owner.clone()),
        ("created", units::time(model.created_ms)),
        ("description", model.description.clone()),
        ("versions", model.versions.join(" ")),
        ("aliases", aliases_text(&model.aliases)),
    ])
}

/// Everything known of a version, as fields and the table of its tensors.
pub(super) fn version_text(version: &Version) -> String {
    let annotations = &version.annotations;
    let fields = table::fields([
        ("version", format!("{}@{}", version.model, version.version)),
        ("state", version.state.clone()),
        ("reason", version.reason.clone().unwrap_or_default()),
        ("aliases", version.aliases.join(" ")),
        ("description", annotations.description.clone()),
        ("accuracy", annotations.accuracy.as_ref().map(accuracy_text).unwrap_or_default()),
        ("labels", pairs_text(&annotations.labels)),
        ("links", pairs_text(&annotations.links)),
        ("task", version.signature.task.clone().unwrap_or_default()),
        ("batch", if version.signature.batch { "axis 0" } else { "no" }.to_owned()),
        ("backend", version.backend.clone()),
        ("engine", version.engine.clone().unwrap_or_else(|| "not loaded".to_owned())),
        ("sharing", sharing_text(version)),
        ("config", pairs_text(&version.config)),
        ("pool", pairs_text(&version.pool)),
        ("digest", version.digest.clone()),
        ("created", format!("{} by {}", units::time(version.created_ms), version.actor)),
    ]);
    format!("{fields}\n\n{}\n\n{}", tensors_text(version), blobs_text(version))
}

/// By how many rows callers share runs of each graph, or why not at all.
fn sharing_text(version: &Version) -> String {
    let text = |(name, sharing): (&String, &GraphSharing)| match &sharing.reason {
        None => format!("{name}: up to {} rows of callers at once", sharing.rows),
        Some(reason) => format!("{name}: no, {reason}"),
    };
    version.sharing.iter().flatten().map(text).collect::<Vec<_>>().join("; ")
}

fn tensors_text(version: &Version) -> String {
    let row = |side: &str, spec: &TensorSpec| [format!("{side} {}", spec.name), spec.describe()];
    let inputs = version.signature.inputs.iter().map(|spec| row("input", spec));
    let outputs = version.signature.outputs.iter().map(|spec| row("output", spec));
    table::table(["tensor", "type"], inputs.chain(outputs))
}

fn blobs_text(version: &Version) -> String {
    let component = ("(component)", &version.component);
    let assets = version.assets.iter().map(|(name, blob)| (name.as_str(), blob));
    table::table(
        ["asset", "size", "digest"],
        std::iter::once(component)
            .chain(assets)
            .map(|(name, blob)| [name.to_owned(), units::bytes(blob.bytes), blob.digest.clone()]),
    )
}

fn accuracy_text(accuracy: &Accuracy) -> String {
    let dataset = accuracy.dataset.as_ref().map(|digest| format!(" on {digest}"));
    format!("{} ({}{})", accuracy.value, accuracy.method, dataset.unwrap_or_default())
}

fn pairs_text<V: std::fmt::Display>(pairs: &BTreeMap<String, V>) -> String {
    let pair = |(key, value): (&String, &V)| format!("{key}={value}");
    pairs.iter().map(pair).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_version_shows_what_to_send_and_what_comes_back() {
        let version: Version = serde_json::from_value(json!({
            "model": "mnist", "version": "1.0.0", "state": "unavailable", "reason": "no engine",
            "digest": "sha256:ab", "backend": "auto", "engine": null, "created_ms": 0, "actor": "a",
            "signature": {
                "inputs": [{ "name": "image", "datatype": "FP32", "shape": [-1, 1, 28, 28] }],
                "outputs": [{ "name": "logits", "datatype": "FP32", "shape": [-1, 10] }],
                "batch": true
            },
            "sharing": { "model.onnx": { "rows": 32, "reason": null } },
            "pool": { "min_instances": 0, "max_instances": 32 },
            "component": { "digest": "sha256:00", "bytes": 2048 },
            "assets": { "model.onnx": { "digest": "sha256:11", "bytes": 5 } },
            "annotations": { "accuracy": { "value": 0.9974, "method": "top-1" } }
        }))
        .unwrap();
        let text = version_text(&version);
        for line in [
            "version:   mnist@1.0.0",
            "reason:    no engine",
            "accuracy:  0.9974 (top-1)",
            "engine:    not loaded",
            "sharing:   model.onnx: up to 32 rows of callers at once",
            "pool:      max_instances=32 min_instances=0",
            "input image    FP32 [-1,1,28,28]",
            "output logits  FP32 [-1,10]",
            "(component)  2.0 KiB  sha256:00",
        ] {
            assert!(text.lines().any(|shown| shown == line), "no line {line:?} in:\n{text}");
        }
        assert!(!text.contains("description:"), "{text}");
    }
}
