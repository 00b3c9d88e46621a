//! Blobs: files addressed by the SHA-256 of their bytes, that never change.
//!
//! A blob is streamed to a temporary file while it is hashed, made durable, and given its name; it
//! is there whole or not at all. A lease keeps a blob that no version references yet from being
//! collected. Whoever holds a lease knows the blob to be durable. A blob may also come in pieces, over
//! several requests and lives of the server (`partial`).

mod partial;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use sha2::{Digest as _, Sha256};

use super::disk::{Disk, DiskFile, SyncSite};
use super::locked;
use crate::digest::Digest;
use crate::version::BlobRef;

use self::partial::Partials;
pub use self::partial::{PartialBlob, PartialError, PartialWriter};

/// Where blobs are kept. Beyond one machine another store stands behind it.
pub trait BlobStore: Send + Sync {
    /// Begins a blob of at most `limit_bytes`.
    ///
    /// # Errors
    /// When no temporary file can be made.
    fn begin(&self, limit_bytes: u64) -> Result<Box<dyn BlobWriter>, BlobError>;

    /// Stores bytes that are in memory already.
    ///
    /// # Errors
    /// When the disk refuses.
    fn put(&self, bytes: &[u8]) -> Result<(BlobRef, BlobLease), BlobError> {
        let mut writer = self.begin(bytes.len() as u64)?;
        writer.write(bytes)?;
        writer.finish()
    }

    /// Holds a blob that is there, so that a version may name it; none if it is not there.
    ///
    /// # Errors
    /// When the blob cannot be made durable.
    fn lease(&self, digest: &Digest) -> Result<Option<BlobLease>, BlobError>;

    /// The bytes that a blob has; none if it is not there.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError>;

    /// Whether a blob is there.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        Ok(self.size(digest)?.is_some())
    }

    /// The bytes of a blob, checked against its digest.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is not what it was.
    fn read(&self, digest: &Digest) -> Result<Vec<u8>, BlobError>;

    /// The file that holds a blob, for mapping it. Its bytes are not checked here. It never changes
    /// while a version references it or a lease holds it.
    fn path(&self, digest: &Digest) -> PathBuf;

    /// Removes every blob that no lease holds and `referenced` does not know. `referenced` is
    /// asked while no commit can happen, and must answer for the state at that moment.
    ///
    /// # Errors
    /// When a folder cannot be read or a file not be removed; what was not removed is met again.
    fn collect(&self, referenced: &dyn Fn(&Digest) -> bool) -> Result<Collected, BlobError>;
}

/// A blob being written. Dropped unfinished, it leaves nothing.
pub trait BlobWriter: Send {
    /// Adds bytes.
    ///
    /// # Errors
    /// When the blob would be over its limit, or the disk refuses.
    fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError>;

    /// Makes the blob durable under its digest.
    ///
    /// # Errors
    /// When the disk refuses; then nothing is kept.
    fn finish(self: Box<Self>) -> Result<(BlobRef, BlobLease), BlobError>;
}

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Why a blob cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// It is larger than allowed.
    #[error(
        "the blob is over its limit of {limit_bytes} bytes; send a smaller one or raise the limit"
    )]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// It is not there.
    #[error("blob {digest} is not stored")]
    NotFound {
        /// Which.
        digest: Digest,
    },
    /// Its bytes are not those it was stored with.
    #[error(
        "blob {digest} is damaged: its file no longer has that digest; remove the file and publish the blob again"
    )]
    Damaged {
        /// Which.
        digest: Digest,
    },
    /// The disk refused.
    #[error("{action} {} failed: {source}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

/// The blobs in a folder. Clones are the same store.
#[derive(Clone)]
pub struct FileBlobs(Arc<Store>);

struct Store {
    disk: Arc<dyn Disk>,
    /// Where blobs have their places, in one of 256 folders each.
    sha256: PathBuf,
    /// Where blobs are written.
    tmp: PathBuf,
    /// Where collected blobs go before they are removed.
    trash: PathBuf,
    /// Where blobs are that come in pieces.
    partial: PathBuf,
    /// Those blobs.
    partials: Mutex<Partials>,
    /// Held while references are decided: by a commit from its check of the blobs until its
    /// snapshot is out, and by a collection. Taken before `leases`.
    references: Mutex<()>,
    leases: Arc<Leases>,
    /// The folders of `sha256` whose names are known to be durable.
    shards: Mutex<HashSet<String>>,
    /// Names the next temporary file.
    next: AtomicU64,
}

/// How many leases each blob has; a blob without any is not in it.
#[derive(Debug, Default)]
struct Leases(Mutex<HashMap<Digest, u64>>);

/// Keeps a blob from being collected until it is dropped.
#[derive(Debug)]
pub struct BlobLease {
    digest: Digest,
    leases: Arc<Leases>,
}

/// A blob being written to a file.
struct FileBlobWriter {
    draft: Draft,
    hasher: Sha256,
    bytes: u64,
    limit_bytes: u64,
}

/// A file that is to become a blob.
struct Draft {
    store: Arc<Store>,
    file: Box<dyn DiskFile>,
    path: PathBuf,
    /// Whether dropping leaves the file: it has its place, or waits to be gone on with.
    stays: bool,
}

impl FileBlobs {
    /// Opens the store in `root`, makes its folders durable, and removes what writers and
    /// collections left behind when the server stopped; what came in pieces stays.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn open(root: &Path, disk: Arc<dyn Disk>) -> Result<Self, BlobError> {
        let store = Store {
            sha256: root.join("sha256"),
            tmp: root.join("tmp"),
            trash: root.join("trash"),
            partial: root.join("partial"),
            partials: Mutex::default(),
            references: Mutex::new(()),
            leases: Arc::default(),
            shards: Mutex::default(),
            next: AtomicU64::new(0),
            disk,
        };
        for folder in [&store.sha256, &store.tmp, &store.trash, &store.partial] {
            store.disk.create_dir(folder).map_err(failed("making", folder))?;
        }
        store.disk.sync_dir(root, SyncSite::BlobRoot).map_err(failed("syncing", root))?;
        store.empty(&store.tmp)?;
        store.empty(&store.trash)?;
        store.find_partials()?;
        Ok(Self(Arc::new(store)))
    }

    /// Holds every blob that `referenced` does not know.
    ///
    /// # Errors
    /// When the store cannot be read, or a blob not be made durable.
    pub(super) fn hold_unreferenced(
        &self,
        referenced: &dyn Fn(&Digest) -> bool,
    ) -> Result<Vec<(BlobRef, BlobLease)>, BlobError> {
        let mut held = Vec::new();
        for digest in self.0.all()?.into_iter().filter(|digest| !referenced(digest)) {
            let (Some(bytes), Some(lease)) = (self.size(&digest)?, self.lease(&digest)?) else {
                continue;
            };
            held.push((BlobRef { digest, bytes }, lease));
        }
        Ok(held)
    }

    /// Keeps collections away until it is dropped.
    pub(super) fn hold_references(&self) -> MutexGuard<'_, ()> {
        locked(&self.0.references)
    }

    /// Whether a blob of that digest and length is there, and a lease holds it.
    pub(super) fn is_held(&self, blob: &BlobRef) -> bool {
        let held = locked(&self.0.leases.0).contains_key(&blob.digest);
        held && self.0.present(blob).unwrap_or(false)
    }
}

impl BlobStore for FileBlobs {
    fn begin(&self, limit_bytes: u64) -> Result<Box<dyn BlobWriter>, BlobError> {
        let store = Arc::clone(&self.0);
        let path = store.tmp.join(store.next.fetch_add(1, Ordering::Relaxed).to_string());
        let file = store.disk.create(&path).map_err(failed("making", &path))?;
        let (draft, hasher) = (Draft { store, file, path, stays: false }, Sha256::new());
        Ok(Box::new(FileBlobWriter { draft, hasher, bytes: 0, limit_bytes }))
    }

    fn lease(&self, digest: &Digest) -> Result<Option<BlobLease>, BlobError> {
        let lease = {
            let mut leases = locked(&self.0.leases.0);
            if !self.contains(digest)? {
                return Ok(None);
            }
            self.0.lease(&mut leases, *digest)
        };
        self.0.make_name_durable(digest, SyncSite::BlobHit)?;
        Ok(Some(lease))
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.0.size(digest)
    }

    fn read(&self, digest: &Digest) -> Result<Vec<u8>, BlobError> {
        let path = self.path(digest);
        let bytes = match self.0.disk.read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::NotFound { digest: *digest });
            }
            Err(error) => return Err(failed("reading", &path)(error)),
        };
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(BlobError::Damaged { digest: *digest })
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.0.place(digest).1
    }

    fn collect(&self, referenced: &dyn Fn(&Digest) -> bool) -> Result<Collected, BlobError> {
        // The slow walk comes first: what is stored after it is no candidate.
        let candidates = self.0.all()?;
        let mut collected = Collected::default();
        {
            let _no_commit = self.hold_references();
            let leases = locked(&self.0.leases.0);
            for digest in candidates.iter().filter(|digest| !leases.contains_key(digest)) {
                if referenced(digest) {
                    continue;
                }
                let Some(bytes) = self.0.size(digest)? else { continue };
                let (path, trash) = (self.path(digest), self.0.trash.join(digest.hex()));
                self.0.disk.rename(&path, &trash).map_err(failed("renaming", &path))?;
                collected.blobs += 1;
                collected.bytes += bytes;
            }
        }
        // Freeing large files takes its time, so it happens when commits go on. Two collections at
        // once may meet here, and each finds files gone that the other removed.
        self.0.empty(&self.0.trash)?;
        Ok(collected)
    }
}

impl BlobWriter for FileBlobWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let end = self.bytes.saturating_add(bytes.len() as u64);
        if end > self.limit_bytes {
            return Err(BlobError::TooLarge { limit_bytes: self.limit_bytes });
        }
        self.draft.write_at(self.bytes, bytes)?;
        self.hasher.update(bytes);
        self.bytes = end;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(BlobRef, BlobLease), BlobError> {
        let digest = Digest::from_hasher(std::mem::take(&mut self.hasher));
        let blob = BlobRef { digest, bytes: self.bytes };
        Ok((blob, self.draft.settle(&blob)?))
    }
}

impl Draft {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), BlobError> {
        self.file.write_at(at, bytes).map_err(failed("writing", &self.path))
    }

    /// Makes the file, which holds the bytes of `blob`, durable under its digest.
    fn settle(&mut self, blob: &BlobRef) -> Result<BlobLease, BlobError> {
        self.store.make_shard_durable(&blob.digest)?;
        // A blob that is there already need not be written to the disk once more.
        let is_new = !self.store.present(blob)?;
        if is_new {
            self.sync()?;
        }
        let (lease, site) = self.place(blob, is_new)?;
        self.store.make_name_durable(&blob.digest, site)?;
        Ok(lease)
    }

    fn sync(&mut self) -> Result<(), BlobError> {
        self.file.sync_data(SyncSite::BlobData).map_err(failed("syncing", &self.path))
    }

    /// Gives the file its place, unless one is there, and takes a lease in the same moment, so that
    /// no collection comes between.
    fn place(&mut self, blob: &BlobRef, synced: bool) -> Result<(BlobLease, SyncSite), BlobError> {
        let store = Arc::clone(&self.store);
        let mut leases = locked(&store.leases.0);
        if store.present(blob)? {
            self.stays = false;
            return Ok((store.lease(&mut leases, blob.digest), SyncSite::BlobHit));
        }
        if !synced {
            // It was there a moment ago and was collected since.
            self.sync()?;
        }
        let (_, place) = store.place(&blob.digest);
        store.disk.rename(&self.path, &place).map_err(failed("renaming", &self.path))?;
        self.stays = true;
        Ok((store.lease(&mut leases, blob.digest), SyncSite::BlobFolder))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.stays {
            // Should this fail, the next start removes it.
            let _ = self.store.disk.remove(&self.path);
        }
    }
}

impl BlobLease {
    /// The blob that is held.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl Drop for BlobLease {
    fn drop(&mut self) {
        let mut leases = locked(&self.leases.0);
        if let Some(count) = leases.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                leases.remove(&self.digest);
            }
        }
    }
}

impl Store {
    /// The folder and the file of a blob.
    fn place(&self, digest: &Digest) -> (PathBuf, PathBuf) {
        let hex = digest.hex();
        let folder = self.sha256.join(hex.chars().take(2).collect::<String>());
        let file = folder.join(hex);
        (folder, file)
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let (_, path) = self.place(digest);
        self.disk.size(&path).map_err(failed("looking up", &path))
    }

    /// Whether the blob is there with its length; a file of another length is replaced.
    fn present(&self, blob: &BlobRef) -> Result<bool, BlobError> {
        Ok(self.size(&blob.digest)? == Some(blob.bytes))
    }

    fn lease(&self, leases: &mut HashMap<Digest, u64>, digest: Digest) -> BlobLease {
        *leases.entry(digest).or_default() += 1;
        BlobLease { digest, leases: Arc::clone(&self.leases) }
    }

    /// Makes the blob's folder, once per run also durable: the name may be there and not on disk.
    fn make_shard_durable(&self, digest: &Digest) -> Result<(), BlobError> {
        let (folder, _) = self.place(digest);
        let name = digest.hex().chars().take(2).collect::<String>();
        let mut shards = locked(&self.shards);
        if !shards.contains(&name) {
            self.disk.create_dir(&folder).map_err(failed("making", &folder))?;
            let synced = self.disk.sync_dir(&self.sha256, SyncSite::BlobShard);
            synced.map_err(failed("syncing", &self.sha256))?;
            shards.insert(name);
        }
        Ok(())
    }

    fn make_name_durable(&self, digest: &Digest, site: SyncSite) -> Result<(), BlobError> {
        self.make_shard_durable(digest)?;
        let (folder, _) = self.place(digest);
        self.disk.sync_dir(&folder, site).map_err(failed("syncing", &folder))
    }

    /// Every blob there is. Files that are not named like one are left alone.
    fn all(&self) -> Result<Vec<Digest>, BlobError> {
        let mut digests = Vec::new();
        for shard in self.disk.list(&self.sha256).map_err(failed("listing", &self.sha256))? {
            let folder = self.sha256.join(shard);
            let names = self.disk.list(&folder).map_err(failed("listing", &folder))?;
            let parse = |name: &String| format!("sha256:{name}").parse::<Digest>().ok();
            digests.extend(names.iter().filter_map(parse));
        }
        Ok(digests)
    }

    /// Removes the files in a folder.
    fn empty(&self, folder: &Path) -> Result<(), BlobError> {
        for name in self.disk.list(folder).map_err(failed("listing", folder))? {
            let path = folder.join(name);
            match self.disk.remove(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("removing", &path)(error)),
            }
        }
        Ok(())
    }
}

/// Says of a disk's error what was tried, and on what.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| BlobError::Disk { action, path, source }
}
