//! The `modelet` command: serve models, and everything a person does to a server.
//!
//! A command reads its arguments (`args`), talks to the server's management API (`client`) and gives
//! its answer to `out`, as one JSON document or as text for people. Failures carry the exit code
//! they end with (`exit`). What the server itself does is in the host crate, not here.

mod args;
mod exit;
mod failure;
mod out;

mod author;
mod commands;
mod inspect;
mod serve;
mod worker;

mod body;
mod client;
mod documents;
mod multipart;

mod paths;
mod quiet;
mod table;
mod units;
mod upload;

#[cfg(test)]
mod test_server;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub use crate::exit::Exit;
pub use crate::failure::Failure;
use crate::out::Out;

/// Runs the command that `args` spell, the program's own name first, and says how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match args::Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(answer) => return not_a_command(&answer, &args).into(),
    };
    let out = Out::standard(cli.global.json);
    match commands::run(cli, &out) {
        Ok(exit) => exit.into(),
        Err(failure) => out.failure(&failure).into(),
    }
}

/// Prints what clap has to say: help and version are answers, the rest is wrong usage.
fn not_a_command(answer: &clap::Error, args: &[OsString]) -> Exit {
    // The line did not parse, so whether it asks for JSON has to be seen in its words.
    if answer.use_stderr() && args.iter().any(|arg| arg == "--json") {
        return Out::standard(true).failure(&usage_failure(answer));
    }
    // Nobody is left to tell when the terminal is gone.
    let _ = answer.print();
    if answer.use_stderr() { Exit::Usage } else { Exit::Ok }
}

/// What was wrong with the line, without the paragraphs that clap prints below it for people.
fn usage_failure(answer: &clap::Error) -> Failure {
    let text = answer.to_string();
    let problem = text.split("\n\n").next().unwrap_or_default();
    let problem = problem.strip_prefix("error: ").unwrap_or(problem);
    let words: Vec<_> = problem.split_whitespace().collect();
    Failure::usage(words.join(" ")).remedy("'modelet help COMMAND' says how to write it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_usage_is_told_in_one_line() {
        for (line, message) in [
            (
                "modelet publish m 1 --onnx f --component g",
                "the argument '--onnx <FILE>' cannot be used with '--component <FILE>'",
            ),
            (
                "modelet alias set m live 1=0",
                "invalid value '1=0' for '<VERSION[=WEIGHT]>...': a weight is a whole number above 0",
            ),
        ] {
            let error = args::Cli::try_parse_from(line.split_whitespace()).unwrap_err();
            let failure = usage_failure(&error);
            assert_eq!(failure.document()["error"], message);
            assert_eq!(failure.exit(), Exit::Usage);
        }
    }
}
