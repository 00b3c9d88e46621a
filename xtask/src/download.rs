//! Downloads of pinned packages through the registries' own clients, checked by hash.
//!
//! A package is only ever stored: nothing of it is installed and none of its code runs.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::cache::{Cache, hex};
use crate::pins::{Pin, Registry};
use crate::process;

/// Bytes hashed at a time.
const HASH_CHUNK_BYTES: usize = 1 << 16;

/// Whether the file of `pin` still has to be downloaded.
pub(crate) fn is_missing(cache: &Cache, pin: &Pin) -> bool {
    !cache.path("downloads").join(&pin.file).is_file()
}

/// The file of `pin` in the cache's `downloads/`, downloaded if it is not there yet.
pub(crate) fn fetch(cache: &Cache, pin: &Pin) -> Result<PathBuf> {
    let place = cache.path("downloads").join(&pin.file);
    if place.is_file() {
        return Ok(place);
    }
    println!("    downloading {} {}", pin.package, pin.version);
    let partial = cache.partial(&pin.package);
    fs::create_dir(partial.path())?;
    match pin.registry {
        Registry::Pypi => pip_download(pin, partial.path()),
        Registry::Npm => npm_pack(pin, partial.path()),
        Registry::Debian => apt_download(pin, partial.path()),
    }
    .with_context(|| format!("cannot download {} {}", pin.package, pin.version))?;
    let file = partial.path().join(&pin.file);
    ensure!(
        file.is_file(),
        "{} {}: the registry did not serve {}, but {}",
        pin.package,
        pin.version,
        pin.file,
        listing(partial.path())
    );
    check_hash(&file, &pin.sha256)?;
    fs::create_dir_all(cache.path("downloads"))?;
    fs::rename(&file, &place).with_context(|| format!("cannot make {}", place.display()))?;
    Ok(place)
}

/// Errors unless the file has this SHA-256 (in hex), naming the file, the expected and the found.
pub(crate) fn check_hash(file: &Path, expected: &str) -> Result<()> {
    let found = hash(file).with_context(|| format!("cannot read {}", file.display()))?;
    let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
    ensure!(
        found == expected,
        "{name} is not the pinned file: expected SHA-256 {expected}, got {found}"
    );
    Ok(())
}

fn hash(file: &Path) -> std::io::Result<String> {
    let mut file = fs::File::open(file)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; HASH_CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hex(&hasher.finalize())),
            count => hasher.update(chunk.get(..count).unwrap_or_default()),
        }
    }
}

fn pip_download(pin: &Pin, folder: &Path) -> Result<()> {
    let mut pip = process::command("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]);
    pip.arg(folder).args(platform_arguments(&pin.file));
    process::run(pip.arg(format!("{}=={}", pin.package, pin.version)))
}

fn npm_pack(pin: &Pin, folder: &Path) -> Result<()> {
    let mut npm = process::command("npm");
    npm.current_dir(folder).args(["pack", "--silent", "--ignore-scripts"]);
    // Its only output is the name of the file.
    process::output(npm.arg(format!("{}@{}", pin.package, pin.version))).map(drop)
}

fn apt_download(pin: &Pin, folder: &Path) -> Result<()> {
    let download = || {
        let mut apt_get = process::command("apt-get");
        // As the one who asks, for who apt would be elsewhere may not write here.
        apt_get.current_dir(folder).args(["-qq", "--option=APT::Sandbox::User=root", "download"]);
        process::run(apt_get.arg(format!("{}={}", pin.package, pin.version)))
    };
    // A fresh machine has no lists of packages, and an old one has old ones.
    download().or_else(|_| {
        process::run(process::command("apt-get").args(["update", "-qq"]))?;
        download()
    })
}

/// Asks pip for the wheel of this name, whatever Python and machine it runs on.
///
/// A wheel's name ends in `-PYTHON-ABI-PLATFORM.PLATFORM.whl`; one for any Python needs no asking.
fn platform_arguments(wheel: &str) -> Vec<String> {
    let mut tags = wheel.trim_end_matches(".whl").rsplit('-');
    let (Some(platforms), Some(abi), Some(python)) = (tags.next(), tags.next(), tags.next()) else {
        return Vec::new();
    };
    let Some(minor) = python.strip_prefix("cp3") else { return Vec::new() };
    let mut arguments = vec![
        "--implementation=cp".to_owned(),
        format!("--python-version=3.{minor}"),
        format!("--abi={abi}"),
    ];
    arguments.extend(platforms.split('.').map(|platform| format!("--platform={platform}")));
    arguments
}

fn listing(folder: &Path) -> String {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let names: Vec<_> =
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_hash_names_the_file_the_expected_and_the_found() {
        let file = std::env::temp_dir().join(format!("modelet-hash-{}", std::process::id()));
        fs::write(&file, "abc").unwrap();
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check_hash(&file, right).unwrap();
        let message = check_hash(&file, "0123").unwrap_err().to_string();
        fs::remove_file(&file).unwrap();
        assert!(message.starts_with("modelet-hash-"), "{message}");
        assert!(message.ends_with(&format!("expected SHA-256 0123, got {right}")), "{message}");
    }

    #[test]
    fn a_wheel_for_one_python_is_asked_for_by_its_tags() {
        let wheel = "a_b-1.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl";
        let expected = [
            "--implementation=cp",
            "--python-version=3.11",
            "--abi=cp311",
            "--platform=manylinux_2_24_x86_64",
            "--platform=manylinux_2_28_x86_64",
        ];
        assert_eq!(platform_arguments(wheel), expected);
        assert!(platform_arguments("a-1.0-py3-none-any.whl").is_empty());
        assert!(platform_arguments("a-1.0-py2.py3-none-any.whl").is_empty());
    }
}
