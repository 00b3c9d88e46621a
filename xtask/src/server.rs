//! A `modelet serve` started by xtask: waits for its address, stops it gracefully, leaves none behind.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process;
use crate::setup::Ready;

/// The server loads its registry before it listens; a minute is many times what that takes.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A graceful stop finishes running requests; past this the server is killed.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The first line that the server prints, up to its address.
const GREETING: &str = "modelet listening on ";

/// A running server; killed on drop if it was not stopped.
pub(crate) struct Server {
    /// Base address, such as `http://127.0.0.1:41234`.
    pub(crate) url: String,
    /// Process id of the server.
    pub(crate) id: u32,
    /// Gives the exit status once, when the server has ended.
    ended: Receiver<std::io::Result<ExitStatus>>,
    is_running: bool,
}

impl Server {
    /// Starts the server of the `ci` build and waits until it says where it listens.
    pub(crate) fn start(ready: &Ready, listen: &str, data_dir: &Path) -> Result<Self> {
        let mut serve = ready.command(ready.built("modelet"));
        serve.args(["serve", "--listen", listen, "--data-dir"]).arg(data_dir);
        Self::spawn(serve)
    }

    fn spawn(mut command: Command) -> Result<Self> {
        let line = process::line(&command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        let id = child.id();
        let stdout = child.stdout.take().context("the server has no standard output")?;
        let (greet, greeting) = sync_channel(1);
        let (end, ended) = sync_channel(1);
        thread::spawn(move || forward(stdout, |line| drop(greet.try_send(line))));
        thread::spawn(move || end.send(child.wait()));
        let mut server = Self { url: String::new(), id, ended, is_running: true };
        let first = match greeting.recv_timeout(START_LIMIT) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => bail!("`{line}` did not listen in {START_LIMIT:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("`{line}` ended before it listened"),
        };
        let url = first
            .strip_prefix(GREETING)
            .with_context(|| format!("`{line}` did not say where it listens, but '{first}'"))?;
        server.url = url.trim_end_matches('/').to_owned();
        Ok(server)
    }

    /// Asks the server to drain and waits until it has; an error if it fails or takes too long.
    pub(crate) fn stop(mut self) -> Result<()> {
        process::run(&mut kill("TERM", self.id))?;
        match self.ended.recv_timeout(STOP_LIMIT) {
            Ok(status) => {
                self.is_running = false;
                let status = status?;
                ensure!(status.success(), "the server ended with {status}");
                Ok(())
            }
            Err(_) => bail!("the server did not stop in {STOP_LIMIT:?}, and was killed"),
        }
    }

    /// Waits until the server ends by itself or by a signal from elsewhere.
    pub(crate) fn wait(mut self) -> Result<()> {
        let status = self.ended.recv().context("the server was not waited for")??;
        self.is_running = false;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_running && self.ended.try_recv().is_err() {
            // It may end just now; then there is nothing to kill.
            let _ = kill("KILL", self.id).stderr(Stdio::null()).status();
            let _ = self.ended.recv_timeout(STOP_LIMIT);
        }
    }
}

/// Signals through the shell, which needs no unsafe code.
fn kill(signal: &str, id: u32) -> Command {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s \"$0\" \"$1\"", signal, &id.to_string()]);
    kill
}

/// Hands the first line to `greet` and prints the rest, so that the server never blocks on a pipe.
fn forward(stdout: ChildStdout, greet: impl FnOnce(String)) {
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    if let Some(first) = lines.next() {
        greet(first);
    }
    lines.for_each(|line| println!("{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Result<Server> {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        Server::spawn(command)
    }

    #[test]
    fn the_address_is_the_first_line_and_a_stop_is_graceful() {
        let text = "trap 'kill $!; exit 0' TERM; echo modelet listening on http://127.0.0.1:1/; \
                    sleep 60 & wait";
        let server = script(text).unwrap();
        assert_eq!(server.url, "http://127.0.0.1:1");
        server.stop().unwrap();
    }

    #[test]
    fn a_server_that_ends_early_is_an_error() {
        let error = script("exit 3").err().unwrap().to_string();
        assert!(error.ends_with("ended before it listened"), "{error}");
    }

    #[test]
    fn another_first_line_is_an_error_that_shows_it() {
        let error = script("echo hello").err().unwrap().to_string();
        assert!(error.ends_with("did not say where it listens, but 'hello'"), "{error}");
    }

    #[test]
    fn a_failing_exit_is_an_error() {
        let server = script("echo modelet listening on x; exit 2").unwrap();
        assert!(server.wait().unwrap_err().to_string().contains("exit status: 2"));
    }
}
