//! How much the registry takes, and the check of a change against it.
//!
//! Limits are checked when a change is asked for, never on replay: a limit that is lowered later
//! must not make a journal unreadable.

use super::change::{Change, CommitError, Op, Publish};
use super::snapshot::{Model, Snapshot};
use crate::version::Annotations;

/// Bytes of one record. A version with a hundred tensors in its signature takes some ten thousand.
pub const MAX_RECORD_BYTES: usize = 256 << 10;
/// Records in one frame. At 64 the cost of a sync is a sixty-fourth, and more would only add delay.
pub(super) const MAX_RECORDS_PER_FRAME: usize = 64;
/// Bytes of one frame's records: what a replay holds in memory at once.
pub(super) const MAX_FRAME_BYTES: usize = MAX_RECORDS_PER_FRAME * (MAX_RECORD_BYTES + 1);
/// Changes that wait for the writer: a few frames, so that the last one waits well under a second.
pub(super) const MAX_QUEUED_CHANGES: usize = 256;
/// Models of one registry. Each commit copies one pointer per model.
pub const MAX_MODELS: usize = 10_000;
/// Versions of one model. Each change of a model copies one pointer per version.
pub const MAX_VERSIONS_PER_MODEL: usize = 1_000;
/// Aliases of one model.
pub const MAX_ALIASES_PER_MODEL: usize = 64;
/// Versions behind one alias; a call walks them.
pub const MAX_TARGETS_PER_ALIAS: usize = 16;
/// Bytes of an actor's or owner's name.
pub const MAX_ACTOR_BYTES: usize = 256;
/// Entries of one answer to a question for history.
pub const MAX_HISTORY_ENTRIES: usize = 1_000;

// A frame's length is kept in 32 bits.
const _: () = assert!(MAX_FRAME_BYTES < u32::MAX as usize);

/// Checks what can be checked without deciding the change.
pub(super) fn check(state: &Snapshot, change: &Change) -> Result<(), CommitError> {
    check_name("actor", &change.actor)?;
    match &change.op {
        Op::Publish(publish) => check_publish(state, publish),
        Op::SetAlias { model, alias, targets, .. } => {
            check_length("the number of targets", targets.len(), MAX_TARGETS_PER_ALIAS)?;
            let model = state.get(model);
            check_aliases(model.filter(|m| !m.aliases.contains_key(alias)).map(AsRef::as_ref))
        }
        Op::Annotate { annotations, .. } => check_annotations(annotations),
        Op::RollbackAlias { .. }
        | Op::RemoveAlias { .. }
        | Op::DeleteVersion { .. }
        | Op::DeleteModel { .. } => Ok(()),
    }
}

/// Checks the length of an encoded record.
pub(super) fn check_record(bytes: usize) -> Result<(), CommitError> {
    if bytes <= MAX_RECORD_BYTES {
        return Ok(());
    }
    Err(CommitError::TooLarge { bytes, limit: MAX_RECORD_BYTES })
}

fn check_publish(state: &Snapshot, publish: &Publish) -> Result<(), CommitError> {
    check_name("owner", &publish.owner)?;
    check_annotations(&publish.annotations)?;
    let Some(model) = state.get(&publish.model) else {
        let remedy = "delete models that are not used";
        return at_most("the number of models", state.len() + 1, MAX_MODELS, remedy);
    };
    if model.versions.contains_key(&publish.version) {
        return Ok(());
    }
    let versions = model.versions.len() + 1;
    let remedy = "delete versions that are not used";
    at_most("the number of versions", versions, MAX_VERSIONS_PER_MODEL, remedy)?;
    let adds = publish.alias.as_ref().is_some_and(|alias| !model.aliases.contains_key(alias));
    check_aliases(adds.then_some(model))
}

fn check_aliases(model_with_one_more: Option<&Model>) -> Result<(), CommitError> {
    let Some(model) = model_with_one_more else { return Ok(()) };
    let remedy = "remove aliases that are not used";
    at_most("the number of aliases", model.aliases.len() + 1, MAX_ALIASES_PER_MODEL, remedy)
}

fn check_name(what: &str, name: &str) -> Result<(), CommitError> {
    check_length(&format!("the length of the {what}"), name.len(), MAX_ACTOR_BYTES)
}

fn check_annotations(annotations: &Annotations) -> Result<(), CommitError> {
    // JSON has no infinities, so one would come back as something else.
    if annotations.accuracy.as_ref().is_some_and(|accuracy| !accuracy.value.is_finite()) {
        let what = "the accuracy is not a finite number; leave it out or give a number";
        return Err(CommitError::Invalid { what: what.to_owned() });
    }
    Ok(())
}

/// Checks something of the change itself.
fn check_length(what: &str, found: usize, limit: usize) -> Result<(), CommitError> {
    if found <= limit {
        return Ok(());
    }
    Err(CommitError::Invalid { what: format!("{what} is {found}; it may be {limit} at most") })
}

/// Checks what the registry would hold after the change.
fn at_most(
    what: &str,
    found: usize,
    limit: usize,
    remedy: &'static str,
) -> Result<(), CommitError> {
    if found <= limit {
        return Ok(());
    }
    Err(CommitError::OverLimit { what: format!("{what} ({found})"), limit: limit as u64, remedy })
}
