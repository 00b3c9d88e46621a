//! What model authors have around their model: a server that follows it, completions, the manual.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use modelet_host::engine::PASSTHROUGH;
use rustix::process::Signal;

use crate::harness::{PROGRAM, cli, eventually, is_running, model_file, signal, worker_of};

/// The commands that the help shows, each once.
fn commands() -> Vec<String> {
    let help = cli(&["help"], &[]).ok();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| line.starts_with("  "));
    let commands: Vec<_> = listed
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .map(str::to_owned)
        .collect();
    assert!(commands.len() > 15 && commands.contains(&"publish".to_owned()), "{commands:?}");
    commands
}

/// What bash would offer for the last of these words.
fn offered_by_bash(script: &Path, words: &[&str]) -> Vec<String> {
    let complete = r#"
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        function=$(complete -p modelet | sed 's/.*-F \([^ ]*\).*/\1/')
        "$function" modelet "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    let output = bash.args(["-c", complete, "bash"]).arg(script).args(words).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let mut offered: Vec<_> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    offered.sort();
    offered
}

#[test]
fn completions_know_every_command_in_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let script = cli(&["completions", shell], &[]).ok();
        for command in commands() {
            let named = match shell {
                "bash" => format!("modelet__subcmd__{command}"),
                "zsh" => format!("({command})"),
                _ => format!("__fish_modelet_needs_command\" -f -a \"{command}\""),
            };
            assert!(script.contains(&named), "{shell} knows no {command}");
        }
        assert!(!script.contains("graph-worker"), "{shell} offers what nobody should type");
    }
    assert_eq!(cli(&["completions", "cmd"], &[]).code, 2);
}

#[test]
fn bash_completes_commands_options_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("modelet");
    std::fs::write(&script, cli(&["completions", "bash"], &[]).ok()).unwrap();
    assert_eq!(offered_by_bash(&script, &["modelet", "pub"]), ["publish"]);
    assert_eq!(offered_by_bash(&script, &["modelet", "alias", "r"]), ["remove", "rollback"]);
    let options = offered_by_bash(&script, &["modelet", "publish", "--o"]);
    assert_eq!(options, ["--onnx"]);
    let windows = offered_by_bash(&script, &["modelet", "efficiency", "--window", ""]);
    assert_eq!(windows, ["1h", "1m", "5m", "lifetime"]);
    let all = offered_by_bash(&script, &["modelet", ""]);
    for command in commands() {
        assert!(all.contains(&command), "{command} is not in {all:?}");
    }
}

#[test]
fn the_manual_renders_and_tells_of_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("modelet.1");
    let source = cli(&["man"], &[]).ok();
    std::fs::write(&page, &source).unwrap();
    let titles = source.lines().filter_map(|line| line.strip_prefix(".TH "));
    assert!(titles.clone().next().is_some_and(|title| title.starts_with("modelet 1")));
    for command in commands() {
        let title = format!("\"modelet {command}\"");
        assert!(titles.clone().any(|line| line.starts_with(&title)), "no page of {command}");
    }
    // A line that starts with a dot is a request, and one that roff does not know is lost.
    let known = [".TH", ".SH", ".TP", ".IP", ".RS", ".RE", ".br", ".ie", ".el"];
    for line in source.lines().filter(|line| line.starts_with('.')) {
        let request = line.split_whitespace().next().unwrap();
        assert!(known.contains(&request), "{line}");
    }
    let mut man = Command::new("man");
    man.args(["--warnings", "-E", "ascii", "-l"]).arg(&page).env("MANWIDTH", "200");
    match man.output() {
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        Ok(shown) => {
            let text = String::from_utf8(shown.stdout).unwrap();
            assert!(shown.stderr.is_empty(), "{}", String::from_utf8_lossy(&shown.stderr));
            for words in ["SYNOPSIS", "Publish a version of a model", "modelet new sentiment"] {
                assert!(text.contains(words), "{words} is not in {text}");
            }
        }
    }
}

/// A project whose component is there already, so that nothing has to be compiled.
fn project(folder: &Path) {
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
    write(
        "Cargo.toml",
        b"[package]\nname = \"digits\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\
          [lib]\npath = \"lib.rs\"\ncrate-type = [\"cdylib\"]\n[workspace]\n",
    );
    write("lib.rs", b"");
    write(
        "modelet.toml",
        b"name = \"digits\"\nversion = \"1.0.0\"\ncomponent = \"component.wasm\"\n\
          [assets]\n\"model.onnx\" = \"mnist.onnx\"\n",
    );
    write("component.wasm", PASSTHROUGH);
    write("mnist.onnx", &model_file("mnist.onnx"));
}

#[test]
fn a_followed_projects_server_ends_with_the_command_however_that_ends() {
    for end in [Signal::TERM, Signal::KILL] {
        let folder = tempfile::tempdir().unwrap();
        project(folder.path());
        let mut dev = Command::new(PROGRAM);
        dev.args(["dev", "--listen", "127.0.0.1:0"]).arg(folder.path());
        dev.env("CARGO_TARGET_DIR", folder.path().join("target"));
        let mut dev = dev.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(dev.stderr.take().unwrap()).lines();
        let live = said.by_ref().map(Result::unwrap).find(|line| line.contains("dev-1 is live"));
        assert!(live.is_some(), "it never served the project");
        let server = worker_of(dev.id(), "serve").expect("a server");
        signal(dev.id(), end);
        assert!(!dev.wait().unwrap().success());
        eventually("the end of the server", || !is_running(server));
        // It was told to stop, and was not cut off: it has said so as the last of its lines.
        let last = said.map_while(Result::ok).last().unwrap_or_default();
        assert!(last.contains("drained"), "{end:?}: {last}");
    }
}
