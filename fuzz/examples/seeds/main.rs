//! Writes the seeds that are not found by fuzzing: `cargo run -p modelet-fuzz --example seeds`. All of
//! them are made here, from nothing but the project's own code.

mod component;
mod graphs;
mod journal;
mod messages;
mod requests;
mod uploads;

use std::io;

/// A seed: its target, its name and its bytes.
type Seed = (&'static str, String, Vec<u8>);

fn main() -> io::Result<()> {
    let makers = [
        component::seeds,
        graphs::seeds,
        journal::seeds,
        messages::seeds,
        requests::seeds,
        uploads::seeds,
    ];
    for (target, name, bytes) in makers.into_iter().flat_map(|maker| maker()) {
        let folder = modelet_fuzz::seeds(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}
