//! The hidden commands that a server starts for itself: each limits its own process, works on bytes
//! that nobody vouches for, and ends.

use std::io::stdout;

use modelet_host::engine::compile::{self, WorkerError};
use modelet_host::nn::gate;

use crate::args::{CompileWorkerArgs, GraphWorkerArgs};
use crate::exit::Exit;
use crate::failure::Failure;

/// Compiles one component.
pub(crate) fn compile(args: &CompileWorkerArgs) -> Result<Exit, Failure> {
    let compiled = compile::run_worker(&args.source, &args.output, &args.limits.limits());
    compiled.map_err(|error| {
        let exit = match error {
            WorkerError::Host(_) => Exit::Failed,
            WorkerError::Component(_) => Exit::Refused,
        };
        Failure::new(exit, error.to_string())
    })?;
    Ok(Exit::Ok)
}

/// Loads one graph and runs it once; what it found is on stdout.
pub(crate) fn graph(args: GraphWorkerArgs) -> Result<Exit, Failure> {
    let limits = args.limits.limits();
    gate::run_worker(&args.task()?, &limits, &mut stdout())
        .map_err(|problem| Failure::new(Exit::Failed, problem))?;
    Ok(Exit::Ok)
}
