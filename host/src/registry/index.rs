//! The index: the state and its secondary indexes in a store that answers by key.
//!
//! It is derived. It never holds a change that the journal does not, it may be behind, and when it
//! is damaged it is moved aside and made anew from the state, while serving goes on.

mod sled_store;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::apply::Delta;
use super::snapshot::{Model, Snapshot};
use crate::digest::Digest;
use crate::names::{ModelName, VersionName};

pub(super) use sled_store::SledStore;

/// How often one run makes the index anew before it goes on without: damage that comes back is the
/// disk's, and each rebuild writes the whole state.
const MAX_REBUILDS: u32 = 3;

/// How far an index is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct IndexPosition {
    /// The epoch of the last change it holds; 0 when it is empty.
    pub(super) epoch: u64,
    /// The SHA-256 of that change's record, which tells histories apart.
    pub(super) chain: Option<Digest>,
}

/// One model's change, for the index.
#[derive(Debug, Clone)]
pub(super) struct ModelUpdate {
    /// Which model.
    pub(super) model: ModelName,
    /// What the index holds of it.
    pub(super) before: Option<Arc<Model>>,
    /// What it is to hold.
    pub(super) after: Option<Arc<Model>>,
}

/// A version that references a blob.
pub(super) type Reference = (ModelName, VersionName);

/// What is wrong with an index.
#[derive(Debug, thiserror::Error)]
#[error("the index failed: {0}")]
pub(super) struct IndexError(pub(super) String);

/// An open index.
pub(super) trait Index: Send + Sync {
    /// How far it is.
    fn position(&self) -> Result<IndexPosition, IndexError>;
    /// Takes in changes and is then at `position`; all of it or nothing survives a crash.
    fn update(&self, position: IndexPosition, updates: &[ModelUpdate]) -> Result<(), IndexError>;
    /// The versions that reference a blob.
    fn references(&self, digest: &Digest) -> Result<Vec<Reference>, IndexError>;
}

/// Where an index is kept.
pub(super) trait IndexStore: Send {
    /// Opens it, empty if there was none.
    fn open(&self) -> Result<Arc<dyn Index>, IndexError>;
    /// Moves what cannot be used out of the way; answers where to.
    fn set_aside(&self) -> Result<String, IndexError>;
}

/// Keeps an index up with the registry, and makes it anew when it fails.
pub(super) struct IndexKeeper {
    store: Box<dyn IndexStore>,
    index: Option<Arc<dyn Index>>,
    rebuilds_left: u32,
}

impl From<Delta> for ModelUpdate {
    fn from(delta: Delta) -> Self {
        Self { model: delta.model, before: delta.before, after: delta.after }
    }
}

impl IndexKeeper {
    /// Opens the index; answers how far it is, and what had to be moved aside for it to open.
    pub(super) fn open(store: Box<dyn IndexStore>) -> (Self, IndexPosition, Option<String>) {
        let mut keeper = Self { store, index: None, rebuilds_left: MAX_REBUILDS };
        match keeper.open_at() {
            Ok(position) => (keeper, position, None),
            Err(error) => {
                let repair = keeper.start_anew(&error);
                (keeper, IndexPosition::default(), Some(repair))
            }
        }
    }

    /// The index, if there is a usable one.
    pub(super) fn index(&self) -> Option<Arc<dyn Index>> {
        self.index.clone()
    }

    /// Brings the index up with `snapshot`, which `updates` led to. An index that fails is made
    /// anew; answers what was done then.
    pub(super) fn follow(
        &mut self,
        position: IndexPosition,
        updates: &[ModelUpdate],
        snapshot: &Snapshot,
    ) -> Option<String> {
        let index = self.index.as_ref()?;
        let error = index.update(position, updates).err()?;
        Some(self.rebuild(&error, position, snapshot))
    }

    /// Moves the index aside and writes the whole state into an empty one; answers what was done.
    pub(super) fn rebuild(
        &mut self,
        error: &IndexError,
        position: IndexPosition,
        snapshot: &Snapshot,
    ) -> String {
        let repair = self.start_anew(error);
        let whole = |model: &Arc<Model>| ModelUpdate {
            model: model.name.clone(),
            before: None,
            after: Some(Arc::clone(model)),
        };
        let updates: Vec<_> = snapshot.iter().map(whole).collect();
        let Some(index) = &self.index else { return repair };
        match index.update(position, &updates) {
            Ok(()) => repair,
            Err(error) => {
                self.index = None;
                format!(
                    "{repair}; the new one failed too ({error}), so there is none until a restart"
                )
            }
        }
    }

    fn open_at(&mut self) -> Result<IndexPosition, IndexError> {
        let index = self.store.open()?;
        let position = index.position()?;
        self.index = Some(index);
        Ok(position)
    }

    /// Moves the index aside and opens an empty one; answers what was done.
    fn start_anew(&mut self, error: &IndexError) -> String {
        self.index = None;
        let Some(left) = self.rebuilds_left.checked_sub(1) else {
            return format!(
                "{error}; it was made anew {MAX_REBUILDS} times already, so there is none until a restart"
            );
        };
        self.rebuilds_left = left;
        match self.store.set_aside().and_then(|place| self.open_at().map(|_| place)) {
            Ok(place) => format!("{error}; it was moved to {place} and made anew"),
            Err(second) => {
                format!(
                    "{error}; another could not be opened ({second}), so there is none until a restart"
                )
            }
        }
    }
}

/// The versions of a snapshot that reference a blob: what the index answers, the slow way.
pub(super) fn references_in(snapshot: &Snapshot, digest: &Digest) -> Vec<Reference> {
    let mut found = BTreeMap::new();
    for model in snapshot.iter() {
        for version in model.versions.values() {
            if version.record.blobs().any(|blob| blob.digest == *digest) {
                found.insert((model.name.clone(), version.name.clone()), ());
            }
        }
    }
    found.into_keys().collect()
}
