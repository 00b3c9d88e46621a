//! Checkpoints: a restart goes on counting, and says what it cannot know.

use std::io;

use super::*;

/// A ledger that has counted one call of 1,000 ns and some engine time and data for each model.
fn worked(models: &[&str]) -> (Ledger, ManualClock) {
    let (ledger, hand) = ledger();
    for model in models {
        work(&ledger, &hand, model);
    }
    (ledger, hand)
}

fn work(ledger: &Ledger, hand: &ManualClock, model: &str) {
    let version = version(ledger, model);
    let mut account = ledger.instance(&version);
    account.set_memory_bytes(SECOND_NS);
    account.lease();
    account.enter(Bucket::Guest);
    hand.advance_ns(1_000);
    drop(account);
    let mut thread = ledger.engine_thread("compute-0");
    let work = thread.begin();
    hand.advance_ns(500);
    work.finish(&[Share { version: &version, rows: 1, abandoned: false }], 1);
}

fn restored(file: &[u8], now_ms: u64) -> (Ledger, Restored) {
    let (ledger, _hand) = ledger();
    let restored = ledger.restore(file, now_ms).unwrap();
    (ledger, restored)
}

#[test]
fn the_lifetime_goes_on_after_a_restart_and_windows_begin_anew() {
    let (before, hand) = worked(&["a", "b"]);
    let mut file = Vec::new();
    before.checkpoint(&mut file, 1_000, Extent::Whole).unwrap();
    work(&before, &hand, "b");
    before.checkpoint(&mut file, 6_000, Extent::Last).unwrap();

    let (after, restored) = restored(&file, 99_000);
    assert_eq!(restored, Restored { checkpoints: 2, damaged: 0, unaccounted_ms: 0 });
    let report = |window| report(&after, window, &["a", "b", "c"]);
    let lifetime = report(Window::Lifetime);
    let calls: Vec<_> = lifetime.models.iter().map(|model| model.row.calls).collect();
    assert_eq!(calls, [1, 2]);
    assert_eq!((lifetime.host.calls, lifetime.host.buckets_ns.guest), (3, 3_000));
    assert_eq!(lifetime.host.used_byte_seconds, 3_000);
    assert_eq!(lifetime.models[1].row.used_byte_seconds, 2_000);
    assert_eq!(lifetime.engine.apportioned_ns, 1_500);
    assert_eq!(lifetime.host.xi, Some(2.0 / 3.0));
    let hour = report(Window::OneHour);
    assert_eq!((hour.host.calls, hour.models.len(), hour.engine.busy_ns), (0, 0, 0));
    assert_eq!(hour.host.xi, Some(0.0));
}

#[test]
fn what_is_restored_is_written_again() {
    let (before, _) = worked(&["a"]);
    let mut file = Vec::new();
    before.checkpoint(&mut file, 0, Extent::Last).unwrap();
    for _ in 0..3 {
        let (ledger, hand) = ledger();
        ledger.restore(file.as_slice(), 0).unwrap();
        work(&ledger, &hand, "a");
        file.clear();
        ledger.checkpoint(&mut file, 0, Extent::Whole).unwrap();
        ledger.checkpoint(&mut file, 0, Extent::Last).unwrap();
    }
    let (ledger, _) = restored(&file, 0);
    let lifetime = report(&ledger, Window::Lifetime, &[]);
    assert_eq!((lifetime.models.len(), lifetime.host.calls), (1, 4));
    assert_eq!(lifetime.engine.busy_ns, 2_000);
}

#[test]
fn a_crash_costs_one_interval_at_most_and_says_so() {
    let (before, hand) = worked(&["a"]);
    let mut file = Vec::new();
    before.checkpoint(&mut file, 10_000, Extent::Whole).unwrap();
    work(&before, &hand, "a");
    let whole = file.len();
    before.checkpoint(&mut file, 15_000, Extent::Changed).unwrap();

    for (restart_ms, missing_s) in [(12_000, 2.0), (60_000, 5.0), (9_000, 0.0)] {
        let (after, _) = restored(&file[..whole], restart_ms);
        let lifetime = report(&after, Window::Lifetime, &[]);
        assert_eq!((lifetime.host.calls, lifetime.unaccounted_s), (1, missing_s));
        assert_eq!(report(&after, Window::OneHour, &[]).unaccounted_s, 0.0);
    }
    // A host that is set to write more rarely loses as much more.
    let mut rare = file[..whole].to_vec();
    before.checkpoint(&mut rare, 40_000, Extent::Changed).unwrap();
    assert_eq!(restored(&rare, 100_000).1.unaccounted_ms, 30_000);
    // A second crash adds to the first.
    let (after, _) = restored(&file[..whole], 12_000);
    let mut second = Vec::new();
    after.checkpoint(&mut second, 20_000, Extent::Whole).unwrap();
    assert_eq!(restored(&second, 60_000).1.unaccounted_ms, 7_000);
}

#[test]
fn a_file_cut_anywhere_still_gives_its_whole_lines() {
    let (before, hand) = worked(&["a"]);
    let mut file = Vec::new();
    before.checkpoint(&mut file, 0, Extent::Whole).unwrap();
    let whole = file.len();
    work(&before, &hand, "a");
    before.checkpoint(&mut file, 0, Extent::Last).unwrap();
    for cut in whole..file.len() - 1 {
        let (after, restored) = restored(&file[..cut], 0);
        assert_eq!((restored.checkpoints, restored.damaged), (1, u64::from(cut > whole)));
        assert_eq!(report(&after, Window::Lifetime, &[]).host.calls, 1);
    }
    assert_eq!(restored(&[], 0).1, Restored::default());
    assert_eq!(restored(b"\xff\xfe\n\n[]\n", 0).1, Restored::default());
}

#[test]
fn only_models_that_changed_are_written() {
    let (ledger, hand) = worked(&["quiet", "busy"]);
    let mut file = Vec::new();
    let whole = ledger.checkpoint(&mut file, 0, Extent::Whole).unwrap();
    work(&ledger, &hand, "busy");
    let mut next = Vec::new();
    let changed = ledger.checkpoint(&mut next, 0, Extent::Changed).unwrap();
    assert!(changed < whole && changed == u64::try_from(next.len()).unwrap());
    let text = String::from_utf8(next).unwrap();
    assert!(text.contains("busy") && !text.contains("quiet"));
    let mut again = Vec::new();
    ledger.checkpoint(&mut again, 0, Extent::Changed).unwrap();
    assert!(!String::from_utf8(again).unwrap().contains("busy"));
}

/// A disk that takes some bytes and then is full, until it is emptied.
struct Disk {
    written: Vec<u8>,
    room: usize,
}

impl io::Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room);
        if taken == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room -= taken;
        self.written.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_checkpoint_that_failed_is_made_good_by_the_next() {
    let (ledger, _hand) = worked(&["a"]);
    let mut disk = Disk { written: Vec::new(), room: 40 };
    let failed = ledger.checkpoint(&mut disk, 0, Extent::Changed);
    assert!(matches!(failed, Err(CheckpointError::Write(_))));
    disk.room = usize::MAX;
    ledger.checkpoint(&mut disk, 0, Extent::Last).unwrap();
    let (after, restored) = restored(&disk.written, 0);
    assert_eq!(restored, Restored { checkpoints: 1, damaged: 1, unaccounted_ms: 0 });
    assert_eq!(report(&after, Window::Lifetime, &[]).host.calls, 1);
}

#[test]
fn checkpoints_of_a_later_release_are_refused() {
    let (ledger, _hand) = ledger();
    let error = ledger.restore(&b"{\"format\":2,\"sums\":[]}\n"[..], 0).unwrap_err();
    assert!(matches!(error, CheckpointError::Newer(2)), "{error}");
    assert!(error.to_string().contains("format 2"));
}
