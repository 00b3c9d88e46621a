//! Builds the pass-through component from its text, so that a complete server needs no WebAssembly
//! toolchain: core text to core binary, the world's types beside it, and the component around both.
//! Beside it, for each world, a component that imports and exports all of it: what others are compared
//! with where their types are wrong. And the messages of the gRPC protocol, with what describes them.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message as _;
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, PackageId, Resolve};

const TEXT: &str = "src/engine/passthrough.wat";
const CONTRACT: &str = "../wit";
const PROTO: &str = "proto";

/// Messages that are JSON documents over REST.
const JSON_MESSAGES: [&str; 14] = [
    "InferBatchStatistics",
    "InferResponseStatistics",
    "InferStatistics",
    "MemoryUsage",
    "ModelConfig",
    "ModelInput",
    "ModelInstanceGroup",
    "ModelOutput",
    "ModelParameter",
    "ModelStatistics",
    "ModelStatisticsResponse",
    "ModelTransactionPolicy",
    "RepositoryIndexResponse",
    "StatisticDuration",
];

/// Their fields that JSON spells by name and protobuf by number.
const JSON_SPELLED: [(&str, &str); 3] = [
    ("ModelInput.data_type", "super::spell::data_type"),
    ("ModelOutput.data_type", "super::spell::data_type"),
    ("ModelInstanceGroup.kind", "super::spell::instance_kind"),
];

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
    messages(&out)
}

/// The types of the gRPC protocol's messages, compiled without `protoc`, and their description as
/// reflection hands it out.
fn messages(out: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let described = protox::compile(["inference.proto"], [PROTO])?;
    std::fs::write(out.join("inference.bin"), described.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    // What REST answers with as JSON too.
    for message in JSON_MESSAGES {
        let message = format!(".inference.{message}");
        config.message_attribute(&message, "#[derive(serde::Serialize)]");
    }
    for (field, function) in JSON_SPELLED {
        let spell = format!("#[serde(serialize_with = \"{function}\")]");
        config.field_attribute(format!(".inference.{field}"), spell);
    }
    config
        // Tensors stay where the request was read to.
        .bytes([".inference"])
        .btree_map([".inference"])
        .out_dir(out)
        .compile_fds(described)?;
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
