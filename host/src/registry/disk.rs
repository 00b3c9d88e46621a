//! The seam below the registry: the few things it does to a disk, as a trait, so that tests can
//! lose writes, renames and directory entries, fail a sync, and fill the disk.
//!
//! What is written is durable only after the sync of the file (its bytes) and of the folder (its
//! name). Each such sync has a name, and a test shows for each that leaving it out loses something.

mod real;
#[cfg(test)]
mod sim;

use std::any::Any;
use std::io;
use std::path::Path;

pub use real::RealDisk;
#[cfg(test)]
pub(super) use sim::{Fault, SimDisk};

/// Where a sync is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SyncSite {
    /// The folders above a new data directory: its own name, and theirs.
    Parents,
    /// The bytes of `format`, before it gets its name.
    FormatData,
    /// The data directory: the names `format`, `journal` and `blobs`.
    Root,
    /// The folder `journal`: the names of the journal and of torn tails moved aside.
    JournalFolder,
    /// The bytes of a torn tail moved aside, before it is cut off the journal.
    TornData,
    /// The journal as it was found, before anything is answered from it.
    JournalTail,
    /// A frame, before its changes are acknowledged.
    JournalFrame,
    /// The folder `blobs`: the name `sha256`.
    BlobRoot,
    /// The folder `blobs/sha256`: the name of one of its 256 folders.
    BlobShard,
    /// The bytes of a blob, before it gets its name.
    BlobData,
    /// A blob's folder: its name.
    BlobFolder,
    /// The folder of a blob that was there already: whoever put it there may not have come to it.
    BlobHit,
}

impl SyncSite {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Parents,
        Self::FormatData,
        Self::Root,
        Self::JournalFolder,
        Self::TornData,
        Self::JournalTail,
        Self::JournalFrame,
        Self::BlobRoot,
        Self::BlobShard,
        Self::BlobData,
        Self::BlobFolder,
        Self::BlobHit,
    ];
}

/// A disk. Every call may block on it.
pub trait Disk: Send + Sync {
    /// Makes a folder, and those above it; is content if it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a file, which must not be there yet.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// The length of a file in bytes; none if it is not there.
    fn size(&self, path: &Path) -> io::Result<Option<u64>>;
    /// The names in a folder, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Gives a file another name, in place of any file of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path, site: SyncSite) -> io::Result<()>;
    /// Takes the file as a lock, until the lock is dropped or the process ends, and writes `holder`
    /// into it for others to read.
    fn lock(&self, path: &Path, holder: &str) -> io::Result<LockOutcome>;

    /// The bytes of a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        let bytes = usize::try_from(file.size()?).map_err(io::Error::other)?;
        file.read_at(0, bytes)
    }
}

/// An open file.
pub trait DiskFile: Send {
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// The bytes from `at`, fewer where the file ends before.
    fn read_at(&self, at: u64, bytes: usize) -> io::Result<Vec<u8>>;
    /// Writes all bytes at `at`. After an error any part of them may be written.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to a length.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
    /// Makes the file's bytes and length durable. After an error they may be lost, even if a later
    /// sync succeeds.
    fn sync_data(&mut self, site: SyncSite) -> io::Result<()>;
}

/// A lock that is given back when dropped.
pub struct DiskLock {
    _held: Box<dyn Any + Send + Sync>,
}

impl DiskLock {
    /// A lock held as long as `held` lives.
    pub fn new(held: impl Any + Send + Sync) -> Self {
        Self { _held: Box::new(held) }
    }
}

/// What came of trying to lock.
pub enum LockOutcome {
    /// It is ours.
    Held(DiskLock),
    /// It is another's, who wrote this.
    HeldBy(String),
}
