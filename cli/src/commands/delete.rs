//! `modelet delete`: a version, or a model with everything, after asking.

use std::io::{self, BufRead, IsTerminal};

use crate::args::{DeleteArgs, ModelTarget};
use crate::client::Client;
use crate::failure::Failure;
use crate::out::Out;

pub(super) fn run(args: &DeleteArgs, client: &Client, out: &Out) -> Result<(), Failure> {
    let what = describe(&args.target);
    if !args.yes && !args.dry_run.on {
        let stdin = io::stdin();
        let terminal = stdin.is_terminal();
        confirm(&what, terminal, &mut stdin.lock(), out)?;
    }
    let answer = match &args.target.version {
        None => client.delete_model(&args.target.model, args.dry_run.on)?,
        Some(version) => client.delete_version(&args.target.model, version, args.dry_run.on)?,
    };
    let done = if args.dry_run.on { "would delete" } else { "deleted" };
    out.answer(&answer.document, || format!("{done} {what}"))
}

fn describe(target: &ModelTarget) -> String {
    match &target.version {
        None => format!("model {} with all of its versions and aliases", target.model),
        Some(_) => format!("version {target}"),
    }
}

/// Asks for a yes; where nobody can be asked, `--yes` is needed.
fn confirm(what: &str, terminal: bool, input: &mut dyn BufRead, out: &Out) -> Result<(), Failure> {
    if !terminal {
        return Err(Failure::usage(format!("nobody can be asked whether to delete {what}"))
            .remedy("add --yes to delete, or --dry-run to check"));
    }
    out.ask(&format!("delete {what}? [y/N] "));
    let mut answer = String::new();
    input.read_line(&mut answer).map_err(|error| anyhow::anyhow!("no answer: {error}"))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::usage("nothing was deleted: the answer was not yes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::tests::captured;

    #[test]
    fn only_a_yes_on_a_terminal_deletes() {
        let (out, _, stderr) = captured(false);
        for (terminal, typed, agreed) in [
            (true, "y\n", true),
            (true, "yes\n", true),
            (true, "\n", false),
            (true, "no\n", false),
            (true, "", false),
            (false, "y\n", false),
        ] {
            let result = confirm("version m@1", terminal, &mut typed.as_bytes(), &out);
            assert_eq!(result.is_ok(), agreed, "{terminal} {typed:?}");
        }
        assert!(stderr.text().starts_with("delete version m@1? [y/N] "));
    }

    #[test]
    fn a_whole_model_is_named_as_such() {
        assert!(describe(&"m".parse().unwrap()).contains("all of its versions"));
        assert_eq!(describe(&"m@1".parse().unwrap()), "version m@1");
    }
}
