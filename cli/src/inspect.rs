//! The command `modelet inspect`: a file through the checks of a publication, without a server.

use std::path::{Path, PathBuf};

use modelet_host::config::Config;
use modelet_host::engine::gate::ComponentFacts;
use modelet_host::inspect::{self, ComponentReport, GraphReport, InspectError, Outcome, Step};
use modelet_host::version::{BackendChoice, Signature, TensorSpec};
use serde_json::{Value, json};

use crate::args::InspectArgs;
use crate::body;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::quiet;
use crate::table;

/// What a file turned out to be, and what the checks say of it.
pub(crate) enum Found {
    Component(Box<ComponentReport>),
    Graph(Box<GraphReport>),
}

impl Found {
    fn steps(&self) -> &[Step] {
        match self {
            Self::Component(report) => &report.steps,
            Self::Graph(report) => &report.steps,
        }
    }
}

pub(crate) fn run(args: &InspectArgs, out: &Out) -> Result<Exit, Failure> {
    let file = args.file.display().to_string();
    let found = examine(&args.file, args.config.as_deref(), args.backend.into())?;
    out.answer(&document(&file, &found), || table::plain(&text(&file, &found)))?;
    Ok(exit(&found))
}

/// Puts a file through the checks, with a server's settings and the engine that graphs are for.
pub(crate) fn examine(
    file: &Path,
    config: Option<&Path>,
    backend: BackendChoice,
) -> Result<Found, Failure> {
    quiet::silence_engine()?;
    let config =
        Config::load(config).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let worker = crate::paths::this_program()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("no runtime: {error}")))?;
    runtime.block_on(look(file, backend, config, worker)).map_err(|error| match error {
        InspectError::Read(error) => body::unreadable(file, &error),
        other => Failure::new(Exit::Failed, other.to_string()).at(file.display().to_string()),
    })
}

/// A file named `.onnx` is read as a graph, any other as a component.
async fn look(
    file: &Path,
    backend: BackendChoice,
    config: Config,
    worker: PathBuf,
) -> Result<Found, InspectError> {
    if file.extension().is_some_and(|extension| extension == "onnx") {
        let report = inspect::graph(file, backend, &config, worker).await?;
        return Ok(Found::Graph(Box::new(report)));
    }
    Ok(Found::Component(Box::new(inspect::component(file, config, worker).await?)))
}

/// The code to end with: whether it could be published.
pub(crate) fn exit(found: &Found) -> Exit {
    match inspect::refusal(found.steps()) {
        Some(_) => Exit::Refused,
        None => Exit::Ok,
    }
}

pub(crate) fn document(file: &str, found: &Found) -> Value {
    let mut document = match found {
        Found::Component(report) => json!({
            "kind": "component", "component": report.facts, "signature": report.signature,
        }),
        Found::Graph(report) => json!({
            "kind": "graph", "signature": report.signature, "operators": report.operators,
            "external_files": report.external, "engine": report.engine, "trial": report.trial,
        }),
    };
    let refusal = inspect::refusal(found.steps());
    if let Some(fields) = document.as_object_mut() {
        fields.insert("file".to_owned(), file.into());
        fields.insert("checks".to_owned(), json!(found.steps()));
        fields.insert("publishable".to_owned(), refusal.is_none().into());
        if let Some(refusal) = refusal {
            fields.insert("error".to_owned(), refusal.detail.clone().into());
        }
    }
    document
}

pub(crate) fn text(file: &str, found: &Found) -> String {
    let about = match found {
        Found::Component(report) => component_text(file, report),
        Found::Graph(report) => graph_text(file, report),
    };
    let rows = found.steps().iter().map(|step| {
        let outcome = match step.outcome {
            Outcome::Ok => "ok",
            Outcome::Refused => "refused",
            Outcome::NotChecked => "-",
        };
        [step.check.as_str().to_owned(), outcome.to_owned(), step.detail.clone()]
    });
    format!("{about}\n\n{}", table::table(["check", "result", "detail"], rows))
}

fn component_text(file: &str, report: &ComponentReport) -> String {
    let Some(ComponentFacts { bytes, world, imports, exports, .. }) = &report.facts else {
        return format!("{file}: not a component that could be published");
    };
    let mut text = format!(
        "{file}: a component for the world {}, {bytes} bytes\nimports\n  {}\nexports\n  {}",
        world.name(),
        imports.join("\n  "),
        exports.join("\n  "),
    );
    if let Some(signature) = &report.signature {
        text.push_str(&signature_text(signature));
    }
    text
}

fn graph_text(file: &str, report: &GraphReport) -> String {
    let Some(signature) = &report.signature else {
        return format!("{file}: not an ONNX graph that could be published");
    };
    let GraphReport { operators, external, engine, .. } = report;
    format!(
        "{file}: an ONNX graph{}{}\noperators\n  {}\nexternal files\n  {}\nengine\n  {}",
        if signature.batch { ", axis 0 is a batch" } else { "" },
        signature_text(signature),
        operators.join(", "),
        if external.is_empty() { "none".to_owned() } else { external.join(", ") },
        engine.as_deref().unwrap_or("none was tried"),
    )
}

fn signature_text(signature: &Signature) -> String {
    let side = |specs: &[TensorSpec]| {
        let lines = specs.iter().map(|spec| format!("{} {}", spec.name, spec.describe()));
        lines.collect::<Vec<_>>().join("\n  ")
    };
    format!("\ninputs\n  {}\noutputs\n  {}", side(&signature.inputs), side(&signature.outputs))
}
