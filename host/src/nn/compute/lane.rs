//! A lane: a bounded queue of jobs and the threads that run them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::job::{self, Job};
use crate::ledger::{EngineThread, Ledger};
use crate::nn::backend::RunError;
use crate::priority;

/// What threads of a lane are started with.
pub(super) struct Spawner {
    pub(super) ledger: Arc<Ledger>,
    /// Counts calls whose run was shared.
    pub(super) shared_calls: Arc<AtomicU64>,
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

    /// The next job, and those that share its run; none when closed and empty.
    fn pop(&self) -> Option<Vec<Job>> {
        let mut queue = self.lock();
        while queue.jobs.is_empty() && !queue.closed {
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let threads = queue.threads;
        let first = queue.jobs.pop_front()?;
        Some(job::with_company(first, &mut queue.jobs, threads))
    }

    /// A thread's life: jobs until the lane is closed, or until it was given up on and replaced.
    fn serve(&self, row: &mut EngineThread) {
        while let Some(jobs) = self.pop() {
            if jobs.len() > 1 {
                self.spawner.shared_calls.fetch_add(jobs.len() as u64, Ordering::Relaxed);
            }
            if let Err(left) = job::run(jobs, row) {
                let mut queue = self.lock();
                queue.lost -= 1;
                // They were accepted, whatever the queue's length.
                left.into_iter().for_each(|job| queue.jobs.push_front(job));
                drop(queue);
                self.arrived.notify_one();
                return;
            }
        }
        self.lock().threads -= 1;
        self.ended.notify_all();
    }
}
