//! What the examples' own code costs in the sandbox, against the same code native.
//!
//! Native, a model is called with a graph that answers at once; in the sandbox, the time that a server
//! says its guest code took. Both do all that the model does but the graph: decoding, tokenizing,
//! ranking, and the tensors' way to the graph and back. Blocks of calls of the two alternate.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement that fails may panic"
)]
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::path::PathBuf;
use std::time::Instant;

use modelet_guest::testing::{Host, Inputs, Output, call};
use modelet_guest::{Model, Result, Tensor};
use serde_json::{Value, json};

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

/// An input as the Open Inference Protocol's binary form has it.
struct Sent {
    name: &'static str,
    datatype: &'static str,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn main() {
    let server = std::env::args().nth(1).expect("the server's address");
    println!("{:<17} {:>10} {:>10} {:>6}", "example", "native", "sandbox", "ratio");
    embedding(&server);
    image_classifier(&server);
    recommender(&server);
    voice_activity(&server);
}

fn embedding(server: &str) {
    let text =
        "The quick brown fox jumps over the lazy dog, and nobody in the whole village knows why.";
    let graph = |_: &mut Inputs| -> Outputs {
        Ok(vec![("embedding", Tensor::new([1, 384], vec![0.5f32; 384])?.into())])
    };
    let tokenizer = model_file("minilm-tokenizer.json");
    let host = Host::new().asset("tokenizer.json", tokenizer).graph("model.onnx", graph);
    let inputs = || vec![("text", Tensor::vector(vec![text.to_owned()]).into())];
    let sent =
        Sent { name: "text", datatype: "BYTES", shape: vec![1], bytes: one(text.as_bytes()) };
    compare::<embedding::Embedding>(server, "embedding", host, inputs, &[sent]);
}

fn image_classifier(server: &str) {
    let graph = |_: &mut Inputs| -> Outputs {
        Ok(vec![("logits", Tensor::new([1, 1000], vec![0.5f32; 1000])?.into())])
    };
    let labels = model_file("imagenet-labels.txt");
    let picture = model_file("pictures/flower.jpg");
    let host = Host::new().asset("labels.txt", labels).graph("model.onnx", graph);
    let inputs = || vec![("image", Tensor::vector(vec![picture.clone()]).into())];
    let sent = Sent { name: "image", datatype: "BYTES", shape: vec![1], bytes: one(&picture) };
    compare::<image_classifier::ImageClassifier>(server, "image-classifier", host, inputs, &[sent]);
}

fn recommender(server: &str) {
    let graph = |_: &mut Inputs| -> Outputs {
        let scores = Tensor::new([1, 20], vec![0.5f32; 20])?;
        let ids = Tensor::new([1, 20], (0..20).collect::<Vec<i64>>())?;
        Ok(vec![("top_scores", scores.into()), ("top_ids", ids.into())])
    };
    let titles = model_file("ease-titles.txt");
    let liked = String::from_utf8(titles.clone()).unwrap();
    let liked: Vec<_> = liked.lines().step_by(150).map(str::to_owned).collect();
    let bytes = liked.iter().flat_map(|title| one(title.as_bytes())).collect();
    let host = Host::new().asset("titles.txt", titles).graph("model.onnx", graph);
    let sent = [
        Sent { name: "liked", datatype: "BYTES", shape: vec![liked.len()], bytes },
        Sent { name: "k", datatype: "INT64", shape: vec![1], bytes: 20i64.to_le_bytes().to_vec() },
    ];
    let inputs = || {
        let liked = Tensor::vector(liked.clone());
        vec![("liked", liked.into()), ("k", Tensor::vector(vec![20i64]).into())]
    };
    compare::<recommender::Recommender>(server, "recommender", host, inputs, &sent);
}

fn voice_activity(server: &str) {
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
    let shape = vec![audio.len()];
    let inputs = || vec![("audio", Tensor::vector(audio.clone()).into())];
    let sent = Sent { name: "audio", datatype: "FP32", shape, bytes };
    compare::<voice_activity::VoiceActivity>(server, "voice-activity", host, inputs, &[sent]);
}

/// An element of BYTES: behind its length.
fn one(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

/// Measures one example both ways and prints a line.
fn compare<M: Model>(
    server: &str,
    name: &str,
    host: Host,
    inputs: impl Fn() -> Vec<(&'static str, Output)>,
    sent: &[Sent],
) {
    let _host = host.install();
    let mut model = M::load_model().unwrap();
    let (mut native, mut sandbox) = (Vec::new(), Vec::new());
    // The first block of each loads the model.
    for counts in std::iter::once(false).chain([true; PAIRS]) {
        let one = native_block(&mut model, &inputs);
        let other: Vec<_> = (0..BLOCK).map(|_| guest_ms(server, name, sent)).collect();
        if counts {
            native.extend(one);
            sandbox.extend(other);
        }
    }
    let (native, sandbox) = (median(native), median(sandbox));
    println!("{name:<17} {native:>7.3} ms {sandbox:>7.3} ms {:>6.2}", sandbox / native);
}

/// The milliseconds that each of a block of native calls took.
fn native_block<M: Model>(
    model: &mut M,
    inputs: impl Fn() -> Vec<(&'static str, Output)>,
) -> Vec<f64> {
    let call = |_| {
        let given = inputs();
        let begun = Instant::now();
        call(model, given).unwrap();
        begun.elapsed().as_secs_f64() * 1e3
    };
    (0..BLOCK).map(call).collect()
}

/// Calls the server and gives the milliseconds that its guest code took.
fn guest_ms(server: &str, name: &str, sent: &[Sent]) -> f64 {
    let input = |sent: &Sent| {
        json!({ "name": sent.name, "datatype": sent.datatype, "shape": sent.shape,
            "parameters": { "binary_data_size": sent.bytes.len() } })
    };
    let head: Vec<Value> = sent.iter().map(input).collect();
    let head = json!({ "inputs": head, "parameters": { "binary_data_output": true } }).to_string();
    let length = head.len().to_string();
    let mut body = head.into_bytes();
    sent.iter().for_each(|sent| body.extend_from_slice(&sent.bytes));
    let answer = ureq::post(format!("{server}/v2/models/{name}/versions/1.0.0/infer"))
        .header("inference-header-content-length", &length)
        .send(&body[..])
        .unwrap();
    let timing = answer.headers()["server-timing"].to_str().unwrap().to_owned();
    let guest = timing.split(", ").find_map(|entry| entry.strip_prefix("guest;dur="));
    guest.unwrap().parse().unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
