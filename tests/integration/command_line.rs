//! The command line against a real server: tables for people, documents for programs, exit codes.

use serde_json::json;

use crate::graphs::with_external_weights;
use crate::harness::{Server, cli, models};

fn file(name: &str) -> String {
    models().join(name).to_str().unwrap().to_owned()
}

/// A server with MNIST published by the command line.
fn served() -> Server {
    let server = Server::start();
    server.cli(&["publish", "mnist", "1.0.0", "--onnx", &file("mnist.onnx")]).ok();
    server
}

#[test]
fn a_model_is_published_called_moved_and_deleted() {
    let server = served();
    assert!(server.cli(&["models"]).ok().contains("live=1.0.0"));
    let versions = server.cli(&["versions", "mnist", "--json"]).json();
    assert_eq!(versions[0]["version"], "1.0.0");
    assert!(server.cli(&["show", "mnist@1.0.0"]).ok().contains("image"));
    let pixels = format!("image={}", file("digit-7.f32"));
    let answer = server.cli(&["infer", "mnist@live", "--input-file", &pixels, "--json"]).json();
    assert_eq!(answer["outputs"][0]["shape"], json!([1, 10]));
    assert!(server.cli(&["infer", "mnist", "--input-file", &pixels]).ok().contains("17.89"));
    let onnx = file("mnist.onnx");
    let publish = ["publish", "mnist", "2.0.0", "--onnx", &onnx, "--config", "a=b"];
    server.cli(&[&publish[..], &["--dry-run"]].concat()).ok();
    assert_eq!(server.cli(&["show", "mnist@2.0.0"]).code, 3);
    server.cli(&publish).ok();
    server.cli(&["alias", "set", "mnist", "live", "2.0.0"]).ok();
    assert!(server.cli(&["alias", "list", "mnist"]).ok().contains("2.0.0"));
    server.cli(&["alias", "rollback", "mnist", "live"]).ok();
    assert_eq!(server.cli(&["delete", "mnist@1.0.0", "--yes"]).code, 4);
    server.cli(&["delete", "mnist@2.0.0", "--yes"]).ok();
    assert!(server.cli(&["history", "mnist"]).ok().contains("publish"));
    server.cli(&["delete", "mnist", "--yes", "--dry-run"]).ok();
    server.cli(&["delete", "mnist", "--yes"]).ok();
    assert_eq!(server.cli(&["models", "--json"]).json(), json!([]));
}

#[test]
fn external_data_that_a_graph_names_goes_along() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("graph.onnx");
    std::fs::write(&graph, with_external_weights("weights.bin")).unwrap();
    let publish = ["publish", "m", "1", "--onnx", graph.to_str().unwrap()];
    let missing = server.cli(&publish);
    assert!(missing.code == 5 && missing.stderr.contains("weights.bin"), "{}", missing.stderr);
    std::fs::write(folder.path().join("weights.bin"), [0; 12]).unwrap();
    server.cli(&publish).ok();
    let answer = server.cli(&["infer", "m", "--input", "x=[1.5,2.5]", "--json"]).json();
    assert_eq!(answer["outputs"][0]["data"], json!([1.5, 2.5]));
}

#[test]
fn a_version_is_described_after_it_was_published() {
    let server = served();
    let update = ["update", "mnist@1.0.0", "--description", "handwritten digits"];
    server.cli(&update).ok();
    assert!(server.cli(&["show", "mnist@1.0.0"]).ok().contains("handwritten digits"));
}

#[test]
fn the_server_is_looked_at() {
    let server = served();
    for command in ["instances", "efficiency", "health", "config", "models"] {
        assert!(!server.cli(&[command]).ok().is_empty());
        server.cli(&[command, "--json"]).json();
    }
}

#[test]
fn exit_codes_say_what_kind_of_failure_it_was() {
    let server = served();
    assert_eq!(server.cli(&["show", "nope"]).code, 3);
    assert_eq!(server.cli(&["nonsense"]).code, 2);
    let again = ["publish", "mnist", "1.0.0", "--onnx", &file("mnist.onnx"), "--config", "a=b"];
    assert_eq!(server.cli(&again).code, 4);
    let garbage = file("digit-7.f32");
    let refused = server.cli(&["publish", "m", "1", "--component", &garbage]);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("not WebAssembly"), "{}", refused.stderr);
    assert_eq!(cli(&["models", "--server", "http://127.0.0.1:1"], &[]).code, 6);
}

#[test]
fn files_are_inspected_without_a_server() {
    let onnx = file("mnist.onnx");
    let text = cli(&["inspect", &onnx], &[]).ok();
    assert!(text.contains("image FP32 [-1,1,28,28]") && text.contains("Conv"), "{text}");
    assert_eq!(cli(&["inspect", &onnx, "--json"], &[]).json()["kind"], "graph");
    let folder = tempfile::tempdir().unwrap();
    let component = folder.path().join("passthrough.wasm");
    std::fs::write(&component, modelet_host::engine::PASSTHROUGH).unwrap();
    let path = component.to_str().unwrap();
    assert!(cli(&["inspect", path], &[]).ok().contains("wasi:nn/graph"));
    std::fs::write(&component, b"garbage").unwrap();
    assert_eq!(cli(&["inspect", path], &[]).code, 5);
}

#[test]
fn a_server_that_would_be_open_to_everyone_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let open = cli(&["serve", "--listen", "0.0.0.0:0", "--data-dir", data], &[]);
    assert_eq!(open.code, 2);
    assert!(open.stderr.contains("--insecure-no-auth"), "{}", open.stderr);
    let config = folder.path().join("modelet.toml");
    std::fs::write(&config, "[limits]\nnonsense = 1\n").unwrap();
    let config = config.to_str().unwrap();
    let wrong = cli(&["serve", "--check", "--data-dir", data, "--config", config], &[]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("nonsense"), "{}", wrong.stderr);
    cli(&["serve", "--check", "--data-dir", data], &[]).ok();
}
