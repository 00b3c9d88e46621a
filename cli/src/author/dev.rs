//! `modelet dev`: a server of its own that serves the model as the code is now.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use modelet_host::names::VersionName;
use notify::{RecursiveMode, Watcher as _};

use super::build::Crate;
use super::package::{FILE, Package};
use crate::args::DevArgs;
use crate::client::Client;
use crate::commands::publish;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::paths;

/// Editors write a file in several steps; after this long without another, they are done.
const SETTLED: Duration = Duration::from_millis(200);
/// Folders whose changes are nothing new.
const NOT_WATCHED: [&str; 2] = ["target", ".git"];

/// The server of one `modelet dev`, stopped with it.
struct Server {
    /// Its process; it stops by itself when the pipe to its standard input closes.
    child: Child,
    url: String,
}

pub(crate) fn run(args: &DevArgs, out: &Out) -> Result<(), Failure> {
    let changes = watch(&args.folder)?;
    let mut package = Package::read(&args.folder)?;
    let data = Crate::of(package.folder())?.component.with_extension("dev");
    let server = Server::start(args, &data)?;
    let client = Client::new(&server.url)?;
    out.note(&format!("serving at {}; its log follows below", server.url));
    for number in 1u64.. {
        // What is wrong now may be right after the next change.
        match round(&mut package, &args.folder, number, &client, out) {
            Ok(()) => out.note(&format!(
                "{}@dev-{number} is live: modelet --server {} infer {}",
                package.name, server.url, package.name
            )),
            Err(failure) => out.note(&failure.to_string()),
        }
        if changes.recv().is_err() {
            break;
        }
        while changes.recv_timeout(SETTLED).is_ok() {}
    }
    Ok(())
}

/// Builds the model, publishes it as a version of its own, and forgets the one before.
fn round(
    package: &mut Package,
    folder: &Path,
    number: u64,
    client: &Client,
    out: &Out,
) -> Result<(), Failure> {
    *package = Package::read(folder)?;
    package.version = version(number)?;
    package.alias = Some("live".parse().map_err(|error| Failure::usage(format!("{error}")))?);
    if package.is_built_here() {
        Crate::of(package.folder())?.build(out)?;
    }
    publish::package(package, client, out)?;
    if number > 1 {
        let before = client.delete_version(&package.name, &version(number - 1)?, false);
        // It may never have come about.
        before
            .map(drop)
            .or_else(|failure| if failure.is_not_found() { Ok(()) } else { Err(failure) })?;
    }
    Ok(())
}

fn version(number: u64) -> Result<VersionName, Failure> {
    format!("dev-{number}").parse().map_err(|error| Failure::usage(format!("{error}")))
}

/// Tells of every change below a folder.
fn watch(folder: &Path) -> Result<Receiver<()>, Failure> {
    // One that waits says all: what changed is looked at as a whole.
    let (send, changes) = sync_channel(1);
    let cannot = |error: notify::Error| {
        Failure::new(Exit::Failed, format!("{} cannot be watched: {error}", folder.display()))
    };
    let root = std::fs::canonicalize(folder)
        .map_err(|error| crate::body::unreadable(&folder.join(FILE), &error))?;
    let below = root.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let is_news = |path: &PathBuf| {
            let first = path.strip_prefix(&below).ok().and_then(|path| path.components().next());
            first.is_some_and(|first| !NOT_WATCHED.iter().any(|name| first.as_os_str() == *name))
        };
        if !event.kind.is_access() && event.paths.iter().any(is_news) {
            // One waits already, or nobody listens any more.
            let _ = send.try_send(());
        }
    })
    .map_err(cannot)?;
    watcher.watch(&root, RecursiveMode::Recursive).map_err(cannot)?;
    // It watches for as long as the command runs, which ends by a signal.
    std::mem::forget(watcher);
    Ok(changes)
}

impl Server {
    /// Starts one over an empty data directory.
    fn start(args: &DevArgs, data: &Path) -> Result<Self, Failure> {
        let failed = |text: String| Failure::new(Exit::Failed, text);
        if data.exists() {
            std::fs::remove_dir_all(data).map_err(|error| {
                failed(format!("{} cannot be emptied: {error}", data.display()))
            })?;
        }
        let mut command = Command::new(paths::this_program()?);
        command.args(["serve", "--listen", &args.listen.to_string(), "--data-dir"]).arg(data);
        // However this process ends, the system closes its end of the pipe, and nobody else has it.
        let mut child = command
            .arg("--until-stdin-ends")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("no server can be started: {error}")))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            // Without its first line there is no address, which is told below.
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        match line.trim().strip_prefix("modelet listening on ") {
            Some(url) => Ok(Self { url: url.to_owned(), child }),
            None => Err(failed("the server did not start; its log says why".to_owned())),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by the same signal as this command, or has seen the pipe close.
        let _ = self.child.kill().and_then(|()| self.child.wait().map(drop));
    }
}
