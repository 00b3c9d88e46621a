//! Blobs that come in pieces: files that grow until they are whole, and outlive the server in between.
//!
//! Such a file is named by the digest and the length that it is to have, so that nothing else needs to
//! be remembered of it. It is synced when it is whole, as every blob is before it gets its name, and
//! not before: after a power loss its bytes may not be those that were sent. The digest tells at the
//! end, and the upload begins anew.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::{BlobError, BlobLease, DiskFile, Draft, FileBlobs, Store, failed, locked};
use crate::digest::Digest;
use crate::version::BlobRef;

/// Bytes read at a time while a file is hashed.
const READ_BYTES: usize = 1 << 20;

/// The partial blobs by the digest they are to have.
pub(super) type Partials = HashMap<Digest, Partial>;

/// How far a partial blob has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialBlob {
    /// The bytes that have come.
    pub bytes: u64,
    /// The bytes it is to have.
    pub length: u64,
}

/// A blob of which some bytes have come.
pub(super) struct Partial {
    state: PartialBlob,
    /// The hash of what has come; none if an earlier process wrote some of it.
    hasher: Option<Sha256>,
    /// Whether somebody writes it now.
    is_taken: bool,
    /// When somebody last wrote it, or when it was found at start.
    touched: Instant,
}

/// Why a partial blob cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum PartialError {
    /// Somebody else writes it.
    #[error("another request sends blob {digest} just now")]
    Taken {
        /// Which.
        digest: Digest,
    },
    /// It goes on elsewhere.
    #[error("the upload of blob {digest} goes on at byte {expected}, not at {at}")]
    Offset {
        /// Which.
        digest: Digest,
        /// Where it goes on.
        expected: u64,
        /// Where it was to go on.
        at: u64,
    },
    /// More came than was announced.
    #[error("blob {digest} was announced with {length} bytes, and more came")]
    PastEnd {
        /// Which.
        digest: Digest,
        /// The bytes it is to have.
        length: u64,
    },
    /// It is not what it was announced as. Nothing of it is kept.
    #[error("the bytes that came have the digest {found}, not {digest}; nothing of them is kept")]
    OtherDigest {
        /// Which it was to be.
        digest: Digest,
        /// Which it is.
        found: Digest,
    },
    /// The store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// A partial blob that is being gone on with. Dropped, it stays for the next one.
pub struct PartialWriter {
    draft: Draft,
    digest: Digest,
    state: PartialBlob,
    hasher: Option<Sha256>,
    /// Whether nobody goes on with it: it is a blob, or came to nothing.
    is_over: bool,
}

impl FileBlobs {
    /// How far a partial blob has come; none if nothing of it is there.
    pub fn partial(&self, digest: &Digest) -> Option<PartialBlob> {
        locked(&self.0.partials).get(digest).map(|partial| partial.state)
    }

    /// How many partial blobs there are, and the bytes they are to have.
    pub fn partials(&self) -> (usize, u64) {
        let partials = locked(&self.0.partials);
        let lengths = partials.values().map(|partial| partial.state.length);
        (partials.len(), lengths.fold(0, u64::saturating_add))
    }

    /// Goes on with a blob of `length` bytes at byte `at`, or begins it. One that was announced with
    /// another length begins anew.
    ///
    /// # Errors
    /// When somebody else writes it, it goes on elsewhere, or the disk refuses.
    pub fn resume(
        &self,
        digest: Digest,
        length: u64,
        at: u64,
    ) -> Result<PartialWriter, PartialError> {
        let store = Arc::clone(&self.0);
        let mut partials = locked(&store.partials);
        let known = partials.get(&digest);
        if known.is_some_and(|known| known.is_taken) {
            return Err(PartialError::Taken { digest });
        }
        let other = known.filter(|known| known.state.length != length).map(|known| known.state);
        let expected = known.filter(|_| other.is_none()).map_or(0, |known| known.state.bytes);
        if at != expected {
            return Err(PartialError::Offset { digest, expected, at });
        }
        if let Some(other) = other {
            store.put_away_partial(&digest, other)?;
            partials.remove(&digest);
        }
        let path = store.partial_path(&digest, length);
        let is_new = !partials.contains_key(&digest);
        let file = match is_new {
            true => store.create_partial(&path),
            false => store.disk.open(&path),
        };
        let file = file.map_err(|error| {
            // Whoever took the file away has the upload begin anew.
            partials.remove(&digest);
            failed("opening", &path)(error)
        })?;
        let state = PartialBlob { bytes: at, length };
        let taken = partials.entry(digest).or_insert_with(|| Partial::new(state));
        taken.is_taken = true;
        let hasher = if is_new { Some(Sha256::new()) } else { taken.hasher.take() };
        let draft = Draft { store: Arc::clone(&self.0), file, path, stays: true };
        Ok(PartialWriter { draft, digest, state, hasher, is_over: false })
    }

    /// Removes the partial blobs that nobody has written for so long; says how many there were.
    ///
    /// # Errors
    /// When the disk refuses; what was not removed is met again.
    pub fn remove_idle_partials(&self, idle: Duration) -> Result<u64, BlobError> {
        let removed = self.0.put_away_idle_partials(idle)?;
        // Freeing large files takes its time, so it happens when uploads go on.
        self.0.empty(&self.0.trash)?;
        Ok(removed)
    }
}

impl Store {
    fn put_away_idle_partials(&self, idle: Duration) -> Result<u64, BlobError> {
        let mut partials = locked(&self.partials);
        let is_idle = |partial: &Partial| !partial.is_taken && partial.touched.elapsed() >= idle;
        let idle = partials.iter().filter(|(_, partial)| is_idle(partial));
        let idle: Vec<_> = idle.map(|(digest, partial)| (*digest, partial.state)).collect();
        for (digest, state) in &idle {
            self.put_away_partial(digest, *state)?;
            partials.remove(digest);
        }
        Ok(idle.len() as u64)
    }
}

impl PartialWriter {
    /// How far it has come.
    pub fn state(&self) -> PartialBlob {
        self.state
    }

    /// Whether all of it has come.
    pub fn is_whole(&self) -> bool {
        self.state.bytes == self.state.length
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// When more come than were announced, of which none is taken, or the disk refuses.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PartialError> {
        let end = self.state.bytes.saturating_add(bytes.len() as u64);
        if end > self.state.length {
            let (digest, length) = (self.digest, self.state.length);
            return Err(PartialError::PastEnd { digest, length });
        }
        self.draft.write_at(self.state.bytes, bytes)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.state.bytes = end;
        if let Some(partial) = locked(&self.draft.store.partials).get_mut(&self.digest) {
            partial.state = self.state;
        }
        Ok(())
    }

    /// Makes the blob, of which all bytes have come, durable under its digest.
    ///
    /// # Errors
    /// When it has another digest, or the disk refuses; then nothing is kept: what a disk did not
    /// write when it was told to may be lost although it can still be read.
    pub fn finish(mut self) -> Result<(BlobRef, BlobLease), PartialError> {
        self.is_over = true;
        let settled = self.settle();
        self.draft.stays &= settled.is_ok();
        settled
    }

    fn settle(&mut self) -> Result<(BlobRef, BlobLease), PartialError> {
        let found = match self.hasher.take() {
            Some(hasher) => Digest::from_hasher(hasher),
            None => self.hash()?,
        };
        if found != self.digest {
            return Err(PartialError::OtherDigest { digest: self.digest, found });
        }
        let blob = BlobRef { digest: found, bytes: self.state.bytes };
        Ok((blob, self.draft.settle(&blob)?))
    }

    /// The digest of what the file holds.
    fn hash(&self) -> Result<Digest, BlobError> {
        let (mut hasher, mut at) = (Sha256::new(), 0);
        loop {
            let read = self.draft.file.read_at(at, READ_BYTES);
            let read = read.map_err(failed("reading", &self.draft.path))?;
            if read.is_empty() {
                return Ok(Digest::from_hasher(hasher));
            }
            hasher.update(&read);
            at += read.len() as u64;
        }
    }
}

impl Drop for PartialWriter {
    fn drop(&mut self) {
        let store = Arc::clone(&self.draft.store);
        let mut partials = locked(&store.partials);
        if self.is_over {
            if !self.draft.stays {
                // Before anybody can begin it anew. Should it fail, the next one empties the file.
                let _ = store.put_away_partial(&self.digest, self.state);
                self.draft.stays = true;
            }
            partials.remove(&self.digest);
        } else if let Some(partial) = partials.get_mut(&self.digest) {
            partial.hasher = self.hasher.take();
            partial.is_taken = false;
            partial.touched = Instant::now();
        }
    }
}

impl Partial {
    fn new(state: PartialBlob) -> Self {
        Self { state, hasher: None, is_taken: false, touched: Instant::now() }
    }
}

impl Store {
    fn partial_path(&self, digest: &Digest, length: u64) -> PathBuf {
        self.partial.join(format!("{}.{length}", digest.hex()))
    }

    /// Makes a file; one that could not be removed before is emptied.
    fn create_partial(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        match self.disk.create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut file = self.disk.open(path)?;
                file.truncate(0)?;
                Ok(file)
            }
            made => made,
        }
    }

    /// Takes a file out of the way; it goes with the trash.
    fn put_away_partial(&self, digest: &Digest, state: PartialBlob) -> Result<(), BlobError> {
        let path = self.partial_path(digest, state.length);
        let name = path.file_name().unwrap_or_default();
        match self.disk.rename(&path, &self.trash.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("renaming", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Finds the partial blobs that earlier processes left. Files that are not named like one are left
    /// alone.
    pub(super) fn find_partials(&self) -> Result<(), BlobError> {
        let mut partials = locked(&self.partials);
        for name in self.disk.list(&self.partial).map_err(failed("listing", &self.partial))? {
            let Some((digest, length)) = named(&name) else { continue };
            let path = self.partial.join(name);
            let size = self.disk.size(&path).map_err(failed("looking up", &path))?;
            let state = PartialBlob { bytes: size.unwrap_or(0), length };
            if state.bytes > length || partials.contains_key(&digest) {
                self.put_away_partial(&digest, state)?;
            } else {
                partials.insert(digest, Partial::new(state));
            }
        }
        Ok(())
    }
}

/// The digest and the length that a file's name says.
fn named(name: &str) -> Option<(Digest, u64)> {
    let (hex, length) = name.split_once('.')?;
    Some((format!("sha256:{hex}").parse().ok()?, length.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::super::disk::{Disk as _, Fault, SimDisk, SyncSite};
    use super::super::BlobStore as _;
    use super::*;

    const BYTES: &[u8] = b"some bytes that come in pieces, and a few more";

    fn open(disk: &SimDisk) -> FileBlobs {
        disk.create_dir(Path::new("/blobs")).unwrap();
        disk.sync_dir(Path::new("/"), SyncSite::Root).unwrap();
        FileBlobs::open(Path::new("/blobs"), Arc::new(disk.clone())).unwrap()
    }

    fn digest() -> Digest {
        Digest::of(BYTES)
    }

    fn resume(blobs: &FileBlobs, at: usize) -> Result<PartialWriter, PartialError> {
        blobs.resume(digest(), BYTES.len() as u64, at as u64)
    }

    #[test]
    fn pieces_become_a_blob_although_the_store_was_opened_anew_between_them() {
        for reopened in [false, true] {
            let disk = SimDisk::new(1);
            let mut blobs = open(&disk);
            // The last one brings nothing: the one before broke off when all had come.
            let all = BYTES.len();
            for (from, to) in [(0, 7), (7, 30), (30, all), (all, all)] {
                let mut writer = resume(&blobs, from).unwrap();
                writer.write(&BYTES[from..to]).unwrap();
                assert_eq!(writer.is_whole(), to == all);
                assert_eq!(blobs.partial(&digest()).unwrap().bytes, to as u64);
                if from == all {
                    let (blob, _lease) = writer.finish().unwrap();
                    assert_eq!((blob.digest, blob.bytes), (digest(), all as u64));
                } else if reopened {
                    drop(writer);
                    blobs = open(&disk);
                }
            }
            assert_eq!(blobs.read(&digest()).unwrap(), BYTES);
            assert_eq!(blobs.partials(), (0, 0));
            let left = disk.list(Path::new("/blobs/partial")).unwrap();
            assert!(left.is_empty(), "{left:?}");
        }
    }

    #[test]
    fn one_writes_at_a_time_and_only_where_it_goes_on() {
        let blobs = open(&SimDisk::new(1));
        let mut writer = resume(&blobs, 0).unwrap();
        assert!(matches!(resume(&blobs, 0), Err(PartialError::Taken { .. })));
        writer.write(&BYTES[..5]).unwrap();
        assert!(matches!(writer.write(BYTES), Err(PartialError::PastEnd { .. })));
        drop(writer);
        let said = resume(&blobs, 4).err().unwrap();
        assert!(matches!(said, PartialError::Offset { expected: 5, .. }), "{said}");
        // Announced with another length it is another upload.
        assert!(matches!(
            blobs.resume(digest(), 9, 5),
            Err(PartialError::Offset { expected: 0, .. })
        ));
        drop(blobs.resume(digest(), 9, 0).unwrap());
        assert_eq!(blobs.partials(), (1, 9));
    }

    #[test]
    fn other_bytes_are_told_and_dropped() {
        let blobs = open(&SimDisk::new(1));
        let mut writer = resume(&blobs, 0).unwrap();
        let other: Vec<u8> = BYTES.iter().rev().copied().collect();
        writer.write(&other).unwrap();
        let said = writer.finish().unwrap_err().to_string();
        assert!(said.contains(&digest().to_string()), "{said}");
        assert!(said.contains(&Digest::of(&other).to_string()), "{said}");
        assert_eq!((blobs.partial(&digest()), blobs.contains(&digest()).unwrap()), (None, false));
        resume(&blobs, 0).unwrap();
    }

    #[test]
    fn a_whole_blob_is_there_with_its_bytes_or_the_fault_was_told() {
        for (seed, fault) in (0..400).flat_map(|seed| [(seed, Fault::Fail), (seed, Fault::Stop)]) {
            let disk = SimDisk::new(seed);
            let blobs = open(&disk);
            let mut writer = resume(&blobs, 0).unwrap();
            writer.write(&BYTES[..20]).unwrap();
            drop(writer);
            disk.arm(1 + seed % 8, fault);
            let finished = resume(&blobs, 20).and_then(|mut writer| {
                writer.write(&BYTES[20..])?;
                writer.finish()
            });
            let retried = match (&finished, fault) {
                // The disk is well again: whatever is there now is gone on with, or begun anew.
                (Err(_), Fault::Fail) => {
                    let at = blobs.partial(&digest()).map_or(0, |state| state.bytes as usize);
                    resume(&blobs, at).and_then(|mut writer| {
                        writer.write(&BYTES[at..])?;
                        writer.finish()
                    })
                }
                _ => finished,
            };
            let after = open(&disk.crash());
            match (retried, after.read(&digest())) {
                (Ok(_), read) => assert_eq!(read.unwrap(), BYTES, "seed {seed}: {fault:?}"),
                (Err(_), Ok(read)) => assert_eq!(read, BYTES, "seed {seed}: {fault:?}"),
                (Err(error), Err(_)) => assert_eq!(fault, Fault::Stop, "seed {seed}: {error}"),
            }
        }
    }
}
