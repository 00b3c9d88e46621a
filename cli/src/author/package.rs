//! The package of a model: `modelet.toml`, which says what is published, and under which name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use modelet_host::names::{AliasName, AssetName, ModelName, VersionName};
use modelet_host::version::{Annotations, BackendChoice};
use serde::Deserialize;

use super::build::Crate;
use crate::body;
use crate::exit::Exit;
use crate::failure::Failure;

/// The name of the file, where only a folder is given.
pub(crate) const FILE: &str = "modelet.toml";

/// What a `modelet.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Package {
    /// The model's name.
    pub(crate) name: ModelName,
    /// The version's name.
    pub(crate) version: VersionName,
    /// A component that is there already; otherwise the crate beside the file is the model.
    component: Option<PathBuf>,
    /// The engine for its graphs.
    pub(crate) backend: Option<BackendChoice>,
    /// The standard task it serves.
    pub(crate) task: Option<String>,
    /// An alias to point at it.
    pub(crate) alias: Option<AliasName>,
    /// Files by the names the component finds them under. `${NAME}` in a path is that variable of
    /// the environment.
    #[serde(default)]
    assets: BTreeMap<AssetName, String>,
    /// Settings that the component may read.
    #[serde(default)]
    pub(crate) config: BTreeMap<String, String>,
    /// How instances are pooled, as the management API takes it.
    #[serde(default)]
    pub(crate) pool: toml::Table,
    /// What is said of the version, as the management API takes it.
    #[serde(default)]
    pub(crate) annotations: Annotations,
    /// Where the file is.
    #[serde(skip)]
    folder: PathBuf,
}

impl Package {
    /// Reads a `modelet.toml`, or the one in a folder.
    ///
    /// # Errors
    /// When it cannot be read, or says something it must not.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let path = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        let text = std::fs::read_to_string(&path).map_err(|error| {
            body::unreadable(&path, &error).remedy("'modelet new NAME' makes a package")
        })?;
        let mut package: Self = toml::from_str(&text).map_err(|error| {
            Failure::new(Exit::Usage, error.to_string().trim_end()).at(path.display().to_string())
        })?;
        package.folder = path.parent().unwrap_or(Path::new("")).to_owned();
        if package.folder.as_os_str().is_empty() {
            package.folder = ".".into();
        }
        Ok(package)
    }

    /// The folder of its crate.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether its component is the crate beside it.
    pub(crate) fn is_built_here(&self) -> bool {
        self.component.is_none()
    }

    /// The file of its component.
    ///
    /// # Errors
    /// When it is to be built and has not been.
    pub(crate) fn component(&self) -> Result<PathBuf, Failure> {
        if let Some(component) = &self.component {
            return Ok(self.folder.join(component));
        }
        let component = Crate::of(&self.folder)?.component;
        if !component.is_file() {
            let text = format!("{} is not there yet", component.display());
            return Err(Failure::new(Exit::NotFound, text)
                .remedy(format!("modelet build {}", self.folder.display())));
        }
        Ok(component)
    }

    /// Its assets: names and files.
    ///
    /// # Errors
    /// When a path names a variable that is not set.
    pub(crate) fn assets(&self) -> Result<Vec<(AssetName, PathBuf)>, Failure> {
        let file = |(name, path): (&AssetName, &String)| {
            let path =
                expand(path, |variable| std::env::var(variable).ok()).map_err(|problem| {
                    Failure::usage(format!("asset '{name}': {problem}")).at(self
                        .folder
                        .join(FILE)
                        .display()
                        .to_string())
                })?;
            Ok((name.clone(), self.folder.join(path)))
        };
        self.assets.iter().map(file).collect()
    }
}

/// A path with its variables' values in it.
fn expand(path: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once("${") {
        let (variable, after) =
            after.split_once('}').ok_or_else(|| format!("'{path}' has a ${{ without a }}"))?;
        let value = value(variable).ok_or_else(|| {
            format!("the variable {variable} in '{path}' is not set in the environment")
        })?;
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_the_environments() {
        let value = |name: &str| (name == "M").then(|| "/models".to_owned());
        assert_eq!(expand("${M}/a.onnx", value).unwrap(), "/models/a.onnx");
        assert_eq!(expand("a$b}.onnx", value).unwrap(), "a$b}.onnx");
        assert!(expand("${N}/a", value).unwrap_err().contains("variable N"));
        assert!(expand("${M", value).unwrap_err().contains("without"));
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, "name = \"m\"\nversion = \"1\"\nbackends = 1\n").unwrap();
        let text = Package::read(folder.path()).unwrap_err().to_string();
        assert!(text.contains("backends") && text.contains('3'), "{text}");
    }
}
