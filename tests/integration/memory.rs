//! One graph per host: instances add their own memory and no weights, and what is unloaded returns.
//!
//! What is measured is the server's resident memory, as the kernel counts it. A moment's figure also has
//! what calls and threads have in hand just then, so each figure is the least of several.

use serde_json::json;

use crate::harness::{Server, argmax, floats, model_file};

const BACKENDS: [&str; 2] = ["onnxruntime", "rten"];

/// A graph and what it is called with.
struct Graph {
    file: &'static str,
    input: &'static str,
    shape: &'static [usize],
}

/// A graph of no size to speak of.
const SMALL: Graph = Graph { file: "mnist.onnx", input: "digit-7.f32", shape: &[1, 1, 28, 28] };
/// A graph of 19 MB.
const LARGE: Graph =
    Graph { file: "efficientnet-lite0.onnx", input: "coffee.f32", shape: &[1, 3, 224, 224] };

/// The weights of the large graph.
fn weights() -> u64 {
    model_file(LARGE.file).len() as u64
}

/// The least resident memory while nothing is asked of a server but whether it lives.
fn resting(server: &Server) -> u64 {
    const LOOKS: usize = 20;
    let looks = (0..LOOKS).map(|_| {
        server.get("/healthz");
        server.resident_bytes()
    });
    looks.min().unwrap()
}

/// The least resident memory of servers with this many instances of a graph, each of them used.
fn resident_with(backend: &str, graph: &Graph, instances: u32) -> u64 {
    const SERVERS: usize = 3;
    const ROUNDS: usize = 2;
    let one_server = || {
        // One compute thread, so that only one run's intermediate results are there at a time.
        let server = Server::builder().config("[compute]\nthreads = 1\n").start();
        let pool = json!({ "min_instances": instances, "max_instances": instances });
        let manifest = json!({ "backend": backend, "pool": pool }).to_string();
        let file = model_file(graph.file);
        let parts = [("manifest", manifest.as_bytes()), ("asset:model.onnx", &file)];
        server.publish("m", "1", &parts).ok();
        let values = floats(&model_file(graph.input));
        let round = || {
            // All at once, and as many for one instance as for all, so that the server's buffers
            // are the same: one caller at a time would use one instance alone.
            std::thread::scope(|scope| {
                for _ in 0..32 {
                    scope.spawn(|| server.infer_f32("m", "image", graph.shape, &values));
                }
            });
            resting(&server)
        };
        let least = (0..ROUNDS).map(|_| round()).min().unwrap();
        let document = server.get("/api/v1/instances").json();
        let live = document["instances"].as_array().unwrap().len();
        assert!(live >= instances as usize, "{live} instances");
        least
    };
    (0..SERVERS).map(|_| one_server()).min().unwrap()
}

#[test]
fn thirty_two_instances_share_one_graph() {
    // What an instance itself takes is known from the same server with a graph of no size to speak
    // of; the same number over a large graph must not be more than a tenth above it. Servers that do
    // the same differ by about one MB in what their allocator keeps of the runs' intermediate
    // results; twice that is allowed, which is a tenth of a single copy of the weights.
    const NOISE: u64 = 2 << 20;
    assert!(NOISE < weights() / 8);
    for backend in BACKENDS {
        let small = |instances| resident_with(backend, &SMALL, instances);
        let measured = small(32).saturating_sub(small(1)) / 31;
        let one = resident_with(backend, &LARGE, 1);
        for instances in [8, 32] {
            let grown = resident_with(backend, &LARGE, instances).saturating_sub(one);
            let allowed = measured * u64::from(instances - 1) * 11 / 10 + NOISE;
            println!(
                "{backend}: an instance takes {measured} bytes; {instances} over one graph: {grown} bytes more than one, {allowed} allowed"
            );
            assert!(grown < allowed, "{backend}: {instances} instances: {grown} of {allowed}");
        }
    }
}

#[test]
fn five_unloads_return_the_weights() {
    // The first cycles also pay for what is made once: threads of the blocking pool, each with an arena
    // of the allocator, and the engine's own state. From the first cycle on five came to 1.7 MB of the
    // 1.85 MB allowed (measured), which leaves no room for a machine that has other work. Every cycle
    // goes on to add some 0.1 MB: of instances that are gone, up to 256 are kept warm, 64 KiB each.
    const WARM_UP: usize = 3;
    let graph = model_file(LARGE.file);
    let pixels = floats(&model_file(LARGE.input));
    for backend in BACKENDS {
        let server = Server::start();
        let cycle = |number: usize| {
            server.publish_onnx("m", "1", &graph, backend).ok();
            let answer = server.infer_f32("m", "image", LARGE.shape, &pixels);
            assert_eq!(argmax(&answer), 967, "{backend}: cycle {number}");
            server.send("DELETE", "/api/v1/models/m", &[], b"").ok();
            assert!(server.metrics().contains("modelet_resident_graphs 0\n"));
            resting(&server)
        };
        let after: Vec<_> = (1..=WARM_UP + 5).map(cycle).collect();
        println!("{backend}: bytes after each load and unload: {after:?}, weights {}", weights());
        // Now and then the allocator gives back a cycle's last megabyte only in the next one, so the
        // better of the last two counts; a graph that stayed would be in both.
        let (before, last) = (after[WARM_UP - 1], after[WARM_UP + 3].min(after[WARM_UP + 4]));
        let allowed = before + weights() / 10;
        assert!(last < allowed, "{backend}: {last}, {allowed} allowed: {after:?}");
    }
}
