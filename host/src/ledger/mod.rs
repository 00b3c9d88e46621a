//! The ledger: closed accounts of what instances, engine threads and resident objects did.
//!
//! Two accounts are closed. Every nanosecond of an instance is in exactly one bucket, and the buckets
//! sum to its lifetime. Every nanosecond of an engine thread is idle, charged to a version, or on a
//! line of its own. Beside them stand byte-seconds of resident objects and who called what. From
//! these come the three efficiencies, the bill and the waste.
//!
//! Writers are on the data path: a transition allocates nothing and takes no contended lock. Readers
//! may come at any time from any thread, and see the state in progress.
//!
//! Locks are taken in this order, and never held across a call into another part of the host:
//! windows, models, a version's instances, the list of objects, an object.

mod calls;
mod checkpoint;
mod clock;
mod efficiency;
mod engine;
mod instance;
mod objects;
mod reading;
mod rows;
mod seqlock;
mod totals;
mod windows;

#[cfg(test)]
mod tests;

pub use self::calls::{Callable, CallerReport, MAX_CALL_PAIRS};
pub use self::checkpoint::{
    CHECKPOINT_INTERVAL, CHECKPOINT_REWRITE_BYTES, CheckpointError, Extent, Restored,
};
pub use self::clock::{Clock, ManualClock};
pub use self::efficiency::{
    BillLine, EfficiencyReport, EngineReport, ModelEfficiency, Row, ThreadReport,
    VersionEfficiency, WasteLine,
};
pub use self::engine::{EngineThread, EngineTotals, EngineWork, Share, apportion};
pub use self::instance::{
    ComputeRun, ComputeStamp, InstanceAccount, InstanceReport, InstanceSnapshot,
};
pub use self::objects::{ObjectAccount, ObjectKind, ObjectLease};
pub use self::rows::{Booking, VersionRow};
pub use self::totals::{Bucket, Buckets, ByteTime, Totals};
pub use self::windows::{SAMPLE_INTERVAL, Window, WindowError};

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use self::calls::Calls;
use self::checkpoint::Saved;
use self::engine::EngineThreads;
use self::objects::ObjectList;
use self::rows::{ModelRow, RowId};
use self::windows::Windows;
use crate::digest::Digest;
use crate::names::{ModelName, VersionName};

/// All accounts of a host.
#[derive(Debug)]
pub struct Ledger {
    clock: Clock,
    /// The next number of a row or an instance.
    next_id: AtomicU64,
    models: Mutex<BTreeMap<ModelName, ModelEntry>>,
    objects: Arc<ObjectList>,
    engine: Arc<EngineThreads>,
    calls: Calls,
    /// What the last hour looked like.
    windows: Mutex<Windows>,
    /// What the last checkpoint said.
    saved: Mutex<Saved>,
}

/// A model and the versions of it that still have a row.
#[derive(Debug)]
struct ModelEntry {
    row: Arc<ModelRow>,
    versions: Vec<Arc<VersionRow>>,
}

impl Ledger {
    /// An empty ledger whose lifetime begins now.
    pub fn new(clock: Clock) -> Self {
        let ledger = Self {
            next_id: AtomicU64::new(1),
            models: Mutex::default(),
            objects: Arc::new(ObjectList::new(clock.clone())),
            engine: Arc::new(EngineThreads::new(clock.clone())),
            calls: Calls::default(),
            windows: Mutex::default(),
            saved: Mutex::default(),
            clock,
        };
        ledger.begin_windows();
        ledger
    }

    /// The clock all accounts are kept by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The row of a version: the same one while anybody refers to it. After that, and an hour
    /// without activity, its totals go over to its model's and the row is dropped.
    pub fn version(
        &self,
        model: &ModelName,
        version: &VersionName,
        digest: Digest,
    ) -> Arc<VersionRow> {
        let mut models = held(&self.models);
        let entry = self.model_entry(&mut models, model);
        let known = entry.versions.iter().find(|row| {
            // A version may be deleted and its name given to another while calls still run.
            row.version() == version && row.digest() == digest
        });
        if let Some(row) = known {
            return row.clone();
        }
        let row = VersionRow::new(self.row_id(), entry.row.clone(), version.clone(), digest);
        let row = Arc::new(row);
        entry.versions.push(row.clone());
        row
    }

    /// Begins the account of an instance, in the bucket `cold`: call it before the store is created,
    /// and drop the account after the store.
    pub fn instance(&self, version: &Arc<VersionRow>) -> InstanceAccount {
        let memory = self.object(ObjectKind::LinearMemory, 0, std::slice::from_ref(version));
        InstanceAccount::open(self.unique(), &self.clock, version, memory)
    }

    /// Begins the account of a resident object of `bytes`, which `versions` refer to. Instances have
    /// the account of their linear memory already.
    pub fn object(
        &self,
        kind: ObjectKind,
        bytes: u64,
        versions: &[Arc<VersionRow>],
    ) -> ObjectAccount {
        self.objects.open(kind, bytes, versions)
    }

    /// Begins the account of a compute thread, idle.
    pub fn engine_thread(&self, name: &str) -> EngineThread {
        self.engine.open(name)
    }

    /// Counts a call by a tenant.
    pub fn called(&self, tenant: &str, model: &ModelName) {
        self.calls.called(tenant, model, self.clock.now_ns());
    }

    /// Who called what in the life of this process, by model and tenant.
    pub fn callers(&self) -> Vec<CallerReport> {
        self.calls.report(self.clock.now_ns())
    }

    /// Every live instance, by model, version and age.
    pub fn instances(&self) -> Vec<InstanceReport> {
        let now_ns = self.clock.now_ns();
        let rows: Vec<_> =
            held(&self.models).values().flat_map(|model| model.versions.clone()).collect();
        let mut lines: Vec<InstanceReport> = rows
            .iter()
            .flat_map(|version| {
                let report = |row: Arc<instance::InstanceRow>| row.report(version, now_ns);
                version.instances().into_iter().filter_map(report)
            })
            .collect();
        lines.sort_by(|a, b| (&a.model, &a.version, a.id).cmp(&(&b.model, &b.version, b.id)));
        lines
    }

    fn model_entry<'a>(
        &self,
        models: &'a mut BTreeMap<ModelName, ModelEntry>,
        name: &ModelName,
    ) -> &'a mut ModelEntry {
        models.entry(name.clone()).or_insert_with(|| ModelEntry {
            row: Arc::new(ModelRow::new(self.row_id(), name.clone())),
            versions: Vec::new(),
        })
    }

    fn row_id(&self) -> RowId {
        RowId(self.unique())
    }

    fn unique(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

/// Locks, also after a panic of another holder: every change under these locks is complete by itself,
/// and a host that can no longer count should still serve.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn looked_at<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn written<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
