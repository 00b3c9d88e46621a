//! The data path: what an answer carries, and that every component takes the same one.

use std::io::Read as _;

use flate2::read::{GzDecoder, ZlibDecoder};
use modelet_host::engine::PASSTHROUGH;
use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use crate::graphs::outer_sum;
use crate::harness::{
    Answer, Server, argmax, binary_f32, binary_request, floats, largest_difference, model_file,
};

const DIGIT: [usize; 4] = [1, 1, 28, 28];

/// The component of the pass-through's text, over the world `model-own`.
fn own_passthrough() -> Vec<u8> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let text = std::fs::read_to_string(format!("{root}/host/src/engine/passthrough.wat")).unwrap();
    let mut module = wat::parse_str(own_namespace(&text)).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_path(format!("{root}/wit")).unwrap();
    let world = resolve.select_world(&[package], Some("model-own")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

/// The standard's namespace replaced by the project's own.
fn own_namespace(text: &str) -> String {
    text.split("wasi:nn/")
        .map(|part| part.replacen("@0.2.0-rc-2024-10-28", "@0.1.0", 1))
        .collect::<Vec<_>>()
        .join("modelet:nn/")
}

#[test]
fn every_component_takes_the_same_path_to_the_same_answer() {
    let server = Server::start();
    let graph = model_file("mnist.onnx");
    let own = own_passthrough();
    server.publish("graph", "1", &[("asset:model.onnx", &graph)]).ok();
    server
        .publish("component", "1", &[("component", PASSTHROUGH), ("asset:model.onnx", &graph)])
        .ok();
    server.publish("own", "1", &[("component", &own), ("asset:model.onnx", &graph)]).ok();
    let digests = ["graph", "component"].map(|model| {
        server.get(&format!("/api/v1/models/{model}/versions/1")).json()["digest"].clone()
    });
    assert_eq!(digests[0], digests[1]);
    let pixels = floats(&model_file("digits.f32"));
    for digit in pixels.chunks_exact(28 * 28).take(20) {
        let [graph, component, own] = ["graph", "component", "own"]
            .map(|model| server.infer_f32(model, "image", &DIGIT, digit));
        assert_eq!((&graph, &graph), (&component, &own));
    }
    let document = server.get("/api/v1/instances").json();
    for model in ["graph", "component", "own"] {
        let instances = document["instances"].as_array().unwrap();
        let instance = instances.iter().find(|line| line["model"] == model).unwrap();
        assert_eq!(instance["uses"], 20, "{model}");
        assert!(instance["buckets_ns"]["guest"].as_u64().unwrap() > 0, "{model}");
        assert!(instance["buckets_ns"]["compute"].as_u64().unwrap() > 0, "{model}");
        let buckets = instance["buckets_ns"].as_object().unwrap().values();
        let sum: u64 = buckets.map(|ns| ns.as_u64().unwrap()).sum();
        assert_eq!(instance["lifetime_ns"], sum, "{model}");
    }
}

#[test]
fn json_and_binary_give_the_same_answer() {
    let server = Server::start();
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "auto").ok();
    let pixels = floats(&model_file("digit-3.f32"));
    let binary = server.infer_f32("mnist", "image", &DIGIT, &pixels);
    let request: Value = json!({ "id": "q", "inputs": [
        { "name": "image", "datatype": "FP32", "shape": DIGIT, "data": pixels }] });
    let answer = server.post("/v2/models/mnist/infer", &request).ok();
    assert_eq!(answer.headers["content-type"], "application/json");
    let document = answer.json();
    assert_eq!((&document["id"], &document["model_version"]), (&json!("q"), &json!("1")));
    let values = document["outputs"][0]["data"].as_array().unwrap().iter();
    let values: Vec<_> = values.map(|value| value.as_f64().unwrap() as f32).collect();
    assert_eq!((argmax(&values), largest_difference(&values, &binary)), (3, 0.0));
}

#[test]
fn an_answer_says_who_answered_and_how_long_it_took() {
    let server = Server::start();
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "auto").ok();
    let (headers, body) = binary_request("image", &DIGIT, &floats(&model_file("digit-3.f32")));
    let mut headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let answer = server.send("POST", "/v2/models/mnist/infer", &headers, &body).ok();
    assert!(!answer.headers["x-request-id"].is_empty());
    headers.push(("x-request-id", "mine-1"));
    let answer = server.send("POST", "/v2/models/mnist/infer?test_1=1", &headers, &body).ok();
    assert_eq!(answer.headers["x-request-id"], "mine-1");
    assert_eq!(answer.headers["modelet-version"], "1");
    for stage in ["decode", "queue", "acquire", "guest", "compute", "total"] {
        let timing = &answer.headers["server-timing"];
        assert!(timing.contains(&format!("{stage};dur=")), "{timing}");
    }
    assert_eq!(binary_f32(&answer).len(), 10);
}

/// Milliseconds of a stage, if the answer tells of it.
fn stage(answer: &Answer, name: &str) -> Option<f64> {
    let stages = answer.headers["server-timing"].split(", ");
    let time = stages.filter_map(|stage| stage.split_once(";dur=")).find(|(key, _)| *key == name);
    time.map(|(_, time)| time.parse().unwrap())
}

#[test]
fn waiting_for_an_instance_and_loading_a_version_are_stages_of_their_own() {
    const CALLERS: usize = 4;
    let manifest = json!({ "backend": "rten", "pool": { "max_instances": 1 } }).to_string();
    let graph = model_file("efficientnet-lite0.onnx");
    let parts = [("manifest", manifest.as_bytes()), ("asset:model.onnx", &graph[..])];
    let data = tempfile::tempdir().unwrap();
    let server = Server::builder().data_dir(data.path()).start();
    server.publish("m", "1", &parts).ok();
    assert!(server.stop().success());

    let server = Server::builder().data_dir(data.path()).start();
    let (headers, body) =
        binary_request("image", &[1, 3, 224, 224], &floats(&model_file("coffee.f32")));
    let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let call = || server.send("POST", "/v2/models/m/infer", &headers, &body).ok();
    assert!(stage(&call(), "load").is_some(), "the first call loads the version");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let queued: Vec<_> = answers.iter().map(|answer| stage(answer, "queue").unwrap()).collect();
    let longest = queued.iter().copied().fold(0.0, f64::max);
    let compute = answers.iter().map(|answer| stage(answer, "compute").unwrap());
    // Of calls that take one instance in turn, some wait for at least one of the others.
    assert!(longest >= compute.fold(f64::MAX, f64::min), "{queued:?}");
    for answer in &answers {
        assert_eq!(stage(answer, "load"), None);
        assert!(stage(answer, "acquire") < Some(longest), "{queued:?}");
    }
    assert!(stage(&call(), "queue").unwrap() < longest);
}

#[test]
fn efficiencies_of_known_work_are_between_nothing_and_all() {
    let server = Server::start();
    assert_eq!(server.get("/api/v1/efficiency").ok().json()["host"]["eta"], Value::Null);
    server.publish_onnx("called", "1", &model_file("mnist.onnx"), "auto").ok();
    server.publish_onnx("idle", "1", &model_file("mnist.onnx"), "auto").ok();
    let pixels = floats(&model_file("digit-3.f32"));
    for _ in 0..10 {
        server.infer_f32("called", "image", &DIGIT, &pixels);
    }
    let report = server.get("/api/v1/efficiency?window=lifetime").ok().json();
    let host = &report["host"];
    assert_eq!((&host["calls"], &host["xi"]), (&json!(10), &json!(0.5)));
    for figure in ["eta", "rho", "useful"] {
        let value = host[figure].as_f64().unwrap();
        assert!(value > 0.0 && value <= 1.0, "{figure} is {value}");
    }
    let engine = &report["engine"];
    assert_eq!(engine["busy_ns"], engine["apportioned_ns"]);
}

#[test]
fn answers_are_compressed_for_those_who_ask_and_documents_never() {
    let server = Server::start();
    server.publish_onnx("outer", "1", &outer_sum(), "auto").ok();
    // The JSON of a small answer, of one that the reactor compresses, and of one that it does not.
    for side in [1, 20, 200] {
        let values: Vec<f32> = (0..side).map(|x| x as f32).collect();
        let input = |name: &str, shape: [usize; 2]| json!({ "name": name, "datatype": "FP32", "shape": shape, "data": values });
        for binary in [false, true] {
            let request = json!({
                "inputs": [input("x", [side, 1]), input("y", [1, side])],
                "parameters": { "binary_data_output": binary },
            });
            let request = serde_json::to_vec(&request).unwrap();
            let call = |accept: &str| {
                let headers = [("accept-encoding", accept)];
                server.send("POST", "/v2/models/outer/infer", &headers, &request).ok()
            };
            let plain = call("identity");
            assert!(!plain.headers.contains_key("content-encoding"));
            let large = plain.body.len() >= 1024;
            for accept in ["gzip", "deflate", "br, gzip;q=0.5, deflate;q=0.1"] {
                let packed = call(accept);
                let mut body = Vec::new();
                match packed.headers.get("content-encoding").map(String::as_str) {
                    None => body = packed.body,
                    Some("gzip") => {
                        assert!(accept.contains("gzip"));
                        GzDecoder::new(&packed.body[..]).read_to_end(&mut body).unwrap();
                    }
                    Some("deflate") => {
                        assert_eq!(accept, "deflate");
                        ZlibDecoder::new(&packed.body[..]).read_to_end(&mut body).unwrap();
                    }
                    Some(other) => panic!("{other} for {accept}"),
                }
                assert_eq!(packed.headers.contains_key("content-encoding"), large, "{side}");
                assert!(body == plain.body, "{accept}: {side}");
                let length = "inference-header-content-length";
                assert_eq!(packed.headers.get(length), plain.headers.get(length));
            }
        }
    }
    let gzip = [("accept-encoding", "gzip, deflate, br")];
    for path in ["/v2", "/v2/models/outer", "/metrics", "/api/v1/config"] {
        let answer = server.send("GET", path, &gzip, b"").ok();
        assert!(!answer.headers.contains_key("content-encoding"), "{path}");
    }
    let refused = server.send("POST", "/v2/models/outer/infer", &gzip, &[b'x'; 5000]);
    refused.error(400);
}

#[test]
fn clients_of_all_kinds_find_what_they_look_for() {
    let server = Server::start();
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "auto").ok();
    // KServe's client reads these keys; Triton's examples send queries, and some a slash at the end.
    for (path, key) in [
        ("/v2/health/live", "live"),
        ("/v2/health/ready", "ready"),
        ("/v2/models/mnist/ready", "ready"),
        ("/v2/models/mnist/versions/1/ready", "ready"),
    ] {
        for suffix in ["", "/", "?test_1=1&test_2=2", "/?test_1=1"] {
            let answer = server.get(&format!("{path}{suffix}")).ok();
            assert_eq!(answer.headers["content-type"], "application/json");
            assert_eq!(answer.json()[key], true, "{path}{suffix}");
        }
    }
    for path in ["/v2", "/v2/models", "/v2/models/mnist", "/v2/models/mnist/versions/1"] {
        let plain = server.get(path).ok().body;
        for suffix in ["/", "?test_1=1", "/?test_1=1&test_2=2"] {
            assert_eq!(server.get(&format!("{path}{suffix}")).ok().body, plain, "{path}{suffix}");
        }
    }
    // Some clients say that JSON is a form, or say nothing at all.
    let pixels = floats(&model_file("digit-3.f32"));
    let request = json!({ "inputs": [
        { "name": "image", "datatype": "FP32", "shape": DIGIT, "data": pixels }] });
    let request = serde_json::to_vec(&request).unwrap();
    for content_type in ["application/x-www-form-urlencoded", "application/octet-stream", ""] {
        let headers = [("content-type", content_type)];
        let headers = &headers[..usize::from(!content_type.is_empty())];
        let answer = server.send("POST", "/v2/models/mnist/infer", headers, &request).ok();
        let values = answer.json()["outputs"][0]["data"].clone();
        let values: Vec<_> =
            values.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        assert_eq!(argmax(&values), 3, "{content_type}");
    }
}

#[test]
fn the_server_shows_its_state() {
    let server = Server::start();
    assert_eq!(server.get("/healthz").ok().json()["status"], "ok");
    let ready = json!({ "status": "ready", "models": 0, "registry": { "state": "writable" } });
    assert_eq!(server.get("/readyz").ok().json(), ready);
    let settings = server.get("/api/v1/config").ok().json();
    let body = settings["settings"].as_array().unwrap().iter();
    let body = body.clone().find(|line| line["key"] == "limits.request_body_bytes").unwrap();
    assert_eq!((&body["value"], &body["origin"]), (&json!(64 << 20), &json!("default")));
    let metrics = String::from_utf8(server.get("/metrics").ok().body).unwrap();
    assert!(metrics.contains("modelet_http_requests_total") && metrics.ends_with("# EOF\n"));
}

#[test]
fn the_engine_reports_on_nobody() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::builder().home(home.path()).start();
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "onnxruntime").ok();
    let pixels = floats(&model_file("digit-3.f32"));
    assert_eq!(argmax(&server.infer_f32("mnist", "image", &DIGIT, &pixels)), 3);
    assert!(server.stop().success());
    // Its published library keeps what it would send below the cache folder of the user.
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
