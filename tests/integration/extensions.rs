//! What the protocol's clients ask for besides inference: that models they unload let go of what they
//! held, that settings act, and that no web page gets to any of it. That it is understood is for the
//! real clients.

use serde_json::{Value, json};

use crate::guests::{publish, spinner};
use crate::harness::{DIGIT, Server, binary_request, eventually, floats, model_file};

const UNLOAD: &str = "/v2/repository/models/mnist/unload";
const LOAD: &str = "/v2/repository/models/mnist/load";

fn mnist(config: &str) -> Server {
    let server = Server::builder().config(config).start();
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "rten").ok();
    server
}

fn infer(server: &Server) -> u16 {
    let (headers, body) = binary_request("image", &DIGIT, &floats(&model_file("digit-3.f32")));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    server.send("POST", "/v2/models/mnist/infer", &headers, &body).status
}

#[test]
fn an_unloaded_model_lets_go_of_its_memory_and_comes_back_with_a_load() {
    let server = mnist("");
    assert_eq!(infer(&server), 200);
    assert_eq!(server.metric("modelet_resident_graphs"), 1);
    let unloaded = server.post(UNLOAD, &json!({})).ok();
    assert_eq!((unloaded.status, unloaded.body.len()), (200, 0));
    // The thread that ran the graph last may be about to let go of it.
    for held in ["modelet_resident_graphs", "modelet_instances"] {
        eventually(held, || server.metric(held) == 0);
    }
    let refused = server.get("/v2/models/mnist/ready");
    assert!(refused.headers.contains_key("retry-after"));
    assert!(refused.error(503).contains(LOAD));
    assert_eq!(infer(&server), 503);
    server.post(LOAD, &json!({})).ok();
    assert_eq!(server.metric("modelet_resident_graphs"), 1, "it is there before it is called");
    assert_eq!(infer(&server), 200);
}

#[test]
fn a_call_under_way_ends_as_it_would_have_when_its_model_is_unloaded() {
    let server = Server::start();
    publish(&server, "mnist", &spinner(500_000_000), 1);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| infer(&server));
        let called = || server.metric("modelet_inflight_requests") == 1;
        eventually("the call", called);
        server.post(UNLOAD, &json!({})).ok();
        assert_eq!(call.join().unwrap(), 200);
    });
    assert_eq!(infer(&server), 503);
}

#[test]
fn an_unloaded_model_that_is_deleted_and_published_again_is_served() {
    let server = mnist("");
    server.post(UNLOAD, &json!({})).ok();
    server.send("DELETE", "/api/v1/models/mnist", &[], b"").ok();
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "rten").ok();
    assert_eq!(infer(&server), 200);
}

#[test]
fn an_unloaded_model_is_served_again_when_it_gets_another_version() {
    let server = mnist("");
    server.post(UNLOAD, &json!({})).ok();
    // What is known already is not published.
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "rten").ok();
    assert_eq!(infer(&server), 503);
    server.publish_onnx("mnist", "2", &model_file("mnist.onnx"), "rten").ok();
    assert_eq!(infer(&server), 200);
}

#[test]
fn a_time_that_the_request_gives_ends_it_and_never_outlasts_the_hosts() {
    let server = Server::builder().config("[limits]\nrequest_timeout_ms = 2000\n").start();
    publish(&server, "mnist", &spinner(u64::MAX), 1);
    let ask = |timeout: Value, priority: u32| {
        let parameters = json!({ "timeout": timeout, "priority": priority });
        let image = json!({ "name": "image", "datatype": "FP32", "shape": DIGIT,
            "data": vec![0.0; 784] });
        let request = json!({ "parameters": parameters, "inputs": [image] });
        server.post("/v2/models/mnist/infer", &request)
    };
    let own = ask(json!(100_000), 1);
    own.error(504);
    assert_eq!(own.json().get("limit"), None);
    assert_eq!(server.refusals("limits.request_timeout_ms"), 0);
    for longer in [60_000_000, 0] {
        let hosts = ask(json!(longer), 0);
        hosts.error(504);
        assert_eq!(hosts.json()["limit"], "limits.request_timeout_ms");
    }
    assert_eq!(server.refusals("limits.request_timeout_ms"), 2);
    for wrong in [json!(-1), json!("1"), json!(1.5)] {
        assert!(ask(wrong, 0).error(400).contains("a whole number of microseconds"));
    }
}

#[test]
fn nothing_is_changed_by_web_pages_nor_where_that_is_off() {
    let server = mnist("[server]\nclient_control = false\n");
    for path in [UNLOAD, LOAD, "/v2/logging", "/v2/trace/setting"] {
        assert!(server.post(path, &json!({})).error(403).contains("server.client_control"));
    }
    server.get("/v2/logging").ok();
    let page = [("origin", "http://evil.example"), ("content-type", "text/plain")];
    for path in [UNLOAD, LOAD, "/v2/logging", "/v2/trace/setting"] {
        assert!(server.send("POST", path, &page, b"").error(403).contains("Origin"), "{path}");
    }
    assert_eq!(infer(&server), 200);
    let index = server.post("/v2/repository/index", &json!({ "ready": true })).ok().json();
    assert_eq!(index, json!([{ "name": "mnist", "version": "1", "state": "READY", "reason": "" }]));
}

#[test]
fn bodies_are_json_of_any_content_type_and_no_longer_than_others() {
    let server = mnist("[limits]\nmanagement_body_bytes = 100\n");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let set = |body: &[u8]| server.send("POST", "/v2/trace/setting", &form, body);
    assert_eq!(set(br#"{"trace_rate":"5"}"#).ok().json()["trace_rate"], "5");
    assert_eq!(set(b"").ok().json()["trace_rate"], "5");
    assert!(set(b"rate=5").error(400).contains("/v2/trace/setting"));
    assert!(set(&[b' '; 101]).error(413).contains("limits.management_body_bytes"));
    assert_eq!(server.refusals("limits.management_body_bytes"), 1);
}

#[test]
fn the_log_says_what_its_settings_have_it_say() {
    let server = mnist("");
    let set = |level: u32| {
        server.post("/v2/logging", &json!({ "log_verbose_level": level })).ok();
    };
    server.get("/v2/models/quiet").error(404);
    set(1);
    server.get("/v2/models/loud").error(404);
    set(0);
    server.get("/v2/models/hushed").error(404);
    let log = server.log();
    let told = ["quiet", "loud", "hushed"].map(|name| log.contains(name));
    assert_eq!(told, [false, true, false], "{log}");
}

#[test]
fn a_traced_request_leaves_its_stages_and_its_trace_in_the_log() {
    let server = mnist("");
    infer(&server);
    let on = json!({ "trace_level": ["TIMESTAMPS"], "trace_rate": "1", "trace_count": "1" });
    server.post("/v2/models/mnist/trace/setting", &on).ok();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let context = format!("00-{trace}-00f067aa0ba902b7-01");
    let (mut headers, body) = binary_request("image", &DIGIT, &[0.0; 784]);
    headers.push(("traceparent", context));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for _ in 0..2 {
        let answer = server.send("POST", "/v2/models/mnist/infer", &headers, &body).ok();
        assert!(answer.headers["traceparent"].contains(trace));
    }
    let log = server.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("a traced request")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains(trace) && lines[0].contains("compute;dur="), "{}", lines[0]);
}

#[test]
fn statistics_are_of_rows_calls_and_versions() {
    let server = mnist("");
    let rows = |count: usize| {
        server.infer_f32("mnist", "image", &[count, 1, 28, 28], &vec![0.0; count * 784]);
    };
    rows(3);
    rows(1);
    server.post("/v2/models/mnist/infer", &json!({ "inputs": [] })).error(400);
    let stats = |path: &str| server.get(path).ok().json()["model_stats"].clone();
    let one = stats("/v2/models/mnist/versions/1/stats")[0].clone();
    assert_eq!((&one["inference_count"], &one["execution_count"]), (&json!(4), &json!(2)));
    let counts = ["success", "fail", "queue", "compute_infer"]
        .map(|stage| one["inference_stats"][stage]["count"].as_u64().unwrap());
    assert_eq!(counts, [2, 1, 2, 2]);
    let sizes: Vec<&Value> =
        one["batch_stats"].as_array().unwrap().iter().map(|batch| &batch["batch_size"]).collect();
    assert_eq!(sizes, [1, 3]);
    server.publish_onnx("mnist", "2", &model_file("mnist.onnx"), "rten").ok();
    assert_eq!(stats("/v2/models/mnist/stats").as_array().unwrap().len(), 2);
    assert_eq!(stats("/v2/models/mnist/versions/2/stats")[0]["inference_count"], 0);
    assert_eq!(stats("/v2/models/stats").as_array().unwrap().len(), 2);
}
