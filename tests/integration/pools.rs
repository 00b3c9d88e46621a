//! What instances and graphs of all versions share: the host's budget, and who makes room for whom.

use serde_json::json;

use crate::graphs::negation;
use crate::harness::{Guest, Server, floats, model_file};
use crate::hostile_guests::{ECHO, ECHO_NAME, numbers, publish};

fn echo() -> Guest<'static> {
    Guest { fields: ECHO_NAME, infer: ECHO, ..Guest::default() }
}

#[test]
fn idle_instances_make_room_for_those_that_are_called() {
    let server = Server::builder().config("[engine]\ninstances = 4\n").start();
    for round in 0..3 {
        for model in 0..10 {
            let name = format!("m{model}");
            if round == 0 {
                publish(&server, &name, &echo(), &json!({}));
            }
            server.post(&format!("/v2/models/{name}/infer"), &numbers()).ok();
            assert!(server.metric("modelet_instances") <= 4);
        }
    }
}

#[test]
fn minima_that_cannot_be_met_are_refused_and_what_is_promised_is_kept() {
    let server = Server::builder().config("[engine]\ninstances = 4\n").start();
    let pool =
        |min: u32, max: u32| json!({ "pool": { "min_instances": min, "max_instances": max } });
    publish(&server, "kept", &echo(), &pool(3, 3));
    let refused = |manifest: serde_json::Value| {
        let (component, manifest) = (echo().build(), manifest.to_string());
        let parts: [(&str, &[u8]); 3] = [
            ("manifest", manifest.as_bytes()),
            ("component", &component),
            ("asset:model.onnx", &negation()),
        ];
        server.publish("more", "1", &parts).error(400)
    };
    let error = refused(pool(2, 2));
    assert!(error.contains("min_instances") && error.contains("engine.instances"), "{error}");
    assert!(refused(pool(0, 0)).contains("pool.max_instances"));
    assert!(refused(pool(3, 2)).contains("pool.min_instances"));
    assert!(refused(json!({ "pool": { "max_instance_reuse_count": 0 } })).contains("reuse"));
    server.get("/api/v1/models/more").error(404);
    // Others take turns on the one instance that is left, and never one of the three.
    for model in 0..4 {
        let name = format!("m{model}");
        publish(&server, &name, &echo(), &json!({}));
        server.post(&format!("/v2/models/{name}/infer"), &numbers()).ok();
        let instances = server.get("/api/v1/instances").json();
        let kept = instances["instances"].as_array().unwrap().iter();
        assert_eq!(kept.filter(|line| line["model"] == "kept").count(), 3);
    }
}

#[test]
fn a_promised_instance_that_was_lost_is_started_again() {
    let server = Server::start();
    let guest = Guest { infer: "unreachable", ..Guest::default() };
    publish(&server, "kept", &guest, &json!({ "pool": { "min_instances": 2 } }));
    server.post("/v2/models/kept/infer", &numbers()).error(500);
    crate::harness::eventually("two instances again", || server.metric("modelet_instances") == 2);
}

#[test]
fn memory_of_all_guests_together_has_a_limit() {
    // A page is 65,536 bytes: two guests of ten pages fit, a third does not.
    let server = Server::builder().config("[engine]\nmemory_bytes = 1500000\n").start();
    let guest = Guest { pages: 10, ..echo() };
    for name in ["a", "b"] {
        publish(&server, name, &guest, &json!({ "pool": { "min_instances": 1 } }));
    }
    let (component, graph) = (guest.build(), negation());
    let parts: [(&str, &[u8]); 2] = [("component", &component), ("asset:model.onnx", &graph)];
    let answer = server.publish("c", "1", &parts);
    let error = answer.error(answer.status);
    assert!(error.contains("engine.memory_bytes"), "{error}");
    assert_eq!(server.metric("modelet_guest_memory_bytes"), 2 * 10 * 65_536);
    for name in ["a", "b"] {
        server.post(&format!("/v2/models/{name}/infer"), &numbers()).ok();
    }
}

#[test]
fn instances_are_replaced_after_about_as_many_calls_as_the_policy_allows() {
    let server = Server::start();
    publish(&server, "m", &echo(), &json!({ "pool": { "max_instance_reuse_count": 20 } }));
    let uses = || {
        let instances = server.get("/api/v1/instances").json();
        let instances = instances["instances"].as_array().unwrap();
        instances.first().map_or(0, |line| line["uses"].as_u64().unwrap())
    };
    for _ in 0..100 {
        server.post("/v2/models/m/infer", &numbers()).ok();
        assert!(uses() < 20);
    }
}

#[test]
fn graphs_that_nobody_calls_make_room_for_those_that_are() {
    let graph = model_file("efficientnet-lite0.onnx");
    // Room for two and a bit.
    let limit = graph.len() * 5 / 2;
    let config = format!("[compute]\nresident_graph_bytes = {limit}\n");
    let server = Server::builder().config(&config).start();
    let picture = floats(&model_file("coffee.f32"));
    let shape = [1, 3, 224, 224];
    // Other bytes each, or they would be one graph.
    let copy = |n: u8| [graph.as_slice(), &[0x12, 1, b'0' + n]].concat();
    for n in 0..4 {
        server.publish_onnx(&format!("m{n}"), "1", &copy(n), "rten").ok();
        assert!(server.metric("modelet_resident_graphs") <= 2);
    }
    for n in [0, 3, 1, 0] {
        let answer = server.infer_f32(&format!("m{n}"), "image", &shape, &picture);
        assert_eq!(crate::harness::argmax(&answer), 967);
        assert!(server.metric("modelet_resident_graphs") <= 2);
        assert!(server.metric("modelet_resident_graph_bytes") <= limit as u64);
    }
}

#[test]
fn graphs_in_use_are_not_unloaded_and_the_refusal_says_when_to_come_back() {
    let graph = model_file("mnist.onnx");
    let config = format!("[compute]\nresident_graph_bytes = {}\n", graph.len() * 3 / 2);
    let server = Server::builder().config(&config).start();
    let manifest = json!({ "pool": { "min_instances": 1 } }).to_string();
    server
        .publish("kept", "1", &[("manifest", manifest.as_bytes()), ("asset:model.onnx", &graph)])
        .ok();
    let other = [graph.as_slice(), &[0x12, 1, b'x']].concat();
    let answer = server.publish_onnx("other", "1", &other, "auto");
    let error = answer.error(503);
    assert!(error.contains("compute.resident_graph_bytes"), "{error}");
    assert!(answer.headers.contains_key("retry-after"));
}
