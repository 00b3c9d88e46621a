//! What readers see: an immutable picture of all models, versions and aliases.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::digest::Digest;
use crate::names::{AliasName, LIVE, ModelName, Target, VersionName};
use crate::version::{Annotations, VersionRecord};

/// How many names an error lists before it says "and more".
const NAMES_SHOWN: usize = 8;

/// All models as of one epoch. Never changes; the registry replaces it whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The epoch of the last change it holds; 0 before the first.
    pub epoch: u64,
    models: BTreeMap<ModelName, Arc<Model>>,
}

/// A named, owned service.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// What callers know it by.
    pub name: ModelName,
    /// Given at the first publish. A model that is deleted and published anew has another.
    pub id: Ulid,
    /// Who made it by publishing its first version.
    pub owner: String,
    /// When that was, in milliseconds since 1970.
    pub created_ms: u64,
    /// Its releases; at least one.
    pub versions: BTreeMap<VersionName, Arc<Version>>,
    /// Its moving pointers; `live` is always among them. None is named like a version.
    pub aliases: BTreeMap<AliasName, Alias>,
}

/// A release of a model. Only its annotations ever change.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// The model it belongs to.
    pub model: ModelName,
    /// The string it was published under.
    pub name: VersionName,
    /// The digest its record had when it was published: its address.
    pub digest: Digest,
    /// What it is made of.
    pub record: VersionRecord,
    /// What was said of it since.
    pub annotations: Annotations,
    /// The epoch at which the annotations were last set; their ETag.
    pub annotations_epoch: u64,
    /// When it was published, in milliseconds since 1970.
    pub created_ms: u64,
    /// Who published it.
    pub actor: String,
    /// The epoch at which it was published.
    pub epoch: u64,
}

/// A moving pointer to one version or to weighted versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// Where it points; never empty, no version twice, no weight zero.
    pub targets: Vec<WeightedTarget>,
    /// The epoch at which it last moved; its ETag.
    pub epoch: u64,
    /// Where it pointed before it last moved. None when it never moved, or when one of those
    /// versions was deleted since.
    pub previous: Option<Vec<WeightedTarget>>,
}

/// A version behind an alias, with its share of the calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedTarget {
    /// The version.
    pub version: VersionName,
    /// Its share, out of the sum of all weights of the alias.
    pub weight: u32,
}

/// A version or alias that the model does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model '{model}' has no version or alias '{target}'; it has {known}")]
pub struct ResolveError {
    model: ModelName,
    target: String,
    known: String,
}

impl Snapshot {
    /// The model of that name, if there is one. Takes a `&ModelName` or a `&str`.
    pub fn get(&self, model: impl AsRef<str>) -> Option<&Arc<Model>> {
        self.models.get(model.as_ref())
    }

    /// All models, in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Model>> {
        self.models.values()
    }

    /// How many models there are.
    pub fn len(&self) -> usize {
        self.models.len()
    }

    /// Whether nothing is published.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// Puts a model in place of the one of that name, or takes it out.
    pub(super) fn put(&mut self, name: &ModelName, model: Option<Arc<Model>>) {
        match model {
            Some(model) => self.models.insert(name.clone(), model),
            None => self.models.remove(name),
        };
    }
}

impl Model {
    /// The version a call goes to. `ticket` spreads calls over the versions of a weighted alias: a
    /// counter gives each its share within a call or two, a hash of the caller keeps a caller with
    /// one version.
    ///
    /// # Errors
    /// When the model has no version or alias of that name.
    pub fn resolve(&self, target: &Target, ticket: u64) -> Result<&Arc<Version>, ResolveError> {
        let name = match target {
            Target::Live => LIVE,
            Target::Named(name) => name,
        };
        let aliased = || self.aliases.get(name).and_then(|alias| alias.pick(ticket));
        self.versions
            .get(name)
            .or_else(|| self.versions.get(aliased()?))
            .ok_or_else(|| self.unknown(name))
    }

    /// The aliases that point at `version`, alone or with others.
    pub fn aliases_of(&self, version: &VersionName) -> impl Iterator<Item = &AliasName> {
        self.aliases
            .iter()
            .filter(move |(_, alias)| alias.targets.iter().any(|t| t.version == *version))
            .map(|(name, _)| name)
    }

    fn unknown(&self, target: &str) -> ResolveError {
        let known = format!(
            "versions {} and aliases {}",
            list(self.versions.keys()),
            list(self.aliases.keys())
        );
        // What a caller wrote is echoed only as far as a name can be long.
        let target = target.chars().take(64).collect();
        ResolveError { model: self.name.clone(), target, known }
    }
}

impl Alias {
    /// The version that `ticket` falls to, each as often as its weight says.
    fn pick(&self, ticket: u64) -> Option<&VersionName> {
        let total: u64 = self.targets.iter().map(|t| u64::from(t.weight)).sum();
        // Multiples of 2^64 divided by the golden ratio lie evenly spaced on the circle, so that
        // counted tickets come closer to the weights than chance would.
        let point = u128::from(ticket.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut left = ((point * u128::from(total)) >> 64) as u64;
        for target in &self.targets {
            let weight = u64::from(target.weight);
            if left < weight {
                return Some(&target.version);
            }
            left -= weight;
        }
        None
    }
}

/// Names as a sentence lists them: `1, 2, 3`, and no more than a reader takes in.
pub(super) fn list<T: fmt::Display>(names: impl Iterator<Item = T>) -> String {
    let mut shown: Vec<String> = Vec::new();
    for name in names {
        if shown.len() == NAMES_SHOWN {
            shown.push("and more".to_owned());
            break;
        }
        shown.push(name.to_string());
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(weights: &[(&str, u32)]) -> Alias {
        let target = |(version, weight): &(&str, u32)| WeightedTarget {
            version: version.parse().unwrap(),
            weight: *weight,
        };
        Alias { targets: weights.iter().map(target).collect(), epoch: 1, previous: None }
    }

    #[test]
    fn counted_tickets_keep_to_the_weights() {
        let alias = alias(&[("1", 90), ("2", 10)]);
        for start in [0u64, 17, u64::MAX - 40] {
            let second = (0..1000)
                .filter(|i| alias.pick(start.wrapping_add(*i)).unwrap().as_str() == "2")
                .count();
            assert!((98..=102).contains(&second), "{second} of 1000 calls from ticket {start}");
        }
    }

    #[test]
    fn a_ticket_always_falls_to_the_same_version() {
        let alias = alias(&[("1", u32::MAX), ("2", u32::MAX), ("3", 1)]);
        for ticket in [0, 1, u64::MAX, u64::MAX / 2] {
            assert_eq!(alias.pick(ticket), alias.pick(ticket));
            assert!(alias.pick(ticket).is_some());
        }
    }
}
