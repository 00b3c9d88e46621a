//! Hostile graphs: none reaches an engine in the server before a worker has survived it, and what was
//! found out is not found out twice.

use std::io::Write as _;
use std::net::TcpStream;

use modelet_host::nn::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TypeProto, ValueInfoProto, type_proto,
};
use prost::Message as _;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::graphs::{BACKENDS, file, graph, node, value, with_external_weights};
use crate::harness::{
    Answer, DIGIT, Holdings, Server, argmax, eventually, floats, is_running, model_file, multipart,
    send, signal, still_serves, with_mnist, worker_of,
};

/// ONNX's numbers of INT32, INT64 and BOOL.
const INT32: i32 = 6;
const INT64: i32 = 7;
const BOOL: i32 = 9;

/// The metric that counts graph workers.
const WORKERS: &str = "modelet_gate_worker_duration_seconds_count{gate=\"graph\"}";

/// Workers that try MNIST: one runs it, one runs rows of it together.
const MNIST_WORKERS: u64 = 2;

/// A server with MNIST that gives graphs two seconds of processor time.
fn server() -> Server {
    with_mnist(Server::builder().config("[gate]\ncpu_s = 2\n").start())
}

/// The graph is refused by `check` on this engine, with `words` in the answer.
#[track_caller]
fn refused(server: &Server, bytes: &[u8], backend: &str, check: &str, words: &[&str]) {
    let counter = format!("modelet_publications_refused_total{{check=\"{check}\"}}");
    let before = server.count(&counter);
    let error = server.publish_onnx("m", "1", bytes, backend).error(400);
    for word in words {
        assert!(error.contains(word), "{backend}: {word:?} is not in {error:?}");
    }
    assert_eq!(server.count(&counter), before + 1, "{check}: {error}");
    server.get("/api/v1/models/m").error(404);
    still_serves(server);
}

fn typed(name: &str, elem_type: i32) -> ValueInfoProto {
    let mut value = value(name, &[]);
    let tensor = type_proto::Tensor { elem_type: Some(elem_type), shape: Some(Default::default()) };
    value.r#type =
        Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), denotation: None });
    value
}

fn integers(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(INT64),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

/// A graph from `x` to `y`, of one element each, with constants.
fn one_to_one(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>) -> GraphProto {
    let graph = graph(vec![value("x", &[1])], vec![value("y", &[-1])], nodes);
    GraphProto { initializer, ..graph }
}

fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(5),
        g: Some(Box::new(graph)),
        ..AttributeProto::default()
    }
}

/// A graph that doubles its input so many times.
fn doubling(times: i64) -> Vec<u8> {
    file(one_to_one(vec![repeat()], vec![integers("times", &[], &[times])]))
}

/// A graph that doubles its input as often as its caller says, which no gate can know.
fn doubling_as_told() -> Vec<u8> {
    let inputs = vec![value("x", &[1]), typed("times", INT64)];
    file(graph(inputs, vec![value("y", &[-1])], vec![repeat()]))
}

/// Doubles `x` to `y`, as often as `times` says.
fn repeat() -> NodeProto {
    let inside = GraphProto {
        name: Some("body".to_owned()),
        input: vec![typed("i", INT64), typed("on", BOOL), value("v", &[1])],
        output: vec![typed("still_on", BOOL), value("w", &[1])],
        node: vec![
            node("", "Identity", &["on"], &["still_on"]),
            node("", "Add", &["v", "v"], &["w"]),
        ],
        ..GraphProto::default()
    };
    let mut repeat = node("", "Loop", &["times", "", "x"], &["y"]);
    repeat.attribute.push(body("body", inside));
    repeat
}

/// Calls [`doubling_as_told`].
fn call(server: &Server, model: &str, times: i64) -> Answer {
    let request = json!({ "inputs": [
        { "name": "x", "datatype": "FP32", "shape": [1], "data": [1.0] },
        { "name": "times", "datatype": "INT64", "shape": [], "data": [times] },
    ] });
    server.post(&format!("/v2/models/{model}/infer"), &request)
}

/// Runs that end only after hours, on a server that gives a run half a second.
fn with_a_run_without_end(backend: &str) -> Server {
    let config = "[compute]\ntimeout_ms = 500\ngrace_ms = 500\nthreads = 1\nshort_threads = 1\n";
    let server = with_mnist(Server::builder().config(config).start());
    server.publish_onnx("m", "1", &doubling_as_told(), backend).ok();
    assert_eq!(call(&server, "m", 3).ok().json()["outputs"][0]["data"], json!([8.0]));
    let error = call(&server, "m", i64::from(i32::MAX)).error(503);
    assert!(error.contains("compute.timeout_ms"), "{error}");
    server
}

#[test]
fn a_run_without_end_is_stopped_where_the_engine_can_be_and_the_graph_serves_on() {
    let server = with_a_run_without_end("onnxruntime");
    assert_eq!(call(&server, "m", 3).ok().json()["outputs"][0]["data"], json!([8.0]));
    server.get("/v2/models/m/ready").ok();
    assert_eq!(server.metric("modelet_lost_compute_threads"), 0);
    assert_eq!(server.refusals("compute.timeout_ms"), 1);
    still_serves(&server);
}

#[test]
fn a_run_that_cannot_be_stopped_costs_its_thread_and_quarantines_its_graph() {
    let server = with_a_run_without_end("rten");
    eventually("quarantine", || server.metric("modelet_quarantined_versions") == 1);
    assert_eq!(server.metric("modelet_lost_compute_threads"), 1);
    let refused = call(&server, "m", 3);
    assert!(refused.headers.contains_key("retry-after"));
    for answer in [refused, server.get("/v2/models/m/ready")] {
        let error = answer.error(503);
        assert!(error.contains("quarantined"), "{error}");
    }
    let shown = server.get("/api/v1/models/m/versions/1").ok().json();
    assert_eq!(shown["state"], "quarantined");
    let release = server.cli(&["release", "m@1"]);
    assert_eq!(release.code, 4, "{}", release.stderr);
    assert!(release.stderr.contains("still goes on"), "{}", release.stderr);
    assert_eq!(server.cli(&["release", "mnist@1"]).code, 4);
    // Its thread was replaced, so others are served as before; the lost one keeps the graph it runs.
    // The server ends when it is told to.
    let pixels = floats(&model_file("digit-7.f32"));
    assert_eq!(argmax(&server.infer_f32("mnist", "image", &DIGIT, &pixels)), 7);
    server.forget_all_but("mnist");
    let rest = server.at_rest();
    server.settles_to(&Holdings { graphs: rest.graphs + 1, ..rest });
    assert!(server.stop().success());
}

#[test]
fn an_endless_graph_is_refused_at_its_limit_of_processor_time() {
    let server = server();
    for backend in BACKENDS {
        let words = ["made-up inputs", "processor time", "gate.cpu_s", backend];
        refused(&server, &doubling(1 << 62), backend, "graph_run", &words);
        // It is the number that makes it endless.
        server.publish_onnx(backend, "1", &doubling(3), backend).ok();
    }
    still_serves(&server);
}

#[test]
fn a_graph_that_runs_past_the_wall_clock_is_refused_with_that_limit() {
    let server = with_mnist(Server::builder().config("[gate]\ntimeout_s = 2\n").start());
    refused(&server, &doubling(1 << 62), "auto", "graph_run", &["gate.timeout_s"]);
    still_serves(&server);
}

#[test]
fn a_graph_that_asks_for_64_tebibytes_is_refused_at_its_limit_of_memory() {
    let server = server();
    let elements = integers("shape", &[1], &[1 << 44]);
    let expand = node("", "Expand", &["x", "shape"], &["y"]);
    let fill =
        [node("", "ConstantOfShape", &["shape"], &["z"]), node("", "Add", &["x", "z"], &["y"])];
    for backend in BACKENDS {
        for nodes in [vec![expand.clone()], fill.to_vec()] {
            let bytes = file(one_to_one(nodes, vec![elements.clone()]));
            let counted = |check| {
                server.count(&format!("modelet_publications_refused_total{{check=\"{check}\"}}"))
            };
            let before = counted("graph_run") + counted("graph_load");
            let error = server.publish_onnx("m", "1", &bytes, backend).error(400);
            assert!(error.contains("gate.memory_bytes"), "{backend}: {error}");
            assert_eq!(counted("graph_run") + counted("graph_load"), before + 1);
        }
    }
    still_serves(&server);
}

#[test]
fn a_graph_that_overflows_its_engines_stack_ends_only_the_worker() {
    // rten plans a graph by recursion.
    const LENGTH: usize = 60_000;
    let server = server();
    let name = |index: usize| match index {
        0 => "x".to_owned(),
        LENGTH => "y".to_owned(),
        index => index.to_string(),
    };
    let chain = (0..LENGTH).map(|i| node("", "Neg", &[&name(i)], &[&name(i + 1)])).collect();
    let bytes = file(one_to_one(chain, Vec::new()));
    refused(&server, &bytes, "rten", "graph_load", &["crashes the process", "SIGABRT"]);
    still_serves(&server);
}

/// `y` is the least INT32 over `x - 1`: an overflow for the made-up input 0, which is a signal of the
/// processor where the engine does not look first.
fn overflowing_division() -> Vec<u8> {
    let number = |name: &str, value: i32| TensorProto {
        name: Some(name.to_owned()),
        dims: vec![1],
        data_type: Some(INT32),
        int32_data: vec![value],
        ..TensorProto::default()
    };
    let mut cast = node("", "Cast", &["x"], &["i"]);
    cast.attribute.push(AttributeProto {
        name: Some("to".to_owned()),
        r#type: Some(2),
        i: Some(i64::from(INT32)),
        ..AttributeProto::default()
    });
    let nodes = vec![
        cast,
        node("", "Sub", &["i", "one"], &["d"]),
        node("", "Div", &["least", "d"], &["q"]),
        node("", "Cast", &["q"], &["y"]),
    ];
    let mut graph = one_to_one(nodes, vec![number("one", 1), number("least", i32::MIN)]);
    let mut back = graph.node[0].attribute.clone();
    back[0].i = Some(1);
    graph.node[3].attribute = back;
    file(graph)
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_graph_that_makes_its_engine_crash_ends_only_the_worker() {
    let server = server();
    let words = ["crashes the process", "SIGFPE"];
    refused(&server, &overflowing_division(), "onnxruntime", "graph_run", &words);
    still_serves(&server);
}

#[test]
fn a_model_whose_functions_call_two_of_the_next_is_given_up_while_it_is_loaded() {
    let server = server();
    let functions: Vec<_> = (0..40)
        .map(|level| {
            let (name, next) = (format!("F{level}"), format!("F{}", level + 1));
            let mut function = function(&name, &next);
            function.node[0].output = vec!["half".to_owned()];
            function.node.push(node("com.example", &next, &["half"], &["b"]));
            function
        })
        .chain([FunctionProto {
            node: vec![node("", "Neg", &["a"], &["b"])],
            ..function("F40", "")
        }])
        .collect();
    let calls = file(one_to_one(vec![node("com.example", "F0", &["x"], &["y"])], Vec::new()));
    let bytes = changed(&calls, |model| model.functions = functions);
    refused(&server, &bytes, "onnxruntime", "graph_load", &["loading it", "gate."]);
    still_serves(&server);
}

/// A branch inside a branch, so many times.
fn nested(depth: usize) -> Vec<u8> {
    let leaf = |output: &str| GraphProto {
        name: Some("leaf".to_owned()),
        output: vec![value(output, &[1])],
        node: vec![node("", "Identity", &["x"], &[output])],
        ..GraphProto::default()
    };
    let mut inner = leaf("0");
    for level in 1..=depth {
        let output = if level == depth { "y".to_owned() } else { level.to_string() };
        let mut branch = node("", "If", &["on"], &[&output]);
        branch.attribute.push(body("then_branch", inner));
        branch.attribute.push(body("else_branch", leaf(&format!("else{level}"))));
        inner = graph(Vec::new(), vec![value(&output, &[1])], vec![branch]);
    }
    inner.input = vec![value("x", &[1]), typed("on", BOOL)];
    file(inner)
}

/// A model with a function whose body calls another one, by name.
fn function(name: &str, calls: &str) -> FunctionProto {
    let import = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("com.example".to_owned()),
        input: vec!["a".to_owned()],
        output: vec!["b".to_owned()],
        node: vec![node("com.example", calls, &["a"], &["b"])],
        opset_import: vec![import("", 17), import("com.example", 1)],
        ..FunctionProto::default()
    }
}

fn changed(bytes: &[u8], change: impl FnOnce(&mut ModelProto)) -> Vec<u8> {
    let mut model = ModelProto::decode(bytes).unwrap();
    change(&mut model);
    model.encode_to_vec()
}

/// Graphs that are odd in ways that parsers and engines were seen to fall over.
fn odd_graphs() -> Vec<(&'static str, Vec<u8>)> {
    let plain = file(one_to_one(vec![node("", "Neg", &["x"], &["y"])], Vec::new()));
    let calls_a = file(one_to_one(vec![node("com.example", "A", &["x"], &["y"])], Vec::new()));
    let constant = |dims: &[i64]| {
        let add = node("", "Add", &["x", "w"], &["y"]);
        let weights = TensorProto {
            name: Some("w".to_owned()),
            dims: dims.to_vec(),
            data_type: Some(1),
            raw_data: Some(vec![0; 4].into()),
            ..TensorProto::default()
        };
        file(one_to_one(vec![add], vec![weights]))
    };
    let cycle = vec![node("", "Add", &["x", "b"], &["y"]), node("", "Neg", &["y"], &["b"])];
    let step_zero = node("", "Slice", &["x", "zero", "one", "zero", "zero"], &["y"]);
    let number = |name, value| integers(name, &[1], &[value]);
    let slice = one_to_one(vec![step_zero], vec![number("zero", 0), number("one", 1)]);
    let far = node("", "Gather", &["x", "index"], &["y"]);
    vec![
        ("nested", nested(25)),
        ("too nested", nested(60)),
        ("opset", changed(&plain, |model| model.opset_import[0].version = Some(i64::MAX))),
        ("negative opset", changed(&plain, |model| model.opset_import[0].version = Some(-1))),
        ("ir version", changed(&plain, |model| model.ir_version = Some(i64::MAX))),
        ("no opset", changed(&plain, |model| model.opset_import.clear())),
        ("calls itself", changed(&calls_a, |model| model.functions = vec![function("A", "A")])),
        (
            "calls each other",
            changed(&calls_a, |model| {
                model.functions = vec![function("A", "B"), function("B", "A")];
            }),
        ),
        ("negative shape", constant(&[-1])),
        ("overflowing shape", constant(&[1 << 62, 4])),
        ("large shape", constant(&[1 << 40])),
        ("short data", constant(&[1000])),
        ("cycle", file(one_to_one(cycle, Vec::new()))),
        ("step of zero", file(slice)),
        ("far index", file(one_to_one(vec![far], vec![number("index", 1 << 40)]))),
        ("no graph", changed(&plain, |model| model.graph = None)),
    ]
}

#[test]
fn odd_graphs_are_refused_or_served_and_never_hurt_the_server() {
    let server = server();
    for backend in BACKENDS {
        for (name, bytes) in odd_graphs() {
            let answer =
                server.publish_onnx("odd", name.replace(' ', "-").as_str(), &bytes, backend);
            assert!(matches!(answer.status, 201 | 400), "{backend}: {name}: {}", answer.status);
        }
        // Those of a model that is there already would be conflicts.
        server.send("DELETE", "/api/v1/models/odd", &[], b"");
    }
    still_serves(&server);
}

#[test]
fn a_constant_whose_size_overflows_is_refused_by_name() {
    let server = server();
    let overflowing = odd_graphs().into_iter().find(|(name, _)| *name == "overflowing shape");
    for backend in BACKENDS {
        let bytes = &overflowing.as_ref().unwrap().1;
        refused(
            &server,
            bytes,
            backend,
            "graph_format",
            &["\"w\"", "more bytes than there can be"],
        );
    }
    still_serves(&server);
}

#[test]
fn damaged_graphs_are_refused_or_served_and_never_hurt_the_server() {
    const CUTS: usize = 12;
    const FLIPS: usize = 24;
    let server = server();
    let whole = model_file("mnist.onnx");
    let mut damaged: Vec<Vec<u8>> =
        (0..CUTS).map(|cut| whole[..whole.len() * cut / CUTS].to_vec()).collect();
    // Weights are most of the file and may be anything; structure is at its ends.
    let mut place = 7usize;
    for flip in 0..FLIPS {
        place = (place * 31 + 17) % 1500;
        let index = if flip % 2 == 0 { place } else { whole.len() - 1 - place };
        let mut bytes = whole.clone();
        bytes[index] ^= 1 << (flip % 8);
        damaged.push(bytes);
    }
    let mut refusals = 0;
    for (number, bytes) in damaged.iter().enumerate() {
        let answer = server.publish_onnx("damaged", &number.to_string(), bytes, "auto");
        assert!(matches!(answer.status, 201 | 400), "{number}: {}", answer.status);
        refusals += usize::from(answer.status == 400);
    }
    assert!(refusals >= CUTS, "{refusals}");
    still_serves(&server);
}

#[test]
fn external_data_is_never_a_file_of_the_host() {
    let server = server();
    let digest = {
        let document = server.get("/api/v1/models/mnist/versions/1").ok().json();
        let digest = document["assets"]["model.onnx"]["digest"].as_str().unwrap().to_owned();
        digest.strip_prefix("sha256:").unwrap().to_owned()
    };
    let blob = format!("blobs/sha256/{}/{digest}", &digest[..2]);
    for location in
        ["/etc/os-release", "../model.onnx", "../../etc/os-release", &format!("../{blob}")]
    {
        let bytes = with_external_weights(location);
        refused(&server, &bytes, "auto", "graph_files", &["\"w\"", location]);
    }
    // Names that could be assets, of files that are there but not in this version.
    for location in ["weights.bin", &blob, &digest] {
        let bytes = with_external_weights(location);
        refused(&server, &bytes, "auto", "graph_files", &[location, "no asset"]);
    }
    still_serves(&server);
}

#[test]
fn external_data_that_is_too_short_is_refused_by_the_worker_too() {
    let server = server();
    let bytes = with_external_weights("w.bin");
    let parts: [(&str, &[u8]); 2] = [("asset:model.onnx", &bytes), ("asset:w.bin", &[0; 4])];
    let error = server.publish("m", "1", &parts).error(400);
    assert!(error.contains("\"w\"") && error.contains("w.bin"), "{error}");
    still_serves(&server);
}

#[test]
fn an_operator_of_a_vendor_is_refused_by_name() {
    let server = server();
    let vendor = node("com.example", "Frobnicate", &["x"], &["y"]);
    let bytes = file(one_to_one(vec![vendor], Vec::new()));
    for backend in BACKENDS {
        refused(&server, &bytes, backend, "graph_load", &["com.example::Frobnicate"]);
    }
    still_serves(&server);
}

#[test]
fn a_graph_that_made_up_inputs_do_not_suit_is_published_with_a_warning() {
    let server = server();
    let shape = integers("shape", &[2], &[2, -1]);
    let reshape = node("", "Reshape", &["x", "shape"], &["y"]);
    let rows = graph(vec![value("x", &[-1])], vec![value("y", &[2, -1])], vec![reshape]);
    let bytes = file(GraphProto { initializer: vec![shape], ..rows });
    for backend in BACKENDS {
        let published = server.publish_onnx(backend, "1", &bytes, backend).ok().json();
        let warnings = published["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 1, "{published}");
        let warning = warnings[0].as_str().unwrap();
        assert!(warning.contains("made-up inputs") && warning.contains("model.onnx"), "{warning}");
        let input = json!({ "name": "x", "datatype": "FP32", "shape": [4], "data": [1, 2, 3, 4] });
        let path = format!("/v2/models/{backend}/infer");
        let answer = server.post(&path, &json!({ "inputs": [input] })).ok().json();
        assert_eq!(answer["outputs"][0]["shape"], json!([2, 2]));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.onnx");
    std::fs::write(&path, &bytes).unwrap();
    let output = server.cli(&["publish", "told", "1", "--onnx", path.to_str().unwrap()]);
    assert!(output.stderr.contains("warning: the graph"), "{}", output.stderr);
    assert_eq!(output.code, 0);
}

#[test]
fn a_graph_worker_that_is_killed_fails_only_its_publication_and_leaves_no_verdict() {
    let server = with_mnist(Server::builder().config("[gate]\ncpu_s = 600\n").start());
    let endless = doubling(1 << 62);
    for _ in 0..2 {
        let workers = server.count(WORKERS);
        std::thread::scope(|scope| {
            let publication =
                scope.spawn(|| server.publish_onnx("m", "1", &endless, "auto").error(400));
            let mut worker = None;
            eventually("a worker", || {
                worker = worker_of(server.pid(), "graph-worker");
                worker.is_some()
            });
            signal(worker.unwrap(), Signal::KILL);
            let error = publication.join().unwrap();
            assert!(error.contains("killed from outside"), "{error}");
        });
        assert_eq!(server.count(WORKERS), workers + 1);
    }
    server.publish_onnx("m", "1", &doubling(2), "auto").ok();
    still_serves(&server);
}

#[test]
fn a_worker_is_ended_when_nobody_waits_for_its_verdict() {
    let server = with_mnist(Server::builder().config("[gate]\ncpu_s = 600\n").start());
    let (content_type, body) = multipart(&[("asset:model.onnx", &doubling(1 << 62))]);
    let head = format!(
        "PUT /api/v1/models/m/versions/1 HTTP/1.1\r\nhost: localhost\r\n\
         content-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut publisher = TcpStream::connect(server.address()).unwrap();
    publisher.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    let mut worker = None;
    eventually("a worker", || {
        worker = worker_of(server.pid(), "graph-worker");
        worker.is_some()
    });
    drop(publisher);
    eventually("the worker's end", || !is_running(worker.unwrap()));
    server.get("/api/v1/models/m").error(404);
    still_serves(&server);
}

#[test]
fn a_worker_dies_with_its_server() {
    let mut server = with_mnist(Server::builder().config("[gate]\ncpu_s = 600\n").start());
    let endless = doubling(1 << 62);
    let (url, mut worker) = (format!("{}/api/v1/models/m/versions/1", server.url()), None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (content_type, body) = multipart(&[("asset:model.onnx", &endless)]);
            // Its server is killed under it.
            let _ = send(&url, "PUT", &[("content-type", &content_type)], &body);
        });
        eventually("a worker", || {
            worker = worker_of(server.pid(), "graph-worker");
            worker.is_some()
        });
        server.kill();
    });
    eventually("the worker's end", || !is_running(worker.unwrap()));
}

#[test]
fn a_verdict_is_found_out_once_for_all_models_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Server::builder().data_dir(folder.path()).config("[gate]\ncpu_s = 2\n").start();
    let server = with_mnist(start());
    assert_eq!(server.count(WORKERS), MNIST_WORKERS);
    server.publish_onnx("other", "1", &model_file("mnist.onnx"), "auto").ok();
    assert_eq!(server.count(WORKERS), MNIST_WORKERS);
    // Another engine is another verdict; so is another graph, also one that is refused.
    server.publish_onnx("other", "2", &model_file("mnist.onnx"), "rten").ok();
    refused(&server, &doubling(1 << 62), "auto", "graph_run", &["gate.cpu_s"]);
    assert_eq!(server.count(WORKERS), 2 * MNIST_WORKERS + 1);
    assert!(server.stop().success());

    let server = with_mnist(start());
    refused(&server, &doubling(1 << 62), "auto", "graph_run", &["gate.cpu_s"]);
    still_serves(&server);
    assert_eq!(server.count(WORKERS), 0);
    assert!(server.stop().success());

    // Verdicts that are damaged are found out again.
    for entry in std::fs::read_dir(folder.path().join("verdicts")).unwrap() {
        std::fs::write(entry.unwrap().path(), b"{\"key\":").unwrap();
    }
    let server = with_mnist(start());
    still_serves(&server);
    assert_eq!(server.count(WORKERS), MNIST_WORKERS);
}

#[test]
fn a_refusal_by_a_limit_is_forgotten_when_the_limit_changes() {
    let folder = tempfile::tempdir().unwrap();
    let start = |config: &str| Server::builder().data_dir(folder.path()).config(config).start();
    // 200 MB, beside which a worker of rten takes less than 100.
    let elements = integers("shape", &[1], &[50_000_000]);
    let expand = node("", "Expand", &["x", "shape"], &["y"]);
    let bytes = file(one_to_one(vec![expand], vec![elements]));
    let server = with_mnist(start("[gate]\nmemory_bytes = 250000000\n"));
    refused(&server, &bytes, "rten", "graph_run", &["gate.memory_bytes"]);
    assert!(server.stop().success());
    let server = start("");
    server.publish_onnx("m", "1", &bytes, "rten").ok();
}

#[test]
fn settings_of_the_gate_are_shown_with_their_reasons() {
    let server = Server::builder().config("[gate]\ncpu_s = 2\n").start();
    let settings = server.get("/api/v1/config").json();
    let of = |key: &str| {
        let all = settings["settings"].as_array().unwrap();
        all.iter().find(|setting| setting["key"] == key).cloned().unwrap_or(Value::Null)
    };
    assert_eq!(of("gate.cpu_s")["value"], 2);
    for key in
        ["gate.memory_bytes", "gate.memory_per_graph_byte", "gate.timeout_s", "gate.verdicts"]
    {
        assert!(!of(key)["reason"].as_str().unwrap().is_empty(), "{key}");
    }
}
