//! `modelet publish`: a component or a graph, its assets and what is said of it, in one upload.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use modelet_host::names::{AliasName, AssetName, ModelName, VersionName};
use modelet_host::nn::onnx::Onnx;
use serde_json::{Map, Value, json};

use super::{models, update};
use crate::args::{Pair, PublishArgs};
use crate::author::package::Package;
use crate::client::{Answer, Client};
use crate::documents::Version;
use crate::failure::Failure;
use crate::multipart::Form;
use crate::out::Out;
use crate::table;
use crate::upload::{self, Staged};

/// The asset that the pass-through component serves.
const GRAPH: &str = "model.onnx";

/// What is sent: a version, what is said of it, and its files.
struct Publication<'a> {
    model: &'a ModelName,
    version: &'a VersionName,
    manifest: Map<String, Value>,
    component: Option<PathBuf>,
    assets: BTreeMap<AssetName, PathBuf>,
}

pub(super) fn run(args: &PublishArgs, client: &Client, out: &Out) -> Result<(), Failure> {
    let (Some(model), Some(version)) = (&args.name, &args.version) else {
        let package = Package::read(args.package.as_deref().unwrap_or(Path::new(".")))?;
        let mut publication = of_package(&package)?;
        // What is typed counts more than what is written.
        publication.manifest.extend(manifest(args)?);
        publication.assets.extend(assets(args)?);
        return send(publication, client, args.dry_run.on, out);
    };
    let mut assets = assets(args)?;
    if let Some(graph) = &args.onnx {
        add_external_data(graph, &mut assets);
    }
    let component = args.component.clone();
    let publication = Publication { model, version, manifest: manifest(args)?, component, assets };
    send(publication, client, args.dry_run.on, out)
}

/// Publishes what a `modelet.toml` says.
pub(crate) fn package(package: &Package, client: &Client, out: &Out) -> Result<(), Failure> {
    send(of_package(package)?, client, false, out)
}

fn of_package(package: &Package) -> Result<Publication<'_>, Failure> {
    let mut manifest = Map::new();
    let mut say = |key: &str, value: Value| {
        let is_said = !value.is_null() && value.as_object().is_none_or(|map| !map.is_empty());
        if is_said {
            manifest.insert(key.to_owned(), value);
        }
    };
    say("backend", json!(package.backend));
    say("config", json!(package.config));
    say("pool", json!(package.pool));
    say("annotations", json!(package.annotations));
    say("task", json!(package.task));
    say("alias", json!(package.alias.as_ref().map(AliasName::as_str)));
    Ok(Publication {
        model: &package.name,
        version: &package.version,
        manifest,
        component: Some(package.component()?),
        assets: package.assets()?.into_iter().collect(),
    })
}

fn send(
    publication: Publication<'_>,
    client: &Client,
    dry_run: bool,
    out: &Out,
) -> Result<(), Failure> {
    let Publication { model, version, mut manifest, component, assets } = publication;
    let (mut parts, mut blobs) = (Vec::new(), Map::new());
    if let Some(path) = &component {
        match upload::stage(client, path, out)? {
            Staged::Part(file) => parts.push(("component".to_owned(), file)),
            Staged::Blob(digest) => {
                manifest.insert("component".to_owned(), digest.to_string().into());
            }
        }
    }
    for (name, path) in &assets {
        match upload::stage(client, path, out)? {
            Staged::Part(file) => parts.push((format!("asset:{name}"), file)),
            Staged::Blob(digest) => {
                blobs.insert(name.to_string(), digest.to_string().into());
            }
        }
    }
    if !blobs.is_empty() {
        manifest.insert("assets".to_owned(), blobs.into());
    }
    let mut form = Form::new();
    // The manifest goes first, so that the server can refuse it before the files have come.
    form.json("manifest", &manifest.into());
    for (name, file) in parts {
        form.file(&name, file);
    }
    let answer = client.publish(model, version, form.finish(), dry_run)?;
    let version: Version = answer.read("/version")?;
    for warning in answer.part("/warnings").as_array().into_iter().flatten() {
        out.note(&format!("warning: {}", warning.as_str().unwrap_or_default()));
    }
    out.answer(&answer.document, || published_text(&answer, &version))
}

/// The publisher's wishes as the server takes them; what is not named is the server's choice.
fn manifest(args: &PublishArgs) -> Result<Map<String, Value>, Failure> {
    let mut manifest = Map::new();
    if let Some(backend) = args.backend.and_then(|backend| backend.to_possible_value()) {
        manifest.insert("backend".to_owned(), backend.get_name().into());
    }
    if !args.config.is_empty() {
        manifest.insert("config".to_owned(), unique(&args.config, "config")?.into());
    }
    let pool = [("min_instances", args.min_instances), ("max_instances", args.max_instances)];
    let pool: Map<String, Value> =
        pool.into_iter().filter_map(|(key, count)| Some((key.to_owned(), count?.into()))).collect();
    if !pool.is_empty() {
        manifest.insert("pool".to_owned(), pool.into());
    }
    unique(&args.annotations.labels, "label")?;
    unique(&args.annotations.links, "link")?;
    let mut annotations = Map::new();
    update::apply(&args.annotations, &mut annotations);
    if !annotations.is_empty() {
        manifest.insert("annotations".to_owned(), annotations.into());
    }
    if let Some(alias) = &args.alias {
        manifest.insert("alias".to_owned(), alias.as_str().into());
    }
    Ok(manifest)
}

/// The files to send under the names they are sent as; a name given twice is a mistake.
fn assets(args: &PublishArgs) -> Result<BTreeMap<AssetName, PathBuf>, Failure> {
    let graph = args.onnx.iter().map(|path| (graph_name(), path.clone()));
    let named = args.assets.iter().map(|asset| (asset.name.clone(), asset.path.clone()));
    let mut files: Vec<_> = graph.chain(named).collect();
    for path in &args.companions {
        files.push((own_name(path)?, path.clone()));
    }
    let mut assets = BTreeMap::new();
    for (name, path) in files {
        if assets.insert(name.clone(), path).is_some() {
            return Err(Failure::usage(format!("two files would be the asset '{name}'"))
                .remedy("give one of them another name with --asset NAME=FILE"));
        }
    }
    Ok(assets)
}

/// Adds the files that an ONNX graph names as its external data, which stand beside it. What cannot be
/// read or found here is left to the server, whose refusal names it.
fn add_external_data(graph: &Path, assets: &mut BTreeMap<AssetName, PathBuf>) {
    let Ok(bytes) = std::fs::read(graph) else { return };
    let Ok(locations) = Onnx::parse(bytes.into()).and_then(|onnx| onnx.external_files()) else {
        return;
    };
    let folder = graph.parent().unwrap_or(Path::new(""));
    for location in locations {
        let path = folder.join(location.as_str());
        if path.is_file() {
            assets.entry(location).or_insert(path);
        }
    }
}

fn graph_name() -> AssetName {
    GRAPH.parse().expect("a plain file name is an asset's name")
}

/// The asset name of a file that goes along under its own.
fn own_name(path: &Path) -> Result<AssetName, Failure> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.parse().map_err(|error| {
        Failure::usage(format!("'{}' cannot go along under its own name: {error}", path.display()))
            .remedy("give it a name with --asset NAME=FILE")
    })
}

fn unique(pairs: &[Pair], what: &str) -> Result<Map<String, Value>, Failure> {
    let mut map = Map::new();
    for Pair { key, value } in pairs {
        if map.insert(key.clone(), json!(value)).is_some() {
            return Err(Failure::usage(format!("the {what} '{key}' is given twice")));
        }
    }
    Ok(map)
}

fn published_text(answer: &Answer, version: &Version) -> String {
    let flag = |key: &str| answer.part(key).as_bool().unwrap_or(false);
    let done = if flag("/dry_run") {
        "would publish"
    } else if flag("/created") {
        "published"
    } else {
        "already published, with the same content:"
    };
    let live = if flag("/live") { ", live" } else { "" };
    let digest = models::short_digest(&version.digest);
    let name = format!("{}@{}", version.model, version.version);
    let inputs = version.signature.inputs.iter();
    let inputs = inputs.map(|input| format!("\n  input {}: {}", input.name, input.describe()));
    table::plain(&format!("{done} {name} (sha256:{digest}{live}){}", inputs.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn args(line: &str) -> Box<PublishArgs> {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Publish(args) = cli.command else { panic!("not a publish: {line}") };
        args
    }

    #[test]
    fn the_manifest_says_only_what_was_typed() {
        assert_eq!(manifest(&args("modelet publish m 1 --onnx f")).unwrap(), Map::new());
        let line = "modelet publish m 1 --onnx f --backend onnxruntime --config k=v --alias canary \
                    --min-instances 1 --label a=b --accuracy 0.5 --accuracy-method top-1";
        assert_eq!(
            Value::from(manifest(&args(line)).unwrap()),
            json!({
                "backend": "onnxruntime", "config": { "k": "v" }, "alias": "canary",
                "pool": { "min_instances": 1 },
                "annotations": {
                    "labels": { "a": "b" }, "accuracy": { "value": 0.5, "method": "top-1" }
                }
            })
        );
        let twice = manifest(&args("modelet publish m 1 --onnx f --label a=1 --label a=2"));
        assert!(twice.unwrap_err().to_string().contains("given twice"));
    }

    #[test]
    fn files_go_under_their_asset_names() {
        let line = "modelet publish m 1 --onnx d/graph.onnx --with d/w.bin --asset v/x.txt=y";
        let assets = assets(&args(line)).unwrap();
        let named: Vec<_> =
            assets.iter().map(|(name, path)| (name.as_str(), path.to_str())).collect();
        assert_eq!(
            named,
            [
                ("model.onnx", Some("d/graph.onnx")),
                ("v/x.txt", Some("y")),
                ("w.bin", Some("d/w.bin"))
            ]
        );
    }

    #[test]
    fn one_name_for_two_files_is_a_mistake() {
        for line in [
            "modelet publish m 1 --onnx f --asset model.onnx=g",
            "modelet publish m 1 --component c --with a/w --with b/w",
            "modelet publish m 1 --component c --with ..",
        ] {
            assert_eq!(assets(&args(line)).unwrap_err().exit(), crate::exit::Exit::Usage, "{line}");
        }
    }
}
