//! What writers ask for, and what they are answered.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::snapshot::{Model, WeightedTarget};
use crate::digest::Digest;
use crate::names::{AliasName, ModelName, VersionName};
use crate::version::{Annotations, VersionRecord};

/// A change somebody asks for. Its time and epoch are given by the registry.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Who asks; kept in the journal.
    pub actor: String,
    /// For what.
    pub op: Op,
}

/// What can be changed. The journal holds these words; renaming one is a new format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are the same words everywhere: which model, which name")]
pub enum Op {
    /// Adds a version; the first of a model makes the model and its alias `live`.
    Publish(Box<Publish>),
    /// Points an alias somewhere, all targets at once.
    SetAlias {
        model: ModelName,
        alias: AliasName,
        targets: Vec<WeightedTarget>,
        #[serde(default, skip_serializing_if = "Expect::is_any")]
        expect: Expect,
    },
    /// Points an alias where it pointed before it last moved; twice is back again.
    RollbackAlias {
        model: ModelName,
        alias: AliasName,
        #[serde(default, skip_serializing_if = "Expect::is_any")]
        expect: Expect,
    },
    /// Removes an alias, other than `live`.
    RemoveAlias {
        model: ModelName,
        alias: AliasName,
        #[serde(default, skip_serializing_if = "Expect::is_any")]
        expect: Expect,
    },
    /// Replaces what is said of a version. The epoch expected is the annotations' own.
    Annotate {
        model: ModelName,
        version: VersionName,
        annotations: Annotations,
        #[serde(default, skip_serializing_if = "Expect::is_any")]
        expect: Expect,
    },
    /// Removes a version that no alias points at.
    DeleteVersion { model: ModelName, version: VersionName },
    /// Removes a model with its versions and aliases.
    DeleteModel { model: ModelName },
}

/// A version to publish. Publishing the same record under the same name again changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The model to publish to, made if it is not there.
    pub model: ModelName,
    /// The name of the new version.
    pub version: VersionName,
    /// Who owns the model if this makes it; says nothing otherwise.
    pub owner: String,
    /// What the version is made of.
    pub record: VersionRecord,
    /// What is said of it.
    #[serde(default)]
    pub annotations: Annotations,
    /// An alias to point at the new version in the same change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<AliasName>,
}

/// What must be so for a change to happen: compare-and-set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Nothing.
    #[default]
    Any,
    /// The thing is not there yet.
    Absent,
    /// The thing last changed at this epoch.
    Epoch(u64),
}

/// A change that is durable and in the snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// The epoch of the change; where nothing changed, of the snapshot it was found in.
    pub epoch: u64,
    /// Whether anything changed. False for what was so already, such as a version published again:
    /// then no record was written.
    pub changed: bool,
    /// The model before the change; none if the change made it.
    pub before: Option<Arc<Model>>,
    /// The model after the change; none if the change deleted it.
    pub after: Option<Arc<Model>>,
}

/// What a change would do.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// Whether anything would change.
    pub changed: bool,
    /// The model now.
    pub before: Option<Arc<Model>>,
    /// The model as it would be, with the epoch and time that the change would have now.
    pub after: Option<Arc<Model>>,
}

/// Why a change did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum CommitError {
    #[error("model '{model}' does not exist; publish a version to make it")]
    ModelNotFound { model: ModelName },
    #[error("model '{model}' has no version '{version}'; it has {known}")]
    VersionNotFound { model: ModelName, version: VersionName, known: String },
    #[error("model '{model}' has no alias '{alias}'; it has {known}")]
    AliasNotFound { model: ModelName, alias: AliasName, known: String },
    #[error(
        "version '{version}' of model '{model}' is already {held}, and a version never changes; publish {given} under another version"
    )]
    DigestConflict { model: ModelName, version: VersionName, held: Digest, given: Digest },
    #[error(
        "model '{model}' cannot have both a version and an alias named '{name}'; choose another name"
    )]
    NameTaken { model: ModelName, name: String },
    #[error(
        "version '{version}' of model '{model}' is what {aliases} points at; move the alias first"
    )]
    VersionAliased { model: ModelName, version: VersionName, aliases: String },
    #[error(
        "alias 'live' of model '{model}' cannot be removed while the model has versions; move it, or delete the model"
    )]
    LiveNeeded { model: ModelName },
    #[error(
        "alias '{alias}' of model '{model}' has nothing to go back to: it never moved, or a version it pointed at was deleted"
    )]
    NothingToRollBack { model: ModelName, alias: AliasName },
    #[error(
        "{what} of model '{model}' is at epoch {found}, not {expected}; read it again and decide anew"
    )]
    Moved { what: String, model: ModelName, found: String, expected: String },
    #[error("{what}")]
    Invalid { what: String },
    #[error("{what} is over the limit of {limit}; {remedy}")]
    OverLimit { what: String, limit: u64, remedy: &'static str },
    #[error(
        "the change takes {bytes} bytes as a record, over the limit of {limit}; shorten annotations, config or the signature"
    )]
    TooLarge { bytes: usize, limit: usize },
    #[error(
        "blob {digest} of {bytes} bytes is not stored, or no upload holds it; upload it and keep its lease until the version is published"
    )]
    BlobNotHeld { digest: Digest, bytes: u64 },
    #[error("{limit} changes wait already; try again in a moment")]
    Overloaded { limit: usize },
    #[error("the registry is read-only: {reason}")]
    ReadOnly { reason: String },
}

/// What kind of refusal it is; each has its own status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitErrorKind {
    /// What the change names does not exist.
    NotFound,
    /// What exists stands against it.
    Conflict,
    /// It was expected otherwise: compare-and-set.
    PreconditionFailed,
    /// The change makes no sense by itself.
    Invalid,
    /// The change is too large.
    TooLarge,
    /// Too many changes at once; later it may work.
    Overloaded,
    /// No change is taken until a restart.
    ReadOnly,
}

impl Op {
    /// The model the change is about.
    pub fn model(&self) -> &ModelName {
        match self {
            Self::Publish(publish) => &publish.model,
            Self::SetAlias { model, .. }
            | Self::RollbackAlias { model, .. }
            | Self::RemoveAlias { model, .. }
            | Self::Annotate { model, .. }
            | Self::DeleteVersion { model, .. }
            | Self::DeleteModel { model } => model,
        }
    }
}

impl Expect {
    /// Whether nothing is expected.
    pub fn is_any(&self) -> bool {
        *self == Self::Any
    }
}

impl CommitError {
    /// What kind of refusal it is.
    pub fn kind(&self) -> CommitErrorKind {
        match self {
            Self::ModelNotFound { .. }
            | Self::VersionNotFound { .. }
            | Self::AliasNotFound { .. } => CommitErrorKind::NotFound,
            Self::DigestConflict { .. }
            | Self::NameTaken { .. }
            | Self::VersionAliased { .. }
            | Self::LiveNeeded { .. }
            | Self::NothingToRollBack { .. }
            | Self::OverLimit { .. }
            | Self::BlobNotHeld { .. } => CommitErrorKind::Conflict,
            Self::Moved { .. } => CommitErrorKind::PreconditionFailed,
            Self::Invalid { .. } => CommitErrorKind::Invalid,
            Self::TooLarge { .. } => CommitErrorKind::TooLarge,
            Self::Overloaded { .. } => CommitErrorKind::Overloaded,
            Self::ReadOnly { .. } => CommitErrorKind::ReadOnly,
        }
    }
}
