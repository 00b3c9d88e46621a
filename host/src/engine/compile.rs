//! Compiling components, in a process of its own: compilation has no limits of its own making, so it
//! runs where the system sets them, and a component that blows up the compiler takes only that
//! process with it.
//!
//! Compiled code is kept in the data directory under the component's digest and the engine's full
//! compatibility hash, and mapped from there; it is made again whenever it is missing.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::process::Command;
use tokio::sync::Semaphore;
use wasmtime::component::Component;

use super::Engine;
use crate::config::CompileSettings;
use crate::digest::Digest;
use crate::ledger::Booking;

/// Compilations at once: one keeps a core busy, and serving needs the others.
const CONCURRENT_COMPILATIONS: usize = 1;

/// Bytes of a worker's complaint that are read; more is noise.
const COMPLAINT_BYTES: usize = 4096;

/// Bytes of compiled code at most: an 18 MB component compiles to about 60 MB.
const OUTPUT_BYTES: u64 = 1 << 30;

/// Why there is no compiled code.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum CompileError {
    #[error("the component does not compile: {0}")]
    Refused(String),
    #[error("compiling the component took more than {0} seconds (compile.timeout_s)")]
    Timeout(u64),
    #[error(
        "the compile worker was killed, most likely at its limit of memory (compile.memory_bytes) or processor time (compile.cpu_s)"
    )]
    Killed,
    #[error("the compile worker could not be run: {0}")]
    Worker(std::io::Error),
    #[error("the compiled code cannot be stored: {0}")]
    Store(std::io::Error),
    #[error("the compiled code cannot be used: {0}")]
    Load(wasmtime::Error),
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
    /// The program that has the `compile-worker` command: this one.
    worker: PathBuf,
    settings: CompileSettings,
    /// Compilations that may run at once.
    slots: Semaphore,
}

impl Compiler {
    /// A compiler that keeps its results in `folder`, readable by this user only, and runs `worker`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(
        engine: Arc<Engine>,
        folder: PathBuf,
        worker: PathBuf,
        settings: CompileSettings,
    ) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let slots = Semaphore::new(CONCURRENT_COMPILATIONS);
        Ok(Self { engine, folder, worker, settings, slots })
    }

    /// The component whose bytes are in the file `source` and have `digest`, compiled now if it was
    /// not before.
    ///
    /// # Errors
    /// [`CompileError`]; the component's own fault only if it is [`CompileError::Refused`],
    /// [`CompileError::Timeout`] or [`CompileError::Killed`].
    pub async fn load(&self, digest: &Digest, source: &Path) -> Result<Compiled, CompileError> {
        let started = Instant::now();
        let compiled = self.folder.join(self.file_name(digest));
        let mut booking = Booking::Deserialize;
        if !compiled.exists() {
            booking = Booking::Compile;
            // The semaphore lives as long as the compiler and is never closed.
            let _slot = self.slots.acquire().await;
            // Somebody may have compiled the same component while this one waited.
            if !compiled.exists() {
                self.compile(source, &compiled).await?;
            }
        }
        let component = match self.map(&compiled) {
            Ok(component) => component,
            Err(error) => {
                booking = Booking::Compile;
                // Cut short by a crash, or from another build: what was compiled can be compiled again.
                tracing::warn!(%digest, %error, "compiled code is not usable and is made again");
                let _slot = self.slots.acquire().await;
                self.compile(source, &compiled).await?;
                self.map(&compiled).map_err(CompileError::Load)?
            }
        };
        Ok(Compiled { component, booking, took: started.elapsed() })
    }

    fn file_name(&self, digest: &Digest) -> String {
        // wasmtime's own check knows only its major version; this hash knows all of it and every flag.
        let mut hasher = DefaultHasher::new();
        self.engine.wasmtime().precompile_compatibility_hash().hash(&mut hasher);
        format!("{}-{:016x}.cwasm", digest.hex(), hasher.finish())
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

    async fn compile(&self, source: &Path, compiled: &Path) -> Result<(), CompileError> {
        let output = tempfile::Builder::new()
            .prefix(".compiling-")
            .tempfile_in(&self.folder)
            .map_err(CompileError::Store)?;
        let child = Command::new(&self.worker)
            .arg("compile-worker")
            .arg(source)
            .arg(output.path())
            .args(["--memory-bytes", &self.settings.memory_bytes.to_string()])
            .args(["--cpu-s", &self.settings.cpu_s.to_string()])
            // The worker needs nothing of the server's environment.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(CompileError::Worker)?;
        let limit = Duration::from_secs(self.settings.timeout_s);
        let finished = tokio::time::timeout(limit, child.wait_with_output())
            .await
            .map_err(|_| CompileError::Timeout(limit.as_secs()))?
            .map_err(CompileError::Worker)?;
        if !finished.status.success() {
            return Err(worker_failure(finished.status.code(), &finished.stderr));
        }
        output.as_file().sync_all().map_err(CompileError::Store)?;
        output.persist(compiled).map_err(|error| CompileError::Store(error.error))?;
        Ok(())
    }
}

/// The exit code of a worker that refuses the component: the command line's own for what is invalid.
const REFUSED: i32 = 5;

fn worker_failure(code: Option<i32>, complaint: &[u8]) -> CompileError {
    if code == Some(REFUSED) {
        let text = complaint.get(..COMPLAINT_BYTES).unwrap_or(complaint);
        return CompileError::Refused(String::from_utf8_lossy(text).trim().to_owned());
    }
    CompileError::Killed
}

/// The worker's side: limits its own process, then compiles the component in the file `source` into
/// the file `output`.
///
/// # Errors
/// What is wrong with the component, or that the limits could not be set.
pub fn run_worker(
    source: &Path,
    output: &Path,
    memory_bytes: u64,
    cpu_s: u64,
) -> wasmtime::Result<()> {
    let limit = |resource, value| {
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
    };
    limit(Resource::As, memory_bytes)?;
    limit(Resource::Cpu, cpu_s)?;
    limit(Resource::Fsize, OUTPUT_BYTES)?;
    limit(Resource::Core, 0)?;
    let wasm = std::fs::read(source)?;
    let compiled = super::compiling_engine()?.precompile_component(&wasm)?;
    std::fs::write(output, compiled)?;
    Ok(())
}
