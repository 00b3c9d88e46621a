//! Licences, bans and sources of all dependencies, by `deny.toml`: those of the host and those of the
//! examples, whose guests are compiled from a lock file of their own.
//!
//! Gives the verdict of `cargo deny check licenses bans sources` from what cargo itself says: `cargo
//! tree` knows which packages are used, `cargo metadata` what they are. Building cargo-deny takes
//! longer than most other checks together. A setting of `deny.toml` that
//! this file does not know is an error, so that the two cannot silently disagree.

mod expression;
mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use self::policy::Policy;
use crate::process::{self, workspace};
use crate::setup;

/// How `cargo metadata` spells the one registry that everything comes from.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The folders with a lock file, and the targets that each is compiled for beside those of `deny.toml`.
const WORKSPACES: &[(&str, &[&str])] = &[(".", &[]), ("examples", &["wasm32-unknown-unknown"])];

/// A package of the dependency graph.
#[derive(Debug, Clone)]
struct Package {
    name: String,
    version: String,
    /// The licence expression; none is a problem.
    licence: Option<String>,
    /// Where it comes from; none for a member of the workspace.
    source: Option<String>,
    /// Names of dependencies that accept any version and are not in the workspace.
    wildcards: Vec<String>,
}

/// Errors with all that `deny.toml` does not allow.
pub(super) fn run() -> Result<()> {
    let text =
        fs::read_to_string(workspace().join("deny.toml")).context("cannot read deny.toml")?;
    let policy = Policy::parse(&text).context("deny.toml")?;
    let mut all = Vec::new();
    let mut found = Vec::new();
    for (folder, targets) in WORKSPACES {
        let packages = packages(&policy, folder, targets)
            .with_context(|| format!("the dependencies of {folder}/Cargo.lock"))?;
        println!("    {folder}/Cargo.lock: {} packages", packages.len());
        // One is compiled without the other, so two versions are two only within one of them.
        let problems = problems(&policy, &packages).into_iter();
        found.extend(problems.map(|problem| format!("{folder}/Cargo.lock: {problem}")));
        all.extend(packages);
    }
    println!("    licences, bans and sources checked");
    println!("    advisories not checked: their database cannot be fetched here");
    for unused in policy.unused_skips(&names_and_versions(&all)) {
        println!("    note: deny.toml skips {unused}, which is no duplicate any more");
    }
    if found.is_empty() {
        return Ok(());
    }
    bail!("{} problems\n{}", found.len(), found.join("\n"))
}

/// The packages that the lock file in this folder leads to.
fn packages(policy: &Policy, folder: &str, targets: &[&str]) -> Result<Vec<Package>> {
    let cargo = || -> Result<Command> {
        let mut cargo = setup::cargo()?;
        cargo.current_dir(workspace().join(folder));
        Ok(cargo)
    };
    let mut used = BTreeSet::new();
    for target in policy.targets.iter().map(String::as_str).chain(targets.iter().copied()) {
        let mut tree = cargo()?;
        tree.args(["tree", "--workspace", "--locked", "--edges", "normal,build,dev"]);
        tree.args(["--prefix", "none", "--format", "{p}", "--target", target]);
        used.extend(read_tree(&String::from_utf8(process::output(&mut tree)?)?));
    }
    let mut metadata = cargo()?;
    metadata.args(["metadata", "--format-version", "1", "--locked"]);
    let metadata: Value = serde_json::from_slice(&process::output(&mut metadata)?)?;
    read_packages(&metadata, &used).context("cargo metadata does not have the expected form")
}

/// Names and versions in lines such as `serde v1.0.229 (proc-macro)`.
fn read_tree(tree: &str) -> BTreeSet<(String, String)> {
    let packages = tree.lines().filter_map(|line| {
        let (name, rest) = line.split_once(" v")?;
        let version = rest.split(' ').next()?;
        Some((name.to_owned(), version.to_owned()))
    });
    packages.collect()
}

/// The used ones of the packages in the metadata, which lists optional ones that no feature asks for.
fn read_packages(metadata: &Value, used: &BTreeSet<(String, String)>) -> Option<Vec<Package>> {
    let packages = metadata.get("packages")?.as_array()?.iter().map(read_package);
    let mut packages = packages.collect::<Option<Vec<_>>>()?;
    packages.retain(|package| used.contains(&(package.name.clone(), package.version.clone())));
    Some(packages)
}

fn read_package(package: &Value) -> Option<Package> {
    let text = |key| package.get(key).and_then(Value::as_str).map(str::to_owned);
    let dependencies = package.get("dependencies")?.as_array()?.iter();
    let wildcards = dependencies
        .filter(|dependency| dependency.get("req").and_then(Value::as_str) == Some("*"))
        .filter(|dependency| dependency.get("path").is_none())
        .filter_map(|dependency| dependency.get("name")?.as_str().map(str::to_owned));
    Some(Package {
        name: text("name")?,
        version: text("version")?,
        licence: text("license"),
        source: text("source"),
        wildcards: wildcards.collect(),
    })
}

fn problems(policy: &Policy, packages: &[Package]) -> Vec<String> {
    let mut problems: Vec<_> = packages.iter().flat_map(|p| package_problems(policy, p)).collect();
    for (name, versions) in names_and_versions(packages) {
        let kept: Vec<_> =
            versions.iter().filter(|version| !policy.skips(name, version)).copied().collect();
        if kept.len() > 1 {
            problems.push(format!("{name} is there in versions {}", kept.join(", ")));
        }
    }
    problems.sort();
    problems
}

fn package_problems(policy: &Policy, package: &Package) -> Vec<String> {
    let called = format!("{} {}", package.name, package.version);
    let mut problems = Vec::new();
    match package.licence.as_deref().map(|text| expression::is_satisfied(text, &policy.licences)) {
        None => problems.push(format!("{called} names no licence")),
        Some(Err(error)) => problems.push(format!("{called}: {error}")),
        Some(Ok(false)) => problems.push(format!(
            "{called} is under '{}', which is not allowed",
            package.licence.as_deref().unwrap_or_default()
        )),
        Some(Ok(true)) => {}
    }
    if let Some(reason) = policy.banned.get(&package.name) {
        problems.push(format!("{called} is banned: {reason}"));
    }
    if let Some(source) = package.source.as_deref().filter(|source| *source != CRATES_IO) {
        problems.push(format!("{called} comes from {source}"));
    }
    // What others publish is theirs; cargo-deny looks at the workspace's own requirements too.
    if package.source.is_none() {
        problems.extend(
            package.wildcards.iter().map(|name| format!("{called} takes any version of {name}")),
        );
    }
    problems
}

fn names_and_versions(packages: &[Package]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut versions = BTreeMap::<_, BTreeSet<_>>::new();
    for package in packages {
        versions.entry(package.name.as_str()).or_default().insert(package.version.as_str());
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
[graph]
targets = ["x86_64-unknown-linux-gnu"]
[licenses]
allow = ["MIT"]
[bans]
multiple-versions = "deny"
wildcards = "deny"
allow-wildcard-paths = true
deny = [{ crate = "bad", reason = "it is bad" }]
skip = [{ crate = "old@1", reason = "another crate wants it" }]
[sources]
unknown-registry = "deny"
unknown-git = "deny"
"#;

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            licence: Some("MIT".to_owned()),
            source: Some(CRATES_IO.to_owned()),
            wildcards: Vec::new(),
        }
    }

    fn found(packages: &[Package]) -> Vec<String> {
        problems(&Policy::parse(POLICY).unwrap(), packages)
    }

    #[test]
    fn a_licence_that_is_not_allowed_is_a_problem() {
        let gpl = Package { licence: Some("GPL-3.0".into()), ..package("a", "1.0.0") };
        let none = Package { licence: None, ..package("b", "1.0.0") };
        let expected =
            ["a 1.0.0 is under 'GPL-3.0', which is not allowed", "b 1.0.0 names no licence"];
        assert_eq!(found(&[gpl, none, package("c", "1.0.0")]), expected);
    }

    #[test]
    fn two_versions_are_a_problem_unless_one_is_skipped() {
        let both = [package("a", "1.0.0"), package("a", "2.0.0")];
        assert_eq!(found(&both), ["a is there in versions 1.0.0, 2.0.0"]);
        assert!(found(&[package("old", "1.4.0"), package("old", "2.0.0")]).is_empty());
        assert!(!found(&[package("old", "10.4.0"), package("old", "2.0.0")]).is_empty());
    }

    #[test]
    fn a_banned_crate_comes_with_the_reason() {
        assert_eq!(found(&[package("bad", "1.0.0")]), ["bad 1.0.0 is banned: it is bad"]);
    }

    #[test]
    fn another_source_is_a_problem() {
        let git = Package { source: Some("git+https://host/a".into()), ..package("a", "1.0.0") };
        assert_eq!(found(&[git]), ["a 1.0.0 comes from git+https://host/a"]);
    }

    #[test]
    fn a_member_takes_no_version_whatever() {
        let member = Package { source: None, wildcards: vec!["b".into()], ..package("a", "1.0.0") };
        assert_eq!(found(&[member]), ["a 1.0.0 takes any version of b"]);
    }

    #[test]
    fn every_lock_file_of_the_workspaces_is_looked_at() {
        // Lock files stand where a workspace begins: at the root or a folder below it.
        let below = fs::read_dir(workspace()).unwrap().map(|entry| entry.unwrap().file_name());
        let folders = below.map(|name| name.into_string().unwrap()).chain([".".to_owned()]);
        let locked: BTreeSet<_> = folders
            .filter(|folder| workspace().join(folder).join("Cargo.lock").is_file())
            .collect();
        assert_eq!(locked, WORKSPACES.iter().map(|(folder, _)| (*folder).to_owned()).collect());
    }

    #[test]
    fn only_packages_of_the_tree_count() {
        let used = read_tree("a v1.0.0 (proc-macro)\nc v1.0.0+build (/a folder)\n\n");
        let metadata = serde_json::json!({ "packages": [
            { "name": "a", "version": "1.0.0", "license": "MIT", "source": null,
              "dependencies": [{ "name": "b", "req": "*" }, { "name": "c", "req": "*", "path": "c" }] },
            { "name": "b", "version": "1.0.0", "dependencies": [] },
            { "name": "a", "version": "2.0.0", "dependencies": [] },
            { "name": "c", "version": "1.0.0+build", "dependencies": [] },
        ]});
        let packages = read_packages(&metadata, &used).unwrap();
        let names: Vec<_> = packages.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(packages[0].wildcards, ["b"]);
    }
}
