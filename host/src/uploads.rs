//! Uploads by digest: blobs that come in pieces, and those that came whole and that no version names
//! yet. What there may be of them, and for how long.
//!
//! The bytes are the registry's; here is who may add to them. A blob that has come whole is held until
//! a version names it or its time is over.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Limits;
use crate::digest::Digest;
use crate::error::{Error, Kind};
use crate::limit::{Limit, Refusals};
use crate::publish::blob_error;
use crate::registry::{
    BlobLease, BlobStore as _, FileBlobs, FileRegistry, PartialError, PartialWriter, Snapshot,
};
use crate::version::BlobRef;

/// Every upload there is.
pub struct Uploads {
    limits: Limits,
    /// Blobs that came whole and wait for a name.
    waiting: Mutex<HashMap<Digest, Waiting>>,
}

/// A blob that waits for a version to name it.
struct Waiting {
    bytes: u64,
    since: Instant,
    /// Keeps it from being collected.
    _lease: BlobLease,
}

/// What the beginning of a request that sends part of a blob came to.
pub enum Begun {
    /// The blob is there already.
    Whole(BlobRef),
    /// What comes is written here.
    Part(PartialWriter),
}

impl Uploads {
    /// Finds what earlier processes left: it has its whole time anew, because nobody knows since when
    /// it waits. Where that cannot be found, those blobs are collected with the next change.
    pub fn open(registry: &FileRegistry, limits: Limits) -> Self {
        let uploads = Self { limits, waiting: Mutex::default() };
        match registry.hold_unreferenced() {
            Ok(held) => held.into_iter().for_each(|(blob, lease)| uploads.hold(blob, lease)),
            Err(error) => tracing::warn!(%error, "blobs that no version names are not held"),
        }
        uploads
    }

    /// Holds a blob until a version names it or its time is over; a second time, that begins anew.
    pub fn hold(&self, blob: BlobRef, lease: BlobLease) {
        let waiting = Waiting { bytes: blob.bytes, since: Instant::now(), _lease: lease };
        self.waiting().insert(blob.digest, waiting);
    }

    /// Holds a blob that has come, unless a version names it already.
    pub fn hold_unnamed(&self, snapshot: &Snapshot, blob: BlobRef, lease: BlobLease) {
        let mut versions = snapshot.iter().flat_map(|model| model.versions.values());
        if !versions.any(|version| version.record.blobs().any(|named| named == blob)) {
            self.hold(blob, lease);
        }
    }

    /// A version names these blobs now.
    pub fn named(&self, blobs: impl Iterator<Item = BlobRef>) {
        let mut waiting = self.waiting();
        blobs.for_each(|blob| drop(waiting.remove(&blob.digest)));
    }

    /// How many uploads there are, and their bytes at the lengths they were announced with.
    pub fn totals(&self, blobs: &FileBlobs) -> (u64, u64) {
        let waiting = self.waiting();
        totals(&waiting, blobs)
    }

    /// Begins a request that sends the bytes of a blob from `at` on. Blocks on the disk.
    ///
    /// # Errors
    /// What is wrong with the announced length, or with the place; or that there is no room.
    pub fn begin(
        &self,
        blobs: &FileBlobs,
        digest: Digest,
        length: Option<u64>,
        at: u64,
    ) -> Result<Begun, Error> {
        // Held to the end, so that nobody else takes the room meanwhile.
        let waiting = self.waiting();
        if let Some(bytes) = blobs.size(&digest).map_err(blob_error)? {
            return Ok(Begun::Whole(BlobRef { digest, bytes }));
        }
        let known = blobs.partial(&digest);
        let length = length.or(known.map(|known| known.length)).ok_or_else(|| {
            Error::new(Kind::BadRequest, "an upload begins with the length of the whole blob")
                .at("header Upload-Length")
                .upload_offset(0)
        })?;
        let limit = self.limits.asset_bytes;
        if length > limit {
            let text = format!("the blob's {length} bytes are over the limit of {limit}");
            return Err(Error::over(Kind::TooLarge, Limit::AssetBytes, text));
        }
        if known.is_none() {
            self.check_room(totals(&waiting, blobs), length)?;
        }
        blobs.resume(digest, length, at).map(Begun::Part).map_err(partial_error)
    }

    /// Lets go of what was kept for long enough; says whether there may be something to collect. Blocks
    /// on the disk.
    pub fn expire(&self, blobs: &FileBlobs, refusals: &Refusals) -> bool {
        let idle = Duration::from_secs(self.limits.upload_idle_s);
        match blobs.remove_idle_partials(idle) {
            Ok(removed) => (0..removed).for_each(|_| refusals.count(Limit::UploadIdle)),
            Err(error) => tracing::warn!(%error, "an abandoned upload could not be removed"),
        }
        let grace = Duration::from_secs(self.limits.upload_grace_s);
        let mut waiting = self.waiting();
        let before = waiting.len();
        waiting.retain(|_, blob| blob.since.elapsed() < grace);
        (waiting.len()..before).for_each(|_| refusals.count(Limit::UploadGrace));
        waiting.len() < before
    }

    fn check_room(&self, (count, bytes): (u64, u64), length: u64) -> Result<(), Error> {
        let limit = u64::from(self.limits.uploads);
        if count >= limit {
            let text = format!("{limit} uploads wait to be finished or named already");
            return Err(no_room(Limit::Uploads, text));
        }
        let limit = self.limits.uploads_bytes;
        if bytes.saturating_add(length) > limit {
            let text = format!(
                "the blob's {length} bytes do not fit beside the {bytes} of uploads that wait to be \
                 finished or named; all may have {limit}"
            );
            return Err(no_room(Limit::UploadsBytes, text));
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Digest, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn totals(waiting: &HashMap<Digest, Waiting>, blobs: &FileBlobs) -> (u64, u64) {
    let (count, bytes) = blobs.partials();
    let whole = waiting.values().map(|blob| blob.bytes);
    (count as u64 + waiting.len() as u64, whole.fold(bytes, u64::saturating_add))
}

fn no_room(limit: Limit, text: String) -> Error {
    Error::over(Kind::Overloaded, limit, text)
        .remedy("finish or publish what was begun, or send the file as a part of the publication")
}

/// How soon somebody who met another writer may try again: about as long as a request takes to end
/// whose caller has left.
const TAKEN: Duration = Duration::from_secs(1);

/// What a caller is told of a blob that cannot be gone on with.
pub fn partial_error(error: PartialError) -> Error {
    let text = error.to_string();
    match error {
        PartialError::Taken { .. } => Error::new(Kind::Conflict, text)
            .retry_after(TAKEN)
            .remedy("wait for it to end, then ask with HEAD where the upload goes on"),
        PartialError::Offset { expected, .. } => Error::new(Kind::Conflict, text)
            .at("header Upload-Offset")
            .upload_offset(expected)
            .remedy(format!("send the bytes from {expected} on")),
        PartialError::PastEnd { .. } => {
            Error::new(Kind::BadRequest, text).remedy("announce the length that the file has")
        }
        PartialError::OtherDigest { .. } => Error::new(Kind::BadRequest, text)
            .upload_offset(0)
            .remedy("check that the file did not change, then send it from its beginning"),
        PartialError::Blob(error) => blob_error(error),
    }
}
