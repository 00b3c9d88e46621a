//! When a change happens: the one committer, and what it shares with readers.
//!
//! The order within a frame is the registry's promise: references held, blobs there, records
//! decided one after the other, frame durable, snapshot out, references let go, callers answered,
//! index brought up.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use super::apply::{Delta, apply};
use super::blobs::{BlobError, BlobLease, BlobStore as _, Collected, FileBlobs};
use super::change::{Change, CommitError, Committed, Op, Preview};
use super::clock::Clock;
use super::disk::Disk;
use super::index::{Index, IndexKeeper, IndexPosition, ModelUpdate, Reference, references_in};
use super::journal::Journal;
use super::limits::{self, MAX_HISTORY_ENTRIES};
use super::record::{Entry, Record, Tip};
use super::replay::{Span, Spans};
use super::snapshot::Snapshot;
use super::{Status, locked};
use crate::digest::Digest;
use crate::names::ModelName;
use crate::version::BlobRef;

/// What the committer shares with everybody who reads.
pub(super) struct Shared {
    /// Everything that is published.
    pub(super) snapshot: ArcSwap<Snapshot>,
    /// Whether changes are taken.
    pub(super) status: ArcSwap<Status>,
    /// Where each model's records stand in the journal.
    pub(super) spans: Mutex<Spans>,
    /// The index, if there is a usable one.
    pub(super) index: Mutex<Option<Arc<dyn Index>>>,
    /// The blobs that versions reference.
    pub(super) blobs: FileBlobs,
    /// The disk that all of it is on.
    pub(super) disk: Arc<dyn Disk>,
    /// The journal's file, for reading history.
    pub(super) journal: PathBuf,
    /// Says what time it is.
    pub(super) clock: Arc<dyn Clock>,
}

/// The one that changes things.
pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) journal: Journal,
    /// What the next record must follow.
    pub(super) tip: Tip,
    pub(super) index: IndexKeeper,
    /// What the index does not hold yet.
    pub(super) for_index: Vec<ModelUpdate>,
}

/// Why history cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// No change ever named the model.
    #[error("model '{model}' has no history; no change ever named it")]
    NotFound {
        /// As it was asked for, as far as a name can be long.
        model: String,
    },
    /// The journal cannot be read.
    #[error("the history cannot be read from the journal: {what}")]
    Journal {
        /// Why not.
        what: String,
    },
}

/// Why blobs were not collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// What is referenced is not known for sure.
    #[error("nothing is collected while the registry is read-only: {reason}")]
    ReadOnly {
        /// Why it is.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

/// A frame in the making: the state as it will be, and what callers will be told.
struct Frame {
    state: Snapshot,
    tip: Tip,
    payload: Vec<u8>,
    /// Each record's model, and its place within the payload.
    spans: Vec<(ModelName, Span)>,
    updates: Vec<ModelUpdate>,
    answers: Vec<Result<Committed, CommitError>>,
}

impl Shared {
    /// Checks a change as a commit would.
    pub(super) fn check(&self, change: &Change) -> Result<Preview, CommitError> {
        self.writable()?;
        let state = self.snapshot.load();
        // Only the previewed id and epoch depend on the tip, and nobody keeps those.
        let (_, delta) = self.decide(&state, change, &Tip::default())?;
        Ok(Preview { changed: delta.changed, before: delta.before, after: delta.after })
    }

    /// Refuses where the registry is read-only.
    pub(super) fn writable(&self) -> Result<(), CommitError> {
        match self.status.load().as_ref() {
            Status::Writable => Ok(()),
            Status::ReadOnly { reason } => Err(CommitError::ReadOnly { reason: reason.clone() }),
        }
    }

    /// The changes of a model, newest first.
    pub(super) fn history(&self, model: &str, limit: usize) -> Result<Vec<Entry>, HistoryError> {
        let spans: Vec<Span> = match locked(&self.spans).get(model) {
            Some(spans) => {
                spans.iter().rev().take(limit.min(MAX_HISTORY_ENTRIES)).copied().collect()
            }
            None => {
                return Err(HistoryError::NotFound { model: model.chars().take(64).collect() });
            }
        };
        let failed = |what: String| HistoryError::Journal { what };
        let file = self.disk.open(&self.journal).map_err(|error| failed(error.to_string()))?;
        let entry = |span: Span| {
            let line = file.read_at(span.at, span.bytes as usize);
            let line = line.map_err(|error| failed(error.to_string()))?;
            let record = Record::decode(&line)
                .map_err(|error| failed(format!("record at byte {}: {error}", span.at)))?;
            Ok(record.into())
        };
        spans.into_iter().map(entry).collect()
    }

    /// The versions that reference a blob.
    pub(super) fn references(&self, digest: &Digest) -> Vec<Reference> {
        let snapshot = self.snapshot.load();
        let index = locked(&self.index).clone();
        // The index follows a moment after the snapshot; until then the snapshot answers.
        let up = |index: &Arc<dyn Index>| {
            index.position().is_ok_and(|position| position.epoch == snapshot.epoch)
        };
        let indexed = index.filter(up).and_then(|index| index.references(digest).ok());
        indexed.unwrap_or_else(|| references_in(&snapshot, digest))
    }

    /// Removes the blobs that nothing references.
    pub(super) fn collect(&self) -> Result<Collected, CollectError> {
        if let Status::ReadOnly { reason } = self.status.load().as_ref() {
            // What the journal lost may have referenced blobs that seem unused.
            return Err(CollectError::ReadOnly { reason: reason.clone() });
        }
        let referenced = std::cell::OnceCell::new();
        // First asked when no commit can happen any more, so the snapshot read then is the last.
        let is_referenced = |digest: &Digest| {
            let blobs = referenced.get_or_init(|| blobs_of(&self.snapshot.load()));
            blobs.contains(digest)
        };
        Ok(self.blobs.collect(&is_referenced)?)
    }

    /// Holds the blobs that no version references at this moment.
    pub(super) fn hold_unreferenced(&self) -> Result<Vec<(BlobRef, BlobLease)>, BlobError> {
        let referenced = blobs_of(&self.snapshot.load());
        self.blobs.hold_unreferenced(&|digest| referenced.contains(digest))
    }

    /// Decides a change: the line to be kept, its record as it reads back, and what it does.
    fn decide(
        &self,
        state: &Snapshot,
        change: &Change,
        tip: &Tip,
    ) -> Result<((Vec<u8>, Record), Delta), CommitError> {
        limits::check(state, change)?;
        let (line, record) = Record::of(state, change, tip, self.clock.now_ms()).encode()?;
        let delta = apply(state, &record)?;
        if let (Op::Publish(publish), true) = (&record.change, delta.changed) {
            let lacking = publish.record.blobs().find(|blob| !self.blobs.is_held(blob));
            if let Some(blob) = lacking {
                return Err(CommitError::BlobNotHeld { digest: blob.digest, bytes: blob.bytes });
            }
        }
        Ok(((line, record), delta))
    }
}

impl Committer {
    /// Makes changes, at most a frame of them, each answered in its place. Once this returns, what
    /// was answered with success is durable and in the snapshot.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Vec<Result<Committed, CommitError>> {
        debug_assert!(changes.len() <= limits::MAX_RECORDS_PER_FRAME);
        if let Err(error) = self.shared.writable() {
            return changes.iter().map(|_| Err(error.clone())).collect();
        }
        let shared = Arc::clone(&self.shared);
        let _no_collection = shared.blobs.hold_references();
        let mut frame = Frame::new(Snapshot::clone(&shared.snapshot.load()), self.tip);
        for change in changes {
            let answer = frame.add(&shared, change);
            frame.answers.push(answer);
        }
        // Even answers that changed nothing speak of what stands in this frame.
        match self.keep(&frame) {
            Ok(()) => {
                self.tip = frame.tip;
                self.for_index.append(&mut frame.updates);
                shared.snapshot.store(Arc::new(frame.state));
                frame.answers
            }
            Err(reason) => {
                tracing::error!(reason, "the registry is read-only until a restart");
                shared.status.store(Arc::new(Status::ReadOnly { reason: reason.clone() }));
                let refused = |_| Err(CommitError::ReadOnly { reason: reason.clone() });
                changes.iter().map(refused).collect()
            }
        }
    }

    /// Brings the index up with what was committed. Nobody waits for it.
    pub(super) fn bring_index_up(&mut self) {
        if self.for_index.is_empty() {
            return;
        }
        let snapshot = self.shared.snapshot.load_full();
        let position = IndexPosition { epoch: snapshot.epoch, chain: self.tip.chain };
        if let Some(repair) = self.index.follow(position, &self.for_index, &snapshot) {
            tracing::warn!(repair, "the registry's index was damaged");
            *locked(&self.shared.index) = self.index.index();
        }
        self.for_index.clear();
    }

    /// Makes the frame durable and notes where its records stand.
    fn keep(&mut self, frame: &Frame) -> Result<(), String> {
        if frame.payload.is_empty() {
            return Ok(());
        }
        let begin = self.journal.append(&frame.payload).map_err(|error| {
            let journal = self.shared.journal.display();
            format!(
                "writing {journal} failed ({error}); the last changes may or may not be there after a restart; see to the disk, then restart"
            )
        })?;
        let mut spans = locked(&self.shared.spans);
        for (model, span) in &frame.spans {
            let span = Span { at: begin + span.at, bytes: span.bytes };
            spans.entry(model.clone()).or_default().push(span);
        }
        Ok(())
    }
}

impl Frame {
    fn new(state: Snapshot, tip: Tip) -> Self {
        let (payload, spans, updates, answers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { state, tip, payload, spans, updates, answers }
    }

    /// Adds a change's record, unless the change is refused or changes nothing.
    fn add(&mut self, shared: &Shared, change: &Change) -> Result<Committed, CommitError> {
        let ((line, record), delta) = shared.decide(&self.state, change, &self.tip)?;
        if delta.changed {
            let at = self.payload.len() as u64;
            // A record's bytes are under a limit that fits 32 bits.
            let bytes = u32::try_from(line.len()).unwrap_or(u32::MAX);
            self.spans.push((delta.model.clone(), Span { at, bytes }));
            self.payload.extend_from_slice(&line);
            self.payload.push(b'\n');
            self.tip = Tip::after(&record, &line);
            self.state.put(&delta.model, delta.after.clone());
            self.state.epoch = record.epoch;
            self.updates.push(delta.clone().into());
        }
        let Delta { changed, before, after, .. } = delta;
        Ok(Committed { epoch: self.state.epoch, changed, before, after })
    }
}

/// The blobs that any version references.
fn blobs_of(snapshot: &Snapshot) -> std::collections::HashSet<Digest> {
    let versions = snapshot.iter().flat_map(|model| model.versions.values());
    versions.flat_map(|version| version.record.blobs()).map(|blob| blob.digest).collect()
}
