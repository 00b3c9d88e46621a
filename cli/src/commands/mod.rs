//! The commands, one module each, and the list that leads to them.

mod alias;
mod chat;
mod delete;
mod efficiency;
mod history;
mod infer;
mod models;
mod operations;
pub(crate) mod publish;
mod release;
mod setup;
mod show;
mod update;

pub(crate) use self::operations::state_text;
use crate::args::{Cli, Command};
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::{author, inspect, serve, worker};

/// Runs the command that was typed.
///
/// # Errors
/// Whatever the command failed with; it carries the exit code.
pub(crate) fn run(cli: Cli, out: &Out) -> Result<Exit, Failure> {
    let server = || Client::new(&cli.global.server);
    match cli.command {
        Command::Serve(args) => return serve::run(args, out),
        Command::Inspect(args) => return inspect::run(&args, out),
        Command::CompileWorker(args) => return worker::compile(&args),
        Command::GraphWorker(args) => return worker::graph(args),
        Command::Build(args) => return author::build::run(&args, out),
        Command::Health(_) => return operations::health(&server()?, out),
        Command::New(args) => author::new::run(&args, out),
        Command::Dev(args) => author::dev::run(&args, out),
        Command::Completions(args) => author::shell::completions(&args, out),
        Command::Man(_) => author::shell::man(out),
        Command::Setup(args) => setup::run(&args, out),
        Command::Publish(args) => publish::run(&args, &server()?, out),
        Command::Models(_) => models::models(&server()?, out),
        Command::Versions(args) => models::versions(&args, &server()?, out),
        Command::Show(args) => show::run(&args, &server()?, out),
        Command::Update(args) => update::run(&args, &server()?, out),
        Command::Infer(args) => infer::run(&args, &server()?, out),
        Command::Chat(args) => chat::run(&args, &server()?, out),
        Command::Alias(command) => alias::run(command, &server()?, out),
        Command::Delete(args) => delete::run(&args, &server()?, out),
        Command::Release(args) => release::run(&args, &server()?, out),
        Command::History(args) => history::run(&args, &server()?, out),
        Command::Instances(_) => operations::instances(&server()?, out),
        Command::Efficiency(args) => efficiency::run(&args, &server()?, out),
        Command::Config(_) => operations::config(&server()?, out),
    }?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests;
