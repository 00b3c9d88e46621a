//! A newcomer's path: a new project, nothing edited, to an answer.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::guests;
use crate::process;
use crate::server::Server;
use crate::setup::Ready;

/// From the new project to the answer it may take this long, once the crates of guests are compiled.
const SECONDS: u64 = 60;
/// What the template's four weights, 1, -1, 0.5 and 2, make of the direction of (1, 2, 3, 4).
const SCORE: f64 = 8.5 / 5.477_225_575_051_661;

/// Makes, builds, publishes and calls a project by the commands that its README names.
pub(crate) fn run(ready: &Ready) -> Result<()> {
    let folder = ready.scratch("newcomer")?;
    let data_dir = ready.scratch("newcomer-data")?;
    let server = Server::start(ready, "127.0.0.1:0", data_dir.path())?;
    // The first build compiles what all guests share, as the examples did with their own profile.
    path(ready, &folder, &server, "first")?;
    let begun = Instant::now();
    path(ready, &folder, &server, "second")?;
    let took = begun.elapsed();
    println!("    from nothing to an answer in {:.1} s", took.as_secs_f64());
    ensure!(took.as_secs() < SECONDS, "it took {} s, {SECONDS} are allowed", took.as_secs());
    server.stop()?;
    follow(ready, &folder.path().join("second"))
}

/// Has `modelet dev` serve a project, changes the code, and waits until it serves that.
fn follow(ready: &Ready, project: &Path) -> Result<()> {
    let mut dev = guests::modelet(ready);
    // A group of its own, as a terminal gives it one: a signal to it reaches the server too.
    dev.args(["dev", "--listen", "127.0.0.1:0"]).current_dir(project).process_group(0);
    let mut child = dev.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(child.stderr.take().context("no stderr")?).lines();
    let mut until = |words: &str| {
        let found = said.by_ref().map_while(Result::ok).find(|line| line.contains(words));
        found.with_context(|| format!("modelet dev never said '{words}'"))
    };
    let source = project.join("src/lib.rs");
    let followed = until("dev-1 is live").and_then(|_| {
        let code = fs::read_to_string(&source)?;
        fs::write(&source, code.replace("row of zeros", "row without length"))?;
        until("dev-2 is live")
    });
    process::run(process::command("kill").args(["-TERM", "--", &format!("-{}", child.id())]))?;
    child.wait()?;
    println!("    {}", followed?);
    Ok(())
}

fn path(ready: &Ready, folder: &crate::cache::Partial, server: &Server, name: &str) -> Result<()> {
    let modelet = || {
        let mut modelet = guests::modelet(ready);
        modelet.env("MODELET_SERVER", &server.url).current_dir(folder.path());
        modelet
    };
    process::run(modelet().args(["new", name]))?;
    let project = folder.path().join(name);
    process::run(modelet().arg("build").current_dir(&project))?;
    process::run(modelet().arg("publish").current_dir(&project))?;
    let mut infer = modelet();
    infer.args(["infer", name, "--json", "--input", "features=[[1, 2, 3, 4]]"]);
    let answer: Value = serde_json::from_slice(&process::output(&mut infer)?)?;
    let score = answer.pointer("/outputs/0/data/0").and_then(Value::as_f64).unwrap_or(f64::NAN);
    ensure!((score - SCORE).abs() < 1e-5, "{name} answered {answer}");
    Ok(())
}
