//! Whatever comes in, the answer says what was wrong, and the next good request succeeds.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use modelet_host::engine::PASSTHROUGH;
use serde_json::{Value, json};

use crate::harness::{DIGIT, Server, component, floats, model_file, still_serves, with_mnist};

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
    }
    still_serves(&server);
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
    }
    still_serves(&server);
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
    // The server may answer and close before all of it is written.
    let _ = stream.write_all(&chunk).and_then(|()| stream.write_all(&chunk));
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
    }
    still_serves(&server);
}

#[test]
fn web_pages_cannot_manage() {
    let server = server();
    let path = "/api/v1/models/mnist";
    for headers in [[("origin", "http://evil.example")], [("host", "evil.example")]] {
        server.send("DELETE", path, &headers, b"").error(403);
    }
    still_serves(&server);
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
