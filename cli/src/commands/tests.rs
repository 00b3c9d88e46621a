//! Whole commands, from the line that was typed to what is printed.

use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::out::tests::captured;
use crate::test_server::{Asked, TestServer, Told};

/// Runs a line against a server that answers from a list: how it ended, stdout, what was asked.
fn run_line(line: &str, answers: Vec<Told>) -> (Result<Exit, Failure>, String, Vec<Asked>) {
    let server = TestServer::answering(answers);
    let words = ["modelet", "--server", &server.url].into_iter().chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).unwrap();
    let (out, stdout, _) = captured(cli.global.json);
    let result = run(cli, &out);
    (result, stdout.text(), server.asked())
}

fn version(annotations: &Value) -> Value {
    json!({ "model": "m", "version": "1", "annotations": annotations,
            "signature": { "inputs": [], "outputs": [], "batch": false } })
}

#[test]
fn lists_are_lists_of_objects_with_json() {
    let document = json!({ "versions": [{ "version": "1", "future": [1.5] }] });
    let (result, stdout, asked) = run_line("versions m --json", vec![Told::json(200, &document)]);
    assert_eq!(result.unwrap(), Exit::Ok);
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap(), document["versions"]);
    assert_eq!(asked[0].line, "GET /api/v1/models/m/versions");
    for (line, document) in [
        ("models", json!({ "models": [] })),
        ("alias list m", json!({ "aliases": [] })),
        ("history m --limit 3", json!({ "records": [] })),
        ("instances", json!({ "instances": [] })),
        ("config", json!({ "settings": [] })),
    ] {
        let line = format!("{line} --json");
        let (result, stdout, _) = run_line(&line, vec![Told::json(200, &document)]);
        assert!(result.is_ok() && stdout == "[]\n", "{line}: {stdout}");
    }
}

#[test]
fn show_follows_an_alias_to_its_version() {
    let missing = json!({ "error": "there is no version 'live'", "kind": "not_found" });
    let aliases = |targets: Value| json!({ "aliases": [{ "alias": "live", "targets": targets }] });
    let one = aliases(json!([{ "version": "1", "weight": 100 }]));
    let (result, stdout, asked) = run_line(
        "show m@live",
        vec![
            Told::json(404, &missing),
            Told::json(200, &one),
            Told::json(200, &version(&json!({}))),
        ],
    );
    assert!(result.is_ok() && stdout.starts_with("version:  m@1\n"), "{stdout}");
    assert_eq!(asked[2].line, "GET /api/v1/models/m/versions/1");

    let two = aliases(json!([{ "version": "1", "weight": 9 }, { "version": "2", "weight": 1 }]));
    let (result, ..) =
        run_line("show m@live", vec![Told::json(404, &missing), Told::json(200, &two)]);
    assert!(result.unwrap_err().to_string().contains("1:9,2:1"));
    let (result, ..) =
        run_line("show m@other", vec![Told::json(404, &missing), Told::json(200, &one)]);
    assert!(result.unwrap_err().is_not_found());
}

#[test]
fn update_sends_everything_back_under_the_etag_it_read() {
    let current = version(&json!({ "labels": { "a": "1" }, "future": true }));
    let (result, _, asked) = run_line(
        "update m@1 --label b=2 --remove-label a",
        vec![Told::json(200, &current).header("ETag", "\"7\""), Told::json(200, &current)],
    );
    assert!(result.is_ok());
    assert_eq!(asked[1].line, "PUT /api/v1/models/m/versions/1/annotations");
    assert_eq!(asked[1].header("if-match"), Some("\"7\""));
    let sent: Value = serde_json::from_slice(&asked[1].body).unwrap();
    assert_eq!(sent, json!({ "labels": { "b": "2" }, "future": true }));

    let (result, ..) = run_line("update m@1", vec![Told::json(200, &current)]);
    assert_eq!(result.unwrap_err().exit(), Exit::Usage);
}

#[test]
fn publish_tells_what_became_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("g.onnx");
    std::fs::write(&graph, b"graph").unwrap();
    let line = format!("publish m 1 --onnx {} --alias live", graph.display());
    for (told, text) in [
        (json!({ "created": true, "live": true }), "published m@1 (sha256:, live)"),
        (json!({ "created": false }), "already published, with the same content: m@1"),
        (json!({ "dry_run": true }), "would publish m@1"),
    ] {
        let mut told = told;
        told["version"] = version(&json!({}));
        let (result, stdout, asked) = run_line(&line, vec![Told::json(200, &told)]);
        assert!(result.is_ok() && stdout.starts_with(text), "{stdout}");
        let body = String::from_utf8_lossy(&asked[0].body);
        assert!(body.contains("{\"alias\":\"live\"}"), "{body}");
        assert!(body.contains("name=\"asset:model.onnx\"\r\n"), "{body}");
    }
    let (result, _, asked) = run_line("publish m 1 --onnx does-not-exist", vec![]);
    assert_eq!(result.unwrap_err().exit(), Exit::NotFound);
    assert!(asked.is_empty());
}

#[test]
fn health_has_an_exit_code_for_not_ready() {
    let alive = || Told::json(200, &json!({ "status": "ok" }));
    let ready = Told::json(200, &json!({ "status": "ready" }));
    let (result, stdout, _) = run_line("health", vec![alive(), ready]);
    assert_eq!((result.unwrap(), stdout.as_str()), (Exit::Ok, "alive:  yes\nready:  yes\n"));
    let not = Told::json(503, &json!({ "status": "not_ready", "reason": "draining" }));
    let (result, stdout, _) = run_line("health --json", vec![alive(), not]);
    assert_eq!(result.unwrap(), Exit::Unavailable);
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap()["readiness"]["reason"], "draining");
}

#[test]
fn delete_without_a_terminal_needs_a_yes() {
    let deleted = json!({ "deleted": "m@1" });
    let (result, stdout, asked) = run_line("delete m@1 --yes", vec![Told::json(200, &deleted)]);
    assert!(result.is_ok() && stdout == "deleted version m@1\n", "{stdout}");
    assert_eq!(asked[0].line, "DELETE /api/v1/models/m/versions/1");
    let (result, stdout, asked) = run_line("delete m --dry-run", vec![Told::json(200, &deleted)]);
    assert!(result.is_ok() && stdout.starts_with("would delete model m"), "{stdout}");
    assert_eq!(asked[0].line, "DELETE /api/v1/models/m?dry_run=true");
}

#[test]
fn infer_asks_for_the_signature_and_then_the_answer() {
    let metadata =
        json!({ "name": "m", "inputs": [{ "name": "x", "datatype": "FP32", "shape": [-1] }] });
    let parameters = json!({ "binary_data_size": 4 });
    let output = json!({ "name": "y", "datatype": "FP32", "shape": [1], "parameters": parameters });
    let head = json!({ "model_name": "m", "model_version": "1", "outputs": [output] });
    let head = head.to_string().into_bytes();
    let length = head.len().to_string();
    let answer = [head, 0.1f32.to_le_bytes().to_vec()].concat();
    let answer =
        || Told::bytes(200, answer.clone()).header("Inference-Header-Content-Length", &length);
    let line = "infer m@live --input x=[1,2]";
    let (result, stdout, asked) = run_line(line, vec![Told::json(200, &metadata), answer()]);
    assert!(result.is_ok());
    assert_eq!(
        stdout,
        "m@1\n\nOUTPUT  DATATYPE  SHAPE  FIRST VALUES\ny       FP32      [1]    0.1\n"
    );
    assert_eq!(asked[0].line, "GET /v2/models/m/versions/live");
    let (_, stdout, _) =
        run_line(&format!("{line} --json"), vec![Told::json(200, &metadata), answer()]);
    let document: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(document["outputs"][0]["data"], json!([0.1]));
}
