//! What is downloaded and the hashes it must have: `assets/pins.json`, the one place for them.

use anyhow::{Context as _, Result};
use serde_json::Value;

const PINS: &str = include_str!("../../assets/pins.json");

/// The registry that a package comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registry {
    Pypi,
    Npm,
    Debian,
}

/// One file of one version of a package.
#[derive(Debug)]
pub(crate) struct Pin {
    pub(crate) registry: Registry,
    pub(crate) package: String,
    pub(crate) version: String,
    /// Name of the file as the registry serves it.
    pub(crate) file: String,
    /// SHA-256 of the file, in hex.
    pub(crate) sha256: String,
}

/// The wheel with the ONNX Runtime library for this machine.
#[derive(Debug)]
pub(crate) struct LibraryPin {
    pub(crate) wheel: Pin,
    /// Path of the library inside the wheel.
    pub(crate) member: String,
    /// SHA-256 of the library, in hex.
    pub(crate) sha256: String,
}

impl LibraryPin {
    /// The library's own file name.
    pub(crate) fn file_name(&self) -> &str {
        self.member.rsplit('/').next().unwrap_or(&self.member)
    }
}

/// The packages that the models and inputs are made from.
pub(crate) fn sources() -> Result<Vec<Pin>> {
    let pins = parse()?;
    let sources =
        pins.get("sources").and_then(Value::as_object).context("pins.json: no sources")?;
    let pins = sources.iter().map(|(name, source)| {
        source_pin(source).with_context(|| format!("assets/pins.json: source '{name}'"))
    });
    pins.collect()
}

/// The ONNX Runtime wheel for `architecture`, spelled as in `std::env::consts::ARCH`.
pub(crate) fn library(architecture: &str) -> Result<LibraryPin> {
    let pins = parse()?;
    let pin = pins.get("onnxruntime").context("assets/pins.json: no onnxruntime")?;
    let wheels = pin.get("wheel_sha256").and_then(Value::as_object).context("no wheel_sha256")?;
    let ending = format!("_{architecture}.whl");
    let (file, wheel_sha256) = wheels
        .iter()
        .find(|(file, _)| file.ends_with(&ending))
        .with_context(|| format!("no ONNX Runtime is pinned for {architecture}"))?;
    let libraries = pin.get("library_sha256").context("no library_sha256")?;
    Ok(LibraryPin {
        wheel: Pin {
            registry: Registry::Pypi,
            package: text(pin, "package")?,
            version: text(pin, "version")?,
            file: file.clone(),
            sha256: wheel_sha256.as_str().context("a wheel's hash is no text")?.to_owned(),
        },
        member: text(pin, "library")?,
        sha256: text(libraries, file)?,
    })
}

fn parse() -> Result<Value> {
    serde_json::from_str(PINS).context("assets/pins.json is not JSON")
}

fn source_pin(source: &Value) -> Result<Pin> {
    let registry = match text(source, "registry")?.as_str() {
        "pypi" => Registry::Pypi,
        "npm" => Registry::Npm,
        "debian" => Registry::Debian,
        other => anyhow::bail!("unknown registry '{other}'"),
    };
    Ok(Pin {
        registry,
        package: text(source, "package")?,
        version: text(source, "version")?,
        file: text(source, "file")?,
        sha256: text(source, "sha256")?,
    })
}

fn text(object: &Value, key: &str) -> Result<String> {
    let value = object.get(key).and_then(Value::as_str);
    value.map(str::to_owned).with_context(|| format!("no text under '{key}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_a_hash(text: &str) -> bool {
        text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    #[test]
    fn every_source_is_pinned_by_hash() {
        let sources = sources().unwrap();
        assert_eq!(sources.len(), 14);
        for pin in sources {
            assert!(is_a_hash(&pin.sha256), "{pin:?}");
            assert!(pin.file.contains(&pin.version), "{pin:?}");
        }
    }

    #[test]
    fn the_library_is_pinned_for_both_architectures() {
        for architecture in ["x86_64", "aarch64"] {
            let pin = library(architecture).unwrap();
            assert!(is_a_hash(&pin.sha256) && is_a_hash(&pin.wheel.sha256));
            assert_eq!(pin.file_name(), format!("libonnxruntime.so.{}", pin.wheel.version));
        }
        assert!(library("riscv64").unwrap_err().to_string().contains("riscv64"));
    }

    #[test]
    fn the_python_packages_name_the_same_engine() {
        let requirements = include_str!("../../assets/requirements.txt");
        let pin = library("x86_64").unwrap();
        assert!(requirements.contains(&format!("onnxruntime=={} ", pin.wheel.version)));
        assert!(requirements.contains(&pin.wheel.sha256));
    }
}
