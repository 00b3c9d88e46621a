//! How long the examples' own code takes in the sandbox, called again and again in this process, as
//! `examples/cost` calls the same code native.

use std::time::Duration;

use modelet_host::tensor::{Datatype, NamedTensor, Tensor, push_bytes_element};
use serde_json::json;

use crate::served::{Served, model_file};

/// Calls that are measured of each example.
const CALLS: usize = 400;
/// Calls before them.
const WARM_UP: usize = 20;

/// For each example, the median of what its guest code takes, in milliseconds.
pub fn measure() -> serde_json::Value {
    let served = Served::start(&std::env::current_exe().unwrap());
    let medians: Vec<_> = inputs()
        .into_iter()
        .map(|(name, inputs)| (name.to_owned(), json!(median(&served, name, &inputs))))
        .collect();
    serde_json::Value::Object(medians.into_iter().collect())
}

fn median(served: &Served, name: &str, inputs: &[NamedTensor]) -> f64 {
    let ready = served.example(name);
    let guest = |_| {
        let called = served.runtime().block_on(served.call(&ready, inputs.to_vec()));
        called.outcome.unwrap();
        called.guest
    };
    (0..WARM_UP).for_each(|call| _ = guest(call));
    let mut took: Vec<Duration> = (0..CALLS).map(guest).collect();
    took.sort();
    took[CALLS / 2].as_secs_f64() * 1e3
}

/// What each example is called with: the same as in `examples/cost`.
fn inputs() -> Vec<(&'static str, Vec<NamedTensor>)> {
    let text =
        "The quick brown fox jumps over the lazy dog, and nobody in the whole village knows why.";
    let titles = String::from_utf8(model_file("ease-titles.txt")).unwrap();
    let liked: Vec<_> = titles.lines().step_by(150).map(str::as_bytes).collect();
    let picture = model_file("pictures/flower.jpg");
    let audio = model_file("speech.f32");
    let length = audio.len() / 4;
    let audio = Tensor::new(Datatype::Fp32, vec![length], audio.into()).unwrap();
    let k = Tensor::new(Datatype::Int64, vec![1], 20i64.to_le_bytes().to_vec().into()).unwrap();
    vec![
        ("embedding", vec![("text".to_owned(), elements(&[text.as_bytes()]))]),
        ("image-classifier", vec![("image".to_owned(), elements(&[&picture]))]),
        ("recommender", vec![("liked".to_owned(), elements(&liked)), ("k".to_owned(), k)]),
        ("voice-activity", vec![("audio".to_owned(), audio)]),
    ]
}

/// A BYTES tensor of these elements.
pub(crate) fn elements(elements: &[&[u8]]) -> Tensor {
    let mut data = Vec::new();
    elements.iter().for_each(|element| push_bytes_element(&mut data, element).unwrap());
    Tensor::new(Datatype::Bytes, vec![elements.len()], data.into()).unwrap()
}
