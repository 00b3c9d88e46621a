//! Faults that last: a disk that stops taking writes, and a clock that jumps.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::disk::{Disk, DiskFile, DiskLock, LockOutcome, SimDisk, SyncSite};
use super::super::*;
use super::support::{MemoryIndex, StoppedClock, annotate, publish, record, store};

/// A disk that can be mounted read-only while files on it are open.
#[derive(Clone)]
struct Mount {
    disk: SimDisk,
    read_only: Arc<AtomicBool>,
}

struct MountFile {
    file: Box<dyn DiskFile>,
    mount: Mount,
}

impl Mount {
    fn new() -> Self {
        Self { disk: SimDisk::new(11), read_only: Arc::default() }
    }

    fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Relaxed);
    }

    fn writable(&self) -> io::Result<()> {
        match self.read_only.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            false => Ok(()),
        }
    }

    fn wrap(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(MountFile { file, mount: self.clone() })
    }
}

impl Disk for Mount {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        // A folder that is there is no write.
        if self.disk.list(path).is_ok() { Ok(()) } else { self.writable() }?;
        self.disk.create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.writable()?;
        self.disk.create(path).map(|file| self.wrap(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        // Files are opened for writing too, which such a mount refuses.
        self.writable()?;
        self.disk.open(path).map(|file| self.wrap(file))
    }

    fn size(&self, path: &Path) -> io::Result<Option<u64>> {
        self.disk.size(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.writable()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.writable()?;
        self.disk.remove(path)
    }

    fn sync_dir(&self, path: &Path, site: SyncSite) -> io::Result<()> {
        self.disk.sync_dir(path, site)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<LockOutcome> {
        self.writable()?;
        match self.disk.lock(path, holder)? {
            LockOutcome::Held(lock) => Ok(LockOutcome::Held(DiskLock::new(lock))),
            by => Ok(by),
        }
    }
}

impl DiskFile for MountFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        self.file.read_at(at, bytes)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.mount.writable()?;
        self.file.write_at(at, bytes)
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.mount.writable()?;
        self.file.truncate(bytes)
    }

    fn sync_data(&mut self, site: SyncSite) -> io::Result<()> {
        self.file.sync_data(site)
    }
}

fn open(
    disk: &Mount,
    clock: &Arc<StoppedClock>,
    index: &MemoryIndex,
) -> Result<FileRegistry, OpenError> {
    let (disk, index) = (Arc::new(disk.clone()), Box::new(index.clone()));
    FileRegistry::open_with(Path::new("/data"), disk, clock.clone(), index).map(|opened| opened.0)
}

#[test]
fn a_disk_that_becomes_read_only_stops_changes_and_a_restart_on_a_good_one_takes_them() {
    let (disk, clock, index) = (Mount::new(), Arc::default(), MemoryIndex::default());
    let registry = open(&disk, &clock, &index).unwrap();
    let (blob, lease) = store(registry.blobs(), b"component");
    registry.commit(publish("m", "1", record(&[blob]))).unwrap();
    let acknowledged = registry.snapshot();
    disk.set_read_only(true);
    assert!(registry.blobs().put(b"another").is_err());
    for _ in 0..2 {
        let error = registry.commit(annotate("m", "1", "lost")).unwrap_err();
        assert_eq!(error.kind(), CommitErrorKind::ReadOnly);
        assert!(error.to_string().contains("restart"), "{error}");
    }
    // A disk that is good again does not tell what became of what was being written.
    disk.set_read_only(false);
    let error = registry.commit(annotate("m", "1", "lost")).unwrap_err();
    assert_eq!(error.kind(), CommitErrorKind::ReadOnly);
    assert_eq!(registry.snapshot(), acknowledged);
    drop((registry, lease));
    disk.disk.restart();
    let registry = open(&disk, &clock, &index).unwrap();
    assert_eq!(registry.snapshot(), acknowledged);
    registry.commit(annotate("m", "1", "kept")).unwrap();
}

#[test]
fn a_disk_that_is_read_only_from_the_start_is_named_and_nothing_on_it_changes() {
    let (disk, clock, index) = (Mount::new(), Arc::default(), MemoryIndex::default());
    let registry = open(&disk, &clock, &index).unwrap();
    let (blob, lease) = store(registry.blobs(), b"component");
    registry.commit(publish("m", "1", record(&[blob]))).unwrap();
    let acknowledged = registry.snapshot();
    drop((registry, lease));
    disk.set_read_only(true);
    let operations = disk.disk.operations();
    let error = open(&disk, &clock, &index).unwrap_err().to_string();
    assert!(error.contains("/data/LOCK") && error.contains("read-only"), "{error}");
    assert_eq!(disk.disk.operations(), operations);
    disk.set_read_only(false);
    assert_eq!(open(&disk, &clock, &index).unwrap().snapshot(), acknowledged);
}

#[test]
fn a_clock_that_jumps_back_and_forth_over_restarts_changes_no_order() {
    let (disk, clock, index) =
        (Mount::new(), Arc::<StoppedClock>::default(), MemoryIndex::default());
    const YEAR_2100_MS: u64 = 4_102_444_800_000;
    let mut registry = open(&disk, &clock, &index).unwrap();
    let (blob, _lease) = store(registry.blobs(), b"component");
    registry.commit(publish("m", "1", record(&[blob]))).unwrap();
    for (step, now_ms) in [5_000, 1_000, YEAR_2100_MS, 0, 6_000].into_iter().enumerate() {
        clock.set(now_ms);
        for said in ["one", "two"] {
            registry.commit(annotate("m", "1", &format!("{said} of {step}"))).unwrap();
        }
        let before = registry.snapshot();
        drop(registry);
        disk.disk.restart();
        registry = open(&disk, &clock, &index).unwrap();
        assert_eq!(registry.snapshot(), before, "step {step}");
        assert_eq!(registry.status(), Status::Writable);
    }
    let history = registry.history("m", 100).unwrap();
    let epochs: Vec<_> = history.iter().rev().map(|entry| entry.epoch).collect();
    assert_eq!(epochs, (1..=11).collect::<Vec<_>>());
    let times: Vec<_> = history.iter().rev().map(|entry| entry.time_ms).collect();
    assert!(times.is_sorted(), "{times:?}");
    let version = &registry.snapshot().get("m").unwrap().versions["1"].clone();
    assert_eq!(version.annotations.description, "two of 4");
}
