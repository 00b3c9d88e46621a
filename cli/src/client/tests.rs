//! The client against a server that answers from a list.

use std::net::TcpListener;

use serde_json::json;

use super::*;
use crate::body;
use crate::multipart::Form;
use crate::test_server::{Asked, TestServer, Told};

fn ask<T>(told: Told, call: impl FnOnce(&Client) -> T) -> (T, Asked) {
    let server = TestServer::answering(vec![told]);
    let result = call(&Client::new(&server.url).unwrap());
    (result, server.asked().remove(0))
}

fn model() -> ModelName {
    "m".parse().unwrap()
}

fn version() -> VersionName {
    "1.0.0+b".parse().unwrap()
}

#[test]
fn an_answer_is_its_document_and_etag() {
    let told = Told::json(200, &json!({ "version": "1" })).header("ETag", "\"12\"");
    let (answer, asked) = ask(told, |client| client.version(&model(), &version()));
    let answer = answer.unwrap();
    assert_eq!(answer.etag.as_deref(), Some("12"));
    assert_eq!(answer.read::<String>("/version").unwrap(), "1");
    assert_eq!(asked.line, "GET /api/v1/models/m/versions/1.0.0+b");
    assert!(asked.header("user-agent").unwrap().starts_with("modelet/"));
}

#[test]
fn changes_carry_their_precondition_and_dry_run() {
    let alias = "live".parse().unwrap();
    let (name, targets) = (model(), [(version(), 100)]);
    let place = AliasPlace { model: &name, alias: &alias };
    let (_, asked) = ask(Told::json(200, &json!({})), |client| {
        client.set_alias(place, &targets, Some("12"), true)
    });
    assert_eq!(asked.line, "PUT /api/v1/models/m/aliases/live?dry_run=true");
    assert_eq!(asked.header("if-match"), Some("\"12\""));
    assert_eq!(asked.header("content-type"), Some("application/json"));
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(body, json!({ "targets": [{ "version": "1.0.0+b", "weight": 100 }] }));

    let (_, asked) =
        ask(Told::json(200, &json!({})), |client| client.roll_back_alias(place, false));
    assert_eq!(asked.line, "POST /api/v1/models/m/aliases/live/rollback");
    assert_eq!(asked.body, b"{}");
    let (_, asked) = ask(Told::json(200, &json!({})), |client| client.delete_model(&name, false));
    assert_eq!(
        (asked.line.as_str(), asked.header("content-length")),
        ("DELETE /api/v1/models/m", None)
    );
}

#[test]
fn an_upload_is_streamed_with_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    // Larger than the buffers on the way, and large enough for `Expect: 100-continue`.
    let content: Vec<u8> = (0..3_000_000u32).map(|i| i as u8).collect();
    std::fs::write(&path, &content).unwrap();
    let mut form = Form::new();
    form.json("manifest", &json!({}));
    form.file("component", body::open(&path).unwrap());
    let (answer, asked) = ask(Told::json(201, &json!({ "created": true })), |client| {
        client.publish(&model(), &version(), form.finish(), false)
    });
    assert_eq!(answer.unwrap().status, 201);
    assert_eq!(asked.header("expect"), Some("100-continue"));
    assert_eq!(asked.header("transfer-encoding"), None);
    assert_eq!(asked.header("content-length"), Some(asked.body.len().to_string().as_str()));
    assert!(asked.body.windows(content.len()).any(|window| window == content));
}

#[test]
fn a_refusal_by_the_head_alone_costs_no_upload() {
    let mut body = Body::default();
    body.push_bytes(vec![0; 8 << 20]);
    let told = Told::json(401, &json!({ "error": "who are you", "kind": "unauthenticated" }));
    let (answer, asked) = ask(told.early(), |client| {
        client.publish(&model(), &version(), ("multipart/form-data".to_owned(), body), false)
    });
    assert_eq!(answer.unwrap_err().exit(), Exit::Refused);
    assert!(asked.body.is_empty());
}

#[test]
fn an_error_answer_is_told_as_the_server_put_it() {
    let document = json!({ "error": "there is no model 'm'", "kind": "not_found",
                           "where": "path", "remedy": "publish it" });
    let (answer, _) = ask(Told::json(404, &document), |client| client.model(&model()));
    let failure = answer.unwrap_err();
    assert!(failure.is_not_found());
    assert_eq!(failure.document(), document);

    let told = Told::json(429, &json!({ "error": "slow down", "kind": "quota_exceeded" }));
    let (answer, _) = ask(told.header("Retry-After", "3"), Client::models);
    let failure = answer.unwrap_err();
    assert_eq!(failure.exit(), Exit::Unavailable);
    assert_eq!(failure.document()["remedy"], "try again in 3 s");
}

#[test]
fn what_is_no_modelet_server_is_said_to_be_none() {
    let (answer, _) = ask(Told::bytes(502, b"<html>".to_vec()), Client::models);
    let failure = answer.unwrap_err();
    assert_eq!(failure.exit(), Exit::Unavailable);
    assert!(failure.to_string().contains("502 Bad Gateway"), "{failure}");
    let (answer, _) = ask(Told::bytes(200, b"hello".to_vec()), Client::models);
    assert!(answer.unwrap_err().to_string().contains("--server"));
    let redirect = Told::bytes(302, Vec::new()).header("Location", "http://127.0.0.1:1/");
    let (answer, _) = ask(redirect, Client::models);
    assert!(answer.unwrap_err().to_string().contains("302 Found"));
    let (answer, _) = ask(Told::json(200, &json!({ "models": 7 })), Client::models);
    assert!(answer.unwrap().read::<Vec<Value>>("/models").is_err());
}

#[test]
fn nobody_at_the_address_has_its_own_exit_code() {
    // A port that was free a moment ago and that nobody else was given.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failure = Client::new(&format!("http://{address}/")).unwrap().models().unwrap_err();
    assert_eq!(failure.exit(), Exit::Unreachable);
    assert!(failure.to_string().contains("modelet serve"), "{failure}");
}

#[test]
fn a_file_that_shrinks_is_not_blamed_on_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    std::fs::write(&path, "1234").unwrap();
    let mut body = Body::default();
    body.push_file(body::open(&path).unwrap());
    std::fs::write(&path, "").unwrap();
    let told = Told::bytes(200, Vec::new()).early();
    let (answer, _) = ask(told, |client| {
        client.publish(&model(), &version(), ("multipart/form-data".to_owned(), body), false)
    });
    let failure = answer.unwrap_err();
    assert!(failure.to_string().contains("4 bytes shorter"), "{failure}");
    assert_eq!(failure.exit(), Exit::Failed);
}

#[test]
fn an_inference_is_split_at_the_length_its_header_gives() {
    let mut body = Body::default();
    body.push_bytes("{}");
    body.push_bytes([1, 2]);
    let told = Told::bytes(200, b"{\"a\":1}xyz".to_vec())
        .header("Inference-Header-Content-Length", "7")
        .header("Server-Timing", "compute;dur=1");
    let target = "m@canary".parse().unwrap();
    let (answer, asked) = ask(told, |client| client.infer(&target, 2, body));
    let answer = answer.unwrap();
    assert_eq!(
        (answer.head.as_slice(), answer.tensors.as_slice()),
        (&b"{\"a\":1}"[..], &b"xyz"[..])
    );
    assert_eq!(answer.server_timing.as_deref(), Some("compute;dur=1"));
    assert_eq!(asked.line, "POST /v2/models/m/versions/canary/infer");
    assert_eq!(asked.header("inference-header-content-length"), Some("2"));
    assert_eq!(asked.body, b"{}\x01\x02");

    for length in ["8", "x"] {
        let told =
            Told::bytes(200, b"{}".to_vec()).header("Inference-Header-Content-Length", length);
        let (answer, asked) =
            ask(told, |client| client.infer(&"m".parse().unwrap(), 0, Body::default()));
        assert!(answer.is_err(), "{length}");
        assert_eq!(asked.line, "POST /v2/models/m/infer");
    }
}

#[test]
fn not_ready_is_an_answer_and_not_an_error() {
    let told = Told::json(503, &json!({ "status": "not_ready" }));
    let (answer, asked) = ask(told, Client::ready);
    assert_eq!(answer.unwrap().status, 503);
    assert_eq!(asked.line, "GET /readyz");
}
