//! What a change does: one pure function that commit and replay share.
//!
//! It reads the state and the record and nothing else, so that a journal replayed gives the state
//! it was written from. What a commit had to make up (time, id, digest) stands in the record.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::change::{CommitError, Expect, Op, Publish};
use super::record::Record;
use super::snapshot::{Alias, Model, Snapshot, Version, WeightedTarget, list};
use crate::names::{AliasName, LIVE, ModelName, VersionName};
use crate::version::Annotations;

/// What a record changes: one model, from one value to another.
#[derive(Debug, Clone)]
pub(super) struct Delta {
    /// The model it is about.
    pub(super) model: ModelName,
    /// Whether anything changes; if not, the record is not to be kept.
    pub(super) changed: bool,
    /// The model before.
    pub(super) before: Option<Arc<Model>>,
    /// The model after; none where it is deleted.
    pub(super) after: Option<Arc<Model>>,
}

/// Decides a record against the state it would be applied to.
pub(super) fn apply(state: &Snapshot, record: &Record) -> Result<Delta, CommitError> {
    let name = record.change.model();
    let before = state.get(name);
    let edit = match &record.change {
        Op::Publish(publish) => match before {
            Some(model) => add_version(model, publish, record)?,
            None => Some(new_model(publish, record)?),
        },
        Op::DeleteModel { .. } => {
            return Ok(Delta {
                model: name.clone(),
                changed: true,
                before: Some(Arc::clone(existing(before, name)?)),
                after: None,
            });
        }
        Op::SetAlias { alias, targets, expect, .. } => {
            set_alias(existing(before, name)?, alias, targets, *expect, record.epoch)?
        }
        Op::RollbackAlias { alias, expect, .. } => {
            Some(roll_back(existing(before, name)?, alias, *expect, record.epoch)?)
        }
        Op::RemoveAlias { alias, expect, .. } => {
            Some(remove_alias(existing(before, name)?, alias, *expect)?)
        }
        Op::Annotate { version, annotations, expect, .. } => {
            annotate(existing(before, name)?, version, annotations, *expect, record.epoch)?
        }
        Op::DeleteVersion { version, .. } => {
            Some(delete_version(existing(before, name)?, version)?)
        }
    };
    let changed = edit.is_some();
    let after = edit.map(Arc::new).or_else(|| before.cloned());
    Ok(Delta { model: name.clone(), changed, before: before.cloned(), after })
}

fn existing<'a>(
    model: Option<&'a Arc<Model>>,
    name: &ModelName,
) -> Result<&'a Arc<Model>, CommitError> {
    model.ok_or_else(|| CommitError::ModelNotFound { model: name.clone() })
}

fn new_model(publish: &Publish, record: &Record) -> Result<Model, CommitError> {
    let id = record.model_id.ok_or_else(|| incomplete("model id"))?;
    let mut model = Model {
        name: publish.model.clone(),
        id,
        owner: publish.owner.clone(),
        created_ms: record.time_ms,
        versions: BTreeMap::new(),
        aliases: BTreeMap::new(),
    };
    insert_version(&mut model, publish, record)?;
    point(&mut model, &AliasName::live(), &publish.version, record.epoch)?;
    Ok(model)
}

fn add_version(
    model: &Model,
    publish: &Publish,
    record: &Record,
) -> Result<Option<Model>, CommitError> {
    if let Some(held) = model.versions.get(&publish.version) {
        // The digest of a record may change with its fields' spelling; equal records are the same.
        if held.record == publish.record || Some(held.digest) == record.digest {
            return Ok(None);
        }
        return Err(CommitError::DigestConflict {
            model: model.name.clone(),
            version: publish.version.clone(),
            held: held.digest,
            given: record.digest.ok_or_else(|| incomplete("digest"))?,
        });
    }
    let mut model = model.clone();
    insert_version(&mut model, publish, record)?;
    Ok(Some(model))
}

/// Adds the version, and points at it the alias that was named.
fn insert_version(
    model: &mut Model,
    publish: &Publish,
    record: &Record,
) -> Result<(), CommitError> {
    if model.aliases.contains_key(publish.version.as_str()) || publish.version.as_str() == LIVE {
        return Err(taken(model, publish.version.as_str()));
    }
    let version = Version {
        model: model.name.clone(),
        name: publish.version.clone(),
        digest: record.digest.ok_or_else(|| incomplete("digest"))?,
        record: publish.record.clone(),
        annotations: publish.annotations.clone(),
        annotations_epoch: record.epoch,
        created_ms: record.time_ms,
        actor: record.actor.clone(),
        epoch: record.epoch,
    };
    model.versions.insert(publish.version.clone(), Arc::new(version));
    match &publish.alias {
        Some(alias) => point(model, alias, &publish.version, record.epoch),
        None => Ok(()),
    }
}

/// Points an alias at one version, which is there, with all its weight.
fn point(
    model: &mut Model,
    alias: &AliasName,
    version: &VersionName,
    epoch: u64,
) -> Result<(), CommitError> {
    if model.versions.contains_key(alias.as_str()) {
        return Err(taken(model, alias.as_str()));
    }
    move_alias(model, alias, vec![WeightedTarget { version: version.clone(), weight: 100 }], epoch);
    Ok(())
}

fn set_alias(
    model: &Model,
    alias: &AliasName,
    targets: &[WeightedTarget],
    expect: Expect,
    epoch: u64,
) -> Result<Option<Model>, CommitError> {
    let held = model.aliases.get(alias);
    check_expected(model, || format!("alias '{alias}'"), held.map(|a| a.epoch), expect)?;
    if model.versions.contains_key(alias.as_str()) {
        return Err(taken(model, alias.as_str()));
    }
    check_targets(model, targets)?;
    // Setting what is set already is no move: a rollback still goes to where it was before.
    if held.is_some_and(|held| held.targets == targets) {
        return Ok(None);
    }
    let mut model = model.clone();
    move_alias(&mut model, alias, targets.to_vec(), epoch);
    Ok(Some(model))
}

fn check_targets(model: &Model, targets: &[WeightedTarget]) -> Result<(), CommitError> {
    let invalid = |what: String| Err(CommitError::Invalid { what });
    if targets.is_empty() {
        return invalid("an alias needs a target; name a version, or remove the alias".to_owned());
    }
    for (position, target) in targets.iter().enumerate() {
        let version = &target.version;
        existing_version(model, version)?;
        if target.weight == 0 {
            return invalid(format!("version '{version}' has weight 0; leave it out instead"));
        }
        if targets.iter().skip(position + 1).any(|other| other.version == *version) {
            return invalid(format!("version '{version}' is named twice; add its weights up"));
        }
    }
    Ok(())
}

fn roll_back(
    model: &Model,
    alias: &AliasName,
    expect: Expect,
    epoch: u64,
) -> Result<Model, CommitError> {
    let held = existing_alias(model, alias)?;
    check_expected(model, || format!("alias '{alias}'"), Some(held.epoch), expect)?;
    let nothing =
        || CommitError::NothingToRollBack { model: model.name.clone(), alias: alias.clone() };
    let targets = held.previous.clone().ok_or_else(nothing)?;
    let mut model = model.clone();
    move_alias(&mut model, alias, targets, epoch);
    Ok(model)
}

fn remove_alias(model: &Model, alias: &AliasName, expect: Expect) -> Result<Model, CommitError> {
    let held = existing_alias(model, alias)?;
    check_expected(model, || format!("alias '{alias}'"), Some(held.epoch), expect)?;
    if alias.as_str() == LIVE {
        return Err(CommitError::LiveNeeded { model: model.name.clone() });
    }
    let mut model = model.clone();
    model.aliases.remove(alias);
    Ok(model)
}

fn annotate(
    model: &Model,
    version: &VersionName,
    annotations: &Annotations,
    expect: Expect,
    epoch: u64,
) -> Result<Option<Model>, CommitError> {
    let held = existing_version(model, version)?;
    let what = || format!("the annotations of version '{version}'");
    check_expected(model, what, Some(held.annotations_epoch), expect)?;
    if held.annotations == *annotations {
        return Ok(None);
    }
    let annotated = Version {
        annotations: annotations.clone(),
        annotations_epoch: epoch,
        ..Version::clone(held)
    };
    let mut model = model.clone();
    model.versions.insert(version.clone(), Arc::new(annotated));
    Ok(Some(model))
}

fn delete_version(model: &Model, version: &VersionName) -> Result<Model, CommitError> {
    existing_version(model, version)?;
    if model.aliases_of(version).next().is_some() {
        return Err(CommitError::VersionAliased {
            model: model.name.clone(),
            version: version.clone(),
            aliases: list(model.aliases_of(version)),
        });
    }
    let mut model = model.clone();
    model.versions.remove(version);
    for alias in model.aliases.values_mut() {
        // Another version may be published under this name, and a rollback must not go there.
        alias.previous.take_if(|targets| targets.iter().any(|t| t.version == *version));
    }
    Ok(model)
}

fn move_alias(model: &mut Model, alias: &AliasName, targets: Vec<WeightedTarget>, epoch: u64) {
    let previous = model.aliases.remove(alias).map(|held| held.targets);
    model.aliases.insert(alias.clone(), Alias { targets, epoch, previous });
}

fn existing_version<'a>(
    model: &'a Model,
    version: &VersionName,
) -> Result<&'a Arc<Version>, CommitError> {
    model.versions.get(version).ok_or_else(|| CommitError::VersionNotFound {
        model: model.name.clone(),
        version: version.clone(),
        known: list(model.versions.keys()),
    })
}

fn existing_alias<'a>(model: &'a Model, alias: &AliasName) -> Result<&'a Alias, CommitError> {
    model.aliases.get(alias).ok_or_else(|| CommitError::AliasNotFound {
        model: model.name.clone(),
        alias: alias.clone(),
        known: list(model.aliases.keys()),
    })
}

fn check_expected(
    model: &Model,
    what: impl Fn() -> String,
    found: Option<u64>,
    expect: Expect,
) -> Result<(), CommitError> {
    let expected = match (expect, found) {
        (Expect::Any, _) | (Expect::Absent, None) => return Ok(()),
        (Expect::Epoch(epoch), Some(found)) if epoch == found => return Ok(()),
        (Expect::Epoch(epoch), _) => epoch.to_string(),
        (Expect::Absent, Some(_)) => "absent".to_owned(),
    };
    let found = found.map_or_else(|| "none (it is absent)".to_owned(), |epoch| epoch.to_string());
    Err(CommitError::Moved { what: what(), model: model.name.clone(), found, expected })
}

fn taken(model: &Model, name: &str) -> CommitError {
    CommitError::NameTaken { model: model.name.clone(), name: name.to_owned() }
}

/// Only a journal that another program wrote can be like this; a commit fills these in.
fn incomplete(field: &str) -> CommitError {
    CommitError::Invalid { what: format!("the record of a publish has no {field}") }
}
