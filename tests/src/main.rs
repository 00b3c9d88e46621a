//! The `modelet` program, where this package's tests can find it.

fn main() -> std::process::ExitCode {
    modelet_cli::main(std::env::args_os())
}
