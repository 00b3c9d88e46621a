//! Short runs on the thread that polls the guest: between two polls, on the thread's own stack, because
//! a guest's fiber has a small one. A run of microseconds is then not sent to another thread, which
//! costs tens of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use super::{Outcome, job};
use crate::ledger::InstanceAccount;
use crate::nn::backend::Cancel;
use crate::nn::graph::Graph;
use crate::tensor::NamedTensor;

/// Where a guest leaves a run for whoever polls it, and finds what came of it.
#[derive(Clone, Default)]
pub struct Inline(Arc<Mutex<Place>>);

#[derive(Default)]
enum Place {
    /// Nobody looks for runs here.
    #[default]
    Closed,
    /// Whoever polls the guest looks here after each poll.
    Open,
    Left(InlineRun),
    Ran(Outcome),
}

/// A run that a guest waits for.
pub(super) struct InlineRun {
    graph: Arc<Graph>,
    inputs: Vec<NamedTensor>,
}

/// Somebody polls a guest, and looks for runs after each poll.
pub struct Attending<'a>(&'a Inline);

impl Inline {
    /// Looks for runs from here on, until the answer is dropped.
    pub fn attend(&self) -> Attending<'_> {
        *self.lock() = Place::Open;
        Attending(self)
    }

    pub(super) fn is_attended(&self) -> bool {
        matches!(*self.lock(), Place::Open)
    }

    /// Leaves a run and waits for its outcome. Only where somebody attends.
    pub(super) async fn run(&self, graph: Arc<Graph>, inputs: Vec<NamedTensor>) -> Outcome {
        *self.lock() = Place::Left(InlineRun { graph, inputs });
        std::future::poll_fn(|_| {
            let mut place = self.lock();
            match std::mem::replace(&mut *place, Place::Open) {
                Place::Ran(outcome) => Poll::Ready(outcome),
                // It polls again when the run is over, so nobody has to be woken.
                other => {
                    *place = other;
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The run that is left, if one is.
    fn take(&self) -> Option<InlineRun> {
        let mut place = self.lock();
        match std::mem::replace(&mut *place, Place::Open) {
            Place::Left(run) => Some(run),
            // An outcome that was not fetched yet stays.
            other => {
                *place = other;
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        // A place is written whole, whatever a panicking holder was doing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attending<'_> {
    /// Runs what the guest has left, on its account; `false` if it has left nothing.
    pub fn serve(&self, account: &mut InstanceAccount) -> bool {
        let Some(run) = self.0.take() else { return false };
        let outcome = run.finish(account);
        *self.0.lock() = Place::Ran(outcome);
        true
    }
}

impl Drop for Attending<'_> {
    fn drop(&mut self) {
        *self.0.lock() = Place::Closed;
    }
}

impl InlineRun {
    fn finish(self, account: &mut InstanceAccount) -> Outcome {
        let Self { graph, inputs } = self;
        let (outcome, took) = account.compute_inline(|| {
            catch_unwind(AssertUnwindSafe(|| graph.run(&inputs, &Cancel::new())))
                .unwrap_or_else(|_| Err(job::panicked()))
        });
        if outcome.is_ok() {
            graph.cost().learn(took, crate::tensor::total_bytes(&inputs));
        }
        outcome
    }
}
