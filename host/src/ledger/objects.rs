//! Byte-seconds: how long graphs, code images and linear memories were resident, and how much of
//! that at least one lease held them.
//!
//! An object is counted once for the host. A version, and a model, counts the whole of every object
//! it refers to from the moment it does, so their rows overlap and do not add up.
//!
//! Locks: the list before an object, never the reverse.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use super::clock::Clock;
use super::held;
use super::rows::{RowId, VersionRow};
use super::totals::ByteTime;

/// What is resident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// An asset loaded into a backend: the file's size and the growth measured at load.
    Graph,
    /// A compiled component, mapped.
    CodeImage,
    /// The linear memories of one instance.
    LinearMemory,
}

/// The account of one resident object, held by whoever keeps the object in memory: its residence
/// ends when this is dropped.
#[derive(Debug)]
pub struct ObjectAccount(Arc<Object>);

/// One user of an object; while any is alive, the object's bytes count as used.
#[derive(Debug)]
pub struct ObjectLease(Arc<Object>);

#[derive(Debug)]
pub(super) struct Object {
    id: u64,
    kind: ObjectKind,
    /// Leases alive. Moves between zero and one only under `state`, since that is where used time
    /// begins and ends; between larger numbers freely, so that callers of a busy graph share no
    /// lock.
    leases: AtomicU32,
    state: Mutex<ObjectState>,
    list: Arc<ObjectList>,
}

#[derive(Debug)]
struct ObjectState {
    bytes: u64,
    /// Up to when `total` is counted.
    since_ns: u64,
    total: ByteTime,
    /// Versions that refer to it, each with its model.
    versions: Vec<(RowId, RowId)>,
    /// Rows that count it, with the total when each began to.
    referrers: Vec<(RowId, ByteTime)>,
}

/// All resident objects of a host, and what became of the others.
#[derive(Debug)]
pub(super) struct ObjectList {
    clock: Clock,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next_id: u64,
    resident: BTreeMap<u64, Arc<Object>>,
    /// Byte-time of objects that are gone, for the host.
    gone: ByteTime,
    /// The same by row, with what rows counted before they stopped to refer to an object.
    settled: BTreeMap<RowId, ByteTime>,
}

/// The byte-time of everything at one instant.
#[derive(Debug, Default)]
pub(super) struct DataReading {
    pub(super) host: ByteTime,
    pub(super) rows: BTreeMap<RowId, ByteTime>,
    pub(super) graphs: Vec<GraphReading>,
}

/// A resident graph and who refers to it.
#[derive(Debug)]
pub(super) struct GraphReading {
    pub(super) bytes: u64,
    /// Each version with its model.
    pub(super) versions: Vec<(RowId, RowId)>,
}

impl ObjectList {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, inner: Mutex::default() }
    }

    /// Begins the account of an object.
    pub(super) fn open(
        self: &Arc<Self>,
        kind: ObjectKind,
        bytes: u64,
        versions: &[Arc<VersionRow>],
    ) -> ObjectAccount {
        let mut inner = held(&self.inner);
        let state = ObjectState {
            bytes,
            since_ns: self.clock.now_ns(),
            total: ByteTime::default(),
            versions: Vec::new(),
            referrers: Vec::new(),
        };
        inner.next_id += 1;
        let object = Arc::new(Object {
            id: inner.next_id,
            kind,
            leases: AtomicU32::new(0),
            state: Mutex::new(state),
            list: self.clone(),
        });
        inner.resident.insert(object.id, object.clone());
        drop(inner);
        let account = ObjectAccount(object);
        versions.iter().for_each(|version| account.add_version(version));
        account
    }

    /// Reads every object at `now_ns`, or at its own last change where that came later.
    pub(super) fn read(&self, now_ns: u64) -> DataReading {
        // One lock for the whole reading: an object that ends meanwhile is seen either here or
        // among the settled, never in both or neither.
        let inner = held(&self.inner);
        let mut reading =
            DataReading { host: inner.gone, rows: inner.settled.clone(), graphs: Vec::new() };
        for object in inner.resident.values() {
            let state = held(&object.state);
            let total = state.total_at(now_ns, object.is_leased());
            reading.host = reading.host.plus(total);
            for (row, base) in &state.referrers {
                let counted = reading.rows.entry(*row).or_default();
                *counted = counted.plus(total.since(*base));
            }
            if object.kind == ObjectKind::Graph {
                let versions = state.versions.clone();
                reading.graphs.push(GraphReading { bytes: state.bytes, versions });
            }
        }
        reading
    }

    /// Adds what an earlier process counted.
    pub(super) fn restore(
        &self,
        host: ByteTime,
        rows: impl IntoIterator<Item = (RowId, ByteTime)>,
    ) {
        let mut inner = held(&self.inner);
        inner.gone = inner.gone.plus(host);
        for (row, data) in rows {
            inner.settle(row, data);
        }
    }

    /// Drops what was settled for a row that is gone; the host and the model keep theirs.
    pub(super) fn forget(&self, row: RowId) {
        held(&self.inner).settled.remove(&row);
    }
}

impl Inner {
    fn settle(&mut self, row: RowId, data: ByteTime) {
        let settled = self.settled.entry(row).or_default();
        *settled = settled.plus(data);
    }
}

impl ObjectAccount {
    /// Borrows the object for one call. A lease on an object that is leased already touches one
    /// atomic number and nothing else.
    pub fn lease(&self) -> ObjectLease {
        self.0.take_lease();
        ObjectLease(self.0.clone())
    }

    /// Changes the object's size from now on, in bytes.
    pub fn set_bytes(&self, bytes: u64) {
        self.0.change(|state| state.bytes = bytes);
    }

    /// The object's size now, in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// What the object is.
    pub fn kind(&self) -> ObjectKind {
        self.0.kind
    }

    /// Lets a version, and its model, count the object from now on; without effect when it does
    /// already.
    pub fn add_version(&self, version: &VersionRow) {
        let (row, model) = (version.id(), version.model_row().id());
        self.0.change(|state| {
            if !state.versions.contains(&(row, model)) {
                state.versions.push((row, model));
                state.refer(row);
                state.refer(model);
            }
        });
    }

    /// Ends that; what was counted until now stays counted.
    pub fn remove_version(&self, version: &VersionRow) {
        let (row, model) = (version.id(), version.model_row().id());
        let mut inner = held(&self.0.list.inner);
        self.0.change(|state| {
            state.versions.retain(|known| *known != (row, model));
            let model_is_left = state.versions.iter().any(|(_, left)| *left == model);
            for gone in [Some(row), (!model_is_left).then_some(model)].into_iter().flatten() {
                if let Some(data) = state.unrefer(gone) {
                    inner.settle(gone, data);
                }
            }
        });
    }

    pub(super) fn object(&self) -> Arc<Object> {
        self.0.clone()
    }
}

impl Drop for ObjectAccount {
    fn drop(&mut self) {
        let mut inner = held(&self.0.list.inner);
        let (total, referrers) = self.0.change(|state| {
            state.versions.clear();
            (state.total, std::mem::take(&mut state.referrers))
        });
        inner.resident.remove(&self.0.id);
        inner.gone = inner.gone.plus(total);
        for (row, base) in referrers {
            inner.settle(row, total.since(base));
        }
    }
}

impl Drop for ObjectLease {
    fn drop(&mut self) {
        self.0.give_lease_back();
    }
}

impl Object {
    pub(super) fn bytes(&self) -> u64 {
        held(&self.state).bytes
    }

    fn is_leased(&self) -> bool {
        self.leases.load(Ordering::Acquire) > 0
    }

    /// Counts up to now, then changes.
    fn change<T>(&self, change: impl FnOnce(&mut ObjectState) -> T) -> T {
        let mut state = held(&self.state);
        // The time is taken under the lock, so that changes are counted in their order.
        state.advance(self.list.clock.now_ns(), self.is_leased());
        change(&mut state)
    }

    fn take_lease(&self) {
        let one_more = |leases: u32| if leases > 0 { leases.checked_add(1) } else { None };
        if self.leases.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_err() {
            self.change(|_| self.leases.fetch_add(1, Ordering::AcqRel));
        }
    }

    fn give_lease_back(&self) {
        let one_less = |leases: u32| if leases > 1 { Some(leases - 1) } else { None };
        if self.leases.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_err() {
            // Another may have joined before we hold the lock; then this is no longer the last
            // lease, and counting up to now as used was right all the same.
            self.change(|_| self.leases.fetch_sub(1, Ordering::AcqRel));
        }
    }
}

impl ObjectState {
    fn total_at(&self, now_ns: u64, used: bool) -> ByteTime {
        let mut total = self.total;
        total.charge(used, self.bytes, now_ns.saturating_sub(self.since_ns));
        total
    }

    fn advance(&mut self, now_ns: u64, used: bool) {
        self.total = self.total_at(now_ns, used);
        self.since_ns = self.since_ns.max(now_ns);
    }

    fn refer(&mut self, row: RowId) {
        if !self.referrers.iter().any(|(known, _)| *known == row) {
            self.referrers.push((row, self.total));
        }
    }

    fn unrefer(&mut self, row: RowId) -> Option<ByteTime> {
        let at = self.referrers.iter().position(|(known, _)| *known == row)?;
        let (_, base) = self.referrers.swap_remove(at);
        Some(self.total.since(base))
    }
}
