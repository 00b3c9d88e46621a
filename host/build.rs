//! Builds the pass-through component from its text, so that a complete server needs no WebAssembly
//! toolchain: core text to core binary, the world's types beside it, and the component around both.

use std::error::Error;
use std::path::PathBuf;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const TEXT: &str = "src/engine/passthrough.wat";
const CONTRACT: &str = "../wit";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={TEXT}");
    println!("cargo::rerun-if-changed={CONTRACT}");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(CONTRACT)?;
    let world = resolve.select_world(&[package], Some("model"))?;
    let mut module = wat::parse_file(TEXT)?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    let component = ComponentEncoder::default().module(&module)?.validate(true).encode()?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("passthrough.wasm"), component)?;
    Ok(())
}
