//! Which engines are there, and which one a version gets.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{Backend, BackendKind, LoadError, LoadOptions, LoadedGraph, OnnxRuntime, Rten};
use crate::version::{BackendChoice, Signature};

/// Where ONNX Runtime's library is looked for. What somebody named is the only place that counts;
/// otherwise the folders are tried in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// The library, or its folder, that the configuration names.
    pub configured: Option<PathBuf>,
    /// The one that `ORT_DYLIB_PATH` names.
    pub environment: Option<PathBuf>,
    /// The folder of the running binary.
    pub executable_folder: Option<PathBuf>,
    /// Where this user's programs keep data; `modelet setup` installs below it.
    pub data_home: Option<PathBuf>,
}

impl Search {
    /// The places of this process: `configured` if it is not empty, then the environment's.
    pub fn of_process(configured: Option<PathBuf>) -> Self {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let executable = std::env::current_exe().ok();
        Self {
            configured: configured.filter(|path| !path.as_os_str().is_empty()),
            environment: variable("ORT_DYLIB_PATH"),
            executable_folder: executable.and_then(|path| Some(path.parent()?.to_owned())),
            data_home: variable("XDG_DATA_HOME")
                .or_else(|| variable("HOME").map(|home| home.join(".local").join("share"))),
        }
    }

    /// Where `modelet setup` puts the library.
    pub fn setup_folder(&self) -> Option<PathBuf> {
        self.data_home.as_ref().map(|data| data.join("modelet").join("onnxruntime"))
    }

    /// The libraries to try, in order, or why there is none.
    fn libraries(&self) -> Result<Vec<PathBuf>, String> {
        let named =
            [(&self.configured, "the configuration"), (&self.environment, "ORT_DYLIB_PATH")];
        for (path, by) in named {
            let Some(path) = path else { continue };
            let library = if path.is_dir() { newest_library(path) } else { Some(path.clone()) };
            return library.map(|library| vec![library]).ok_or_else(|| {
                format!("{by} names the folder {}, which has no library", path.display())
            });
        }
        let folders = [self.executable_folder.clone(), self.setup_folder()];
        let found: Vec<_> = folders.iter().flatten().filter_map(|f| newest_library(f)).collect();
        if found.is_empty() {
            let folders = folders.into_iter().flatten().map(|f| f.display().to_string());
            let folders = folders.collect::<Vec<_>>().join(" or ");
            return Err(format!("its library is not in {folders}; `modelet setup` installs it"));
        }
        Ok(found)
    }
}

/// ONNX Runtime's library in `folder`: the one without a version in its name, or the newest.
fn newest_library(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let libraries = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let version = library_version(path.file_name()?.to_str()?)?;
        Some((version, path))
    });
    libraries.max().map(|(_, path)| path)
}

/// How new the library of this file name is; none for other files.
fn library_version(name: &str) -> Option<Vec<u64>> {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    let rest = name.strip_prefix(DLL_PREFIX)?.strip_prefix("onnxruntime")?;
    // Linux writes `.so.1.32.0`, macOS `.1.32.0.dylib`.
    let version = rest.strip_prefix(DLL_SUFFIX).or_else(|| rest.strip_suffix(DLL_SUFFIX))?;
    if version.is_empty() {
        return Some(vec![u64::MAX]);
    }
    version.strip_prefix('.')?.split('.').map(|part| part.parse().ok()).collect()
}

/// The engines of this process.
#[derive(Clone)]
pub struct Backends {
    /// ONNX Runtime, or why it is not there.
    onnxruntime: Result<Arc<dyn Backend>, String>,
    /// rten, which always is.
    rten: Arc<dyn Backend>,
}

impl Backends {
    /// Finds the engines. A library that is not there or broken is no error: it is reported to the
    /// log, and to whoever asks for that engine.
    pub fn discover(search: &Search) -> Self {
        let onnxruntime = open_first(search);
        match &onnxruntime {
            Ok(backend) => tracing::info!(version = backend.version(), "onnxruntime is available"),
            Err(problem) => tracing::warn!(problem, "onnxruntime is not available"),
        }
        Self { onnxruntime, rten: Arc::new(Rten::new()) }
    }

    /// Only the engine that is linked in.
    pub fn embedded() -> Self {
        let problem = "it was not looked for".to_owned();
        Self { onnxruntime: Err(problem), rten: Arc::new(Rten::new()) }
    }

    /// The engine that a version which asks for `choice` runs on.
    ///
    /// # Errors
    /// When it asks for one that is not there; the error says why it is not.
    pub fn select(&self, choice: BackendChoice) -> Result<BackendKind, LoadError> {
        let kind = match choice {
            BackendChoice::Auto if self.onnxruntime.is_ok() => BackendKind::Onnxruntime,
            BackendChoice::Auto | BackendChoice::Rten => BackendKind::Rten,
            BackendChoice::Onnxruntime => BackendKind::Onnxruntime,
        };
        self.get(kind).map(|_| kind)
    }

    /// One of the engines.
    ///
    /// # Errors
    /// When it is not there; the error says why.
    pub fn get(&self, kind: BackendKind) -> Result<&Arc<dyn Backend>, LoadError> {
        match kind {
            BackendKind::Rten => Ok(&self.rten),
            BackendKind::Onnxruntime => {
                self.onnxruntime.as_ref().map_err(|problem| LoadError::unavailable(kind, problem))
            }
        }
    }

    /// An engine's name and version as people read them, such as `onnxruntime 1.32.0`; none where
    /// it is not there.
    pub fn engine(&self, kind: BackendKind) -> Option<String> {
        self.get(kind).ok().map(|backend| format!("{kind} {}", backend.version()))
    }

    /// The file that one of the engines was loaded from; none where it is not there or linked in.
    pub fn library(&self, kind: BackendKind) -> Option<PathBuf> {
        self.get(kind).ok()?.library().map(Path::to_owned)
    }

    /// Loads a model into one of the engines; see [`Backend::load`].
    ///
    /// # Errors
    /// When the engine is not there or cannot run the model.
    pub fn load(
        &self,
        kind: BackendKind,
        model: Bytes,
        signature: &Signature,
        options: &LoadOptions,
    ) -> Result<Box<dyn LoadedGraph>, LoadError> {
        self.get(kind)?.load(model, signature, options)
    }
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [BackendKind::Onnxruntime, BackendKind::Rten];
        f.debug_set().entries(kinds.into_iter().filter_map(|kind| self.engine(kind))).finish()
    }
}

fn open_first(search: &Search) -> Result<Arc<dyn Backend>, String> {
    let mut problems = Vec::new();
    for library in search.libraries()? {
        match OnnxRuntime::open(&library) {
            Ok(backend) => return Ok(Arc::new(backend)),
            Err(error) => problems.push(error.to_string()),
        }
    }
    Err(problems.join("; "))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::nn::backend::LoadErrorKind;

    #[test]
    fn the_newest_library_of_a_folder_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let newest = || {
            newest_library(folder.path())
                .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        };
        let add = |name: &str| fs::write(folder.path().join(name), "").unwrap();
        assert_eq!(newest(), None);
        for other in ["libonnxruntime_providers_shared.so", "libonnx.so", "libonnxruntime.so.x"] {
            add(other);
        }
        assert_eq!(newest(), None);
        add("libonnxruntime.so.1.9.0");
        add("libonnxruntime.so.1.32.0");
        assert_eq!(newest().as_deref(), Some("libonnxruntime.so.1.32.0"));
        add("libonnxruntime.so");
        assert_eq!(newest().as_deref(), Some("libonnxruntime.so"));
    }

    #[test]
    fn what_somebody_named_is_the_only_place() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("libonnxruntime.so"), "").unwrap();
        let mut search =
            Search { executable_folder: Some(folder.path().to_owned()), ..Search::default() };
        let found = folder.path().join("libonnxruntime.so");
        assert_eq!(search.libraries(), Ok(vec![found.clone()]));
        search.environment = Some(PathBuf::from("elsewhere/libonnxruntime.so"));
        assert_eq!(search.libraries(), Ok(vec![PathBuf::from("elsewhere/libonnxruntime.so")]));
        search.configured = Some(folder.path().to_owned());
        assert_eq!(search.libraries(), Ok(vec![found]));
    }

    #[test]
    fn a_broken_library_is_reported_and_the_linked_engine_serves() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libonnxruntime.so");
        let missing = folder.path().join("missing.so");
        fs::write(&library, "not a library").unwrap();
        for path in [&library, &missing] {
            let search = Search { configured: Some(path.clone()), ..Search::default() };
            let backends = Backends::discover(&search);
            assert_eq!(backends.select(BackendChoice::Auto), Ok(BackendKind::Rten));
            let error = backends.select(BackendChoice::Onnxruntime).unwrap_err();
            assert_eq!(error.kind(), LoadErrorKind::Unavailable);
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn a_library_cut_off_on_its_way_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libonnxruntime.so");
        // A program of this system is an ELF file with its section table at the end.
        let whole = fs::read(std::env::current_exe().unwrap()).unwrap();
        fs::write(&library, &whole[..whole.len() / 2]).unwrap();
        let search = Search { configured: Some(library), ..Search::default() };
        let error = Backends::discover(&search).select(BackendChoice::Onnxruntime).unwrap_err();
        assert!(error.to_string().contains("cut off"), "{error}");
    }

    #[test]
    fn a_missing_library_says_where_it_was_looked_for() {
        let search = Search { data_home: Some(PathBuf::from("/data")), ..Search::default() };
        let error = Backends::discover(&search).select(BackendChoice::Onnxruntime).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("/data/modelet/onnxruntime"), "{message}");
        assert!(message.contains("modelet setup"), "{message}");
    }
}
