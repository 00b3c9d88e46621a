//! The account of an instance: from store creation to store drop, one bucket at a time.
//!
//! The holder of the lease writes it. While the instance waits, the engine thread that runs its job
//! marks the job's beginning and end in the same row, so that a reader sees a job under way as
//! compute, and no bucket ever goes back. (Stamps handed back afterwards could not give that: the
//! time between a stamp and its settling would move from one bucket to another.) What is counted is
//! the part of the job in which the instance was waiting: the buckets stay disjoint whatever the
//! engine does.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::clock::Clock;
use super::objects::{Object, ObjectAccount, ObjectLease};
use super::rows::VersionRow;
use super::seqlock::SeqLock;
use super::totals::{Bucket, Buckets};
use crate::names::{ModelName, VersionName};

/// The writer's end of an instance's row; dropping it closes the row and folds it into the version.
#[derive(Debug)]
pub struct InstanceAccount {
    row: Arc<InstanceRow>,
    version: Arc<VersionRow>,
    /// The instance's linear memories, counted as used while the instance is leased.
    memory: ObjectAccount,
    memory_lease: Option<ObjectLease>,
}

/// What an engine thread needs to mark the jobs of one instance.
#[derive(Debug, Clone)]
pub struct ComputeStamp(Arc<InstanceRow>);

/// A job under way; it ends when this is dropped, also by a panic.
#[derive(Debug)]
pub struct ComputeRun(Arc<InstanceRow>);

/// An instance's account at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceSnapshot {
    /// When the account was read, or closed, on the ledger's clock.
    pub at_ns: u64,
    /// When the store was created, on the ledger's clock.
    pub created_ns: u64,
    /// The bucket it is in; none once it is closed.
    pub state: Option<Bucket>,
    /// Time by bucket, the state in progress included: they sum to `at_ns - created_ns`.
    pub buckets: Buckets,
    /// Leases so far.
    pub uses: u64,
}

/// One line of `GET /api/v1/instances`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceReport {
    /// Unique in this process.
    pub id: u64,
    /// The model it serves.
    pub model: ModelName,
    /// The version it belongs to.
    pub version: VersionName,
    /// What it is doing.
    pub state: Bucket,
    /// Leases so far.
    pub uses: u64,
    /// Bytes of its linear memories.
    pub memory_bytes: u64,
    /// Age, the sum of the buckets.
    pub lifetime_ns: u64,
    /// Time by bucket.
    pub buckets_ns: Buckets,
}

#[derive(Debug)]
pub(super) struct InstanceRow {
    id: u64,
    clock: Clock,
    created_ns: u64,
    words: SeqLock<WORDS>,
    memory: Arc<Object>,
}

/// What the words of a row mean.
#[derive(Debug, Clone, Copy)]
struct State {
    buckets: Buckets,
    /// Up to when `buckets` are counted.
    since_ns: u64,
    /// The bucket the holder is in; none once the row is closed.
    bucket: Option<Bucket>,
    /// Jobs under way, at most one unless an engine thread was given up on.
    jobs: u64,
    uses: u64,
}

const WORDS: usize = 10;

impl InstanceAccount {
    /// Begins an account in the bucket `cold`.
    pub(super) fn open(
        id: u64,
        clock: &Clock,
        version: &Arc<VersionRow>,
        memory: ObjectAccount,
    ) -> Self {
        let created_ns = clock.now_ns();
        let state = State {
            buckets: Buckets::default(),
            since_ns: created_ns,
            bucket: Some(Bucket::Cold),
            jobs: 0,
            uses: 0,
        };
        let row = Arc::new(InstanceRow {
            id,
            clock: clock.clone(),
            created_ns,
            words: SeqLock::new(state.to_words()),
            memory: memory.object(),
        });
        version.open(row.clone());
        Self { row, version: version.clone(), memory, memory_lease: None }
    }

    /// The instance's number, unique in this process.
    pub fn id(&self) -> u64 {
        self.row.id
    }

    /// The version it belongs to.
    pub fn version(&self) -> &Arc<VersionRow> {
        &self.version
    }

    /// Goes over to another bucket. The wrapper that polls a call enters `Guest` before each poll
    /// and `Wait` after it.
    pub fn enter(&mut self, bucket: Bucket) {
        self.row.update(|state| state.bucket = Some(bucket));
    }

    /// A call takes the instance: counts a use, holds its memory, and enters `Wait`.
    pub fn lease(&mut self) {
        self.memory_lease.get_or_insert_with(|| self.memory.lease());
        self.row.update(|state| {
            state.uses += 1;
            state.bucket = Some(Bucket::Wait);
        });
    }

    /// The call gives it back to the pool: enters `Idle`.
    pub fn release(&mut self) {
        self.enter(Bucket::Idle);
        self.memory_lease = None;
    }

    /// Runs a short job on this thread: `Compute` while it runs, `Wait` after it, and its time is
    /// charged to the version as engine time. Also says how long it took.
    pub fn compute_inline<T>(&mut self, job: impl FnOnce() -> T) -> (T, Duration) {
        let begun_ns = self.row.update(|state| {
            state.bucket = Some(Bucket::Compute);
            state.since_ns
        });
        let answer = job();
        let ended_ns = self.row.update(|state| {
            state.bucket = Some(Bucket::Wait);
            state.since_ns
        });
        let took_ns = ended_ns.saturating_sub(begun_ns);
        self.version.charge_inline(took_ns);
        (answer, Duration::from_nanos(took_ns))
    }

    /// For the engine thread that will run this instance's jobs. A lease that ends while a job is
    /// still running must not go back to the pool: the next caller's waiting would count as compute.
    pub fn compute_stamp(&self) -> ComputeStamp {
        ComputeStamp(self.row.clone())
    }

    /// Tells how large the instance's linear memories are now, in bytes.
    pub fn set_memory_bytes(&self, bytes: u64) {
        self.memory.set_bytes(bytes);
    }

    /// The account now; a request's own figures are the difference of two of these.
    pub fn snapshot(&self) -> InstanceSnapshot {
        self.row.snapshot(self.row.clock.now_ns())
    }
}

impl Drop for InstanceAccount {
    fn drop(&mut self) {
        self.row.update(|state| state.bucket = None);
        self.version.close(self.row.id);
    }
}

impl ComputeStamp {
    /// Marks the beginning of a job, on the thread that runs it.
    pub fn start(&self) -> ComputeRun {
        self.0.update(|state| state.jobs += 1);
        ComputeRun(self.0.clone())
    }

    /// The instance's account now, for those who do not hold the lease.
    pub fn snapshot(&self) -> InstanceSnapshot {
        self.0.snapshot(self.0.clock.now_ns())
    }
}

impl Drop for ComputeRun {
    fn drop(&mut self) {
        self.0.update(|state| state.jobs = state.jobs.saturating_sub(1));
    }
}

impl InstanceRow {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The row at `now_ns`, or at its last change where that came later.
    pub(super) fn snapshot(&self, now_ns: u64) -> InstanceSnapshot {
        let (words, at_ns) = self.words.read(now_ns);
        let mut state = State::from_words(words);
        state.advance(at_ns);
        InstanceSnapshot {
            at_ns: state.since_ns,
            created_ns: self.created_ns,
            state: state.effective(),
            buckets: state.buckets,
            uses: state.uses,
        }
    }

    /// The row for people; none once it is closed.
    pub(super) fn report(&self, version: &VersionRow, now_ns: u64) -> Option<InstanceReport> {
        let snapshot = self.snapshot(now_ns);
        Some(InstanceReport {
            id: self.id,
            model: version.model().clone(),
            version: version.version().clone(),
            state: snapshot.state?,
            uses: snapshot.uses,
            memory_bytes: self.memory.bytes(),
            lifetime_ns: snapshot.buckets.total_ns(),
            buckets_ns: snapshot.buckets,
        })
    }

    /// Counts up to now in the bucket that was, then changes.
    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.words.write(&self.clock, |words, now_ns| {
            let mut state = State::from_words(*words);
            state.advance(now_ns);
            let answer = change(&mut state);
            *words = state.to_words();
            answer
        })
    }
}

impl State {
    /// The bucket time is counted in: waiting is compute while a job is under way.
    fn effective(&self) -> Option<Bucket> {
        match self.bucket {
            Some(Bucket::Wait) if self.jobs > 0 => Some(Bucket::Compute),
            bucket => bucket,
        }
    }

    /// Counts up to `now_ns`; a closed row stays as it is.
    fn advance(&mut self, now_ns: u64) {
        if let Some(bucket) = self.effective() {
            self.buckets.charge(bucket, now_ns.saturating_sub(self.since_ns));
            self.since_ns = self.since_ns.max(now_ns);
        }
    }

    fn from_words(words: [u64; WORDS]) -> Self {
        let [cold, guest, compute, wait, idle, drain, since_ns, bucket, jobs, uses] = words;
        let bucket = match bucket {
            0 => Some(Bucket::Cold),
            1 => Some(Bucket::Guest),
            2 => Some(Bucket::Compute),
            3 => Some(Bucket::Wait),
            4 => Some(Bucket::Idle),
            5 => Some(Bucket::Drain),
            _ => None,
        };
        let buckets = Buckets { cold, guest, compute, wait, idle, drain };
        Self { buckets, since_ns, bucket, jobs, uses }
    }

    fn to_words(self) -> [u64; WORDS] {
        let Buckets { cold, guest, compute, wait, idle, drain } = self.buckets;
        let bucket = match self.bucket {
            Some(Bucket::Cold) => 0,
            Some(Bucket::Guest) => 1,
            Some(Bucket::Compute) => 2,
            Some(Bucket::Wait) => 3,
            Some(Bucket::Idle) => 4,
            Some(Bucket::Drain) => 5,
            None => 6,
        };
        [cold, guest, compute, wait, idle, drain, self.since_ns, bucket, self.jobs, self.uses]
    }
}
