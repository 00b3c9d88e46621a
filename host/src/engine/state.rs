//! What one store holds: the resources of its guest, its limits, and the accounts it is on.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::Level;
use wasmtime::component::{Resource, ResourceTable, ResourceTableError};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::background::Turns;
use super::call::LimitsMet;
use super::http::{HttpState, Outgoing};
use super::memory::{MemoryLimiter, Refusal};
use super::stream::Emitter;
use crate::config::{GuestSettings, KeyValues};
use crate::limit::Limit;
use crate::names::{AssetName, ModelName, VersionName};
use crate::nn::compute::{Compute, Payer};
use crate::nn::graph::Graph;
use crate::registry::BlobStore;
use crate::tensor::Tensor;
use crate::version::BlobRef;

/// Levels of a guest's log lines: the host's own.
pub(crate) type LogLevel = Level;

/// What every instance of a version shares.
pub struct VersionContext {
    /// The model's name.
    pub model: ModelName,
    /// The version's name.
    pub version: VersionName,
    /// Its graphs, by the asset that holds them.
    pub graphs: BTreeMap<AssetName, Arc<Graph>>,
    /// Its assets, which a guest may read.
    pub assets: BTreeMap<AssetName, BlobRef>,
    /// Where the assets' bytes are.
    pub blobs: Arc<dyn BlobStore>,
    /// The operator's key/values.
    pub config: KeyValues,
    /// What its guests may reach by HTTP.
    pub outgoing: Arc<Outgoing>,
}

impl VersionContext {
    /// The bytes of an asset; none if the version has no asset of that name.
    pub(crate) fn read_asset(&self, name: &str) -> wasmtime::Result<Option<Vec<u8>>> {
        let Some(blob) = self.assets.get(name) else { return Ok(None) };
        self.blobs
            .read(&blob.digest)
            .map(Some)
            .map_err(|error| wasmtime::format_err!("the asset {name:?} cannot be read: {error}"))
    }
}

/// What a guest may do in one call, renewed for each.
#[derive(Debug, Default)]
pub struct CallScope {
    /// The request it answers, for its log lines.
    pub request: String,
    /// Where partial answers go, if the caller asked for a stream.
    emitter: Option<Arc<Emitter>>,
    /// Bytes of log lines written.
    logged: u64,
    /// Lines that found no room.
    unlogged: u64,
    /// What was asked for last and refused by the host itself.
    refused: Option<Limit>,
}

/// The data of a store.
pub struct GuestState {
    /// Everything the guest has handles to.
    pub(crate) table: ResourceTable,
    /// Caps linear memories and tables.
    pub(crate) limiter: MemoryLimiter,
    /// What all instances of the version share.
    pub(crate) version: Arc<VersionContext>,
    /// The way to the compute threads.
    pub(crate) compute: Compute,
    /// On whose account its graphs run.
    pub(crate) payer: Payer,
    /// WASI that denies everything; made when first asked for, since most models never do.
    wasi: Option<Box<WasiCtx>>,
    /// What it has of wasi:http; made when first asked for, as well.
    pub(super) http: Option<Box<HttpState>>,
    /// Bytes of tensors the guest has handles to.
    held_bytes: u64,
    /// Most bytes of tensors; `guest.tensor_bytes`.
    tensor_limit: u64,
    /// Most bytes of log lines a call; `guest.log_bytes`.
    log_limit: u64,
    /// The call under way.
    scope: CallScope,
    /// Turns the guest has been given in this call.
    turns: Turns,
}

impl GuestState {
    /// The data of a new store.
    pub(crate) fn new(
        version: Arc<VersionContext>,
        compute: Compute,
        payer: Payer,
        limiter: MemoryLimiter,
        settings: &GuestSettings,
        turns: Turns,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(settings.handles as usize);
        Self {
            table,
            limiter,
            version,
            compute,
            payer,
            wasi: None,
            http: None,
            held_bytes: 0,
            tensor_limit: settings.tensor_bytes,
            log_limit: settings.log_bytes,
            scope: CallScope::default(),
            turns,
        }
    }

    /// Begins a call on behalf of a request, whose caller may have asked for a stream.
    pub(crate) fn begin_call(&mut self, request: String, emitter: Option<Emitter>) {
        let emitter = emitter.map(Arc::new);
        self.scope = CallScope { request, emitter, ..CallScope::default() };
        self.limiter.begin_call();
        self.turns.reset();
    }

    /// The guest has used up a turn.
    pub(crate) fn count_turn(&self) {
        self.turns.count();
    }

    /// Whether the guest holds on to so much between calls that it would soon run into its limits: it
    /// keeps what it should drop.
    pub(crate) fn is_hoarding(&mut self) -> bool {
        let half = self.table.max_capacity() / 2;
        self.held_bytes > self.tensor_limit / 2 || self.table.iter_mut().nth(half).is_some()
    }

    /// Where partial answers of the call go, if its caller asked for a stream.
    pub(crate) fn emitter(&self) -> Option<Arc<Emitter>> {
        self.scope.emitter.clone()
    }

    /// Ends a call and its stream; says how many log lines found no room, if any did.
    pub(crate) fn end_call(&mut self) {
        self.scope.emitter = None;
        if self.scope.unlogged > 0 {
            tracing::warn!(
                model = %self.version.model,
                version = %self.version.version,
                request = self.scope.request,
                lines = self.scope.unlogged,
                "guest log lines over guest.log_bytes were dropped"
            );
        }
    }

    /// The limits that the last call met.
    pub(crate) fn limits_met(&self) -> LimitsMet {
        let grown = self.limiter.refused().map(|refusal| match refusal {
            Refusal::Memory(..) => Limit::GuestMemory,
            Refusal::Table(..) => Limit::GuestTables,
            Refusal::Host(_) => Limit::EngineMemory,
        });
        LimitsMet { refused: grown.or(self.scope.refused), log: self.scope.unlogged > 0 }
    }

    /// Notes that the guest was refused something.
    pub(crate) fn met(&mut self, limit: Limit) {
        self.scope.refused = Some(limit);
    }

    /// Whether `bytes` more of tensors are within the limit; notes it if they are not.
    pub(crate) fn has_room_for(&mut self, bytes: u64) -> bool {
        let fits = self.held_bytes.saturating_add(bytes) <= self.tensor_limit;
        if !fits {
            self.met(Limit::GuestTensors);
        }
        fits
    }

    /// Gives the guest a handle to something.
    pub(crate) fn hold<T: Send + 'static>(&mut self, value: T) -> wasmtime::Result<Resource<T>> {
        self.table.push(value).map_err(|error| match error {
            ResourceTableError::Full => {
                self.met(Limit::GuestHandles);
                let limit = self.table.max_capacity();
                wasmtime::format_err!(
                    "it holds {limit} handles already, the most it may (guest.handles)"
                )
            }
            other => other.into(),
        })
    }

    /// Gives the guest a handle to `tensor`.
    pub(crate) fn give_tensor(&mut self, tensor: Tensor) -> wasmtime::Result<Resource<Tensor>> {
        let bytes = tensor.data().len() as u64;
        if !self.has_room_for(bytes) {
            return Err(wasmtime::format_err!(
                "a tensor of {bytes} bytes is more than is left of guest.tensor_bytes for this call"
            ));
        }
        let handle = self.hold(tensor)?;
        self.held_bytes += bytes;
        Ok(handle)
    }

    /// Takes a tensor back from the guest.
    pub(crate) fn take_tensor(&mut self, handle: Resource<Tensor>) -> wasmtime::Result<Tensor> {
        let tensor = self.table.delete(handle)?;
        self.held_bytes = self.held_bytes.saturating_sub(tensor.data().len() as u64);
        Ok(tensor)
    }

    /// Writes a guest's line to the host's log, while there is room for it.
    pub(crate) fn log(&mut self, level: LogLevel, message: &str) {
        self.scope.logged = self.scope.logged.saturating_add(message.len() as u64);
        if self.scope.logged > self.log_limit {
            self.scope.unlogged += 1;
            return;
        }
        let (model, version) = (&self.version.model, &self.version.version);
        let request = &self.scope.request;
        // A level is part of a tracing call site, so each has its own.
        match level {
            Level::ERROR => {
                tracing::error!(target: "guest", %model, %version, request, "{message}")
            }
            Level::WARN => tracing::warn!(target: "guest", %model, %version, request, "{message}"),
            Level::INFO => tracing::info!(target: "guest", %model, %version, request, "{message}"),
            Level::DEBUG => {
                tracing::debug!(target: "guest", %model, %version, request, "{message}")
            }
            _ => tracing::trace!(target: "guest", %model, %version, request, "{message}"),
        }
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        // No preopened folders, environment, arguments or sockets: nothing but clocks and randomness.
        let ctx = self.wasi.get_or_insert_with(|| Box::new(WasiCtxBuilder::new().build()));
        WasiCtxView { ctx, table: &mut self.table }
    }
}
