//! The host: every long-lived part, made once, in the order they depend on each other.

mod upkeep;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;
use tokio::sync::watch;

use crate::config::{Config, DataDir, EngineSettings};
use crate::engine::Engine;
use crate::engine::background::Background;
use crate::engine::budget::{Budget, Slots};
use crate::engine::compile::Compiler;
use crate::engine::deployment::{Deployments, LoadError, Parts};
use crate::engine::http::Outgoing;
use crate::error::{Error, Kind};
use crate::grpc::services::Services;
use crate::http::account::RequestIds;
use crate::http::admit::Admission;
use crate::http::documents;
use crate::http::under_way::Requests;
use crate::ledger::{Callable, Clock, EfficiencyReport, Extent, Ledger, Window};
use crate::logging::{Logging, SetLevel};
use crate::metrics::Metrics;
use crate::model_control::Unloaded;
use crate::names::{AssetName, ModelName};
use crate::nn::backend::{BackendKind, Backends, LoadOptions, Search};
use crate::nn::compute::{Compute, ComputeThreads};
use crate::nn::gate::{GraphGate, GraphTrials};
use crate::nn::graph::{Graph, GraphStore};
use crate::registry::{
    CollectError, FileRegistry, OpenError, OpenReport, RealDisk, Registry as _, Snapshot,
    SystemClock, TornTail, Version,
};
use crate::telemetry::Telemetry;
use crate::trace_settings::Tracing;
use crate::uploads::Uploads;
use crate::verdicts::Verdicts;
use crate::worker::Worker;

/// Address space of one instance's slot: a quarter more memories than instances, of 4 GiB each with
/// what guards them, and stacks and tables.
const SLOT_BYTES: u64 = 6 << 30;

/// Address space of all the rest: the program, its threads' stacks and arenas, graphs and requests.
const OWN_ADDRESS_SPACE_BYTES: u64 = 4 << 30;

fn fitting_text(fitting: u32) -> String {
    // Below one there is nothing to lower it to.
    if fitting == 0 { String::new() } else { format!(", or lower engine.instances to {fitting}") }
}

/// Why a host cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The registry does not open.
    #[error("the registry does not open: {0}")]
    Registry(#[from] OpenError),
    /// wasmtime does not start.
    #[error("the WebAssembly engine does not start: {0:#}")]
    Engine(wasmtime::Error),
    /// The process may not have the address space that instances are placed in.
    #[error(
        "this process may have {limit} bytes of address space (ulimit -v, RLIMIT_AS), and the slots of {instances} instances take about {wanted} (engine.instances); they are reserved, not used: lift that limit and bound the memory itself instead, with a cgroup{}", fitting_text(*.fitting)
    )]
    AddressSpace {
        /// What the process may have.
        limit: u64,
        /// What the pool takes.
        wanted: u64,
        /// `engine.instances` as it is.
        instances: u32,
        /// `engine.instances` as it would fit.
        fitting: u32,
    },
    /// The system refuses something.
    #[error("{what}: {error}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
}

/// Graphs may take one part in this many of the memory there is, where nobody says otherwise.
const GRAPH_MEMORY_PART: u64 = 2;

/// Guests may take one part in this many. What is left is for requests, compiled code and the engines.
const GUEST_MEMORY_PART: u64 = 4;

/// `said` bytes, or a part of the memory there is where 0 is said.
fn share_of_memory(said: u64, part: u64) -> u64 {
    match said {
        0 => crate::engine::memory::available_bytes() / part,
        said => said,
    }
}

/// What a host is started with.
pub struct Options {
    /// The settings.
    pub config: Config,
    /// Where everything is kept.
    pub data_dir: DataDir,
    /// The program with the hidden commands of workers.
    pub worker: PathBuf,
    /// What changes the log's level; none where the log is not this program's to change.
    pub set_log_level: Option<SetLevel>,
}

/// Every long-lived part of a server.
pub struct Host {
    config: Config,
    registry: FileRegistry,
    admission: Admission,
    deployments: Arc<Deployments>,
    background: Background,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    verdicts: Arc<Verdicts>,
    /// Blobs that came by digest and that no version names yet.
    uploads: Uploads,
    request_ids: RequestIds,
    /// Which requests are under way.
    requests: Requests,
    compute: Compute,
    data_dir: DataDir,
    /// Set when the server has begun to drain.
    draining: watch::Sender<bool>,
    controls: Controls,
    /// How many collections of blobs have been asked for and are not done.
    collections: AtomicU32,
    /// Held to the end: dropping them ends the threads.
    _threads: ComputeThreads,
}

/// What the protocol's clients may read and change while the server runs.
struct Controls {
    /// gRPC's own services, beside the protocol's.
    services: Services,
    unloaded: Unloaded,
    logging: Logging,
    tracing: Arc<Tracing>,
    telemetry: Arc<Telemetry>,
}

impl Controls {
    fn new(config: &Config, set_log_level: Option<SetLevel>) -> Self {
        Self {
            telemetry: Arc::new(Telemetry::new(config.telemetry.clone(), &config.server.name)),
            services: Services::new(),
            unloaded: Unloaded::default(),
            logging: Logging::new(set_log_level),
            tracing: Arc::default(),
        }
    }
}

/// Why the engine does not start: most often because the address space is limited.
fn no_engine(
    error: wasmtime::Error,
    settings: &EngineSettings,
    address_space: Option<u64>,
) -> StartError {
    let instances = settings.instances;
    let wanted = SLOT_BYTES.saturating_mul(u64::from(instances));
    match address_space {
        Some(limit) if limit < wanted => {
            let spare = limit.saturating_sub(OWN_ADDRESS_SPACE_BYTES);
            let fitting = u32::try_from(spare / SLOT_BYTES).unwrap_or(instances);
            StartError::AddressSpace { limit, wanted, instances, fitting }
        }
        _ => StartError::Engine(error),
    }
}

/// Whether callers share runs of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GraphSharing {
    /// The most rows of one run, of all its callers together; 1 where each call has a run of its own.
    pub rows: usize,
    /// Why that is so.
    pub reason: Option<String>,
}

impl Host {
    /// Opens the data directory and starts every part. Blocks on the disk.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(options: Options) -> Result<Arc<Self>, StartError> {
        let Options { config, data_dir, worker, set_log_level } = options;
        let system = |what| move |error| StartError::System { what, error };
        let registry = open_registry(&data_dir)?;
        let uploads = Uploads::open(&registry, config.limits.clone());
        let ledger = Arc::new(Ledger::new(Clock::monotonic()));
        upkeep::restore(&ledger, &data_dir);
        let (backends, options) = engines(&config);
        let metrics = Arc::<Metrics>::default();
        let verdicts = Verdicts::open(data_dir.verdicts(), config.gate.verdicts as usize)
            .map_err(system("making the folder for verdicts"))?;
        let (verdicts, worker) = (Arc::new(verdicts), Worker::new(worker));
        let trials = GraphTrials::new(
            worker.clone(),
            config.gate.clone(),
            backends.clone(),
            options.clone(),
            metrics.gates().clone(),
        );
        let gate = GraphGate::new(trials, Arc::clone(&verdicts));
        let graphs = graph_store(&config, backends, options, &ledger);
        let engine = Engine::new(&config.engine)
            .map_err(|error| no_engine(error, &config.engine, crate::process::address_space()))?;
        let engine = Arc::new(engine);
        let compiler = Compiler::open(
            Arc::clone(&engine),
            data_dir.compiled(),
            worker,
            &config.compile,
            Arc::clone(&verdicts),
            metrics.gates().clone(),
        );
        let compiler = compiler.map_err(system("making the folder for compiled code"))?;
        let threads = ComputeThreads::start(&config.compute, &ledger)
            .map_err(system("starting compute threads"))?;
        let background = Background::start(config.engine.foreground_ms)
            .map_err(system("starting background threads"))?;
        let deployments = Arc::new(Deployments::new(Parts {
            engine,
            compiler,
            graphs: Arc::new(graphs),
            gate,
            blobs: Arc::new(registry.blobs().clone()),
            compute: threads.handle(),
            ledger: Arc::clone(&ledger),
            guest: config.guest.clone(),
            budget: Arc::new(budget(&config)),
            queue_length: config.limits.queue_length,
            outgoing: outgoing(&config)?,
        }));
        Ok(Arc::new(Self {
            admission: Admission::new(config.limits.clone()),
            controls: Controls::new(&config, set_log_level),
            uploads,
            config,
            registry,
            deployments,
            background,
            ledger,
            metrics,
            verdicts,
            request_ids: RequestIds::default(),
            requests: Requests::default(),
            compute: threads.handle(),
            data_dir,
            draining: watch::Sender::new(false),
            collections: AtomicU32::new(0),
            _threads: threads,
        }))
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Models, versions and aliases.
    pub fn registry(&self) -> &FileRegistry {
        &self.registry
    }

    /// Everything that is published at this moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.registry.snapshot()
    }

    /// The room there is for requests.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// The versions that are ready to serve.
    pub fn deployments(&self) -> &Arc<Deployments> {
        &self.deployments
    }

    /// Where long calls go on.
    pub fn background(&self) -> &Background {
        &self.background
    }

    /// The accounts.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What the gates found out before.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// Blobs that came by digest and that no version names yet.
    pub fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// Where request ids come from.
    pub fn request_ids(&self) -> &RequestIds {
        &self.request_ids
    }

    /// Which requests are under way.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The way to the compute threads.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// The efficiencies of a window that ends now. Authentication is off, so everyone may call every
    /// model.
    pub fn efficiency(&self, window: Window) -> EfficiencyReport {
        let snapshot = self.snapshot();
        let models: Vec<ModelName> = snapshot.iter().map(|model| model.name.clone()).collect();
        self.ledger.efficiency(window, Callable::Models(&models))
    }

    /// Whether requests are taken.
    ///
    /// # Errors
    /// When the server is draining.
    pub fn check_ready(&self) -> Result<(), Error> {
        if *self.draining.borrow() { Err(documents::draining()) } else { Ok(()) }
    }

    /// Resolves when the server has begun to drain.
    pub async fn drains(&self) {
        // The sender lives as long as the host.
        let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// The standard gRPC services.
    pub fn services(&self) -> &Services {
        &self.controls.services
    }

    /// Whether a version may be served; one that is not loaded may.
    ///
    /// # Errors
    /// [`LoadError::Quarantined`] with its reason.
    pub fn check_quarantine(&self, version: &Version) -> Result<(), LoadError> {
        self.deployments.find(version).map_or(Ok(()), |deployment| deployment.check_quarantine())
    }

    /// Whether a version is served: it is not quarantined, and nobody unloaded its model.
    ///
    /// # Errors
    /// The reason why it is not.
    pub fn check_served(&self, version: &Version) -> Result<(), Error> {
        self.controls.unloaded.check(&version.model)?;
        Ok(self.check_quarantine(version)?)
    }

    /// Whether the protocol's clients may change how the server runs.
    ///
    /// # Errors
    /// [`Kind::Forbidden`] where they may not.
    pub fn check_client_control(&self) -> Result<(), Error> {
        if self.config.server.client_control {
            return Ok(());
        }
        let text = "clients may not change how this server runs (server.client_control)";
        Err(Error::new(Kind::Forbidden, text))
    }

    /// The models that clients have unloaded.
    pub fn unloaded(&self) -> &Unloaded {
        &self.controls.unloaded
    }

    /// The log's settings.
    pub fn logging(&self) -> &Logging {
        &self.controls.logging
    }

    /// The way of spans to a collector.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.controls.telemetry
    }

    /// Which requests are traced.
    pub fn tracing(&self) -> &Arc<Tracing> {
        &self.controls.tracing
    }

    /// The engine a version runs on, and its release; none while it is not loaded.
    pub fn engine_of(&self, version: &Version) -> Option<String> {
        let kind = self.deployments.find(version)?.backend()?;
        self.deployments.graphs().backends().engine(kind)
    }

    /// For each graph of a version, by how many callers' rows a run of it may be shared, or why by none;
    /// none while the version is not loaded.
    pub fn sharing_of(&self, version: &Version) -> Option<BTreeMap<String, GraphSharing>> {
        let deployment = self.deployments.find(version)?;
        let sharing = |(name, graph): (&AssetName, &Arc<Graph>)| match graph.shared_rows() {
            Ok(rows) => (name.to_string(), GraphSharing { rows, reason: None }),
            Err(reason) => {
                (name.to_string(), GraphSharing { rows: 1, reason: Some(reason.to_owned()) })
            }
        };
        Some(deployment.named_graphs().map(sharing).collect())
    }

    /// The platform of a version, as the Open Inference Protocol spells it: `<project>_<format>`.
    pub fn platform(&self, version: &Version) -> String {
        let has_graph = version.record.assets.keys().any(crate::nn::graph::is_graph);
        if !has_graph {
            return "wasm_component".to_owned();
        }
        let loaded = self.deployments.find(version).and_then(|deployment| deployment.backend());
        let backends = self.deployments.graphs().backends();
        let kind = loaded.or_else(|| backends.select(version.record.backend).ok());
        kind.map_or("unknown", BackendKind::as_str).to_owned() + "_onnx"
    }

    /// Drops what the registry no longer has, after a change. Blocks for some milliseconds.
    pub fn settle(&self) {
        let snapshot = self.snapshot();
        self.deployments.retain(&snapshot);
        self.metrics.retain(|model, version| {
            snapshot.get(model).is_some_and(|model| model.versions.contains_key(version))
        });
        self.controls.unloaded.retain(|model| snapshot.get(model).is_some());
        self.controls.tracing.retain(|model| snapshot.get(model).is_some());
    }

    /// Removes the blobs that nothing names, in the background; one walk at a time, and one more for
    /// those who asked while it went.
    pub fn collect_soon(self: &Arc<Self>) {
        if self.collections.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let host = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            loop {
                let asked = host.collections.load(Ordering::Acquire);
                host.collect();
                if host.collections.fetch_sub(asked, Ordering::AcqRel) == asked {
                    return;
                }
            }
        });
    }

    /// Removes the blobs that nothing names. Blocks on the disk.
    pub fn collect(&self) {
        match self.registry.collect() {
            Ok(_) => {}
            // Nothing to be seen to but what made it read-only, which has been said.
            Err(CollectError::ReadOnly { reason }) => {
                tracing::debug!(reason, "no blobs are collected");
            }
            Err(error) => tracing::warn!(%error, "unreferenced blobs could not be removed"),
        }
    }

    /// From here on the server says that it is not ready.
    pub fn begin_drain(&self) {
        self.draining.send_replace(true);
    }

    /// The last request is answered: instances go, and the last checkpoint is written.
    pub fn end_drain(&self) {
        self.deployments.retire_all();
        self.checkpoint(Extent::Last);
    }
}

/// The engines that the settings lead to, and how they load.
pub(crate) fn engines(config: &Config) -> (Backends, LoadOptions) {
    let library = PathBuf::from(&config.compute.onnxruntime_library);
    let backends = Backends::discover(&Search::of_process(Some(library)));
    let intra_op_threads = config.compute.intra_op_threads;
    let intra_op_threads = NonZeroUsize::new(intra_op_threads).unwrap_or(NonZeroUsize::MIN);
    (backends, LoadOptions { intra_op_threads })
}

/// What guests may ask of other servers, which was checked with the rest of the configuration.
fn outgoing(config: &Config) -> Result<Arc<Outgoing>, StartError> {
    Outgoing::new(&config.guest).map(Arc::new).map_err(|problem| StartError::System {
        what: "reading guest.outgoing_http",
        error: std::io::Error::other(problem),
    })
}

/// The store of graphs, with the room that the settings give it.
fn graph_store(
    config: &Config,
    backends: Backends,
    options: LoadOptions,
    ledger: &Arc<Ledger>,
) -> GraphStore {
    let compute = &config.compute;
    let resident_bytes = share_of_memory(compute.resident_graph_bytes, GRAPH_MEMORY_PART);
    GraphStore::new(backends, options, compute.graph_bytes, resident_bytes, Arc::clone(ledger))
}

fn open_registry(data_dir: &DataDir) -> Result<FileRegistry, OpenError> {
    let (registry, opened) =
        FileRegistry::open(data_dir.path(), Arc::new(RealDisk), Arc::new(SystemClock))?;
    log_opened(&opened);
    Ok(registry)
}

/// Says what opening the registry found and repaired: the operator hears of it here or never.
fn log_opened(opened: &OpenReport) {
    let OpenReport { epoch, models, torn_tail, index_caught_up, index_repair, read_only } = opened;
    tracing::info!(epoch, models, "the registry is open");
    if let Some(TornTail { file, bytes }) = torn_tail {
        tracing::warn!(
            file,
            bytes,
            "the journal ended in a torn frame, which nobody was told of; it was moved aside"
        );
    }
    if let Some(changes) = index_caught_up {
        tracing::info!(changes, "the registry's index was behind the journal and has caught up");
    }
    if let Some(repair) = index_repair {
        tracing::warn!(repair, "the registry's index could not be used and was rebuilt");
    }
    if let Some(reason) = read_only {
        tracing::error!(
            reason,
            "the registry is read-only: models are served, changes are refused"
        );
    }
}

/// What all instances may take together.
fn budget(config: &Config) -> Budget {
    let memory_bytes = share_of_memory(config.engine.memory_bytes, GUEST_MEMORY_PART);
    Budget::new(Slots::of_engine(&config.engine), memory_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_address_space_is_named_with_what_would_fit() {
        let settings = EngineSettings { instances: 4096, ..EngineSettings::default() };
        let error = || wasmtime::format_err!("mmap failed");
        let limited = no_engine(error(), &settings, Some(100 << 30)).to_string();
        for words in ["107374182400 bytes", "engine.instances", "ulimit -v", "to 16"] {
            assert!(limited.contains(words), "{words}: {limited}");
        }
        let tiny = no_engine(error(), &settings, Some(1 << 30)).to_string();
        assert!(tiny.ends_with("with a cgroup"), "{tiny}");
        for enough in [None, Some(u64::MAX)] {
            let other = no_engine(error(), &settings, enough);
            assert!(matches!(other, StartError::Engine(_)), "{other}");
        }
    }
}
