//! Hostile components: each is refused by name at the check it does not pass, and the next good request
//! succeeds.

use std::fmt::Write as _;

use modelet_host::engine::PASSTHROUGH;
use rustix::process::Signal;
use serde_json::json;

use crate::graphs::{file, graph, node, value, with_external_weights};
use crate::harness::{
    Answer, Guest, SAME_AS_GRAPH, Server, cli, component, eventually, model_file, models, signal,
    still_serves, with_mnist, worker_of,
};

/// A server with MNIST, whose guests get little.
fn server() -> Server {
    let config = "[guest]\nmemory_bytes = 4000000\nstart_timeout_ms = 300\n";
    with_mnist(Server::builder().config(config).start())
}

/// Publishes a component beside the graph that it may serve.
fn publish(server: &Server, component: &[u8]) -> Answer {
    let graph = model_file("mnist.onnx");
    server.publish("m", "1", &[("component", component), ("asset:model.onnx", &graph)])
}

/// The component is refused by `check`, with `words` in the answer.
#[track_caller]
fn refused(server: &Server, component: &[u8], check: &str, words: &[&str]) {
    let counter = format!("modelet_publications_refused_total{{check=\"{check}\"}}");
    let before = server.count(&counter);
    let error = publish(server, component).error(400);
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
    assert_eq!(server.count(&counter), before + 1, "{check}: {error}");
    server.get("/api/v1/models/m").error(404);
    still_serves(server);
}

fn parsed(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// A component with both exports, of no particular type, and these imports.
fn importing(imports: &str) -> Vec<u8> {
    parsed(&format!(
        r#"(component {imports}
             (core module $m (func (export "f")))
             (core instance $i (instantiate $m))
             (func $f (canon lift (core func $i "f")))
             (export "describe" (func $f))
             (export "infer" (func $f)))"#
    ))
}

#[test]
fn what_is_no_component_is_refused_for_what_it_is() {
    let server = server();
    refused(&server, b"", "size", &["0 bytes"]);
    refused(&server, b"\x89PNG\r\n\x1a\n", "binary", &["not WebAssembly", "89"]);
    refused(&server, b"\0asm\x01\0\0\0", "binary", &["core WebAssembly module"]);
    refused(&server, b"\x7fELF\x02\x01\x01\0", "binary", &["ELF"]);
    refused(&server, b"(component)", "binary", &["text"]);
    refused(&server, &PASSTHROUGH[..PASSTHROUGH.len() / 2], "valid", &["not valid"]);
    still_serves(&server);
}

#[test]
fn a_component_over_the_limit_of_bytes_is_refused_with_the_limit() {
    // The pass-through component must fit, or nothing could be published.
    let limit = PASSTHROUGH.len();
    let config = format!("[limits]\ncomponent_bytes = {limit}\n");
    let server = with_mnist(Server::builder().config(&config).start());
    let error = publish(&server, &vec![0; limit + 1]).error(413);
    assert!(error.contains("limits.component_bytes"), "{error}");
    still_serves(&server);
}

#[test]
fn a_component_of_another_world_is_told_what_is_missing_or_forbidden() {
    let server = server();
    refused(&server, &parsed("(component)"), "world", &["describe", "infer"]);
    let keyvalue = r#"(import "wasi:keyvalue/store@0.2.0-draft" (instance))"#;
    refused(&server, &importing(keyvalue), "world", &["wasi:keyvalue/store@0.2.0-draft"]);
    still_serves(&server);
}

#[test]
fn an_item_of_another_type_is_named_with_what_the_world_wants() {
    let server = server();
    let config = r#"(import "modelet:model/config@0.1.0" (instance
        (export "get" (func (param "key" u32) (result string)))))"#;
    let words =
        ["get", "modelet:model/config@0.1.0", "func(u32)", "func(string) -> option<string>"];
    refused(&server, &importing(config), "types", &words);
    let unknown = r#"(import "modelet:model/log@0.1.0" (instance (export "erase" (func))))"#;
    refused(&server, &importing(unknown), "types", &["erase", "does not have"]);
    refused(
        &server,
        &importing(""),
        "types",
        &["infer", "`func()`", "list<tuple<string, tensor>>"],
    );
    still_serves(&server);
}

#[test]
fn a_component_that_the_pool_has_no_room_for_is_refused_with_the_limit() {
    let server = server();
    let refused = |guest: Guest<'_>, words: &[&str]| {
        refused(&server, &guest.build(), "pool", words);
    };
    refused(Guest { fields: "(table 30000 funcref)", ..Guest::default() }, &["30000", "20000"]);
    let memories = "(memory 1)".repeat(4);
    refused(Guest { fields: &memories, ..Guest::default() }, &["memories count of 5"]);
    refused(Guest { pages: 100, ..Guest::default() }, &["6553600", "guest.memory_bytes"]);
    still_serves(&server);
}

/// Asks for memory until it gets no more.
const EATS: &str =
    "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";

#[test]
fn a_start_that_traps_spins_or_eats_is_refused_with_what_it_did() {
    let server = server();
    for (body, words) in [
        ("unreachable", ["did not start", "unreachable"]),
        ("(loop (br 0))", ["did not start", "guest.start_timeout_ms"]),
        (EATS, ["did not start", "guest.memory_bytes"]),
    ] {
        let fields = format!("(func $start {body}) (start $start)");
        let guest = Guest { fields: &fields, ..Guest::default() };
        refused(&server, &guest.build(), "start", &words);
    }
    still_serves(&server);
}

#[test]
fn a_describe_that_traps_spins_eats_or_lies_is_refused_with_what_it_did() {
    let server = server();
    let name_twice = "
        (i32.store (i32.const 68) (i32.const 128)) (i32.store (i32.const 72) (i32.const 2))
        (i32.store (i32.const 128) (i32.const 16)) (i32.store (i32.const 132) (i32.const 5))
        (i32.store (i32.const 148) (i32.const 16)) (i32.store (i32.const 152) (i32.const 5))
        (i32.const 64)";
    let other_graph = SAME_AS_GRAPH.replace("(i32.const 10)", "(i32.const 5)");
    for (describe, check, words) in [
        ("unreachable", "describe", ["describe", "unreachable"]),
        ("(loop (br 0)) unreachable", "describe", ["describe", "guest.start_timeout_ms"]),
        (EATS, "describe", ["describe", "guest.memory_bytes"]),
        ("(i32.const 70000)", "describe", ["describe", "did not return"]),
        (name_twice, "signature", ["\"model\"", "twice"]),
        (&other_graph, "signature", ["\"model\"", "model.onnx"]),
    ] {
        let guest = Guest { describe, ..Guest::default() };
        refused(&server, &guest.build(), check, &words);
    }
    still_serves(&server);
}

/// A component that takes seconds to compile for its many long functions, and memory for the length of
/// each.
fn bomb(functions: usize, steps: usize) -> Vec<u8> {
    let mut fields = String::new();
    for function in 0..functions {
        fields.push_str("(func (param i32) (result i32) (local.get 0) (i32.load) ");
        for step in 0..steps {
            let store = format!("(i32.store (local.get 0) (i32.const {step}))");
            let _ = write!(fields, "(block (br_if 0 (local.get 0)) {store}) ");
        }
        let _ = write!(fields, "(i32.const {function}) i32.add)");
    }
    Guest { fields: &fields, ..Guest::default() }.build()
}

/// One that takes seconds.
fn slow_bomb() -> Vec<u8> {
    bomb(40, 20_000)
}

#[test]
fn a_compile_bomb_is_given_up_at_its_limit_of_processor_time_and_not_tried_again() {
    let server = with_mnist(Server::builder().config("[compile]\ncpu_s = 1\n").start());
    let bomb = slow_bomb();
    let workers = "modelet_gate_worker_duration_seconds_count{gate=\"component\"}";
    let before = server.count(workers);
    for _ in 0..2 {
        refused(&server, &bomb, "compile", &["processor time", "compile.cpu_s"]);
        assert_eq!(server.count(workers), before + 1);
    }
    still_serves(&server);
}

#[test]
fn a_compile_bomb_is_given_up_at_its_limit_of_memory() {
    let config = "[compile]\nmemory_bytes = 400000000\n";
    let server = with_mnist(Server::builder().config(config).start());
    let bomb = bomb(1, 300_000);
    refused(&server, &bomb, "compile", &["memory", "compile.memory_bytes"]);
    still_serves(&server);
}

#[test]
fn a_compile_bomb_is_given_up_at_its_limit_of_time() {
    let server = with_mnist(Server::builder().config("[compile]\ntimeout_s = 1\n").start());
    refused(&server, &slow_bomb(), "compile", &["compile.timeout_s"]);
    still_serves(&server);
}

#[test]
fn a_compile_worker_that_is_killed_fails_only_its_publication() {
    let server = server();
    let bomb = slow_bomb();
    std::thread::scope(|scope| {
        let publication = scope.spawn(|| publish(&server, &bomb).error(400));
        let mut worker = None;
        eventually("a worker", || {
            worker = worker_of(server.pid(), "compile-worker");
            worker.is_some()
        });
        signal(worker.unwrap(), Signal::KILL);
        let error = publication.join().unwrap();
        assert!(error.contains("killed from outside"), "{error}");
    });
    publish(&server, &component("unreachable")).ok();
    still_serves(&server);
}

#[test]
fn a_server_without_its_program_says_so_and_remembers_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("modelet");
    std::fs::copy(crate::harness::PROGRAM, &program).unwrap();
    let server = Server::builder().program(&program).start();
    let away = folder.path().join("away");
    std::fs::rename(&program, &away).unwrap();
    let error = publish(&server, &component("unreachable")).error(503);
    assert!(error.contains("could not be run"), "{error}");
    std::fs::rename(&away, &program).unwrap();
    still_serves(&with_mnist(server));
}

#[test]
fn a_version_does_not_change_its_bytes() {
    let server = server();
    publish(&server, &component("unreachable")).ok();
    let error = publish(&server, &component("(i32.const 0)")).error(409);
    assert!(error.contains('1'), "{error}");
    assert_eq!(server.count("modelet_publications_refused_total{check=\"registry\"}"), 1);
    still_serves(&server);
}

/// Writes a file to inspect; gives its path.
fn written(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The outcomes of the checks that inspecting a file lists, and the exit code.
fn inspected(path: &str, more: &[&str]) -> (serde_json::Value, i32) {
    let output = cli(&[&["inspect", path, "--json"], more].concat(), &[]);
    (serde_json::from_str(&output.stdout).unwrap(), output.code)
}

/// The outcome of one check.
fn outcome<'a>(report: &'a serde_json::Value, check: &str) -> &'a str {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|step| step["check"] == check);
    found.unwrap_or_else(|| panic!("no {check} in {report}"))["outcome"].as_str().unwrap()
}

#[test]
fn inspecting_a_component_runs_the_gate_and_says_how_far_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let good = written(&folder, "good.wasm", &component("unreachable"));
    let (report, code) = inspected(&good, &[]);
    assert_eq!((code, &report["publishable"]), (0, &json!(true)));
    for check in ["valid", "world", "compile", "pool", "types", "start", "describe"] {
        assert_eq!(outcome(&report, check), "ok", "{check}");
    }
    // The graph that it is comes only with a publication.
    assert_eq!(outcome(&report, "signature"), "not_checked");

    let cases = [
        ("text.wasm", b"(component)".to_vec(), "binary", "text"),
        ("types.wasm", importing(""), "types", "infer"),
        (
            "trap.wasm",
            Guest { fields: "(func $s unreachable) (start $s)", ..Guest::default() }.build(),
            "start",
            "unreachable",
        ),
    ];
    for (name, bytes, check, word) in cases {
        let path = written(&folder, name, &bytes);
        let (report, code) = inspected(&path, &[]);
        assert_eq!((code, outcome(&report, check)), (5, "refused"), "{report}");
        assert_eq!(outcome(&report, "signature"), "not_checked");
        assert!(report["error"].as_str().unwrap().contains(word), "{report}");
        let text = cli(&["inspect", &path], &[]);
        assert_eq!(text.code, 5);
        assert!(text.stdout.contains("refused") && text.stdout.contains(word), "{}", text.stdout);
    }
    let settings = written(&folder, "tight.toml", b"[compile]\ncpu_s = 1\n");
    let bomb = written(&folder, "bomb.wasm", &slow_bomb());
    let (report, code) = inspected(&bomb, &["--config", &settings]);
    assert_eq!((code, outcome(&report, "compile")), (5, "refused"), "{report}");
    assert_eq!(cli(&["inspect", "/no/such/file"], &[]).code, 3);
}

#[test]
fn inspecting_a_graph_loads_it_with_the_files_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(&folder, "g.onnx", &with_external_weights("w.bin"));
    let (report, code) = inspected(&path, &[]);
    assert_eq!((code, outcome(&report, "graph_files")), (5, "refused"), "{report}");
    assert!(report["error"].as_str().unwrap().contains("w.bin"), "{report}");
    written(&folder, "w.bin", &[0; 12]);
    for backend in ["onnxruntime", "rten"] {
        let (report, code) = inspected(&path, &["--backend", backend]);
        assert_eq!((code, outcome(&report, "graph_run")), (0, "ok"), "{report}");
        assert_eq!(report["trial"]["outputs"][0]["shape"], json!([2]));
        assert!(report["engine"].as_str().unwrap().starts_with(backend));
    }
    let unknown = file(graph(
        vec![value("x", &[1])],
        vec![value("y", &[1])],
        vec![node("com.example", "Frobnicate", &["x"], &["y"])],
    ));
    let path = written(&folder, "unknown.onnx", &unknown);
    let (report, code) = inspected(&path, &[]);
    assert_eq!((code, outcome(&report, "graph_load")), (5, "refused"), "{report}");
    assert!(report["error"].as_str().unwrap().contains("Frobnicate"), "{report}");
    let mnist = models().join("mnist.onnx");
    let text = cli(&["inspect", mnist.to_str().unwrap()], &[]).ok();
    assert!(text.contains("graph_run") && text.contains("made-up inputs"), "{text}");
}
