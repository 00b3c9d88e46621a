//! Damage that no crash explains: what is refused, what is repaired, and what is said of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::disk::SimDisk;
use super::super::*;
use super::support::{MemoryIndex, StoppedClock, annotate, publish, record, store};

/// A data directory with a small history: epochs 1 to 4.
struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        let directory = Self(tempfile::tempdir().unwrap());
        let (registry, report) = directory.open();
        assert_eq!(report, OpenReport::default());
        let (blob, _lease) = store(registry.blobs(), b"component");
        for model in ["m", "n"] {
            registry.commit(publish(model, "1", record(&[blob]))).unwrap();
            registry.commit(annotate(model, "1", &format!("what {model} does"))).unwrap();
        }
        directory
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn journal(&self) -> PathBuf {
        self.root().join("journal/journal")
    }

    fn try_open(&self) -> Result<(FileRegistry, OpenReport), OpenError> {
        let clock = Arc::new(StoppedClock::default());
        FileRegistry::open(&self.root(), Arc::new(RealDisk), clock)
    }

    fn open(&self) -> (FileRegistry, OpenReport) {
        self.try_open().unwrap()
    }

    fn edit_journal(&self, edit: impl Fn(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.journal()).unwrap();
        edit(&mut bytes);
        fs::write(self.journal(), bytes).unwrap();
    }

    /// Damages the index, opens, and sees that it serves everything as before.
    fn with_damaged_index(&self, damage: impl Fn(&Path)) -> OpenReport {
        let index = self.root().join("index");
        damage(&index);
        let (registry, report) = self.open();
        assert_eq!(registry.snapshot().epoch, 4);
        assert_eq!(registry.status(), Status::Writable);
        registry.commit(annotate("m", "1", "anew")).unwrap();
        let blob = registry.snapshot().get("m").unwrap().versions["1"].record.component;
        registry.commit(annotate("m", "1", "and again")).unwrap();
        assert_eq!(registry.references(&blob.digest).len(), 2);
        drop(registry);
        // What was made anew is good.
        let (_, again) = self.open();
        assert_eq!((again.index_repair, again.index_caught_up), (None, None));
        report
    }
}

/// The files of sled's folder, deepest first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_registry_reopened_is_what_it_was() {
    let directory = Directory::new();
    let (registry, report) = directory.open();
    let clean = OpenReport { epoch: 4, models: 2, ..OpenReport::default() };
    assert_eq!(report, clean);
    let model = Arc::clone(registry.snapshot().get("n").unwrap());
    assert_eq!(model.versions["1"].annotations.description, "what n does");
}

#[test]
fn a_second_open_is_refused_and_names_the_holder() {
    let directory = Directory::new();
    let (held, _) = directory.open();
    let Err(OpenError::InUse { holder, .. }) = directory.try_open() else {
        panic!("it was opened twice");
    };
    assert!(holder.contains(&format!("process {}, started 1970-", std::process::id())), "{holder}");
    drop(held);
    directory.open();
}

#[test]
fn a_newer_or_unreadable_format_is_refused() {
    let directory = Directory::new();
    let format = directory.root().join("format");
    fs::write(&format, "2\n").unwrap();
    assert!(matches!(directory.try_open(), Err(OpenError::NewerFormat { found: 2, .. })));
    fs::write(&format, "words").unwrap();
    assert!(matches!(directory.try_open(), Err(OpenError::Format { .. })));
    fs::remove_file(&format).unwrap();
    assert!(matches!(directory.try_open(), Err(OpenError::Format { .. })));
    fs::write(&format, "1").unwrap();
    directory.open();
}

#[test]
fn a_torn_last_frame_is_moved_aside() {
    let directory = Directory::new();
    let whole = fs::read(directory.journal()).unwrap();
    // Nobody was told of this frame, so the index has not seen it.
    directory.edit_journal(|bytes| bytes.extend_from_within(..100));
    let (registry, report) = directory.open();
    let tail = report.torn_tail.unwrap();
    assert_eq!((tail.file.as_str(), tail.bytes), ("journal.torn-1", 100));
    let aside = directory.root().join("journal").join(&tail.file);
    assert_eq!(fs::read(aside).unwrap(), &whole[..100]);
    assert_eq!(fs::read(directory.journal()).unwrap(), whole);
    registry.commit(annotate("m", "1", "after the repair")).unwrap();
    drop(registry);
    directory.edit_journal(|bytes| bytes.push(0));
    let (registry, report) = directory.open();
    assert_eq!(report.torn_tail.unwrap().file, "journal.torn-2");
    assert_eq!(registry.snapshot().epoch, 5);
}

#[test]
fn a_journal_that_lost_what_the_index_has_seen_is_read_only() {
    let directory = Directory::new();
    directory.edit_journal(|bytes| bytes.truncate(bytes.len() - 1));
    let cut = fs::read(directory.journal()).unwrap();
    let (registry, report) = directory.open();
    let reason = report.read_only.unwrap();
    assert!(reason.contains("epochs 4 to 4 were acknowledged and are gone"), "{reason}");
    assert_eq!(registry.status(), Status::ReadOnly { reason });
    let error = registry.commit(annotate("m", "1", "refused")).unwrap_err();
    assert_eq!(error.kind(), CommitErrorKind::ReadOnly);
    assert_eq!(registry.check(&annotate("m", "1", "refused")).unwrap_err(), error);
    assert!(matches!(registry.collect(), Err(CollectError::ReadOnly { .. })));
    // What is left is served, and left as it is.
    assert_eq!(registry.snapshot().epoch, 3);
    drop(registry);
    assert_eq!(fs::read(directory.journal()).unwrap(), cut);
    // Removing the index accepts the loss.
    fs::remove_dir_all(directory.root().join("index")).unwrap();
    let (registry, report) = directory.open();
    assert!(report.torn_tail.is_some() && report.read_only.is_none());
    assert_eq!(registry.status(), Status::Writable);
}

#[test]
fn damage_within_the_journal_makes_it_read_only_from_there() {
    let directory = Directory::new();
    let whole = fs::read(directory.journal()).unwrap();
    let second = |bytes: &[u8]| bytes.windows(4).skip(1).position(|w| w == b"\xFFMJ1").unwrap() + 1;
    directory.edit_journal(|bytes| {
        let at = second(bytes) + 60;
        bytes[at] ^= 1;
    });
    let (registry, report) = directory.open();
    assert!(report.read_only.unwrap().contains("damaged after epoch 1"));
    // The model before the damage is served, with its history.
    assert_eq!(registry.snapshot().iter().len(), 1);
    assert_eq!(registry.history("m", 10).unwrap().len(), 1);
    drop(registry);
    fs::write(directory.journal(), whole).unwrap();
    assert_eq!(directory.open().1.read_only, None);
}

#[test]
fn a_frame_taken_out_whole_is_noticed() {
    let directory = Directory::new();
    directory.edit_journal(|bytes| {
        let starts: Vec<_> =
            (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"\xFFMJ1")).collect();
        bytes.drain(starts[1]..starts[2]);
    });
    let reason = directory.open().1.read_only.unwrap();
    assert!(reason.contains("its epoch is 3, and the one before has 1"), "{reason}");
}

#[test]
fn an_index_that_is_gone_is_made_anew() {
    let report = Directory::new().with_damaged_index(|index| fs::remove_dir_all(index).unwrap());
    assert_eq!(report.index_caught_up, Some(4));
}

#[test]
fn an_index_overwritten_with_noise_is_moved_aside_and_made_anew() {
    let directory = Directory::new();
    let report = directory.with_damaged_index(|index| {
        for file in files(index) {
            let bytes = fs::metadata(&file).unwrap().len() as usize;
            fs::write(file, vec![0xA5; bytes.max(64)]).unwrap();
        }
    });
    assert!(report.index_repair.unwrap().contains("moved to index.broken-1 and made anew"));
    assert!(directory.root().join("index.broken-1").is_dir());
}

#[test]
fn an_index_whose_files_are_empty_does_not_stop_the_registry() {
    Directory::new().with_damaged_index(|index| {
        files(index).iter().for_each(|file| fs::write(file, []).unwrap());
    });
}

#[test]
fn an_index_that_is_a_file_is_moved_aside() {
    let report = Directory::new().with_damaged_index(|index| {
        fs::remove_dir_all(index).unwrap();
        fs::write(index, "not a folder").unwrap();
    });
    assert!(report.index_repair.is_some());
}

#[test]
fn an_index_with_other_keys_is_moved_aside() {
    for (key, value) in [("applied", "2 4 -"), ("applied", "1 four -"), ("applied", "")] {
        let report = Directory::new().with_damaged_index(|index| {
            sled::open(index).unwrap().insert(key, value).unwrap();
        });
        assert!(report.index_repair.is_some(), "{key} {value}");
    }
    let report = Directory::new().with_damaged_index(|index| {
        sled::open(index).unwrap().remove("applied").unwrap();
    });
    assert!(report.index_repair.unwrap().contains("keys and no position"));
}

#[test]
fn an_index_of_another_journal_is_made_anew() {
    let (first, second) = (Directory::new(), Directory::new());
    let report = first.with_damaged_index(|index| {
        fs::remove_dir_all(index).unwrap();
        fs::rename(second.root().join("index"), index).unwrap();
    });
    assert!(report.index_repair.unwrap().contains("at epoch 4 it follows another journal"));
}

#[test]
fn an_index_that_fails_while_serving_is_made_anew() {
    let (disk, clock) = (Arc::new(SimDisk::new(0)), Arc::new(StoppedClock::default()));
    let index = MemoryIndex::default();
    let (root, kept) = (Path::new("/data"), Box::new(index.clone()));
    let (registry, _) = FileRegistry::open_with(root, disk, clock, kept).unwrap();
    let (blob, _lease) = store(registry.blobs(), b"component");
    registry.commit(publish("m", "1", record(&[blob]))).unwrap();
    for damages in 1..=10 {
        registry.commit(annotate("m", "1", &format!("before damage {damages}"))).unwrap();
        index.forget();
        let said = format!("after damage {damages}");
        registry.commit(annotate("m", "1", &said)).unwrap();
        assert_eq!(
            registry.snapshot().get("m").unwrap().versions["1"].annotations.description,
            said
        );
    }
    // After some rebuilds it goes on without one, and questions are answered the slow way.
    assert_eq!(registry.references(&blob.digest).len(), 1);
    drop(registry);
    assert!(index.models().is_empty());
}

#[test]
fn a_damaged_blob_is_noticed_when_read_and_healed_by_another_upload() {
    let directory = Directory::new();
    let (registry, _) = directory.open();
    let blob = registry.snapshot().get("m").unwrap().versions["1"].record.component;
    fs::write(registry.blobs().path(&blob.digest), b"componenX").unwrap();
    assert!(matches!(registry.blobs().read(&blob.digest), Err(BlobError::Damaged { .. })));
    // Only a file of another length is known to be damaged without reading it.
    fs::write(registry.blobs().path(&blob.digest), b"comp").unwrap();
    store(registry.blobs(), b"component");
    assert_eq!(registry.blobs().read(&blob.digest).unwrap(), b"component");
}
