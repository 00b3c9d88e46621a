//! Compute threads: graphs run here, on native stacks, never on a guest's small one and never on a
//! thread that also moves bytes.
//!
//! There are two lanes. Runs learned to be short have threads of their own at normal priority, so
//! that they wait for nothing but each other; all others share threads of low priority. A job whose
//! caller has gone leaves the queue unrun; one that is already running is cancelled where the engine
//! can, and its time is booked as abandoned. A run that goes on past its deadline all the same is
//! given up on: its thread is replaced, and its graph is quarantined.

mod inline;
mod job;
mod lane;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

pub use self::inline::{Attending, Inline};
use self::job::{Job, Run, Sharing};
use self::lane::{Lane, Spawner};
use self::watch::{Abandoned, Watch};
use super::backend::{Cancel, RunError};
use super::gain::Class;
use super::graph::Graph;
use super::rows;
use crate::config::ComputeSettings;
use crate::ledger::{ComputeStamp, Ledger, VersionRow};
use crate::tensor::{NamedTensor, total_bytes};

type Outcome = Result<Vec<NamedTensor>, RunError>;

/// How long the end of the server waits for runs under way: engines end a cancelled run between two
/// nodes. One that is longer is left to the end of the process.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// A run that short ones share may take as long as so many of the longest of them: others in the short
/// lane wait for a few anyway.
const SHORT_RUNS_TOGETHER: u128 = 4;

/// Bytes of the inputs of a run that callers share: they are copied to stand behind each other, once for
/// each thread, beyond what `limits.inflight_bytes` counts.
const SHARED_INPUT_BYTES: u64 = 32 << 20;

struct Shared {
    /// Runs learned to be short.
    short: Arc<Lane>,
    /// All others.
    long: Arc<Lane>,
    /// Up to here a run is short.
    short_run: Duration,
    /// Up to here a run whose work is bounded goes to no thread at all.
    inline_run: Duration,
    /// Most rows of callers that share a run.
    shared_rows: usize,
    /// Most that one run may take.
    timeout: Duration,
    /// What a run gets on top once it was cancelled.
    grace: Duration,
    watch: Watch,
    /// Calls whose run was shared, since the start.
    shared_calls: Arc<AtomicU64>,
}

/// The way to the compute threads; cheap to clone.
#[derive(Clone)]
pub struct Compute(Arc<Shared>);

/// The compute threads themselves; they end when this is dropped.
pub struct ComputeThreads {
    shared: Arc<Shared>,
}

impl ComputeThreads {
    /// Starts the threads of both lanes, and the one that watches them.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(settings: &ComputeSettings, ledger: &Arc<Ledger>) -> std::io::Result<Self> {
        let shared_calls = Arc::<AtomicU64>::default();
        let spawner = |low_priority| Spawner {
            ledger: Arc::clone(ledger),
            shared_calls: Arc::clone(&shared_calls),
            low_priority,
        };
        let lane = |name, low_priority, threads| {
            Lane::start(name, spawner(low_priority), count(threads), settings.queue_length)
        };
        let short = lane("compute-short", false, settings.short_threads)?;
        let long = lane("compute", true, settings.threads)?;
        let shared = Arc::new(Shared {
            short,
            long,
            short_run: Duration::from_micros(settings.short_run_us),
            inline_run: Duration::from_micros(settings.inline_run_us),
            shared_rows: settings.shared_rows,
            timeout: Duration::from_millis(settings.timeout_ms),
            grace: Duration::from_millis(settings.grace_ms),
            watch: Watch::new(settings.lost_threads),
            shared_calls,
        });
        let watching = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("compute-watch".to_owned())
            .spawn(move || while watching.watch.serve() {})?;
        Ok(Self { shared })
    }

    /// The way to these threads.
    pub fn handle(&self) -> Compute {
        Compute(Arc::clone(&self.shared))
    }
}

/// Threads of a lane that is set to `threads`: 0 is one per core.
fn count(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    }
}

impl Drop for ComputeThreads {
    fn drop(&mut self) {
        self.shared.watch.close();
        let due = Instant::now() + SHUTDOWN_GRACE;
        for lane in [&self.shared.short, &self.shared.long] {
            lane.close(due);
        }
    }
}

impl Compute {
    /// Runs `graph` on `inputs` and waits for the outputs. Dropping the future cancels the run.
    ///
    /// # Errors
    /// What the engine says; that the run took longer than `compute.timeout_ms`; that the queue is
    /// full; that the graph is quarantined; that the host is stopping.
    pub async fn run(&self, graph: Arc<Graph>, inputs: Vec<NamedTensor>, payer: &Payer) -> Outcome {
        let shared = &self.0;
        if let Some(reason) = graph.quarantined() {
            return Err(RunError::failed(reason.as_str()));
        }
        if payer.inline.is_attended() && shared.is_inline(&graph, &inputs) {
            return payer.inline.run(graph, inputs).await;
        }
        let sharing = shared.sharing(&graph, &inputs);
        let (answer, outcome) = oneshot::channel();
        let run = Arc::new(Run::new(Arc::clone(shared.lane(&graph, &inputs))));
        let cancel = Cancel::new();
        let waiting = Waiting { shared, graph: &graph, run: &run, cancel: &cancel, over: false };
        let Payer { stamp, version, .. } = payer.clone();
        let job = Job {
            graph: Arc::clone(&graph),
            inputs,
            stamp,
            version,
            cancel: cancel.clone(),
            run: Arc::clone(&run),
            answer,
            sharing,
        };
        run.lane().push(job)?;
        let outcome = tokio::time::timeout(shared.timeout, outcome).await;
        let Ok(outcome) = outcome else {
            return Err(RunError::timeout(shared.timeout));
        };
        waiting.over();
        outcome.unwrap_or_else(|_| Err(RunError::failed("the server is stopping")))
    }

    /// Jobs that wait now.
    pub fn waiting(&self) -> usize {
        self.0.short.waiting() + self.0.long.waiting()
    }

    /// Calls whose run was shared with other callers, since the start.
    pub fn shared_calls(&self) -> u64 {
        self.0.shared_calls.load(Ordering::Relaxed)
    }

    /// Threads that were given up on, and still run what they were given up for.
    pub fn lost_threads(&self) -> usize {
        self.0.short.lost() + self.0.long.lost()
    }
}

impl Shared {
    fn is_inline(&self, graph: &Graph, inputs: &[NamedTensor]) -> bool {
        let estimate = || graph.cost().estimate(total_bytes(inputs));
        graph.is_bounded() && estimate().is_some_and(|estimate| estimate <= self.inline_run)
    }

    /// With how many a call may share a run; none where it runs alone.
    fn sharing(&self, graph: &Graph, inputs: &[NamedTensor]) -> Option<Sharing> {
        let (rows, bytes) = (rows::count(inputs)?, total_bytes(inputs));
        let calls = |count: u128| usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(rows);
        let fit = calls(u128::from(SHARED_INPUT_BYTES / bytes.max(1)));
        let mut most = self.shared_rows.min(graph.shared_rows().ok()?).min(fit);
        let estimate = graph.cost().estimate(bytes);
        if let Some(estimate) = estimate.filter(|estimate| *estimate <= self.short_run) {
            let time = self.short_run.as_nanos() * SHORT_RUNS_TOGETHER;
            most = most.min(calls(time / estimate.as_nanos().max(1)));
        }
        (rows < most).then(|| Sharing { class: Class::of(inputs), rows, most })
    }

    fn lane(&self, graph: &Graph, inputs: &[NamedTensor]) -> &Arc<Lane> {
        match graph.cost().estimate(total_bytes(inputs)) {
            Some(estimate) if estimate <= self.short_run => &self.short,
            _ => &self.long,
        }
    }
}

/// On whose account a job runs.
#[derive(Clone)]
pub struct Payer {
    /// Marks jobs in the instance's account.
    pub stamp: ComputeStamp,
    /// The version that pays for engine time.
    pub version: Arc<VersionRow>,
    /// Where runs are left that are too short for another thread.
    pub inline: Inline,
}

/// Somebody waits for a run. Dropped before it is over, it cancels the run and, where that has begun,
/// has it watched until it ends.
struct Waiting<'a> {
    shared: &'a Shared,
    graph: &'a Arc<Graph>,
    run: &'a Arc<Run>,
    cancel: &'a Cancel,
    over: bool,
}

impl Waiting<'_> {
    fn over(mut self) {
        self.over = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        self.cancel.cancel();
        // What has not begun never will: its thread finds that nobody waits.
        let Some(begun) = self.run.begun() else { return };
        self.shared.watch.add(Abandoned {
            run: Arc::clone(self.run),
            graph: Arc::clone(self.graph),
            // A caller that left early must not get a slow graph into quarantine: every run has its
            // whole time, and only then the engine's time to notice that it was cancelled.
            due: begun + self.shared.timeout + self.shared.grace,
        });
    }
}

#[cfg(test)]
mod tests;
