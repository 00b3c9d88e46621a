//! Every limit refuses what is over it, says which it is, and counts it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::guests::{ECHO, component, publish, spinner};
use crate::harness::{Answer, Server, eventually, model_file};
use crate::wire::{DIGIT, http2, infer_bytes, is_closed, rest, sent};

const INFER: &str = "/v2/models/mnist/infer";

/// The answer is a refusal for this limit: in words, for programs, with the time to come back where
/// that helps, and counted.
#[track_caller]
fn refused(server: &Server, answer: &Answer, status: u16, limit: &str) {
    let error = answer.error(status);
    assert!(error.contains(limit), "{limit} is not in {error:?}");
    assert_eq!(answer.json()["limit"], limit, "{error}");
    assert_eq!(answer.headers.contains_key("retry-after"), matches!(status, 429 | 503), "{error}");
    assert!(server.refusals(limit) > 0, "{limit} was not counted");
}

fn with_mnist(config: &str) -> Server {
    let server = Server::builder().config(config).start();
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "rten").ok();
    server
}

/// A good request succeeds, and nothing is in flight after it.
#[track_caller]
fn still_serves(server: &Server) {
    server.infer_f32("mnist", "image", &DIGIT, &[0.0; 784]);
    eventually("nothing in flight", || {
        let now = server.holdings();
        now.inflight_requests + now.receiving_requests + now.inflight_bytes == 0
    });
}

fn input(shape: Value) -> Value {
    json!({ "name": "image", "datatype": "FP32", "shape": shape, "data": [0.5] })
}

#[test]
fn limits_on_a_request_are_named_and_counted() {
    let server = with_mnist(
        "[limits]\nrequest_body_bytes = 100000\ninflight_bytes = 120000\njson_depth = 8\n\
         tensor_elements = 2000\ntensor_rank = 5\ninputs = 1\noutputs = 1\nparameters = 2\n",
    );
    let parameters = json!({ "a": 1, "b": 2, "c": 3 });
    let output = json!({ "name": "logits" });
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(9), "]".repeat(9));
    let deep: Value = serde_json::from_str(&deep).unwrap();
    let cases = [
        (deep, 400, "limits.json_depth"),
        (json!({ "inputs": [input(json!([3, 1, 28, 28]))] }), 413, "limits.tensor_elements"),
        (json!({ "inputs": [input(json!([1, 1, 1, 1, 1, 1]))] }), 400, "limits.tensor_rank"),
        (json!({ "inputs": [input(json!(DIGIT)), input(json!(DIGIT))] }), 413, "limits.inputs"),
        (
            json!({ "inputs": [input(json!(DIGIT))], "outputs": [output, output] }),
            413,
            "limits.outputs",
        ),
        (
            json!({ "inputs": [input(json!(DIGIT))], "parameters": parameters }),
            413,
            "limits.parameters",
        ),
    ];
    for (request, status, limit) in cases {
        refused(&server, &server.post(INFER, &request), status, limit);
    }
    let long = server.send("POST", INFER, &[], &[b' '; 100_001]);
    refused(&server, &long, 413, "limits.request_body_bytes");
    // Half of the room is held by a body that does not come to its end; the other is not enough.
    let half = format!("POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 90000\r\n\r\n");
    let held = sent(&server, &[half.as_bytes(), &[b' '; 70_000]].concat());
    eventually("half of the room is held", || server.holdings().inflight_bytes == 70_000);
    let answer = server.send("POST", INFER, &[], &[b' '; 60_000]);
    refused(&server, &answer, 503, "limits.inflight_bytes");
    drop(held);
    still_serves(&server);
}

#[test]
fn json_that_grows_when_decoded_is_charged_for_what_it_becomes() {
    // 784 numbers of two characters: 1.6 KB of text, 3.1 KB of tensor.
    let body = json!({ "inputs": [{ "name": "image", "datatype": "FP32", "shape": DIGIT,
        "data": vec![1; 784] }] });
    let length = body.to_string().len();
    let server = with_mnist(&format!(
        "[limits]\nrequest_body_bytes = {length}\ninflight_bytes = {}\n",
        length + 3135
    ));
    refused(&server, &server.post(INFER, &body), 503, "limits.inflight_bytes");
    eventually("nothing in flight", || server.holdings().inflight_bytes == 0);
    let server = with_mnist(&format!(
        "[limits]\nrequest_body_bytes = 4000\ninflight_bytes = {}\n",
        length + 3136
    ));
    server.post(INFER, &body).ok();
    still_serves(&server);
}

#[test]
fn limits_on_management_are_named_and_counted() {
    let server = with_mnist(
        "[limits]\nmanagement_requests = 1\nmanagement_body_bytes = 1000\nassets = 2\n\
         asset_bytes = 1563328\ncomponent_bytes = 6000\nbody_timeout_ms = 3000\n\
         upload_timeout_ms = 5000\n",
    );
    let alias = "/api/v1/models/mnist/aliases/a";
    let long = server.put(alias, &[], &json!({ "targets": "x".repeat(1000) }));
    refused(&server, &long, 413, "limits.management_body_bytes");
    let graph = model_file("mnist.onnx");
    let graph: (&str, &[u8]) = ("asset:model.onnx", &graph);
    let three = [graph, ("asset:a", b"a"), ("asset:b", b"b")];
    refused(&server, &server.publish("m", "1", &three), 413, "limits.assets");
    let large = vec![0; 1_563_329];
    let answer = server.publish("m", "1", &[("asset:model.onnx", &large)]);
    refused(&server, &answer, 413, "limits.asset_bytes");
    let answer = server.publish("m", "1", &[("component", &large[..6001]), graph]);
    refused(&server, &answer, 413, "limits.component_bytes");
    // One slow request takes the only place.
    let slow = "PUT /api/v1/models/mnist/aliases/a HTTP/1.1\r\nhost: localhost\r\n\
        content-length: 100\r\n\r\n{";
    let mut stream = sent(&server, slow.as_bytes());
    eventually("the only place is taken", || server.metric("modelet_management_requests") == 1);
    refused_or_free(&server);
    assert!(rest(&mut stream).contains("limits.body_timeout_ms"));
    assert!(server.refusals("limits.body_timeout_ms") > 0);
    server.get("/api/v1/models").ok();
    let boundary = "PUT /api/v1/models/m/versions/1 HTTP/1.1\r\nhost: localhost\r\n\
        content-type: multipart/form-data; boundary=x\r\ncontent-length: 1000\r\n\r\n--x\r\n";
    let mut stream = sent(&server, boundary.as_bytes());
    assert!(rest(&mut stream).contains("limits.upload_timeout_ms"));
    assert!(server.refusals("limits.upload_timeout_ms") > 0);
    still_serves(&server);
}

/// A management request either finds the place taken and is told so, or finds it free again.
#[track_caller]
fn refused_or_free(server: &Server) {
    let answer = server.get("/api/v1/models");
    if answer.status == 503 {
        refused(server, &answer, 503, "limits.management_requests");
    }
    assert!(server.refusals("limits.management_requests") > 0);
}

#[test]
fn limits_on_requests_at_once_are_named_and_counted() {
    let config = "[limits]\ninflight_requests = 3\ntenant_requests = 2\nreceiving_requests = 2\n\
        queue_length = 1\nrequest_timeout_ms = 60000\n";
    let server = with_mnist(config);
    // It spins until it is left alone.
    publish(&server, "endless", &spinner(u64::MAX), 1);
    let endless = infer_bytes("/v2/models/endless/infer", &DIGIT);
    let mut under_way = vec![sent(&server, &endless)];
    eventually("one runs", || server.holdings().inflight_requests == 1);
    under_way.push(sent(&server, &endless));
    eventually("one waits", || server.holdings().inflight_requests == 2);
    refused(&server, &server.post(INFER, &json!({})), 429, "limits.tenant_requests");
    under_way.clear();
    eventually("both are gone", || server.holdings().inflight_requests == 0);
    let slow = format!("POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n");
    let coming = [sent(&server, slow.as_bytes()), sent(&server, slow.as_bytes())];
    eventually("two bodies are coming", || server.holdings().receiving_requests == 2);
    refused(&server, &server.post(INFER, &json!({})), 503, "limits.receiving_requests");
    drop(coming);
    eventually("their callers' leaving is seen", || server.holdings().receiving_requests == 0);
    still_serves(&server);

    let server = with_mnist(&config.replace("tenant_requests = 2", "tenant_requests = 3"));
    publish(&server, "endless", &spinner(u64::MAX), 1);
    let under_way = [sent(&server, &endless), sent(&server, &endless)];
    eventually("one runs and one waits", || server.holdings().inflight_requests == 2);
    let request = json!({ "inputs": [{ "name": "image", "datatype": "FP32", "shape": DIGIT,
        "data": vec![0; 784] }] });
    let answer = server.post("/v2/models/endless/infer", &request);
    refused(&server, &answer, 503, "limits.queue_length");
    // A model that has nothing to do with it is served all the same.
    server.infer_f32("mnist", "image", &DIGIT, &[0.0; 784]);
    drop(under_way);
    still_serves(&server);
}

#[test]
fn a_call_that_waits_past_its_deadline_is_answered_in_time_and_never_runs() {
    let server = with_mnist("[limits]\nrequest_timeout_ms = 3000\n");
    publish(&server, "slow", &spinner(u64::MAX), 1);
    let uses = || {
        let document = server.get("/api/v1/instances").json();
        let lines = document["instances"].as_array().unwrap().iter();
        let slow = lines.filter(|line| line["model"] == "slow");
        slow.map(|line| line["uses"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    // Its time runs from its head, which comes a second before that of the call it waits for.
    let request = infer_bytes("/v2/models/slow/infer", &DIGIT);
    let (most, last) = request.split_at(request.len() - 1);
    let begun = Instant::now();
    let mut waiting = sent(&server, most);
    eventually("its body is coming", || server.holdings().receiving_requests == 1);
    eventually("a second has passed", || begun.elapsed() > Duration::from_secs(1));
    let mut running = sent(&server, &request);
    eventually("the other runs", || uses() == [1]);
    waiting.write_all(last).unwrap();
    eventually("it waits", || server.holdings().inflight_requests == 2);
    let mut answer = [0; 12];
    waiting.read_exact(&mut answer).unwrap();
    assert_eq!((&answer, begun.elapsed().as_secs()), (b"HTTP/1.1 504", 3));
    // The other one still holds the only instance, and none was started beside it.
    assert_eq!(uses(), [1]);
    assert_eq!(server.refusals("limits.request_timeout_ms"), 1);
    running.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 504");
    assert_eq!(server.refusals("limits.request_timeout_ms"), 2);
    still_serves(&server);
}

/// Imports of the guests below.
const LOG: &str = r#"(import "modelet:model/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
const SHARE: &str =
    r#"(import "modelet:model/tensors@0.1.0" "share" (func $share (param i32) (result i32)))"#;

#[test]
fn limits_on_guests_are_named_and_counted() {
    let server = with_mnist(
        "[guest]\nmemory_bytes = 1000000\ntable_elements = 100\nhandles = 20\nlog_bytes = 20000\n\
         tensor_bytes = 100000\nstart_timeout_ms = 500\n",
    );
    let request = json!({ "inputs": [{ "name": "image", "datatype": "FP32", "shape": DIGIT,
        "data": vec![0; 784] }] });
    let forever = |what: &str| format!("(loop $on {what} (br $on)) unreachable");
    // A refusal is -1: the guest gives up as any other that finds no memory would.
    let grow = |what: &str| {
        forever(&format!("(if (i32.eq ({what}) (i32.const -1)) (then (unreachable)))"))
    };
    let table = "(table $t 1 funcref)";
    let handles = forever("(drop (call $share (i32.load offset=8 (local.get 0))))");
    let cases = [
        ("memory", component("", "", &grow("memory.grow (i32.const 1)")), "guest.memory_bytes"),
        (
            "tables",
            component("", table, &grow("table.grow $t (ref.null func) (i32.const 10)")),
            "guest.table_elements",
        ),
        ("handles", component(SHARE, "", &handles), "guest.handles"),
    ];
    for (model, bytes, limit) in cases {
        publish(&server, model, &bytes, 1);
        let answer = server.post(&format!("/v2/models/{model}/infer"), &request);
        assert_eq!(answer.status, 500, "{model}: {}", answer.error(answer.status));
        assert_eq!(answer.json()["limit"], limit, "{model}: {}", answer.error(500));
        assert_eq!(server.refusals(limit), 1);
    }
    // Ten shares of 25,088 bytes are more tensors than a call may hold, and fewer handles.
    let shares = "(loop $on (drop (call $share (i32.load offset=8 (local.get 0))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $on (i32.lt_u (local.get $i) (i32.const 10)))) unreachable";
    publish(&server, "tensors", &component(SHARE, "", shares), 1);
    let larger = json!({ "inputs": [{ "name": "image", "datatype": "FP32",
        "shape": [8, 1, 28, 28], "data": vec![0; 8 * 784] }] });
    let answer = server.post("/v2/models/tensors/infer", &larger);
    assert_eq!(answer.json()["limit"], "guest.tensor_bytes", "{}", answer.error(500));
    // A guest that talks too much is served; what it says is dropped.
    let chatter = format!(
        "(loop $on (call $log (i32.const 2) (i32.const 0) (i32.const 1000))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $on (i32.lt_u (local.get $i) (i32.const 100)))){ECHO}"
    );
    publish(&server, "chatter", &component(LOG, "", &chatter), 1);
    server.post("/v2/models/chatter/infer", &request).ok();
    assert_eq!(server.refusals("guest.log_bytes"), 1);
    let start = "(func $start (loop $on (br $on))) (start $start)";
    let graph = model_file("mnist.onnx");
    let endless = component("", start, ECHO);
    let answer =
        server.publish("start", "1", &[("component", &endless), ("asset:model.onnx", &graph)]);
    refused(&server, &answer, 400, "guest.start_timeout_ms");
    still_serves(&server);
}

#[test]
fn connections_over_their_time_are_closed_and_counted() {
    let server = with_mnist(
        "[server]\nheader_timeout_s = 1\nidle_timeout_s = 3\nheader_bytes = 32768\n\
         [limits]\nbody_timeout_ms = 300\n",
    );
    let mut idle = sent(&server, b"");
    let mut kept = sent(&server, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut http2 = sent(&server, http2::OPENING);
    http2.write_all(&http2::request(1, "GET", "/healthz", true)).unwrap();
    let mut trickle = sent(&server, b"GET /healthz HTTP/1.1\r\nx: ");
    let mut preface = sent(&server, b"PRI * HT");
    // A byte now and then does not help: a hundred round trips of another request apart.
    while trickle.write_all(b"x").is_ok() {
        (0..100).for_each(|_| drop(server.get("/healthz").ok()));
    }
    assert!(is_closed(&mut preface) && is_closed(&mut trickle));
    assert!(server.refusals("server.header_timeout_s") >= 2);
    for stream in [&mut idle, &mut kept, &mut http2] {
        assert!(is_closed(stream));
    }
    assert!(server.refusals("server.idle_timeout_s") >= 3);
    let slow = format!("POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{{");
    let answer = rest(&mut sent(&server, slow.as_bytes()));
    assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("body_timeout_ms"), "{answer}");
    let large = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(40_000));
    let answer = rest(&mut sent(&server, large.as_bytes()));
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    eventually("it is counted", || server.refusals("server.header_bytes") == 1);
    still_serves(&server);
}

#[test]
fn a_caller_that_does_not_read_its_answer_is_given_up_and_its_bytes_come_back() {
    let server = with_mnist("[limits]\nanswer_timeout_ms = 1000\n");
    publish(&server, "echo", &component("", "", ECHO), 2);
    // More than all buffers between the two hold.
    let shape = [8000, 1, 28, 28];
    let before = server.holdings();
    let mut stream = sent(&server, &infer_bytes("/v2/models/echo/infer", &shape));
    let mut some = [0; 100];
    stream.read_exact(&mut some).unwrap();
    assert!(server.holdings().inflight_bytes > 20_000_000, "{:?}", server.holdings());
    eventually("it is given up", || server.refusals("limits.answer_timeout_ms") == 1);
    eventually("its bytes are back", || server.holdings().inflight_bytes == 0);
    drop(stream);
    // The same read to its end is no trouble.
    let answer = server.infer_f32("echo", "image", &shape, &vec![0.5; 8000 * 784]);
    assert!(answer.iter().all(|value| *value == 0.5));
    let more = crate::harness::Holdings { instances: before.instances + 2, ..before };
    server.settles_to(&more);
}

#[test]
fn connections_over_the_limit_wait_for_one_that_ends() {
    let server = with_mnist("[server]\nconnections = 3\nidle_timeout_s = 3600\n");
    let mut held: Vec<_> = (0..6).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    // This thread's own connection is kept, so it can be asked whatever the others do.
    eventually("it is counted", || server.refusals("server.connections") > 0);
    let mut last = held.pop().unwrap();
    last.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    last.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    held.clear();
    let mut answer = [0; 12];
    last.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    still_serves(&server);
}

#[test]
fn every_setting_is_shown_with_its_origin_flags_included() {
    let server = Server::builder().config("[limits]\ninputs = 7\n").start();
    let document = server.get("/api/v1/config").json();
    let settings = document["settings"].as_array().unwrap();
    let origin = |key: &str| {
        let setting = settings.iter().find(|setting| setting["key"] == key);
        setting.unwrap_or_else(|| panic!("no {key}"))["origin"].as_str().unwrap()
    };
    assert_eq!(origin("limits.inputs"), "file");
    assert_eq!(origin("limits.outputs"), "default");
    for flag in ["--listen", "--data-dir", "--config"] {
        assert_eq!(origin(flag), "flag");
    }
    assert_eq!(origin("--log"), "default");
    for setting in settings {
        assert!(!setting["reason"].as_str().unwrap().is_empty(), "{setting}");
    }
    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    for limit in modelet_host::limit::Limit::ALL {
        let line = format!("modelet_limit_refusals_total{{limit=\"{}\"}} 0\n", limit.key());
        assert!(metrics.contains(&line), "{line}");
        assert!(settings.iter().any(|setting| setting["key"] == limit.key()), "{}", limit.key());
    }
    let shown = server.cli(&["config"]).ok();
    assert!(shown.contains("--listen") && shown.contains("limits.answer_timeout_ms"), "{shown}");
}
