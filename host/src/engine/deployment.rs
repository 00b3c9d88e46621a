//! Versions made ready to serve: compiled, linked, their graphs loaded, with a pool in front.
//!
//! A version is loaded at its first call (or when it is published), once however many calls want it,
//! and unloaded when it is no longer in the registry's snapshot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::Engine;
use super::call::{self, DescribeError};
use super::compile::{CompileError, Compiled, Compiler};
use super::instance::{Prepared, Starter};
use super::pace::Pace;
use super::pool::Pool;
use super::state::VersionContext;
use crate::config::{GuestSettings, KeyValues};
use crate::digest::Digest;
use crate::ledger::{Booking, Ledger, ObjectKind};
use crate::names::{AssetName, ModelName, VersionName};
use crate::nn::backend::BackendKind;
use crate::nn::compute::Compute;
use crate::nn::graph::{AssetSource, Graph, GraphError, GraphStore, is_graph};
use crate::registry::{BlobStore, Snapshot, Version};
use crate::version::{BackendChoice, BlobRef, PoolPolicy, Signature, VersionRecord};

/// Everything a version is made of but its signature, which is found out by loading it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The model it is a version of.
    pub model: ModelName,
    /// Its name.
    pub version: VersionName,
    /// Its component.
    pub component: BlobRef,
    /// Its assets.
    pub assets: std::collections::BTreeMap<AssetName, BlobRef>,
    /// Which engine its graphs run on.
    pub backend: BackendChoice,
    /// The operator's key/values.
    pub config: KeyValues,
    /// How its instances are pooled.
    pub pool: PoolPolicy,
}

impl Candidate {
    /// What tells it apart from others of the same name in the ledger, before its signature is known.
    fn identity(&self) -> Digest {
        self.record(Signature::default()).digest()
    }

    /// The record of this version, once its signature is known.
    pub fn record(&self, signature: Signature) -> VersionRecord {
        VersionRecord {
            component: self.component,
            assets: self.assets.clone(),
            signature,
            backend: self.backend,
            config: self.config.clone(),
            pool: self.pool.clone(),
        }
    }
}

impl From<&Version> for Candidate {
    fn from(version: &Version) -> Self {
        let record = &version.record;
        Self {
            model: version.model.clone(),
            version: version.name.clone(),
            component: record.component,
            assets: record.assets.clone(),
            backend: record.backend,
            config: record.config.clone(),
            pool: record.pool.clone(),
        }
    }
}

/// Why a version cannot be made ready.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum LoadError {
    #[error("{0}")]
    Component(Arc<CompileError>),
    #[error("the component does not fit the host: {0}")]
    Link(String),
    #[error("{0}")]
    Graph(Arc<GraphError>),
    #[error("{0}")]
    Describe(Arc<DescribeError>),
    #[error("loading the version was interrupted")]
    Interrupted,
}

impl LoadError {
    /// Whether the package itself is at fault, so that publishing it again as it is cannot help.
    pub fn is_the_packages(&self) -> bool {
        match self {
            Self::Component(error) => !matches!(
                **error,
                CompileError::Worker(_) | CompileError::Store(_) | CompileError::Load(_)
            ),
            Self::Graph(error) => !matches!(**error, GraphError::Read { .. }),
            Self::Link(_) | Self::Describe(_) => true,
            Self::Interrupted => false,
        }
    }
}

/// A version that is ready to serve.
pub struct Deployment {
    pool: Arc<Pool>,
    pace: Pace,
    backend: Option<BackendKind>,
}

impl Deployment {
    /// Its instances.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// How long its calls take.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// The engine its graphs run on; none if it has no graph.
    pub fn backend(&self) -> Option<BackendKind> {
        self.backend
    }

    /// Asks the component what it takes and gives.
    ///
    /// # Errors
    /// [`LoadError::Describe`].
    pub async fn describe(&self) -> Result<Signature, LoadError> {
        call::describe(self.pool.starter())
            .await
            .map_err(|error| LoadError::Describe(Arc::new(error)))
    }

    /// Starts the instances that are kept even when idle.
    ///
    /// # Errors
    /// [`LoadError::Describe`] with the reason why one did not start.
    pub async fn fill(&self) -> Result<(), LoadError> {
        self.pool
            .fill()
            .await
            .map_err(|error| LoadError::Describe(Arc::new(DescribeError::Start(error))))
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let starter = self.pool.starter();
        for graph in starter.context.graphs.values() {
            graph.account().remove_version(&starter.row);
        }
        // Leases hold the pool, not the deployment: they run on, and keep nothing after.
        self.pool.retire();
    }
}

/// What a deployment is known by: the same name may come back with other bytes after a delete.
type Key = (ModelName, VersionName, Digest);
type Slot = Arc<OnceCell<Arc<Deployment>>>;

/// The versions that are ready, and what it takes to make more of them ready.
pub struct Deployments {
    engine: Arc<Engine>,
    compiler: Compiler,
    graphs: Arc<GraphStore>,
    blobs: Arc<dyn BlobStore>,
    compute: Compute,
    ledger: Arc<Ledger>,
    guest: GuestSettings,
    /// `limits.queue_length`, for every pool.
    queue_length: u32,
    /// Read by every request, without a lock.
    ready: ArcSwap<HashMap<Key, Slot>>,
    /// Held by whoever changes `ready`.
    changing: Mutex<()>,
}

/// What [`Deployments`] is made from.
#[allow(missing_docs, reason = "the fields are those of Deployments, documented there")]
pub struct Parts {
    pub engine: Arc<Engine>,
    pub compiler: Compiler,
    pub graphs: Arc<GraphStore>,
    pub blobs: Arc<dyn BlobStore>,
    pub compute: Compute,
    pub ledger: Arc<Ledger>,
    pub guest: GuestSettings,
    pub queue_length: u32,
}

impl Deployments {
    /// None ready yet.
    pub fn new(parts: Parts) -> Self {
        let Parts { engine, compiler, graphs, blobs, compute, ledger, guest, queue_length } = parts;
        Self {
            engine,
            compiler,
            graphs,
            blobs,
            compute,
            ledger,
            guest,
            queue_length,
            ready: ArcSwap::default(),
            changing: Mutex::default(),
        }
    }

    /// The graphs of the host.
    pub fn graphs(&self) -> &Arc<GraphStore> {
        &self.graphs
    }

    /// The deployment of a version, if it is ready.
    pub fn find(&self, version: &Version) -> Option<Arc<Deployment>> {
        self.ready.load().get(&key(version))?.get().cloned()
    }

    /// The deployment of a version, made ready now if it is not. Calls that want the same one wait for
    /// the first of them.
    ///
    /// # Errors
    /// [`LoadError`]; the next call tries again.
    pub async fn get(&self, version: &Version) -> Result<Arc<Deployment>, LoadError> {
        if let Some(ready) = self.find(version) {
            return Ok(ready);
        }
        let slot = self.slot(key(version));
        slot.get_or_try_init(|| async {
            let deployment = self.load(&Candidate::from(version)).await?;
            deployment.fill().await?;
            Ok(Arc::new(deployment))
        })
        .await
        .cloned()
    }

    /// Takes in a deployment that was made ready to be published.
    pub fn adopt(&self, version: &Version, deployment: Deployment) {
        // Somebody may have called the version already: then theirs serves, and this one goes.
        let _ = self.slot(key(version)).set(Arc::new(deployment));
    }

    /// Makes a version ready that may not be published yet.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(&self, candidate: &Candidate) -> Result<Deployment, LoadError> {
        let source = self.blobs.path(&candidate.component.digest);
        let Compiled { component, booking, took } = self
            .compiler
            .load(&candidate.component.digest, &source)
            .await
            .map_err(|error| LoadError::Component(Arc::new(error)))?;
        let prepared = Prepared::new(&self.engine, &component)
            .map_err(|error| LoadError::Link(format!("{error:#}")))?;
        let loading = Instant::now();
        let graphs = self.load_graphs(candidate).await?;
        let backend = graphs.values().next().map(|graph| graph.backend());
        let row = self.ledger.version(&candidate.model, &candidate.version, candidate.identity());
        row.book(booking, nanoseconds(took));
        row.book(Booking::GraphLoad, nanoseconds(loading.elapsed()));
        let image = component.image_range();
        let code_bytes = image.end.addr().saturating_sub(image.start.addr()) as u64;
        let code =
            self.ledger.object(ObjectKind::CodeImage, code_bytes, std::slice::from_ref(&row));
        let context = Arc::new(VersionContext {
            model: candidate.model.clone(),
            version: candidate.version.clone(),
            graphs,
            assets: candidate.assets.clone(),
            blobs: Arc::clone(&self.blobs),
            config: candidate.config.clone(),
        });
        for graph in context.graphs.values() {
            graph.account().add_version(&row);
        }
        let starter = Starter {
            prepared,
            engine: Arc::clone(&self.engine),
            row,
            context,
            compute: self.compute.clone(),
            ledger: Arc::clone(&self.ledger),
            settings: self.guest.clone(),
        };
        let pool = Pool::new(candidate.pool.clone(), starter, code, self.queue_length);
        Ok(Deployment { pool: Arc::new(pool), pace: Pace::default(), backend })
    }

    async fn load_graphs(
        &self,
        candidate: &Candidate,
    ) -> Result<std::collections::BTreeMap<AssetName, Arc<Graph>>, LoadError> {
        let store = Arc::clone(&self.graphs);
        let assets = Assets { assets: candidate.assets.clone(), blobs: Arc::clone(&self.blobs) };
        let choice = candidate.backend;
        // Loading reads files and takes a core for as long as the graph is large.
        tokio::task::spawn_blocking(move || {
            let names = assets.assets.keys().filter(|name| is_graph(name));
            names
                .map(|name| Ok((name.clone(), store.load(name, choice, &assets)?)))
                .collect::<Result<_, GraphError>>()
        })
        .await
        .map_err(|_| LoadError::Interrupted)?
        .map_err(|error| LoadError::Graph(Arc::new(error)))
    }

    fn slot(&self, key: Key) -> Slot {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = self.ready.load();
        if let Some(slot) = ready.get(&key) {
            return Arc::clone(slot);
        }
        let mut changed = HashMap::clone(&ready);
        let slot = Slot::default();
        changed.insert(key, Arc::clone(&slot));
        self.ready.store(Arc::new(changed));
        slot
    }

    /// Unloads what is no longer in the snapshot, and gives its memory back. Blocks for some
    /// milliseconds; leases that are out keep their instance, graph and code until they end.
    pub fn retain(&self, snapshot: &Snapshot) {
        let dropped: Vec<_> = {
            let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            let ready = self.ready.load();
            let (kept, dropped): (HashMap<_, _>, HashMap<_, _>) =
                HashMap::clone(&ready).into_iter().partition(|((model, version, digest), _)| {
                    let found = snapshot.get(model).and_then(|model| model.versions.get(version));
                    found.is_some_and(|found| found.digest == *digest)
                });
            if dropped.is_empty() {
                return;
            }
            self.ready.store(Arc::new(kept));
            dropped.into_values().collect()
        };
        drop(dropped);
        self.graphs.release_unused();
    }

    /// Drops instances that have been idle too long.
    pub fn reap(&self) {
        for deployment in self.all() {
            deployment.pool.reap();
        }
    }

    /// Everything that is ready now.
    pub fn all(&self) -> Vec<Arc<Deployment>> {
        self.ready.load().values().filter_map(|slot| slot.get().cloned()).collect()
    }

    /// Retires every pool: for the end of a drain.
    pub fn retire_all(&self) {
        for deployment in self.all() {
            deployment.pool.retire();
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn key(version: &Version) -> Key {
    (version.model.clone(), version.name.clone(), version.digest)
}

/// A version's assets, read from the blob store.
struct Assets {
    assets: std::collections::BTreeMap<AssetName, BlobRef>,
    blobs: Arc<dyn BlobStore>,
}

impl AssetSource for Assets {
    fn find(&self, name: &str) -> Option<BlobRef> {
        self.assets.get(name).copied()
    }

    fn read(&self, blob: &BlobRef) -> std::io::Result<Bytes> {
        self.blobs.read(&blob.digest).map(Bytes::from).map_err(std::io::Error::other)
    }
}
