//! ONNX Runtime's shared library: checked, loaded once per process, never unloaded.
#![allow(
    unsafe_code,
    reason = "a shared library is loaded and asked for its version, which the ort crate panics over where it is not what it should be"
)]

use std::ffi::CStr;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::{LogLevel, LoggerFunction};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};

/// Why a file cannot be used as ONNX Runtime's library.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum LibraryError {
    #[error("{path} cannot be read: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{path} is not a shared library: {problem}")]
    File { path: PathBuf, problem: &'static str },
    #[error("{path} cannot be loaded: {problem}")]
    Load { path: PathBuf, problem: String },
    #[error(
        "{path} is ONNX Runtime {version}, and 1.{} or a later 1.x is needed",
        ort_sys::ORT_API_VERSION
    )]
    Version { path: PathBuf, version: String },
    #[error("{path} cannot be used: this process loaded {loaded} already")]
    Second { path: PathBuf, loaded: PathBuf },
}

/// The library, loaded, with the engine's one environment.
pub(super) struct Library {
    /// What sessions are made in; there is one per process.
    pub(super) environment: Environment,
    /// Says that a tensor's data is ordinary memory.
    pub(super) cpu: MemoryInfo<'static>,
    /// The version it says it is, such as `1.32.0`.
    pub(super) version: String,
    /// The file it was loaded from.
    pub(super) path: PathBuf,
}

/// The engine keeps its environment, logger and allocators in globals, so a process has one
/// library, and it stays: unloading it while a thread of it ends is a crash.
static LOADED: Mutex<Option<Arc<Library>>> = Mutex::new(None);

/// Loads the library at `path`, or gives it again where that is loaded already.
pub(super) fn load(path: &Path) -> Result<Arc<Library>, LibraryError> {
    let path =
        path.canonicalize().map_err(|error| LibraryError::Read { path: path.to_owned(), error })?;
    if cfg!(target_os = "linux") {
        check_file(&path)?;
    }
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = &*loaded {
        if library.path == path {
            return Ok(Arc::clone(library));
        }
        return Err(LibraryError::Second { path, loaded: library.path.clone() });
    }
    let library = Arc::new(load_now(path)?);
    *loaded = Some(Arc::clone(&library));
    Ok(library)
}

fn load_now(path: PathBuf) -> Result<Library, LibraryError> {
    // Everything that the ort crate would panic over is asked here first.
    let (_handle, version) = check_library(&path)?;
    let problem = |problem: String| LibraryError::Load { path: path.clone(), problem };
    let environment = ort::init_from(&path)
        .map_err(|error| problem(error.to_string()))?
        .with_name("modelet")
        .with_telemetry(false)
        .with_logger(logger())
        .build()
        .map_err(|error| problem(error.message().to_owned()))?;
    // What is below a warning is about every single node.
    environment.set_log_level(LogLevel::Warning);
    let cpu = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default);
    let cpu = cpu.map_err(|error| problem(error.message().to_owned()))?;
    Ok(Library { environment, cpu, version, path })
}

/// The engine prints to standard output unless it is given somebody to tell. What makes a call fail
/// is in its error as well, so none of this is above a warning.
fn logger() -> LoggerFunction {
    Arc::new(|level, category, _id, location, message| match level {
        LogLevel::Fatal | LogLevel::Error => {
            tracing::warn!(target: "onnxruntime", category, location, "{message}");
        }
        LogLevel::Warning => {
            tracing::debug!(target: "onnxruntime", category, location, "{message}");
        }
        LogLevel::Info | LogLevel::Verbose => {}
    })
}

/// Refuses a file that was cut off on its way here: the dynamic loader maps it all the same, and
/// the process dies of SIGBUS when it touches what is not there.
fn check_file(path: &Path) -> Result<(), LibraryError> {
    let read_error = |error| LibraryError::Read { path: path.to_owned(), error };
    let mut file = File::open(path).map_err(read_error)?;
    let bytes = file.metadata().map_err(read_error)?.len();
    let mut header = Vec::with_capacity(64);
    file.by_ref().take(64).read_to_end(&mut header).map_err(read_error)?;
    let refuse = |problem| Err(LibraryError::File { path: path.to_owned(), problem });
    if !header.starts_with(b"\x7fELF\x02") {
        return refuse("it is no 64-bit ELF file");
    }
    // Linkers put the table of sections last: where it begins, the size of an entry, how many.
    let field = |at: usize, size: usize| {
        let bytes = header.get(at..)?.get(..size)?;
        Some(bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte)))
    };
    let end = field(0x28, 8)
        .zip(field(0x3a, 2).zip(field(0x3c, 2)))
        .and_then(|(start, (size, count))| start.checked_add(size * count));
    if end.is_none_or(|end| end > bytes) {
        return refuse("it is cut off; copy or download it again");
    }
    Ok(())
}

/// Loads the library and asks its version, which must know our version of the interface. The handle
/// keeps it loaded until ort has its own.
fn check_library(path: &Path) -> Result<(libloading::Library, String), LibraryError> {
    type GetApiBase = unsafe extern "system" fn() -> *const ort_sys::OrtApiBase;
    let problem = |problem: String| LibraryError::Load { path: path.to_owned(), problem };
    // SAFETY: loading runs the library's initialisers. It is a file the operator named or
    // installed, trusted like the server's own binary.
    let library = unsafe { libloading::Library::new(path) };
    let library = library.map_err(|error| problem(error.to_string()))?;
    // SAFETY: ONNX Runtime exports this function with this signature in all its versions.
    let get = unsafe { library.get::<GetApiBase>(b"OrtGetApiBase\0") };
    let get = get.map_err(|_| problem("it is not ONNX Runtime: no OrtGetApiBase".to_owned()))?;
    // SAFETY: it takes nothing and gives a pointer to a constant of the library, or null.
    let base = unsafe { get().as_ref() };
    let base = base.ok_or_else(|| problem("OrtGetApiBase gave nothing".to_owned()))?;
    // SAFETY: it takes nothing and gives a string that lives as long as the library, which is
    // loaded.
    let version = unsafe { CStr::from_ptr((base.GetVersionString)()) };
    let version = version.to_string_lossy().into_owned();
    // SAFETY: it takes a number and gives a pointer to a constant, or null for a version it lacks.
    let api = unsafe { (base.GetApi)(ort_sys::ORT_API_VERSION) };
    if api.is_null() || !is_supported(&version) {
        return Err(LibraryError::Version { path: path.to_owned(), version });
    }
    Ok((library, version))
}

fn is_supported(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    parts.next() == Some(Some(1))
        && parts.next().flatten().is_some_and(|minor| minor >= ort_sys::ORT_API_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_the_interface_we_use_on_are_supported() {
        assert!(is_supported("1.32.0"));
        assert!(is_supported("1.20.0-rc1"));
        assert!(!is_supported("1.19.2"));
        assert!(!is_supported("2.0.0"));
        assert!(!is_supported("nonsense"));
    }
}
