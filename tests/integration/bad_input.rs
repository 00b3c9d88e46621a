//! Whatever comes in, the answer says what was wrong, and the next good request succeeds.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use modelet_host::engine::PASSTHROUGH;
use serde_json::{Value, json};

use crate::harness::{
    Answer, DIGIT, Server, argmax, binary_f32, component, floats, model_file, read_answer,
    still_serves, with_mnist,
};

const INFER: &str = "/v2/models/mnist/infer";

/// Headers of a request.
type Headers<'a> = &'a [(&'a str, &'a str)];
/// A part of an upload: its name and bytes.
type Part<'a> = (&'a str, &'a [u8]);

/// A server with MNIST on it.
fn server() -> Server {
    with_mnist(Server::start())
}

fn input(name: &str, datatype: &str, shape: Value, data: Value) -> Value {
    json!({ "name": name, "datatype": datatype, "shape": shape, "data": data })
}

fn good() -> Value {
    let pixels = floats(&model_file("digit-7.f32"));
    input("image", "FP32", json!(DIGIT), json!(pixels))
}

#[test]
fn inference_requests_that_do_not_fit_are_told_why() {
    let server = server();
    let few = json!([0.5]);
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({}), &["inputs"]),
        (json!({ "inputs": [] }), &["image"]),
        (json!({ "inputs": [good(), good()] }), &["image"]),
        (
            json!({ "inputs": [good(), input("other", "FP32", json!([1]), few.clone())] }),
            &["other"],
        ),
        (
            json!({ "inputs": [input("image", "INT64", json!([1, 1, 1, 1]), json!([1]))] }),
            &["image", "INT64", "FP32"],
        ),
        (json!({ "inputs": [input("image", "FP99", json!([1]), few.clone())] }), &["FP99"]),
        (
            json!({ "inputs": [input("image", "FP32", json!([1, 1, 28, 27]), few.clone())] }),
            &["image", "[1,1,28,27]", "[-1,1,28,28]"],
        ),
        (
            json!({ "inputs": [input("image", "FP32", json!([-1, 1, 28, 28]), few.clone())] }),
            &["image", "-1"],
        ),
        (
            json!({ "inputs": [input("image", "FP32", json!([u64::MAX, u64::MAX, 28, 28]), few.clone())] }),
            &["image"],
        ),
        (
            json!({ "inputs": [input("image", "FP32", json!(vec![1; 40]), few.clone())] }),
            &["image"],
        ),
        (json!({ "inputs": [input("image", "FP32", json!(DIGIT), few)] }), &["image", "784"]),
        (json!({ "inputs": [input("image", "FP32", json!(DIGIT), json!(["a"]))] }), &["image"]),
        (json!({ "inputs": [good()], "outputs": [{ "name": "nope" }] }), &["nope", "logits"]),
        (json!({ "inputs": [good()], "parameters": { "triton_x": 1 } }), &["triton_x"]),
    ];
    for (request, words) in cases {
        let answer = server.post(INFER, &request);
        assert!(matches!(answer.status, 400 | 413), "{}: {words:?}", answer.status);
        let error = answer.error(answer.status);
        for word in words {
            assert!(error.contains(word), "{word:?} is not in {error:?}");
        }
        still_serves(&server);
    }
}

#[test]
fn bodies_that_are_no_requests_are_told_why() {
    let server = server();
    let deep = format!("{{\"inputs\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    let cases: [(&[u8], Headers<'_>); 8] = [
        (b"", &[]),
        (b"{", &[]),
        (b"[1, 2", &[]),
        (b"\xff\xfe{}", &[]),
        (deep.as_bytes(), &[]),
        (
            br#"{"inputs":[{"name":"image","datatype":"FP32","shape":[1,1,28,28],"data":[NaN]}]}"#,
            &[],
        ),
        (b"{}", &[("inference-header-content-length", "3")]),
        (b"{}", &[("inference-header-content-length", "-1")]),
    ];
    for (body, headers) in cases {
        let error = server.send("POST", INFER, headers, body).error(400);
        assert!(!error.is_empty());
    }
    let json = json!({ "inputs": [{ "name": "image", "datatype": "FP32", "shape": DIGIT,
        "parameters": { "binary_data_size": 3136 } }] })
    .to_string();
    for bytes in [3135, 3137] {
        let mut body = json.clone().into_bytes();
        body.extend(vec![0; bytes]);
        let length = json.len().to_string();
        let headers = [("inference-header-content-length", length.as_str())];
        server.send("POST", INFER, &headers, &body).error(400);
        still_serves(&server);
    }
}

#[test]
fn what_is_not_there_is_not_found_and_wrong_methods_name_the_right_ones() {
    let server = server();
    let unknown = server.post("/v2/models/nope/infer", &json!({})).error(404);
    assert!(unknown.starts_with("Request for unknown model"), "{unknown}");
    for path in [
        "/v2/models/mnist/versions/9",
        "/v2/models/mnist/versions/9/ready",
        "/v3",
        "/",
        "/api/v1/nope",
        "/api/v1/models/nope",
        "/api/v1/models/nope/versions",
        "/api/v1/models/mnist/versions/9",
        "/api/v1/models/nope/aliases",
        "/api/v1/models/nope/history",
    ] {
        server.get(path).error(404);
    }
    let answer = server.send("DELETE", INFER, &[], b"");
    answer.error(405);
    assert_eq!(answer.headers["allow"], "POST");
    let answer = server.send("POST", "/v2", &[], b"");
    answer.error(405);
    assert_eq!(answer.headers["allow"], "GET, HEAD");
    server.send("POST", "/api/v1/models", &[], b"").error(405);
    server.send("DELETE", "/api/v1/models/nope", &[], b"").error(404);
    server.send("DELETE", "/api/v1/models/mnist/versions/9", &[], b"").error(404);
    server.post("/api/v1/models/mnist/aliases/nope/rollback", &json!({})).error(404);
    still_serves(&server);
}

/// Every management route with the methods it takes, as its refusals name them.
const MANAGEMENT: [(&str, &str); 12] = [
    ("/api/v1/models", "GET, HEAD"),
    ("/api/v1/models/mnist", "GET, HEAD, DELETE"),
    ("/api/v1/models/mnist/versions", "GET, HEAD"),
    ("/api/v1/models/mnist/versions/1", "GET, HEAD, PUT, DELETE"),
    ("/api/v1/models/mnist/versions/1/annotations", "PUT"),
    ("/api/v1/models/mnist/aliases", "GET, HEAD"),
    ("/api/v1/models/mnist/aliases/live", "PUT, DELETE"),
    ("/api/v1/models/mnist/history", "GET, HEAD"),
    ("/api/v1/instances", "GET, HEAD"),
    ("/api/v1/efficiency", "GET, HEAD"),
    ("/api/v1/bill", "GET, HEAD"),
    ("/api/v1/config", "GET, HEAD"),
];

#[test]
fn every_route_names_its_methods_to_who_uses_another() {
    let server = server();
    let reads = ["/healthz", "/readyz", "/metrics", "/v2", "/v2/models", "/v2/models/mnist"];
    let documents = reads.map(|path| (path, "GET, HEAD"));
    let rollback = [("/api/v1/models/mnist/aliases/live/rollback", "POST")];
    for (path, methods) in documents.into_iter().chain(MANAGEMENT).chain(rollback) {
        let answer = server.send("PATCH", path, &[], b"{}");
        let error = answer.error(405);
        assert_eq!(sorted(&answer.headers["allow"]), sorted(methods), "{path}");
        assert!(error.contains("PATCH") && error.contains("use "), "{path}: {error}");
        assert_eq!(answer.json()["kind"], "method_not_allowed");
    }
    let answer = server.get("/api/v1/nope");
    assert!(answer.error(404).contains("/api/v1/nope"));
    assert!(answer.json()["remedy"].as_str().unwrap().contains("/api/v1/openapi.json"));
    let metrics = server.metrics();
    let count = |outcome: &str, times: usize| {
        let line = format!(
            "modelet_http_requests_total{{route=\"management\",outcome=\"{outcome}\"}} {times}\n"
        );
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    };
    count("method_not_allowed", MANAGEMENT.len() + 1);
    count("not_found", 1);
    count("ok", 1);
    still_serves(&server);
}

fn sorted(list: &str) -> Vec<&str> {
    let mut items: Vec<_> = list.split(", ").collect();
    items.sort_unstable();
    items
}

#[test]
fn queries_that_are_not_understood_are_told_why() {
    let server = server();
    let model = "/api/v1/models/mnist";
    for (method, path, word) in [
        ("GET", "/history?limit=x".to_owned(), "limit"),
        ("GET", "/history?limit=-1".to_owned(), "limit"),
        ("DELETE", "?dry_run=x".to_owned(), "dry_run"),
        ("DELETE", "/versions/1?dry_run=x".to_owned(), "dry_run"),
        ("DELETE", "/aliases/live?dry_run=x".to_owned(), "dry_run"),
        ("POST", "/aliases/live/rollback?dry_run=x".to_owned(), "dry_run"),
    ] {
        let error = server.send(method, &format!("{model}{path}"), &[], b"").error(400);
        assert!(error.contains(word), "{method} {path}: {error}");
    }
    let to = json!({ "targets": [{ "version": "1", "weight": 1 }] });
    for (path, body) in [("/aliases/live", &to), ("/versions/1/annotations", &json!({}))] {
        let error = server.put(&format!("{model}{path}?dry_run=x"), &[], body).error(400);
        assert!(error.contains("dry_run"), "{path}: {error}");
    }
    let error = server
        .send("PUT", &format!("{model}/versions/2?dry_run=x"), &[FORM], EMPTY_FORM)
        .error(400);
    assert!(error.contains("dry_run"), "{error}");
    for path in ["/api/v1/efficiency", "/api/v1/bill"] {
        let error = server.get(&format!("{path}?window=x")).error(400);
        assert!(error.contains("window"), "{error}");
    }
    assert_eq!(server.get(model).json()["versions"], json!(["1"]));
    still_serves(&server);
}

/// A form without parts.
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=b");
const EMPTY_FORM: &[u8] = b"--b--\r\n";

#[test]
fn changes_of_what_is_not_there_or_no_longer_so_are_told_why() {
    let server = server();
    let model = "/api/v1/models/mnist";
    let back = server.post(&format!("{model}/aliases/live/rollback"), &json!({}));
    assert!(back.error(409).contains("live"), "{}", back.error(409));
    server.send("DELETE", &format!("{model}/aliases/nope"), &[], b"").error(404);
    server.send("DELETE", "/api/v1/models/nope/aliases/live", &[], b"").error(404);
    let annotations = format!("{model}/versions/1/annotations");
    let etag = server.get(&format!("{model}/versions/1")).headers["etag"].clone();
    let said = json!({ "description": "digits" });
    server.put(&annotations, &[("if-match", &etag)], &said).ok();
    let stale = server.put(&annotations, &[("if-match", &etag)], &json!({})).error(412);
    assert!(stale.contains("mnist"), "{stale}");
    server.put("/api/v1/models/mnist/versions/9/annotations", &[], &said).error(404);
    let to = json!({ "targets": [{ "version": "1", "weight": 1 }] });
    for (path, headers) in [
        (format!("{model}/aliases/live"), [("if-none-match", "x")]),
        (annotations, [("if-none-match", "x")]),
    ] {
        let error = server.put(&path, &headers, &to).error(400);
        assert!(error.contains("If-None-Match"), "{error}");
    }
    let version = server.get(&format!("{model}/versions/1")).json();
    assert_eq!(version["annotations"]["description"], "digits");
    still_serves(&server);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_bodies_that_are_none_are_told_why() {
    let server = Server::builder().config("[limits]\nrequest_body_bytes = 100000\n").start();
    let server = with_mnist(server);
    let request = json!({ "inputs": [good()] }).to_string();
    let send = |coding: &str, body: &[u8]| {
        server.send("POST", INFER, &[("content-encoding", coding)], body)
    };
    send("gzip", &gzip(request.as_bytes())).ok();
    let unknown = send("br", request.as_bytes());
    assert!(unknown.error(501).contains("gzip or deflate"));
    assert_eq!(unknown.headers["accept-encoding"], "gzip, deflate");
    let packed = gzip(request.as_bytes());
    let mut flipped = packed.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for body in [request.as_bytes(), &packed[..packed.len() - 3], &flipped] {
        let error = send("gzip", body).error(400);
        assert!(error.contains("decompressed"), "{error}");
    }
    // Some hundred bytes become more than the limit.
    let error = send("gzip", &gzip(&[b' '; 100_001])).error(413);
    assert!(error.contains("limits.request_body_bytes"), "{error}");
    still_serves(&server);
}

#[test]
fn a_raw_request_is_the_one_inputs_bytes_and_nothing_else() {
    let server = server();
    let raw = [("inference-header-content-length", "0")];
    let pixels = model_file("digit-7.f32");
    let answer = server.send("POST", INFER, &raw, &pixels).ok();
    assert_eq!(argmax(&binary_f32(&answer)), 7);
    for length in [0, 3, 3135] {
        let error = server.send("POST", INFER, &raw, &pixels[..length]).error(400);
        assert!(error.contains("image"), "{length} bytes: {error}");
    }
    let two = crate::graphs::outer_sum();
    server.publish_onnx("two", "1", &two, "auto").ok();
    let error = server.send("POST", "/v2/models/two/infer", &raw, &pixels).error(400);
    assert!(error.contains("input"), "{error}");
    still_serves(&server);
}

/// Sends a request as a simple client does: all of it, then it reads.
fn write_then_read(
    server: &Server,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Answer {
    let mut stream = server.connect();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    let answer =
        read_answer(&mut stream).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    // The connection is whole, and takes the next request.
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut stream).unwrap().status, 200);
    answer
}

#[test]
fn a_client_that_writes_all_before_it_reads_learns_why_it_was_refused() {
    let server = server();
    let large = vec![b' '; 65 << 20];
    let length = |bytes: &[u8]| format!("content-length: {}\r\n", bytes.len());
    let over = write_then_read(&server, "POST", INFER, &length(&large), &large).error(413);
    assert!(over.contains("limits.request_body_bytes"), "{over}");
    let body = &large[..4 << 20];
    let chunked = [b"400000\r\n", body, b"\r\n0\r\n\r\n"].concat();
    let chunked_header = "transfer-encoding: chunked\r\n".to_owned();
    let form = format!("{}{}: {}\r\n", length(body), FORM.0, FORM.1);
    let upload = "/api/v1/models/Bad%20Name/versions/1";
    for (method, path, headers, body, status) in [
        ("POST", "/v2/models/nope/infer", &length(body), body, 404),
        ("POST", "/v2/models/nope/infer", &chunked_header, &chunked, 404),
        ("DELETE", INFER, &length(body), body, 405),
        ("POST", "/nope", &length(body), body, 404),
        ("POST", "/healthz", &length(body), body, 405),
        ("PUT", upload, &form, body, 400),
        ("PUT", "/api/v1/models/m/versions/1", &length(body), body, 413),
        ("POST", "/api/v1/nope", &length(body), body, 413),
    ] {
        write_then_read(&server, method, path, headers, body).error(status);
        still_serves(&server);
    }
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_is_not_asked_in_vain() {
    let server = server();
    let mut stream = server.connect();
    let head = "POST /v2/models/nope/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4000000\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    read_answer(&mut stream).unwrap().error(404);
    // What follows could be a body or another request, so nothing may. A server that read on would
    // wait twice as long.
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn bodies_over_the_limit_are_refused_with_and_without_a_length() {
    let server = Server::builder().config("[limits]\nrequest_body_bytes = 10000\n").start();
    let server = with_mnist(server);
    let error = server.send("POST", INFER, &[], &[b' '; 10_001]).error(413);
    assert!(error.contains("limits.request_body_bytes"), "{error}");
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head =
        format!("POST {INFER} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"2710\r\n".as_slice(), &[b' '; 10_000], b"\r\n"].concat();
    stream.write_all(&[&chunk[..], &chunk].concat()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    still_serves(&server);
}

#[test]
fn a_caller_that_goes_away_leaves_nothing_behind() {
    let server = server();
    for sent in 0..40 {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let head =
            format!("POST {INFER} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5000\r\n\r\n");
        stream.write_all(&head.as_bytes()[..head.len().min(sent * 5)]).unwrap();
        if sent * 5 > head.len() {
            stream.write_all(&[b' '; 100]).unwrap();
        }
        drop(stream);
        still_serves(&server);
    }
}

#[test]
fn web_pages_cannot_manage() {
    let server = server();
    let path = "/api/v1/models/mnist";
    for headers in [[("origin", "http://evil.example")], [("host", "evil.example")]] {
        server.send("DELETE", path, &headers, b"").error(403);
        still_serves(&server);
    }
}

#[test]
fn uploads_that_are_no_packages_are_told_why() {
    let server = server();
    let graph = model_file("mnist.onnx");
    let graph: (&str, &[u8]) = ("asset:model.onnx", &graph);
    let cut = &PASSTHROUGH[..PASSTHROUGH.len() / 2];
    let cases: Vec<(Vec<Part<'_>>, &str)> = vec![
        (vec![], "model.onnx"),
        (vec![("manifest", b"{"), graph], "manifest"),
        (vec![("manifest", b"{\"bakend\":1}"), graph], "bakend"),
        (vec![("nonsense", b""), graph], "nonsense"),
        (vec![graph, graph], "twice"),
        (vec![("asset:../x", b""), graph], "../x"),
        (vec![("component", b""), graph], "0 bytes"),
        (vec![("component", b"\x7fELF.............."), graph], "ELF"),
        (vec![("component", b"(component)"), graph], "text"),
        (vec![("component", b"\0asm\x01\0\0\0"), graph], "core WebAssembly module"),
        (vec![("component", b"\x89PNG"), graph], "not WebAssembly"),
        (vec![("component", cut), graph], "not valid"),
        (vec![("component", PASSTHROUGH)], "model.onnx"),
        (vec![("asset:model.onnx", b"not a graph")], "model.onnx"),
    ];
    for (parts, word) in cases {
        let error = server.publish("m", "1", &parts).error(400);
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
    server.send("PUT", "/api/v1/models/m/versions/1", &[], b"x").error(400);
    server.publish("Bad%20Name", "1", &[graph]).error(400);
    server.publish("m", "live", &[graph]).error(409);
    server.get("/api/v1/models/m").error(404);
    still_serves(&server);
}

#[test]
fn changes_that_make_no_sense_are_told_why() {
    let server = server();
    let alias = "/api/v1/models/mnist/aliases/canary";
    let to = json!({ "targets": [{ "version": "1", "weight": 1 }] });
    server.put(alias, &[("if-match", "x")], &to).error(400);
    server.put(alias, &[], &json!({ "targets": [] })).error(400);
    server.put(alias, &[], &json!({ "targets": [{ "version": "9", "weight": 1 }] })).error(404);
    server.put(alias, &[], &json!({ "nope": 1 })).error(400);
    server.put("/api/v1/models/mnist/aliases/1", &[], &to).error(400);
    server.send("DELETE", "/api/v1/models/mnist/aliases/live", &[], b"").error(409);
    server.send("DELETE", "/api/v1/models/mnist/versions/1", &[], b"").error(409);
    server.get("/api/v1/efficiency?window=1y").error(400);
    server.put("/api/v1/models/mnist/versions/1/annotations", &[], &json!({ "x": 1 })).error(400);
    still_serves(&server);
}

#[test]
fn a_guest_that_fails_fails_only_its_own_call() {
    let config = "[limits]\nrequest_timeout_ms = 500\n[guest]\nmemory_bytes = 1000000\n";
    let server = with_mnist(Server::builder().config(config).start());
    let eat = "(loop (drop (memory.grow (i32.const 1))) (br_if 0 (i32.lt_s (memory.size) (i32.const 99)))) unreachable";
    let cases = [
        ("traps", "unreachable", 500, "unreachable"),
        ("spins", "(loop (br 0)) (i32.const 0)", 504, "deadline"),
        ("lies", "(i32.const 256)", 500, "logits"),
        ("points-outside", "(i32.const 70000)", 500, "stopped"),
    ];
    let graph = model_file("mnist.onnx");
    for (name, infer, status, word) in cases {
        let bytes = component(infer);
        server.publish(name, "1", &[("component", &bytes), ("asset:model.onnx", &graph)]).ok();
        let error = server
            .post(&format!("/v2/models/{name}/infer"), &json!({ "inputs": [good()] }))
            .error(status);
        assert!(error.contains(word), "{name}: {error}");
        server.get("/healthz").ok();
    }
    let greedy = component(&eat.replace(
        "(br_if 0 (i32.lt_s (memory.size) (i32.const 99)))",
        "(br_if 0 (i32.lt_s (memory.size) (i32.const 15)))",
    ));
    server.publish("greedy", "1", &[("component", &greedy), ("asset:model.onnx", &graph)]).ok();
    server.post("/v2/models/greedy/infer", &json!({ "inputs": [good()] })).error(500);
    still_serves(&server);
}
