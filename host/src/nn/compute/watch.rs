//! The watch over runs that nobody waits for any more: one that goes on past its time costs its
//! thread, which is replaced, and its graph, which is quarantined.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::job::Run;
use crate::nn::graph::Graph;

/// A run whose caller has left.
pub(super) struct Abandoned {
    pub(super) run: Arc<Run>,
    pub(super) graph: Arc<Graph>,
    /// When it must have ended.
    pub(super) due: Instant,
}

/// Runs to be watched. Only a run that has begun gets here: as many as there are threads, and those
/// that share theirs.
pub(super) struct Watch {
    list: Mutex<List>,
    changed: Condvar,
    /// Threads of one lane that may be lost at a time; `compute.lost_threads`.
    limit: usize,
}

#[derive(Default)]
struct List {
    abandoned: Vec<Abandoned>,
    closed: bool,
}

impl Watch {
    pub(super) fn new(limit: usize) -> Self {
        Self { list: Mutex::default(), changed: Condvar::new(), limit }
    }

    /// Watches one more run.
    pub(super) fn add(&self, abandoned: Abandoned) {
        self.lock().abandoned.push(abandoned);
        self.changed.notify_one();
    }

    /// Ends [`serve`](Self::serve).
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits for the next run to be overdue and gives up on it; `false` when closed.
    pub(super) fn serve(&self) -> bool {
        let mut list = self.lock();
        if list.closed {
            return false;
        }
        list.abandoned.retain(|abandoned| !abandoned.run.has_ended());
        let now = Instant::now();
        let overdue = list.abandoned.iter().position(|abandoned| abandoned.due <= now);
        if let Some(overdue) = overdue {
            let abandoned = list.abandoned.swap_remove(overdue);
            drop(list);
            self.give_up(&abandoned);
            return true;
        }
        let next = list.abandoned.iter().map(|abandoned| abandoned.due).min();
        // Woken early or for nothing, it looks again.
        match next {
            Some(due) => drop(self.changed.wait_timeout(list, due.duration_since(now))),
            None => drop(self.changed.wait(list)),
        }
        true
    }

    fn give_up(&self, Abandoned { run, graph, .. }: &Abandoned) {
        let seconds = run.begun().map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        let reason = format!(
            "the graph is quarantined: a run of it could not be stopped {seconds:.1} s after it began (compute.timeout_ms, compute.grace_ms)"
        );
        let limit = self.limit;
        if run.lane().lost() >= limit {
            tracing::error!(limit, "{reason}; its thread is not replaced (compute.lost_threads)");
            graph.quarantine(reason);
            return;
        }
        // Counted first, so that its end never finds nothing to take back.
        graph.stuck_run_began();
        if !run.give_up() {
            graph.stuck_run_ended();
            return;
        }
        tracing::error!("{reason}; its thread is replaced");
        graph.quarantine(reason);
        if let Err(error) = run.lane().replace_thread() {
            tracing::error!(%error, "a lost compute thread could not be replaced");
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        // A list of runs stays one whatever a panicking holder was doing.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
