//! The registry in a data directory: one thread that writes, and a bounded queue before it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use super::blobs::{BlobError, BlobLease, Collected, FileBlobs};
use super::change::{Change, CommitError, Committed, Preview};
use super::clock::Clock;
use super::commit::{CollectError, Committer, HistoryError, Shared};
use super::disk::{Disk, DiskLock};
use super::index::{IndexStore, SledStore};
use super::limits::{MAX_QUEUED_CHANGES, MAX_RECORDS_PER_FRAME};
use super::open::{INDEX_FOLDER, OpenError, OpenReport, Opened, open};
use super::record::Entry;
use super::snapshot::Snapshot;
use super::{Registry, Status};
use crate::digest::Digest;
use crate::names::{ModelName, VersionName};
use crate::version::BlobRef;

/// The registry in a data directory. Dropped, it finishes what is queued.
pub struct FileRegistry {
    shared: Arc<Shared>,
    /// Taken out when the registry is dropped, which lets the writer end.
    queue: Option<SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
    /// Keeps other servers out; given back after the writer has ended.
    _lock: DiskLock,
}

/// A change that waits for the writer.
struct Job {
    change: Change,
    answer: SyncSender<Answer>,
}

type Answer = Result<Committed, CommitError>;

impl FileRegistry {
    /// Opens the registry in `root`, which is made if it is not there, and says what it found.
    ///
    /// The state is replayed from the journal; the index is only brought up with it. A journal that
    /// is damaged, or that ends before what the index has seen, opens read-only.
    ///
    /// # Errors
    /// When another process has the directory open, a newer program wrote it, or the disk refuses.
    pub fn open(
        root: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, OpenReport), OpenError> {
        let index = SledStore::new(root.join(INDEX_FOLDER));
        Self::open_with(root, disk, clock, Box::new(index))
    }

    pub(super) fn open_with(
        root: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        index: Box<dyn IndexStore>,
    ) -> Result<(Self, OpenReport), OpenError> {
        let Opened { committer, report, lock } = open(root, disk, clock, index)?;
        let shared = Arc::clone(&committer.shared);
        let (queue, jobs) = sync_channel(MAX_QUEUED_CHANGES);
        let writer = std::thread::Builder::new()
            .name("registry-writer".to_owned())
            .spawn(move || write(committer, &jobs))
            .map_err(OpenError::Thread)?;
        let registry = Self { shared, queue: Some(queue), writer: Some(writer), _lock: lock };
        Ok((registry, report))
    }

    /// The blobs that versions reference.
    pub fn blobs(&self) -> &FileBlobs {
        &self.shared.blobs
    }

    /// Removes the blobs that no version references and no lease holds.
    ///
    /// # Errors
    /// When the registry is read-only, or the store fails.
    pub fn collect(&self) -> Result<Collected, CollectError> {
        self.shared.collect()
    }

    /// Holds every blob that no version references, so that it is not collected.
    ///
    /// # Errors
    /// When the store fails.
    pub fn hold_unreferenced(&self) -> Result<Vec<(BlobRef, BlobLease)>, BlobError> {
        self.shared.hold_unreferenced()
    }

    /// What a caller is told when the writer is gone, which only a panic explains.
    fn writer_ended(&self) -> CommitError {
        let reason = "its writer has ended; the log says why; restart".to_owned();
        self.shared.status.store(Arc::new(Status::ReadOnly { reason: reason.clone() }));
        CommitError::ReadOnly { reason }
    }

    /// The versions that reference a blob, from the index where it is up.
    pub fn references(&self, digest: &Digest) -> Vec<(ModelName, VersionName)> {
        self.shared.references(digest)
    }
}

impl fmt::Debug for FileRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.shared.status.load();
        f.debug_struct("FileRegistry").field("status", &status).finish_non_exhaustive()
    }
}

impl Registry for FileRegistry {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    fn commit(&self, change: Change) -> Result<Committed, CommitError> {
        self.shared.writable()?;
        let gone = || self.writer_ended();
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        let answered = enqueue(queue, change).map_err(|full| full.unwrap_or_else(gone))?;
        answered.recv().unwrap_or_else(|_| Err(gone()))
    }

    fn check(&self, change: &Change) -> Result<Preview, CommitError> {
        self.shared.check(change)
    }

    fn history(&self, model: &str, limit: usize) -> Result<Vec<Entry>, HistoryError> {
        self.shared.history(model, limit)
    }

    fn status(&self) -> Status {
        Status::clone(&self.shared.status.load())
    }
}

impl Drop for FileRegistry {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so; there is nothing left to do about it here.
            let _ = writer.join();
        }
    }
}

/// Puts a change into the queue; answers where its answer will come. Refused where the queue is
/// full, or with nothing to say where nobody serves it.
fn enqueue(
    queue: &SyncSender<Job>,
    change: Change,
) -> Result<Receiver<Answer>, Option<CommitError>> {
    let (answer, answered) = sync_channel(1);
    match queue.try_send(Job { change, answer }) {
        Ok(()) => Ok(answered),
        Err(TrySendError::Full(_)) => {
            Err(Some(CommitError::Overloaded { limit: MAX_QUEUED_CHANGES }))
        }
        Err(TrySendError::Disconnected(_)) => Err(None),
    }
}

/// Serves the queue until the registry is dropped: whatever waits goes into one frame.
fn write(mut committer: Committer, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let waiting = jobs.try_iter().take(MAX_RECORDS_PER_FRAME - 1);
        let (changes, callers): (Vec<_>, Vec<_>) =
            std::iter::once(first).chain(waiting).map(|job| (job.change, job.answer)).unzip();
        let answers = committer.commit(&changes);
        for (caller, answer) in callers.iter().zip(answers) {
            // A caller that has gone does not undo the change.
            let _ = caller.send(answer);
        }
        committer.bring_index_up();
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::Op;
    use super::*;

    #[test]
    fn a_full_queue_sheds_and_a_dead_one_says_so() {
        let change =
            Change { actor: String::new(), op: Op::DeleteModel { model: "m".parse().unwrap() } };
        let (queue, jobs) = sync_channel(MAX_QUEUED_CHANGES);
        for _ in 0..MAX_QUEUED_CHANGES {
            enqueue(&queue, change.clone()).unwrap();
        }
        let full = Err(Some(CommitError::Overloaded { limit: MAX_QUEUED_CHANGES }));
        assert_eq!(enqueue(&queue, change.clone()).map(|_| ()), full);
        drop(jobs);
        assert_eq!(enqueue(&queue, change).map(|_| ()), Err(None));
    }
}
