//! The rows of versions and models: what their instances, jobs and bookings added up to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::held;
use super::instance::{InstanceRow, InstanceSnapshot};
use super::totals::{ByteTime, Totals};
use crate::digest::Digest;
use crate::names::{ModelName, VersionName};

/// Tells rows apart for the life of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RowId(pub(super) u64);

/// Work that is done once for a version, not per call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Booking {
    /// Compiling its component.
    Compile,
    /// Loading its compiled component.
    Deserialize,
    /// Loading one of its graphs into a backend.
    GraphLoad,
}

/// The row of a model: what is left of it beside its versions' rows.
#[derive(Debug)]
pub(super) struct ModelRow {
    id: RowId,
    name: ModelName,
    /// Totals of versions whose rows are gone, and of earlier processes; without data, which the
    /// list of objects keeps.
    retired: Mutex<Totals>,
}

/// The row of a version; it lives as long as someone refers to it.
#[derive(Debug)]
pub struct VersionRow {
    id: RowId,
    model: Arc<ModelRow>,
    version: VersionName,
    digest: Digest,
    instances: Mutex<Instances>,
    engine_ns: AtomicU64,
    inline_ns: AtomicU64,
    compile_ns: AtomicU64,
    deserialize_ns: AtomicU64,
    graph_load_ns: AtomicU64,
}

/// The instances of a version: one lock, so that a reader sees each either alive or folded in.
#[derive(Debug, Default)]
struct Instances {
    live: BTreeMap<u64, Arc<InstanceRow>>,
    /// Buckets and calls of instances that are gone.
    closed: Totals,
}

impl ModelRow {
    pub(super) fn new(id: RowId, name: ModelName) -> Self {
        Self { id, name, retired: Mutex::default() }
    }

    pub(super) fn id(&self) -> RowId {
        self.id
    }

    pub(super) fn name(&self) -> &ModelName {
        &self.name
    }

    pub(super) fn retired(&self) -> Totals {
        *held(&self.retired)
    }

    pub(super) fn retire(&self, totals: Totals) {
        let mut retired = held(&self.retired);
        *retired = retired.plus(Totals { data: ByteTime::default(), ..totals });
    }
}

impl VersionRow {
    pub(super) fn new(
        id: RowId,
        model: Arc<ModelRow>,
        version: VersionName,
        digest: Digest,
    ) -> Self {
        Self {
            id,
            model,
            version,
            digest,
            instances: Mutex::default(),
            engine_ns: AtomicU64::new(0),
            inline_ns: AtomicU64::new(0),
            compile_ns: AtomicU64::new(0),
            deserialize_ns: AtomicU64::new(0),
            graph_load_ns: AtomicU64::new(0),
        }
    }

    /// The model it is a version of.
    pub fn model(&self) -> &ModelName {
        self.model.name()
    }

    /// The version's name.
    pub fn version(&self) -> &VersionName {
        &self.version
    }

    /// The version's digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Books work done once for this version, in nanoseconds.
    pub fn book(&self, booking: Booking, ns: u64) {
        let line = match booking {
            Booking::Compile => &self.compile_ns,
            Booking::Deserialize => &self.deserialize_ns,
            Booking::GraphLoad => &self.graph_load_ns,
        };
        line.fetch_add(ns, Ordering::Relaxed);
    }

    pub(super) fn id(&self) -> RowId {
        self.id
    }

    pub(super) fn model_row(&self) -> &ModelRow {
        &self.model
    }

    /// Charges time of an engine thread.
    pub(super) fn charge_engine(&self, ns: u64) {
        self.engine_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Charges engine time that was spent on the caller's thread.
    pub(super) fn charge_inline(&self, ns: u64) {
        self.charge_engine(ns);
        self.inline_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub(super) fn open(&self, row: Arc<InstanceRow>) {
        held(&self.instances).live.insert(row.id(), row);
    }

    /// Folds an instance that is gone into the version, once: only an instance that is still listed
    /// is folded.
    pub(super) fn close(&self, id: u64) {
        let mut instances = held(&self.instances);
        if let Some(row) = instances.live.remove(&id) {
            // A closed row is the same at any time.
            let last = row.snapshot(0);
            let last = Totals { buckets: last.buckets, calls: last.uses, ..Totals::default() };
            instances.closed = instances.closed.plus(last);
        }
    }

    /// Everything but data at `now_ns`, and how many instances are alive.
    pub(super) fn totals(&self, now_ns: u64) -> (Totals, u64) {
        let instances = held(&self.instances);
        let live = instances.live.values().fold(Totals::default(), |sum, row| {
            let InstanceSnapshot { buckets, uses: calls, .. } = row.snapshot(now_ns);
            sum.plus(Totals { buckets, calls, ..Totals::default() })
        });
        let booked = Totals {
            engine_ns: self.engine_ns.load(Ordering::Relaxed),
            inline_ns: self.inline_ns.load(Ordering::Relaxed),
            compile_ns: self.compile_ns.load(Ordering::Relaxed),
            deserialize_ns: self.deserialize_ns.load(Ordering::Relaxed),
            graph_load_ns: self.graph_load_ns.load(Ordering::Relaxed),
            ..Totals::default()
        };
        let alive = u64::try_from(instances.live.len()).unwrap_or(u64::MAX);
        (instances.closed.plus(live).plus(booked), alive)
    }

    /// Every live instance, in the order they were made.
    pub(super) fn instances(&self) -> Vec<Arc<InstanceRow>> {
        held(&self.instances).live.values().cloned().collect()
    }
}
