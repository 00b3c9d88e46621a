//! The gate for components: what can be known of one before it is compiled, cheapest first.
//!
//! `publish`, its dry run and `modelet inspect` all come through here, and say the same.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use wasmparser::{ComponentTypeRef, Parser, Payload, Validator, WasmFeatures};

use crate::checks::Check;

/// The worlds a component may be written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// `modelet:model/model`, over `wasi:nn`.
    Model,
    /// `modelet:model/model-own`, over `modelet:nn`.
    ModelOwn,
    /// `modelet:model/http-model`, which answers HTTP itself.
    HttpModel,
}

impl World {
    /// The world's name in `wit/`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Model => "modelet:model/model",
            Self::ModelOwn => "modelet:model/model-own",
            Self::HttpModel => "modelet:model/http-model",
        }
    }
}

/// What the gate found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Functions of these.
    pub functions: u64,
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
    #[error("the component has {have} {what}, over the limit of {limit}")]
    TooMany { what: &'static str, have: u64, limit: u64 },
    #[error(
        "the component imports {import:?}, which this host does not offer; a model may import {offered}"
    )]
    ForbiddenImport { import: String, offered: String },
    #[error(
        "the component does not export {missing}; the world modelet:model/model wants `describe` and `infer`, modelet:model/http-model wants wasi:http/incoming-handler@0.2, and it exports {have:?}"
    )]
    MissingExport { missing: String, have: Vec<String> },
    #[error(
        "the component imports both wasi:nn and modelet:nn; a component is written for one of the two"
    )]
    BothNamespaces,
}

impl GateError {
    /// The check that the component does not pass.
    pub fn check(&self) -> Check {
        match self {
            Self::Empty | Self::TooLarge { .. } => Check::Size,
            Self::Elf | Self::Text | Self::NotWasm(_) | Self::CoreModule => Check::Binary,
            Self::Invalid(_) => Check::Valid,
            Self::TooMany { .. } => Check::Counts,
            Self::ForbiddenImport { .. } | Self::MissingExport { .. } | Self::BothNamespaces => {
                Check::World
            }
        }
    }
}

/// Core modules of a component. The pool has room for 64 of their instances in one component; a Python
/// component has 14.
pub const MAX_CORE_MODULES: u64 = 64;

/// Components inside a component. Composition nests some; each is walked at every load.
pub const MAX_NESTED_COMPONENTS: u64 = 100;

/// Functions of all core modules together. A Python component has some ten thousand; each costs the
/// compiler and the mapped image something however short it is.
pub const MAX_FUNCTIONS: u64 = 250_000;

/// Segments of data and elements of all core modules together; each is copied at every start.
pub const MAX_SEGMENTS: u64 = 50_000;

/// Globals of all core modules together: they are in every instance.
pub const MAX_GLOBALS: u64 = 50_000;

/// What is counted of a component.
#[derive(Debug, Default)]
struct Counts {
    core_modules: u64,
    components: u64,
    functions: u64,
    segments: u64,
    globals: u64,
}

impl Counts {
    fn add(&mut self, payload: &Payload<'_>) {
        match payload {
            Payload::ModuleSection { .. } => self.core_modules += 1,
            Payload::ComponentSection { .. } => self.components += 1,
            Payload::FunctionSection(section) => self.functions += u64::from(section.count()),
            Payload::DataSection(section) => self.segments += u64::from(section.count()),
            Payload::ElementSection(section) => self.segments += u64::from(section.count()),
            Payload::GlobalSection(section) => self.globals += u64::from(section.count()),
            _ => {}
        }
    }

    fn check(&self) -> Result<(), GateError> {
        let counted = [
            ("core modules", self.core_modules, MAX_CORE_MODULES),
            ("nested components", self.components, MAX_NESTED_COMPONENTS),
            ("functions", self.functions, MAX_FUNCTIONS),
            ("segments of data and elements", self.segments, MAX_SEGMENTS),
            ("globals", self.globals, MAX_GLOBALS),
        ];
        match counted.into_iter().find(|(_, have, limit)| have > limit) {
            Some((what, have, limit)) => Err(GateError::TooMany { what, have, limit }),
            None => Ok(()),
        }
    }
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

/// What a component exports that answers HTTP itself, of any release of WASI 0.2.
const HANDLER: &str = "wasi:http/incoming-handler@0.2.";

/// What such a component may import besides. Requests of its own are sent where the operator allows it.
const HTTP: [&str; 2] = ["wasi:http/types@0.2.", "wasi:http/outgoing-handler@0.2."];

/// What any other component must export.
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
    let mut counts = Counts::default();
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(invalid)?;
        counts.add(&payload);
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
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
    counts.check()?;
    let imports: Vec<_> = imports.into_iter().collect();
    let exports: Vec<_> = exports.into_iter().collect();
    let world = check_world(&imports, &exports)?;
    let core_modules = usize::try_from(counts.core_modules).unwrap_or(usize::MAX);
    let (bytes, functions) = (bytes.len() as u64, counts.functions);
    Ok(ComponentFacts { bytes, world, imports, exports, core_modules, functions })
}

/// Checks the size alone, before anything is read.
///
/// # Errors
/// [`GateError::Empty`] or [`GateError::TooLarge`].
pub fn check_size(bytes: u64, limit: u64) -> Result<(), GateError> {
    match bytes {
        0 => Err(GateError::Empty),
        bytes if bytes > limit => Err(GateError::TooLarge { bytes, limit }),
        _ => Ok(()),
    }
}

fn check_kind(bytes: &[u8], limit: u64) -> Result<(), GateError> {
    check_size(bytes.len() as u64, limit)?;
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
    let serves_http = exports.iter().any(|export| export.starts_with(HANDLER));
    for import in imports {
        let offered = OFFERED.contains(&import.as_str())
            || (serves_http && HTTP.iter().any(|interface| import.starts_with(interface)))
            || DENYING_WASI.iter().any(|package| import.starts_with(package));
        if !offered {
            return Err(GateError::ForbiddenImport {
                import: import.clone(),
                offered: "wasi:nn@0.2.0-rc-2024-10-28, modelet:nn@0.1.0, modelet:model@0.1.0 and WASI 0.2 cli, clocks, random, io, filesystem and sockets".to_owned(),
            });
        }
    }
    if serves_http {
        return Ok(World::HttpModel);
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
    fn a_component_of_too_many_parts_is_refused_for_each_kind_of_part() {
        let nested = |part: &str, count: u64| {
            format!("(component {})", part.repeat(usize::try_from(count).unwrap()))
        };
        let inside = |part: &str, count: u64| {
            format!("(component (core module {}))", part.repeat(usize::try_from(count).unwrap()))
        };
        for (text, what) in [
            (nested("(core module)", MAX_CORE_MODULES + 1), "core modules"),
            (nested("(component)", MAX_NESTED_COMPONENTS + 1), "nested components"),
            (inside("(func)", MAX_FUNCTIONS + 1), "functions"),
            (inside("(global i32 i32.const 0)", MAX_GLOBALS + 1), "globals"),
        ] {
            let error = examine(&wat::parse_str(text).unwrap(), 64 << 20).unwrap_err();
            assert_eq!(error.check(), Check::Counts);
            assert!(error.to_string().contains(what), "{error}");
        }
        // At the limits it is only no model.
        let most = inside("(func)", MAX_FUNCTIONS);
        let error = examine(&wat::parse_str(most).unwrap(), 64 << 20).unwrap_err();
        assert_eq!(error.check(), Check::World);
    }

    #[test]
    fn a_foreign_import_is_named() {
        let imports = ["wasi:keyvalue/store@0.2.0-draft".to_owned()];
        let exports = WANTED_EXPORTS.map(str::to_owned);
        let error = check_world(&imports, &exports).unwrap_err();
        assert!(error.to_string().contains("wasi:keyvalue/store@0.2.0-draft"));
    }

    #[test]
    fn what_exports_a_handler_of_http_needs_nothing_else_and_may_import_http() {
        let text = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let imports = text(&[
            "wasi:http/types@0.2.3",
            "wasi:http/outgoing-handler@0.2.3",
            "wasi:io/poll@0.2.3",
        ]);
        let handler = text(&["wasi:http/incoming-handler@0.2.3"]);
        assert_eq!(check_world(&imports, &handler), Ok(World::HttpModel));
        let both = [imports.clone(), text(&["wasi:nn/graph@0.2.0-rc-2024-10-28"])].concat();
        assert_eq!(check_world(&both, &handler), Ok(World::HttpModel));
        // Another model is offered no HTTP, and no other release is this one.
        let model = text(&["describe", "infer"]);
        let refused = check_world(&imports, &model).unwrap_err();
        assert!(refused.to_string().contains("wasi:http/types"), "{refused}");
        let newer = text(&["wasi:http/incoming-handler@0.3.0"]);
        assert!(check_world(&[], &newer).unwrap_err().to_string().contains("incoming-handler@0.2"));
    }

    #[test]
    fn a_missing_export_is_named() {
        let error = check_world(&[], &["describe".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("does not export infer"), "{error}");
    }
}
