//! Versions made ready to serve: compiled, linked, their graphs loaded, with a pool in front.
//!
//! A version is loaded at its first call (or when it is published), once however many calls want it,
//! and unloaded when it is no longer in the registry's snapshot.

mod graphs;
mod load_error;
mod room;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::OnceCell;
use wasmtime::component::Component;

use super::background::Background;
use super::budget::{Budget, Slots};
use super::call::{self, Call, CallError, Called, DescribeError};
use super::compile::{Compiled, Compiler};
use super::handle::Handling;
use super::http::Outgoing;
use super::instance::{Prepared, Starter};
use super::pace::Pace;
use super::pool::Pool;
use super::state::VersionContext;
use super::{Engine, gate, world};
use crate::config::{GuestSettings, KeyValues};
use crate::digest::Digest;
use crate::ledger::{Booking, Ledger, ObjectKind};
use crate::names::{AssetName, ModelName, VersionName};
use crate::nn::backend::BackendKind;
use crate::nn::compute::Compute;
use crate::nn::gate::GraphGate;
use crate::nn::graph::{Graph, GraphStore};
use crate::registry::{BlobStore, Snapshot, Version};
use crate::tensor::total_bytes;
use crate::version::{BackendChoice, BlobRef, PoolPolicy, Signature, VersionRecord};

pub use self::load_error::LoadError;

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

/// A version that is ready to serve.
pub struct Deployment {
    pool: Arc<Pool>,
    pace: Pace,
    backend: Option<BackendKind>,
    /// When it was last asked for, in milliseconds of the host's life.
    last_used_ms: AtomicU64,
    /// What its publisher should know and what does not keep it from serving.
    warnings: Vec<String>,
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

    /// What its publisher should know and what does not keep it from serving.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether its model answers HTTP itself, in place of calls with tensors.
    pub fn serves_http(&self) -> bool {
        matches!(self.pool.starter().prepared, Prepared::Http(_))
    }

    /// Has a request answered by the guest itself, in the background where it is long.
    pub async fn handle(&self, mut handling: Handling, background: &Background) -> Called {
        let turns = handling.lease.instance().turns.clone();
        // How long it takes says more of its caller than of the model.
        background.finish(handling.run(), &turns, false).await
    }

    /// Has a call answered, in the background where it is long, and learns from how long it took.
    pub async fn answer(&self, mut call: Call, background: &Background) -> Called {
        let turns = call.lease.instance().turns.clone();
        let known_long = background.is_long(self.pool.guest_cost(), total_bytes(&call.inputs));
        let begun = Instant::now();
        let answer = background.finish(call.run(), &turns, known_long).await;
        let was_cut = answer.outcome == Err(CallError::Deadline);
        self.pace.record(begun.elapsed(), was_cut, self.pool.waiting(), Instant::now().into());
        answer
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

    /// Its graphs, by the names of their assets.
    pub fn named_graphs(&self) -> impl Iterator<Item = (&AssetName, &Arc<Graph>)> {
        self.pool.starter().context.graphs.iter()
    }

    /// Its graphs.
    pub fn graphs(&self) -> impl Iterator<Item = &Arc<Graph>> {
        self.pool.starter().context.graphs.values()
    }

    /// Whether all its graphs may be run.
    ///
    /// # Errors
    /// [`LoadError::Quarantined`] with the reason of the first that may not.
    pub fn check_quarantine(&self) -> Result<(), LoadError> {
        match self.graphs().find_map(|graph| graph.quarantined()) {
            Some(reason) => Err(LoadError::Quarantined(reason)),
            None => Ok(()),
        }
    }

    /// Ends the quarantine of its graphs; `false` while runs of one still hang, which more would join.
    pub fn release_quarantine(&self) -> bool {
        // Every graph is asked, whatever the others answer.
        self.graphs().filter(|graph| !graph.release()).count() == 0
    }

    /// What is promised to it: its minimum of instances.
    fn minimum(&self) -> Slots {
        self.pool.starter().slots.times(self.pool.policy().min_instances)
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
    /// Passed by every graph before it is loaded.
    gate: GraphGate,
    blobs: Arc<dyn BlobStore>,
    compute: Compute,
    ledger: Arc<Ledger>,
    guest: GuestSettings,
    /// What guests may reach by HTTP.
    outgoing: Arc<Outgoing>,
    /// What all instances of the host may take together.
    budget: Arc<Budget>,
    /// Bytes of graphs that are being loaded: they count as resident, or two loads at once would count
    /// on the same room.
    loading_bytes: Mutex<u64>,
    /// `limits.queue_length`, for every pool.
    queue_length: u32,
    /// The beginning of the host's life.
    started: Instant,
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
    pub gate: GraphGate,
    pub blobs: Arc<dyn BlobStore>,
    pub compute: Compute,
    pub ledger: Arc<Ledger>,
    pub guest: GuestSettings,
    pub budget: Arc<Budget>,
    pub queue_length: u32,
    pub outgoing: Arc<Outgoing>,
}

impl Deployments {
    /// None ready yet.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            engine,
            compiler,
            graphs,
            gate,
            blobs,
            compute,
            ledger,
            guest,
            budget,
            queue_length,
            outgoing,
        } = parts;
        Self {
            engine,
            compiler,
            graphs,
            gate,
            blobs,
            compute,
            ledger,
            outgoing,
            guest,
            budget,
            loading_bytes: Mutex::default(),
            queue_length,
            started: Instant::now(),
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

    /// What all instances of the host may take together, and do.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The deployment of a version, made ready now if it is not. Calls that want the same one wait for
    /// the first of them; loading goes on when they have left.
    ///
    /// # Errors
    /// [`LoadError`]; the next call tries again.
    pub async fn get(
        self: &Arc<Self>,
        version: &Arc<Version>,
        deadline: tokio::time::Instant,
    ) -> Result<Arc<Deployment>, LoadError> {
        let ready = match self.find(version) {
            Some(ready) => ready,
            None => {
                let (deployments, version) = (Arc::clone(self), Arc::clone(version));
                let loading = tokio::spawn(async move { deployments.make_ready(&version).await });
                tokio::time::timeout_at(deadline, loading)
                    .await
                    .map_err(|_| LoadError::StillLoading)?
                    .map_err(|_| LoadError::Interrupted)??
            }
        };
        ready.last_used_ms.store(self.now_ms(), Ordering::Relaxed);
        Ok(ready)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn make_ready(&self, version: &Version) -> Result<Arc<Deployment>, LoadError> {
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
        check_room(&component, &self.guest)?;
        let slots = self.slots(candidate, &component).await?;
        let prepared = match Prepared::new(&self.engine, &component) {
            Ok(prepared) => prepared,
            Err(error) => return Err(wrong_types(source, format!("{error:#}")).await),
        };
        let trials = self.check_graphs(candidate).await?;
        let warnings = graphs::warnings(&trials);
        let loading = Instant::now();
        let graphs = self.load_graphs(candidate, trials).await?;
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
            outgoing: Arc::clone(&self.outgoing),
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
            budget: Arc::clone(&self.budget),
            slots,
            max_reuse: candidate.pool.max_instance_reuse_count,
        };
        let pool = Pool::new(candidate.pool.clone(), starter, code, self.queue_length);
        let last_used_ms = AtomicU64::new(self.now_ms());
        Ok(Deployment { pool, pace: Pace::default(), backend, last_used_ms, warnings })
    }

    /// What one instance of a candidate takes of the host.
    async fn slots(
        &self,
        candidate: &Candidate,
        component: &Component,
    ) -> Result<Slots, LoadError> {
        let (blobs, digest) = (Arc::clone(&self.blobs), candidate.component.digest);
        let component = component.clone();
        tokio::task::spawn_blocking(move || {
            let bytes = blobs.read(&digest).map_err(|error| LoadError::Blob(error.to_string()))?;
            Slots::of_component(&component, &bytes)
                .map_err(|problem| LoadError::Room(problem.to_owned()))
        })
        .await
        .map_err(|_| LoadError::Interrupted)?
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

    /// Drops instances that have been idle too long, and starts those that are promised and were lost.
    pub async fn tend(&self) {
        for deployment in self.all() {
            deployment.pool.reap();
            if let Err(error) = deployment.fill().await {
                let context = &deployment.pool.starter().context;
                let (model, version) = (&context.model, &context.version);
                tracing::warn!(%model, %version, %error, "fewer instances than min_instances");
            }
        }
    }

    /// How many versions are quarantined.
    pub fn quarantined(&self) -> usize {
        self.all().iter().filter(|deployment| deployment.check_quarantine().is_err()).count()
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

/// Bytes of a page of WebAssembly memory.
const WASM_PAGE_BYTES: u64 = 64 << 10;

/// Refuses a component whose instances could not even begin within what a guest may use.
fn check_room(component: &Component, guest: &GuestSettings) -> Result<(), LoadError> {
    // Components that are given modules from outside say nothing; no host gives any.
    let Some(needed) = component.resources_required() else { return Ok(()) };
    let bytes = needed.max_initial_memory_size.unwrap_or(0).saturating_mul(WASM_PAGE_BYTES);
    if bytes > guest.memory_bytes {
        let limit = guest.memory_bytes;
        return Err(LoadError::Room(format!(
            "it begins with a memory of {bytes} bytes, over the limit of {limit} (guest.memory_bytes)"
        )));
    }
    let elements = needed.max_initial_table_size.unwrap_or(0);
    if elements > guest.table_elements {
        let limit = guest.table_elements;
        return Err(LoadError::Room(format!(
            "it begins with a table of {elements} elements, over the limit of {limit} \
             (guest.table_elements)"
        )));
    }
    Ok(())
}

/// The error of a component whose imports or exports have other types than its world's: the first of
/// them by name, or what wasmtime says where that is not the matter.
async fn wrong_types(source: std::path::PathBuf, words: String) -> LoadError {
    let explained = tokio::task::spawn_blocking(move || {
        let bytes = std::fs::read(source).ok()?;
        let world = gate::examine(&bytes, u64::MAX).ok()?.world;
        world::explain(&bytes, world)
    });
    LoadError::Link(explained.await.ok().flatten().unwrap_or(words))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn key(version: &Version) -> Key {
    (version.model.clone(), version.name.clone(), version.digest)
}
