//! Set-ups with a wheel made here, and an interpreter whose pip copies it.

use std::ffi::OsString;
use std::process::Command;

use super::*;
use crate::out::tests::captured;

const WHEEL: &str = "onnxruntime-9.9.9-cp311-cp311-manylinux_2_28_x86_64.whl";
const MEMBER: &str = "onnxruntime/capi/libonnxruntime.so.9.9.9";
const CONTENT: &[u8] = b"\x7fELF a library";

/// A user's machine: a folder with a wheel, a library and an interpreter.
struct Machine {
    folder: TempDir,
    pin: Pin,
}

impl Machine {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let member = folder.path().join(MEMBER);
        fs::create_dir_all(member.parent().unwrap()).unwrap();
        fs::write(&member, CONTENT).unwrap();
        let mut zip = Command::new("python3");
        zip.args(["-m", "zipfile", "-c", WHEEL, "onnxruntime/"]).current_dir(folder.path());
        assert!(zip.status().unwrap().success());
        // `-m pip ... --dest DIR PACKAGE==VERSION` copies the wheel; all else is for the real one.
        let script = format!(
            "if [ \"$1\" != -m ]; then exec python3 \"$@\"; fi\n\
             while [ \"$1\" != --dest ]; do shift; done\n\
             [ \"$3\" = onnxruntime==9.9.9 ] || {{ echo \"no matching $3\" >&2; exit 1; }}\n\
             cp '{}' \"$2\"\n",
            folder.path().join(WHEEL).display()
        );
        fs::write(folder.path().join("python.sh"), script).unwrap();
        let pin = Pin {
            package: "onnxruntime".to_owned(),
            version: "9.9.9".to_owned(),
            wheel: WHEEL.to_owned(),
            wheel_sha256: digest_of(&folder.path().join(WHEEL)).unwrap(),
            library: MEMBER.to_owned(),
            library_sha256: Digest::of(CONTENT),
        };
        Self { folder, pin }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn with<T>(&self, pin: Option<Pin>, act: impl FnOnce(&Setup<'_>) -> T) -> T {
        let (out, ..) = captured(false);
        let python = Python::by([OsString::from("sh"), self.path("python.sh").into()]);
        act(&Setup { pin, folder: self.path("data/onnxruntime"), python, out: &out })
    }

    fn download(&self, dry_run: bool) -> Result<Report, Failure> {
        self.with(Some(self.pin.clone()), |setup| setup.download(dry_run))
    }

    fn install_from(&self, name: &str, unpinned: bool, dry_run: bool) -> Result<Report, Failure> {
        let file = self.path(name);
        self.with(Some(self.pin.clone()), |setup| setup.install_from(&file, unpinned, dry_run))
    }

    /// What is in the library's folder.
    fn installed(&self) -> Vec<(String, Vec<u8>)> {
        let Ok(entries) = fs::read_dir(self.path("data/onnxruntime")) else { return Vec::new() };
        let file = |path: PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        };
        entries.map(|entry| file(entry.unwrap().path())).collect()
    }
}

#[test]
fn a_download_is_checked_installed_and_not_repeated() {
    let machine = Machine::new();
    let dry = machine.download(true).unwrap();
    assert!(!dry.changed && dry.text().contains("9.9.9 would be downloaded to"), "{dry:?}");
    assert!(machine.installed().is_empty());
    let done = machine.download(false).unwrap();
    assert!(done.changed, "{done:?}");
    // The library and nothing else: no wheel and no temporary folder stay behind.
    assert_eq!(machine.installed(), [(LIBRARY.to_owned(), CONTENT.to_vec())]);
    let again = machine.download(false).unwrap();
    assert!(!again.changed && again.text().contains("already"), "{again:?}");
}

#[test]
fn a_broken_library_is_replaced() {
    let machine = Machine::new();
    fs::create_dir_all(machine.path("data/onnxruntime")).unwrap();
    fs::write(machine.path("data/onnxruntime").join(LIBRARY), b"\x7fELF half").unwrap();
    assert!(machine.download(false).unwrap().changed);
    assert_eq!(machine.installed(), [(LIBRARY.to_owned(), CONTENT.to_vec())]);
}

#[test]
fn other_bytes_than_the_pinned_are_never_installed() {
    let mut machine = Machine::new();
    machine.pin.library_sha256 = Digest::of(b"other");
    let failure = machine.download(false).unwrap_err().to_string();
    assert!(failure.contains("'libonnxruntime.so' is not the pinned file"), "{failure}");
    machine.pin.wheel_sha256 = Digest::of(b"other");
    for failure in [
        machine.download(false).unwrap_err().to_string(),
        machine.install_from(WHEEL, true, false).unwrap_err().to_string(),
    ] {
        assert!(failure.contains(WHEEL) && failure.contains("got sha256:"), "{failure}");
    }
    assert!(machine.installed().is_empty());
}

#[test]
fn a_failing_pip_is_quoted() {
    let mut machine = Machine::new();
    machine.pin.version = "0.0.0".to_owned();
    let failure = machine.download(false).unwrap_err().to_string();
    assert!(failure.contains("no matching onnxruntime==0.0.0"), "{failure}");
    assert!(failure.contains("--from FILE"), "{failure}");
}

#[test]
fn a_library_or_wheel_that_the_user_has_is_taken() {
    for name in [MEMBER, WHEEL] {
        let machine = Machine::new();
        assert!(!machine.install_from(name, false, true).unwrap().changed);
        assert!(machine.installed().is_empty());
        assert!(machine.install_from(name, false, false).unwrap().changed, "{name}");
        assert_eq!(machine.installed(), [(LIBRARY.to_owned(), CONTENT.to_vec())]);
        assert!(!machine.install_from(name, false, false).unwrap().changed, "{name}");
    }
}

#[test]
fn a_library_of_ones_own_needs_a_word_more() {
    let machine = Machine::new();
    fs::write(machine.path("mine.so"), b"\x7fELF mine").unwrap();
    let failure = machine.install_from("mine.so", false, false).unwrap_err();
    assert!(failure.to_string().contains("--unpinned"), "{failure}");
    let report = machine.install_from("mine.so", true, false).unwrap();
    assert!(report.changed && report.version.is_none(), "{report:?}");
    assert_eq!(machine.installed(), [(LIBRARY.to_owned(), b"\x7fELF mine".to_vec())]);

    fs::write(machine.path("text"), b"hello").unwrap();
    let failure = machine.install_from("text", true, false).unwrap_err();
    assert!(failure.to_string().contains("neither a shared library nor a wheel"), "{failure}");
    let missing = machine.install_from("none", false, false).unwrap_err();
    assert_eq!(missing.exit(), Exit::NotFound);
}

#[test]
fn a_machine_without_a_pin_is_told_the_other_way() {
    let machine = Machine::new();
    let failure = machine.with(None, |setup| setup.download(false)).unwrap_err();
    assert!(failure.to_string().contains("--unpinned"), "{failure}");
}
