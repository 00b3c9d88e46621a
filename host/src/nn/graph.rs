//! Graphs: assets loaded into a backend, one per host, shared by every instance that may use them.
//!
//! Two versions that ship the same bytes share one graph. A graph lives as long as somebody holds
//! it; when the last holder lets go its memory returns to the system.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use super::backend::{
    BackendKind, Backends, Cancel, LoadError, LoadOptions, LoadedGraph, RunError,
};
use super::gain::Gain;
use super::gate::{GraphFiles, GraphGateError};
use super::onnx::{Onnx, OnnxError};
use super::rows::Rows;
use crate::checks::Check;
use crate::cost::Cost;
use crate::digest::Digest;
use crate::ledger::{Ledger, ObjectAccount, ObjectKind};
use crate::names::AssetName;
use crate::tensor::NamedTensor;
use crate::version::{BackendChoice, BlobRef, Signature};

/// What makes two graphs the same: their bytes, those of their external data, and the engine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GraphKey {
    model: Digest,
    external: Vec<Digest>,
    backend: BackendKind,
}

/// A model loaded into a backend.
pub struct Graph {
    signature: Signature,
    backend: BackendKind,
    loaded: Box<dyn LoadedGraph>,
    account: ObjectAccount,
    bytes: u64,
    /// Whether the work of a run follows from the shapes of its inputs.
    bounded: bool,
    /// What its runs are learned to cost.
    cost: Cost,
    /// Whether rows of several callers may share a run.
    rows: Rows,
    /// That they may not after all, because of what a run gave.
    mixed: OnceLock<String>,
    /// What they gain by it.
    gain: Gain,
    /// Rows of runs under way that callers may share.
    running_rows: AtomicUsize,
    /// Why it is not run any more, if it is not.
    quarantine: ArcSwapOption<String>,
    /// Runs of it that hold a thread which was given up on.
    stuck: AtomicU32,
}

/// What is known of a graph before it is loaded, and what loading it takes.
struct Facts {
    signature: Signature,
    bounded: bool,
    rows: Rows,
    bytes: u64,
}

impl Graph {
    /// What it takes and gives, as its file declares.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The engine it runs on.
    pub fn backend(&self) -> BackendKind {
        self.backend
    }

    /// Bytes it is accounted with: its files, or what loading it added to resident memory where that
    /// is more.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its row among the objects of the ledger, which leases of instances hold.
    pub fn account(&self) -> &ObjectAccount {
        &self.account
    }

    /// A graph that an engine of a test runs.
    #[cfg(test)]
    pub(super) fn of_engine(
        loaded: Box<dyn LoadedGraph>,
        ledger: &Ledger,
        bounded: bool,
        rows: Rows,
    ) -> Self {
        let account = ledger.object(ObjectKind::Graph, 0, &[]);
        let facts = Facts { signature: Signature::default(), bounded, rows, bytes: 0 };
        Self::new(facts, BackendKind::Rten, loaded, account)
    }

    fn new(
        facts: Facts,
        backend: BackendKind,
        loaded: Box<dyn LoadedGraph>,
        account: ObjectAccount,
    ) -> Self {
        let Facts { signature, bounded, rows, bytes } = facts;
        Self {
            signature,
            backend,
            loaded,
            account,
            bytes,
            bounded,
            cost: Cost::default(),
            rows,
            mixed: OnceLock::new(),
            gain: Gain::default(),
            running_rows: AtomicUsize::new(0),
            quarantine: ArcSwapOption::empty(),
            stuck: AtomicU32::new(0),
        }
    }

    /// Whether the work of a run follows from the shapes of its inputs: what was short will be short
    /// again.
    pub fn is_bounded(&self) -> bool {
        self.bounded
    }

    /// The most rows of a run that callers share, or why they share none.
    ///
    /// # Errors
    /// The reason.
    pub fn shared_rows(&self) -> Result<usize, &str> {
        match (&self.rows, self.mixed.get()) {
            (Rows::Apart(most), None) => Ok(*most),
            (Rows::Mixed(reason), _) | (_, Some(reason)) => Err(reason),
        }
    }

    /// No callers share a run any more.
    pub(super) fn mixes_rows(&self, reason: String) {
        let _ = self.mixed.set(reason);
    }

    /// Rows of runs under way that callers may share.
    pub(super) fn running_rows(&self) -> &AtomicUsize {
        &self.running_rows
    }

    /// What rows gain that share a run.
    pub(super) fn gain(&self) -> &Gain {
        &self.gain
    }

    /// What its runs are learned to cost.
    pub fn cost(&self) -> &Cost {
        &self.cost
    }

    /// Why it is not run any more; none while it is.
    pub fn quarantined(&self) -> Option<Arc<String>> {
        self.quarantine.load_full()
    }

    /// Runs it no more, until [`release`](Self::release).
    pub fn quarantine(&self, reason: String) {
        self.quarantine.store(Some(Arc::new(reason)));
    }

    /// Ends its quarantine; `false` while runs of it still hold lost threads, which more would join.
    pub fn release(&self) -> bool {
        let free = self.stuck.load(Ordering::SeqCst) == 0;
        if free {
            self.quarantine.store(None);
        }
        free
    }

    /// A run of it holds a thread that is given up on.
    pub(super) fn stuck_run_began(&self) {
        self.stuck.fetch_add(1, Ordering::SeqCst);
    }

    /// Such a run has ended after all.
    pub(super) fn stuck_run_ended(&self) {
        self.stuck.fetch_sub(1, Ordering::SeqCst);
    }

    /// Runs it on the calling thread, which must have a native stack.
    ///
    /// # Errors
    /// What the engine says.
    pub fn run(
        &self,
        inputs: &[NamedTensor],
        cancel: &Cancel,
    ) -> Result<Vec<NamedTensor>, RunError> {
        self.loaded.run(inputs, cancel)
    }
}

/// A graph before it is loaded: parsed, with everything it needs at hand.
pub struct GraphSource {
    /// The parsed model; external data not yet resolved.
    pub onnx: Onnx,
    /// The digests that identify it, the model's first.
    digests: (Digest, Vec<Digest>),
    /// Its external data.
    external: Vec<(AssetName, Bytes)>,
}

/// A graph whose parts have been found: parsed, its external data not yet read.
pub struct Located {
    onnx: Onnx,
    model: BlobRef,
    external: Vec<(AssetName, BlobRef)>,
    /// Bytes of all of them.
    bytes: u64,
}

impl Located {
    /// Where its bytes are, for a worker.
    pub fn files(&self, path: impl Fn(&BlobRef) -> PathBuf) -> GraphFiles {
        let external = self.external.iter();
        GraphFiles {
            model: path(&self.model),
            external: external.map(|(location, blob)| (location.clone(), path(blob))).collect(),
            bytes: self.bytes,
        }
    }

    /// The digests that identify it, the model's first.
    pub fn digests(&self) -> (Digest, Vec<Digest>) {
        (self.model.digest, self.external.iter().map(|(_, blob)| blob.digest).collect())
    }
}

/// Why a graph cannot be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum GraphError {
    #[error("the graph {asset:?} is not usable: {error}")]
    Onnx { asset: String, error: Box<OnnxError> },
    #[error(
        "the graph {asset:?} needs its external data {location:?}, and the version has no asset of that name"
    )]
    MissingExternal { asset: String, location: String },
    #[error(
        "the graph {asset:?} with its external data takes {bytes} bytes, over the limit of {limit} (compute.graph_bytes)"
    )]
    TooLarge { asset: String, bytes: u64, limit: u64 },
    #[error("the graph {asset:?} cannot be loaded: {error}")]
    Load { asset: String, error: LoadError },
    #[error("cannot read the asset {asset:?}: {error}")]
    Read { asset: String, error: std::io::Error },
    #[error("the graph {asset:?} {error}")]
    Gate { asset: String, error: GraphGateError },
}

impl GraphError {
    /// The check that the graph does not pass; none where it is not the graph's fault.
    pub fn check(&self) -> Option<Check> {
        match self {
            Self::Onnx { error, .. } => Some(match **error {
                OnnxError::Location { .. }
                | OnnxError::MissingAsset { .. }
                | OnnxError::ExternalData { .. } => Check::GraphFiles,
                _ => Check::GraphFormat,
            }),
            Self::MissingExternal { .. } => Some(Check::GraphFiles),
            Self::TooLarge { .. } => Some(Check::GraphFormat),
            // A version that asks for an engine which is not there could be published elsewhere.
            Self::Load { .. } | Self::Gate { error: GraphGateError::Engine(_), .. } => {
                Some(Check::GraphLoad)
            }
            Self::Gate { error: GraphGateError::Refused(refusal), .. } => Some(refusal.check),
            Self::Gate { .. } | Self::Read { .. } => None,
        }
    }
}

/// The assets of one version, as the store reads them.
pub trait AssetSource {
    /// The address of an asset, if the version has it.
    fn find(&self, name: &str) -> Option<BlobRef>;
    /// The bytes of a blob.
    ///
    /// # Errors
    /// When the disk does not give them.
    fn read(&self, blob: &BlobRef) -> std::io::Result<Bytes>;
}

/// The graphs of the host.
pub struct GraphStore {
    backends: Backends,
    options: LoadOptions,
    /// Most bytes of one graph; `compute.graph_bytes`.
    limit: u64,
    /// Most bytes of all loaded graphs; `compute.resident_graph_bytes`.
    resident_limit: u64,
    ledger: Arc<Ledger>,
    /// One slot a graph. The inner lock is held while it loads, so that two versions that want it at
    /// once load it once.
    slots: Mutex<HashMap<GraphKey, Arc<Mutex<Weak<Graph>>>>>,
}

impl GraphStore {
    /// A store that loads into `backends`.
    pub fn new(
        backends: Backends,
        options: LoadOptions,
        limit: u64,
        resident_limit: u64,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self { backends, options, limit, resident_limit, ledger, slots: Mutex::default() }
    }

    /// Most bytes that all loaded graphs may take together.
    pub fn resident_limit(&self) -> u64 {
        self.resident_limit
    }

    /// The engines there are.
    pub fn backends(&self) -> &Backends {
        &self.backends
    }

    /// Reads and parses a graph and finds its external data. Blocks on the disk.
    ///
    /// # Errors
    /// [`GraphError`], naming the asset.
    pub fn locate(
        &self,
        asset: &AssetName,
        assets: &dyn AssetSource,
    ) -> Result<Located, GraphError> {
        let missing = |location: &str| GraphError::MissingExternal {
            asset: asset.to_string(),
            location: location.to_owned(),
        };
        let model = assets.find(asset.as_str()).ok_or_else(|| missing(asset.as_str()))?;
        self.check_size(asset, model.bytes)?;
        let bytes = read(asset, assets, &model)?;
        let onnx = Onnx::parse(bytes).map_err(|error| onnx_error(asset, error))?;
        let locations = onnx.external_files().map_err(|error| onnx_error(asset, error))?;
        let mut bytes = model.bytes;
        let mut external = Vec::new();
        for location in locations {
            let name = beside(asset, &location);
            let blob = assets.find(&name).ok_or_else(|| missing(&name))?;
            bytes = bytes.saturating_add(blob.bytes);
            self.check_size(asset, bytes)?;
            external.push((location, blob));
        }
        Ok(Located { onnx, model, external, bytes })
    }

    /// Reads and parses a graph with its external data. Blocks on the disk.
    ///
    /// # Errors
    /// [`GraphError`], naming the asset.
    pub fn open(
        &self,
        asset: &AssetName,
        assets: &dyn AssetSource,
    ) -> Result<GraphSource, GraphError> {
        let located = self.locate(asset, assets)?;
        let digests = located.digests();
        let external = located.external.into_iter();
        let external = external
            .map(|(location, blob)| Ok((location, read(asset, assets, &blob)?)))
            .collect::<Result<_, _>>()?;
        Ok(GraphSource { onnx: located.onnx, digests, external })
    }

    fn check_size(&self, asset: &AssetName, bytes: u64) -> Result<(), GraphError> {
        if bytes <= self.limit {
            return Ok(());
        }
        Err(GraphError::TooLarge { asset: asset.to_string(), bytes, limit: self.limit })
    }

    /// The graph of `asset`, loaded now if nobody holds it yet. Blocks while it loads. `rows` is what
    /// the gate found.
    ///
    /// # Errors
    /// [`GraphError`], naming the asset and, where it is that, the operator the engine lacks.
    pub fn load(
        &self,
        asset: &AssetName,
        choice: BackendChoice,
        assets: &dyn AssetSource,
        rows: Rows,
    ) -> Result<Arc<Graph>, GraphError> {
        let source = self.open(asset, assets)?;
        let load_error = |error| GraphError::Load { asset: asset.to_string(), error };
        let backend = self.backends.select(choice).map_err(load_error)?;
        let (model, external) = source.digests.clone();
        let key = GraphKey { model, external, backend };
        let slot = Arc::clone(self.lock().entry(key).or_default());
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(graph) = slot.upgrade() {
            return Ok(graph);
        }
        let graph = Arc::new(self.load_now(asset, source, backend, rows)?);
        *slot = Arc::downgrade(&graph);
        Ok(graph)
    }

    fn load_now(
        &self,
        asset: &AssetName,
        source: GraphSource,
        backend: BackendKind,
        rows: Rows,
    ) -> Result<Graph, GraphError> {
        let signature = source.onnx.signature().map_err(|error| onnx_error(asset, error))?;
        let GraphSource { onnx, external, .. } = source;
        let bounded = onnx.is_bounded();
        let resolve = |location: &AssetName| {
            external.iter().find(|(name, _)| name == location).map(|(_, bytes)| bytes.clone())
        };
        let model = onnx.resolve_external(&resolve).map_err(|error| onnx_error(asset, error))?;
        let file_bytes = model.len() as u64;
        let before = crate::engine::memory::resident_bytes();
        let loaded = self
            .backends
            .load(backend, model, &signature, &self.options)
            .map_err(|error| GraphError::Load { asset: asset.to_string(), error })?;
        // What only loading took is no part of the graph: weights that are unfolded are three times there.
        crate::engine::memory::return_free_memory();
        let grown = crate::engine::memory::resident_bytes().saturating_sub(before);
        let bytes = file_bytes.max(grown);
        let account = self.ledger.object(ObjectKind::Graph, bytes, &[]);
        Ok(Graph::new(Facts { signature, bounded, rows, bytes }, backend, loaded, account))
    }

    /// Forgets graphs that nobody holds any more and gives freed memory back to the system. Called
    /// after a version was unloaded, off the data path: it walks the allocator's arenas.
    pub fn release_unused(&self) {
        self.lock().retain(|_, slot| {
            // A slot whose lock is taken is loading; one that upgrades is held.
            slot.try_lock().map_or(true, |weak| weak.strong_count() > 0)
        });
        crate::engine::memory::return_free_memory();
    }

    /// Whether the blob of this digest is loaded, as a graph or as the external data of one.
    pub fn holds(&self, blob: &Digest) -> bool {
        let slots = self.lock();
        let mut keys =
            slots.iter().filter(|(key, _)| key.model == *blob || key.external.contains(blob));
        keys.any(|(_, slot)| slot.try_lock().is_ok_and(|graph| graph.strong_count() > 0))
    }

    /// The graphs that are loaded: how many and how many bytes.
    pub fn resident(&self) -> (usize, u64) {
        let slots: Vec<_> = self.lock().values().cloned().collect();
        slots
            .iter()
            .filter_map(|slot| slot.try_lock().ok()?.upgrade())
            .fold((0, 0), |(count, bytes), graph| (count + 1, bytes + graph.bytes))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<GraphKey, Arc<Mutex<Weak<Graph>>>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(asset: &AssetName, assets: &dyn AssetSource, blob: &BlobRef) -> Result<Bytes, GraphError> {
    assets.read(blob).map_err(|error| GraphError::Read { asset: asset.to_string(), error })
}

fn onnx_error(asset: &AssetName, error: OnnxError) -> GraphError {
    GraphError::Onnx { asset: asset.to_string(), error: Box::new(error) }
}

/// ONNX names external data relative to the file that names it.
fn beside(asset: &AssetName, location: &AssetName) -> String {
    match asset.as_str().rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{location}"),
        None => location.to_string(),
    }
}

/// Whether an asset is a graph: by its name, so that a package says so at sight.
pub fn is_graph(name: &AssetName) -> bool {
    name.as_str().ends_with(".onnx")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_data_stands_beside_the_graph_that_names_it() {
        let name = |text: &str| text.parse::<AssetName>().unwrap();
        assert_eq!(beside(&name("model.onnx"), &name("w.bin")), "w.bin");
        assert_eq!(beside(&name("a/b/model.onnx"), &name("c/w.bin")), "a/b/c/w.bin");
    }
}
