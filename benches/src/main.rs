//! The `modelet` program, where this package's benches can find it: workers are started from it.

fn main() -> std::process::ExitCode {
    modelet_cli::main(std::env::args_os())
}
