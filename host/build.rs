//! Builds the pass-through component from its text, so that a complete server needs no WebAssembly
//! toolchain: core text to core binary, the world's types beside it, and the component around both.
//! Beside it, for each world, a component that imports and exports all of it: what others are compared
//! with where their types are wrong.

use std::error::Error;
use std::path::PathBuf;

use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, PackageId, Resolve};

const TEXT: &str = "src/engine/passthrough.wat";
const CONTRACT: &str = "../wit";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={TEXT}");
    println!("cargo::rerun-if-changed={CONTRACT}");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(CONTRACT)?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let passthrough = wat::parse_file(TEXT)?;
    std::fs::write(
        out.join("passthrough.wasm"),
        component(&resolve, package, "model", passthrough)?,
    )?;
    for name in ["model", "model-own"] {
        let world = resolve.select_world(&[package], Some(name))?;
        let module = dummy_module(&resolve, world, ManglingAndAbi::Legacy(LiftLowerAbi::Sync));
        let whole = component(&resolve, package, name, module)?;
        std::fs::write(out.join(format!("world-{name}.wasm")), whole)?;
    }
    Ok(())
}

/// The component of a world around a core module.
fn component(
    resolve: &Resolve,
    package: PackageId,
    world: &str,
    mut module: Vec<u8>,
) -> Result<Vec<u8>, Box<dyn Error>> {
    let world = resolve.select_world(&[package], Some(world))?;
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8)?;
    Ok(ComponentEncoder::default().module(&module)?.validate(true).encode()?)
}
