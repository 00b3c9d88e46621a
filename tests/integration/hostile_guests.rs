//! Hostile and careless guests: whatever one does in a call, only that call fails, the error names the
//! limit, and the next good request succeeds.

use serde_json::{Value, json};

use crate::graphs::negation;
use crate::harness::{Guest, Server, still_serves, with_mnist};

/// Answers `y` with the very handle that came as the first input.
pub(crate) const ECHO: &str = r#"
    (i32.store8 (i32.const 96) (i32.const 0))
    (i32.store offset=4 (i32.const 96) (i32.const 128))
    (i32.store offset=8 (i32.const 96) (i32.const 1))
    (i32.store offset=0 (i32.const 128) (i32.const 48))
    (i32.store offset=4 (i32.const 128) (i32.const 1))
    (i32.store offset=8 (i32.const 128) (i32.load offset=8 (local.get 0)))
    (i32.const 96)"#;

/// The name that [`ECHO`] answers with.
pub(crate) const ECHO_NAME: &str = r#"(data (i32.const 48) "y")"#;

/// What a guest may import to make and drop tensors.
const TENSORS: &str = r#"
    (import "wasi:nn/tensor@0.2.0-rc-2024-10-28" "[constructor]tensor"
      (func $tensor (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi:nn/tensor@0.2.0-rc-2024-10-28" "[resource-drop]tensor"
      (func $drop (param i32)))"#;

/// One axis of this length at address 200, for `$tensor`; elements are bytes (U8 is 4).
fn axis(length: u32) -> String {
    format!("(i32.store (i32.const 200) (i32.const {length}))")
}

/// Publishes a guest that describes itself as the graph `y = -x`.
#[track_caller]
pub(crate) fn publish(server: &Server, name: &str, guest: &Guest<'_>, manifest: &Value) {
    let (component, manifest) = (guest.build(), manifest.to_string());
    let parts: [(&str, &[u8]); 3] = [
        ("manifest", manifest.as_bytes()),
        ("component", &component),
        ("asset:model.onnx", &negation()),
    ];
    server.publish(name, "1", &parts).ok();
}

pub(crate) fn numbers() -> Value {
    json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0] }] })
}

/// A server with limits that a test can reach.
fn server() -> Server {
    let config = "[limits]\nrequest_timeout_ms = 5000\n\
        [guest]\nmemory_bytes = 1000000\ntable_elements = 5000\nhandles = 64\n\
        tensor_bytes = 1000000\nlog_bytes = 1000\n";
    with_mnist(Server::builder().config(config).start())
}

#[test]
fn a_guest_past_a_limit_is_stopped_and_told_which() {
    let server = server();
    let grow_table = "(loop (br_if 0 (i32.ge_s (table.grow $t (ref.null func) (i32.const 100)) (i32.const 0)))) unreachable";
    let tensors = |bytes: u32| {
        format!(
            "{} (loop (drop (call $tensor (i32.const 200) (i32.const 1) (i32.const 4)
              (i32.const 0) (i32.const {bytes}))) (br 0)) (i32.const 0)",
            axis(bytes)
        )
    };
    let (many, large) = (tensors(1), tensors(60_000));
    let dropped_twice = format!(
        "(local $h i32) {} (local.set $h (call $tensor (i32.const 200) (i32.const 1)
          (i32.const 4) (i32.const 0) (i32.const 1)))
          (call $drop (local.get $h)) (call $drop (local.get $h)) (i32.const 0)",
        axis(1)
    );
    let cases = [
        (
            "memory",
            "",
            "",
            "(loop (br_if 0 (i32.ge_s (memory.grow (i32.const 1)) (i32.const 0)))) unreachable",
            "guest.memory_bytes",
        ),
        ("table", "", "(table $t 1 funcref)", grow_table, "guest.table_elements"),
        ("stack", "", "(func $f (call $f))", "(call $f) (i32.const 0)", "engine.stack_bytes"),
        ("handles", TENSORS, "", &many, "guest.handles"),
        ("tensors", TENSORS, "", &large, "guest.tensor_bytes"),
        ("drops", TENSORS, "", &dropped_twice, "handle"),
    ];
    for (name, imports, fields, infer, word) in cases {
        publish(&server, name, &Guest { imports, fields, infer, ..Guest::default() }, &json!({}));
        for _ in 0..3 {
            let error = server.post(&format!("/v2/models/{name}/infer"), &numbers()).error(500);
            assert!(error.contains(word), "{name}: {word:?} is not in {error:?}");
        }
        let instances = server.get("/api/v1/instances").json();
        let left = instances["instances"].as_array().unwrap().iter();
        assert_eq!(left.filter(|line| line["model"] == name).count(), 0, "{name} left an instance");
        still_serves(&server);
    }
}

#[test]
fn a_guest_that_logs_without_end_fills_no_log() {
    let server = server();
    let imports = r#"(import "modelet:model/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
    let infer = format!(
        "(local $n i32) (loop
          (call $log (i32.const 2) (i32.const 16) (i32.const 10))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if 0 (i32.lt_u (local.get $n) (i32.const 100000)))) {ECHO}"
    );
    publish(
        &server,
        "logs",
        &Guest { imports, fields: ECHO_NAME, infer: &infer, ..Guest::default() },
        &json!({}),
    );
    server.post("/v2/models/logs/infer", &numbers()).ok();
    let log = server.log();
    assert_eq!(log.matches("model.onnx").count(), 100, "1,000 bytes are 100 lines of ten");
    assert!(log.contains("guest.log_bytes") && log.contains("lines=99900"), "{log}");
    still_serves(&server);
}

#[test]
fn a_guest_that_keeps_what_it_should_drop_is_replaced_before_it_fails_anybody() {
    let server = server();
    let infer = format!(
        "{} (drop (call $tensor (i32.const 200) (i32.const 1) (i32.const 4) (i32.const 0)
          (i32.const 100))) {ECHO}",
        axis(100)
    );
    publish(
        &server,
        "leaks",
        &Guest { imports: TENSORS, fields: ECHO_NAME, infer: &infer, ..Guest::default() },
        &json!({}),
    );
    for call in 0..200 {
        let answer = server.post("/v2/models/leaks/infer", &numbers());
        assert_eq!(answer.status, 200, "call {call}: {}", String::from_utf8_lossy(&answer.body));
    }
    let instances = server.get("/api/v1/instances").json();
    let instances = instances["instances"].as_array().unwrap();
    let uses = instances.iter().find(|line| line["model"] == "leaks").map(|line| &line["uses"]);
    assert!(uses.is_none_or(|uses| uses.as_u64().unwrap() <= 33), "{uses:?}");
    still_serves(&server);
}

#[test]
fn a_guest_that_spins_is_stopped_at_the_deadline_and_its_instance_is_gone() {
    let config = "[limits]\nrequest_timeout_ms = 300\n";
    let server = with_mnist(Server::builder().config(config).start());
    let guest = Guest { infer: "(loop (br 0)) (i32.const 0)", ..Guest::default() };
    publish(&server, "spins", &guest, &json!({}));
    let error = server.post("/v2/models/spins/infer", &numbers()).error(504);
    assert!(error.contains("deadline"), "{error}");
    still_serves(&server);
}
