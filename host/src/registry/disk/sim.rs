//! A disk in memory that loses what was not synced, for tests.
//!
//! Every file and folder has what is durable, what a running system sees, and the operations
//! between the two. A crash keeps any part of those: none, all, the first ones with the last cut
//! short, or single blocks and names. That is harsher than any one file system: a rename may lose
//! both names, and making a file durable says nothing of its name.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::super::locked;
use super::super::tests::Rng;
use super::{Disk, DiskFile, DiskLock, LockOutcome, SyncSite};

/// Bytes that reach the disk together. Small, so that a record spans many.
const BLOCK_BYTES: usize = 64;

/// What goes wrong once, at a chosen operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The machine stops: this operation may happen in part, later ones not at all.
    Stop,
    /// The operation fails: a sync without saying what became durable, a write as if the disk were
    /// full, after a part of it.
    Fail,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

struct State {
    nodes: Vec<Node>,
    rng: Rng,
    /// Operations that change the disk, counted; reads are not.
    operations: u64,
    fault: Option<(u64, Fault)>,
    /// Whether a fault happened since the disk was armed.
    faulted: bool,
    stopped: bool,
    locked: bool,
    /// The site at which syncs do nothing.
    ignored: Option<SyncSite>,
    seen: BTreeSet<SyncSite>,
}

#[derive(Clone)]
enum Node {
    File(File),
    Folder(Folder),
}

#[derive(Clone, Default)]
struct File {
    durable: Vec<u8>,
    visible: Vec<u8>,
    pending: Vec<FileOp>,
}

#[derive(Clone)]
enum FileOp {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
}

#[derive(Clone, Default)]
struct Folder {
    durable: BTreeMap<String, usize>,
    visible: BTreeMap<String, usize>,
    pending: Vec<FolderOp>,
}

#[derive(Clone)]
enum FolderOp {
    Link(String, usize),
    Unlink(String),
}

struct SimFile {
    disk: SimDisk,
    node: usize,
}

struct Unlock(SimDisk);

impl Drop for Unlock {
    fn drop(&mut self) {
        locked(&self.0.0).locked = false;
    }
}

impl SimDisk {
    /// An empty disk whose chances are drawn from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            nodes: vec![Node::Folder(Folder::default())],
            rng: Rng::new(seed ^ 0xD15C),
            operations: 0,
            fault: None,
            faulted: false,
            stopped: false,
            locked: false,
            ignored: None,
            seen: BTreeSet::new(),
        })))
    }

    /// Makes syncs at one site do nothing, as if the line were not in the code.
    pub(crate) fn ignore(&self, site: Option<SyncSite>) {
        locked(&self.0).ignored = site;
    }

    /// Lets the `after`th operation from here go wrong.
    pub(crate) fn arm(&self, after: u64, fault: Fault) {
        let mut state = locked(&self.0);
        state.faulted = false;
        state.fault = Some((state.operations + after, fault));
    }

    /// Takes back what `arm` set up.
    pub(crate) fn disarm(&self) {
        let mut state = locked(&self.0);
        state.faulted = false;
        state.fault = None;
    }

    /// Whether a fault happened since the disk was armed.
    pub(crate) fn faulted(&self) -> bool {
        locked(&self.0).faulted
    }

    /// The sites that asked for a sync so far.
    pub(crate) fn sites_seen(&self) -> BTreeSet<SyncSite> {
        locked(&self.0).seen.clone()
    }

    /// How many operations changed the disk so far.
    pub(crate) fn operations(&self) -> u64 {
        locked(&self.0).operations
    }

    /// The process ended and the machine did not: everything written is seen, nothing more is
    /// durable than was.
    pub(crate) fn restart(&self) {
        let mut state = locked(&self.0);
        state.stopped = false;
        state.fault = None;
    }

    /// The machine lost its power: the disk as it comes back. The old one stays stopped.
    pub(crate) fn crash(&self) -> Self {
        let mut state = locked(&self.0);
        state.stopped = true;
        let state = &mut *state;
        let nodes = state.nodes.iter().map(|node| node.survivor(&mut state.rng)).collect();
        let survivor = Self::new(state.rng.next());
        let mut after = locked(&survivor.0);
        after.nodes = nodes;
        after.operations = state.operations;
        after.ignored = state.ignored;
        after.seen = state.seen.clone();
        drop(after);
        survivor
    }
}

impl State {
    /// Counts an operation; answers whether it is the one to go wrong.
    fn step(&mut self) -> io::Result<Option<Fault>> {
        self.reachable()?;
        self.operations += 1;
        let Some((at, fault)) = self.fault else { return Ok(None) };
        if self.operations < at {
            return Ok(None);
        }
        self.fault = None;
        self.faulted = true;
        self.stopped = fault == Fault::Stop;
        Ok(Some(fault))
    }

    fn reachable(&self) -> io::Result<()> {
        if self.stopped { Err(io::Error::other("the machine has stopped")) } else { Ok(()) }
    }

    /// Does an operation that happens whole or not at all.
    fn whole<T>(&mut self, op: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        match self.step()? {
            None => op(self),
            Some(Fault::Fail) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Stop) => {
                if self.rng.chance(50) {
                    op(self)?;
                }
                Err(io::Error::other("the machine has stopped"))
            }
        }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut at = 0;
        for part in path.components().skip(1) {
            let Some(Node::Folder(folder)) = self.nodes.get(at) else { return Err(absent(path)) };
            let name = text(part.as_os_str())?;
            at = *folder.visible.get(&name).ok_or_else(|| absent(path))?;
        }
        Ok(at)
    }

    fn folder(&mut self, path: &Path) -> io::Result<&mut Folder> {
        let node = self.find(path)?;
        match self.nodes.get_mut(node) {
            Some(Node::Folder(folder)) => Ok(folder),
            _ => Err(absent(path)),
        }
    }

    fn file(&mut self, node: usize) -> io::Result<&mut File> {
        match self.nodes.get_mut(node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn name(&mut self, path: &Path, op: impl FnOnce(String) -> FolderOp) -> io::Result<()> {
        let op = op(file_name(path)?);
        self.folder(parent(path)?)?.push(op);
        Ok(())
    }

    fn make(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        let made = self.nodes.len();
        self.name(path, |name| FolderOp::Link(name, made))?;
        self.nodes.push(node);
        Ok(made)
    }
}

impl Node {
    fn survivor(&self, rng: &mut Rng) -> Self {
        match self {
            Self::File(file) => Self::File(file.survivor(rng)),
            Self::Folder(folder) => Self::Folder(folder.survivor(rng)),
        }
    }
}

impl File {
    fn push(&mut self, op: FileOp) {
        op.on(&mut self.visible);
        self.pending.push(op);
    }

    fn survivor(&self, rng: &mut Rng) -> Self {
        let mut bytes = self.durable.clone();
        let kept = rng.below(self.pending.len() as u64 + 1) as usize;
        match rng.below(4) {
            0 => {}
            1 => self.pending.iter().for_each(|op| op.on(&mut bytes)),
            2 => {
                self.pending.iter().take(kept).for_each(|op| op.on(&mut bytes));
                if let Some(FileOp::Write { at, bytes: written }) = self.pending.get(kept) {
                    let cut = rng.below(written.len() as u64 + 1) as usize;
                    let bytes_cut = written.iter().take(cut).copied().collect();
                    FileOp::Write { at: *at, bytes: bytes_cut }.on(&mut bytes);
                }
            }
            _ => self.pending.iter().for_each(|op| op.in_blocks(&mut bytes, rng)),
        }
        Self { durable: bytes.clone(), visible: bytes, pending: Vec::new() }
    }
}

impl FileOp {
    fn on(&self, file: &mut Vec<u8>) {
        match self {
            Self::Truncate(bytes) => file.resize(*bytes, 0),
            Self::Write { at, bytes } => {
                file.resize(file.len().max(at + bytes.len()), 0);
                file.iter_mut().skip(*at).zip(bytes).for_each(|(old, new)| *old = *new);
            }
        }
    }

    /// The operation with each block kept or not; the length is kept in any case.
    fn in_blocks(&self, file: &mut Vec<u8>, rng: &mut Rng) {
        let Self::Write { at, bytes } = self else {
            if rng.chance(50) {
                self.on(file);
            }
            return;
        };
        file.resize(file.len().max(at + bytes.len()), 0);
        let mut block = usize::MAX;
        let mut kept = false;
        for (position, byte) in (*at..).zip(bytes) {
            if position / BLOCK_BYTES != block {
                block = position / BLOCK_BYTES;
                kept = rng.chance(50);
            }
            if let (true, Some(old)) = (kept, file.get_mut(position)) {
                *old = *byte;
            }
        }
    }
}

impl Folder {
    fn push(&mut self, op: FolderOp) {
        op.on(&mut self.visible);
        self.pending.push(op);
    }

    fn survivor(&self, rng: &mut Rng) -> Self {
        let mut names = self.durable.clone();
        let mode = rng.below(3);
        for op in &self.pending {
            if mode == 1 || mode == 2 && rng.chance(50) {
                op.on(&mut names);
            }
        }
        Self { durable: names.clone(), visible: names, pending: Vec::new() }
    }
}

impl FolderOp {
    fn on(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, node) => names.insert(name.clone(), *node),
            Self::Unlink(name) => names.remove(name),
        };
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = locked(&self.0);
        if state.find(path).is_ok() {
            return Ok(());
        }
        state.whole(|state| state.make(path, Node::Folder(Folder::default())))?;
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = locked(&self.0);
        if state.find(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = state.whole(|state| state.make(path, Node::File(File::default())))?;
        Ok(Box::new(SimFile { disk: self.clone(), node }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = locked(&self.0);
        state.reachable()?;
        Ok(Box::new(SimFile { disk: self.clone(), node: state.find(path)? }))
    }

    fn size(&self, path: &Path) -> io::Result<Option<u64>> {
        let mut state = locked(&self.0);
        state.reachable()?;
        let Ok(node) = state.find(path) else { return Ok(None) };
        Ok(Some(state.file(node)?.visible.len() as u64))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = locked(&self.0);
        state.reachable()?;
        Ok(state.folder(path)?.visible.keys().cloned().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = locked(&self.0);
        let node = state.find(from)?;
        state.whole(|state| {
            state.name(to, |name| FolderOp::Link(name, node))?;
            state.name(from, FolderOp::Unlink)
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = locked(&self.0);
        state.find(path)?;
        state.whole(|state| state.name(path, FolderOp::Unlink))
    }

    fn sync_dir(&self, path: &Path, site: SyncSite) -> io::Result<()> {
        let mut state = locked(&self.0);
        state.seen.insert(site);
        // File systems journal names: a sync that fails loses none that a later one would keep.
        state.whole(|state| {
            if state.ignored != Some(site) {
                let folder = state.folder(path)?;
                folder.durable = folder.visible.clone();
                folder.pending.clear();
            }
            Ok(())
        })
    }

    fn lock(&self, _path: &Path, _holder: &str) -> io::Result<LockOutcome> {
        let mut state = locked(&self.0);
        state.reachable()?;
        if state.locked {
            return Ok(LockOutcome::HeldBy("another".to_owned()));
        }
        state.locked = true;
        Ok(LockOutcome::Held(DiskLock::new(Unlock(self.clone()))))
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        let mut state = locked(&self.disk.0);
        state.reachable()?;
        Ok(state.file(self.node)?.visible.len() as u64)
    }

    fn read_at(&self, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut state = locked(&self.disk.0);
        state.reachable()?;
        let file = state.file(self.node)?;
        Ok(file.visible.iter().skip(at as usize).take(bytes).copied().collect())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = locked(&self.disk.0);
        let fault = state.step()?;
        let kept = match fault {
            None => bytes.len(),
            Some(_) => state.rng.below(bytes.len() as u64 + 1) as usize,
        };
        let bytes = bytes.iter().take(kept).copied().collect();
        state.file(self.node)?.push(FileOp::Write { at: at as usize, bytes });
        if fault.is_some() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = locked(&self.disk.0);
        state.whole(|state| {
            state.file(self.node)?.push(FileOp::Truncate(bytes as usize));
            Ok(())
        })
    }

    fn sync_data(&mut self, site: SyncSite) -> io::Result<()> {
        let mut state = locked(&self.disk.0);
        state.seen.insert(site);
        let fault = state.step()?;
        if fault.is_none() && state.ignored == Some(site) {
            return Ok(());
        }
        if fault == Some(Fault::Stop) {
            // Some of it may have got through; the crash decides over what is pending.
            return Err(io::Error::other("the machine has stopped"));
        }
        let drop_from = match fault {
            None => usize::MAX,
            Some(_) => state.rng.below(3) as usize,
        };
        let file = state.file(self.node)?;
        for op in file.pending.drain(..).take(drop_from) {
            op.on(&mut file.durable);
        }
        // What a failed sync did not write is forgotten, and is seen until the machine stops.
        if fault.is_some() { Err(io::Error::other("input/output error")) } else { Ok(()) }
    }
}

fn absent(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} is not there", path.display()))
}

fn text(name: &OsStr) -> io::Result<String> {
    name.to_str().map(str::to_owned).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn file_name(path: &Path) -> io::Result<String> {
    text(path.file_name().unwrap_or_default())
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with(bytes: &[u8], seed: u64) -> SimDisk {
        let disk = SimDisk::new(seed);
        let mut file = disk.create(Path::new("/file")).unwrap();
        file.write_at(0, bytes).unwrap();
        file.sync_data(SyncSite::BlobData).unwrap();
        disk
    }

    #[test]
    fn a_synced_file_without_a_synced_name_may_be_lost() {
        let survives = |seed| {
            let disk = disk_with(b"bytes", seed).crash();
            disk.read(Path::new("/file")).is_ok_and(|bytes| bytes == b"bytes")
        };
        let survivors = (0..100).filter(|seed| survives(*seed)).count();
        assert!((1..100).contains(&survivors), "{survivors}");
    }

    #[test]
    fn a_synced_file_with_a_synced_name_survives_every_crash() {
        for seed in 0..100 {
            let disk = disk_with(b"bytes", seed);
            disk.sync_dir(Path::new("/"), SyncSite::BlobFolder).unwrap();
            assert_eq!(disk.crash().read(Path::new("/file")).unwrap(), b"bytes");
        }
    }

    #[test]
    fn what_a_failed_sync_dropped_stays_lost_though_a_later_one_succeeds() {
        let lost = |seed| {
            let disk = disk_with(b"", seed);
            disk.sync_dir(Path::new("/"), SyncSite::BlobFolder).unwrap();
            let mut file = disk.open(Path::new("/file")).unwrap();
            file.write_at(0, b"bytes").unwrap();
            disk.arm(1, Fault::Fail);
            assert!(file.sync_data(SyncSite::BlobData).is_err());
            assert!(file.sync_data(SyncSite::BlobData).is_ok());
            assert_eq!(disk.read(Path::new("/file")).unwrap(), b"bytes");
            disk.crash().read(Path::new("/file")).unwrap().is_empty()
        };
        assert!((0..100).any(lost));
    }
}
