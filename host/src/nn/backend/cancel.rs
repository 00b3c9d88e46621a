//! Stopping a run that nobody waits for any more.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Says that a run's result is not wanted any more; clones say it together.
///
/// ONNX Runtime looks at it between two nodes of a graph, so a run stops within its longest node.
/// rten cannot be stopped: there it only keeps a run from beginning.
#[derive(Clone, Default)]
pub struct Cancel(Arc<State>);

#[derive(Default)]
struct State {
    cancelled: AtomicBool,
    /// The runs to stop. Weak, so that a run that ended needs no word to leave the list.
    runs: Mutex<Vec<Weak<dyn Stop>>>,
}

/// A run that can be stopped from another thread.
pub(super) trait Stop: Send + Sync {
    /// Asks the run to end soon. Called at most a few times; must not block.
    fn stop(&self);
}

impl Cancel {
    /// One that nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels the run, whether it has begun or not. More calls change nothing.
    pub fn cancel(&self) {
        // Before the list is locked: a run that joins it later finds the flag.
        self.0.cancelled.store(true, Ordering::SeqCst);
        for run in self.lock().drain(..).filter_map(|run| run.upgrade()) {
            run.stop();
        }
    }

    /// One that is cancelled when all of `members` are, as long as the answer lives.
    pub fn of_all<'a>(members: impl Iterator<Item = &'a Self>) -> Together {
        let whole = Self::new();
        let members: Vec<Self> = members.cloned().collect();
        let all = Arc::new(All { members, whole: whole.clone() });
        for member in &all.members {
            member.attach(Arc::downgrade(&all) as Weak<dyn Stop>);
        }
        Together { whole, _all: all }
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Stops `run` when this is cancelled, or at once if it has been, until `run` is dropped.
    pub(super) fn attach(&self, run: Weak<dyn Stop>) {
        let mut runs = self.lock();
        runs.retain(|run| run.strong_count() > 0);
        runs.push(Weak::clone(&run));
        drop(runs);
        if self.is_cancelled()
            && let Some(run) = run.upgrade()
        {
            run.stop();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<dyn Stop>>> {
        // The list is whole whatever a panicking holder was doing.
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that nobody of several waits for a run any more.
pub struct Together {
    whole: Cancel,
    /// Told of each of them that leaves.
    _all: Arc<All>,
}

impl Together {
    /// What stops the run.
    pub fn cancel(&self) -> &Cancel {
        &self.whole
    }
}

struct All {
    members: Vec<Cancel>,
    whole: Cancel,
}

impl Stop for All {
    fn stop(&self) {
        if self.members.iter().all(Cancel::is_cancelled) {
            self.whole.cancel();
        }
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Stop for Counted {
        fn stop(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn stops(run: &Counted) -> usize {
        run.0.load(Ordering::SeqCst)
    }

    #[test]
    fn a_shared_run_is_stopped_when_the_last_has_left() {
        let members = [Cancel::new(), Cancel::new(), Cancel::new()];
        members[0].cancel();
        let together = Cancel::of_all(members.iter());
        members[2].cancel();
        members[2].cancel();
        assert!(!together.cancel().is_cancelled());
        members[1].cancel();
        assert!(together.cancel().is_cancelled());
        assert!(Cancel::of_all(members.iter()).cancel().is_cancelled());
    }

    #[test]
    fn a_run_is_stopped_whether_it_comes_before_or_after() {
        let cancel = Cancel::new();
        let (early, late) = (Arc::new(Counted::default()), Arc::new(Counted::default()));
        cancel.attach(Arc::downgrade(&early) as Weak<dyn Stop>);
        assert_eq!(stops(&early), 0);
        cancel.clone().cancel();
        assert!(cancel.is_cancelled());
        cancel.attach(Arc::downgrade(&late) as Weak<dyn Stop>);
        assert_eq!((stops(&early), stops(&late)), (1, 1));
    }

    #[test]
    fn runs_that_ended_leave_the_list() {
        let cancel = Cancel::new();
        for _ in 0..100 {
            let run = Arc::new(Counted::default());
            cancel.attach(Arc::downgrade(&run) as Weak<dyn Stop>);
        }
        assert_eq!(cancel.lock().len(), 1);
        cancel.cancel();
    }
}
