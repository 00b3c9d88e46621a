//! The registry: which models, versions and aliases there are, who changed them and when.
//!
//! Truth is the journal, an append-only file of checksummed frames; sled holds an index that can be
//! thrown away; blobs are files. A change is decided by one pure function (`apply`), which the
//! commit and the replay at start share, and it is acknowledged once it is durable and visible in
//! the snapshot. Nothing here knows HTTP, engines or guests.
//!
//! Reading order: `snapshot` (what readers see), `change` (what writers ask for), `apply` (what it
//! does), `record` and `journal` (how it is kept), `commit` (when), `blobs`, `index`, `open` (how a
//! data directory is brought up), `inspect` (a journal alone), `disk` (the seam below all of them).

mod apply;
mod blobs;
mod change;
mod clock;
mod commit;
mod disk;
mod index;
mod inspect;
mod journal;
mod limits;
mod open;
mod record;
mod replay;
mod snapshot;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use blobs::{
    BlobError, BlobLease, BlobStore, BlobWriter, Collected, FileBlobs, PartialBlob, PartialError,
    PartialWriter,
};
pub use change::{Change, CommitError, CommitErrorKind, Committed, Expect, Op, Preview, Publish};
pub use clock::{Clock, SystemClock};
pub use commit::{CollectError, HistoryError};
pub use disk::{Disk, DiskFile, DiskLock, LockOutcome, RealDisk, SyncSite};
pub use inspect::JournalContents;
pub use journal::Tail as JournalTail;
pub use limits::{
    MAX_ACTOR_BYTES, MAX_ALIASES_PER_MODEL, MAX_HISTORY_ENTRIES, MAX_MODELS, MAX_RECORD_BYTES,
    MAX_TARGETS_PER_ALIAS, MAX_VERSIONS_PER_MODEL,
};
pub use open::{OpenError, OpenReport, TornTail};
pub use record::Entry;
pub use snapshot::{Alias, Model, ResolveError, Snapshot, Version, WeightedTarget};
pub use writer::FileRegistry;

/// The registry as the rest of the host uses it. Beyond one machine another store stands behind it.
pub trait Registry: Send + Sync {
    /// Everything that is published, as of the last commit. Takes no lock; a request reads it once
    /// and keeps what it read to its end.
    fn snapshot(&self) -> Arc<Snapshot>;

    /// Makes a change. Blocks until the change is durable and in the snapshot, so async callers go
    /// through a blocking thread. Leases of the blobs that a publish names must be held until this
    /// returns.
    ///
    /// # Errors
    /// When the change is refused (nothing happened), or when the registry became read-only before
    /// it was durable (it may be found after a restart; the message says so).
    fn commit(&self, change: Change) -> Result<Committed, CommitError>;

    /// Checks a change as `commit` would and changes nothing: a dry run.
    ///
    /// # Errors
    /// What `commit` would answer, but for a full queue.
    fn check(&self, change: &Change) -> Result<Preview, CommitError>;

    /// The changes of a model, newest first, at most `limit` and [`MAX_HISTORY_ENTRIES`]. A deleted
    /// model keeps its history.
    ///
    /// # Errors
    /// When no change ever named the model, or the journal cannot be read.
    fn history(&self, model: &str, limit: usize) -> Result<Vec<Entry>, HistoryError>;

    /// Whether changes are taken, and if not, why.
    fn status(&self) -> Status;
}

/// Whether the registry takes changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It does.
    Writable,
    /// It serves what it has and takes no change until a restart.
    ReadOnly {
        /// What happened, where, and what to do about it.
        reason: String,
    },
}

/// Locks, and goes on where a thread panicked while it held the lock: what the locks here guard is
/// whole after every statement.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
