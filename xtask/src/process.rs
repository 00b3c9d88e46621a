//! Child processes: started with their command line shown in errors, never with a hidden failure.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// The checkout that this xtask was built from.
pub(crate) fn workspace() -> &'static Path {
    // The manifest lies one folder below the root.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A command that runs in the workspace's root.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace());
    command
}

/// Runs to the end with our own output; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    ensure!(status.success(), "`{}` ended with {status}", line(command));
    Ok(())
}

/// Runs to the end and returns what it printed; its errors go to our own.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| cannot_start(command))?;
    ensure!(output.status.success(), "`{}` ended with {}", line(command), output.status);
    Ok(output.stdout)
}

/// Whether a program is there and says its version.
pub(crate) fn is_installed(program: &str, arguments: &[&str]) -> bool {
    let mut command = command(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Installs `package` for `cargo SUBCOMMAND` unless some version of it is there.
pub(crate) fn install(subcommand: &str, package: &str, version: &str) -> Result<()> {
    if is_installed(env!("CARGO"), &[subcommand, "--version"]) {
        return Ok(());
    }
    run(command(env!("CARGO")).args(["install", "--locked", package, "--version", version]))
}

/// The command line as one would type it, for messages.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", line(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_the_exit() {
        let error = run(command("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c exit 3` ended with exit status: 3");
        let error = output(&mut command("no-such-program")).unwrap_err();
        assert_eq!(error.to_string(), "cannot start `no-such-program`");
    }
}
