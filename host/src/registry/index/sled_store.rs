//! The index in sled.
//!
//! One tree, so that a batch is atomic over all of it. Keys: `applied`; `m/MODEL`;
//! `v/MODEL/VERSION`; and `b/BLOB/MODEL/VERSION` for each blob a version references. Names hold no
//! slash, so keys are unambiguous.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use sled::{Batch, Db};

use super::super::snapshot::{Alias, Model, Version, WeightedTarget};
use super::{Index, IndexError, IndexPosition, IndexStore, ModelUpdate, Reference};
use crate::digest::Digest;
use crate::names::VersionName;
use crate::version::{Annotations, VersionRecord};

/// Memory for pages. sled takes a gigabyte unless told; an index that serves rare questions needs
/// little of it.
const CACHE_BYTES: u64 = 16 << 20;
/// How often sled flushes, in milliseconds. What is lost is caught up from the journal.
const FLUSH_EVERY_MS: u64 = 500;
/// Where it is kept how far the index is.
const APPLIED: &[u8] = b"applied";
/// The layout of keys and values; another one is made anew.
const LAYOUT: &str = "1";
/// Damaged indexes that are kept for a look; more are a disk to replace.
const MAX_SET_ASIDE: u32 = 100;

/// sled in a folder.
pub(in super::super) struct SledStore {
    folder: PathBuf,
}

struct SledIndex(Db);

/// A model as a value of the index.
#[derive(Serialize)]
struct ModelRow<'a> {
    id: String,
    owner: &'a str,
    created_ms: u64,
    aliases: BTreeMap<&'a str, AliasRow<'a>>,
}

#[derive(Serialize)]
struct AliasRow<'a> {
    targets: &'a [WeightedTarget],
    epoch: u64,
    previous: Option<&'a [WeightedTarget]>,
}

/// A version as a value of the index.
#[derive(Serialize)]
struct VersionRow<'a> {
    digest: Digest,
    record: &'a VersionRecord,
    annotations: &'a Annotations,
    annotations_epoch: u64,
    created_ms: u64,
    actor: &'a str,
    epoch: u64,
}

impl SledStore {
    /// The index in `folder`, which may not be there yet.
    pub(in super::super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }
}

impl IndexStore for SledStore {
    fn open(&self) -> Result<Arc<dyn Index>, IndexError> {
        let config = sled::Config::new()
            .path(&self.folder)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        let db = guarded("opening", || config.open())?;
        Ok(Arc::new(SledIndex(db)))
    }

    fn set_aside(&self) -> Result<String, IndexError> {
        let failed = |error: io::Error| IndexError(format!("moving it aside: {error}"));
        if !self.folder.try_exists().map_err(failed)? {
            return Ok("nowhere (its folder was gone)".to_owned());
        }
        for number in 1..=MAX_SET_ASIDE {
            let aside = self.folder.with_extension(format!("broken-{number}"));
            if !aside.try_exists().map_err(failed)? {
                fs::rename(&self.folder, &aside).map_err(failed)?;
                let name = aside.file_name().unwrap_or_default();
                return Ok(name.to_string_lossy().into_owned());
            }
        }
        Err(IndexError(format!("{MAX_SET_ASIDE} damaged ones were kept already; remove them")))
    }
}

impl Index for SledIndex {
    fn position(&self) -> Result<IndexPosition, IndexError> {
        match guarded("reading", || self.0.get(APPLIED))? {
            Some(value) => parse_position(&value).ok_or_else(|| {
                let value = String::from_utf8_lossy(&value).chars().take(120).collect::<String>();
                IndexError(format!("its position reads {value:?}"))
            }),
            None if guarded("reading", || Ok(self.0.is_empty()))? => Ok(IndexPosition::default()),
            None => Err(IndexError("it has keys and no position".to_owned())),
        }
    }

    fn update(&self, position: IndexPosition, updates: &[ModelUpdate]) -> Result<(), IndexError> {
        let mut batch = Batch::default();
        for update in updates {
            stage(&mut batch, update)?;
        }
        batch.insert(APPLIED, spell_position(position).as_bytes());
        guarded("writing", || self.0.apply_batch(batch))
    }

    fn references(&self, digest: &Digest) -> Result<Vec<Reference>, IndexError> {
        let prefix = format!("b/{}/", digest.hex());
        guarded("reading", || {
            self.0.scan_prefix(&prefix).keys().map(|key| Ok(parse_reference(&key?))).collect()
        })
        .and_then(|found: Vec<Option<Reference>>| {
            found.into_iter().collect::<Option<_>>().ok_or_else(|| {
                IndexError(format!("a key that begins with {prefix} names no version"))
            })
        })
    }
}

/// Runs something of sled, which has been seen to panic on damaged files.
fn guarded<T>(doing: &str, run: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(IndexError(format!("{doing}: {error}"))),
        Err(_) => Err(IndexError(format!("{doing}: sled panicked"))),
    }
}

/// Puts into the batch what makes the index hold `after` where it holds `before`.
fn stage(batch: &mut Batch, update: &ModelUpdate) -> Result<(), IndexError> {
    let model_key = format!("m/{}", update.model);
    match &update.after {
        Some(model) => batch.insert(model_key.as_bytes(), model_row(model)?),
        None => batch.remove(model_key.as_bytes()),
    }
    // What is shared between both did not change; versions are replaced, never edited in place.
    for version in versions_without(update.before.as_ref(), update.after.as_ref()) {
        batch.remove(version_key(version).as_bytes());
        version
            .record
            .blobs()
            .for_each(|blob| batch.remove(blob_key(&blob.digest, version).as_bytes()));
    }
    for version in versions_without(update.after.as_ref(), update.before.as_ref()) {
        batch.insert(version_key(version).as_bytes(), version_row(version)?);
        for blob in version.record.blobs() {
            batch.insert(blob_key(&blob.digest, version).as_bytes(), &[]);
        }
    }
    Ok(())
}

/// The versions of one model that another does not share.
fn versions_without<'a>(
    model: Option<&'a Arc<Model>>,
    other: Option<&'a Arc<Model>>,
) -> impl Iterator<Item = &'a Arc<Version>> {
    let shared = move |name: &VersionName, version: &Arc<Version>| {
        other
            .and_then(|other| other.versions.get(name))
            .is_some_and(|other| Arc::ptr_eq(other, version))
    };
    model
        .into_iter()
        .flat_map(|model| &model.versions)
        .filter(move |(name, version)| !shared(name, version))
        .map(|(_, version)| version)
}

fn version_key(version: &Version) -> String {
    format!("v/{}/{}", version.model, version.name)
}

fn blob_key(digest: &Digest, version: &Version) -> String {
    format!("b/{}/{}/{}", digest.hex(), version.model, version.name)
}

fn parse_reference(key: &[u8]) -> Option<Reference> {
    let mut parts = std::str::from_utf8(key).ok()?.split('/').skip(2);
    let (model, version) = (parts.next()?, parts.next()?);
    Some((model.parse().ok()?, version.parse().ok()?))
}

fn spell_position(position: IndexPosition) -> String {
    let chain = position.chain.map_or_else(|| "-".to_owned(), |chain| chain.to_string());
    format!("{LAYOUT} {} {chain}", position.epoch)
}

fn parse_position(value: &[u8]) -> Option<IndexPosition> {
    let mut words = std::str::from_utf8(value).ok()?.split(' ');
    words.next().filter(|layout| *layout == LAYOUT)?;
    let epoch = words.next()?.parse().ok()?;
    let chain = match words.next()? {
        "-" => None,
        chain => Some(chain.parse().ok()?),
    };
    Some(IndexPosition { epoch, chain })
}

fn model_row(model: &Model) -> Result<Vec<u8>, IndexError> {
    row(&ModelRow {
        id: model.id.to_string(),
        owner: &model.owner,
        created_ms: model.created_ms,
        aliases: model
            .aliases
            .iter()
            .map(|(name, alias)| (name.as_str(), alias_row(alias)))
            .collect(),
    })
}

fn alias_row(alias: &Alias) -> AliasRow<'_> {
    AliasRow { targets: &alias.targets, epoch: alias.epoch, previous: alias.previous.as_deref() }
}

fn version_row(version: &Version) -> Result<Vec<u8>, IndexError> {
    row(&VersionRow {
        digest: version.digest,
        record: &version.record,
        annotations: &version.annotations,
        annotations_epoch: version.annotations_epoch,
        created_ms: version.created_ms,
        actor: &version.actor,
        epoch: version.epoch,
    })
}

fn row<T: Serialize>(row: &T) -> Result<Vec<u8>, IndexError> {
    serde_json::to_vec(row).map_err(|error| IndexError(error.to_string()))
}
