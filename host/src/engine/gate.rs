//! The gate for components: what can be known of one before it is compiled, cheapest first.
//!
//! `publish`, its dry run and `modelet inspect` all come through here, and say the same.

use std::collections::BTreeSet;

use serde::Serialize;
use wasmparser::{ComponentTypeRef, Parser, Payload, Validator, WasmFeatures};

/// The worlds a component may be written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// `modelet:model/model`, over `wasi:nn`.
    Model,
    /// `modelet:model/model-own`, over `modelet:nn`.
    ModelOwn,
}

/// What the gate found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComponentFacts {
    /// Its length.
    pub bytes: u64,
    /// The world it is written for.
    pub world: World,
    /// The interfaces it imports, in order.
    pub imports: Vec<String>,
    /// What it exports, in order.
    pub exports: Vec<String>,
    /// Core modules inside it.
    pub core_modules: usize,
}

/// Why a component is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum GateError {
    #[error("the component is empty (0 bytes); upload a WebAssembly component")]
    Empty,
    #[error("the component has {bytes} bytes, over the limit of {limit} (limits.component_bytes)")]
    TooLarge { bytes: u64, limit: u64 },
    #[error(
        "this is an ELF file, not a WebAssembly component; compiled code is never accepted, upload the .wasm"
    )]
    Elf,
    #[error("this is WebAssembly text, not a binary component; convert it with `wasm-tools parse`")]
    Text,
    #[error("this is not WebAssembly: it begins with {0:02x?} and not with 00 61 73 6d")]
    NotWasm(Vec<u8>),
    #[error(
        "this is a core WebAssembly module, not a component; turn it into one with `modelet build` or `wasm-tools component new`"
    )]
    CoreModule,
    #[error("the component is not valid: {0}")]
    Invalid(String),
    #[error(
        "the component imports {import:?}, which this host does not offer; a model may import {offered}"
    )]
    ForbiddenImport { import: String, offered: String },
    #[error(
        "the component does not export {missing}; the world modelet:model/model wants `describe` and `infer`, and it exports {have:?}"
    )]
    MissingExport { missing: String, have: Vec<String> },
    #[error(
        "the component imports both wasi:nn and modelet:nn; a component is written for one of the two"
    )]
    BothNamespaces,
}

/// Interfaces of ours and of wasi-nn, spelled with their versions: the linker matches them whole.
const OFFERED: [&str; 16] = [
    "wasi:nn/tensor@0.2.0-rc-2024-10-28",
    "wasi:nn/graph@0.2.0-rc-2024-10-28",
    "wasi:nn/inference@0.2.0-rc-2024-10-28",
    "wasi:nn/errors@0.2.0-rc-2024-10-28",
    "modelet:nn/tensor@0.1.0",
    "modelet:nn/graph@0.1.0",
    "modelet:nn/inference@0.1.0",
    "modelet:nn/errors@0.1.0",
    "modelet:model/types@0.1.0",
    "modelet:model/tensors@0.1.0",
    "modelet:model/tensors-own@0.1.0",
    "modelet:model/assets@0.1.0",
    "modelet:model/config@0.1.0",
    "modelet:model/log@0.1.0",
    "modelet:model/reply@0.1.0",
    "modelet:model/reply-own@0.1.0",
];

/// WASI packages that link to a context that denies; nearly every toolchain imports them.
const DENYING_WASI: [&str; 6] =
    ["wasi:cli/", "wasi:clocks/", "wasi:random/", "wasi:io/", "wasi:filesystem/", "wasi:sockets/"];

/// What a component must export.
const WANTED_EXPORTS: [&str; 2] = ["describe", "infer"];

/// What this host lets a component use of WebAssembly: all that is standard and on by default, without
/// threads, 64-bit memories and component-model async.
pub fn features() -> WasmFeatures {
    WasmFeatures::default()
        .difference(WasmFeatures::THREADS | WasmFeatures::MEMORY64 | WasmFeatures::CM_ASYNC)
}

/// Checks a component without compiling it.
///
/// # Errors
/// [`GateError`], the first and cheapest reason to refuse it.
pub fn examine(bytes: &[u8], limit: u64) -> Result<ComponentFacts, GateError> {
    check_kind(bytes, limit)?;
    let invalid = |error: wasmparser::BinaryReaderError| GateError::Invalid(error.to_string());
    Validator::new_with_features(features()).validate_all(bytes).map_err(invalid)?;
    let mut imports = BTreeSet::new();
    let mut exports = BTreeSet::new();
    let mut core_modules = 0;
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::ModuleSection { .. } => {
                core_modules += 1;
                depth += 1;
            }
            Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(invalid)?;
                    // A type imported by name is only a name for a type of an interface.
                    if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                        imports.insert(import.name.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.insert(export.map_err(invalid)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    let imports: Vec<_> = imports.into_iter().collect();
    let exports: Vec<_> = exports.into_iter().collect();
    let world = check_world(&imports, &exports)?;
    Ok(ComponentFacts { bytes: bytes.len() as u64, world, imports, exports, core_modules })
}

fn check_kind(bytes: &[u8], limit: u64) -> Result<(), GateError> {
    if bytes.is_empty() {
        return Err(GateError::Empty);
    }
    if bytes.len() as u64 > limit {
        return Err(GateError::TooLarge { bytes: bytes.len() as u64, limit });
    }
    if bytes.starts_with(b"\x7fELF") {
        return Err(GateError::Elf);
    }
    if !bytes.starts_with(b"\0asm") {
        let text = bytes.trim_ascii_start();
        if text.starts_with(b"(") || text.starts_with(b";;") {
            return Err(GateError::Text);
        }
        return Err(GateError::NotWasm(bytes.iter().take(4).copied().collect()));
    }
    if Parser::is_core_wasm(bytes) {
        return Err(GateError::CoreModule);
    }
    Ok(())
}

fn check_world(imports: &[String], exports: &[String]) -> Result<World, GateError> {
    for import in imports {
        let offered = OFFERED.contains(&import.as_str())
            || DENYING_WASI.iter().any(|package| import.starts_with(package));
        if !offered {
            return Err(GateError::ForbiddenImport {
                import: import.clone(),
                offered: "wasi:nn@0.2.0-rc-2024-10-28, modelet:nn@0.1.0, modelet:model@0.1.0 and WASI 0.2 cli, clocks, random, io, filesystem and sockets".to_owned(),
            });
        }
    }
    for wanted in WANTED_EXPORTS {
        if !exports.iter().any(|export| export == wanted) {
            return Err(GateError::MissingExport {
                missing: wanted.to_owned(),
                have: exports.to_vec(),
            });
        }
    }
    let imports_from = |package| imports.iter().any(|import| import.starts_with(package));
    match (imports_from("wasi:nn/"), imports_from("modelet:nn/")) {
        (true, true) => Err(GateError::BothNamespaces),
        (false, true) => Ok(World::ModelOwn),
        (_, false) => Ok(World::Model),
    }
}

#[cfg(test)]
mod tests {
    use super::super::PASSTHROUGH;
    use super::*;

    const LIMIT: u64 = 1 << 20;

    #[test]
    fn the_pass_through_component_passes_like_any_other() {
        let facts = examine(PASSTHROUGH, LIMIT).unwrap();
        assert_eq!(facts.world, World::Model);
        assert_eq!(facts.exports, ["describe", "infer"]);
        assert!(facts.imports.contains(&"wasi:nn/graph@0.2.0-rc-2024-10-28".to_owned()));
        assert!(facts.core_modules >= 1);
    }

    #[test]
    fn what_is_no_component_is_refused_by_its_own_name() {
        assert_eq!(examine(b"", LIMIT), Err(GateError::Empty));
        assert_eq!(examine(b"\x7fELF....", LIMIT), Err(GateError::Elf));
        assert_eq!(examine(b"  (component)", LIMIT), Err(GateError::Text));
        assert_eq!(examine(b"\x89PNG", LIMIT), Err(GateError::NotWasm(b"\x89PNG".to_vec())));
        assert_eq!(examine(b"\0asm\x01\0\0\0", LIMIT), Err(GateError::CoreModule));
        let size = PASSTHROUGH.len() as u64;
        assert_eq!(
            examine(PASSTHROUGH, size - 1),
            Err(GateError::TooLarge { bytes: size, limit: size - 1 })
        );
    }

    #[test]
    fn a_cut_component_is_refused_unless_only_its_notes_are_missing() {
        let whole = examine(PASSTHROUGH, LIMIT).unwrap();
        for end in 8..PASSTHROUGH.len() {
            // The last sections are custom ones, names and producers: without them it is still whole.
            if let Ok(cut) = examine(&PASSTHROUGH[..end], LIMIT) {
                assert_eq!(cut, ComponentFacts { bytes: end as u64, ..whole.clone() });
            }
        }
        assert!(examine(&PASSTHROUGH[..PASSTHROUGH.len() / 2], LIMIT).is_err());
    }

    #[test]
    fn a_foreign_import_is_named() {
        let imports = ["wasi:keyvalue/store@0.2.0-draft".to_owned()];
        let exports = WANTED_EXPORTS.map(str::to_owned);
        let error = check_world(&imports, &exports).unwrap_err();
        assert!(error.to_string().contains("wasi:keyvalue/store@0.2.0-draft"));
    }

    #[test]
    fn a_missing_export_is_named() {
        let error = check_world(&[], &["describe".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("does not export infer"), "{error}");
    }
}
