//! The gates without a server: one file through the very checks that publishing runs, step by step.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;

use crate::checks::Check;
use crate::config::{Config, DataDir, KeyValues};
use crate::engine::call::DescribeError;
use crate::engine::deployment::{Candidate, LoadError};
use crate::engine::gate::{self, ComponentFacts};
use crate::host::{self, Host, Options, StartError};
use crate::metrics::GateMetrics;
use crate::nn::gate::{GraphFiles, GraphGateError, GraphTrials, Trial};
use crate::nn::onnx::{Onnx, OnnxError};
use crate::registry::BlobStore as _;
use crate::version::{BackendChoice, PoolPolicy, Signature};
use crate::worker::Worker;

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It passed.
    Ok,
    /// It did not, and would not be published.
    Refused,
    /// It was not made: one before it did not pass, or it needs what is not there.
    NotChecked,
}

/// One check of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which.
    pub check: Check,
    /// What it came to.
    pub outcome: Outcome,
    /// What was found, or why it was refused.
    pub detail: String,
}

/// What inspecting a component came to.
#[derive(Debug, Default, Serialize)]
pub struct ComponentReport {
    /// What it is, if that much passed.
    pub facts: Option<ComponentFacts>,
    /// What it takes and gives, if it says so itself.
    pub signature: Option<Signature>,
    /// Every check, in order.
    pub steps: Vec<Step>,
}

/// What inspecting a graph came to.
#[derive(Debug, Default, Serialize)]
pub struct GraphReport {
    /// What it takes and gives.
    pub signature: Option<Signature>,
    /// The operators it uses.
    pub operators: Vec<String>,
    /// The files it names as its external data.
    pub external: Vec<String>,
    /// The engine that was tried.
    pub engine: Option<String>,
    /// What it did there.
    pub trial: Option<Trial>,
    /// Every check, in order.
    pub steps: Vec<Step>,
}

/// Why a file could not be inspected, which says nothing of the file.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It cannot be read.
    #[error("the file cannot be read: {0}")]
    Read(std::io::Error),
    /// There is no room for what inspecting needs.
    #[error("there is no place to work in: {0}")]
    Scratch(std::io::Error),
    /// No host can be started to try it on.
    #[error(transparent)]
    Host(#[from] StartError),
    /// A check could not be made.
    #[error("{0}")]
    Check(String),
}

/// The first step of `steps` that was refused.
pub fn refusal(steps: &[Step]) -> Option<&Step> {
    steps.iter().find(|step| step.outcome == Outcome::Refused)
}

/// Steps as they are made.
struct Steps {
    left: std::slice::Iter<'static, Check>,
    made: Vec<Step>,
}

impl Steps {
    fn new(checks: &'static [Check]) -> Self {
        Self { left: checks.iter(), made: Vec::new() }
    }

    /// All checks up to `last` passed; of `last` there is something to say.
    fn passed(&mut self, last: Check, detail: impl Into<String>) {
        self.until(last);
        self.made.push(Step { check: last, outcome: Outcome::Ok, detail: detail.into() });
    }

    /// All checks before `check` passed, and it did not.
    fn refused(&mut self, check: Check, reason: impl Into<String>) {
        self.until(check);
        self.made.push(Step { check, outcome: Outcome::Refused, detail: reason.into() });
    }

    fn until(&mut self, last: Check) {
        for check in self.left.by_ref().copied().take_while(|check| *check != last) {
            let detail = check.claim().to_owned();
            self.made.push(Step { check, outcome: Outcome::Ok, detail });
        }
    }

    /// All steps; what is left was not made, for this reason.
    fn finish(mut self, reason: &str) -> Vec<Step> {
        for check in self.left.copied() {
            let (outcome, detail) = (Outcome::NotChecked, reason.to_owned());
            self.made.push(Step { check, outcome, detail });
        }
        self.made
    }
}

/// Why the rest was not checked after a refusal.
const AFTER_REFUSAL: &str = "an earlier check did not pass";

/// Puts a component through the checks of a publication without assets.
///
/// # Errors
/// [`InspectError`] where a check could not be made; a component that does not pass is no error.
pub async fn component(
    file: &Path,
    config: Config,
    worker: PathBuf,
) -> Result<ComponentReport, InspectError> {
    let mut steps = Steps::new(&Check::OF_COMPONENT);
    let mut report = ComponentReport::default();
    let limit = config.limits.component_bytes;
    let length = std::fs::metadata(file).map_err(InspectError::Read)?.len();
    let examined = gate::check_size(length, limit).map(|()| std::fs::read(file));
    let examined = examined.and_then(|bytes| match bytes {
        Ok(bytes) => gate::examine(&bytes, limit).map(|facts| Ok((bytes, facts))),
        Err(error) => Ok(Err(error)),
    });
    let (bytes, facts) = match examined {
        Ok(read) => read.map_err(InspectError::Read)?,
        Err(error) => {
            steps.refused(error.check(), error.to_string());
            report.steps = steps.finish(AFTER_REFUSAL);
            return Ok(report);
        }
    };
    steps.passed(Check::Size, format!("{} bytes", facts.bytes));
    let (modules, functions) = (facts.core_modules, facts.functions);
    steps.passed(Check::Counts, format!("{modules} core modules with {functions} functions"));
    let world = facts.world.name();
    steps.passed(Check::World, format!("{world}, with {} imports", facts.imports.len()));
    let scratch = tempfile::tempdir().map_err(InspectError::Scratch)?;
    let data_dir = DataDir::new(scratch.path());
    let host = Host::start(Options { config, data_dir, worker, set_log_level: None })?;
    let reason = try_component(&host, &bytes, &facts, &mut steps, &mut report).await?;
    report.facts = Some(facts);
    report.steps = steps.finish(reason);
    Ok(report)
}

/// The checks that need an engine; gives why the rest was not made.
async fn try_component(
    host: &Host,
    bytes: &[u8],
    facts: &ComponentFacts,
    steps: &mut Steps,
    report: &mut ComponentReport,
) -> Result<&'static str, InspectError> {
    let fault = |error: &dyn std::fmt::Display| InspectError::Check(error.to_string());
    let (component, _lease) = host.registry().blobs().put(bytes).map_err(|error| fault(&error))?;
    let candidate = Candidate {
        model: "inspected".parse().map_err(|error| fault(&error))?,
        version: "1".parse().map_err(|error| fault(&error))?,
        component,
        assets: std::collections::BTreeMap::new(),
        backend: BackendChoice::Auto,
        config: KeyValues::new(),
        pool: PoolPolicy::default(),
    };
    let described = match host.deployments().load(&candidate).await {
        Ok(deployment) => {
            steps.passed(Check::Types, Check::Types.claim());
            deployment.describe().await
        }
        Err(error) => Err(error),
    };
    let error = match described {
        Ok(signature) => {
            let sides = (signature.inputs.len(), signature.outputs.len());
            steps.passed(Check::Signature, format!("{} inputs, {} outputs", sides.0, sides.1));
            report.signature = Some(signature);
            return Ok("");
        }
        Err(error) => error,
    };
    if let LoadError::Describe(described) = &error {
        match &**described {
            DescribeError::NoGraph { name, .. } => {
                steps.passed(Check::Describe, format!("it takes and gives what {name:?} does"));
                return Ok("it is that of a graph, which only a publication brings");
            }
            // Not its fault if it wants an asset that only a publication brings.
            DescribeError::Trap(_) if reads_assets(facts) => {
                steps.passed(Check::Start, Check::Start.claim());
                return Ok("describe stopped, perhaps for want of the version's assets; \
                           `modelet publish --dry-run` checks it with them");
            }
            _ => {}
        }
    }
    let check = error.check().ok_or_else(|| fault(&error))?;
    steps.refused(check, error.to_string());
    Ok(AFTER_REFUSAL)
}

fn reads_assets(facts: &ComponentFacts) -> bool {
    let reads = |import: &String| import.contains(":nn/graph@") || import.contains("/assets@");
    facts.imports.iter().any(reads)
}

/// Puts a graph, with the files beside it that it names, through the checks of a publication.
///
/// # Errors
/// [`InspectError`] where a check could not be made; a graph that does not pass is no error.
pub async fn graph(
    file: &Path,
    choice: BackendChoice,
    config: &Config,
    worker: PathBuf,
) -> Result<GraphReport, InspectError> {
    let mut steps = Steps::new(&Check::OF_GRAPH);
    let mut report = GraphReport::default();
    let bytes = std::fs::read(file).map_err(InspectError::Read)?;
    let tried = match look_at(file, bytes.into(), &mut report) {
        Ok(files) => {
            steps.passed(Check::GraphFormat, format!("{} operators", report.operators.len()));
            let count = report.external.len();
            steps.passed(Check::GraphFiles, format!("{count} files, {} bytes in all", files.bytes));
            try_graph(&files, choice, config, worker, &mut report).await
        }
        Err((check, reason)) => {
            steps.refused(check, reason);
            report.steps = steps.finish(AFTER_REFUSAL);
            return Ok(report);
        }
    };
    match tried {
        Ok(trial) => {
            let Trial { load_ms, resident_bytes, run_ms, .. } = trial;
            let loaded = format!("in {load_ms} ms, {resident_bytes} bytes more in memory");
            steps.passed(Check::GraphLoad, loaded);
            let ran = match &trial.warning {
                Some(words) => format!("warning: the engine said: {words}"),
                None => format!("in {run_ms} ms on made-up inputs"),
            };
            steps.passed(Check::GraphRun, ran);
            report.trial = Some(trial);
        }
        Err(GraphGateError::Refused(refusal)) => steps.refused(refusal.check, refusal.reason),
        Err(GraphGateError::Engine(error)) => steps.refused(Check::GraphLoad, error.to_string()),
        Err(error) => return Err(InspectError::Check(format!("the graph {error}"))),
    }
    report.steps = steps.finish(AFTER_REFUSAL);
    Ok(report)
}

/// What can be known of a graph without an engine, and where its bytes are.
fn look_at(
    file: &Path,
    bytes: Bytes,
    report: &mut GraphReport,
) -> Result<GraphFiles, (Check, String)> {
    let format = |error: OnnxError| (Check::GraphFormat, error.to_string());
    let mut total = bytes.len() as u64;
    let onnx = Onnx::parse(bytes).map_err(format)?;
    report.signature = Some(onnx.signature().map_err(format)?);
    report.operators = onnx.operators().iter().map(ToString::to_string).collect();
    let locations =
        onnx.external_files().map_err(|error| (Check::GraphFiles, error.to_string()))?;
    report.external = locations.iter().map(ToString::to_string).collect();
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut external = Vec::new();
    for location in locations {
        let path = folder.join(location.as_str());
        let length = std::fs::metadata(&path).map_err(|error| {
            let reason = format!("it needs its external data {location:?} beside it: {error}");
            (Check::GraphFiles, reason)
        })?;
        total = total.saturating_add(length.len());
        external.push((location, path));
    }
    Ok(GraphFiles { model: file.to_owned(), external, bytes: total })
}

async fn try_graph(
    files: &GraphFiles,
    choice: BackendChoice,
    config: &Config,
    worker: PathBuf,
    report: &mut GraphReport,
) -> Result<Trial, GraphGateError> {
    let (backends, options) = host::engines(config);
    let backend = backends.select(choice).map_err(GraphGateError::Engine)?;
    report.engine = backends.engine(backend);
    let (worker, metrics) = (Worker::new(worker), GateMetrics::default());
    let trials = GraphTrials::new(worker, config.gate.clone(), backends, options, metrics);
    trials.run(files, backend).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_before_a_refusal_passed_and_those_after_it_were_not_made() {
        let mut steps = Steps::new(&Check::OF_GRAPH);
        steps.refused(Check::GraphFiles, "why");
        let steps = steps.finish(AFTER_REFUSAL);
        let outcomes: Vec<_> = steps.iter().map(|step| step.outcome).collect();
        let (ok, refused, not) = (Outcome::Ok, Outcome::Refused, Outcome::NotChecked);
        assert_eq!(outcomes, [ok, refused, not, not]);
        assert_eq!(refusal(&steps).unwrap().detail, "why");
    }
}
