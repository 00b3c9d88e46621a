//! How long the examples' own code takes in the sandbox, called again and again in this process with
//! graphs that answer at once, as `examples/cost` calls the same code native.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};

use modelet_host::tensor::{Datatype, NamedTensor, Tensor, push_bytes_element};
use serde_json::json;

use crate::graphs::Stub;
use crate::served::{Ready, Served, model_file, publish};

/// An example, its assets, and what it is called with.
struct Example {
    name: &'static str,
    assets: Vec<(&'static str, Vec<u8>)>,
    inputs: Vec<NamedTensor>,
}

/// Serves the examples whose components are in `folder`, by lines on standard input, and answers each
/// with a line of nanoseconds: `calls EXAMPLE N` with what the guest's code took in each of N calls,
/// `before EXAMPLE N` with what it took in one call that does N times what comes before the graph.
#[allow(clippy::print_stdout, reason = "what it prints is what it is for")]
pub fn serve(folder: &Path) {
    let served = Served::start(&std::env::current_exe().unwrap());
    let examples: Vec<(Example, Ready)> =
        [embedding, image_classifier, recommender, voice_activity, cost]
            .map(|example| example())
            .map(|example| {
                let ready = example.ready(&served, folder);
                (example, ready)
            })
            .into();
    let nanoseconds = |name: &str, inputs: Option<Vec<NamedTensor>>| {
        let (example, ready) = examples.iter().find(|(example, _)| example.name == name).unwrap();
        let inputs = inputs.unwrap_or_else(|| example.inputs.clone());
        let called = served.runtime().block_on(served.call(ready, inputs));
        called.outcome.unwrap();
        called.guest.as_nanos().to_string()
    };
    for line in std::io::stdin().lock().lines().map(Result::unwrap) {
        let words: Vec<_> = line.split(' ').collect();
        let count: i64 = words[2].parse().unwrap();
        let took = match words[0] {
            "before" => vec![nanoseconds("cost", Some(preparing(words[1], count)))],
            _ => (0..count).map(|_| nanoseconds(words[1], None)).collect(),
        };
        println!("{}", took.join(" "));
        std::io::stdout().flush().unwrap();
    }
}

impl Example {
    fn ready(&self, served: &Served, folder: &Path) -> Ready {
        let file = PathBuf::from(format!("{}.wasm", self.name.replace('-', "_")));
        let component = std::fs::read(folder.join(file)).unwrap();
        let manifest = json!({}).to_string();
        let mut parts = vec![
            ("manifest".to_owned(), manifest.as_bytes()),
            ("component".to_owned(), &component),
        ];
        let assets = self.assets.iter();
        parts.extend(assets.map(|(name, bytes)| (format!("asset:{name}"), bytes.as_slice())));
        let parts: Vec<_> = parts.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        publish(served.url(), self.name, &parts);
        served.ready(self.name)
    }
}

fn embedding() -> Example {
    let text =
        "The quick brown fox jumps over the lazy dog, and nobody in the whole village knows why.";
    let graph = Stub::default()
        .input("input_ids", Datatype::Int64, &["batch", "sequence"])
        .input("attention_mask", Datatype::Int64, &["batch", "sequence"])
        .floats("embedding", &[1, 384], 0.5);
    Example {
        name: "embedding",
        assets: vec![
            ("model.onnx", graph.file()),
            ("tokenizer.json", model_file("minilm-tokenizer.json")),
        ],
        inputs: vec![("text".to_owned(), elements(&[text.as_bytes()]))],
    }
}

fn image_classifier() -> Example {
    let graph = Stub::default()
        .input("image", Datatype::Fp32, &["batch", "3", "224", "224"])
        .floats("logits", &[1, 1000], 0.5);
    Example {
        name: "image-classifier",
        assets: vec![
            ("model.onnx", graph.file()),
            ("labels.txt", model_file("imagenet-labels.txt")),
        ],
        inputs: vec![("image".to_owned(), elements(&[&model_file("pictures/flower.jpg")]))],
    }
}

fn recommender() -> Example {
    let titles = model_file("ease-titles.txt");
    let liked = String::from_utf8(titles.clone()).unwrap();
    let liked: Vec<_> = liked.lines().step_by(150).map(str::as_bytes).collect();
    let k = Tensor::new(Datatype::Int64, vec![1], 20i64.to_le_bytes().to_vec().into()).unwrap();
    let graph = Stub::default()
        .input("history", Datatype::Int64, &["batch", "n"])
        .input("k", Datatype::Int64, &["1"])
        .floats("top_scores", &[1, 20], 0.5)
        .counted("top_ids", &[1, 20]);
    Example {
        name: "recommender",
        inputs: vec![("liked".to_owned(), elements(&liked)), ("k".to_owned(), k)],
        assets: vec![("model.onnx", graph.file()), ("titles.txt", titles)],
    }
}

fn voice_activity() -> Example {
    let audio = model_file("speech.f32");
    let length = audio.len() / 4;
    let audio = Tensor::new(Datatype::Fp32, vec![length], audio.into()).unwrap();
    let graph = Stub::default()
        .input("input", Datatype::Fp32, &["frames", "576"])
        .input("h", Datatype::Fp32, &["1", "1", "128"])
        .input("c", Datatype::Fp32, &["1", "1", "128"])
        .first_column("speech_probs", "input", "frames")
        .passed("hn", "h")
        .passed("cn", "c");
    Example {
        name: "voice-activity",
        assets: vec![("model.onnx", graph.file())],
        inputs: vec![("audio".to_owned(), audio)],
    }
}

/// The guest of `examples/cost`.
fn cost() -> Example {
    Example {
        name: "cost",
        assets: vec![
            ("tokenizer.json", model_file("minilm-tokenizer.json")),
            ("picture.jpg", model_file("pictures/flower.jpg")),
            ("titles.txt", model_file("ease-titles.txt")),
            ("speech.f32", model_file("speech.f32")),
        ],
        inputs: preparing("recommender", 1),
    }
}

/// What `cost` is called with: `count` times what an example does before its graph.
fn preparing(example: &str, count: i64) -> Vec<NamedTensor> {
    let count = Tensor::new(Datatype::Int64, vec![1], count.to_le_bytes().to_vec().into()).unwrap();
    vec![("example".to_owned(), elements(&[example.as_bytes()])), ("times".to_owned(), count)]
}

/// A BYTES tensor of these elements.
pub(crate) fn elements(elements: &[&[u8]]) -> Tensor {
    let mut data = Vec::new();
    elements.iter().for_each(|element| push_bytes_element(&mut data, element).unwrap());
    Tensor::new(Datatype::Bytes, vec![elements.len()], data.into()).unwrap()
}
