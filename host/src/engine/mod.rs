//! The WebAssembly side: one engine for the host, compiled components, instances, and their pools.
//!
//! Everything expensive happens here when a version is published or first loaded; a request finds an
//! instance or starts one in microseconds.

pub mod background;
pub mod budget;
pub mod call;
pub mod compile;
pub mod contract;
pub mod deployment;
pub mod gate;
pub mod handle;
pub mod http;
pub mod instance;
pub mod memory;
pub mod pace;
pub mod pool;
pub mod state;
pub mod stream;
pub mod world;

use std::num::NonZeroUsize;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, EngineWeak, PoolingAllocationConfig};

use crate::config::EngineSettings;
use budget::Slots;
use state::GuestState;

/// The component that serves a graph as it is; an ordinary component in every respect.
pub const PASSTHROUGH: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/passthrough.wasm"));

/// The asset that the pass-through component serves.
pub const PASSTHROUGH_GRAPH: &str = "model.onnx";

/// How often guests are asked whether their time is up. A guest that spins holds a thread for at most
/// this long before others get their turn; shorter ticks cost more than they give.
pub const EPOCH_TICK: Duration = Duration::from_millis(1);

/// Stack of a fiber beyond the guest's, in bytes: for host functions, which only move handles.
const HOST_STACK_BYTES: usize = 512 << 10;

/// The part of the configuration that compiled code depends on: the server and the compile worker
/// must agree on it to the letter.
fn code_config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        .wasm_memory64(false)
        // Composed components need multi-memory: wasmtime validates its own adapters with it.
        .wasm_multi_memory(true)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16));
    config
}

/// An engine that compiles: for the worker process.
///
/// # Errors
/// When this machine cannot run wasmtime.
pub fn compiling_engine() -> wasmtime::Result<wasmtime::Engine> {
    wasmtime::Engine::new(&code_config())
}

/// The host's engine, with its linker and the thread that ticks its epochs.
pub struct Engine {
    engine: wasmtime::Engine,
    linker: Linker<GuestState>,
    /// Ends with the engine.
    _ticker: Ticker,
}

impl Engine {
    /// Reserves the pool and links every capability a guest may import.
    ///
    /// # Errors
    /// When the system has not the address space, or this machine cannot run wasmtime.
    pub fn new(settings: &EngineSettings) -> wasmtime::Result<Self> {
        let mut config = code_config();
        config
            .allocation_strategy(pooling(settings))
            .async_stack_size(settings.stack_bytes.saturating_add(HOST_STACK_BYTES))
            .max_wasm_stack(settings.stack_bytes);
        let engine = wasmtime::Engine::new(&config)?;
        let linker = link(&engine)?;
        let ticker = Ticker::start(engine.weak())?;
        Ok(Self { engine, linker, _ticker: ticker })
    }

    /// wasmtime's engine.
    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.engine
    }

    /// The linker with every capability.
    pub fn linker(&self) -> &Linker<GuestState> {
        &self.linker
    }
}

fn pooling(settings: &EngineSettings) -> PoolingAllocationConfig {
    let slots = Slots::of_engine(settings);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots.instances)
        .total_core_instances(slots.core_instances)
        .total_memories(slots.memories)
        .total_tables(slots.tables)
        // Every live store keeps its fiber's stack, idle or not.
        .total_stacks(slots.instances + 64)
        .max_core_instances_per_component(64)
        .max_memories_per_component(4)
        .max_memories_per_module(4)
        .max_tables_per_component(8)
        .max_tables_per_module(8)
        .table_elements(20_000)
        .max_core_instance_size(2 << 20)
        .max_component_instance_size(4 << 20)
        .max_memory_size(4 << 30)
        .linear_memory_keep_resident(settings.keep_resident_bytes)
        .table_keep_resident(64 << 10)
        .max_unused_warm_slots(256);
    pool
}

/// Every capability, one line each. What is not here cannot be imported.
fn link(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<GuestState>> {
    type Own = HasSelf<GuestState>;
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    contract::standard::Model::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    // What the twin shares with the standard world is linked above; only its own namespace is left.
    contract::own::modelet::nn::tensor::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    contract::own::modelet::nn::graph::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    contract::own::modelet::nn::inference::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    contract::own::modelet::nn::errors::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    contract::own::modelet::model::tensors_own::add_to_linker::<_, Own>(&mut linker, |s| s)?;
    contract::own::modelet::model::reply_own::add_to_linker::<_, Own>(&mut linker, |s| s)?;
    crate::nn::bytes::link(&mut linker)?;
    Ok(linker)
}

/// The thread that advances the epoch; ends when dropped.
struct Ticker {
    /// Dropped to wake the thread and end it.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let (stop, stopped) = sync_channel::<()>(0);
        let thread = std::thread::Builder::new().name("epoch".to_owned()).spawn(move || {
            while stopped.recv_timeout(EPOCH_TICK) == Err(RecvTimeoutError::Timeout) {
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread only waits and counts; it has nothing to report.
            let _ = thread.join();
        }
    }
}
