//! The command `modelet inspect`: what the gates say of a file, without a server.

use bytes::Bytes;
use modelet_host::config::Config;
use modelet_host::engine::gate::{self, ComponentFacts};
use modelet_host::nn::onnx::Onnx;
use modelet_host::version::Signature;
use serde_json::json;

use crate::args::InspectArgs;
use crate::body;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;

/// What a file turned out to be.
enum Found {
    Component(ComponentFacts),
    Graph { signature: Signature, operators: Vec<String>, external: Vec<String> },
}

pub(crate) fn run(args: &InspectArgs, out: &Out) -> Result<Exit, Failure> {
    let file = args.file.display().to_string();
    let bytes = std::fs::read(&args.file).map_err(|error| body::unreadable(&args.file, &error))?;
    let found = examine(bytes, &file)?;
    out.answer(&document(&file, &found), || text(&file, &found))?;
    Ok(Exit::Ok)
}

/// A file named `.onnx` is read as a graph, any other as a component.
fn examine(bytes: Vec<u8>, file: &str) -> Result<Found, Failure> {
    let refused = |message: String| Failure::new(Exit::Refused, message).at(file);
    if !file.ends_with(".onnx") {
        let limit = Config::default().limits.component_bytes;
        let facts = gate::examine(&bytes, limit).map_err(|error| refused(error.to_string()))?;
        return Ok(Found::Component(facts));
    }
    let graph = Onnx::parse(Bytes::from(bytes)).map_err(|error| refused(error.to_string()))?;
    let signature = graph.signature().map_err(|error| refused(error.to_string()))?;
    let external = graph.external_files().map_err(|error| refused(error.to_string()))?;
    Ok(Found::Graph {
        signature,
        operators: graph.operators().iter().map(ToString::to_string).collect(),
        external: external.iter().map(ToString::to_string).collect(),
    })
}

fn document(file: &str, found: &Found) -> serde_json::Value {
    match found {
        Found::Component(facts) => json!({ "file": file, "kind": "component", "component": facts }),
        Found::Graph { signature, operators, external } => json!({
            "file": file, "kind": "graph", "signature": signature,
            "operators": operators, "external_files": external,
        }),
    }
}

fn text(file: &str, found: &Found) -> String {
    match found {
        Found::Component(facts) => format!(
            "{file}: a component for the world {}, {} bytes, {} core modules\nimports\n  {}\nexports\n  {}",
            match facts.world {
                gate::World::Model => "model",
                gate::World::ModelOwn => "model-own",
            },
            facts.bytes,
            facts.core_modules,
            facts.imports.join("\n  "),
            facts.exports.join("\n  "),
        ),
        Found::Graph { signature, operators, external } => {
            let side = |specs: &[modelet_host::version::TensorSpec]| {
                specs
                    .iter()
                    .map(|spec| format!("{} {}", spec.name, spec.describe()))
                    .collect::<Vec<_>>()
                    .join("\n  ")
            };
            format!(
                "{file}: an ONNX graph{}\ninputs\n  {}\noutputs\n  {}\noperators\n  {}\nexternal files\n  {}",
                if signature.batch { ", axis 0 is a batch" } else { "" },
                side(&signature.inputs),
                side(&signature.outputs),
                operators.join(", "),
                if external.is_empty() { "none".to_owned() } else { external.join(", ") },
            )
        }
    }
}
