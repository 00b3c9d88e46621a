//! What the registry's tests share: chances from a seed, a stopped clock, an index in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::super::blobs::{BlobLease, BlobStore};
use super::super::change::{Change, Expect, Op, Publish};
use super::super::clock::Clock;
use super::super::index::{Index, IndexError, IndexPosition, IndexStore, ModelUpdate, Reference};
use super::super::locked;
use super::super::snapshot::{Model, WeightedTarget};
use crate::digest::Digest;
use crate::names::ModelName;
use crate::version::{Annotations, BackendChoice, BlobRef, PoolPolicy, Signature, VersionRecord};

/// Chances from a seed: SplitMix64, of which any seed is a good one.
#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number under `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in so many of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// A clock that stands until it is set.
#[derive(Default)]
pub(crate) struct StoppedClock(AtomicU64);

impl StoppedClock {
    pub(crate) fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}

impl Clock for StoppedClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

type Models = BTreeMap<ModelName, Arc<Model>>;

/// An index in memory, which keeps its states so that a crash can lose the last ones. Clones are
/// the same index.
#[derive(Clone, Default)]
pub(crate) struct MemoryIndex(Arc<Mutex<Vec<(IndexPosition, Models)>>>);

impl MemoryIndex {
    /// Loses the last states, as many as chance has it.
    pub(crate) fn crash(&self, rng: &mut Rng) {
        let mut states = locked(&self.0);
        let kept = rng.below(states.len() as u64 + 1) as usize;
        states.truncate(kept);
    }

    /// Loses everything, as damage would.
    pub(crate) fn forget(&self) {
        locked(&self.0).clear();
    }

    /// The models it holds.
    pub(crate) fn models(&self) -> Vec<Arc<Model>> {
        let states = locked(&self.0);
        states.last().map(|(_, models)| models.values().cloned().collect()).unwrap_or_default()
    }
}

impl IndexStore for MemoryIndex {
    fn open(&self) -> Result<Arc<dyn Index>, IndexError> {
        Ok(Arc::new(self.clone()))
    }

    fn set_aside(&self) -> Result<String, IndexError> {
        locked(&self.0).clear();
        Ok("memory".to_owned())
    }
}

impl Index for MemoryIndex {
    fn position(&self) -> Result<IndexPosition, IndexError> {
        Ok(locked(&self.0).last().map(|(position, _)| *position).unwrap_or_default())
    }

    fn update(&self, position: IndexPosition, updates: &[ModelUpdate]) -> Result<(), IndexError> {
        let mut states = locked(&self.0);
        let mut models = states.last().map(|(_, models)| models.clone()).unwrap_or_default();
        for update in updates {
            let held = models.remove(&update.model);
            if held.as_deref() != update.before.as_deref() {
                return Err(IndexError(format!("{} is not what it was", update.model)));
            }
            if let Some(after) = &update.after {
                models.insert(update.model.clone(), Arc::clone(after));
            }
        }
        states.push((position, models));
        Ok(())
    }

    fn references(&self, digest: &Digest) -> Result<Vec<Reference>, IndexError> {
        let states = locked(&self.0);
        let models = states.last().into_iter().flat_map(|(_, models)| models.values());
        let versions = models.flat_map(|model| model.versions.values());
        Ok(versions
            .filter(|version| version.record.blobs().any(|blob| blob.digest == *digest))
            .map(|version| (version.model.clone(), version.name.clone()))
            .collect())
    }
}

/// Stores a blob and keeps it held.
pub(crate) fn store(blobs: &dyn BlobStore, bytes: &[u8]) -> (BlobRef, BlobLease) {
    blobs.put(bytes).unwrap()
}

/// A version's record of these blobs, the component first.
pub(crate) fn record(blobs: &[BlobRef]) -> VersionRecord {
    let asset =
        |(number, blob): (usize, &BlobRef)| (format!("asset-{number}").parse().unwrap(), *blob);
    VersionRecord {
        component: blobs[0],
        assets: blobs.iter().skip(1).enumerate().map(asset).collect(),
        signature: Signature::default(),
        backend: BackendChoice::Auto,
        config: BTreeMap::new(),
        pool: PoolPolicy::default(),
    }
}

/// A change by the tests' own actor.
pub(crate) fn change(op: Op) -> Change {
    Change { actor: "tester".to_owned(), op }
}

/// A publish of a record.
pub(crate) fn publish(model: &str, version: &str, record: VersionRecord) -> Change {
    change(Op::Publish(Box::new(Publish {
        model: model.parse().unwrap(),
        version: version.parse().unwrap(),
        owner: "default".to_owned(),
        record,
        annotations: Annotations::default(),
        alias: None,
    })))
}

/// A move of an alias, expecting nothing.
pub(crate) fn set_alias(model: &str, alias: &str, targets: &[(&str, u32)]) -> Change {
    change(Op::SetAlias {
        model: model.parse().unwrap(),
        alias: alias.parse().unwrap(),
        targets: targets
            .iter()
            .map(|(version, weight)| WeightedTarget {
                version: version.parse().unwrap(),
                weight: *weight,
            })
            .collect(),
        expect: Expect::Any,
    })
}

/// An annotation with this description, expecting nothing.
pub(crate) fn annotate(model: &str, version: &str, description: &str) -> Change {
    change(Op::Annotate {
        model: model.parse().unwrap(),
        version: version.parse().unwrap(),
        annotations: Annotations { description: description.to_owned(), ..Annotations::default() },
        expect: Expect::Any,
    })
}

/// A removal of a version.
pub(crate) fn delete_version(model: &str, version: &str) -> Change {
    let (model, version) = (model.parse().unwrap(), version.parse().unwrap());
    change(Op::DeleteVersion { model, version })
}
