//! The life of servers, models, aliases and instances.

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Server, argmax, binary_request, eventually, floats, model_file, send};

const DIGIT: [usize; 4] = [1, 1, 28, 28];

fn manifest(document: &serde_json::Value) -> Vec<u8> {
    serde_json::to_vec(document).unwrap()
}

/// Publishes MNIST with something in its configuration, which makes its record its own.
#[track_caller]
fn publish(server: &Server, version: &str, note: &str) -> crate::harness::Answer {
    let manifest = manifest(&json!({ "config": { "note": note } }));
    let graph = model_file("mnist.onnx");
    server.publish("m", version, &[("manifest", &manifest), ("asset:model.onnx", &graph)])
}

#[test]
fn a_drain_answers_every_request_under_way() {
    let mut server = Server::start();
    server.publish_onnx("slow", "1", &model_file("efficientnet-lite0.onnx"), "rten").ok();
    let picture = floats(&model_file("coffee.f32"));
    let (headers, body) = binary_request("image", &[8, 3, 224, 224], &picture.repeat(8));
    let url = format!("{}/v2/models/slow/infer", server.url());
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (url, headers, body) = (url.clone(), headers.clone(), body.clone());
            std::thread::spawn(move || {
                let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
                send(&url, "POST", &headers, &body).map(|answer| answer.status)
            })
        })
        .collect();
    eventually("four requests under way", || {
        let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
        metrics.contains("modelet_inflight_requests 4")
    });
    server.signal(Signal::TERM);
    for caller in callers {
        assert_eq!(caller.join().unwrap().unwrap(), 200);
    }
    assert!(server.wait().success());
    assert!(server.log().contains("drained finished=4 cut=0"), "{}", server.log());
}

#[test]
fn the_first_version_is_live_and_later_ones_only_when_told() {
    let server = Server::start();
    assert_eq!(publish(&server, "1", "a").ok().json()["live"], true);
    assert_eq!(publish(&server, "2", "b").ok().json()["live"], false);
    let answered = |target: &str| {
        let (headers, body) = binary_request("image", &DIGIT, &floats(&model_file("digit-7.f32")));
        let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let path = format!("/v2/models/m{target}/infer");
        server.send("POST", &path, &headers, &body).ok().headers["modelet-version"].clone()
    };
    assert_eq!((answered(""), answered("/versions/2")), ("1".into(), "2".into()));
    let to = json!({ "targets": [{ "version": "2", "weight": 1 }] });
    server.put("/api/v1/models/m/aliases/live", &[], &to).ok();
    assert_eq!((answered(""), answered("/versions/live")), ("2".into(), "2".into()));
    server.post("/api/v1/models/m/aliases/live/rollback", &json!({})).ok();
    assert_eq!(answered(""), "1");
}

#[test]
fn an_alias_that_moved_meanwhile_is_not_moved_again() {
    let server = Server::start();
    publish(&server, "1", "a").ok();
    publish(&server, "2", "b").ok();
    let path = "/api/v1/models/m/aliases/canary";
    let to = |version: &str| json!({ "targets": [{ "version": version, "weight": 1 }] });
    let first = server.put(path, &[("if-none-match", "*")], &to("1")).ok();
    server.put(path, &[("if-none-match", "*")], &to("2")).error(412);
    let etag = first.headers["etag"].clone();
    server.put(path, &[("if-match", &etag)], &to("2")).ok();
    server.put(path, &[("if-match", &etag)], &to("1")).error(412);
}

#[test]
fn a_weighted_alias_spreads_calls_by_its_weights() {
    let server = Server::start();
    publish(&server, "1", "a").ok();
    publish(&server, "2", "b").ok();
    let to =
        json!({ "targets": [{ "version": "1", "weight": 3 }, { "version": "2", "weight": 1 }] });
    server.put("/api/v1/models/m/aliases/live", &[], &to).ok();
    let (headers, body) = binary_request("image", &DIGIT, &floats(&model_file("digit-7.f32")));
    let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let first = (0..100).filter(|_| {
        let answer = server.send("POST", "/v2/models/m/infer", &headers, &body).ok();
        answer.headers["modelet-version"] == "1"
    });
    assert!((70..=80).contains(&first.count()));
}

#[test]
fn the_same_bytes_are_the_same_version_and_other_bytes_a_conflict() {
    let server = Server::start();
    assert_eq!(publish(&server, "1", "a").status, 201);
    let again = publish(&server, "1", "a");
    assert_eq!((again.status, &again.json()["created"]), (200, &json!(false)));
    assert!(publish(&server, "1", "b").error(409).contains("already sha256:"));
}

#[test]
fn what_an_alias_points_at_is_not_deleted_and_a_deleted_name_comes_back_anew() {
    let server = Server::start();
    publish(&server, "1", "a").ok();
    publish(&server, "2", "b").ok();
    let version = |name: &str| format!("/api/v1/models/m/versions/{name}");
    let refusal = server.send("DELETE", &version("1"), &[], b"").error(409);
    assert!(refusal.contains("live"), "{refusal}");
    server.send("DELETE", &version("2"), &[], b"").ok();
    server.get("/v2/models/m/versions/2").error(404);
    let id = server.get("/api/v1/models/m").json()["id"].clone();
    server.send("DELETE", "/api/v1/models/m", &[], b"").ok();
    server.get("/v2/models/m").error(404);
    assert_eq!(publish(&server, "1", "other").status, 201);
    assert_ne!(server.get("/api/v1/models/m").json()["id"], id);
}

#[test]
fn a_dry_run_changes_nothing() {
    let server = Server::start();
    let graph = model_file("mnist.onnx");
    let (content_type, body) = crate::harness::multipart(&[("asset:model.onnx", &graph)]);
    let headers = [("content-type", content_type.as_str())];
    let dry = server.send("PUT", "/api/v1/models/m/versions/1?dry_run=true", &headers, &body).ok();
    assert_eq!(dry.json()["dry_run"], true);
    server.get("/api/v1/models/m").error(404);
    publish(&server, "1", "a").ok();
    publish(&server, "2", "b").ok();
    server.send("DELETE", "/api/v1/models/m/versions/2?dry_run=true", &[], b"").ok();
    server.send("DELETE", "/api/v1/models/m?dry_run=true", &[], b"").ok();
    let to = json!({ "targets": [{ "version": "2", "weight": 1 }] });
    server.put("/api/v1/models/m/aliases/live?dry_run=true", &[], &to).ok();
    let model = server.get("/api/v1/models/m").ok().json();
    assert_eq!(model["versions"], json!(["1", "2"]));
    assert_eq!(model["aliases"]["live"][0]["version"], "1");
}

#[test]
fn an_idle_model_scales_to_zero_and_comes_back() {
    let server = Server::start();
    let manifest = manifest(&json!({ "pool": { "idle_instance_timeout_s": 1 } }));
    let graph = model_file("mnist.onnx");
    server.publish("m", "1", &[("manifest", &manifest), ("asset:model.onnx", &graph)]).ok();
    let pixels = floats(&model_file("digit-7.f32"));
    let call = || argmax(&server.infer_f32("m", "image", &DIGIT, &pixels));
    let instances =
        || server.get("/api/v1/instances").json()["instances"].as_array().unwrap().len();
    assert_eq!((call(), instances()), (7, 1));
    eventually("scale to zero", || instances() == 0);
    assert_eq!((call(), instances()), (7, 1));
}
