//! Guests made from text: components that do in `infer` what a test has them do.

use serde_json::json;

use crate::harness::{Guest, Server, model_file};

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
    let fields = format!(r#"(data (i32.const 32) "logits") {items}"#);
    let infer = format!("(local $n i64) (local $i i32) {infer}");
    Guest { imports, fields: &fields, infer: &infer, ..Guest::default() }.build()
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

/// Publishes a component of a task, or of none, beside the graph of MNIST.
#[track_caller]
pub(crate) fn publish_as(server: &Server, model: &str, component: &[u8], task: Option<&str>) {
    let manifest = json!({ "task": task }).to_string();
    let graph = model_file("mnist.onnx");
    let parts: [(&str, &[u8]); 3] =
        [("manifest", manifest.as_bytes()), ("component", component), ("asset:model.onnx", &graph)];
    server.publish(model, "1", &parts).ok();
}

/// The graph of `modelet new`, which the components below call.
const TEMPLATE: &[u8] = include_bytes!("../../cli/template/model.onnx");

#[test]
fn a_component_of_every_released_minor_is_served() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/components");
    let components = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let components: Vec<_> = components.collect();
    assert!(!components.is_empty());
    let server = Server::start();
    for path in components {
        let component = std::fs::read(&path).unwrap();
        let parts: [(&str, &[u8]); 2] = [("component", &component), ("asset:model.onnx", TEMPLATE)];
        server.publish("kept", path.file_stem().unwrap().to_str().unwrap(), &parts).ok();
        let name = format!("kept/versions/{}", path.file_stem().unwrap().to_str().unwrap());
        // Its weights are 1, -1, 0.5 and 2, and only the direction of a row counts.
        let scores =
            server.infer_f32(&name, "features", &[2, 4], &[0., 0., 0., 9., 3., 0., 4., 0.]);
        assert_eq!(scores, [2.0, 0.6 + 0.5 * 0.8], "{}", path.display());
        let zeros = json!({ "inputs": [
            { "name": "features", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0] }] });
        let error = server.post(&format!("/v2/models/{name}/infer"), &zeros).error(400);
        assert!(error.contains("a row of zeros has no direction"), "{error}");
    }
}
