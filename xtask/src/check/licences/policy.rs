//! `deny.toml` as this check acts on it; every setting is either understood or an error.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use toml::{Table, Value};

/// What may be depended on.
#[derive(Debug)]
pub(super) struct Policy {
    /// The targets whose dependencies are looked at; at least one.
    pub(super) targets: Vec<String>,
    /// Licences that are allowed, each with its exception if it has one.
    pub(super) licences: BTreeSet<String>,
    /// Crates that are not allowed, each with the reason.
    pub(super) banned: BTreeMap<String, String>,
    /// Crates that may be there beside another version of themselves: name and version's start.
    skipped: Vec<(String, String)>,
}

/// Settings that this check always acts by; another value would need code.
const FIXED: &[(&str, &str, Fixed)] = &[
    ("bans", "multiple-versions", Fixed::Text("deny")),
    ("bans", "wildcards", Fixed::Text("deny")),
    ("bans", "allow-wildcard-paths", Fixed::Yes),
    ("sources", "unknown-registry", Fixed::Text("deny")),
    ("sources", "unknown-git", Fixed::Text("deny")),
];

/// Settings that are read.
const READ: &[(&str, &str)] =
    &[("graph", "targets"), ("licenses", "allow"), ("bans", "deny"), ("bans", "skip")];

/// The only value of a setting that is understood.
#[derive(Debug, Clone, Copy)]
enum Fixed {
    Text(&'static str),
    Yes,
}

impl Fixed {
    fn is(self, value: &Value) -> bool {
        match self {
            Self::Text(text) => value.as_str() == Some(text),
            Self::Yes => value.as_bool() == Some(true),
        }
    }
}

impl Policy {
    /// Reads the text of `deny.toml`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let file: Table = text.parse()?;
        check_settings(&file)?;
        let targets = texts(&file, "graph", "targets")?;
        ensure!(!targets.is_empty(), "graph.targets names no target");
        Ok(Self {
            targets,
            licences: texts(&file, "licenses", "allow")?.into_iter().collect(),
            banned: crates(&file, "deny")?.into_iter().collect(),
            skipped: crates(&file, "skip")?
                .into_iter()
                .map(|(name, _)| {
                    let split = name.split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned()));
                    split.with_context(|| format!("bans.skip: '{name}' names no version"))
                })
                .collect::<Result<_>>()?,
        })
    }

    /// Whether this version of a crate may be there beside another.
    pub(super) fn skips(&self, name: &str, version: &str) -> bool {
        self.skipped
            .iter()
            .any(|(skipped, start)| skipped == name && is_start_of_version(start, version))
    }

    /// The skips that keep no duplicate apart any more.
    pub(super) fn unused_skips(&self, versions: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
        let is_used = |(name, start): &&(String, String)| {
            versions.get(name.as_str()).is_some_and(|versions| {
                versions.len() > 1 && versions.iter().any(|v| is_start_of_version(start, v))
            })
        };
        let unused = self.skipped.iter().filter(|skip| !is_used(skip));
        unused.map(|(name, start)| format!("{name}@{start}")).collect()
    }
}

/// `1.2` is the start of `1.2.3`, and not of `1.20.0`.
fn is_start_of_version(start: &str, version: &str) -> bool {
    version.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn check_settings(file: &Table) -> Result<()> {
    for (section, settings) in file {
        let settings = settings.as_table().with_context(|| format!("'{section}' is no section"))?;
        // Advisories are not checked here at all, which the check says in its output.
        if section == "advisories" {
            continue;
        }
        for (key, value) in settings {
            if READ.contains(&(section, key)) {
                continue;
            }
            match FIXED.iter().find(|(s, k, _)| s == section && k == key) {
                Some((.., fixed)) => ensure!(
                    fixed.is(value),
                    "{section}.{key} is {value}; this check knows only {fixed:?}"
                ),
                None => bail!("{section}.{key} is not known to this check"),
            }
        }
    }
    for (section, key, _) in FIXED {
        let value = file.get(*section).and_then(|settings| settings.get(key));
        ensure!(value.is_some(), "{section}.{key} is not set");
    }
    Ok(())
}

fn texts(file: &Table, section: &str, key: &str) -> Result<Vec<String>> {
    let texts = list(file, section, key)?.iter().map(|value| value.as_str().map(str::to_owned));
    texts.collect::<Option<_>>().with_context(|| format!("{section}.{key} is no list of texts"))
}

/// The crates of a list in `bans`, each with its reason.
fn crates(file: &Table, key: &str) -> Result<Vec<(String, String)>> {
    let entries = list(file, "bans", key)?.iter().map(|entry| {
        let entry = entry.as_table().filter(|entry| entry.len() == 2)?;
        let text = |key| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        text("crate").zip(text("reason"))
    });
    entries
        .collect::<Option<_>>()
        .with_context(|| format!("bans.{key}: each entry needs `crate` and `reason`, and no more"))
}

fn list<'a>(file: &'a Table, section: &str, key: &str) -> Result<&'a [Value]> {
    match file.get(section).and_then(|settings| settings.get(key)) {
        None => Ok(&[]),
        Some(value) => value
            .as_array()
            .map(Vec::as_slice)
            .with_context(|| format!("{section}.{key} is no list")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../../../../deny.toml");

    #[test]
    fn the_projects_own_file_is_understood() {
        let policy = Policy::parse(FILE).unwrap();
        assert!(policy.licences.contains("Apache-2.0"));
        assert!(policy.banned.contains_key("openssl-sys"));
        assert!(!policy.targets.is_empty());
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for (from, to) in [
            ("[licenses]", "[licenses]\ncopyleft = \"warn\""),
            ("unknown-git = \"deny\"", "unknown-git = \"warn\""),
            ("unknown-git = \"deny\"", ""),
            ("[sources]", "[sources]\nallow-git = []"),
            ("{ crate = \"native-tls\", reason", "{ crate = \"native-tls\", because"),
            ("skip = [", "skip = [{ crate = \"a\", reason = \"b\" },"),
        ] {
            let changed = FILE.replace(from, to);
            assert_ne!(changed, FILE);
            assert!(Policy::parse(&changed).is_err(), "{to}");
        }
    }
}
