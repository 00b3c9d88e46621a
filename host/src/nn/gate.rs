//! The gate for graphs: no engine in the server is given a graph that a worker did not load and run
//! first.
//!
//! A graph is native code's input, outside every sandbox. In a process with limits of its own it is
//! read, loaded and run once on made-up inputs. What ends that process, or takes more than it may, is
//! refused; an error that the engine itself returns from the run is told and no more, since made-up
//! inputs can be wrong for a graph that callers run well.

use std::ffi::OsString;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::backend::{
    BackendKind, Backends, Cancel, LoadError, LoadErrorKind, LoadOptions, Search, probe,
};
use super::onnx::Onnx;
use super::rows::{self, Rows};
use crate::checks::Check;
use crate::config::GateSettings;
use crate::digest::Digest;
use crate::engine::memory::{resident_bytes, return_free_memory};
use crate::metrics::{Gate, GateMetrics};
use crate::names::AssetName;
use crate::tensor::{Datatype, NamedTensor};
use crate::verdicts::{VerdictKey, VerdictKind, Verdicts};
use crate::worker::{self, Finished, LimitKeys, Worker, WorkerLimits};

/// Changes when a trial finds out more or other things, so that what was found before is not taken.
const REVISION: u32 = 2;

/// Graphs tried at once: a hostile one keeps a core busy, and serving needs the others.
const CONCURRENT_TRIALS: usize = 1;

/// Stack of the thread that loads and runs: that of the server's own threads, so that recursion which
/// would end the server ends the worker.
const STACK_BYTES: usize = 2 << 20;

/// Bytes of an engine's words that are kept; more is noise.
const WORDS_BYTES: usize = 1000;

/// Outputs whose sizes are kept, and bytes of their names.
const KEPT_OUTPUTS: usize = 32;
const NAME_BYTES: usize = 100;

/// The settings that limit a graph worker.
const KEYS: LimitKeys = LimitKeys {
    memory: "gate.memory_bytes and gate.memory_per_graph_byte",
    cpu: "gate.cpu_s",
    timeout: "gate.timeout_s",
};

/// A graph to be checked: where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphFiles {
    /// The ONNX model.
    pub model: PathBuf,
    /// Its external data, under the locations that the model gives.
    pub external: Vec<(AssetName, PathBuf)>,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// What a graph did in the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// What loading it added to resident memory, in bytes.
    pub resident_bytes: u64,
    /// Milliseconds that loading took.
    pub load_ms: u64,
    /// Milliseconds that the run on made-up inputs took.
    pub run_ms: u64,
    /// What the run gave; none if it failed.
    pub outputs: Vec<OutputSize>,
    /// What the engine said of the run, if it failed.
    pub warning: Option<String>,
    /// Whether rows of several callers may share a run.
    pub rows: Rows,
}

/// One output of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputSize {
    /// Its name, or the beginning of a long one.
    pub name: String,
    /// The type of its elements.
    pub datatype: Datatype,
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: u64,
}

/// Why a graph itself is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{reason}")]
pub struct GraphRefusal {
    /// The check it does not pass.
    pub check: Check,
    /// One sentence for its publisher.
    pub reason: String,
    /// Whether the same graph would be refused again, however busy the host is.
    repeatable: bool,
    /// What the worker might take: with other limits the verdict may be another.
    limits: WorkerLimits,
}

/// Why a graph does not pass.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum GraphGateError {
    #[error("is refused: {0}")]
    Refused(GraphRefusal),
    #[error("cannot be checked: {0}")]
    Engine(LoadError),
    #[error("cannot be checked, the graph worker could not be run: {0}")]
    Worker(std::io::Error),
    #[error("cannot be checked, the graph worker could not do its work: {0}")]
    Broken(String),
}

/// What is remembered of a graph.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Passed(Trial),
    Refused(GraphRefusal),
}

/// What a worker prints, a line each: how far it is, and at last what it found.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// It begins with this check.
    Begins(Check),
    /// The graph cannot be used, for this reason.
    Refused(String),
    /// The engine was refused memory, and said so.
    OutOfMemory,
    /// The graph was loaded and run.
    Passed(Trial),
    /// What came of running made-up rows together.
    Rows(Rows),
}

/// Lets workers load and run graphs.
pub struct GraphTrials {
    worker: Worker,
    settings: GateSettings,
    backends: Backends,
    options: LoadOptions,
    metrics: GateMetrics,
}

impl GraphTrials {
    /// Trials on `backends`, which load with `options`.
    pub fn new(
        worker: Worker,
        settings: GateSettings,
        backends: Backends,
        options: LoadOptions,
        metrics: GateMetrics,
    ) -> Self {
        Self { worker, settings, backends, options, metrics }
    }

    /// What a worker may take for a graph.
    fn limits(&self, files: &GraphFiles) -> WorkerLimits {
        let copies = files.bytes.saturating_mul(self.settings.memory_per_graph_byte);
        WorkerLimits {
            memory_bytes: self.settings.memory_bytes.saturating_add(copies),
            cpu_s: self.settings.cpu_s,
            // It reads, and prints to a pipe.
            file_bytes: 0,
            timeout_s: self.settings.timeout_s,
        }
    }

    /// Lets a worker load the graph and run it once. A refusal is remembered nowhere.
    ///
    /// # Errors
    /// [`GraphGateError`]; the graph's own fault only if it is [`GraphGateError::Refused`].
    pub async fn run(
        &self,
        files: &GraphFiles,
        backend: BackendKind,
    ) -> Result<Trial, GraphGateError> {
        self.backends.get(backend).map_err(GraphGateError::Engine)?;
        let finished = self.worker(files, backend, &[]).await?;
        let mut trial = judge(&finished, &self.limits(files), backend)?;
        if matches!(trial.rows, Rows::Apart(_)) {
            // In a process of its own: many rows may take more than a graph has to do with.
            let finished = self.worker(files, backend, &["--rows"]).await?;
            trial.rows = judge_rows(&finished);
        }
        Ok(trial)
    }

    async fn worker(
        &self,
        files: &GraphFiles,
        backend: BackendKind,
        more: &[&str],
    ) -> Result<Finished, GraphGateError> {
        let library = self.backends.library(backend);
        let mut args = arguments(files, backend, library, self.options.intra_op_threads);
        args.extend(more.iter().map(Into::into));
        let finished = self.worker.run("graph-worker", args, &self.limits(files)).await;
        let finished = finished.map_err(GraphGateError::Worker)?;
        self.metrics.worker(Gate::Graph, finished.took);
        Ok(finished)
    }
}

/// The gate: trials, one at a time, and what they came to before.
pub struct GraphGate {
    trials: GraphTrials,
    /// Trials that may run at once.
    slots: Semaphore,
    verdicts: Arc<Verdicts>,
}

impl GraphGate {
    /// A gate that remembers in `verdicts`.
    pub fn new(trials: GraphTrials, verdicts: Arc<Verdicts>) -> Self {
        Self { trials, slots: Semaphore::new(CONCURRENT_TRIALS), verdicts }
    }

    /// The verdict on a graph, by the digests of its model and its external data: remembered, or found
    /// out now.
    ///
    /// # Errors
    /// [`GraphGateError`]; the graph's own fault only if it is [`GraphGateError::Refused`].
    pub async fn check(
        &self,
        files: &GraphFiles,
        digests: &(Digest, Vec<Digest>),
        backend: BackendKind,
    ) -> Result<Trial, GraphGateError> {
        let engine = self.trials.backends.get(backend).map_err(GraphGateError::Engine)?.version();
        let threads = self.trials.options.intra_op_threads;
        let key = (digests, backend.as_str(), engine, threads, REVISION);
        let key = VerdictKey::new(VerdictKind::Graph, &key);
        if let Some(verdict) = self.remembered(&key, files) {
            return verdict;
        }
        // The semaphore lives as long as the gate and is never closed.
        let _slot = self.slots.acquire().await;
        // Somebody may have checked the same graph while this one waited.
        if let Some(verdict) = self.remembered(&key, files) {
            return verdict;
        }
        let found = self.trials.run(files, backend).await;
        match &found {
            Ok(trial) => self.verdicts.remember(&key, &Verdict::Passed(trial.clone())),
            Err(GraphGateError::Refused(refusal)) if refusal.repeatable => {
                self.verdicts.remember(&key, &Verdict::Refused(refusal.clone()));
            }
            Err(_) => {}
        }
        found
    }

    fn remembered(
        &self,
        key: &VerdictKey,
        files: &GraphFiles,
    ) -> Option<Result<Trial, GraphGateError>> {
        match self.verdicts.find(key)? {
            Verdict::Passed(trial) => Some(Ok(trial)),
            Verdict::Refused(refusal) if refusal.limits == self.trials.limits(files) => {
                Some(Err(GraphGateError::Refused(refusal)))
            }
            Verdict::Refused(_) => None,
        }
    }
}

/// The command line of a worker.
fn arguments(
    files: &GraphFiles,
    backend: BackendKind,
    library: Option<PathBuf>,
    threads: NonZeroUsize,
) -> Vec<OsString> {
    let mut args = vec![files.model.clone().into_os_string()];
    for (location, path) in &files.external {
        args.extend(["--external".into(), location.as_str().into(), path.into()]);
    }
    args.extend(["--backend".into(), backend.as_str().into()]);
    if let Some(library) = library {
        args.extend(["--library".into(), library.into()]);
    }
    args.extend(["--threads".into(), threads.to_string().into()]);
    args
}

/// What a worker's end means for the graph.
fn judge(
    finished: &Finished,
    limits: &WorkerLimits,
    backend: BackendKind,
) -> Result<Trial, GraphGateError> {
    let mut check = Check::GraphFormat;
    let mut found = None;
    let lines = finished.output.split(|byte| *byte == b'\n');
    for line in lines.filter_map(|line| serde_json::from_slice(line).ok()) {
        match line {
            Line::Begins(begun) => check = begun,
            last => found = Some(last),
        }
    }
    let given_up = |why: String| match check {
        Check::GraphLoad => format!("loading it into {backend} is given up: {why}"),
        Check::GraphRun => {
            format!("running it once in {backend} on made-up inputs is given up: {why}")
        }
        _ => format!("reading it is given up: {why}"),
    };
    let refuse = |reason, repeatable| {
        let limits = *limits;
        Err(GraphGateError::Refused(GraphRefusal { check, reason, repeatable, limits }))
    };
    let died = |death: worker::Death| {
        refuse(given_up(finished.explain(death, limits, &KEYS)), death.is_repeatable())
    };
    match (finished.ended, found) {
        (Err(death), _) => died(death),
        (Ok(0), Some(Line::Passed(trial))) => Ok(trial),
        (Ok(0), Some(Line::Refused(reason))) => refuse(reason, true),
        (Ok(0), Some(Line::OutOfMemory)) => died(worker::Death::Memory),
        (Ok(_), _) => Err(GraphGateError::Broken(finished.complaint.clone())),
    }
}

/// What a worker's end means for rows that share a run.
fn judge_rows(finished: &Finished) -> Rows {
    let lines = finished.output.split(|byte| *byte == b'\n');
    let found = lines.rev().find_map(|line| serde_json::from_slice(line).ok());
    match (&finished.ended, found) {
        (Ok(0), Some(Line::Rows(rows))) => rows,
        _ => Rows::Mixed("running made-up rows together ended the worker".to_owned()),
    }
}

/// What a worker is told to do.
#[derive(Debug, Clone)]
pub struct Task {
    /// The ONNX model.
    pub model: PathBuf,
    /// Its external data, under the locations that the model gives.
    pub external: Vec<(AssetName, PathBuf)>,
    /// The engine.
    pub backend: BackendKind,
    /// The engine's library, if it has one.
    pub library: Option<PathBuf>,
    /// Threads of one run.
    pub threads: NonZeroUsize,
    /// Whether to run rows together.
    pub rows: bool,
}

/// The worker's side: limits its own process, then reads, loads and runs the graph, and prints how far
/// it is and what it found.
///
/// # Errors
/// The host's faults, in words: limits that cannot be set, an engine that is not there, files that
/// cannot be read.
pub fn run_worker(
    task: &Task,
    limits: &WorkerLimits,
    output: &mut (dyn Write + Send),
) -> Result<(), String> {
    worker::confine(limits).map_err(|error| format!("the limits cannot be set: {error}"))?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || {
                let found = attempt(task, output)?;
                say(output, &found)
            })
            .map_err(|error| format!("there is no thread to load on: {error}"))?;
        // A panic has said its words and goes on, so that the process ends like one that panicked.
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn say(output: &mut (dyn Write + Send), line: &Line) -> Result<(), String> {
    let mut text = serde_json::to_vec(line).map_err(|error| error.to_string())?;
    text.push(b'\n');
    output.write_all(&text).and_then(|()| output.flush()).map_err(|error| error.to_string())
}

fn attempt(task: &Task, output: &mut (dyn Write + Send)) -> Result<Line, String> {
    let read = |path: &PathBuf| {
        let bytes = std::fs::read(path);
        bytes
            .map(Bytes::from)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))
    };
    let backends = match &task.library {
        Some(library) => {
            Backends::discover(&Search { configured: Some(library.clone()), ..Search::default() })
        }
        None => Backends::embedded(),
    };
    // Before the graph is read: what loading adds is told with what its file no longer takes.
    let before = resident_bytes();
    say(output, &Line::Begins(Check::GraphFormat))?;
    let onnx = match Onnx::parse(read(&task.model)?) {
        Ok(onnx) => onnx,
        Err(error) => return Ok(Line::Refused(error.to_string())),
    };
    let signature = match onnx.signature() {
        Ok(signature) => signature,
        Err(error) => return Ok(Line::Refused(error.to_string())),
    };
    let rows = proven(&onnx);
    say(output, &Line::Begins(Check::GraphFiles))?;
    let external: Vec<_> = task
        .external
        .iter()
        .map(|(location, path)| Ok((location, read(path)?)))
        .collect::<Result<_, String>>()?;
    let resolve = |location: &AssetName| {
        external.iter().find(|(name, _)| *name == location).map(|(_, bytes)| bytes.clone())
    };
    let model = match onnx.resolve_external(&resolve) {
        Ok(model) => model,
        Err(error) => return Ok(Line::Refused(error.to_string())),
    };
    drop(external);
    say(output, &Line::Begins(Check::GraphLoad))?;
    let options = LoadOptions { intra_op_threads: task.threads };
    let started = Instant::now();
    let graph = match backends.load(task.backend, model, &signature, &options) {
        Ok(graph) => graph,
        Err(error) if error.kind() == LoadErrorKind::Unavailable => return Err(error.to_string()),
        Err(error) => return Ok(failed(&error.to_string(), Line::Refused)),
    };
    let load_ms = milliseconds(started);
    return_free_memory();
    let resident_bytes = resident_bytes().saturating_sub(before);
    say(output, &Line::Begins(Check::GraphRun))?;
    let started = Instant::now();
    let ran = probe(&*graph, &signature, &Cancel::new());
    let run_ms = milliseconds(started);
    if task.rows {
        return Ok(Line::Rows(rows::attempt(&*graph, &signature)));
    }
    let trial = |outputs, warning| {
        Line::Passed(Trial { resident_bytes, load_ms, run_ms, outputs, warning, rows })
    };
    let line = match ran {
        Ok(outputs) => trial(outputs.iter().take(KEPT_OUTPUTS).map(output_size).collect(), None),
        Err(error) => failed(&error.to_string(), |words| trial(Vec::new(), Some(words))),
    };
    // Unloading is part of what a graph must not crash.
    drop(graph);
    Ok(line)
}

/// What is proven of the rows of a graph; how many of them may share a run is yet to be tried.
fn proven(onnx: &Onnx) -> Rows {
    match onnx.rows_stay_apart() {
        Ok(()) => Rows::Apart(1),
        Err(reason) => Rows::Mixed(beginning(&reason, WORDS_BYTES)),
    }
}

/// What the words of an engine that failed come to.
fn failed(words: &str, otherwise: impl FnOnce(String) -> Line) -> Line {
    if worker::says_out_of_memory(words) {
        return Line::OutOfMemory;
    }
    otherwise(beginning(words, WORDS_BYTES))
}

fn output_size((name, tensor): &NamedTensor) -> OutputSize {
    OutputSize {
        name: beginning(name, NAME_BYTES),
        datatype: tensor.datatype(),
        shape: tensor.shape().to_vec(),
        bytes: tensor.data().len() as u64,
    }
}

fn beginning(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::worker::Death;

    const LIMITS: WorkerLimits =
        WorkerLimits { memory_bytes: 1 << 30, cpu_s: 5, file_bytes: 0, timeout_s: 9 };

    fn trial() -> Trial {
        Trial {
            resident_bytes: 1,
            load_ms: 2,
            run_ms: 3,
            outputs: Vec::new(),
            warning: None,
            rows: Rows::Mixed("not tried".to_owned()),
        }
    }

    fn finished(ended: Result<i32, Death>, lines: &[Line]) -> Finished {
        let mut output = Vec::new();
        for line in lines {
            say(&mut output, line).unwrap();
        }
        let complaint = "its words".to_owned();
        Finished { ended, output, complaint, took: Duration::ZERO }
    }

    fn refused(ended: Result<i32, Death>, lines: &[Line]) -> GraphRefusal {
        match judge(&finished(ended, lines), &LIMITS, BackendKind::Rten) {
            Err(GraphGateError::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_graph_that_was_loaded_and_run_passes() {
        let lines = [Line::Begins(Check::GraphRun), Line::Passed(trial())];
        let judged = judge(&finished(Ok(0), &lines), &LIMITS, BackendKind::Rten);
        assert_eq!(judged.unwrap(), trial());
    }

    #[test]
    fn a_worker_that_dies_refuses_the_graph_at_what_it_was_doing() {
        let loading = [Line::Begins(Check::GraphFormat), Line::Begins(Check::GraphLoad)];
        let refusal = refused(Err(Death::Crash(11)), &loading);
        assert_eq!((refusal.check, refusal.repeatable), (Check::GraphLoad, true));
        assert!(refusal.reason.contains("SIGSEGV") && refusal.reason.contains("its words"));
        let running = [Line::Begins(Check::GraphRun)];
        let refusal = refused(Err(Death::Timeout), &running);
        assert_eq!((refusal.check, refusal.repeatable), (Check::GraphRun, false));
        assert!(refusal.reason.contains("gate.timeout_s"), "{}", refusal.reason);
        // Nothing that was said before makes a death good.
        let said = [Line::Begins(Check::GraphRun), Line::Passed(trial())];
        assert_eq!(refused(Err(Death::Crash(6)), &said).check, Check::GraphRun);
    }

    #[test]
    fn rows_that_end_their_worker_share_no_run() {
        let apart = [Line::Begins(Check::GraphRun), Line::Rows(Rows::Apart(8))];
        assert_eq!(judge_rows(&finished(Ok(0), &apart)), Rows::Apart(8));
        let none = [Line::Begins(Check::GraphRun)];
        for (ended, lines) in
            [(Err(Death::Crash(11)), &apart[..]), (Err(Death::Timeout), &none), (Ok(0), &none)]
        {
            assert!(matches!(judge_rows(&finished(ended, lines)), Rows::Mixed(_)));
        }
    }

    #[test]
    fn an_engine_without_memory_names_the_limit() {
        let lines = [Line::Begins(Check::GraphRun), Line::OutOfMemory];
        let refusal = refused(Ok(0), &lines);
        assert!(refusal.reason.contains("gate.memory_bytes"), "{}", refusal.reason);
        assert!(refusal.repeatable);
    }

    #[test]
    fn a_worker_that_could_not_work_refuses_nothing() {
        for (ended, lines) in [(Ok(1), vec![]), (Ok(0), vec![Line::Begins(Check::GraphRun)])] {
            let error = judge(&finished(ended, &lines), &LIMITS, BackendKind::Rten).unwrap_err();
            assert!(matches!(error, GraphGateError::Broken(_)), "{error}");
        }
    }

    #[test]
    fn an_engines_words_are_cut_between_characters() {
        assert_eq!(beginning("aé", 2), "a");
        assert_eq!(beginning("aé", 3), "aé");
    }
}
