//! The hidden command `modelet compile-worker`, which a server starts for itself.

use modelet_host::engine::compile;

use crate::args::WorkerArgs;
use crate::exit::Exit;
use crate::failure::Failure;

/// Compiles one component under the limits it is given.
pub(crate) fn run(args: &WorkerArgs) -> Result<Exit, Failure> {
    compile::run_worker(&args.source, &args.output, args.memory_bytes, args.cpu_s)
        .map_err(|error| Failure::new(Exit::Refused, format!("{error:#}")))?;
    Ok(Exit::Ok)
}
