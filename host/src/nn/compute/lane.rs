//! A lane: a bounded queue of jobs and the threads that run them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::Outcome;
use crate::ledger::{ComputeStamp, EngineThread, Ledger, Share, VersionRow};
use crate::nn::backend::{Cancel, RunError};
use crate::nn::graph::Graph;
use crate::priority;
use crate::tensor::{NamedTensor, total_bytes};

/// One run of a graph on behalf of one instance.
pub(super) struct Job {
    pub(super) graph: Arc<Graph>,
    pub(super) inputs: Vec<NamedTensor>,
    /// Marks the job in the account of the instance that waits for it.
    pub(super) stamp: ComputeStamp,
    /// Who pays for it.
    pub(super) version: Arc<VersionRow>,
    pub(super) cancel: Cancel,
    pub(super) run: Arc<Run>,
    pub(super) answer: oneshot::Sender<Outcome>,
}

/// How far a job has come, for those who do not run it.
pub(super) struct Run {
    lane: Arc<Lane>,
    /// Set by its thread before it looks whether anybody still waits.
    begun: OnceLock<Instant>,
    phase: AtomicU8,
}

/// In the queue, or running.
const OPEN: u8 = 0;
/// It ended.
const ENDED: u8 = 1;
/// Its thread was given up on.
const LOST: u8 = 2;

impl Run {
    pub(super) fn new(lane: Arc<Lane>) -> Self {
        Self { lane, begun: OnceLock::new(), phase: AtomicU8::new(OPEN) }
    }

    pub(super) fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// When it began; none while it waits.
    pub(super) fn begun(&self) -> Option<Instant> {
        self.begun.get().copied()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == ENDED
    }

    /// Gives up on its thread; `false` if it ended first.
    pub(super) fn give_up(&self) -> bool {
        self.leave_open(LOST)
    }

    /// It ended; `false` if its thread was given up on before.
    fn end(&self) -> bool {
        self.leave_open(ENDED)
    }

    fn leave_open(&self, to: u8) -> bool {
        self.phase.compare_exchange(OPEN, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// What threads of a lane are started with.
pub(super) struct Spawner {
    pub(super) ledger: Arc<Ledger>,
    pub(super) low_priority: bool,
}

/// A queue of jobs and its threads.
pub(super) struct Lane {
    name: &'static str,
    spawner: Spawner,
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// A thread ended.
    ended: Condvar,
    /// Jobs that may wait; named in the refusal as `compute.queue_length`.
    capacity: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
    /// Threads that serve it.
    threads: usize,
    /// Threads that were given up on and have not come back from their run.
    lost: usize,
    /// Threads it ever had, for their names.
    started: usize,
}

impl Lane {
    /// A lane with `threads` threads and room for `capacity` waiting jobs.
    pub(super) fn start(
        name: &'static str,
        spawner: Spawner,
        threads: usize,
        capacity: usize,
    ) -> std::io::Result<Arc<Self>> {
        let lane = Arc::new(Self {
            name,
            spawner,
            queue: Mutex::default(),
            arrived: Condvar::new(),
            ended: Condvar::new(),
            capacity,
        });
        for _ in 0..threads {
            lane.spawn()?;
        }
        Ok(lane)
    }

    /// Starts a thread in the place of one that was given up on.
    pub(super) fn replace_thread(self: &Arc<Self>) -> std::io::Result<()> {
        let mut queue = self.lock();
        queue.threads -= 1;
        queue.lost += 1;
        drop(queue);
        self.spawn()
    }

    /// Threads that were given up on and have not come back.
    pub(super) fn lost(&self) -> usize {
        self.lock().lost
    }

    fn spawn(self: &Arc<Self>) -> std::io::Result<()> {
        let mut queue = self.lock();
        let name = format!("{}-{}", self.name, queue.started);
        let mut row = self.spawner.ledger.engine_thread(&name);
        let lane = Arc::clone(self);
        std::thread::Builder::new().name(name).spawn(move || {
            if lane.spawner.low_priority {
                priority::lower_own();
            }
            lane.serve(&mut row);
        })?;
        queue.started += 1;
        queue.threads += 1;
        Ok(())
    }

    pub(super) fn push(&self, job: Job) -> Result<(), RunError> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(RunError::failed("the server is stopping"));
        }
        if queue.jobs.len() >= self.capacity {
            return Err(RunError::overloaded(self.capacity));
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.arrived.notify_one();
        Ok(())
    }

    /// Jobs that wait now.
    pub(super) fn waiting(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Takes no more jobs and waits, until `due`, for the threads to end.
    pub(super) fn close(&self, due: Instant) {
        let mut queue = self.lock();
        queue.closed = true;
        self.arrived.notify_all();
        let left = due.saturating_duration_since(Instant::now());
        let waited = self.ended.wait_timeout_while(queue, left, |queue| queue.threads > 0);
        // A thread that is still in an engine is left behind; the process is about to end.
        drop(waited);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is a list of jobs and stays one whatever a panicking holder was doing.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self) -> Option<Job> {
        let mut queue = self
            .arrived
            .wait_while(self.lock(), |queue| queue.jobs.is_empty() && !queue.closed)
            .unwrap_or_else(PoisonError::into_inner);
        queue.jobs.pop_front()
    }

    /// A thread's life: jobs until the lane is closed, or until it was given up on and replaced.
    fn serve(&self, row: &mut EngineThread) {
        while let Some(job) = self.pop() {
            if !run_job(job, row) {
                self.lock().lost -= 1;
                return;
            }
        }
        self.lock().threads -= 1;
        self.ended.notify_all();
    }
}

/// The error of a run that panicked.
pub(super) fn panicked() -> RunError {
    RunError::failed("the compute backend panicked")
}

/// Runs a job that somebody still waits for; `false` if this thread was given up on meanwhile.
fn run_job(job: Job, row: &mut EngineThread) -> bool {
    let Job { graph, inputs, stamp, version, cancel, run, answer } = job;
    let begun = *run.begun.get_or_init(Instant::now);
    // After `begun` is set: a caller that leaves now either finds it, or is found to have left.
    if answer.is_closed() {
        return run.end();
    }
    let work = row.begin();
    let computing = stamp.start();
    let outcome = catch_unwind(AssertUnwindSafe(|| graph.run(&inputs, &cancel)))
        .unwrap_or_else(|_| Err(panicked()));
    // Both accounts are closed before the answer goes out, so that whoever has it finds them settled.
    drop(computing);
    let abandoned = answer.is_closed();
    work.finish(&[Share { version: &version, rows: 1, abandoned }], 1);
    if outcome.is_ok() {
        graph.cost().learn(begun.elapsed(), total_bytes(&inputs));
    }
    let kept = run.end();
    if !kept {
        graph.stuck_run_ended();
    }
    // A caller that left in this very moment is not there to be told.
    let _ = answer.send(outcome);
    kept
}
