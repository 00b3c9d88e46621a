//! Which wheel of ONNX Runtime is for this machine, and the hashes that it must have.

use std::collections::BTreeMap;

use modelet_host::digest::Digest;
use serde::Deserialize;

use crate::failure::Failure;

/// The one list of pinned files, which the project's own set-up reads too.
const PINS: &str = include_str!("../../../../assets/pins.json");

/// The pinned wheel of one platform.
#[derive(Debug, Clone)]
pub(super) struct Pin {
    /// The package's name in the Python package index.
    pub(super) package: String,
    pub(super) version: String,
    /// The wheel's file name, which carries the tags of its platform.
    pub(super) wheel: String,
    pub(super) wheel_sha256: Digest,
    /// The library's path inside the wheel.
    pub(super) library: String,
    pub(super) library_sha256: Digest,
}

#[derive(Deserialize)]
struct Pins {
    onnxruntime: PinnedPackage,
}

#[derive(Deserialize)]
struct PinnedPackage {
    package: String,
    version: String,
    wheel_sha256: BTreeMap<String, String>,
    library: String,
    library_sha256: BTreeMap<String, String>,
}

/// The compatibility tags of a wheel's file name, as pip takes them one by one.
#[derive(Debug, PartialEq)]
pub(super) struct Tags<'a> {
    /// Such as `3.11`.
    pub(super) python_version: String,
    pub(super) abi: &'a str,
    /// Such as `manylinux_2_28_x86_64`; a wheel may be for several.
    pub(super) platforms: Vec<&'a str>,
}

impl Pin {
    /// The pin for the platform this program was built for, if there is one.
    ///
    /// # Errors
    /// When the list inside this program is broken, which a test rules out.
    pub(super) fn of_this_machine() -> Result<Option<Self>, Failure> {
        Self::of_platform(std::env::consts::OS, std::env::consts::ARCH)
    }

    fn of_platform(os: &str, arch: &str) -> Result<Option<Self>, Failure> {
        let pins: Pins = serde_json::from_str(PINS).map_err(anyhow::Error::new)?;
        let pins = pins.onnxruntime;
        let suits = |wheel: &str| {
            let platforms = tags(wheel).map(|tags| tags.platforms).unwrap_or_default();
            platforms.iter().any(|tag| tag.contains(os) && tag.ends_with(&format!("_{arch}")))
        };
        let Some((wheel, wheel_sha256)) = pins.wheel_sha256.iter().find(|(wheel, _)| suits(wheel))
        else {
            return Ok(None);
        };
        let library_sha256 = pins.library_sha256.get(wheel).map_or("", String::as_str);
        let digest = |hex: &str| format!("sha256:{hex}").parse().map_err(anyhow::Error::new);
        Ok(Some(Self {
            package: pins.package,
            version: pins.version,
            wheel_sha256: digest(wheel_sha256)?,
            library: pins.library,
            library_sha256: digest(library_sha256)?,
            wheel: wheel.clone(),
        }))
    }

    /// The tags of the wheel.
    pub(super) fn tags(&self) -> Option<Tags<'_>> {
        tags(&self.wheel)
    }
}

/// Reads `name-version-cpXYY-abi-platform.platform.whl`.
fn tags(wheel: &str) -> Option<Tags<'_>> {
    let mut parts = wheel.strip_suffix(".whl")?.rsplit('-');
    let platforms = parts.next()?.split('.').collect();
    let abi = parts.next()?;
    let (major, minor) = parts.next()?.strip_prefix("cp")?.split_at_checked(1)?;
    Some(Tags { python_version: format!("{major}.{minor}"), abi, platforms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_on_both_architectures_is_pinned_and_nothing_else() {
        for arch in ["x86_64", "aarch64"] {
            let pin = Pin::of_platform("linux", arch).unwrap().unwrap();
            assert!(pin.wheel.contains(&pin.version) && pin.wheel.contains(arch), "{pin:?}");
            assert!(pin.library.ends_with(&pin.version), "{pin:?}");
        }
        assert!(Pin::of_platform("linux", "riscv64").unwrap().is_none());
        assert!(Pin::of_platform("windows", "x86_64").unwrap().is_none());
    }

    #[test]
    fn tags_are_read_from_a_wheels_name() {
        assert_eq!(
            tags("onnxruntime-1.32.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"),
            Some(Tags {
                python_version: "3.11".to_owned(),
                abi: "cp311",
                platforms: vec!["manylinux_2_27_x86_64", "manylinux_2_28_x86_64"],
            })
        );
        for bad in ["", "x.whl", "a-1-py3-none-any.whl", "a-1-cp-none-any.tar.gz"] {
            assert_eq!(tags(bad), None, "{bad}");
        }
    }
}
