//! Set-up: the engine's library, the Python environment and the folder of models, each made once.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cache::{Cache, Key, Partial};
use crate::machine::{self, Need};
use crate::pins::Registry;
use crate::process::{self, workspace};
use crate::{download, pins};

/// Raised when the way the environment is made changes, so that old ones are not taken for new.
const VENV_RECIPE: &str = "1";

/// Takes one file out of a wheel; a wheel is a zip archive.
const UNPACK: &str = "\
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel, open(sys.argv[3], 'wb') as out:
    out.write(wheel.read(sys.argv[2]))
";

/// What set-up made, and what the processes that need it are told.
pub(crate) struct Ready {
    cache: Cache,
    /// The ONNX Runtime library.
    library: PathBuf,
    /// The Python with the packages of `assets/requirements.txt`.
    pub(crate) python: PathBuf,
    /// The Python with the packages of `assets/requirements-peers.txt`, made when it is asked for.
    peers: OnceCell<PathBuf>,
    /// The folder of models and inputs.
    pub(crate) models: PathBuf,
}

/// `cargo xtask setup`.
pub(crate) fn run() -> Result<()> {
    let ready = prepare(&[])?;
    println!("ONNX Runtime  {}", ready.library.display());
    println!("Python        {}", ready.python.display());
    println!("models        {}", ready.models.display());
    Ok(())
}

/// `cargo xtask assets`.
pub(crate) fn run_assets() -> Result<()> {
    let cache = Cache::open()?;
    machine(&cache, &[])?;
    println!("{}", models(&cache, &python(&cache, "venv", "requirements.txt")?)?.display());
    Ok(())
}

/// Makes all that is missing; `needs` are what the caller runs besides.
pub(crate) fn prepare(needs: &[Need]) -> Result<Ready> {
    let cache = Cache::open()?;
    machine(&cache, needs)?;
    let library = library(&cache)?;
    let python = python(&cache, "venv", "requirements.txt")?;
    let models = models(&cache, &python)?;
    Ok(Ready { cache, library, python, peers: OnceCell::new(), models })
}

impl Ready {
    /// The Python with other servers' clients.
    pub(crate) fn peers(&self) -> Result<&Path> {
        if let Some(python) = self.peers.get() {
            return Ok(python);
        }
        let python = python(&self.cache, "venv-peers", "requirements-peers.txt")?;
        Ok(self.peers.get_or_init(|| python))
    }

    /// Triton's load tester, and the folder of a library that it loads; none where there is none for this
    /// machine.
    pub(crate) fn perf_analyzer(&self) -> Result<Option<(PathBuf, PathBuf)>> {
        if std::env::consts::ARCH != "x86_64" {
            return Ok(None);
        }
        machine::provide(&[machine::B64])?;
        let python = python(&self.cache, "venv-perf", "requirements-perf.txt")?;
        let find = "import nvidia.cuda_runtime as r; print(list(r.__path__)[0], end='/lib')";
        let library = process::output(process::command(&python).args(["-c", find]))?;
        let library = PathBuf::from(String::from_utf8(library)?);
        Ok(Some((python.with_file_name("perf_analyzer"), library)))
    }

    /// An empty folder that is removed when the value is dropped.
    pub(crate) fn scratch(&self, name: &str) -> Result<Partial> {
        let scratch = self.cache.partial(name);
        fs::create_dir(scratch.path())?;
        Ok(scratch)
    }

    /// A folder in the cache for something that outlives this run.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.cache.path(name)
    }

    /// A command that is told where everything is.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = process::command(program);
        command
            .env("CARGO_TARGET_DIR", target_dir(&self.cache))
            .env("ORT_DYLIB_PATH", &self.library)
            // The engine's library would report on its users.
            .env("ORT_DISABLE_TELEMETRY", "1")
            .env("MODELET_DOWNLOADS", self.cache.path("downloads"))
            .env("MODELET_MODELS", &self.models)
            .env("MODELET_PYTHON", &self.python)
            // Keeps the checkout free of compiled Python.
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// Cargo, with its target directory in the cache.
    pub(crate) fn cargo(&self) -> Command {
        self.command(env!("CARGO"))
    }

    /// A program that the `ci` profile built.
    pub(crate) fn built(&self, program: &str) -> PathBuf {
        target_dir(&self.cache).join("ci").join(program)
    }
}

/// Cargo for what needs no set-up, with its target directory in the cache.
pub(crate) fn cargo() -> Result<Command> {
    let mut cargo = process::command(env!("CARGO"));
    cargo.env("CARGO_TARGET_DIR", target_dir(&Cache::open()?));
    Ok(cargo)
}

/// Cargo's target directory: the one the person chose, or the one in the cache.
fn target_dir(cache: &Cache) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(chosen) => workspace().join(chosen),
        None => cache.path("target"),
    }
}

/// Sees to what the machine itself must have.
fn machine(cache: &Cache, needs: &[Need]) -> Result<()> {
    let npm = pins::sources()?
        .iter()
        .any(|pin| matches!(pin.registry, Registry::Npm) && download::is_missing(cache, pin));
    let npm = npm.then_some(machine::NPM);
    let needs: Vec<_> =
        machine::PYTHON.into_iter().chain(npm).chain(needs.iter().copied()).collect();
    machine::provide(&needs)
}

fn library(cache: &Cache) -> Result<PathBuf> {
    let pin = pins::library(std::env::consts::ARCH)?;
    let place = cache.path("onnxruntime").join(pin.file_name());
    if place.is_file() {
        return Ok(place);
    }
    let wheel = download::fetch(cache, &pin.wheel)?;
    let partial = cache.partial(pin.file_name());
    let mut unpack = process::command("python3");
    unpack.args(["-c", UNPACK]).arg(wheel).arg(&pin.member).arg(partial.path());
    process::run(&mut unpack)?;
    download::check_hash(partial.path(), &pin.sha256)?;
    partial.finish(&place)?;
    Ok(place)
}

/// Makes a Python environment of what a list names; keyed by the interpreter too, whose library it links
/// to.
fn python(cache: &Cache, name: &str, list: &str) -> Result<PathBuf> {
    let requirements = workspace().join("assets").join(list);
    let version = process::output(process::command("python3").args(["-VV"]))?;
    let key = Key::new().add("recipe", VENV_RECIPE.as_bytes()).add("python", &version).add(
        "requirements",
        &fs::read(&requirements).with_context(|| format!("cannot read {list}"))?,
    );
    let folder = cache.folder(name, key, |folder| {
        println!("    making the Python environment of {list}");
        process::run(process::command("python3").args(["-m", "venv"]).arg(folder))?;
        let mut pip = process::command(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        // Compiled files would remember the name under which the environment is made.
        // The list is whole: what is not on it is left out on purpose, see requirements.in.
        pip.args(["--no-compile", "--no-deps", "--require-hashes", "--only-binary=:all:"]);
        process::run(pip.arg("--requirement").arg(&requirements))
    })?;
    Ok(folder.join("bin/python"))
}

/// Makes the folder of models; keyed by the pins and by the scripts that make it.
fn models(cache: &Cache, python: &Path) -> Result<PathBuf> {
    let assets = workspace().join("assets");
    let pins = assets.join("pins.json");
    let mut key = Key::new();
    for name in ["pins.json", "requirements.txt"] {
        key = key.add(name, &fs::read(assets.join(name))?);
    }
    let mut scripts: Vec<_> = fs::read_dir(assets.join("modelet_assets"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "py"));
    scripts.sort();
    for script in scripts {
        let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
        key = key.add(&name, &fs::read(&script)?);
    }
    for pin in pins::sources()? {
        download::fetch(cache, &pin)?;
    }
    cache.folder("models", key, |folder| {
        println!("    converting the models");
        let mut convert = process::command(python);
        convert.current_dir(&assets).args(["-m", "modelet_assets", "--pins"]).arg(&pins);
        convert.env("PYTHONDONTWRITEBYTECODE", "1");
        convert.arg("--downloads").arg(cache.path("downloads")).arg("--out").arg(folder);
        process::run(&mut convert)
    })
}
