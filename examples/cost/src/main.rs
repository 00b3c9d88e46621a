//! What the examples' own code costs in the sandbox, against the same code native.
//!
//! First what an example does before its graph, as a loop within one call: code against the same code.
//! Then whole calls, with a graph that answers at once: also what comes after the graph, and the tensors'
//! way to it and back. Native here, in the sandbox by `modelet-bench guests`, which says what the guest's
//! code took; blocks of the two alternate.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement that fails may panic"
)]
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use cost::{Cost, TEXT};
use modelet_guest::testing::{Host, Inputs, Output, call};
use modelet_guest::{Model, Result, Tensor};

/// Pairs of blocks, whose calls' median counts.
const PAIRS: usize = 21;
/// Calls of a block: one way, then the other, each with the processor's caches to itself.
const BLOCK: usize = 20;

type Outputs = Result<Vec<(&'static str, Output)>>;

/// A file of the folder that `cargo xtask setup` makes.
fn model_file(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("MODELET_MODELS").expect("MODELET_MODELS, which xtask sets");
    std::fs::read(PathBuf::from(folder).join(name)).unwrap()
}

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().expect("modelet-bench");
    let folder = arguments.next().expect("the folder of the examples' components");
    let mut sandbox = Sandbox::start(program, folder);
    println!("{:<17} {:>10} {:>10} {:>6}", "before the graph", "native", "sandbox", "ratio");
    before_the_graph(&mut sandbox);
    println!("{:<17} {:>10} {:>10} {:>6}", "whole call", "native", "sandbox", "ratio");
    embedding(&mut sandbox);
    image_classifier(&mut sandbox);
    recommender(&mut sandbox);
    voice_activity(&mut sandbox);
}

/// The examples, and how often a block does what they do before their graphs.
const EXAMPLES: [(&str, i64); 4] =
    [("embedding", 400), ("image-classifier", 5), ("recommender", 4000), ("voice-activity", 100)];

fn before_the_graph(sandbox: &mut Sandbox) {
    let host = Host::new()
        .asset("tokenizer.json", model_file("minilm-tokenizer.json"))
        .asset("picture.jpg", model_file("pictures/flower.jpg"))
        .asset("titles.txt", model_file("ease-titles.txt"))
        .asset("speech.f32", model_file("speech.f32"));
    let _host = host.install();
    let mut cost = Cost::load_model().unwrap();
    for (name, times) in EXAMPLES {
        let inputs = || {
            let name = Tensor::vector(vec![name.to_owned()]);
            vec![("example", name.into()), ("times", Tensor::vector(vec![times]).into())]
        };
        let mut native = || native_block(&mut cost, 1, inputs)[0] / times as f64;
        let mut guest = || sandbox.ask("before", name, times)[0] / times as f64;
        // The first of each warms the caches.
        (native(), guest());
        let (native, guest): (Vec<_>, Vec<_>) = (0..PAIRS).map(|_| (native(), guest())).unzip();
        line(name, native, guest);
    }
}

fn embedding(sandbox: &mut Sandbox) {
    let graph = |_: &mut Inputs| -> Outputs {
        Ok(vec![("embedding", Tensor::new([1, 384], vec![0.5f32; 384])?.into())])
    };
    let tokenizer = model_file("minilm-tokenizer.json");
    let host = Host::new().asset("tokenizer.json", tokenizer).graph("model.onnx", graph);
    let inputs = || vec![("text", Tensor::vector(vec![TEXT.to_owned()]).into())];
    compare::<embedding::Embedding>(sandbox, "embedding", host, inputs);
}

fn image_classifier(sandbox: &mut Sandbox) {
    let graph = |_: &mut Inputs| -> Outputs {
        Ok(vec![("logits", Tensor::new([1, 1000], vec![0.5f32; 1000])?.into())])
    };
    let labels = model_file("imagenet-labels.txt");
    let picture = model_file("pictures/flower.jpg");
    let host = Host::new().asset("labels.txt", labels).graph("model.onnx", graph);
    let inputs = || vec![("image", Tensor::vector(vec![picture.clone()]).into())];
    compare::<image_classifier::ImageClassifier>(sandbox, "image-classifier", host, inputs);
}

fn recommender(sandbox: &mut Sandbox) {
    let graph = |_: &mut Inputs| -> Outputs {
        let scores = Tensor::new([1, 20], vec![0.5f32; 20])?;
        let ids = Tensor::new([1, 20], (0..20).collect::<Vec<i64>>())?;
        Ok(vec![("top_scores", scores.into()), ("top_ids", ids.into())])
    };
    let titles = model_file("ease-titles.txt");
    let liked = String::from_utf8(titles.clone()).unwrap();
    let liked: Vec<_> = liked.lines().step_by(150).map(str::to_owned).collect();
    let host = Host::new().asset("titles.txt", titles).graph("model.onnx", graph);
    let inputs = || {
        let liked = Tensor::vector(liked.clone());
        vec![("liked", liked.into()), ("k", Tensor::vector(vec![20i64]).into())]
    };
    compare::<recommender::Recommender>(sandbox, "recommender", host, inputs);
}

fn voice_activity(sandbox: &mut Sandbox) {
    let graph = |inputs: &mut Inputs| -> Outputs {
        let frames = inputs.take::<f32>("input")?.shape()[0];
        let state = || Tensor::new([1, 1, 128], vec![0.5f32; 128]);
        let speech = Tensor::vector(vec![0.5f32; frames]);
        Ok(vec![("speech_probs", speech.into()), ("hn", state()?.into()), ("cn", state()?.into())])
    };
    let bytes = model_file("speech.f32");
    let audio: Vec<_> =
        bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
    let host = Host::new().graph("model.onnx", graph);
    let inputs = || vec![("audio", Tensor::vector(audio.clone()).into())];
    compare::<voice_activity::VoiceActivity>(sandbox, "voice-activity", host, inputs);
}

/// The other program, which calls the examples in the sandbox.
struct Sandbox {
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Sandbox {
    fn start(program: OsString, folder: OsString) -> Self {
        let mut command = Command::new(program);
        command.arg("guests").arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { asks: child.stdin.take().unwrap(), answers }
    }

    /// The milliseconds that each of `count` calls took, or the one that does all of them.
    fn ask(&mut self, what: &str, name: &str, count: i64) -> Vec<f64> {
        writeln!(self.asks, "{what} {name} {count}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.split_whitespace().map(|ns| ns.parse::<f64>().unwrap() / 1e6).collect()
    }
}

/// Measures one example both ways and prints a line.
fn compare<M: Model>(
    sandbox: &mut Sandbox,
    name: &str,
    host: Host,
    inputs: impl Fn() -> Vec<(&'static str, Output)>,
) {
    let _host = host.install();
    let mut model = M::load_model().unwrap();
    let (mut native, mut guest) = (Vec::new(), Vec::new());
    // The first block of each loads the model.
    for counts in std::iter::once(false).chain([true; PAIRS]) {
        let one = native_block(&mut model, BLOCK, &inputs);
        let other = sandbox.ask("calls", name, BLOCK as i64);
        if counts {
            native.extend(one);
            guest.extend(other);
        }
    }
    line(name, native, guest);
}

fn line(name: &str, native: Vec<f64>, guest: Vec<f64>) {
    let (native, guest) = (median(native), median(guest));
    println!("{name:<17} {native:>7.4} ms {guest:>7.4} ms {:>6.2}", guest / native);
}

/// The milliseconds that each of a block of native calls took.
fn native_block<M: Model>(
    model: &mut M,
    calls: usize,
    inputs: impl Fn() -> Vec<(&'static str, Output)>,
) -> Vec<f64> {
    let call = |_| {
        let given = inputs();
        let begun = Instant::now();
        call(model, given).unwrap();
        begun.elapsed().as_secs_f64() * 1e3
    };
    (0..calls).map(call).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
