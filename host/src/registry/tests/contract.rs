//! What every registry and blob store must do, on the machine's disk and on a simulated one.

use std::path::Path;
use std::sync::Arc;

use super::super::disk::SimDisk;
use super::super::*;
use super::support::{
    MemoryIndex, StoppedClock, annotate, change, delete_version, publish, record, set_alias, store,
};
use crate::names::{AliasName, ModelName, Target, VersionName};
use crate::version::Accuracy;

/// A registry to try, and the clock it goes by.
struct Tried {
    registry: FileRegistry,
    clock: Arc<StoppedClock>,
    /// Removed when the test is over.
    _folder: Option<tempfile::TempDir>,
}

fn on_real_disk() -> Tried {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(StoppedClock::default());
    let root = folder.path().join("data");
    let (registry, _) = FileRegistry::open(&root, Arc::new(RealDisk), clock.clone()).unwrap();
    Tried { registry, clock, _folder: Some(folder) }
}

fn on_simulated_disk() -> Tried {
    let clock = Arc::new(StoppedClock::default());
    let (disk, index) = (Arc::new(SimDisk::new(7)), Box::new(MemoryIndex::default()));
    let root = Path::new("/data");
    let (registry, _) = FileRegistry::open_with(root, disk, clock.clone(), index).unwrap();
    Tried { registry, clock, _folder: None }
}

/// Makes each claim a test on both disks.
macro_rules! contract {
    ($($claim:ident)*) => {
        mod real_disk {
            $(#[test] fn $claim() { super::$claim(&super::on_real_disk()); })*
        }
        mod simulated_disk {
            $(#[test] fn $claim() { super::$claim(&super::on_simulated_disk()); })*
        }
    };
}

contract! {
    the_first_version_becomes_live_and_later_ones_only_when_told
    publishing_the_same_again_changes_nothing
    another_record_under_the_same_version_is_a_conflict
    a_version_and_an_alias_never_share_a_name
    aliases_point_only_to_versions_that_are_there
    alias_moves_are_compare_and_set
    a_rollback_goes_back_and_a_second_one_forth
    a_rollback_never_reaches_a_version_published_anew
    a_version_with_an_alias_is_not_deleted
    live_stays_as_long_as_the_model
    a_deleted_model_is_gone_but_for_its_history
    annotations_are_edited_by_epoch
    a_dry_run_answers_like_a_commit_and_changes_nothing
    history_is_newest_first_and_limited
    times_never_go_back
    a_snapshot_once_read_does_not_change
    concurrent_commits_are_all_kept
    a_publish_needs_its_blobs_held
    references_are_those_of_the_state
    a_blob_reads_back_and_is_stored_once
    a_blob_over_its_limit_is_refused_and_leaves_nothing
    a_collection_spares_what_is_referenced_or_held
    what_is_over_a_limit_is_refused
}

impl Tried {
    fn commit(&self, change: Change) -> Result<Committed, CommitError> {
        self.registry.commit(change)
    }

    /// Publishes a version made of one blob with these bytes.
    fn publish(&self, model: &str, version: &str, bytes: &str) -> Committed {
        let (blob, _lease) = store(self.registry.blobs(), bytes.as_bytes());
        self.commit(publish(model, version, record(&[blob]))).unwrap()
    }

    fn model(&self, model: &str) -> Arc<Model> {
        Arc::clone(self.registry.snapshot().get(model).unwrap())
    }

    fn resolved(&self, model: &str, target: &Target) -> String {
        self.model(model).resolve(target, 0).unwrap().name.to_string()
    }

    fn refused(&self, change: Change) -> CommitErrorKind {
        let before = self.registry.snapshot();
        let error = self.commit(change).unwrap_err();
        assert_eq!(before, self.registry.snapshot());
        let message = error.to_string();
        assert!(!message.ends_with('.') && !message.starts_with(char::is_uppercase), "{message}");
        error.kind()
    }
}

fn model(name: &str) -> ModelName {
    name.parse().unwrap()
}

fn version(name: &str) -> VersionName {
    name.parse().unwrap()
}

fn alias(name: &str) -> AliasName {
    name.parse().unwrap()
}

fn the_first_version_becomes_live_and_later_ones_only_when_told(tried: &Tried) {
    let first = tried.publish("m", "1", "one");
    assert!(first.changed && first.before.is_none());
    tried.publish("m", "2", "two");
    assert_eq!(tried.resolved("m", &Target::Live), "1");
    let (blob, _lease) = store(tried.registry.blobs(), b"three");
    let mut third = publish("m", "3", record(&[blob]));
    let Op::Publish(told) = &mut third.op else { panic!("a publish") };
    told.alias = Some(AliasName::live());
    tried.commit(third).unwrap();
    assert_eq!(tried.resolved("m", &Target::Live), "3");
    assert_eq!(tried.resolved("m", &Target::Named("2".into())), "2");
    let error = tried.model("m").resolve(&Target::Named("4".into()), 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "model 'm' has no version or alias '4'; it has versions 1, 2, 3 and aliases live"
    );
}

fn publishing_the_same_again_changes_nothing(tried: &Tried) {
    let first = tried.publish("m", "1", "one");
    let (blob, _lease) = store(tried.registry.blobs(), b"one");
    let again = tried.commit(publish("m", "1", record(&[blob]))).unwrap();
    assert!(!again.changed);
    assert_eq!(again.after, first.after);
    assert_eq!(tried.registry.history("m", 10).unwrap().len(), 1);
}

fn another_record_under_the_same_version_is_a_conflict(tried: &Tried) {
    tried.publish("m", "1", "one");
    let (blob, _lease) = store(tried.registry.blobs(), b"other");
    assert_eq!(tried.refused(publish("m", "1", record(&[blob]))), CommitErrorKind::Conflict);
}

fn a_version_and_an_alias_never_share_a_name(tried: &Tried) {
    tried.publish("m", "v1", "one");
    tried.commit(set_alias("m", "canary", &[("v1", 1)])).unwrap();
    let (blob, _lease) = store(tried.registry.blobs(), b"two");
    for name in ["canary", "live"] {
        assert_eq!(tried.refused(publish("m", name, record(&[blob]))), CommitErrorKind::Conflict);
    }
    assert_eq!(tried.refused(publish("new", "live", record(&[blob]))), CommitErrorKind::Conflict);
    assert_eq!(tried.refused(set_alias("m", "v1", &[("v1", 1)])), CommitErrorKind::Conflict);
    let mut named_like_its_alias = publish("m", "v2", record(&[blob]));
    let Op::Publish(told) = &mut named_like_its_alias.op else { panic!("a publish") };
    told.alias = Some(alias("v2"));
    assert_eq!(tried.refused(named_like_its_alias), CommitErrorKind::Conflict);
}

fn aliases_point_only_to_versions_that_are_there(tried: &Tried) {
    tried.publish("m", "1", "one");
    assert_eq!(tried.refused(set_alias("m", "a", &[("9", 1)])), CommitErrorKind::NotFound);
    assert_eq!(tried.refused(set_alias("n", "a", &[("1", 1)])), CommitErrorKind::NotFound);
    assert_eq!(tried.refused(set_alias("m", "a", &[])), CommitErrorKind::Invalid);
    assert_eq!(tried.refused(set_alias("m", "a", &[("1", 0)])), CommitErrorKind::Invalid);
    assert_eq!(tried.refused(set_alias("m", "a", &[("1", 1), ("1", 2)])), CommitErrorKind::Invalid);
}

fn alias_moves_are_compare_and_set(tried: &Tried) {
    let expecting = |expect| {
        let mut change = set_alias("m", "canary", &[("1", 90), ("2", 10)]);
        if let Op::SetAlias { expect: held, .. } = &mut change.op {
            *held = expect;
        }
        change
    };
    tried.publish("m", "1", "one");
    tried.publish("m", "2", "two");
    assert_eq!(tried.refused(expecting(Expect::Epoch(1))), CommitErrorKind::PreconditionFailed);
    let epoch = tried.commit(expecting(Expect::Absent)).unwrap().epoch;
    assert_eq!(tried.refused(expecting(Expect::Absent)), CommitErrorKind::PreconditionFailed);
    assert_eq!(tried.refused(expecting(Expect::Epoch(1))), CommitErrorKind::PreconditionFailed);
    assert_eq!(tried.model("m").aliases["canary"].epoch, epoch);
    // What is set already is no move.
    assert!(!tried.commit(expecting(Expect::Epoch(epoch))).unwrap().changed);
    let removal =
        |expect| change(Op::RemoveAlias { model: model("m"), alias: alias("canary"), expect });
    assert_eq!(tried.refused(removal(Expect::Epoch(1))), CommitErrorKind::PreconditionFailed);
    tried.commit(removal(Expect::Epoch(epoch))).unwrap();
    assert_eq!(tried.refused(removal(Expect::Any)), CommitErrorKind::NotFound);
}

fn roll_back(name: &str) -> Change {
    change(Op::RollbackAlias { model: model("m"), alias: alias(name), expect: Expect::Any })
}

fn a_rollback_goes_back_and_a_second_one_forth(tried: &Tried) {
    tried.publish("m", "1", "one");
    tried.publish("m", "2", "two");
    assert_eq!(tried.refused(roll_back("live")), CommitErrorKind::Conflict);
    tried.commit(set_alias("m", "live", &[("1", 1), ("2", 1)])).unwrap();
    tried.commit(set_alias("m", "live", &[("2", 1)])).unwrap();
    tried.commit(roll_back("live")).unwrap();
    assert_eq!(tried.model("m").aliases["live"].targets.len(), 2);
    tried.commit(roll_back("live")).unwrap();
    assert_eq!(tried.resolved("m", &Target::Live), "2");
}

fn a_rollback_never_reaches_a_version_published_anew(tried: &Tried) {
    tried.publish("m", "1", "one");
    tried.publish("m", "2", "two");
    tried.commit(set_alias("m", "live", &[("2", 1)])).unwrap();
    tried.commit(delete_version("m", "1")).unwrap();
    tried.publish("m", "1", "another one");
    assert_eq!(tried.refused(roll_back("live")), CommitErrorKind::Conflict);
}

fn a_version_with_an_alias_is_not_deleted(tried: &Tried) {
    tried.publish("m", "1", "one");
    tried.publish("m", "2", "two");
    let held = tried.registry.snapshot();
    assert_eq!(tried.refused(delete_version("m", "1")), CommitErrorKind::Conflict);
    tried.commit(delete_version("m", "2")).unwrap();
    assert_eq!(tried.refused(delete_version("m", "2")), CommitErrorKind::NotFound);
    // A request that began before goes on with what it read.
    assert!(held.get("m").unwrap().versions.contains_key("2"));
}

fn live_stays_as_long_as_the_model(tried: &Tried) {
    tried.publish("m", "1", "one");
    let removal = Op::RemoveAlias { model: model("m"), alias: alias("live"), expect: Expect::Any };
    assert_eq!(tried.refused(change(removal)), CommitErrorKind::Conflict);
}

fn a_deleted_model_is_gone_but_for_its_history(tried: &Tried) {
    let first = tried.publish("m", "1", "one").after.unwrap();
    let deleted = tried.commit(change(Op::DeleteModel { model: model("m") })).unwrap();
    assert!(deleted.after.is_none());
    assert_eq!(deleted.before.unwrap().versions.len(), 1);
    assert!(tried.registry.snapshot().is_empty());
    assert_eq!(tried.registry.history("m", 10).unwrap().len(), 2);
    let second = tried.publish("m", "1", "one").after.unwrap();
    assert_ne!(first.id, second.id);
}

fn annotations_are_edited_by_epoch(tried: &Tried) {
    let expecting = |expect, value| {
        let mut change = annotate("m", "1", "digits");
        if let Op::Annotate { annotations, expect: held, .. } = &mut change.op {
            *held = expect;
            annotations.accuracy =
                Some(Accuracy { value, method: "top-1".to_owned(), dataset: None });
        }
        change
    };
    let published = tried.publish("m", "1", "one").epoch;
    let epoch = tried.commit(expecting(Expect::Epoch(published), 0.987_654_321)).unwrap().epoch;
    let stale = expecting(Expect::Epoch(published), 0.5);
    assert_eq!(tried.refused(stale), CommitErrorKind::PreconditionFailed);
    assert_eq!(tried.refused(expecting(Expect::Any, f64::NAN)), CommitErrorKind::Invalid);
    let version = Arc::clone(&tried.model("m").versions["1"]);
    assert_eq!((version.annotations_epoch, version.epoch), (epoch, published));
    assert_eq!(version.annotations.accuracy.as_ref().unwrap().value, 0.987_654_321);
}

fn a_dry_run_answers_like_a_commit_and_changes_nothing(tried: &Tried) {
    let (blob, _lease) = store(tried.registry.blobs(), b"one");
    let first = publish("m", "1", record(&[blob]));
    let preview = tried.registry.check(&first).unwrap();
    assert!(preview.changed && tried.registry.snapshot().is_empty());
    let committed = tried.commit(first).unwrap();
    assert_eq!(preview.after.unwrap().versions, committed.after.unwrap().versions);
    let refused = delete_version("m", "1");
    let checked = tried.registry.check(&refused).unwrap_err();
    assert_eq!(checked, tried.commit(refused).unwrap_err());
}

fn history_is_newest_first_and_limited(tried: &Tried) {
    tried.publish("m", "1", "one");
    tried.publish("other", "1", "one");
    tried.commit(annotate("m", "1", "first")).unwrap();
    tried.commit(annotate("m", "1", "second")).unwrap();
    let entries = tried.registry.history("m", 2).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.epoch).collect::<Vec<_>>(), [4, 3]);
    assert_eq!(entries[0].change, annotate("m", "1", "second").op);
    assert_eq!(tried.registry.history("m", usize::MAX).unwrap().len(), 3);
    assert!(matches!(tried.registry.history("none", 1), Err(HistoryError::NotFound { .. })));
    let entry = serde_json::to_value(&entries[0]).unwrap();
    assert_eq!(entry["change"]["op"], "annotate");
}

fn times_never_go_back(tried: &Tried) {
    tried.clock.set(2_000);
    tried.publish("m", "1", "one");
    tried.clock.set(1_000);
    tried.publish("m", "2", "two");
    assert_eq!(tried.model("m").versions["2"].created_ms, 2_000);
}

fn a_snapshot_once_read_does_not_change(tried: &Tried) {
    tried.publish("m", "1", "one");
    let read = tried.registry.snapshot();
    tried.commit(annotate("m", "1", "changed")).unwrap();
    assert_eq!(read.get("m").unwrap().versions["1"].annotations.description, "");
    assert_eq!(read.epoch + 1, tried.registry.snapshot().epoch);
}

fn concurrent_commits_are_all_kept(tried: &Tried) {
    tried.publish("m", "1", "one");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..8 {
                    let said = format!("{thread} {round}");
                    let committed = tried.commit(annotate("m", "1", &said)).unwrap();
                    // Whoever was answered sees the change, or a later one.
                    assert!(tried.registry.snapshot().epoch >= committed.epoch);
                }
            });
        }
    });
    let epochs: Vec<_> =
        tried.registry.history("m", 100).unwrap().iter().map(|entry| entry.epoch).collect();
    assert_eq!(epochs, (1..=33).rev().collect::<Vec<_>>());
}

fn a_publish_needs_its_blobs_held(tried: &Tried) {
    let (blob, lease) = store(tried.registry.blobs(), b"one");
    drop(lease);
    assert_eq!(tried.refused(publish("m", "1", record(&[blob]))), CommitErrorKind::Conflict);
    let lease = tried.registry.blobs().lease(&blob.digest).unwrap().unwrap();
    let mut longer = blob;
    longer.bytes += 1;
    assert_eq!(tried.refused(publish("m", "1", record(&[longer]))), CommitErrorKind::Conflict);
    tried.commit(publish("m", "1", record(&[blob]))).unwrap();
    assert_eq!(*lease.digest(), blob.digest);
}

fn references_are_those_of_the_state(tried: &Tried) {
    let (blob, _lease) = store(tried.registry.blobs(), b"shared");
    let (other, _other_lease) = store(tried.registry.blobs(), b"other");
    tried.commit(publish("m", "1", record(&[blob, other]))).unwrap();
    tried.commit(publish("m", "2", record(&[blob]))).unwrap();
    tried.commit(publish("n", "1", record(&[other, blob]))).unwrap();
    tried.commit(delete_version("m", "2")).unwrap();
    // The index follows the answers; the next answer says that it followed the last.
    tried.commit(annotate("m", "1", "later")).unwrap();
    let wanted = [(model("m"), version("1")), (model("n"), version("1"))];
    assert_eq!(tried.registry.references(&blob.digest), wanted);
    assert_eq!(tried.registry.references(&crate::digest::Digest::of(b"nothing")), []);
}

fn a_blob_reads_back_and_is_stored_once(tried: &Tried) {
    let blobs = tried.registry.blobs();
    let (first, _held) = store(blobs, b"bytes");
    let (second, _also_held) = store(blobs, b"bytes");
    assert_eq!((first, first.bytes), (second, 5));
    assert_eq!(blobs.read(&first.digest).unwrap(), b"bytes");
    assert!(blobs.contains(&first.digest).unwrap());
    let absent = crate::digest::Digest::of(b"absent");
    assert!(matches!(blobs.read(&absent), Err(BlobError::NotFound { .. })));
    assert!(blobs.lease(&absent).unwrap().is_none());
}

fn a_blob_over_its_limit_is_refused_and_leaves_nothing(tried: &Tried) {
    let blobs = tried.registry.blobs();
    let mut writer = blobs.begin(5).unwrap();
    writer.write(b"12345").unwrap();
    assert!(matches!(writer.write(b"6"), Err(BlobError::TooLarge { limit_bytes: 5 })));
    drop(writer);
    assert_eq!(tried.registry.collect().unwrap(), Collected::default());
    assert!(!blobs.contains(&crate::digest::Digest::of(b"12345")).unwrap());
}

fn a_collection_spares_what_is_referenced_or_held(tried: &Tried) {
    let blobs = tried.registry.blobs();
    tried.publish("m", "1", "referenced");
    tried.publish("m", "2", "deleted");
    tried.commit(delete_version("m", "2")).unwrap();
    let (held, lease) = store(blobs, b"held");
    let (unused, unused_lease) = store(blobs, b"unused");
    let twice = blobs.lease(&unused.digest).unwrap();
    drop(unused_lease);
    let deleted = Collected { blobs: 1, bytes: 7 };
    assert_eq!(tried.registry.collect().unwrap(), deleted);
    drop(twice);
    assert_eq!(tried.registry.collect().unwrap(), Collected { blobs: 1, bytes: 6 });
    assert!(!blobs.contains(&unused.digest).unwrap());
    assert!(blobs.contains(&held.digest).unwrap());
    drop(lease);
    assert_eq!(tried.registry.collect().unwrap(), Collected { blobs: 1, bytes: 4 });
    assert_eq!(blobs.read(&crate::digest::Digest::of(b"referenced")).unwrap(), b"referenced");
    // What was collected can be stored again.
    assert_eq!(store(blobs, b"held").0, held);
}

fn what_is_over_a_limit_is_refused(tried: &Tried) {
    let first = tried.publish("m", "1", "one").after.unwrap();
    let long = "x".repeat(MAX_RECORD_BYTES);
    assert_eq!(tried.refused(annotate("m", "1", &long)), CommitErrorKind::TooLarge);
    let mut by_nobody = annotate("m", "1", "short");
    by_nobody.actor = "x".repeat(MAX_ACTOR_BYTES + 1);
    assert_eq!(tried.refused(by_nobody), CommitErrorKind::Invalid);
    let targets = vec![("1", 1); MAX_TARGETS_PER_ALIAS + 1];
    assert_eq!(tried.refused(set_alias("m", "a", &targets)), CommitErrorKind::Invalid);
    for number in first.aliases.len()..MAX_ALIASES_PER_MODEL {
        tried.commit(set_alias("m", &format!("a{number}"), &[("1", 1)])).unwrap();
    }
    assert_eq!(tried.refused(set_alias("m", "one-more", &[("1", 1)])), CommitErrorKind::Conflict);
    tried.commit(set_alias("m", "a1", &[("1", 2)])).unwrap();
}
