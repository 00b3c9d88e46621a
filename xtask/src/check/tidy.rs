//! The house rules that no other tool knows, each a function from a file to its problems.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::code::Code;

/// Where `unsafe` may stand, and why it must. The list may only shrink, or grow with a reason.
const UNSAFE_FILES: &[(&str, &str)] = &[
    (
        "guest-sdk/src/randomness.rs",
        "exports the symbol that getrandom calls where there is no randomness",
    ),
    ("host/src/engine/compile.rs", "maps machine code that our own worker compiled"),
    ("host/src/engine/memory.rs", "asks the C library to return freed memory"),
    ("host/src/nn/backend/onnxruntime.rs", "runs one shared session from many threads"),
    ("host/src/nn/backend/onnxruntime/library.rs", "loads the engine's shared library"),
    ("host/src/nn/backend/onnxruntime/value.rs", "passes tensors to the engine by pointer"),
];

/// A function of more lines than this does more than one thing.
const MAX_FUNCTION_LINES: usize = 70;

/// Names that say nothing of what is inside.
const BANNED_NAMES: &[&str] =
    &["common", "helper", "helpers", "manager", "misc", "util", "utilities", "utils"];

/// Folders that hold no source of ours.
const SKIPPED_FOLDERS: &[&str] = &["target", "node_modules", "__pycache__"];

/// The marker before a block of the README that is a copy of a file: `<!-- docs/… -->`.
const INCLUDED: &str = "<!-- docs/examples/";

/// Errors with all problems in the checkout, one a line.
pub(super) fn run(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    walk(root, Path::new(""), &mut files)?;
    files.sort();
    let mut problems = Vec::new();
    for file in &files {
        let name = file.to_str().with_context(|| format!("{} is not UTF-8", file.display()))?;
        let read =
            || fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {name}"));
        let found = match file.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => rust_problems(name, &read()?),
            Some("py") => python_problems(&read()?),
            _ if file.ends_with("Cargo.toml") => manifest_problems(&read()?),
            _ => continue,
        };
        problems.extend(found.into_iter().map(|problem| format!("{name}: {problem}")));
    }
    problems.extend(unsafe_list_problems(root)?);
    problems.extend(readme_problems(root)?);
    problems.extend(dependency_problems(root)?);
    if problems.is_empty() {
        println!("    {} files are tidy", files.len());
        return Ok(());
    }
    bail!("{} problems\n{}", problems.len(), problems.join("\n"))
}

/// Collects the files below `root`, as paths relative to it.
fn walk(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = folder.join(&*name);
        if entry.file_type()?.is_file() {
            files.push(path);
        } else if entry.file_type()?.is_dir()
            && !name.starts_with('.')
            && !SKIPPED_FOLDERS.contains(&&*name)
        {
            walk(root, &path, files)?;
        }
    }
    Ok(())
}

fn rust_problems(name: &str, source: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !source.starts_with("//! ") {
        problems.push("does not open with a `//!` comment that says what it owns".to_owned());
    }
    let code = Code::of(source);
    if code.has_word("unsafe") && !UNSAFE_FILES.iter().any(|(file, _)| *file == name) {
        problems.push("has `unsafe`, but is not on the list in xtask/src/check/tidy.rs".to_owned());
    }
    if code.text().contains("#[ignore") {
        problems.push("ignores a test; mend it or delete it".to_owned());
    }
    problems.extend(name_problems(name));
    if !is_test_file(name) {
        let long = code.without_tests().functions();
        problems.extend(long.iter().filter(|f| f.lines > MAX_FUNCTION_LINES).map(|function| {
            let (name, line, lines) = (&function.name, function.line, function.lines);
            format!("line {line}: `{name}` has {lines} lines; the most is {MAX_FUNCTION_LINES}")
        }));
    }
    problems
}

fn name_problems(name: &str) -> Vec<String> {
    let parts = name.trim_end_matches(".rs").split('/');
    let banned = parts.filter(|part| BANNED_NAMES.contains(part));
    banned.map(|part| format!("`{part}` says nothing of what is inside")).collect()
}

/// Whether the whole file is tests.
fn is_test_file(name: &str) -> bool {
    name.starts_with("tests/") || name.ends_with("/tests.rs") || name.contains("/tests/")
}

fn python_problems(source: &str) -> Vec<String> {
    let opens = source.starts_with("\"\"\"") || source.starts_with("#!");
    if opens {
        return Vec::new();
    }
    vec!["does not open with a docstring that says what it owns".to_owned()]
}

/// A member that neither inherits the lints nor writes them out has none.
fn manifest_problems(source: &str) -> Vec<String> {
    let is_package = source.contains("[package]");
    let inherits = source.contains("[lints]\nworkspace = true");
    // The guest SDK is copied into projects, where there is no workspace to inherit from.
    let writes_out = source.contains("[lints.clippy]");
    if is_package && !inherits && !writes_out && !source.contains("[workspace.lints") {
        return vec!["does not inherit the workspace's lints".to_owned()];
    }
    Vec::new()
}

/// A file on the list that has no `unsafe` any more must leave it.
fn unsafe_list_problems(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (file, reason) in UNSAFE_FILES {
        let source = fs::read_to_string(root.join(file)).unwrap_or_default();
        if !Code::of(&source).has_word("unsafe") {
            problems.push(format!("{file}: has no `unsafe`, but is listed ({reason})"));
        }
    }
    Ok(problems)
}

/// The README's examples are the files that the tests run, and all of them are in it.
fn readme_problems(root: &Path) -> Result<Vec<String>> {
    let readme = fs::read_to_string(root.join("README.md")).context("cannot read README.md")?;
    let blocks = included_blocks(&readme);
    let mut problems = Vec::new();
    for (file, block) in &blocks {
        if fs::read_to_string(root.join(file)).ok().as_deref() != Some(block.as_str()) {
            problems.push(format!("README.md: the block after `{file}` is not that file"));
        }
    }
    for entry in fs::read_dir(root.join("docs/examples"))? {
        let name = format!("docs/examples/{}", entry?.file_name().to_string_lossy());
        let is_example = name.ends_with(".sh") || name.ends_with(".py");
        if is_example && !blocks.iter().any(|(file, _)| *file == name) {
            problems.push(format!("README.md: does not show {name}"));
        }
    }
    Ok(problems)
}

/// Every dependency that members share has its reason in the architecture's table.
fn dependency_problems(root: &Path) -> Result<Vec<String>> {
    let manifest: toml::Table = fs::read_to_string(root.join("Cargo.toml"))?.parse()?;
    let dependencies = manifest.get("workspace").and_then(|w| w.get("dependencies"));
    let dependencies = dependencies.and_then(toml::Value::as_table);
    let dependencies = dependencies.context("Cargo.toml shares no dependencies")?;
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).context("no ARCHITECTURE.md")?;
    let external = dependencies.iter().filter(|(_, entry)| entry.get("path").is_none());
    let missing = external.filter(|(name, _)| !text.contains(&format!("| `{name}` |")));
    Ok(missing.map(|(name, _)| format!("ARCHITECTURE.md: no reason for `{name}`")).collect())
}

/// Each marked file with the text of the fenced block that follows.
fn included_blocks(readme: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        if !line.starts_with(INCLUDED) {
            continue;
        }
        let file = line.trim_start_matches("<!-- ").trim_end_matches(" -->");
        let mut block = String::new();
        if lines.next().is_some_and(|fence| fence.starts_with("```")) {
            for line in lines.by_ref().take_while(|line| !line.starts_with("```")) {
                block.push_str(line);
                block.push('\n');
            }
        }
        blocks.push((file.to_owned(), block));
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_must_say_what_it_owns() {
        assert!(rust_problems("host/src/a.rs", "//! Owns a.\n").is_empty());
        for source in ["", "// plain\n", "use a;\n//! late\n", "//!\n"] {
            assert_eq!(rust_problems("host/src/a.rs", source).len(), 1, "{source:?}");
        }
        assert_eq!(python_problems("import os\n").len(), 1);
    }

    #[test]
    fn unsafe_outside_the_list_is_a_problem() {
        let problems = rust_problems("host/src/a.rs", "//! A.\nunsafe fn a() {}\n");
        assert!(problems[0].contains("has `unsafe`"), "{problems:?}");
        assert!(rust_problems("host/src/a.rs", "//! unsafe\n// unsafe\n").is_empty());
    }

    #[test]
    fn an_ignored_test_is_a_problem() {
        for source in ["#[ignore]", "#[ignore = \"slow\"]"] {
            assert_eq!(rust_problems("a.rs", &format!("//! A.\n{source}\nfn a() {{}}\n")).len(), 1);
        }
    }

    #[test]
    fn a_long_function_is_a_problem_outside_tests() {
        let body = "    call();\n".repeat(MAX_FUNCTION_LINES - 2);
        let longest = format!("//! A.\nfn a() {{\n{body}}}\n");
        assert!(rust_problems("host/src/a.rs", &longest).is_empty());
        let longer = longest.replace("{\n", "{\n    call();\n");
        let problems = rust_problems("host/src/a.rs", &longer);
        assert_eq!(problems, ["line 2: `a` has 71 lines; the most is 70"]);
        assert!(rust_problems("tests/src/a.rs", &longer).is_empty());
        assert!(rust_problems("host/src/a/tests.rs", &longer).is_empty());
        let inside = longer.replace("//! A.", "//! A.\n#[cfg(test)]\nmod tests {") + "}\n";
        assert!(rust_problems("host/src/a.rs", &inside).is_empty());
    }

    #[test]
    fn names_that_say_nothing_are_problems() {
        for name in ["host/src/utils.rs", "host/src/common/a.rs", "cli/src/manager.rs"] {
            assert_eq!(rust_problems(name, "//! A.\n").len(), 1, "{name}");
        }
        assert!(rust_problems("host/src/utility_bill.rs", "//! A.\n").is_empty());
    }

    #[test]
    fn a_member_without_the_lints_is_a_problem() {
        assert_eq!(manifest_problems("[package]\nname = \"a\"\n").len(), 1);
        assert!(manifest_problems("[package]\n\n[lints]\nworkspace = true\n").is_empty());
        assert!(manifest_problems("[workspace]\n").is_empty());
    }

    #[test]
    fn the_readme_shows_files_word_for_word() {
        let readme = "text\n<!-- docs/examples/a.sh -->\n```sh\none\ntwo\n```\nmore\n";
        let expected = [("docs/examples/a.sh".to_owned(), "one\ntwo\n".to_owned())];
        assert_eq!(included_blocks(readme), expected);
        assert!(included_blocks("```sh\none\n```\n").is_empty());
    }
}
