//! A journal read from its bytes alone is what the registry made of it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::super::disk::SimDisk;
use super::super::*;
use super::support::{MemoryIndex, StoppedClock, annotate, publish, record, store};

/// The journal of a registry with some changes, and what that registry serves.
fn journal() -> (Vec<u8>, Snapshot) {
    let disk = Arc::new(SimDisk::new(7));
    let (root, clock) = (Path::new("/data"), Arc::new(StoppedClock::default()));
    let index = Box::new(MemoryIndex::default());
    let (registry, _) = FileRegistry::open_with(root, disk.clone(), clock, index).unwrap();
    let (blob, _lease) = store(registry.blobs(), b"component");
    for change in [publish("m", "1", record(&[blob])), annotate("m", "1", "what it does")] {
        registry.commit(change).unwrap();
    }
    let bytes = disk.read(&root.join("journal/journal")).unwrap();
    (bytes, registry.snapshot().as_ref().clone())
}

#[test]
fn the_bytes_give_what_the_registry_serves() {
    let (bytes, snapshot) = journal();
    let contents = JournalContents::read(&bytes);
    assert_eq!(contents.snapshot, snapshot);
    assert_eq!((contents.good_bytes, contents.tail), (bytes.len() as u64, JournalTail::Clean));
    let frames = contents.payloads.iter().map(|payload| JournalContents::frame(payload));
    assert_eq!(frames.collect::<io::Result<Vec<_>>>().unwrap().concat(), bytes);
}

#[test]
fn a_cut_is_torn_and_a_changed_byte_damage() {
    let (mut bytes, _) = journal();
    let cut = JournalContents::read(&bytes[..bytes.len() - 1]);
    assert_eq!((cut.snapshot.epoch, cut.tail), (1, JournalTail::Torn));
    bytes[50] ^= 1;
    let damaged = JournalContents::read(&bytes);
    assert_eq!((damaged.snapshot.epoch, damaged.payloads.len()), (0, 0));
    assert!(matches!(damaged.tail, JournalTail::Damaged(_)), "{:?}", damaged.tail);
}
