//! The command line against a real server: tables for people, documents for programs, exit codes.

use modelet_host::engine::PASSTHROUGH;
use serde_json::{Value, json};

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
    std::fs::write(&component, PASSTHROUGH).unwrap();
    let path = component.to_str().unwrap();
    assert!(cli(&["inspect", path], &[]).ok().contains("wasi:nn/graph"));
    std::fs::write(&component, b"garbage").unwrap();
    assert_eq!(cli(&["inspect", path], &[]).code, 5);
    for missing in ["missing.wasm", "missing.onnx"] {
        let missing = cli(&["inspect", missing], &[]);
        assert_eq!(missing.code, 3, "{}", missing.stderr);
        assert!(missing.stderr.contains("'missing."), "{}", missing.stderr);
    }
}

#[test]
fn a_component_published_here_is_the_one_published_over_http() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let component = folder.path().join("component.wasm");
    std::fs::write(&component, PASSTHROUGH).unwrap();
    let asset = format!("model.onnx={}", file("mnist.onnx"));
    let path = component.to_str().unwrap();
    server.cli(&["publish", "here", "1", "--component", path, "--asset", &asset]).ok();
    let graph = crate::harness::model_file("mnist.onnx");
    let parts = [("component", PASSTHROUGH), ("asset:model.onnx", &graph[..])];
    server.publish("there", "1", &parts).ok();
    let digest = |model: &str| {
        server.get(&format!("/api/v1/models/{model}/versions/1")).ok().json()["digest"].clone()
    };
    assert_eq!(digest("here"), digest("there"));
    let pixels = format!("image={}", file("digit-7.f32"));
    let answer =
        |model: &str| server.cli(&["infer", model, "--input-file", &pixels, "--json"]).json();
    assert_eq!(answer("here")["outputs"], answer("there")["outputs"]);
}

/// The failure that a line ends with, as people read it and as the document that programs read.
#[track_caller]
fn fails(server: &Server, line: &[&str], code: i32, words: &[&str]) {
    let people = server.cli(line);
    assert_eq!(people.code, code, "{line:?}: {}{}", people.stdout, people.stderr);
    let programs = server.cli(&[line, &["--json"]].concat());
    assert_eq!(programs.code, code, "{line:?}: {}", programs.stdout);
    let document: Value = serde_json::from_str(&programs.stdout).unwrap();
    for word in words {
        assert!(people.stderr.contains(word), "{line:?}: {word:?} is not in {}", people.stderr);
        assert!(document.to_string().contains(word), "{line:?}: {word:?} is not in {document}");
    }
}

#[test]
fn every_command_says_what_was_wrong_and_ends_with_its_code() {
    let server = served();
    let (pixels, missing) = (file("digit-7.f32"), "image=missing.f32");
    let input = |shape: &str| format!("image={pixels}{shape}");
    let (short, other) = (input(":1x1x28x27"), format!("picture={pixels}"));
    let cases: [(&[&str], i32, &[&str]); 33] = [
        (&["versions", "nope"], 3, &["nope"]),
        (&["versions", "Bad Name"], 2, &["Bad Name"]),
        (&["show", "mnist@9"], 3, &["mnist", "9"]),
        (&["history", "nope"], 3, &["nope"]),
        (&["history", "mnist", "--limit", "x"], 2, &["--limit"]),
        (&["alias", "list", "nope"], 3, &["nope"]),
        (&["alias", "set", "mnist", "canary", "9"], 3, &["9"]),
        (&["alias", "set", "nope", "canary", "1.0.0"], 3, &["nope"]),
        (&["alias", "set", "mnist", "1.0.0", "1.0.0"], 2, &["1.0.0"]),
        (&["alias", "set", "mnist", "canary", "1.0.0=0"], 2, &["1.0.0=0"]),
        (&["alias", "set", "mnist", "canary", "1.0.0=1", "2"], 2, &["weight"]),
        (&["alias", "set", "mnist", "live", "1.0.0", "--if-match", "99"], 4, &["live"]),
        (&["alias", "set", "mnist", "live", "1.0.0", "--if-match", "x"], 5, &["If-Match"]),
        (&["alias", "rollback", "mnist", "live"], 4, &["live"]),
        (&["alias", "rollback", "mnist", "nope"], 3, &["nope"]),
        (&["alias", "remove", "mnist", "nope"], 3, &["nope"]),
        (&["alias", "remove", "mnist", "live"], 4, &["live"]),
        (&["delete", "nope", "--yes"], 3, &["nope"]),
        (&["delete", "mnist@9", "--yes"], 3, &["9"]),
        (&["delete", "mnist@1.0.0", "--yes"], 4, &["live"]),
        (&["delete", "mnist"], 2, &["--yes"]),
        (&["update", "mnist@9", "--description", "x"], 3, &["9"]),
        (&["update", "mnist@1.0.0"], 2, &["nothing would change"]),
        (&["update", "mnist@1.0.0", "--remove-label", "x"], 2, &["'x'"]),
        (&["update", "mnist@1.0.0", "--accuracy", "0.5"], 2, &["--accuracy-method"]),
        (&["infer", "nope", "--input", "image=[1]"], 3, &["nope"]),
        (&["infer", "mnist@9", "--input", "image=[1]"], 3, &["9"]),
        (&["infer", "mnist"], 5, &["image"]),
        (&["infer", "mnist", "--input", "image=[1"], 2, &["image"]),
        (&["infer", "mnist", "--input", "image=[1,2]"], 2, &["image"]),
        (&["infer", "mnist", "--input-file", &other], 2, &["picture", "image"]),
        (&["infer", "mnist", "--input-file", missing], 3, &["missing.f32"]),
        (&["infer", "mnist", "--input-file", &short], 2, &["[1,1,28,27]"]),
    ];
    for (line, code, words) in cases {
        fails(&server, line, code, words);
    }
    // Nothing of it happened, and the next good line works.
    assert!(server.cli(&["models"]).ok().contains("live=1.0.0"));
    let pixels = input("");
    assert!(server.cli(&["infer", "mnist", "--input-file", &pixels]).ok().contains("17.89"));
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
    assert!(cli(&["serve", "--check", "--data-dir", data], &[]).ok().contains("writable"));
    let checked = cli(&["serve", "--check", "--data-dir", data, "--json"], &[]).json();
    assert_eq!((&checked["status"], &checked["data_dir"]), (&json!("ok"), &json!(data)));
    assert_eq!(
        (&checked["models"], &checked["registry"]["state"]),
        (&json!(0), &json!("writable"))
    );
    let wrong = ["serve", "--check", "--data-dir", data, "--config", config, "--json"];
    let wrong: Value = serde_json::from_str(&cli(&wrong, &[]).stdout).unwrap();
    assert!(wrong["error"].as_str().unwrap().contains("nonsense"), "{wrong}");
}
