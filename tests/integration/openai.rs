//! The shape of OpenAI's API, as far as it needs no model of a task: routes, errors, refusals.

use serde_json::{Value, json};

use crate::harness::{Answer, Server, model_file};

fn served() -> Server {
    let server = Server::start();
    server.publish_onnx("mnist", "1.0.0", &model_file("mnist.onnx"), "rten").ok();
    server
}

/// The `error` of an answer, after its status was found to be `status`.
#[track_caller]
fn error(answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(&answer.body));
    let error = answer.json()["error"].clone();
    assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
    error
}

#[test]
fn models_are_listed_and_found_by_their_versions_too() {
    let server = served();
    let list = server.get("/v1/models").ok().json();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("mnist")));
    assert!(list["data"][0]["created"].as_u64().unwrap() > 1_600_000_000);
    assert_eq!(server.get("/openai/v1/models").ok().json(), list);
    for id in ["mnist", "mnist@1.0.0", "mnist%40live"] {
        let one = server.get(&format!("/v1/models/{id}")).ok().json();
        assert_eq!(one["id"], id.replace("%40", "@"));
        assert_eq!((&one["object"], &one["owned_by"]), (&json!("model"), &json!("default")));
    }
}

#[test]
fn what_is_not_there_is_told_in_an_object() {
    let server = served();
    for id in ["none", "mnist@2.0.0", "a%20b", "@", "mnist@"] {
        let error = error(&server.get(&format!("/v1/models/{id}")), 404);
        assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")));
        assert_eq!(error["type"], "invalid_request_error");
    }
    error(&server.get("/v1/files"), 404);
    let wrong = server.get("/v1/chat/completions");
    assert_eq!(error(&wrong, 405)["code"], "method_not_allowed");
    assert_eq!(wrong.headers["allow"], "POST");
    assert!(server.get("/v2/files").error(404).contains("no route"));
}

#[test]
fn a_model_of_no_task_is_not_called() {
    let server = served();
    let chat = json!({ "model": "mnist", "messages": [{ "role": "user", "content": "a" }] });
    let embedding = json!({ "model": "mnist", "input": "a" });
    let completion = json!({ "model": "mnist", "prompt": "a" });
    for (path, body) in
        [("chat/completions", chat), ("embeddings", embedding), ("completions", completion)]
    {
        let error = error(&server.post(&format!("/v1/{path}"), &body), 400);
        assert_eq!(error["param"], "model");
        assert!(error["message"].as_str().unwrap().contains("/infer"), "{error}");
    }
}

#[test]
fn bodies_that_are_none_name_what_is_missing() {
    let server = served();
    let said = |body: &[u8]| server.send("POST", "/v1/chat/completions", &[], body);
    for body in [&b""[..], b"[]", b"{", b"text"] {
        assert_eq!(error(&said(body), 400)["type"], "invalid_request_error");
    }
    assert_eq!(error(&said(b"{}"), 400)["param"], "model");
    assert_eq!(error(&said(b"{\"model\": 3}"), 400)["param"], "model");
    let unsaid = error(&said(b"{\"model\": \"mnist\"}"), 400);
    assert_eq!(unsaid["param"], "messages");
    let long = vec![b' '; (64 << 20) + 1];
    assert_eq!(error(&said(&long), 413)["code"], "too_large");
}
