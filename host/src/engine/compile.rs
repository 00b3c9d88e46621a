//! Compiling components, in a process of its own: compilation has no limits of its own making, so it
//! runs where the system sets them, and a component that blows up the compiler takes only that
//! process with it.
//!
//! Compiled code is kept in the data directory under the component's digest and the engine's full
//! compatibility hash, and mapped from there; it is made again whenever it is missing.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use wasmtime::component::Component;

use super::Engine;
use crate::checks::Check;
use crate::config::CompileSettings;
use crate::digest::Digest;
use crate::ledger::Booking;
use crate::metrics::{Gate, GateMetrics};
use crate::verdicts::{VerdictKey, VerdictKind, Verdicts};
use crate::worker::{LimitKeys, Worker, WorkerLimits, confine};

/// Compilations at once: one keeps a core busy, and serving needs the others.
const CONCURRENT_COMPILATIONS: usize = 1;

/// Bytes of compiled code at most: an 18 MB component compiles to about 60 MB.
const OUTPUT_BYTES: u64 = 1 << 30;

/// The settings that limit a compile worker.
const KEYS: LimitKeys = LimitKeys {
    memory: "compile.memory_bytes",
    cpu: "compile.cpu_s",
    timeout: "compile.timeout_s",
};

/// Why there is no compiled code.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum CompileError {
    #[error("{0}")]
    Refused(CodeRefusal),
    #[error("the compile worker could not be run: {0}")]
    Worker(std::io::Error),
    #[error("the compile worker could not do its work: {0}")]
    Broken(String),
    #[error("the compiled code cannot be stored: {0}")]
    Store(std::io::Error),
    #[error("the compiled code cannot be used: {0}")]
    Load(wasmtime::Error),
}

/// Why a component itself is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{reason}")]
pub struct CodeRefusal {
    /// The check it does not pass.
    pub check: Check,
    /// One sentence for its publisher.
    pub reason: String,
    /// What the worker might take: with other limits the verdict may be another.
    limits: WorkerLimits,
}

/// A component ready to be linked, and what it took.
pub struct Compiled {
    /// The component.
    pub component: Component,
    /// What kind of work it was: compiling, or only mapping what was compiled before.
    pub booking: Booking,
    /// How long that took.
    pub took: Duration,
}

/// Compiled components, on disk and behind a worker.
pub struct Compiler {
    engine: Arc<Engine>,
    /// Where compiled code is kept.
    folder: PathBuf,
    worker: Worker,
    limits: WorkerLimits,
    /// Compilations that may run at once.
    slots: Semaphore,
    /// Refusals of before.
    verdicts: Arc<Verdicts>,
    metrics: GateMetrics,
}

impl Compiler {
    /// A compiler that keeps its results in `folder`, readable by this user only, and runs `worker`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(
        engine: Arc<Engine>,
        folder: PathBuf,
        worker: Worker,
        settings: &CompileSettings,
        verdicts: Arc<Verdicts>,
        metrics: GateMetrics,
    ) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let slots = Semaphore::new(CONCURRENT_COMPILATIONS);
        let limits = WorkerLimits {
            memory_bytes: settings.memory_bytes,
            cpu_s: settings.cpu_s,
            file_bytes: OUTPUT_BYTES,
            timeout_s: settings.timeout_s,
        };
        Ok(Self { engine, folder, worker, limits, slots, verdicts, metrics })
    }

    /// The component whose bytes are in the file `source` and have `digest`, compiled now if it was
    /// not before.
    ///
    /// # Errors
    /// [`CompileError`]; the component's own fault only if it is [`CompileError::Refused`].
    pub async fn load(&self, digest: &Digest, source: &Path) -> Result<Compiled, CompileError> {
        let started = Instant::now();
        let compiled = self.folder.join(self.file_name(digest));
        let mut booking = Booking::Deserialize;
        if !compiled.exists() {
            booking = Booking::Compile;
            self.compile(digest, source, &compiled, false).await?;
        }
        let component = match self.map(&compiled) {
            Ok(component) => component,
            Err(error) => {
                self.check_fit(digest, &error)?;
                booking = Booking::Compile;
                // Cut short by a crash, or from another build: what was compiled can be compiled again.
                tracing::warn!(%digest, %error, "compiled code is not usable and is made again");
                self.compile(digest, source, &compiled, true).await?;
                self.map(&compiled).map_err(CompileError::Load)?
            }
        };
        Ok(Compiled { component, booking, took: started.elapsed() })
    }

    /// wasmtime's own check knows only its major version; this hash knows all of it and every flag.
    fn compatibility(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.engine.wasmtime().precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }

    fn file_name(&self, digest: &Digest) -> String {
        format!("{}-{:016x}.cwasm", digest.hex(), self.compatibility())
    }

    #[allow(unsafe_code, reason = "mapping compiled code is unsafe by nature")]
    fn map(&self, compiled: &Path) -> wasmtime::Result<Component> {
        // SAFETY: the file was written by our own worker into a folder that only this user can write,
        // under a name made from its content's address and the engine's compatibility hash; it is put
        // in place by a rename and never changed after.
        let component = unsafe { Component::deserialize_file(self.engine.wasmtime(), compiled) }?;
        component.initialize_copy_on_write_image()?;
        Ok(component)
    }

    /// Compiles into the file `compiled`, unless somebody else did while this one waited and it is not
    /// to be made `again`.
    async fn compile(
        &self,
        digest: &Digest,
        source: &Path,
        compiled: &Path,
        again: bool,
    ) -> Result<(), CompileError> {
        // The semaphore lives as long as the compiler and is never closed.
        let _slot = self.slots.acquire().await;
        if !again && compiled.exists() {
            return Ok(());
        }
        let key = self.key(digest);
        let before: Option<CodeRefusal> = self.verdicts.find(&key);
        if let Some(refusal) = before.filter(|refusal| refusal.limits == self.limits) {
            return Err(CompileError::Refused(refusal));
        }
        let output = tempfile::Builder::new()
            .prefix(".compiling-")
            .tempfile_in(&self.folder)
            .map_err(CompileError::Store)?;
        let files = [OsString::from(source), OsString::from(output.path())];
        let finished = self
            .worker
            .run("compile-worker", files, &self.limits)
            .await
            .map_err(CompileError::Worker)?;
        self.metrics.worker(Gate::Component, finished.took);
        let refused = match finished.ended {
            Ok(0) => None,
            Ok(REFUSED) => Some(("the component does not compile", finished.complaint, true)),
            Ok(_) => return Err(CompileError::Broken(finished.complaint)),
            Err(death) => {
                let reason = finished.explain(death, &self.limits, &KEYS);
                Some(("compiling the component is given up", reason, death.is_repeatable()))
            }
        };
        if let Some((what, why, repeatable)) = refused {
            let reason = format!("{what}: {why}");
            let refusal = CodeRefusal { check: Check::Compile, reason, limits: self.limits };
            if repeatable {
                self.verdicts.remember(&key, &refusal);
            }
            return Err(CompileError::Refused(refusal));
        }
        output.as_file().sync_all().map_err(CompileError::Store)?;
        output.persist(compiled).map_err(|error| CompileError::Store(error.error))?;
        Ok(())
    }

    fn key(&self, digest: &Digest) -> VerdictKey {
        VerdictKey::new(VerdictKind::Code, &(digest, self.compatibility()))
    }

    /// Refuses a component that the pool of instances has no place for, whatever is free. The pool says
    /// so when code is mapped, in no other way than by its words.
    fn check_fit(&self, digest: &Digest, error: &wasmtime::Error) -> Result<(), CompileError> {
        let words = format!("{error:#}");
        if !words.contains(DOES_NOT_FIT) {
            return Ok(());
        }
        let reason = format!("the component does not fit the pool of instances: {words}");
        tracing::debug!(%digest, reason, "a component does not fit");
        Err(CompileError::Refused(CodeRefusal { check: Check::Pool, reason, limits: self.limits }))
    }
}

/// What every sentence has in which wasmtime's pool says that a component can never fit.
const DOES_NOT_FIT: &str = "exceeds the";

/// The exit code of a worker that refuses the component: the command line's own for what is invalid.
const REFUSED: i32 = 5;

/// Why a worker has no compiled code.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The host's fault.
    #[error("{0}")]
    Host(std::io::Error),
    /// The component's.
    #[error("{0:#}")]
    Component(wasmtime::Error),
}

/// The worker's side: limits its own process, then compiles the component in the file `source` into
/// the file `output`.
///
/// # Errors
/// What is wrong with the component; or that the limits could not be set, or a file not be used.
pub fn run_worker(source: &Path, output: &Path, limits: &WorkerLimits) -> Result<(), WorkerError> {
    confine(limits).map_err(WorkerError::Host)?;
    let wasm = std::fs::read(source).map_err(WorkerError::Host)?;
    let engine =
        super::compiling_engine().map_err(|e| WorkerError::Host(std::io::Error::other(e)))?;
    let compiled = engine.precompile_component(&wasm).map_err(WorkerError::Component)?;
    std::fs::write(output, compiled).map_err(WorkerError::Host)
}
