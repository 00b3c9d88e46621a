//! A newcomer's path: a new project, nothing edited, to an answer.

use std::time::Instant;

use anyhow::{Result, ensure};
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
    server.stop()
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
