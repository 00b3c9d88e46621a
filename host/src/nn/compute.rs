//! Compute threads: graphs run here, on native stacks, never on a guest's small one and never on a
//! thread that also moves bytes.
//!
//! A job whose caller has gone leaves the queue unrun; one that is already running is cancelled where
//! the engine can, and its time is booked as abandoned.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::backend::{Cancel, RunError};
use super::graph::Graph;
use crate::ledger::{ComputeStamp, EngineThread, Ledger, Share, VersionRow};
use crate::tensor::NamedTensor;

type Outcome = Result<Vec<NamedTensor>, RunError>;

/// One run of a graph on behalf of one instance.
struct Job {
    graph: Arc<Graph>,
    inputs: Vec<NamedTensor>,
    /// Marks the job in the account of the instance that waits for it.
    stamp: ComputeStamp,
    /// Who pays for it.
    version: Arc<VersionRow>,
    cancel: Cancel,
    answer: oneshot::Sender<Outcome>,
}

/// What waits for a compute thread.
#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// Jobs that may wait; named in the refusal as `compute.queue_length`.
    capacity: usize,
}

/// The way to the compute threads; cheap to clone.
#[derive(Clone)]
pub struct Compute(Arc<Shared>);

/// The compute threads themselves; they end when this is dropped.
pub struct ComputeThreads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl ComputeThreads {
    /// Starts `count` threads (0: one per core) behind a queue of `capacity` jobs.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(count: usize, capacity: usize, ledger: &Ledger) -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let count = if count == 0 { cores } else { count };
        let shared =
            Arc::new(Shared { queue: Mutex::default(), arrived: Condvar::new(), capacity });
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let name = format!("compute-{index}");
            let mut row = ledger.engine_thread(&name);
            let shared = Arc::clone(&shared);
            threads.push(
                std::thread::Builder::new().name(name).spawn(move || shared.serve(&mut row))?,
            );
        }
        Ok(Self { shared, threads })
    }

    /// The way to these threads.
    pub fn handle(&self) -> Compute {
        Compute(Arc::clone(&self.shared))
    }
}

impl Drop for ComputeThreads {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.arrived.notify_all();
        for thread in self.threads.drain(..) {
            // A panic was caught inside the thread already; there is nothing to add to it here.
            let _ = thread.join();
        }
    }
}

impl Compute {
    /// Runs `graph` on `inputs` and waits for the outputs. Dropping the future cancels the run.
    ///
    /// # Errors
    /// What the engine says; that the queue is full; that the host is stopping.
    pub async fn run(&self, graph: Arc<Graph>, inputs: Vec<NamedTensor>, payer: &Payer) -> Outcome {
        let (answer, outcome) = oneshot::channel();
        let cancel = Cancel::new();
        let guard = CancelOnDrop(Some(cancel.clone()));
        let Payer { stamp, version } = payer.clone();
        self.0.push(Job { graph, inputs, stamp, version, cancel, answer })?;
        let outcome = outcome.await;
        guard.defuse();
        outcome.unwrap_or_else(|_| Err(RunError::failed("the server is stopping")))
    }

    /// Jobs that wait now.
    pub fn waiting(&self) -> usize {
        self.0.lock().jobs.len()
    }
}

/// On whose account a job runs.
#[derive(Clone)]
pub struct Payer {
    /// Marks jobs in the instance's account.
    pub stamp: ComputeStamp,
    /// The version that pays for engine time.
    pub version: Arc<VersionRow>,
}

/// Cancels the run of a caller that went away.
struct CancelOnDrop(Option<Cancel>);

impl CancelOnDrop {
    fn defuse(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.cancel();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        // The queue is a list of jobs and stays one whatever a panicking holder was doing.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) -> Result<(), RunError> {
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

    fn pop(&self) -> Option<Job> {
        let queue = self
            .arrived
            .wait_while(self.lock(), |queue| queue.jobs.is_empty() && !queue.closed)
            .unwrap_or_else(PoisonError::into_inner);
        let mut queue = queue;
        queue.jobs.pop_front()
    }

    fn serve(&self, row: &mut EngineThread) {
        while let Some(job) = self.pop() {
            if !job.answer.is_closed() {
                run_job(job, row);
            }
        }
    }
}

fn run_job(job: Job, row: &mut EngineThread) {
    let Job { graph, inputs, stamp, version, cancel, answer } = job;
    let work = row.begin();
    let run = stamp.start();
    let outcome = catch_unwind(AssertUnwindSafe(|| graph.run(&inputs, &cancel)))
        .unwrap_or_else(|_| Err(RunError::failed("the compute backend panicked")));
    // Both accounts are closed before the answer goes out, so that whoever has it finds them settled.
    drop(run);
    let abandoned = answer.is_closed();
    work.finish(&[Share { version: &version, rows: 1, abandoned }], 1);
    // A caller that left in this very moment is not there to be told.
    let _ = answer.send(outcome);
}
