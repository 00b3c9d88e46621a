//! Known answers of real models, and that serving changes none of them.

use crate::harness::{Server, argmax, floats, largest_difference, model_file};

/// Values of one picture of a digit, and of its answer.
const DIGIT: usize = 28 * 28;
const SCORES: usize = 10;
/// How far an answer may be from the bare engine's: rounding, nothing more.
const TOLERANCE: f32 = 1e-4;

/// The 10,000 digits, their labels, and what the bare engine says of each.
struct Digits {
    pixels: Vec<f32>,
    labels: Vec<u8>,
    logits: Vec<f32>,
}

impl Digits {
    fn read() -> Self {
        Self {
            pixels: floats(&model_file("digits.f32")),
            labels: model_file("digits.u8"),
            logits: floats(&model_file("digits.logits.f32")),
        }
    }

    fn pixels(&self, first: usize, count: usize) -> &[f32] {
        &self.pixels[first * DIGIT..(first + count) * DIGIT]
    }

    fn logits(&self, first: usize, count: usize) -> &[f32] {
        &self.logits[first * SCORES..(first + count) * SCORES]
    }

    /// Calls the model with one digit and compares the answer with the bare engine's.
    #[track_caller]
    fn check_one(&self, server: &Server, model: &str, index: usize) {
        let answer = server.infer_f32(model, "image", &[1, 1, 28, 28], self.pixels(index, 1));
        let difference = largest_difference(&answer, self.logits(index, 1));
        assert!(difference < TOLERANCE, "digit {index} is off by {difference}");
    }
}

#[test]
fn finds_9974_of_the_10000_digits() {
    const ROWS: usize = 500;
    let (server, digits) = (Server::start(), Digits::read());
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "onnxruntime").ok();
    let mut right = 0;
    for first in (0..digits.labels.len()).step_by(ROWS) {
        let shape = [ROWS, 1, 28, 28];
        let answer = server.infer_f32("mnist", "image", &shape, digits.pixels(first, ROWS));
        assert!(largest_difference(&answer, digits.logits(first, ROWS)) < TOLERANCE);
        let found = answer.chunks_exact(SCORES).map(argmax);
        let labels = &digits.labels[first..first + ROWS];
        right += found.zip(labels).filter(|(found, label)| *found == **label as usize).count();
    }
    assert_eq!(right, 9_974);
}

#[test]
fn a_cup_of_coffee_is_espresso_on_both_backends() {
    let server = Server::start();
    let graph = model_file("efficientnet-lite0.onnx");
    for backend in ["onnxruntime", "rten"] {
        server.publish_onnx(backend, "1", &graph, backend).ok();
        for (picture, class) in [("coffee", 967), ("camera", 872), ("flower", 985), ("china", 698)]
        {
            let pixels = floats(&model_file(&format!("{picture}.f32")));
            let answer = server.infer_f32(backend, "image", &[1, 3, 224, 224], &pixels);
            assert_eq!(argmax(&answer), class, "{picture} on {backend}");
            let bare = floats(&model_file(&format!("{picture}.logits.f32")));
            let difference = largest_difference(&answer, &bare);
            assert!(difference < TOLERANCE, "{picture} on {backend} is off by {difference}");
        }
    }
}

#[test]
fn both_backends_answer_as_the_bare_engine_does() {
    let (server, digits) = (Server::start(), Digits::read());
    for backend in ["onnxruntime", "rten"] {
        server.publish_onnx(backend, "1", &model_file("mnist.onnx"), backend).ok();
        (0..250).for_each(|index| digits.check_one(&server, backend, index));
    }
}

#[test]
fn a_thousand_calls_one_after_another_answer_as_the_bare_engine_does() {
    let (server, digits) = (Server::start(), Digits::read());
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "onnxruntime").ok();
    (0..1000).for_each(|call| digits.check_one(&server, "mnist", call % 400));
}

#[test]
fn a_thousand_calls_at_once_answer_as_the_bare_engine_does() {
    const CALLERS: usize = 16;
    for backend in ["onnxruntime", "rten"] {
        let (server, digits) = (Server::start(), Digits::read());
        server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), backend).ok();
        std::thread::scope(|scope| {
            for caller in 0..CALLERS {
                let (server, digits) = (&server, &digits);
                scope.spawn(move || {
                    for call in (caller..1000).step_by(CALLERS) {
                        digits.check_one(server, "mnist", call % 400);
                    }
                });
            }
        });
    }
}
