//! One instance: a store with one instantiated component, from its start to its drop, on the books of
//! the ledger all the while.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};

use super::Engine;
use super::background::Turns;
use super::budget::{Budget, Charge, Slots};
use super::contract::{own, standard};
use super::memory::{MemoryLimiter, Refusal};
use super::state::{GuestState, VersionContext};
use crate::config::GuestSettings;
use crate::ledger::{Bucket, InstanceAccount, Ledger, VersionRow};
use crate::limit::Limit;
use crate::nn::compute::{Compute, Inline, Payer};

/// Bytes a guest may hand over in one host call beyond the tensors themselves: names, shapes, lists.
const HOSTCALL_SLACK_BYTES: u64 = 1 << 20;

/// Handles that the engine allows beyond `guest.handles`: our own table refuses first, by name, and a
/// component has some of its own besides.
const HANDLES_SLACK: usize = 256;

/// A component that has been checked against a world and linked, ready to start instances from.
#[derive(Clone)]
pub enum Prepared {
    /// It exports the world `model`.
    Standard(standard::ModelPre<GuestState>),
    /// It exports the world `model-own`.
    Own(own::ModelOwnPre<GuestState>),
    /// It exports wasi:http's handler.
    Http(ProxyPre<GuestState>),
}

impl Prepared {
    /// Links `component` and finds out which of the worlds it is written for.
    ///
    /// # Errors
    /// When an import is not offered, or the exports have other types than either world's; what
    /// wasmtime says of it.
    pub fn new(engine: &Engine, component: &Component) -> wasmtime::Result<Self> {
        let pre = engine.linker().instantiate_pre(component)?;
        if let Ok(own) = own::ModelOwnPre::new(pre.clone()) {
            return Ok(Self::Own(own));
        }
        if let Ok(http) = ProxyPre::new(pre.clone()) {
            return Ok(Self::Http(http));
        }
        Ok(Self::Standard(standard::ModelPre::new(pre)?))
    }
}

/// The exports of a running guest, of any world.
pub(crate) enum Guest {
    Standard(standard::Model),
    Own(own::ModelOwn),
    Http(Proxy),
}

/// What it takes to start instances of one version.
pub struct Starter {
    /// The linked component.
    pub prepared: Prepared,
    /// The host's engine.
    pub engine: Arc<Engine>,
    /// What all instances of the version share.
    pub context: Arc<VersionContext>,
    /// The way to the compute threads.
    pub compute: Compute,
    /// Where instances are accounted.
    pub ledger: Arc<Ledger>,
    /// The version's row in the ledger.
    pub row: Arc<VersionRow>,
    /// What a guest may use.
    pub settings: GuestSettings,
    /// What all instances of the host may take together.
    pub budget: Arc<Budget>,
    /// What one instance takes of it.
    pub slots: Slots,
    /// Calls an instance serves before it is replaced; see [`reuse_limit`].
    pub max_reuse: u64,
}

/// Why an instance did not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum StartError {
    #[error("the host has no room for another instance: {why}")]
    HostFull { why: String, limit: Limit },
    #[error("the instance did not start within {0} ms (guest.start_timeout_ms)")]
    Timeout(u64),
    #[error("the instance did not start: {0}")]
    Failed(String),
}

impl StartError {
    fn full(why: impl std::fmt::Display, limit: Limit) -> Self {
        Self::HostFull { why: why.to_string(), limit }
    }
}

/// A store with one instantiated component.
pub struct Instance {
    pub(crate) store: Store<GuestState>,
    pub(crate) guest: Guest,
    /// Its row in the ledger, which this holder alone writes.
    pub(crate) account: InstanceAccount,
    /// Turns the guest has been given in the call under way.
    pub(crate) turns: Turns,
    /// Where the guest leaves its shortest runs.
    pub(crate) inline: Inline,
    /// Calls it has served.
    uses: u64,
    /// Calls it may serve.
    reuse_limit: u64,
    /// Its room on the host; given back after the store is gone.
    _charge: Charge,
}

/// A part in this many of the allowed calls is left to chance, so that instances started together are
/// not all replaced together.
const RECYCLE_SPREAD: u64 = 4;

/// Calls that instance number `id` of a version may serve, where `most` are allowed: up to a quarter
/// fewer, by the number's hash.
pub fn reuse_limit(most: u64, id: u64) -> u64 {
    let spread = most / RECYCLE_SPREAD + 1;
    // Fibonacci hashing: neighbours end up far apart.
    let scattered = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    most - scattered % spread
}

impl Starter {
    /// Starts an instance; where the host is full, idle ones of any version make room. Nobody waits for
    /// room: what holds it are calls, and they may be waiting for this one.
    ///
    /// # Errors
    /// [`StartError`]; nothing of the attempt is left.
    pub async fn start(&self) -> Result<Instance, StartError> {
        loop {
            match self.try_start().await {
                Err(StartError::HostFull { .. }) if self.budget.evict_idle() > 0 => {}
                started => return started,
            }
        }
    }

    async fn try_start(&self) -> Result<Instance, StartError> {
        let charge = self.budget.take(self.slots);
        let charge = charge.map_err(|no_room| StartError::full(no_room, Limit::Instances))?;
        let account = self.ledger.instance(&self.row);
        let inline = Inline::default();
        let (stamp, version) = (account.compute_stamp(), Arc::clone(&self.row));
        let payer = Payer { stamp, version, inline: inline.clone() };
        let context = Arc::clone(&self.context);
        let (memory, tables) = (self.settings.memory_bytes, self.settings.table_elements);
        let limiter = MemoryLimiter::new(Arc::clone(&self.budget), memory, tables);
        let turns = Turns::default();
        let (compute, settings) = (self.compute.clone(), &self.settings);
        let state = GuestState::new(context, compute, payer, limiter, settings, turns.clone());
        let mut store = Store::new(self.engine.wasmtime(), state);
        self.limit(&mut store);
        let limit = Duration::from_millis(self.settings.start_timeout_ms);
        let guest = tokio::time::timeout(limit, self.instantiate(&mut store))
            .await
            .map_err(|_| StartError::Timeout(self.settings.start_timeout_ms))?
            .map_err(|error| failed(&error, store.data().limiter.refused()))?;
        account.set_memory_bytes(store.data().limiter.memory_bytes());
        let reuse_limit = reuse_limit(self.max_reuse, account.id());
        let uses = 0;
        Ok(Instance { store, guest, account, turns, inline, uses, reuse_limit, _charge: charge })
    }

    fn limit(&self, store: &mut Store<GuestState>) {
        store.limiter(|state| &mut state.limiter);
        let hostcall = self.settings.tensor_bytes.saturating_add(HOSTCALL_SLACK_BYTES);
        store.set_hostcall_fuel(usize::try_from(hostcall).unwrap_or(usize::MAX));
        let handles = (self.settings.handles as usize).saturating_add(HANDLES_SLACK);
        store.set_max_component_handles(handles);
        store.set_epoch_deadline(1);
        // tokio's own yield lets its I/O driver run; wasmtime's wakes itself at once and starves it.
        store.epoch_deadline_callback(|store| {
            store.data().count_turn();
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
    }

    async fn instantiate(&self, store: &mut Store<GuestState>) -> wasmtime::Result<Guest> {
        Ok(match &self.prepared {
            Prepared::Standard(pre) => Guest::Standard(pre.instantiate_async(store).await?),
            Prepared::Own(pre) => Guest::Own(pre.instantiate_async(store).await?),
            Prepared::Http(pre) => Guest::Http(pre.instantiate_async(store).await?),
        })
    }
}

fn failed(error: &wasmtime::Error, refused: Option<Refusal>) -> StartError {
    if let Some(full) = error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>() {
        return StartError::full(full, Limit::Instances);
    }
    match refused {
        Some(refusal @ Refusal::Host(_)) => StartError::full(refusal, Limit::EngineMemory),
        Some(refusal) => StartError::Failed(refusal.to_string()),
        None => {
            // The root cause is one line; the backtrace of the guest goes to the operator.
            tracing::debug!(error = format!("{error:?}"), "an instance did not start");
            StartError::Failed(error.root_cause().to_string())
        }
    }
}

impl Instance {
    /// Whether it may serve another call.
    pub fn may_be_kept(&mut self) -> bool {
        self.uses < self.reuse_limit && !self.store.data_mut().is_hoarding()
    }

    /// A request takes it.
    pub(crate) fn lease(&mut self) {
        self.uses += 1;
        self.account.lease();
    }

    /// A request is done with it; its memory may have grown meanwhile.
    pub(crate) fn release(&mut self) {
        self.account.set_memory_bytes(self.store.data().limiter.memory_bytes());
        self.account.release();
    }

    /// It is about to be dropped.
    pub(crate) fn drain(&mut self) {
        self.account.enter(Bucket::Drain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_replaced_at_different_times_and_never_later_than_allowed() {
        let limits: Vec<u64> = (0..1000).map(|id| reuse_limit(1000, id)).collect();
        assert!(limits.iter().all(|limit| (750..=1000).contains(limit)));
        let different: std::collections::BTreeSet<_> = limits.iter().collect();
        assert!(different.len() > 200, "{}", different.len());
        assert!((0..100).all(|id| reuse_limit(1, id) == 1));
    }
}
