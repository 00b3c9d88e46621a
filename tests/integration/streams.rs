//! Answers that are sent while the call goes on: as they come, never faster than they are read, and
//! never for longer than somebody reads them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::guests::{ECHO, component, publish};
use crate::harness::{Answer, Guest, Server, eventually, still_serves, with_mnist};
use crate::wire::rest;

/// Imports of guests that emit what they were given.
const IMPORTS: &str = r#"
    (import "modelet:model/tensors@0.1.0" "share" (func $share (param i32) (result i32)))
    (import "modelet:model/reply@0.1.0" "is-streamed" (func $is_streamed (result i32)))
    (import "modelet:model/reply@0.1.0" "emit" (func $emit (param i32 i32 i32)))"#;

/// Emits the caller's own tensor as the graph's output; a refusal is a trap.
const EMIT: &str = r#"
    (i32.store (i32.const 272) (i32.const 32))
    (i32.store (i32.const 276) (i32.const 6))
    (i32.store (i32.const 280) (call $share (i32.load offset=8 (local.get 0))))
    (call $emit (i32.const 272) (i32.const 1) (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then unreachable))"#;

pub(crate) const SPIN_FOR_EVER: &str = "(loop $for_ever (br $for_ever))";

/// A guest that emits so often, does something, and answers.
pub(crate) fn emitter(times: u32, then: &str) -> Vec<u8> {
    let emit = format!(
        "(loop $again {EMIT} (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $again (i32.lt_u (local.get $i) (i32.const {times}))))"
    );
    component(IMPORTS, "", &format!("{emit} {then} {ECHO}"))
}

/// A guest that emits once where that is wanted, and answers.
pub(crate) fn polite_emitter() -> Vec<u8> {
    component(IMPORTS, "", &format!("(if (call $is_streamed) (then {EMIT})) {ECHO}"))
}

/// A picture of zeros, as a field of a request.
fn picture() -> Value {
    json!({ "image": vec![vec![vec![0.0; 28]; 28]; 1] })
}

/// A connection on which a stream has been asked for, by HTTP/1.0: its answer ends with the connection.
fn asked(server: &Server, model: &str) -> BufReader<TcpStream> {
    let body = picture().to_string();
    let head = format!(
        "POST /v2/models/{model}/generate_stream HTTP/1.0\r\nhost: localhost\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = server.connect();
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    BufReader::new(stream)
}

/// The next event of a stream.
fn event(stream: &mut BufReader<TcpStream>) -> Value {
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream ended");
    }
    serde_json::from_str(&line["data: ".len()..]).unwrap()
}

/// All events of a whole answer.
fn events(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.headers["content-type"], "text/event-stream; charset=utf-8");
    let text = String::from_utf8(answer.body.clone()).unwrap();
    let events = text.strip_suffix("\n\n").unwrap().split("\n\n");
    events
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect()
}

#[track_caller]
fn ended_as(server: &Server, outcome: &str, times: u64) {
    let line =
        format!("modelet_http_requests_total{{route=\"generate\",outcome=\"{outcome}\"}} {times}");
    eventually(&line, || server.metrics().lines().any(|written| written == line));
}

#[test]
fn parts_are_sent_as_they_come_and_the_answer_is_the_last() {
    let server = with_mnist(Server::start());
    publish(&server, "m", &emitter(3, ""), 1);
    let streamed = server.post("/v2/models/m/generate_stream", &picture()).ok();
    let events = events(&streamed);
    assert_eq!(events.len(), 4);
    for event in &events {
        assert_eq!((&event["model_name"], &event["model_version"]), (&json!("m"), &json!("1")));
        assert_eq!(event["logits"].as_array().unwrap().len(), 784);
    }
    assert_eq!(streamed.headers["modelet-version"], "1");
    ended_as(&server, "ok", 1);
    still_serves(&server);
}

#[test]
fn the_buckets_of_a_streamed_call_add_up_to_the_life_of_its_instance() {
    let server = Server::start();
    publish(&server, "m", &emitter(50, ""), 1);
    for _ in 0..3 {
        // Read slowly enough that the guest waits now and then.
        let mut stream = asked(&server, "m");
        event(&mut stream);
        server.get("/healthz").ok();
        while stream.fill_buf().is_ok_and(|rest| !rest.is_empty()) {
            event(&mut stream);
            let mut end = String::new();
            stream.read_line(&mut end).unwrap();
        }
    }
    let document = server.get("/api/v1/instances").ok().json();
    let instance = &document["instances"][0];
    assert_eq!((&instance["uses"], &instance["state"]), (&json!(3), &json!("idle")));
    let buckets = instance["buckets_ns"].as_object().unwrap();
    let sum: u64 = buckets.values().map(|ns| ns.as_u64().unwrap()).sum();
    assert_eq!(instance["lifetime_ns"], sum, "{buckets:?}");
    for bucket in ["cold", "guest", "wait", "idle"] {
        assert!(buckets[bucket].as_u64().unwrap() > 0, "{bucket}: {buckets:?}");
    }
}

#[test]
fn a_failure_behind_the_first_event_is_the_last_event() {
    let server =
        with_mnist(Server::builder().config("[limits]\nrequest_timeout_ms = 3000\n").start());
    publish(&server, "late", &emitter(1, SPIN_FOR_EVER), 1);
    publish(&server, "broken", &emitter(1, "unreachable"), 1);
    // The first event comes long before the deadline that ends the call: the guest only ends by it.
    let mut stream = asked(&server, "late");
    assert_eq!(event(&mut stream)["logits"].as_array().unwrap().len(), 784);
    let last = event(&mut stream);
    assert_eq!(
        (&last["kind"], &last["limit"]),
        (&json!("deadline"), &json!("limits.request_timeout_ms"))
    );
    assert_eq!(rest(stream.get_mut()), "");
    ended_as(&server, "deadline", 1);
    assert_eq!(server.refusals("limits.request_timeout_ms"), 1);
    let mut stream = asked(&server, "broken");
    event(&mut stream);
    assert_eq!(event(&mut stream)["kind"], "trap");
    ended_as(&server, "trap", 1);
    still_serves(&server);
}

#[test]
fn a_failure_before_the_first_event_has_its_status() {
    let server = with_mnist(Server::builder().config("[limits]\nstream_bytes = 1000\n").start());
    publish(&server, "broken", &component("", "", "unreachable"), 1);
    let broken = server.post("/v2/models/broken/generate_stream", &picture());
    assert!(broken.error(500).contains("stopped"));
    // A part that would never fit is refused, and this guest traps on it.
    publish(&server, "large", &emitter(1, ""), 1);
    server.post("/v2/models/large/generate_stream", &picture()).error(500);
    assert_eq!(server.refusals("limits.stream_bytes"), 1);
    ended_as(&server, "trap", 2);
    still_serves(&server);
}

#[test]
fn a_caller_that_leaves_ends_the_call() {
    let server = with_mnist(Server::start());
    publish(&server, "m", &emitter(1, SPIN_FOR_EVER), 1);
    let mut stream = asked(&server, "m");
    event(&mut stream);
    drop(stream);
    // Not by its deadline, which would be another outcome.
    ended_as(&server, "client_gone", 1);
    still_serves(&server);
}

#[test]
fn a_guest_waits_for_a_caller_that_does_not_read() {
    const PARTS: u32 = 8_000;
    let server = with_mnist(Server::builder().config("[limits]\nstream_bytes = 20000\n").start());
    publish(&server, "m", &emitter(PARTS, ""), 1);
    let mut stream = asked(&server, "m");
    event(&mut stream);
    // What there is of it, some 25 MB, is far more than the system's buffers take; the host holds no
    // more than it may, whatever else it does meanwhile.
    for _ in 0..200 {
        let held = server.holdings();
        assert_eq!(held.inflight_requests, 1);
        assert!(held.inflight_bytes < 200_000, "{held:?}");
    }
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("data: ").count(), PARTS as usize);
    ended_as(&server, "ok", 1);
    still_serves(&server);
}

#[test]
fn a_caller_that_never_reads_its_stream_is_given_up() {
    let settings = "[limits]\nrequest_timeout_ms = 3000\nanswer_timeout_ms = 500\n";
    let server = with_mnist(Server::builder().config(settings).start());
    publish(&server, "m", &emitter(1_000_000, ""), 1);
    let mut stream = asked(&server, "m");
    event(&mut stream);
    eventually("the stream is given up", || {
        server.refusals("limits.answer_timeout_ms") == 1 && server.holdings().inflight_requests == 0
    });
    drop(stream);
    still_serves(&server);
}

#[test]
fn nothing_is_emitted_where_nobody_asked_for_it() {
    let server = with_mnist(Server::start());
    // One that looks first answers, and one that does not is refused.
    publish(&server, "polite", &polite_emitter(), 1);
    let whole = server.post("/v2/models/polite/generate", &picture()).ok().json();
    assert_eq!(whole["logits"].as_array().unwrap().len(), 784);
    let streamed = server.post("/v2/models/polite/generate_stream", &picture()).ok();
    assert_eq!(events(&streamed).len(), 2);
    publish(&server, "rude", &emitter(1, ""), 1);
    server.post("/v2/models/rude/generate", &picture()).error(500);
    still_serves(&server);
}

#[test]
fn a_stream_under_way_ends_before_the_server() {
    let mut server = Server::start();
    let spin = "(loop $spin (local.set $n (i64.add (local.get $n) (i64.const 1)))
        (br_if $spin (i64.lt_u (local.get $n) (i64.const 500000000))))";
    publish(&server, "m", &emitter(1, spin), 1);
    let mut stream = asked(&server, "m");
    event(&mut stream);
    server.signal(Signal::TERM);
    assert_eq!(event(&mut stream)["logits"].as_array().unwrap().len(), 784);
    assert!(server.wait().success());
}

#[test]
fn fields_become_the_inputs_of_their_names() {
    let server = Server::start();
    let template = include_bytes!("../../cli/template/model.onnx");
    server.publish_onnx("linear", "1", template, "rten").ok();
    let path = "/v2/models/linear/versions/1/generate";
    let one = server.post(path, &json!({ "features": [1, 2, 3, 4], "id": "a" })).ok().json();
    let wanted = json!({ "id": "a", "model_name": "linear", "model_version": "1", "score": 8.5 });
    assert_eq!(one, wanted);
    let rows =
        json!({ "features": [[1, 2, 3, 4], [0, 1, 0, 0]], "parameters": {}, "stream": false });
    assert_eq!(server.post(path, &rows).ok().json()["score"], json!([8.5, -1.0]));
    for (body, words) in [
        (json!({ "features": [1, 2, 3] }), "the model takes [-1,4]"),
        (json!({ "features": [[1, 2, 3, 4], [1, 2, 3]] }), "features"),
        (json!({ "features": "text" }), "[-1,4]"),
        (json!({ "feature": [1, 2, 3, 4] }), "no input \"feature\""),
        (json!({}), "features"),
        (json!({ "text_input": "a" }), "features"),
        (json!([1]), "no JSON object"),
    ] {
        let refused = server.post(path, &body).error(400);
        assert!(refused.contains(words), "{body}: {refused}");
    }
    let get = server.get(path);
    assert_eq!((get.status, get.headers["allow"].as_str()), (405, "POST"));
    assert!(
        server.post("/v2/models/none/generate", &json!({})).error(404).contains("unknown model")
    );
}

#[test]
fn a_component_may_import_what_reply_has_gained() {
    let server = Server::start();
    let guest = Guest { imports: IMPORTS, ..Guest::default() }.build();
    publish(&server, "m", &guest, 1);
    assert!(server.get("/v2/models/m/ready").status == 200);
}
