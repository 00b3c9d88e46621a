//! Guests made from text: components that do in `infer` what a test has them do.

use serde_json::json;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use crate::harness::{Server, model_file};

/// What `infer` answers with: the caller's own tensor as the graph's output.
pub(crate) const ECHO: &str = r#"
    (i32.store (i32.const 272) (i32.const 32))
    (i32.store (i32.const 276) (i32.const 6))
    (i32.store (i32.const 280) (i32.load offset=8 (local.get 0)))
    (i32.store (i32.const 256) (i32.const 0))
    (i32.store (i32.const 260) (i32.const 272))
    (i32.store (i32.const 264) (i32.const 1))
    (i32.const 256)"#;

/// A component with these imports and items, and this body of `infer`. It describes itself as the
/// graph "model.onnx"; its locals are the i64 `$n` and the i32 `$i`.
pub(crate) fn component(imports: &str, items: &str, infer: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          {imports}
          (memory (export "memory") 1)
          (data (i32.const 16) "model.onnx")
          (data (i32.const 32) "logits")
          {items}
          (func (export "describe") (result i32)
            (i32.store8 (i32.const 64) (i32.const 1))
            (i32.store offset=4 (i32.const 64) (i32.const 16))
            (i32.store offset=8 (i32.const 64) (i32.const 10))
            (i32.const 64))
          (func (export "infer") (param i32 i32) (result i32) (local $n i64) (local $i i32)
            {infer})
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))"#
    );
    let mut module = wat::parse_str(text).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit");
    let (package, _) = resolve.push_path(path).unwrap();
    let world = resolve.select_world(&[package], Some("model")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}

/// A component that counts to `rounds`, which takes a processor about a nanosecond each, and then
/// answers with what it was given.
pub(crate) fn spinner(rounds: u64) -> Vec<u8> {
    let spin = format!(
        "(loop $spin (local.set $n (i64.add (local.get $n) (i64.const 1)))
           (br_if $spin (i64.lt_u (local.get $n) (i64.const {rounds}))))"
    );
    component("", "", &format!("{spin}{ECHO}"))
}

/// Publishes a component beside the graph of MNIST, with at most so many instances.
#[track_caller]
pub(crate) fn publish(server: &Server, model: &str, component: &[u8], max_instances: u32) {
    let manifest = json!({ "pool": { "max_instances": max_instances } }).to_string();
    let graph = model_file("mnist.onnx");
    let parts: [(&str, &[u8]); 3] =
        [("manifest", manifest.as_bytes()), ("component", component), ("asset:model.onnx", &graph)];
    server.publish(model, "1", &parts).ok();
}
