//! How a data directory is brought up: lock, format, blobs, journal, index, in this order, and what
//! is repaired on the way.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use super::Status;
use super::blobs::{BlobError, FileBlobs};
use super::clock::{Clock, rfc3339};
use super::commit::{Committer, Shared};
use super::disk::{Disk, DiskFile, DiskLock, LockOutcome, SyncSite};
use super::index::{IndexError, IndexKeeper, IndexPosition, IndexStore};
use super::journal::{Journal, Scan, Tail, scan};
use super::replay::Replay;
use super::snapshot::Snapshot;

/// The format of the data directory that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;
/// Torn tails that are kept for a look; a disk that tears more often needs one itself.
const MAX_TORN: u32 = 1_000;
const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "LOCK";
const JOURNAL_FOLDER: &str = "journal";
const JOURNAL_FILE: &str = "journal";
const BLOBS_FOLDER: &str = "blobs";
/// The name of the index's folder in the data directory.
pub(super) const INDEX_FOLDER: &str = "index";

/// What was found, and repaired, when the registry was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// The epoch of the last change found.
    pub epoch: u64,
    /// How many models there are.
    pub models: usize,
    /// The journal's torn last frame, moved aside. Nobody was told that its changes happened.
    pub torn_tail: Option<TornTail>,
    /// How many changes the index was behind, or none if it was not.
    pub index_caught_up: Option<u64>,
    /// What was done to an index that could not be used.
    pub index_repair: Option<String>,
    /// Why the registry is read-only, if it is.
    pub read_only: Option<String>,
}

/// Bytes at the journal's end that were no whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The file they were moved to, in the journal's folder.
    pub file: String,
    /// How many there were.
    pub bytes: u64,
}

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("data directory {} is in use by {holder}; stop that server or use another directory", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// What the holder says of itself.
        holder: String,
    },
    /// A newer program wrote it.
    #[error("data directory {} has format {found}, and this program reads up to {FORMAT}; use the program that wrote it, or a newer one", path.display())]
    NewerFormat {
        /// The data directory.
        path: PathBuf,
        /// The format found.
        found: u32,
    },
    /// The format file is not one, or is missing though there is a journal.
    #[error("{}: {what}; restore it from a backup, or write '{FORMAT}' into it if this program wrote the directory", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The blob store could not be opened.
    #[error(transparent)]
    Blobs(#[from] BlobError),
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
    /// The writer's thread could not be started.
    #[error("starting the registry's writer failed: {0}")]
    Thread(io::Error),
}

/// A registry that is up.
pub(super) struct Opened {
    pub(super) committer: Committer,
    pub(super) report: OpenReport,
    pub(super) lock: DiskLock,
}

/// Opens the registry in `root`, which is made if it is not there.
pub(super) fn open(
    root: &Path,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    index: Box<dyn IndexStore>,
) -> Result<Opened, OpenError> {
    disk.create_dir(root).map_err(failed("making", root))?;
    let lock = lock(root, disk.as_ref(), clock.as_ref())?;
    // The format comes first: a journal without one is not ours, or has lost it.
    let folder = root.join(JOURNAL_FOLDER);
    check_format(root, &folder, disk.as_ref())?;
    let blobs_root = root.join(BLOBS_FOLDER);
    for folder in [&folder, &blobs_root] {
        disk.create_dir(folder).map_err(failed("making", folder))?;
    }
    let blobs = FileBlobs::open(&blobs_root, Arc::clone(&disk))?;

    let (mut keeper, indexed, repair) = IndexKeeper::open(index);
    let mut report = OpenReport { index_repair: repair, ..OpenReport::default() };
    let path = folder.join(JOURNAL_FILE);
    let file = open_journal(&path, disk.as_ref())?;
    let mut replay = Replay::new(indexed);
    let scan = scan(file.as_ref(), |payload, at| replay.frame(payload, at))
        .map_err(failed("reading", &path))?;

    report.epoch = replay.state.epoch;
    report.models = replay.state.len();
    report.read_only = doubt(&path, &scan, indexed, replay.state.epoch);
    let journal = if report.read_only.is_some() {
        // Whatever is left is evidence, so nothing is touched.
        Journal::new(file, scan.end)
    } else {
        settle_journal(root, &folder, disk.as_ref(), file, &scan, &mut report)?
    };
    let snapshot = Arc::new(replay.state.clone());
    if report.read_only.is_none() {
        bring_index_up(&mut keeper, &replay, indexed, &snapshot, &mut report);
    }

    let status = match &report.read_only {
        None => Status::Writable,
        Some(reason) => Status::ReadOnly { reason: reason.clone() },
    };
    let shared = Shared {
        snapshot: ArcSwap::new(snapshot),
        status: ArcSwap::from_pointee(status),
        spans: Mutex::new(replay.spans),
        index: Mutex::new(keeper.index()),
        blobs,
        disk,
        journal: path,
        clock,
    };
    let committer = Committer {
        shared: Arc::new(shared),
        journal,
        tip: replay.tip,
        index: keeper,
        for_index: Vec::new(),
    };
    Ok(Opened { committer, report, lock })
}

fn lock(root: &Path, disk: &dyn Disk, clock: &dyn Clock) -> Result<DiskLock, OpenError> {
    let path = root.join(LOCK_FILE);
    let holder = format!("process {}, started {}\n", std::process::id(), rfc3339(clock.now_ms()));
    match disk.lock(&path, &holder).map_err(failed("locking", &path))? {
        LockOutcome::Held(lock) => Ok(lock),
        LockOutcome::HeldBy(holder) => {
            // Between taking the lock and saying so there is a moment without a name.
            let holder = if holder.is_empty() { "another process".to_owned() } else { holder };
            Err(OpenError::InUse { path: root.to_owned(), holder })
        }
    }
}

/// Refuses a directory of a newer format; writes the format of a new one.
fn check_format(root: &Path, journal: &Path, disk: &dyn Disk) -> Result<(), OpenError> {
    let path = root.join(FORMAT_FILE);
    let wrong = |what: &str| OpenError::Format { path: path.clone(), what: what.to_owned() };
    if disk.size(&path).map_err(failed("looking up", &path))?.is_none() {
        // A new directory has no journal, or an empty one where its making was cut short.
        let held = disk.size(&journal.join(JOURNAL_FILE)).map_err(failed("looking up", journal))?;
        if held.unwrap_or(0) > 0 {
            return Err(wrong("it is missing, though there is a journal"));
        }
        return write_format(root, &path, disk);
    }
    let text = disk.read(&path).map_err(failed("reading", &path))?;
    let text = std::str::from_utf8(&text).map_err(|_| wrong("it is not text"))?;
    let found: u32 = text.trim().parse().map_err(|_| wrong("it is not a number"))?;
    if found > FORMAT {
        return Err(OpenError::NewerFormat { path: root.to_owned(), found });
    }
    Ok(())
}

fn write_format(root: &Path, path: &Path, disk: &dyn Disk) -> Result<(), OpenError> {
    // Before there is a format: a directory that has one has its name for good.
    sync_parents(root, disk)?;
    let new = root.join("format.new");
    if disk.size(&new).map_err(failed("looking up", &new))?.is_some() {
        disk.remove(&new).map_err(failed("removing", &new))?;
    }
    let text = format!("{FORMAT}\n");
    write_durably(disk, &new, text.as_bytes(), SyncSite::FormatData)
        .map_err(failed("writing", &new))?;
    // Its name is made durable together with those of the folders beside it.
    disk.rename(&new, path).map_err(failed("renaming", &new))
}

fn sync_parents(root: &Path, disk: &dyn Disk) -> Result<(), OpenError> {
    for folder in root.ancestors().skip(1) {
        // A relative path ends in nothing, which is where the process is.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        match disk.sync_dir(folder, SyncSite::Parents) {
            Ok(()) => {}
            // Who may not read a folder did not make the one below it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(failed("syncing", folder)(error)),
        }
    }
    Ok(())
}

fn open_journal(path: &Path, disk: &dyn Disk) -> Result<Box<dyn DiskFile>, OpenError> {
    let there = disk.size(path).map_err(failed("looking up", path))?.is_some();
    let file = if there { disk.open(path) } else { disk.create(path) };
    file.map_err(failed("opening", path))
}

/// Why changes must not be taken, if there is a reason: something acknowledged is not there.
fn doubt(path: &Path, scan: &Scan, indexed: IndexPosition, epoch: u64) -> Option<String> {
    let path = path.display();
    if let Tail::Damaged(problem) = &scan.tail {
        return Some(format!(
            "{path} is damaged after epoch {epoch} ({problem}); what came before is served; restore the journal from a backup"
        ));
    }
    if indexed.epoch > epoch {
        return Some(format!(
            "{path} ends at epoch {epoch}, and the index has seen epoch {}: epochs {} to {} were acknowledged and are gone; restore the journal, or remove the index folder to accept the loss",
            indexed.epoch,
            epoch + 1,
            indexed.epoch
        ));
    }
    None
}

/// Makes the journal as it was found durable, after moving a torn tail aside.
fn settle_journal(
    root: &Path,
    folder: &Path,
    disk: &dyn Disk,
    file: Box<dyn DiskFile>,
    scan: &Scan,
    report: &mut OpenReport,
) -> Result<Journal, OpenError> {
    if scan.tail == Tail::Torn {
        report.torn_tail = Some(copy_tail(folder, disk, file.as_ref(), scan.end)?);
    }
    // The copy has its bytes and its name before the original is cut off.
    disk.sync_dir(folder, SyncSite::JournalFolder).map_err(failed("syncing", folder))?;
    let mut journal = Journal::new(file, scan.end);
    journal.settle(scan.last_frame).map_err(failed("settling the journal in", folder))?;
    disk.sync_dir(root, SyncSite::Root).map_err(failed("syncing", root))?;
    Ok(journal)
}

fn copy_tail(
    folder: &Path,
    disk: &dyn Disk,
    file: &dyn DiskFile,
    from: u64,
) -> Result<TornTail, OpenError> {
    let names = disk.list(folder).map_err(failed("listing", folder))?;
    let free = |number: &u32| !names.contains(&torn_name(*number));
    let full = || io::Error::other(format!("{MAX_TORN} torn tails are kept already; remove them"));
    let number = (1..=MAX_TORN).find(free).ok_or_else(full).map_err(failed("naming in", folder))?;
    let name = torn_name(number);
    let path = folder.join(&name);
    let copied = (|| {
        let bytes = file.size()?.saturating_sub(from);
        let tail = file.read_at(from, usize::try_from(bytes).map_err(io::Error::other)?)?;
        write_durably(disk, &path, &tail, SyncSite::TornData)?;
        Ok(bytes)
    })();
    let bytes = copied.map_err(failed("writing", &path))?;
    Ok(TornTail { file: name, bytes })
}

fn torn_name(number: u32) -> String {
    format!("journal.torn-{number}")
}

/// Brings the index to the end of the journal: by what it lacks, or from the beginning.
fn bring_index_up(
    keeper: &mut IndexKeeper,
    replay: &Replay,
    indexed: IndexPosition,
    snapshot: &Snapshot,
    report: &mut OpenReport,
) {
    let position = IndexPosition { epoch: snapshot.epoch, chain: replay.tip.chain };
    if replay.index_strayed {
        let what = format!("at epoch {} it follows another journal", indexed.epoch);
        report.index_repair = Some(keeper.rebuild(&IndexError(what), position, snapshot));
    } else if indexed.epoch < position.epoch {
        report.index_caught_up = Some(position.epoch - indexed.epoch);
        let repair = keeper.follow(position, &replay.behind(), snapshot);
        report.index_repair = report.index_repair.take().or(repair);
    }
}

fn write_durably(disk: &dyn Disk, path: &Path, bytes: &[u8], site: SyncSite) -> io::Result<()> {
    let mut file = disk.create(path)?;
    file.write_at(0, bytes)?;
    file.sync_data(site)
}

/// Says of a disk's error what was tried, and on what.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Disk { action, path, source }
}
