//! `modelet build`: a crate becomes a component that has passed the checks of a publication.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use wit_component::ComponentEncoder;

use super::toolchain::{TARGET, Toolchain};
use crate::args::BuildArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inspect;
use crate::out::Out;
use crate::{body, table, units};

/// A crate that is compiled to a component.
pub(crate) struct Crate {
    folder: PathBuf,
    /// The module that cargo writes.
    module: PathBuf,
    /// The component that `modelet build` writes.
    pub(crate) component: PathBuf,
}

pub(crate) fn run(args: &BuildArgs, out: &Out) -> Result<Exit, Failure> {
    let built = Crate::of(&args.folder)?;
    built.build(out)?;
    let found =
        inspect::examine(&built.component, None, modelet_host::version::BackendChoice::Auto)?;
    let length = std::fs::metadata(&built.component).map_or(0, |metadata| metadata.len());
    let file = built.component.display().to_string();
    let mut document = inspect::document(&file, &found);
    if let Some(fields) = document.as_object_mut() {
        fields.insert("bytes".to_owned(), length.into());
    }
    out.answer(&document, || {
        table::plain(&format!("{}\nsize {}", inspect::text(&file, &found), units::bytes(length)))
    })?;
    Ok(inspect::exit(&found))
}

impl Crate {
    /// The crate in a folder.
    ///
    /// # Errors
    /// When there is none, or it makes no `cdylib`.
    pub(crate) fn of(folder: &Path) -> Result<Self, Failure> {
        let manifest = folder.join("Cargo.toml");
        let metadata = metadata(&manifest)?;
        let wrong = |problem: &str| {
            Failure::new(Exit::Failed, format!("{}: {problem}", manifest.display()))
        };
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let root = std::fs::canonicalize(&manifest)
            .map_err(|error| body::unreadable(&manifest, &error))?;
        let packages = metadata.get("packages").and_then(Value::as_array);
        let package = packages.into_iter().flatten().find(|package| {
            text(package.get("manifest_path")).is_some_and(|path| Path::new(&path) == root)
        });
        let package = package.ok_or_else(|| wrong("it describes no package"))?;
        let targets = package.get("targets").and_then(Value::as_array).into_iter().flatten();
        let mut libraries = targets.filter(|target| {
            let types = target.get("crate_types").and_then(Value::as_array);
            types.is_some_and(|types| types.iter().any(|kind| kind == "cdylib"))
        });
        let library =
            text(libraries.next().and_then(|target| target.get("name"))).ok_or_else(|| {
                wrong("no target of it is a component")
                    .remedy("[lib] crate-type = [\"cdylib\", \"rlib\"]")
            })?;
        let target = text(metadata.get("target_directory")).map(PathBuf::from);
        let target = target.ok_or_else(|| wrong("cargo does not say where it builds"))?;
        let module = format!("{}.wasm", library.replace('-', "_"));
        Ok(Self {
            folder: folder.to_owned(),
            module: target.join(TARGET).join("release").join(module),
            component: target.join("modelet").join(format!("{library}.wasm")),
        })
    }

    /// Compiles it, and makes a component of the module.
    ///
    /// # Errors
    /// When there is no toolchain, the code does not compile, or the module is none of a model.
    pub(crate) fn build(&self, out: &Out) -> Result<(), Failure> {
        let toolchain = Toolchain::find()?;
        out.note(&format!("compiling with {}", toolchain.describe()));
        let mut cargo = toolchain.build();
        // What cargo says is for people, on stderr; stdout is this command's own answer.
        cargo.arg("--lib").current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::null());
        let status = cargo.status().map_err(|error| cannot_run(&error))?;
        if !status.success() {
            return Err(Failure::new(Exit::Failed, "the crate does not compile; cargo says why"));
        }
        let module =
            std::fs::read(&self.module).map_err(|error| body::unreadable(&self.module, &error))?;
        let component = componentise(&module)?;
        let write = || {
            let folder = self.component.parent().unwrap_or(Path::new(""));
            std::fs::create_dir_all(folder)?;
            // Renamed into place, so that who reads it meanwhile has one whole component.
            let partial = self.component.with_extension(format!("{}.partial", std::process::id()));
            std::fs::write(&partial, &component)?;
            std::fs::rename(&partial, &self.component)
        };
        write().map_err(|error| {
            let file = self.component.display();
            Failure::new(Exit::Failed, format!("{file} cannot be written: {error}"))
        })
    }
}

fn componentise(module: &[u8]) -> Result<Vec<u8>, Failure> {
    let encoded = ComponentEncoder::default().validate(true).module(module);
    encoded.and_then(|mut encoder| encoder.encode()).map_err(|error| {
        Failure::new(Exit::Failed, format!("the module is no component: {error:#}"))
            .remedy("export a model with #[modelet_guest::model]")
    })
}

fn metadata(manifest: &Path) -> Result<Value, Failure> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(manifest);
    let output = cargo.output().map_err(|error| cannot_run(&error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::new(Exit::NotFound, format!("no crate to build: {said}"))
            .remedy("'modelet new NAME' makes one"));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| {
        Failure::new(Exit::Failed, format!("cargo metadata is not understood: {error}"))
    })
}

fn cannot_run(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cargo cannot be run: {error}"))
        .remedy("install Rust: https://rustup.rs")
}
