//! One instance: a store with one instantiated component, from its start to its drop, on the books of
//! the ledger all the while.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Store, UpdateDeadline};

use super::Engine;
use super::contract::{own, standard};
use super::state::{GuestState, VersionContext};
use crate::config::GuestSettings;
use crate::ledger::{Bucket, InstanceAccount, Ledger, VersionRow};
use crate::nn::compute::{Compute, Payer};

/// Bytes a guest may hand over in one host call beyond the tensors themselves: names, shapes, lists.
const HOSTCALL_SLACK_BYTES: u64 = 1 << 20;

/// A component that has been checked against a world and linked, ready to start instances from.
#[derive(Clone)]
pub enum Prepared {
    /// It exports the world `model`.
    Standard(standard::ModelPre<GuestState>),
    /// It exports the world `model-own`.
    Own(own::ModelOwnPre<GuestState>),
}

impl Prepared {
    /// Links `component` and finds out which of the two worlds it is written for.
    ///
    /// # Errors
    /// When an import is not offered, or the exports have other types than either world's; what
    /// wasmtime says of it.
    pub fn new(engine: &Engine, component: &Component) -> wasmtime::Result<Self> {
        let pre = engine.linker().instantiate_pre(component)?;
        match own::ModelOwnPre::new(pre.clone()) {
            Ok(own) => Ok(Self::Own(own)),
            Err(_) => Ok(Self::Standard(standard::ModelPre::new(pre)?)),
        }
    }
}

/// The exports of a running guest, of either world.
pub(crate) enum Guest {
    Standard(standard::Model),
    Own(own::ModelOwn),
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
}

/// Why an instance did not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum StartError {
    #[error("all {0} instances of this host are taken (engine.instances)")]
    HostFull(u32),
    #[error("the instance did not start within {0} ms (guest.start_timeout_ms)")]
    Timeout(u64),
    #[error("the instance did not start: {0}")]
    Failed(String),
}

/// A store with one instantiated component.
pub struct Instance {
    pub(crate) store: Store<GuestState>,
    pub(crate) guest: Guest,
    /// Its row in the ledger, which this holder alone writes.
    pub(crate) account: InstanceAccount,
    /// Calls it has served.
    uses: u64,
}

impl Starter {
    /// Starts an instance.
    ///
    /// # Errors
    /// [`StartError`]; nothing of the attempt is left.
    pub async fn start(&self) -> Result<Instance, StartError> {
        let account = self.ledger.instance(&self.row);
        let payer = Payer { stamp: account.compute_stamp(), version: Arc::clone(&self.row) };
        let context = Arc::clone(&self.context);
        let state = GuestState::new(context, self.compute.clone(), payer, &self.settings);
        let mut store = Store::new(self.engine.wasmtime(), state);
        self.limit(&mut store);
        let limit = Duration::from_millis(self.settings.start_timeout_ms);
        let guest = tokio::time::timeout(limit, self.instantiate(&mut store))
            .await
            .map_err(|_| StartError::Timeout(self.settings.start_timeout_ms))?
            .map_err(|error| self.failed(&store, &error))?;
        account.set_memory_bytes(store.data().limiter.memory_bytes());
        Ok(Instance { store, guest, account, uses: 0 })
    }

    fn limit(&self, store: &mut Store<GuestState>) {
        store.limiter(|state| &mut state.limiter);
        let hostcall = self.settings.tensor_bytes.saturating_add(HOSTCALL_SLACK_BYTES);
        store.set_hostcall_fuel(usize::try_from(hostcall).unwrap_or(usize::MAX));
        store.set_max_component_handles(self.settings.handles as usize);
        store.set_epoch_deadline(1);
        // tokio's own yield lets its I/O driver run; wasmtime's wakes itself at once and starves it.
        store.epoch_deadline_callback(|_| {
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
    }

    async fn instantiate(&self, store: &mut Store<GuestState>) -> wasmtime::Result<Guest> {
        Ok(match &self.prepared {
            Prepared::Standard(pre) => Guest::Standard(pre.instantiate_async(store).await?),
            Prepared::Own(pre) => Guest::Own(pre.instantiate_async(store).await?),
        })
    }

    fn failed(&self, store: &Store<GuestState>, error: &wasmtime::Error) -> StartError {
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return StartError::HostFull(self.engine.instances());
        }
        if let Some(refusal) = store.data().limiter.refused() {
            return StartError::Failed(refusal.to_string());
        }
        // The root cause is one line; the backtrace of the guest goes to the operator.
        tracing::debug!(error = format!("{error:?}"), "an instance did not start");
        StartError::Failed(error.root_cause().to_string())
    }
}

impl Instance {
    /// Calls it has served.
    pub fn uses(&self) -> u64 {
        self.uses
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
