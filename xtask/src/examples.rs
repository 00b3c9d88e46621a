//! The example models in the demo: published by their packages and called with text, pictures, films
//! and sound.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cache::Partial;
use crate::guests::{self, EXAMPLES, TEST_GUESTS};
use crate::process::{self, workspace};
use crate::setup::Ready;

/// The second version of `embedding`, in its folder.
const SECOND: &str = "modelet-int8.toml";

/// Publishes every example, and a second version of one of them.
pub(crate) fn publish(ready: &Ready, url: &str) -> Result<()> {
    let examples = workspace().join("examples");
    let packages = EXAMPLES.iter().map(|example| examples.join(example));
    let mut packages = packages.chain([examples.join("embedding").join(SECOND)]);
    packages.try_for_each(|package| publish_package(ready, url, &package))
}

/// Publishes the models that only tests call.
pub(crate) fn publish_test_guests(ready: &Ready, url: &str) -> Result<()> {
    let examples = workspace().join("examples");
    TEST_GUESTS.iter().try_for_each(|guest| publish_package(ready, url, &examples.join(guest)))
}

/// Publishes the one in this folder below `examples`.
pub(crate) fn publish_one(ready: &Ready, url: &str, example: &str) -> Result<()> {
    publish_package(ready, url, &workspace().join("examples").join(example))
}

fn publish_package(ready: &Ready, url: &str, package: &Path) -> Result<()> {
    let mut publish = guests::modelet(ready);
    process::run(publish.args(["publish", "--server", url, "--package"]).arg(package))
}

/// Calls each of them and prints what it answered.
pub(crate) fn call(ready: &Ready, url: &str) -> Result<()> {
    embedding(ready, url)?;
    image_classifier(ready, url)?;
    recommender(ready, url)?;
    voice_activity(ready, url)?;
    chat(ready, url)?;
    transcriber(ready, url)
}

/// Two versions behind an alias: the same calls, before and after it moves.
fn embedding(ready: &Ready, url: &str) -> Result<()> {
    let texts = [
        "A man is eating food.",
        "Someone is having a meal.",
        "The stock market fell sharply today.",
    ];
    for version in ["1.0.0", "1.1.0"] {
        let mut alias = guests::modelet(ready);
        alias.args(["alias", "set", "embedding", "live", version, "--server", url]);
        process::output(&mut alias)?;
        let input = format!("text={}", json!(texts));
        let answer = infer(ready, url, "embedding", &["--input", &input])?;
        let vectors = numbers(&answer, 0)?;
        let cosine = |a: usize, b: usize| {
            let row = |index: usize| vectors.chunks(384).nth(index).unwrap_or_default();
            row(a).iter().zip(row(b)).map(|(a, b)| a * b).sum::<f64>()
        };
        let served = answer.get("model_version").and_then(Value::as_str).unwrap_or_default();
        println!(
            "    embedding@{served}: '{}' is {:.3} like '{}' and {:.3} like '{}'",
            texts[0],
            cosine(0, 1),
            texts[1],
            cosine(0, 2),
            texts[2]
        );
        ensure!(served == version, "the alias points at {version}, but {served} answered");
    }
    Ok(())
}

fn image_classifier(ready: &Ready, url: &str) -> Result<()> {
    for picture in ["coffee-palette.png", "camera-grey.jpg", "flower.jpg"] {
        let raw = raw_element(ready, picture, &ready.models.join("pictures").join(picture))?;
        let input = format!("image={}:1", raw.path().join("element").display());
        let answer = infer(ready, url, "image-classifier", &["--input-file", &input])?;
        let (labels, shares) = (texts(&answer, 0)?, numbers(&answer, 1)?);
        let first = labels.first().zip(shares.first()).context("no label")?;
        println!("    image-classifier: {picture} shows {} ({:.3})", first.0, first.1);
    }
    Ok(())
}

fn recommender(ready: &Ready, url: &str) -> Result<()> {
    let liked = "liked=[\"Toy Story\", \"Finding Nemo\"]";
    let answer = infer(ready, url, "recommender", &["--input", liked, "--input", "k=[4]"])?;
    println!(
        "    recommender: after Toy Story and Finding Nemo, {}",
        texts(&answer, 0)?.join(", ")
    );
    Ok(())
}

fn voice_activity(ready: &Ready, url: &str) -> Result<()> {
    let audio = format!("audio={}", ready.models.join("speech.f32").display());
    let answer = infer(ready, url, "voice-activity", &["--input-file", &audio])?;
    let segments = numbers(&answer, 0)?;
    let spoken = segments.chunks(2).map(|segment| match segment {
        [start, end] => format!("{start:.2} to {end:.2} s"),
        _ => String::new(),
    });
    println!("    voice-activity: there is speech from {}", spoken.collect::<Vec<_>>().join(", "));
    Ok(())
}

/// A raw prompt, whose next word the model is sure of.
fn chat(ready: &Ready, url: &str) -> Result<()> {
    let inputs = [
        "--input",
        r#"messages=["\"The capital of France is\""]"#,
        "--input",
        r#"parameters=["{\"temperature\": 0, \"max_tokens\": 1}"]"#,
    ];
    let said = texts(&infer(ready, url, "chat", &inputs)?, 0)?.concat();
    println!("    chat: 'The capital of France is' goes on with '{said}'");
    ensure!(said == " Paris", "it should go on with ' Paris'");
    Ok(())
}

fn transcriber(ready: &Ready, url: &str) -> Result<()> {
    let file = ready.models.join("recordings/two-cities.wav");
    let audio = raw_element(ready, "recording", &file)?;
    let audio = format!("audio={}:1", audio.path().join("element").display());
    let inputs = ["--input-file", &audio, "--input", r#"parameters=["{}"]"#];
    let text = texts(&infer(ready, url, "transcriber", &inputs)?, 0)?.concat();
    let beginning: String = text.chars().take(60).collect();
    println!("    transcriber: two-cities.wav says '{beginning}…'");
    ensure!(text.starts_with("It was the best of times."), "it heard '{beginning}'");
    Ok(())
}

/// A folder with the file `element`: a file as one raw element of BYTES, which has its length before it.
fn raw_element(ready: &Ready, name: &str, file: &Path) -> Result<Partial> {
    let bytes = fs::read(file).with_context(|| format!("no file {}", file.display()))?;
    let mut element = u32::try_from(bytes.len())?.to_le_bytes().to_vec();
    element.extend(bytes);
    let scratch = ready.scratch(name)?;
    fs::write(scratch.path().join("element"), element)?;
    Ok(scratch)
}

fn infer(ready: &Ready, url: &str, model: &str, inputs: &[&str]) -> Result<Value> {
    let mut infer = guests::modelet(ready);
    infer.args(["infer", model, "--json", "--server", url]).args(inputs);
    Ok(serde_json::from_slice(&process::output(&mut infer)?)?)
}

fn output(answer: &Value, place: usize) -> Result<&Vec<Value>> {
    let data = answer.pointer(&format!("/outputs/{place}/data")).and_then(Value::as_array);
    data.with_context(|| format!("no output {place} in {answer}"))
}

fn numbers(answer: &Value, place: usize) -> Result<Vec<f64>> {
    Ok(output(answer, place)?.iter().filter_map(Value::as_f64).collect())
}

fn texts(answer: &Value, place: usize) -> Result<Vec<String>> {
    let texts = output(answer, place)?.iter().filter_map(Value::as_str);
    Ok(texts.map(str::to_owned).collect())
}
