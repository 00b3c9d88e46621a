//! `modelet setup`: ONNX Runtime's library, pinned by its hash, where the server looks for it.

mod pin;
mod wheel;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use modelet_host::digest::Digest;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempDir};

use self::pin::Pin;
use self::wheel::Python;
use crate::args::SetupArgs;
use crate::body::unreadable;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::paths;

/// The file that the server looks for in the folder.
const LIBRARY: &str = "libonnxruntime.so";
/// The folder below this user's data.
const FOLDER: &str = "onnxruntime";

pub(super) fn run(args: &SetupArgs, out: &Out) -> Result<(), Failure> {
    let setup = Setup {
        pin: Pin::of_this_machine()?,
        folder: paths::data_home()?.join(FOLDER),
        python: Python::default(),
        out,
    };
    let report = match &args.from {
        None => setup.download(args.dry_run.on)?,
        Some(file) => setup.install_from(file, args.unpinned, args.dry_run.on)?,
    };
    out.answer(&report, || report.text())
}

/// What a set-up works with.
struct Setup<'a> {
    /// The pinned wheel of this machine; none where there is no such wheel.
    pin: Option<Pin>,
    /// Where the library goes.
    folder: PathBuf,
    python: Python,
    /// Told what takes a while.
    out: &'a Out,
}

/// What a set-up did, or would do.
#[derive(Debug, Serialize)]
struct Report {
    library: PathBuf,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Whether anything was changed.
    changed: bool,
    dry_run: bool,
    #[serde(skip)]
    text: &'static str,
}

/// The two forms in which the library comes.
#[derive(Debug, PartialEq)]
enum Form {
    Library,
    Wheel,
}

impl Report {
    fn text(&self) -> String {
        let version = self.version.as_deref().unwrap_or("(not pinned)");
        format!("ONNX Runtime {version} {}: {}", self.text, self.library.display())
    }
}

impl Setup<'_> {
    /// Downloads and installs the pinned library, unless it is there.
    fn download(&self, dry_run: bool) -> Result<Report, Failure> {
        let pin = self.pin.as_ref().ok_or_else(no_pin)?;
        if self.is_installed(pin.library_sha256)? {
            return Ok(self.report(pin.library_sha256, false, dry_run, "is installed already"));
        }
        if dry_run {
            return Ok(self.report(pin.library_sha256, false, true, "would be downloaded to"));
        }
        self.out.note(&format!("downloading {} {} with pip ...", pin.package, pin.version));
        let work = self.work_folder()?;
        let wheel = self.python.download(pin, work.path())?;
        self.install(&self.unpack(pin, &wheel, &work)?, pin.library_sha256)
    }

    /// Installs the library from a file that the user has.
    fn install_from(&self, file: &Path, unpinned: bool, dry_run: bool) -> Result<Report, Failure> {
        if form(file)? == Form::Wheel {
            let pin = self.pin.as_ref().ok_or_else(no_pin)?;
            check(file, pin.wheel_sha256)?;
            if dry_run || self.is_installed(pin.library_sha256)? {
                return self.unchanged(pin.library_sha256, dry_run);
            }
            let work = self.work_folder()?;
            return self.install(&self.unpack(pin, file, &work)?, pin.library_sha256);
        }
        let digest = digest_of(file)?;
        if !unpinned && self.pinned_version(digest).is_none() {
            return Err(Failure::new(Exit::Failed, "the library is not the pinned one")
                .at(format!("'{}' has {digest}", file.display()))
                .remedy("add --unpinned to install it all the same, if you trust its origin"));
        }
        if dry_run || self.is_installed(digest)? {
            return self.unchanged(digest, dry_run);
        }
        fs::create_dir_all(&self.folder).map_err(|error| unwritable(&self.folder, &error))?;
        let copy = NamedTempFile::new_in(&self.folder);
        let copy = copy.map_err(|error| unwritable(&self.folder, &error))?;
        fs::copy(file, copy.path()).map_err(|error| unwritable(&self.folder, &error))?;
        self.install(copy.path(), digest)
    }

    fn unchanged(&self, digest: Digest, dry_run: bool) -> Result<Report, Failure> {
        let there = self.is_installed(digest)?;
        let text = if there { "is installed already" } else { "would be installed" };
        Ok(self.report(digest, false, dry_run, text))
    }

    /// Takes the library out of a wheel, whose hash was checked.
    fn unpack(&self, pin: &Pin, wheel: &Path, work: &TempDir) -> Result<PathBuf, Failure> {
        let library = work.path().join(LIBRARY);
        self.python.extract(wheel, &pin.library, &library)?;
        Ok(library)
    }

    /// Checks a library in the folder's file system and puts it in place in one step.
    fn install(&self, library: &Path, digest: Digest) -> Result<Report, Failure> {
        check(library, digest)?;
        let target = self.folder.join(LIBRARY);
        // The bytes are on disk before the name is: a crash leaves the old library or the new one.
        File::open(library)
            .and_then(|file| {
                file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(library, &target))
            .and_then(|()| File::open(&self.folder)?.sync_all())
            .map_err(|error| unwritable(&target, &error))?;
        Ok(self.report(digest, true, false, "is installed now"))
    }

    fn is_installed(&self, digest: Digest) -> Result<bool, Failure> {
        let library = self.folder.join(LIBRARY);
        Ok(library.exists() && digest_of(&library)? == digest)
    }

    /// A folder that vanishes, in the library's file system, so that a rename can leave it.
    fn work_folder(&self) -> Result<TempDir, Failure> {
        fs::create_dir_all(&self.folder)
            .and_then(|()| TempDir::new_in(&self.folder))
            .map_err(|error| unwritable(&self.folder, &error))
    }

    fn pinned_version(&self, digest: Digest) -> Option<&str> {
        self.pin.as_ref().filter(|pin| pin.library_sha256 == digest).map(|pin| pin.version.as_str())
    }

    fn report(&self, digest: Digest, changed: bool, dry_run: bool, text: &'static str) -> Report {
        Report {
            library: self.folder.join(LIBRARY),
            sha256: digest.hex(),
            version: self.pinned_version(digest).map(str::to_owned),
            changed,
            dry_run,
            text,
        }
    }
}

/// What a file is, by its first bytes: its name may be anything.
fn form(file: &Path) -> Result<Form, Failure> {
    let mut magic = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(4).read_to_end(&mut magic))
        .map_err(|error| unreadable(file, &error))?;
    match magic.as_slice() {
        b"\x7fELF" => Ok(Form::Library),
        b"PK\x03\x04" => Ok(Form::Wheel),
        _ => Err(Failure::new(
            Exit::Failed,
            format!("'{}' is neither a shared library nor a wheel", file.display()),
        )
        .remedy("give libonnxruntime.so, or the wheel that 'pip download onnxruntime' gets")),
    }
}

fn check(file: &Path, expected: Digest) -> Result<(), Failure> {
    let found = digest_of(file)?;
    if found == expected {
        return Ok(());
    }
    let name = file.file_name().unwrap_or(file.as_os_str()).display();
    Err(Failure::new(Exit::Failed, format!("'{name}' is not the pinned file"))
        .at(format!("expected {expected}, got {found}"))
        .remedy("nothing was installed; get the file again, from a source that is trusted"))
}

fn digest_of(file: &Path) -> Result<Digest, Failure> {
    let mut hasher = Sha256::new();
    File::open(file)
        .and_then(|mut opened| io::copy(&mut opened, &mut hasher))
        .map_err(|error| unreadable(file, &error))?;
    Ok(Digest::from_hasher(hasher))
}

fn no_pin() -> Failure {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    Failure::new(Exit::Failed, format!("there is no pinned ONNX Runtime for {os} on {arch}"))
        .remedy(
            "get libonnxruntime.so another way and install it with --from FILE --unpinned; until \
                 then the server uses rten",
        )
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("'{}' could not be written: {error}", path.display()))
}

#[cfg(test)]
mod tests;
