//! What a component's imports and exports have for types, beside what the world wants: for the one
//! moment in which wasmtime says that they do not match, in words that name neither.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use wasmparser::component_types::{
    ComponentAnyTypeId, ComponentDefinedType, ComponentEntityType, ComponentFuncTypeId,
    ComponentInstanceTypeId, ComponentValType, ResourceId,
};
use wasmparser::{ComponentExternalKind, ComponentTypeRef, Parser, Payload, Validator};

use super::gate::{World, features};

/// Components that import and export everything that the worlds have, made from `wit/` when this crate
/// is built.
const WHOLE_WORLD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/world-model.wasm"));
const WHOLE_WORLD_OWN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/world-model-own.wasm"));

/// Bytes of a type's spelling. The longest of our own has about 300; a hostile one can be as long as
/// it likes, and is as wrong after this many.
const SPELLING_BYTES: usize = 4000;

/// Bytes of a spelling that are shown.
const SHOWN_BYTES: usize = 400;

/// The functions and resources of a component's interfaces, spelled: `import wasi:nn/graph@… load` and
/// its type.
type Items = BTreeMap<(&'static str, String, String), String>;

/// The first item of a component that has another type than the world's, in one sentence; none if
/// there is no such item.
pub fn explain(component: &[u8], world: World) -> Option<String> {
    let whole = match world {
        World::Model => WHOLE_WORLD,
        World::ModelOwn => WHOLE_WORLD_OWN,
        // Its interfaces are not our own; wasmtime's words have to do for them.
        World::HttpModel => return None,
    };
    let wanted = items(whole)?;
    let given = items(component)?;
    // Imports come before exports, whose types may follow from theirs.
    for (item, given) in given.iter().rev() {
        let (direction, interface, name) = item;
        // Interfaces of WASI are not the world's own; wasmtime's words have to do for them.
        let known = wanted.keys().any(|(_, other, _)| other == interface);
        let item_name = match name.as_str() {
            "" => format!("{interface:?}"),
            name => format!("{name:?} of {interface:?}"),
        };
        match wanted.get(item) {
            Some(wanted) if wanted == given => {}
            Some(wanted) => {
                return Some(format!(
                    "it {direction}s {item_name} as {}, and the world {} wants {}",
                    shown(given),
                    world.name(),
                    shown(wanted)
                ));
            }
            None if known => {
                return Some(format!(
                    "it {direction}s {item_name}, which the world {} does not have",
                    world.name()
                ));
            }
            None => {}
        }
    }
    None
}

fn shown(spelling: &str) -> String {
    if spelling.len() <= SHOWN_BYTES {
        return format!("`{spelling}`");
    }
    let beginning: String = spelling.chars().take(SHOWN_BYTES).collect();
    format!("`{beginning}…`")
}

/// Every function and resource that a valid component imports or exports.
fn items(component: &[u8]) -> Option<Items> {
    let types = Validator::new_with_features(features()).validate_all(component).ok()?;
    let types = types.as_ref();
    let mut speller = Speller { types, resources: BTreeMap::new() };
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload.ok()? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.ok()?;
                    if matches!(
                        import.ty,
                        ComponentTypeRef::Instance(_) | ComponentTypeRef::Func(_)
                    ) {
                        imports.push(import.name.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.ok()?;
                    if export.kind == ComponentExternalKind::Func {
                        exports.push(export.name.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    let mut items = Items::new();
    for name in imports {
        match types.component_item_for_import(&name)?.ty {
            ComponentEntityType::Instance(id) => speller.interface(&name, id, &mut items),
            ComponentEntityType::Func(id) => {
                items.insert(("import", name, String::new()), speller.function(id));
            }
            _ => {}
        }
    }
    for name in exports {
        if let ComponentEntityType::Func(id) = types.component_item_for_export(&name)?.ty {
            items.insert(("export", name, String::new()), speller.function(id));
        }
    }
    Some(items)
}

/// Spells types as WIT does, with records and variants written out, and resources by the names that
/// interfaces give them.
struct Speller<'a> {
    types: wasmparser::types::TypesRef<'a>,
    resources: BTreeMap<ResourceId, String>,
}

impl Speller<'_> {
    fn interface(&mut self, interface: &str, id: ComponentInstanceTypeId, items: &mut Items) {
        let types = self.types;
        let Some(instance) = types.get(id) else { return };
        for (name, item) in &instance.exports {
            if let ComponentEntityType::Type { created: ComponentAnyTypeId::Resource(id), .. } =
                item.ty
            {
                self.resources.entry(id.resource()).or_insert_with(|| name.clone());
                let key = ("import", interface.to_owned(), name.clone());
                items.insert(key, "resource".to_owned());
            }
        }
        for (name, item) in &instance.exports {
            if let ComponentEntityType::Func(id) = item.ty {
                let key = ("import", interface.to_owned(), name.clone());
                items.insert(key, self.function(id));
            }
        }
    }

    fn function(&self, id: ComponentFuncTypeId) -> String {
        let mut out = String::new();
        let Some(function) = self.types.get(id) else { return out };
        out.push_str(if function.async_ { "async func(" } else { "func(" });
        for (index, (_, ty)) in function.params.iter().enumerate() {
            out.push_str(if index == 0 { "" } else { ", " });
            self.value(ty, &mut out);
        }
        out.push(')');
        if let Some(result) = &function.result {
            out.push_str(" -> ");
            self.value(result, &mut out);
        }
        out
    }

    fn value(&self, ty: &ComponentValType, out: &mut String) {
        // Types share parts, so what is small in the file may be spelled without end.
        if out.len() > SPELLING_BYTES {
            return;
        }
        match ty {
            ComponentValType::Primitive(primitive) => {
                // Writing to a string cannot fail.
                let _ = write!(out, "{primitive}");
            }
            ComponentValType::Type(id) => {
                let types = self.types;
                if let Some(defined) = types.get(*id) {
                    self.defined(defined, out);
                }
            }
        }
    }

    fn defined(&self, ty: &ComponentDefinedType, out: &mut String) {
        use ComponentDefinedType as Type;
        let one = |ty: &ComponentValType| Some(*ty);
        match ty {
            Type::Primitive(primitive) => {
                let _ = write!(out, "{primitive}");
            }
            Type::Record(record) => {
                let fields = record.fields.iter();
                self.cases("record", fields.map(|(name, ty)| (name.as_str(), Some(*ty))), out);
            }
            Type::Variant(variant) => {
                let cases = variant.cases.iter();
                self.cases("variant", cases.map(|(name, case)| (name.as_str(), case.ty)), out);
            }
            Type::Enum(cases) => {
                self.cases("enum", cases.iter().map(|name| (name.as_str(), None)), out);
            }
            Type::Flags(flags) => {
                self.cases("flags", flags.iter().map(|name| (name.as_str(), None)), out);
            }
            Type::Tuple(tuple) => self.generic("tuple", tuple.types.iter().map(one), out),
            Type::List { element, .. } => self.generic("list", [Some(*element)], out),
            Type::FixedLengthList { element, length, .. } => {
                self.generic("list", [Some(*element)], out);
                let _ = write!(out, "[{length}]");
            }
            Type::Map { key, value, .. } => self.generic("map", [Some(*key), Some(*value)], out),
            Type::Option { ty, .. } => self.generic("option", [Some(*ty)], out),
            Type::Result { ok, err, .. } => self.generic("result", [*ok, *err], out),
            Type::Future { ty, .. } => self.generic("future", [*ty], out),
            Type::Stream { ty, .. } => self.generic("stream", [*ty], out),
            Type::Own(id) => out.push_str(self.resource(id.resource())),
            Type::Borrow(id) => {
                let _ = write!(out, "borrow<{}>", self.resource(id.resource()));
            }
        }
    }

    fn cases<'a>(
        &self,
        word: &str,
        cases: impl Iterator<Item = (&'a str, Option<ComponentValType>)>,
        out: &mut String,
    ) {
        let _ = write!(out, "{word} {{");
        for (index, (name, ty)) in cases.enumerate() {
            out.push_str(if index == 0 { " " } else { ", " });
            out.push_str(name);
            if let Some(ty) = ty {
                out.push_str(": ");
                self.value(&ty, out);
            }
        }
        out.push_str(" }");
    }

    fn generic(
        &self,
        word: &str,
        parts: impl IntoIterator<Item = Option<ComponentValType>>,
        out: &mut String,
    ) {
        out.push_str(word);
        out.push('<');
        for (index, part) in parts.into_iter().enumerate() {
            out.push_str(if index == 0 { "" } else { ", " });
            match part {
                Some(ty) => self.value(&ty, out),
                None => out.push('_'),
            }
        }
        out.push('>');
    }

    fn resource(&self, id: ResourceId) -> &str {
        self.resources.get(&id).map_or("a resource of another interface", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::super::PASSTHROUGH;
    use super::*;

    #[test]
    fn what_is_written_for_a_world_has_its_types() {
        for (world, whole) in [(World::Model, WHOLE_WORLD), (World::ModelOwn, WHOLE_WORLD_OWN)] {
            assert_eq!(explain(whole, world), None);
            let items = items(whole).unwrap();
            let infer = &items[&("export", "infer".to_owned(), String::new())];
            assert!(infer.starts_with("func(list<tuple<string, tensor>>) -> result<"), "{infer}");
        }
        assert_eq!(explain(PASSTHROUGH, World::Model), None);
    }

    fn parsed(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn an_import_of_another_type_is_named_with_what_the_world_wants() {
        let component = parsed(
            r#"(component (import "modelet:model/config@0.1.0" (instance
                 (export "get" (func (param "key" u32) (result string))))))"#,
        );
        assert_eq!(
            explain(&component, World::Model).unwrap(),
            "it imports \"get\" of \"modelet:model/config@0.1.0\" as `func(u32) -> string`, and the world \
             modelet:model/model wants `func(string) -> option<string>`"
        );
    }

    #[test]
    fn an_import_that_the_interface_lacks_is_named() {
        let component = parsed(
            r#"(component (import "modelet:model/config@0.1.0" (instance
                 (export "set" (func (param "key" string))))))"#,
        );
        let explained = explain(&component, World::Model).unwrap();
        assert!(
            explained.contains("\"set\"") && explained.contains("does not have"),
            "{explained}"
        );
    }

    #[test]
    fn a_type_without_end_is_spelled_to_an_end() {
        let mut text = "(component (type $t0 (tuple u8 u8))".to_owned();
        for level in 1..18 {
            let _ = write!(text, "(type $t{level} (tuple $t{0} $t{0}))", level - 1);
        }
        text.push_str("(type $f (func (param \"x\" $t17))) (import \"infer\" (func (type $f))))");
        let items = items(&parsed(&text)).unwrap();
        let spelled = items.values().next().unwrap();
        assert!(spelled.len() < 2 * SPELLING_BYTES, "{}", spelled.len());
    }
}
