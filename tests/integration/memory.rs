//! One graph per host: instances add their own memory and no weights, and what is unloaded returns.

use serde_json::json;

use crate::harness::{Server, floats, model_file};

/// The server's resident memory after `instances` of a model are there and each has been used.
fn resident_with(graph: &str, input: &str, shape: &[usize], instances: u32) -> u64 {
    // One caller at a time would use the same instance: as many calls as instances, all at once.
    let server = Server::start();
    let manifest =
        json!({ "pool": { "min_instances": instances, "max_instances": instances } }).to_string();
    let graph = model_file(graph);
    server
        .publish("m", "1", &[("manifest", manifest.as_bytes()), ("asset:model.onnx", &graph)])
        .ok();
    let pixels = floats(&model_file(input));
    // The same calls whatever the number of instances, so that buffers of the server are the same.
    for _ in 0..8 {
        std::thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| server.infer_f32("m", "image", shape, &pixels));
            }
        });
    }
    let live = server.get("/api/v1/instances").json()["instances"].as_array().unwrap().len();
    assert!(live >= instances as usize, "{live} instances");
    server.resident_bytes()
}

/// The weights of EfficientNet-Lite0.
fn weights() -> u64 {
    model_file("efficientnet-lite0.onnx").len() as u64
}

#[test]
fn thirty_two_instances_share_one_graph() {
    // What an instance itself takes is known from the same server with a graph of no size to speak
    // of; the same number over a graph of 19 MB must not be more than a tenth above it, and a page
    // or two of noise in the allocator's arenas.
    const NOISE: u64 = 4 << 20;
    let digit: &[usize] = &[1, 1, 28, 28];
    let picture: &[usize] = &[1, 3, 224, 224];
    let small = |n| resident_with("mnist.onnx", "digit-7.f32", digit, n);
    let large = |n| resident_with("efficientnet-lite0.onnx", "coffee.f32", picture, n);
    let measured = small(32).saturating_sub(small(1)) / 31;
    let one = large(1);
    for instances in [8, 32] {
        let grown = large(instances).saturating_sub(one);
        let allowed = measured * u64::from(instances - 1) * 11 / 10 + NOISE;
        assert!(grown < allowed, "{instances} instances: {grown} bytes more, {allowed} allowed");
        // The noise that is allowed could not hide a single copy of the weights.
        assert!(allowed < measured * 35 + weights());
    }
}

#[test]
fn five_unloads_return_the_weights() {
    // The first cycles also pay for what is made once: threads of the blocking pool and their arenas.
    const WARM_UP: usize = 3;
    let server = Server::start();
    let graph = model_file("efficientnet-lite0.onnx");
    let pixels = floats(&model_file("coffee.f32"));
    let mut after = Vec::new();
    for cycle in 0..WARM_UP + 5 {
        server.publish_onnx("m", "1", &graph, "onnxruntime").ok();
        let answer = server.infer_f32("m", "image", &[1, 3, 224, 224], &pixels);
        assert_eq!(crate::harness::argmax(&answer), 967, "cycle {cycle}");
        server.send("DELETE", "/api/v1/models/m", &[], b"").ok();
        let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
        assert!(metrics.contains("modelet_resident_graphs 0"), "{metrics}");
        after.push(server.resident_bytes());
    }
    let (before, rest) = after[WARM_UP - 1..].split_first().unwrap();
    for (cycle, bytes) in rest.iter().enumerate() {
        let allowed = before + weights() / 10;
        assert!(
            *bytes < allowed,
            "cycle {}: {bytes} bytes, {allowed} allowed ({after:?})",
            cycle + 1
        );
    }
}
