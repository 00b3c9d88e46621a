//! The life of servers, models, aliases and instances.

use std::io::{Read as _, Write as _};

use rustix::process::Signal;
use serde_json::json;

use crate::graphs::outer_sum;
use crate::harness::{
    Server, argmax, binary_request, eventually, floats, model_file, multipart, read_answer, send,
};

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
        server.metrics().contains("modelet_inflight_requests 4")
    });
    server.signal(Signal::TERM);
    for caller in callers {
        assert_eq!(caller.join().unwrap().unwrap(), 200);
    }
    assert!(server.wait().success());
    let (finished, cut) = drained(&server);
    assert!(finished >= 4 && cut == 0, "{}", server.log());
}

/// How many requests a server said it finished and cut when it drained.
#[track_caller]
fn drained(server: &Server) -> (u64, u64) {
    let log = server.log();
    let line =
        log.lines().find(|line| line.contains(" drained ")).unwrap_or_else(|| panic!("{log}"));
    let figure = |name: &str| {
        let (_, rest) = line.split_once(name).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    (figure("finished="), figure("cut="))
}

/// An upload of MNIST, cut in two, and its path.
fn halved_upload() -> ([Vec<u8>; 2], &'static str) {
    let path = "/api/v1/models/m/versions/1";
    let graph = model_file("mnist.onnx");
    let (content_type, mut body) = multipart(&[("asset:model.onnx", &graph)]);
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let rest = body.split_off(body.len() / 2);
    ([[head.into_bytes(), body].concat(), rest], path)
}

/// Waits until an upload has begun to arrive.
#[track_caller]
fn until_arriving(server: &Server) {
    let folder = server.data_dir().join("blobs/tmp");
    eventually("an upload that arrives", || std::fs::read_dir(&folder).unwrap().count() == 1);
}

#[test]
fn a_drain_waits_for_an_upload_under_way() {
    let mut server = Server::start();
    let ([begin, rest], _) = halved_upload();
    let mut upload = server.connect();
    upload.write_all(&begin).unwrap();
    until_arriving(&server);
    server.signal(Signal::TERM);
    eventually("the drain", || server.log().contains("draining under_way=1"));
    upload.write_all(&rest).unwrap();
    assert_eq!(read_answer(&mut upload).unwrap().status, 201);
    assert!(server.wait().success());
    assert_eq!(drained(&server), (1, 0));
    let server = Server::builder().data_dir(server.data_dir()).start();
    server.get("/api/v1/models/m/versions/1").ok();
}

#[test]
fn an_upload_that_does_not_end_with_the_drain_is_counted_as_cut() {
    let mut server = Server::builder().config("[server]\ndrain_timeout_s = 1\n").start();
    let ([begin, _], path) = halved_upload();
    let mut upload = server.connect();
    upload.write_all(&begin).unwrap();
    until_arriving(&server);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(1));
    assert_eq!(drained(&server), (0, 1));
    let server = Server::builder().data_dir(server.data_dir()).start();
    server.get(path).error(404);
}

#[test]
fn a_drain_answers_every_request_that_was_sent_before_it() {
    const EACH: usize = 8;
    let mut server = Server::start();
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let used: Vec<_> = (0..EACH)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(request).unwrap();
            read_answer(&mut stream).unwrap();
            stream
        })
        .collect();
    // Connections are accepted in their order, so a request on a later one tells that these are.
    let accepted: Vec<_> = (0..EACH).map(|_| server.connect()).collect();
    server.get("/healthz").ok();
    // A server that stands still sees the requests and the signal at once.
    server.signal(Signal::STOP);
    let in_the_kernel = (0..EACH).map(|_| server.connect());
    let mut streams: Vec<_> = used.into_iter().chain(accepted).chain(in_the_kernel).collect();
    streams.iter_mut().for_each(|stream| stream.write_all(request).unwrap());
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    for (index, stream) in streams.iter_mut().enumerate() {
        let answer = read_answer(stream)
            .unwrap_or_else(|error| panic!("connection {index}: {error}\n{}", server.log()));
        assert_eq!(answer.status, 200);
    }
    assert!(server.wait().success());
    let (_, cut) = drained(&server);
    assert_eq!(cut, 0);
}

#[test]
fn a_slow_reader_counts_until_it_has_its_last_byte() {
    const SIDE: usize = 4096;
    let server = Server::start();
    server.publish_onnx("m", "1", &outer_sum(), "auto").ok();
    let side = |name: &str, shape: [usize; 2]| json!({ "name": name, "datatype": "FP32", "shape": shape, "data": vec![1; SIDE] });
    let body = json!({
        "inputs": [side("x", [SIDE, 1]), side("y", [1, SIDE])],
        "parameters": { "binary_data_output": true },
    })
    .to_string();
    let head = format!(
        "POST /v2/models/m/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    for reads_on in [true, false] {
        let mut stream = server.connect();
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
        // With its first byte, all of the answer has been handed to the connection.
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        let metrics = server.metrics();
        assert!(metrics.contains("modelet_inflight_requests 1\n"), "{metrics}");
        assert!(!metrics.contains("modelet_inflight_bytes 0\n"), "{metrics}");
        if reads_on {
            let answer = read_answer(&mut first.chain(&mut stream)).unwrap();
            assert!(answer.body.len() > SIDE * SIDE * 4);
        }
        drop(stream);
        eventually("nothing in flight", || {
            let metrics = server.metrics();
            metrics.contains("modelet_inflight_requests 0\n")
                && metrics.contains("modelet_inflight_bytes 0\n")
        });
    }
}

/// The files of blobs in a server's data directory.
fn blobs(server: &Server) -> Vec<std::path::PathBuf> {
    let folder = server.data_dir().join("blobs/sha256");
    let shards = std::fs::read_dir(folder).unwrap().map(|shard| shard.unwrap().path());
    let files = shards.flat_map(|shard| std::fs::read_dir(shard).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

#[test]
fn an_upload_that_becomes_no_version_leaves_no_bytes() {
    let server = Server::start();
    let graph = model_file("mnist.onnx");
    let refused = [("asset:model.onnx", &graph[..]), ("component", b"\0asm\x01\0\0\0")];
    server.publish("m", "1", &refused).error(400);
    eventually("nothing of the refused upload", || blobs(&server).is_empty());
    let (content_type, body) = multipart(&[("asset:model.onnx", &graph)]);
    let headers = [("content-type", content_type.as_str())];
    server.send("PUT", "/api/v1/models/m/versions/1?dry_run=true", &headers, &body).ok();
    eventually("nothing of the dry run", || blobs(&server).is_empty());
    let ([begin, _], _) = halved_upload();
    let notes = [("asset:notes.txt", &b"1"[..]), ("asset:model.onnx", &graph)];
    server.publish("m", "1", &notes).ok();
    server.publish("m", "1", &[("asset:notes.txt", b"2"), notes[1]]).error(409);
    let mut left = server.connect();
    left.write_all(&begin).unwrap();
    until_arriving(&server);
    drop(left);
    // What the version names is there: its component, its graph and its notes.
    eventually("the blobs of one version", || {
        let tmp = std::fs::read_dir(server.data_dir().join("blobs/tmp")).unwrap().count();
        blobs(&server).len() == 3 && tmp == 0
    });
}

#[test]
fn what_another_upload_holds_is_not_collected() {
    let server = Server::start();
    let graph = model_file("mnist.onnx");
    let parts: [(&str, &[u8]); 2] = [("asset:model.onnx", &graph), ("asset:notes.txt", b"last")];
    let (content_type, mut body) = multipart(&parts);
    let head = format!(
        "PUT /api/v1/models/m/versions/1 HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // All but the end: the graph has its place, and no version names it yet.
    let rest = body.split_off(body.len() - 10);
    let mut upload = server.connect();
    upload.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    eventually("the graph's blob", || blobs(&server).len() == 1);
    let refused = [("asset:model.onnx", &graph[..]), ("component", b"\0asm\x01\0\0\0")];
    server.publish("m", "2", &refused).error(400);
    eventually("the end of the refused upload", || blobs(&server).len() == 1);
    upload.write_all(&rest).unwrap();
    assert_eq!(read_answer(&mut upload).unwrap().status, 201);
    let pixels = floats(&model_file("digit-7.f32"));
    assert_eq!(argmax(&server.infer_f32("m", "image", &DIGIT, &pixels)), 7);
}

#[test]
fn two_versions_of_equal_bytes_share_one_graph() {
    let server = Server::start();
    publish(&server, "1", "a").ok();
    publish(&server, "2", "b").ok();
    let pixels = floats(&model_file("digit-7.f32"));
    for version in ["1", "2"] {
        let model = format!("m/versions/{version}");
        assert_eq!(argmax(&server.infer_f32(&model, "image", &DIGIT, &pixels)), 7);
    }
    assert!(server.metrics().contains("modelet_resident_graphs 1\n"), "{}", server.metrics());
    server.send("DELETE", "/api/v1/models/m/versions/2", &[], b"").ok();
    assert_eq!(argmax(&server.infer_f32("m", "image", &DIGIT, &pixels)), 7);
    server.send("DELETE", "/api/v1/models/m", &[], b"").ok();
    assert!(server.metrics().contains("modelet_resident_graphs 0\n"), "{}", server.metrics());
}

#[test]
fn a_running_request_outlives_its_version() {
    let server = Server::start();
    server.publish_onnx("slow", "1", &model_file("efficientnet-lite0.onnx"), "rten").ok();
    let picture = floats(&model_file("coffee.f32"));
    let (headers, body) = binary_request("image", &[8, 3, 224, 224], &picture.repeat(8));
    let url = format!("{}/v2/models/slow/infer", server.url());
    let caller = std::thread::spawn(move || {
        let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        send(&url, "POST", &headers, &body)
    });
    eventually("the request in its instance", || {
        let document = server.get("/api/v1/instances").json();
        let states = document["instances"].as_array().unwrap().iter();
        states.map(|line| line["state"].clone()).any(|state| state != "idle")
    });
    server.send("DELETE", "/api/v1/models/slow", &[], b"").ok();
    server.get("/v2/models/slow").error(404);
    let answer = caller.join().unwrap().unwrap().ok();
    assert_eq!(answer.headers["modelet-version"], "1");
    assert_eq!(argmax(&crate::harness::binary_f32(&answer)[..1000]), 967);
    eventually("nothing left of the version", || {
        server.metrics().contains("modelet_resident_graphs 0\n")
    });
}

#[test]
fn no_call_fails_while_an_alias_moves() {
    const MOVES: usize = 40;
    let server = Server::start();
    publish(&server, "1", "a").ok();
    publish(&server, "2", "b").ok();
    let pixels = floats(&model_file("digit-7.f32"));
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut calls = 0;
                    while !is_over.load(std::sync::atomic::Ordering::Relaxed) || calls == 0 {
                        assert_eq!(argmax(&server.infer_f32("m", "image", &DIGIT, &pixels)), 7);
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        for step in 0..MOVES {
            let version = if step % 2 == 0 { "2" } else { "1" };
            let to = json!({ "targets": [{ "version": version, "weight": 1 }] });
            server.put("/api/v1/models/m/aliases/live", &[], &to).ok();
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        let calls: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        assert!(calls >= 4, "{calls}");
    });
    for version in ["1", "2"] {
        let calls = format!(
            "modelet_inferences_total{{model=\"m\",version=\"{version}\",outcome=\"ok\"}} "
        );
        let metrics = server.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix(&calls));
        assert_ne!(line, Some("0"), "version {version} was never called");
    }
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
