//! Keeps ONNX Runtime from reporting on its users.
//!
//! Its published library collects usage events, stores them under the user's cache folder and sends
//! them. It looks at one variable of the environment when it is loaded, and has begun by the time
//! its interface can be told to stop. Changing the environment of a running process is unsafe, so a
//! command that loads the engine starts itself once more with the variable set.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use modelet_host::nn::backend::NO_TELEMETRY;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::paths;

/// Makes sure that this process has the variable; returns at once where it has.
///
/// # Errors
/// When the program cannot be started again.
pub(crate) fn silence_engine() -> Result<(), Failure> {
    let (name, value) = NO_TELEMETRY;
    if std::env::var_os(name).is_some() {
        return Ok(());
    }
    let program = paths::this_program()?;
    let error = Command::new(program).args(std::env::args_os().skip(1)).env(name, value).exec();
    Err(Failure::new(Exit::Failed, format!("this program cannot start itself again: {error}"))
        .remedy(format!("set {name}={value} in its environment")))
}
