//! The account of compute threads: every nanosecond is idle, charged to a version, or on a line of
//! its own for empty batch slots and for work whose caller left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::clock::Clock;
use super::held;
use super::rows::VersionRow;
use super::seqlock::SeqLock;

/// The writer's end of a compute thread's row, held by that thread.
#[derive(Debug)]
pub struct EngineThread {
    row: Arc<ThreadRow>,
    threads: Arc<EngineThreads>,
}

/// A run of the engine under way. Dropped without [`finish`](Self::finish), as by a panic, its time
/// is booked as abandoned.
#[derive(Debug)]
pub struct EngineWork<'a> {
    row: &'a ThreadRow,
    settled: bool,
}

/// One job of a run.
#[derive(Debug, Clone, Copy)]
pub struct Share<'a> {
    /// Who pays for it.
    pub version: &'a VersionRow,
    /// Rows of the batch that are its own; 1 where there is no batch.
    pub rows: u64,
    /// Whether its caller had left when the run ended.
    pub abandoned: bool,
}

/// Nanoseconds of engine threads by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineTotals {
    /// Waiting for work.
    pub idle_ns: u64,
    /// Busy, and charged to versions.
    pub apportioned_ns: u64,
    /// Busy for callers that had left.
    pub abandoned_ns: u64,
    /// Busy with batch slots that held no row.
    pub empty_slots_ns: u64,
    /// Busy in runs that have not ended, so not charged yet.
    #[serde(skip)]
    pub under_way_ns: u64,
}

impl EngineTotals {
    /// All busy time; it is charged completely, up to the runs under way.
    pub fn busy_ns(&self) -> u64 {
        [self.apportioned_ns, self.abandoned_ns, self.empty_slots_ns, self.under_way_ns]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            idle_ns: self.idle_ns.saturating_add(other.idle_ns),
            apportioned_ns: self.apportioned_ns.saturating_add(other.apportioned_ns),
            abandoned_ns: self.abandoned_ns.saturating_add(other.abandoned_ns),
            empty_slots_ns: self.empty_slots_ns.saturating_add(other.empty_slots_ns),
            under_way_ns: self.under_way_ns.saturating_add(other.under_way_ns),
        }
    }
}

/// Splits `busy_ns` by rows over a batch of `capacity_rows`: the share of each job, and what the
/// empty slots took. They add up to `busy_ns` exactly. A batch with more rows than its capacity is
/// taken as full; one without any is all empty slots.
pub fn apportion(busy_ns: u64, rows: &[u64], capacity_rows: u64) -> (Vec<u64>, u64) {
    let mut split = Split::new(busy_ns, rows.iter().copied(), capacity_rows);
    let shares = rows.iter().map(|rows| split.take(*rows)).collect();
    (shares, split.rest())
}

/// Cumulative rounding: a share is the difference of two rounded-down running sums, so that shares
/// are never negative and what rounding takes from one it gives to another.
#[derive(Debug, Clone, Copy)]
struct Split {
    busy_ns: u64,
    capacity_rows: u128,
    rows_taken: u128,
    ns_taken: u64,
}

impl Split {
    fn new(busy_ns: u64, rows: impl Iterator<Item = u64>, capacity_rows: u64) -> Self {
        let rows: u128 = rows.map(u128::from).sum();
        let capacity_rows = rows.max(u128::from(capacity_rows));
        Self { busy_ns, capacity_rows, rows_taken: 0, ns_taken: 0 }
    }

    fn take(&mut self, rows: u64) -> u64 {
        self.rows_taken += u128::from(rows);
        let up_to = (u128::from(self.busy_ns).saturating_mul(self.rows_taken))
            .checked_div(self.capacity_rows)
            .and_then(|ns| u64::try_from(ns).ok())
            .unwrap_or(0);
        let share = up_to.saturating_sub(self.ns_taken);
        self.ns_taken += share;
        share
    }

    fn rest(self) -> u64 {
        self.busy_ns.saturating_sub(self.ns_taken)
    }
}

/// All compute threads of a host.
#[derive(Debug)]
pub(super) struct EngineThreads {
    clock: Clock,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next_id: u64,
    live: BTreeMap<u64, Arc<ThreadRow>>,
    /// Threads that ended, and earlier processes.
    closed: EngineTotals,
}

#[derive(Debug)]
struct ThreadRow {
    id: u64,
    name: String,
    clock: Clock,
    words: SeqLock<WORDS>,
}

/// One thread at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ThreadReading {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) totals: EngineTotals,
}

/// What the words of a row mean.
#[derive(Debug, Clone, Copy)]
struct State {
    /// Without the run under way.
    totals: EngineTotals,
    since_ns: u64,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Busy,
    Closed,
}

const WORDS: usize = 6;

impl EngineThreads {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, inner: Mutex::default() }
    }

    /// Begins the account of a thread, idle.
    pub(super) fn open(self: &Arc<Self>, name: &str) -> EngineThread {
        let mut inner = held(&self.inner);
        inner.next_id += 1;
        let state = State {
            totals: EngineTotals::default(),
            since_ns: self.clock.now_ns(),
            phase: Phase::Idle,
        };
        let row = Arc::new(ThreadRow {
            id: inner.next_id,
            name: name.to_owned(),
            clock: self.clock.clone(),
            words: SeqLock::new(state.to_words()),
        });
        inner.live.insert(row.id, row.clone());
        EngineThread { row, threads: self.clone() }
    }

    /// Every live thread at `now_ns`, and the sum of all there ever were.
    pub(super) fn read(&self, now_ns: u64) -> (Vec<ThreadReading>, EngineTotals) {
        let inner = held(&self.inner);
        let threads: Vec<_> = inner.live.values().map(|row| row.read(now_ns)).collect();
        let sum = threads.iter().fold(inner.closed, |sum, thread| sum.plus(thread.totals));
        (threads, sum)
    }

    /// Adds what an earlier process counted.
    pub(super) fn restore(&self, totals: EngineTotals) {
        let mut inner = held(&self.inner);
        inner.closed = inner.closed.plus(totals);
    }
}

impl EngineThread {
    /// Begins a run: busy from now on.
    pub fn begin(&mut self) -> EngineWork<'_> {
        self.row.update(|state, _| state.phase = Phase::Busy);
        EngineWork { row: &self.row, settled: false }
    }
}

impl Drop for EngineThread {
    fn drop(&mut self) {
        self.row.update(|state, _| state.phase = Phase::Closed);
        let mut inner = held(&self.threads.inner);
        if let Some(row) = inner.live.remove(&self.row.id) {
            inner.closed = inner.closed.plus(row.read(0).totals);
        }
    }
}

impl EngineWork<'_> {
    /// Ends the run and charges its time by rows: each job to its version or, where its caller had
    /// left, to the abandoned; slots of `capacity_rows` that no job filled to the empty. Answers how
    /// long the run was, in nanoseconds.
    pub fn finish(mut self, shares: &[Share<'_>], capacity_rows: u64) -> u64 {
        self.settled = true;
        let split = |busy_ns| Split::new(busy_ns, shares.iter().map(|s| s.rows), capacity_rows);
        let busy_ns = self.row.update(|state, busy_ns| {
            let mut split = split(busy_ns);
            for share in shares {
                let ns = split.take(share.rows);
                let totals = &mut state.totals;
                let line = match share.abandoned {
                    true => &mut totals.abandoned_ns,
                    false => &mut totals.apportioned_ns,
                };
                *line = line.saturating_add(ns);
            }
            state.totals.empty_slots_ns = state.totals.empty_slots_ns.saturating_add(split.rest());
            state.phase = Phase::Idle;
            busy_ns
        });
        let mut split = split(busy_ns);
        for share in shares {
            let ns = split.take(share.rows);
            if !share.abandoned {
                share.version.charge_engine(ns);
            }
        }
        busy_ns
    }
}

impl Drop for EngineWork<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.row.update(|state, busy_ns| {
                state.totals.abandoned_ns = state.totals.abandoned_ns.saturating_add(busy_ns);
                state.phase = Phase::Idle;
            });
        }
    }
}

impl ThreadRow {
    fn read(&self, now_ns: u64) -> ThreadReading {
        let (words, at_ns) = self.words.read(now_ns);
        let mut state = State::from_words(words);
        let under_way_ns = state.advance(at_ns);
        let totals = EngineTotals { under_way_ns, ..state.totals };
        ThreadReading { id: self.id, name: self.name.clone(), totals }
    }

    /// Counts idle time up to now, then changes; `change` is given how long the run under way was
    /// and must charge it.
    fn update<T>(&self, change: impl FnOnce(&mut State, u64) -> T) -> T {
        self.words.write(&self.clock, |words, now_ns| {
            let mut state = State::from_words(*words);
            let busy_ns = state.advance(now_ns);
            let answer = change(&mut state, busy_ns);
            *words = state.to_words();
            answer
        })
    }
}

impl State {
    /// Counts up to `now_ns`: idle time is booked, busy time is the answer.
    fn advance(&mut self, now_ns: u64) -> u64 {
        let ns = now_ns.saturating_sub(self.since_ns);
        self.since_ns = self.since_ns.max(now_ns);
        match self.phase {
            Phase::Idle => {
                self.totals.idle_ns = self.totals.idle_ns.saturating_add(ns);
                0
            }
            Phase::Busy => ns,
            Phase::Closed => 0,
        }
    }

    fn from_words(words: [u64; WORDS]) -> Self {
        let [idle_ns, apportioned_ns, abandoned_ns, empty_slots_ns, since_ns, phase] = words;
        let totals = EngineTotals {
            idle_ns,
            apportioned_ns,
            abandoned_ns,
            empty_slots_ns,
            ..EngineTotals::default()
        };
        let phase = match phase {
            0 => Phase::Idle,
            1 => Phase::Busy,
            _ => Phase::Closed,
        };
        Self { totals, since_ns, phase }
    }

    fn to_words(self) -> [u64; WORDS] {
        let EngineTotals { idle_ns, apportioned_ns, abandoned_ns, empty_slots_ns, .. } =
            self.totals;
        let phase = match self.phase {
            Phase::Idle => 0,
            Phase::Busy => 1,
            Phase::Closed => 2,
        };
        [idle_ns, apportioned_ns, abandoned_ns, empty_slots_ns, self.since_ns, phase]
    }
}
