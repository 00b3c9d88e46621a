//! A journal replayed gives the state it was written from.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::commit::Committer;
use super::super::disk::SimDisk;
use super::super::open::{Opened, open};
use super::super::{Change, Op, Snapshot};
use super::support::{
    MemoryIndex, StoppedClock, annotate, change, delete_version, publish, record, set_alias, store,
};
use crate::version::Accuracy;

/// A step of a made-up history; numbers pick among few names, so that steps meet.
#[derive(Debug, Clone)]
enum Step {
    Publish { model: u8, version: u8, blob: u8 },
    SetAlias { model: u8, alias: u8, first: u8, second: Option<u8>, weight: u32 },
    RollBack { model: u8, alias: u8 },
    RemoveAlias { model: u8, alias: u8 },
    Annotate { model: u8, version: u8, said: String, accuracy: f64 },
    DeleteVersion { model: u8, version: u8 },
    DeleteModel { model: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let (model, few) = (0..2u8, 0..3u8);
    prop_oneof![
        4 => (model.clone(), few.clone(), few.clone())
            .prop_map(|(model, version, blob)| Step::Publish { model, version, blob }),
        4 => (model.clone(), few.clone(), few.clone(), prop::option::of(few.clone()), 1..u32::MAX)
            .prop_map(|(model, alias, first, second, weight)| {
                Step::SetAlias { model, alias, first, second, weight }
            }),
        2 => (model.clone(), few.clone())
            .prop_map(|(model, alias)| Step::RollBack { model, alias }),
        1 => (model.clone(), few.clone())
            .prop_map(|(model, alias)| Step::RemoveAlias { model, alias }),
        4 => (model.clone(), few.clone(), any::<String>(), prop::num::f64::ANY).prop_map(
            |(model, version, said, accuracy)| Step::Annotate { model, version, said, accuracy }
        ),
        2 => (model.clone(), few).prop_map(|(model, version)| Step::DeleteVersion { model, version }),
        1 => model.prop_map(|model| Step::DeleteModel { model }),
    ]
}

fn change_of(step: &Step, committer: &Committer) -> (Change, Option<super::super::BlobLease>) {
    let model = |number: &u8| format!("m{number}");
    let alias = |number: &u8| ["live", "canary", "a"][usize::from(*number)];
    let made = match step {
        Step::Publish { model: number, version, blob } => {
            let (blob, lease) = store(&committer.shared.blobs, &[*blob]);
            let change = publish(&model(number), &version.to_string(), record(&[blob]));
            return (change, Some(lease));
        }
        Step::SetAlias { model: number, alias: name, first, second, weight } => {
            let (first, second) = (first.to_string(), second.map(|second| second.to_string()));
            let mut targets = vec![(first.as_str(), *weight)];
            targets.extend(second.as_deref().map(|second| (second, 1)));
            set_alias(&model(number), alias(name), &targets)
        }
        Step::Annotate { model: number, version, said, accuracy } => {
            let mut change = annotate(&model(number), &version.to_string(), said);
            if let Op::Annotate { annotations, .. } = &mut change.op {
                let method = "top-1".to_owned();
                annotations.accuracy = Some(Accuracy { value: *accuracy, method, dataset: None });
            }
            change
        }
        Step::DeleteVersion { model: number, version } => {
            delete_version(&model(number), &version.to_string())
        }
        Step::RollBack { model: number, alias: name } => {
            let (model, alias) = (model(number).parse().unwrap(), alias(name).parse().unwrap());
            change(Op::RollbackAlias { model, alias, expect: Default::default() })
        }
        Step::RemoveAlias { model: number, alias: name } => {
            let (model, alias) = (model(number).parse().unwrap(), alias(name).parse().unwrap());
            change(Op::RemoveAlias { model, alias, expect: Default::default() })
        }
        Step::DeleteModel { model: number } => {
            change(Op::DeleteModel { model: model(number).parse().unwrap() })
        }
    };
    (made, None)
}

fn opened(disk: &SimDisk, index: &MemoryIndex) -> Opened {
    let (disk, clock) = (Arc::new(disk.clone()), Arc::new(StoppedClock::default()));
    open(Path::new("/data"), disk, clock, Box::new(index.clone())).unwrap()
}

fn state(opened: &Opened) -> Arc<Snapshot> {
    opened.committer.shared.snapshot.load_full()
}

/// What must hold of any state, whatever led to it.
fn check_rules(state: &Snapshot) {
    for model in state.iter() {
        assert!(model.aliases.contains_key("live"));
        for (name, alias) in &model.aliases {
            assert!(!model.versions.contains_key(name.as_str()));
            assert!(!alias.targets.is_empty());
            assert!(alias.targets.iter().all(|t| model.versions.contains_key(&t.version)));
            let previous = alias.previous.iter().flatten();
            assert!(previous.into_iter().all(|t| model.versions.contains_key(&t.version)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]
    #[test]
    fn a_journal_replayed_gives_the_state_it_was_written_from(
        frames in prop::collection::vec(prop::collection::vec(step(), 1..5), 1..12),
        index_lag in 0..12usize,
    ) {
        let (disk, index) = (SimDisk::new(1), MemoryIndex::default());
        let mut live = opened(&disk, &index);
        for (number, frame) in frames.iter().enumerate() {
            let (changes, _leases): (Vec<_>, Vec<_>) =
                frame.iter().map(|step| change_of(step, &live.committer)).unzip();
            live.committer.commit(&changes);
            check_rules(&state(&live));
            if number < index_lag {
                live.committer.bring_index_up();
            } else {
                live.committer.for_index.clear();
            }
        }
        let written = state(&live);
        drop(live);
        let replayed = opened(&disk, &index);
        prop_assert_eq!(&*state(&replayed), &*written);
        prop_assert_eq!(replayed.report.read_only, None);
        prop_assert_eq!(replayed.report.index_repair, None);
        // The index was behind by any number of frames and is up again.
        prop_assert_eq!(index.models(), written.iter().cloned().collect::<Vec<_>>());
    }
}
