//! The demo: real models published to a real server and called with real inputs.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::args::{DEFAULT_LISTEN, DemoOptions};
use crate::examples;
use crate::guests;
use crate::process;
use crate::server::Server;
use crate::setup::{self, Ready};
use crate::stages::Stages;

/// The version under which the models are published.
const VERSION: &str = "1.0.0";

/// What `index.json` in the folder of models says.
struct Index(Value);

/// `cargo xtask demo`.
pub(crate) fn run(options: &DemoOptions) -> Result<()> {
    let mut stages = Stages::default();
    let ready = stages.run("set up", || setup::prepare(&[]))?;
    stages.run("WebAssembly toolchain", guests::provide_toolchain)?;
    stages.run("build", || build(&ready))?;
    stages.run("build the examples", || guests::build(&ready))?;
    let server = show(&mut stages, &ready, options)?;
    if options.once {
        return stages.run("stop", || server.stop());
    }
    drop(stages);
    println!("\nThe server runs on at {}. Try:", server.url);
    println!("    {} models --server {}", ready.built("modelet").display(), server.url);
    println!("Stop it with Ctrl-C or `kill {}`.", server.id);
    server.wait()
}

/// The demo from start to stop, and once more with the data that the first one left.
pub(crate) fn twice(ready: &Ready) -> Result<()> {
    let data_dir = ready.scratch("demo-twice")?;
    let options = DemoOptions {
        once: true,
        listen: DEFAULT_LISTEN.to_owned(),
        data_dir: Some(data_dir.path().to_owned()),
    };
    for _ in 0..2 {
        show(&mut Stages::default(), ready, &options)?.stop()?;
    }
    Ok(())
}

/// Everything between the build and the stop; gives the server, which runs.
fn show(stages: &mut Stages, ready: &Ready, options: &DemoOptions) -> Result<Server> {
    let data_dir = options.data_dir.clone().unwrap_or_else(|| ready.folder("demo"));
    let data_dir = std::path::absolute(data_dir)?;
    let server = stages.run("start", || Server::start(ready, &options.listen, &data_dir))?;
    println!("    {}", server.url);
    stages.run("publish", || publish(ready, &server.url))?;
    stages.run("call", || call(ready, &server.url))?;
    stages.run("publish the examples", || examples::publish(ready, &server.url))?;
    stages.run("call the examples", || examples::call(ready, &server.url))?;
    stages.run("account", || modelet(ready, &server.url, &["efficiency"], &[]))?;
    Ok(server)
}

/// Builds the `modelet` command.
pub(crate) fn build(ready: &Ready) -> Result<()> {
    process::run(ready.cargo().args([
        "build",
        "--workspace",
        "--profile",
        "ci",
        "--bin",
        "modelet",
    ]))
}

/// Publishes the models there are; a model that is there already is no error.
pub(crate) fn publish(ready: &Ready, url: &str) -> Result<()> {
    let index = Index::read(&ready.models)?;
    let (correct, count) = index.digits()?;
    let accuracy = (correct as f64 / count as f64).to_string();
    let method = format!("share of {count} test digits recognised");
    let dataset = format!("sha256:{}", index.text("/tensors/digits/sha256")?);
    let digits = [
        "--description=recognises a handwritten digit",
        "--accuracy",
        &accuracy,
        "--accuracy-method",
        &method,
        "--accuracy-dataset",
        &dataset,
    ];
    publish_one(ready, url, "mnist", &digits)?;
    let photographs = ["--description=recognises one of the thousand classes of ImageNet"];
    publish_one(ready, url, "efficientnet-lite0", &photographs)
}

fn publish_one(ready: &Ready, url: &str, model: &str, annotations: &[&str]) -> Result<()> {
    let file = ready.models.join(format!("{model}.onnx"));
    let file = file.to_str().context("the cache's path is not UTF-8")?;
    modelet(ready, url, &["publish", model, VERSION, "--onnx", file], annotations)
}

/// Calls each model with each of its inputs and prints what it recognised.
fn call(ready: &Ready, url: &str) -> Result<()> {
    for digit in 0..10 {
        let name = format!("digit-{digit}");
        let (best, probability) = recognise(ready, url, "mnist", &name, "1x1x28x28")?;
        println!("    mnist: {name} is a {best} ({probability:.3})");
    }
    let labels = std::fs::read_to_string(ready.models.join("imagenet-labels.txt"))?;
    for name in Index::read(&ready.models)?.photographs()? {
        let (best, probability) =
            recognise(ready, url, "efficientnet-lite0", &name, "1x3x224x224")?;
        let label = labels.lines().nth(best).context("a class without a label")?;
        println!("    efficientnet-lite0: {name} shows {label} ({probability:.3})");
    }
    Ok(())
}

/// The most probable class of one input, and its probability.
fn recognise(
    ready: &Ready,
    url: &str,
    model: &str,
    input: &str,
    shape: &str,
) -> Result<(usize, f64)> {
    let file = ready.models.join(format!("{input}.f32"));
    let tensor = format!("image={}:{shape}", file.display());
    let mut infer = ready.command(ready.built("modelet"));
    infer.args(["infer", model, "--json", "--server", url, "--input-file", &tensor]);
    let answer: Value = serde_json::from_slice(&process::output(&mut infer)?)?;
    let logits = answer.pointer("/outputs/0/data").and_then(Value::as_array);
    let logits = logits.with_context(|| format!("the answer has no output: {answer}"))?;
    best(&logits.iter().filter_map(Value::as_f64).collect::<Vec<_>>())
}

/// The index of the largest logit, and its share of the softmax.
fn best(logits: &[f64]) -> Result<(usize, f64)> {
    let largest = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    let (index, largest) = largest.context("the answer is empty")?;
    let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    Ok((index, 1.0 / sum))
}

fn modelet(ready: &Ready, url: &str, command: &[&str], options: &[&str]) -> Result<()> {
    let mut modelet = ready.command(ready.built("modelet"));
    process::run(modelet.args(command).args(options).args(["--server", url]))
}

impl Index {
    fn read(models: &Path) -> Result<Self> {
        let text = std::fs::read(models.join("index.json")).context("no index of the models")?;
        Ok(Self(serde_json::from_slice(&text)?))
    }

    /// Digits that the bare engine recognises, and digits there are.
    fn digits(&self) -> Result<(u64, u64)> {
        let number = |pointer| self.0.pointer(pointer).and_then(Value::as_u64);
        number("/digits/correct").zip(number("/digits/count")).context("index.json has no digits")
    }

    fn text(&self, pointer: &str) -> Result<&str> {
        let text = self.0.pointer(pointer).and_then(Value::as_str);
        text.with_context(|| format!("index.json has no {pointer}"))
    }

    fn photographs(&self) -> Result<Vec<String>> {
        let entries = self.0.get("photographs").and_then(Value::as_array);
        let entries = entries.context("index.json has no photographs")?;
        let names = entries.iter().filter_map(|entry| entry.get("name")?.as_str());
        Ok(names.map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_class_comes_with_its_softmax() {
        let (index, probability) = best(&[0.0, 3f64.ln(), 0.0]).unwrap();
        assert_eq!(index, 1);
        assert!((probability - 0.6).abs() < 1e-12);
        assert!(best(&[]).is_err());
    }
}
