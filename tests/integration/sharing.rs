//! Runs that callers share: who shares them, who does not, and that nobody can tell.

use modelet_host::nn::onnx::proto::AttributeProto;
use serde_json::json;

use crate::graphs::{file, graph, node, value};
use crate::harness::{
    DIGIT, Server, eventually, floats, largest_difference, model_file, with_mnist,
};

/// Callers at once, and calls of each.
const CALLERS: usize = 12;
const CALLS: usize = 40;

/// How far an answer may be from the bare engine's: another number of rows is another order of additions.
const NEAR: f32 = 1e-4;

#[test]
fn show_says_how_many_rows_share_a_run_or_why_none_do() {
    let server = with_mnist(Server::start());
    let shown = server.get("/api/v1/models/mnist/versions/1").json();
    assert_eq!(shown["sharing"], json!({ "model.onnx": { "rows": 32, "reason": null } }));
    let mut softmax = node("", "Softmax", &["x"], &["y"]);
    softmax.attribute.push(AttributeProto {
        name: Some("axis".to_owned()),
        i: Some(0),
        r#type: Some(2),
        ..AttributeProto::default()
    });
    let shape = [-1, 2];
    let mixing = graph(vec![value("x", &shape)], vec![value("y", &shape)], vec![softmax]);
    server.publish_onnx("mixing", "1", &file(mixing), "auto").ok();
    let shown = server.get("/api/v1/models/mixing/versions/1").json();
    let sharing = &shown["sharing"]["model.onnx"];
    assert_eq!(sharing["rows"], 1, "{sharing}");
    assert!(sharing["reason"].as_str().unwrap().contains("works along the rows"), "{sharing}");
    let text = server.cli(&["show", "mixing@1"]).ok();
    assert!(text.contains("model.onnx: no, node"), "{text}");
}

#[test]
fn callers_at_once_share_runs_and_each_gets_its_own_answer() {
    // One thread, and no run on the thread that polls: callers wait for each other.
    let one = "[compute]\nthreads = 1\nshort_threads = 1\ninline_run_us = 0\n";
    let server = with_mnist(Server::builder().config(one).start());
    let (pixels, logits) =
        (floats(&model_file("digits.f32")), floats(&model_file("digits.logits.f32")));
    let calls = |caller: usize| {
        for call in 0..CALLS {
            let digit = caller * CALLS + call;
            let input = &pixels[digit * 784..(digit + 1) * 784];
            let answer = server.infer_f32("mnist", "image", &DIGIT, input);
            let wanted = &logits[digit * 10..(digit + 1) * 10];
            assert!(largest_difference(&answer, wanted) < NEAR, "digit {digit}: {answer:?}");
        }
    };
    let round = || {
        std::thread::scope(|scope| {
            (0..CALLERS).for_each(|caller| _ = scope.spawn(move || calls(caller)));
        });
    };
    eventually("a shared run", || {
        round();
        server.metric("modelet_shared_calls") > 0
    });
    eventually("the end of all jobs", || server.metric("modelet_compute_queue_jobs") == 0);
}
