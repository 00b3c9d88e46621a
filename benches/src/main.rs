//! `modelet-bench`: measurements that criterion has no form for, and the `modelet` program itself, from
//! which workers are started.

#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("guests") => {
            modelet_benches::guests::measure();
            ExitCode::SUCCESS
        }
        _ => modelet_cli::main(std::env::args_os()),
    }
}
