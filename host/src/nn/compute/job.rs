//! Jobs: runs of a graph on behalf of an instance, alone or sharing a run with others.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::Outcome;
use super::lane::Lane;
use crate::ledger::{ComputeStamp, EngineThread, Share, VersionRow};
use crate::nn::backend::{Cancel, RunError};
use crate::nn::gain::Class;
use crate::nn::graph::Graph;
use crate::nn::rows;
use crate::tensor::{NamedTensor, total_bytes};

/// Waiting jobs that are looked at for company: what is further back waits for its turn.
const LOOK_AHEAD: usize = 256;

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
    /// With whom it may share a run, if with anybody.
    pub(super) sharing: Option<Sharing>,
}

/// What a job has that may share a run.
#[derive(Clone, Copy)]
pub(super) struct Sharing {
    pub(super) class: Class,
    /// Its own rows.
    pub(super) rows: usize,
    /// The most rows of a run.
    pub(super) most: usize,
}

impl Job {
    /// Whether two jobs may share a run: of one graph and one version, whose callers may see the same,
    /// with inputs that differ in their rows only.
    fn may_share(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.graph, &other.graph)
            && Arc::ptr_eq(&self.version, &other.version)
            && rows::alike(&self.inputs, &other.inputs)
    }

    /// Its part of the time of a run.
    fn share(&self) -> Share<'_> {
        let rows = self.sharing.map_or(1, |sharing| sharing.rows) as u64;
        Share { version: &self.version, rows, abandoned: self.answer.is_closed() }
    }

    /// Marks it begun; `false` if nobody waits for it any more.
    fn begin(&self) -> bool {
        // Before the look: a caller that leaves now either finds it, or is found to have left.
        self.run.begun.get_or_init(Instant::now);
        if self.answer.is_closed() {
            self.run.end();
            return false;
        }
        true
    }
}

/// How far a job has come, for those who do not run it.
pub(super) struct Run {
    lane: Arc<Lane>,
    /// Set by its thread before it looks whether anybody still waits.
    begun: OnceLock<Instant>,
    phase: AtomicU8,
    /// The run of another job that it is part of: a thread is given up on once.
    part_of: Mutex<Option<Arc<Self>>>,
}

/// In the queue, or running.
const OPEN: u8 = 0;
/// It ended.
const ENDED: u8 = 1;
/// Its thread was given up on.
const LOST: u8 = 2;

impl Run {
    pub(super) fn new(lane: Arc<Lane>) -> Self {
        let (begun, part_of) = (OnceLock::new(), Mutex::default());
        Self { lane, begun, phase: AtomicU8::new(OPEN), part_of }
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
        match &*self.whole() {
            Some(whole) => whole.leave_open(LOST),
            None => self.leave_open(LOST),
        }
    }

    fn whole(&self) -> MutexGuard<'_, Option<Arc<Self>>> {
        // A pointer is whole whatever a panicking holder was doing.
        self.part_of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_been_given_up(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == LOST
    }

    /// It ended; `false` if its thread was given up on before.
    fn end(&self) -> bool {
        self.leave_open(ENDED)
    }

    fn leave_open(&self, to: u8) -> bool {
        self.phase.compare_exchange(OPEN, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// Takes from `waiting` those jobs that share the run of `first`, one of so many threads': as many as
/// have been learned to be best.
pub(super) fn with_company(first: Job, waiting: &mut VecDeque<Job>, threads: usize) -> Vec<Job> {
    let Some(sharing) = first.sharing else { return vec![first] };
    let company: Vec<(usize, usize)> = waiting
        .iter()
        .take(LOOK_AHEAD)
        .enumerate()
        .filter(|(_, other)| !other.answer.is_closed() && first.may_share(other))
        .filter_map(|(place, other)| Some((place, other.sharing?.rows)))
        .collect();
    let all = company.iter().map(|(_, rows)| rows).sum::<usize>() + sharing.rows;
    // Each thread has its part of those that wait and those that run: with all of them in one run, the
    // other threads would have the few that come meanwhile, and gain nothing.
    let running = first.graph.running_rows().load(Ordering::Relaxed);
    let own = (all + running).div_ceil(threads.max(1)).min(all).min(sharing.most);
    let wanted = first.graph.gain().choose(sharing.class, own);
    let mut taken = sharing.rows;
    let chosen: Vec<usize> = company
        .into_iter()
        .filter_map(|(place, rows)| {
            let fits = taken + rows <= wanted;
            taken += if fits { rows } else { 0 };
            fits.then_some(place)
        })
        .collect();
    // From behind, so that places stay what they are.
    let mut jobs: Vec<Job> =
        chosen.iter().rev().filter_map(|place| waiting.remove(*place)).collect();
    jobs.push(first);
    jobs.reverse();
    jobs
}

/// Runs jobs that somebody still waits for, which share a run if there are several.
///
/// # Errors
/// When the thread was given up on meanwhile: the jobs that it has not run.
pub(super) fn run(jobs: Vec<Job>, row: &mut EngineThread) -> Result<(), Vec<Job>> {
    let jobs: Vec<Job> = jobs.into_iter().filter(Job::begin).collect();
    let Some(first) = jobs.first() else { return Ok(()) };
    let graph = Arc::clone(&first.graph);
    let rows = jobs.iter().filter_map(|job| job.sharing).map(|sharing| sharing.rows).sum();
    graph.running_rows().fetch_add(rows, Ordering::Relaxed);
    let ran = if jobs.len() == 1 { run_each(jobs, row) } else { run_together(jobs, row) };
    graph.running_rows().fetch_sub(rows, Ordering::Relaxed);
    ran
}

fn run_each(jobs: Vec<Job>, row: &mut EngineThread) -> Result<(), Vec<Job>> {
    let mut jobs = jobs.into_iter();
    while let Some(job) = jobs.next() {
        if job.begin() && !run_alone(job, row) {
            return Err(jobs.collect());
        }
    }
    Ok(())
}

/// Runs one job; `false` if this thread was given up on meanwhile.
fn run_alone(job: Job, row: &mut EngineThread) -> bool {
    let work = row.begin();
    let computing = job.stamp.start();
    let begun = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| job.graph.run(&job.inputs, &job.cancel)))
        .unwrap_or_else(|_| Err(panicked()));
    let took = begun.elapsed();
    // Both accounts are closed before the answer goes out, so that whoever has it finds them settled.
    drop(computing);
    work.finish(&[job.share()], 1);
    if outcome.is_ok() {
        job.graph.cost().learn(took, total_bytes(&job.inputs));
        if let Some(sharing) = job.sharing {
            job.graph.gain().learn(sharing.class, sharing.rows, took);
        }
    }
    let kept = job.run.end();
    if !kept {
        job.graph.stuck_run_ended();
    }
    // A caller that left in this very moment is not there to be told.
    let _ = job.answer.send(outcome);
    kept
}

/// Runs jobs, of which there are several, as one. If that fails, each alone, so that nobody is told of
/// another's fault.
fn run_together(jobs: Vec<Job>, row: &mut EngineThread) -> Result<(), Vec<Job>> {
    let Some(first) = jobs.first() else { return Ok(()) };
    let (graph, whole) = (Arc::clone(&first.graph), Arc::clone(&first.run));
    for job in jobs.iter().skip(1) {
        *job.run.whole() = Some(Arc::clone(&whole));
    }
    let work = row.begin();
    let computing: Vec<_> = jobs.iter().map(|job| job.stamp.start()).collect();
    let begun = Instant::now();
    let outputs = catch_unwind(AssertUnwindSafe(|| shared_run(&graph, &jobs)));
    let took = begun.elapsed();
    drop(computing);
    let shares: Vec<_> = jobs.iter().map(Job::share).collect();
    work.finish(&shares, shares.iter().map(|share| share.rows).sum());
    drop(shares);
    for job in jobs.iter().skip(1) {
        *job.run.whole() = None;
    }
    let Ok(Ok(outputs)) = outputs else {
        return match whole.has_been_given_up() {
            // Its callers' time is over, all of them.
            true => given_up(&graph, jobs),
            false => run_each(jobs, row),
        };
    };
    learn(&graph, &jobs, took);
    let kept = jobs.iter().map(|job| job.run.end()).fold(true, |all, kept| all & kept);
    if !kept {
        graph.stuck_run_ended();
    }
    for (job, outputs) in jobs.into_iter().zip(outputs) {
        let _ = job.answer.send(Ok(outputs));
    }
    if kept { Ok(()) } else { Err(Vec::new()) }
}

fn shared_run(graph: &Graph, jobs: &[Job]) -> Result<Vec<Vec<NamedTensor>>, RunError> {
    let calls: Vec<_> = jobs.iter().map(|job| job.inputs.as_slice()).collect();
    let counts: Vec<_> = calls.iter().filter_map(|inputs| rows::count(inputs)).collect();
    let inputs = rows::join(&calls).map_err(RunError::failed)?;
    // It is stopped when all have left.
    let together = Cancel::of_all(jobs.iter().map(|job| &job.cancel));
    let outputs = graph.run(&inputs, together.cancel())?;
    rows::part(&outputs, &counts).map_err(|problem| {
        tracing::warn!("callers share no run of a graph any more: {problem}");
        graph.mixes_rows(problem.clone());
        RunError::failed(problem)
    })
}

fn learn(graph: &Graph, jobs: &[Job], took: std::time::Duration) {
    let count = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
    let bytes: u64 = jobs.iter().map(|job| total_bytes(&job.inputs)).sum();
    graph.cost().learn(took / count, bytes / u64::from(count));
    if let Some(class) = jobs.first().and_then(|job| job.sharing).map(|sharing| sharing.class) {
        let rows = jobs.iter().filter_map(|job| job.sharing).map(|sharing| sharing.rows).sum();
        graph.gain().learn(class, rows, took);
    }
}

/// Ends jobs whose thread was given up on.
fn given_up(graph: &Graph, jobs: Vec<Job>) -> Result<(), Vec<Job>> {
    jobs.iter().for_each(|job| _ = job.run.end());
    graph.stuck_run_ended();
    Err(Vec::new())
}

/// The error of a run that panicked.
pub(super) fn panicked() -> RunError {
    RunError::failed("the compute backend panicked")
}
