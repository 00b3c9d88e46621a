//! Room on the host: for graphs, by unloading versions that nobody calls; for instances, by promising no
//! more than there are.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::budget::Slots;
use super::{Candidate, Deployment, Deployments, LoadError};
use crate::names::ModelName;
use crate::nn::graph::is_graph;

impl Deployments {
    /// Unloads versions that nobody calls, the longest unused first, until the graphs of `candidate` fit
    /// beside those in use.
    pub(super) fn make_room_for_graphs(
        &self,
        candidate: &Candidate,
    ) -> Result<Loading<'_>, LoadError> {
        let limit = self.graphs.resident_limit();
        // External data counts with the graphs: an asset that is neither is small or never loaded.
        let wanted = match candidate.assets.keys().any(is_graph) {
            true => {
                let blobs = candidate.assets.values();
                blobs.filter(|blob| !self.graphs.holds(&blob.digest)).map(|blob| blob.bytes).sum()
            }
            false => 0,
        };
        let mut loading = self.loading_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = limit.saturating_sub(self.graphs.resident().1.saturating_add(*loading));
            if wanted <= left {
                *loading += wanted;
                return Ok(Loading { total: &self.loading_bytes, bytes: wanted });
            }
            if !self.unload_one() {
                return Err(LoadError::GraphsFull { wanted, left, limit });
            }
        }
    }

    /// Unloads the version that has not been called for longest; `false` if all that are loaded are in
    /// use, or promised instances.
    fn unload_one(&self) -> bool {
        let unloaded = {
            let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            let ready = self.ready.load();
            let unused = ready.iter().filter_map(|(key, slot)| {
                let deployment = slot.get()?;
                let has_graphs = deployment.graphs().next().is_some();
                let is_unused = Arc::strong_count(deployment) == 1
                    && deployment.pool.is_idle()
                    && deployment.pool.policy().min_instances == 0;
                let last_used_ms = deployment.last_used_ms.load(Ordering::Relaxed);
                (has_graphs && is_unused).then_some((last_used_ms, key))
            });
            let Some((_, oldest)) = unused.min_by_key(|(last_used_ms, _)| *last_used_ms) else {
                return false;
            };
            let mut changed = HashMap::clone(&ready);
            let unloaded = changed.remove(oldest);
            self.ready.store(Arc::new(changed));
            unloaded
        };
        drop(unloaded);
        self.graphs.release_unused();
        true
    }

    /// Unloads every version of a model. Leases that are out keep their instance, graph and code until
    /// they end. Blocks for some milliseconds.
    pub fn unload(&self, model: &ModelName) {
        let unloaded: Vec<_> = {
            let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            let ready = HashMap::clone(&self.ready.load());
            let (unloaded, kept): (HashMap<_, _>, HashMap<_, _>) =
                ready.into_iter().partition(|((name, ..), _)| name == model);
            self.ready.store(Arc::new(kept));
            unloaded.into_values().collect()
        };
        drop(unloaded);
        self.graphs.release_unused();
    }

    /// Whether the host can keep the instances that `candidate` is promised, beside those promised to
    /// others.
    ///
    /// # Errors
    /// [`LoadError::Minima`], saying of what there is too little.
    pub fn check_minima(&self, candidate: &Deployment) -> Result<(), LoadError> {
        let promised = self.all().into_iter().map(|deployment| deployment.minimum());
        let promised = promised.fold(candidate.minimum(), Slots::plus);
        match promised.excess_over(self.budget.capacity()) {
            Some(excess) => Err(LoadError::Minima(excess)),
            None => Ok(()),
        }
    }
}

/// Graphs that are being loaded.
pub(super) struct Loading<'a> {
    total: &'a Mutex<u64>,
    bytes: u64,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        *self.total.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
    }
}
