//! `modelet-bench`: measurements that criterion has no form for, and the `modelet` program itself, from
//! which workers are started.

#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("report") => {
            let folder = args.get(2).map_or("docs", String::as_str);
            modelet_benches::report::write(folder.as_ref());
            ExitCode::SUCCESS
        }
        Some("echo") => {
            let address = args.get(2).and_then(|address| address.parse().ok());
            let address = address.expect("an address to serve at");
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(modelet_benches::echo::serve(address)).expect("a free address");
            ExitCode::SUCCESS
        }
        Some("batching") => {
            let measured = modelet_benches::batching::measure();
            println!("{}", serde_json::to_string_pretty(&measured).expect("numbers"));
            ExitCode::SUCCESS
        }
        Some("density") => {
            let measured = modelet_benches::density::measure();
            println!("{}", serde_json::to_string_pretty(&measured).expect("numbers"));
            ExitCode::SUCCESS
        }
        Some("decoding") => {
            println!("{}", modelet_benches::decoding::measure());
            ExitCode::SUCCESS
        }
        Some("guests") => {
            let folder = args.get(2).expect("the folder of the examples' components");
            modelet_benches::guests::serve(folder.as_ref());
            ExitCode::SUCCESS
        }
        _ => modelet_cli::main(std::env::args_os()),
    }
}
