//! `modelet completions` and `modelet man`: the command line described for shells and for `man`.

use clap::{Args as _, Command, CommandFactory as _};

use crate::args::{Cli, CompletionsArgs, Global};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;

pub(crate) fn completions(args: &CompletionsArgs, out: &Out) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut shown(), "modelet", &mut script);
    printed(script, out)
}

/// The command line without its hidden commands, which the scripts would offer like all others.
fn shown() -> Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let bare = Command::new("modelet").version(env!("CARGO_PKG_VERSION"));
    Global::augment_args(bare).subcommands(shown)
}

pub(crate) fn man(out: &Out) -> Result<(), Failure> {
    let mut page = Vec::new();
    let command = Cli::command();
    let written = clap_mangen::Man::new(command.clone()).render(&mut page).and_then(|()| {
        // The commands' own pages follow in the same document.
        command.get_subcommands().filter(|command| !command.is_hide_set()).try_for_each(|command| {
            let name = format!("modelet {}", command.get_name());
            clap_mangen::Man::new(command.clone().display_name(name)).render(&mut page)
        })
    });
    written.map_err(|error| Failure::new(Exit::Failed, format!("no manual: {error}")))?;
    printed(page, out)
}

fn printed(bytes: Vec<u8>, out: &Out) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(&bytes).into_owned();
    out.answer(&serde_json::json!({ "text": text }), || text.clone())
}
