//! `modelet models` and `modelet versions`: what there is.

use std::collections::BTreeMap;

use crate::args::VersionsArgs;
use crate::client::Client;
use crate::documents::{Model, Version, Weighted};
use crate::failure::Failure;
use crate::out::Out;
use crate::{table, units};

pub(super) fn models(client: &Client, out: &Out) -> Result<(), Failure> {
    let answer = client.models()?;
    let models: Vec<Model> = answer.read("/models")?;
    out.answer(answer.part("/models"), || models_text(&models))
}

pub(super) fn versions(args: &VersionsArgs, client: &Client, out: &Out) -> Result<(), Failure> {
    let answer = client.versions(&args.name)?;
    let versions: Vec<Version> = answer.read("/versions")?;
    out.answer(answer.part("/versions"), || versions_text(&versions))
}

/// The aliases of a model on one line: `canary=1.1.0 live=1.0.0:90,1.1.0:10`.
pub(super) fn aliases_text(aliases: &BTreeMap<String, Vec<Weighted>>) -> String {
    let alias =
        |(alias, targets): (&String, &Vec<Weighted>)| format!("{alias}={}", targets_text(targets));
    aliases.iter().map(alias).collect::<Vec<_>>().join(" ")
}

/// The targets of an alias; weights only where there is a choice.
pub(super) fn targets_text(targets: &[Weighted]) -> String {
    match targets {
        [only] => only.version.clone(),
        several => several
            .iter()
            .map(|target| format!("{}:{}", target.version, target.weight))
            .collect::<Vec<_>>()
            .join(","),
    }
}

fn models_text(models: &[Model]) -> String {
    if models.is_empty() {
        return "no models; publish one with 'modelet publish NAME VERSION --onnx FILE'".to_owned();
    }
    table::table(
        ["model", "versions", "aliases", "created", "description"],
        models.iter().map(|model| {
            [
                model.name.clone(),
                model.versions.join(" "),
                aliases_text(&model.aliases),
                units::time(model.created_ms),
                model.description.clone(),
            ]
        }),
    )
}

fn versions_text(versions: &[Version]) -> String {
    if versions.is_empty() {
        return "no versions".to_owned();
    }
    table::table(
        ["version", "state", "aliases", "engine", "size", "created", "digest"],
        versions.iter().map(|version| {
            let assets: u64 = version.assets.values().map(|blob| blob.bytes).sum();
            [
                version.version.clone(),
                version.state.clone(),
                version.aliases.join(" "),
                version.engine.clone().unwrap_or_else(|| format!("({})", version.backend)),
                units::bytes(version.component.bytes.saturating_add(assets)),
                units::time(version.created_ms),
                short_digest(&version.digest).to_owned(),
            ]
        }),
    )
}

/// The beginning of a digest, enough to tell versions apart in a table.
pub(super) fn short_digest(digest: &str) -> &str {
    const DIGITS: usize = 12;
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..DIGITS).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The cells of a row, which stand two spaces apart or more.
    fn cells(text: &str, row: usize) -> Vec<&str> {
        let cells = text.lines().nth(row).unwrap().split("  ");
        cells.map(str::trim).filter(|cell| !cell.is_empty()).collect()
    }

    #[test]
    fn models_are_a_table_with_their_aliases() {
        let live = json!([{ "version": "1", "weight": 90 }, { "version": "2", "weight": 10 }]);
        let canary = json!([{ "version": "2", "weight": 100 }]);
        let models: Vec<Model> = serde_json::from_value(json!([
            { "name": "mnist", "id": "01J", "owner": "default", "description": "digits",
              "versions": ["1", "2"], "aliases": { "live": live, "canary": canary },
              "created_ms": 0, "future": true },
            { "name": "a" }
        ]))
        .unwrap();
        let text = models_text(&models);
        assert_eq!(cells(&text, 0), ["MODEL", "VERSIONS", "ALIASES", "CREATED", "DESCRIPTION"]);
        let aliases = "canary=2 live=1:90,2:10";
        assert_eq!(cells(&text, 1), ["mnist", "1 2", aliases, "1970-01-01 00:00:00Z", "digits"]);
        assert_eq!(cells(&text, 2), ["a", "1970-01-01 00:00:00Z"]);
        assert!(models_text(&[]).contains("modelet publish"));
    }

    #[test]
    fn versions_show_the_engine_asked_for_until_one_is_loaded() {
        let versions: Vec<Version> = serde_json::from_value(json!([
            { "version": "1", "state": "ready", "aliases": ["live"], "engine": null,
              "backend": "auto", "component": { "digest": "sha256:00", "bytes": 1000 },
              "assets": { "model.onnx": { "digest": "sha256:11", "bytes": 24 } },
              "digest": "sha256:0123456789abcdef0123" }
        ]))
        .unwrap();
        assert_eq!(
            cells(&versions_text(&versions), 1),
            ["1", "ready", "live", "(auto)", "1.0 KiB", "1970-01-01 00:00:00Z", "0123456789ab"]
        );
    }
}
