//! What gates found out, remembered by digest, so that neither a restart nor a second version with the
//! same bytes does the work again.
//!
//! One small file a verdict, written beside and renamed. A file that cannot be read as what is looked
//! for is not there: the gate does its work again, and that is all a lost verdict costs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Raised whenever a gate would judge otherwise than before; what was remembered is then forgotten.
const GATES_VERSION: u32 = 1;

/// Bytes of a verdict's file: some hundred, or a refusal with its reason.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Of the verdicts there may be, the share that goes when there are too many: one sweep reads the whole
/// folder.
const SWEPT_SHARE: usize = 4;

/// A kind of verdict: the first part of its files' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictKind {
    /// What a component is without compiling it.
    Component,
    /// Whether it compiles and fits.
    Code,
    /// Whether a graph loads and runs.
    Graph,
}

impl VerdictKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Code => "code",
            Self::Graph => "graph",
        }
    }
}

/// What a verdict is about: the digest of everything that it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerdictKey {
    kind: VerdictKind,
    digest: Digest,
}

// Kinds are few and the digest decides.
impl std::hash::Hash for VerdictKind {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl VerdictKey {
    /// The key of what depends on exactly `parts`, in this order, and on this version of the gates.
    pub fn new(kind: VerdictKind, parts: &impl Serialize) -> Self {
        let parts =
            serde_json::to_vec(&(GATES_VERSION, env!("CARGO_PKG_VERSION"), kind.as_str(), parts));
        let parts = parts.expect("parts are digests, names and numbers, which are always JSON");
        Self { kind, digest: Digest::of(&parts) }
    }

    fn file_name(&self) -> String {
        format!("{}-{}.json", self.kind.as_str(), self.digest.hex())
    }
}

/// A verdict as its file holds it, with its own name: a file that was moved or mixed up is none.
#[derive(Serialize, Deserialize)]
struct File<T> {
    key: String,
    verdict: T,
}

/// The verdicts of a host.
#[derive(Debug)]
pub struct Verdicts {
    folder: PathBuf,
    /// Files there may be; `gate.verdicts`.
    most: usize,
    /// Files there are, about: two that are written at once over the limit sweep twice.
    count: AtomicUsize,
}

impl Verdicts {
    /// Verdicts kept in `folder`, readable by this user only, `most` of them at most.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(folder: PathBuf, most: usize) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let count = AtomicUsize::new(fs::read_dir(&folder)?.count());
        Ok(Self { folder, most: most.max(1), count })
    }

    /// What is remembered under `key`. Reads one small file.
    pub fn find<T: DeserializeOwned>(&self, key: &VerdictKey) -> Option<T> {
        let path = self.folder.join(key.file_name());
        if fs::metadata(&path).ok()?.len() > MAX_FILE_BYTES {
            return None;
        }
        let file: File<T> = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        (file.key == key.file_name()).then_some(file.verdict)
    }

    /// Remembers a verdict. A disk that does not take it is told to the operator and costs only the
    /// work of the next time.
    pub fn remember<T: Serialize>(&self, key: &VerdictKey, verdict: &T) {
        if let Err(error) = self.write(key, verdict) {
            tracing::warn!(%error, folder = %self.folder.display(), "a verdict cannot be kept");
        }
    }

    fn write<T: Serialize>(&self, key: &VerdictKey, verdict: &T) -> io::Result<()> {
        if self.count.load(Ordering::Relaxed) >= self.most {
            self.sweep()?;
        }
        let path = self.folder.join(key.file_name());
        let new = !path.exists();
        let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(&self.folder)?;
        serde_json::to_writer(&mut file, &File { key: key.file_name(), verdict })?;
        // Not synced: what a crash cuts short is not read, and made again.
        file.persist(&path).map_err(|error| error.error)?;
        if new {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Forgets the oldest verdicts, so that a publisher of ever new bytes does not fill the disk.
    fn sweep(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        files.sort();
        let kept = self.most - self.most.div_ceil(SWEPT_SHARE);
        let swept = files.len().saturating_sub(kept);
        for (_, path) in files.iter().take(swept) {
            fs::remove_file(path)?;
        }
        self.count.store(files.len() - swept, Ordering::Relaxed);
        Ok(())
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> VerdictKey {
        VerdictKey::new(VerdictKind::Graph, &name)
    }

    #[test]
    fn a_verdict_is_remembered_through_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Verdicts::open(folder.path().join("verdicts"), 10).unwrap();
        assert_eq!(open().find::<u32>(&key("a")), None);
        open().remember(&key("a"), &7);
        assert_eq!(open().find(&key("a")), Some(7));
        assert_eq!(open().find::<u32>(&key("b")), None);
    }

    #[test]
    fn kinds_and_parts_make_different_keys() {
        let digests = [
            VerdictKey::new(VerdictKind::Graph, &"a"),
            VerdictKey::new(VerdictKind::Code, &"a"),
            VerdictKey::new(VerdictKind::Graph, &("a", "b")),
            VerdictKey::new(VerdictKind::Graph, &"ab"),
        ]
        .map(|key| key.digest);
        assert_eq!(digests.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn what_is_not_whole_or_not_the_verdict_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let verdicts = Verdicts::open(folder.path().to_owned(), 10).unwrap();
        verdicts.remember(&key("a"), &7);
        let path = folder.path().join(key("a").file_name());
        let whole = fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], b"", b"\0\0\0\0", b"{}", b"{\"verdict\":7}"] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(verdicts.find::<u32>(&key("a")), None);
        }
        // The verdict of one under the name of another.
        fs::write(folder.path().join(key("b").file_name()), &whole).unwrap();
        assert_eq!(verdicts.find::<u32>(&key("b")), None);
        verdicts.remember(&key("a"), &8);
        assert_eq!(verdicts.find(&key("a")), Some(8));
    }

    #[test]
    fn past_the_limit_old_verdicts_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let verdicts = Verdicts::open(folder.path().to_owned(), 8).unwrap();
        for number in 0..30 {
            verdicts.remember(&key(&number.to_string()), &number);
            assert!(fs::read_dir(folder.path()).unwrap().count() <= 8);
        }
        assert_eq!(verdicts.find(&key("29")), Some(29));
        assert_eq!(verdicts.find::<i32>(&key("0")), None);
    }
}
