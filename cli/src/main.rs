//! The `modelet` program. Everything is in the library, so that tests can call it.

fn main() -> std::process::ExitCode {
    modelet_cli::main(std::env::args_os())
}
