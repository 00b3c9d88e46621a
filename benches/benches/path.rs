//! From decoded tensors to output tensors: through a sandbox and wasi-nn, and by the bare engine.

#![allow(missing_docs, reason = "criterion's macros make functions without docstrings")]
#![allow(clippy::unwrap_used, reason = "a measurement that fails may panic")]

use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use modelet_benches::graphs;
use modelet_benches::served::{Ready, Served, floats, model_file};
use modelet_host::tensor::NamedTensor;

fn both(criterion: &mut Criterion, served: &Served, ready: &Ready, name: &str, input: NamedTensor) {
    let mut group = criterion.benchmark_group(name);
    let inputs = [input.clone()];
    group.bench_function("bare", |b| b.iter(|| ready.bare(&inputs)));
    group.bench_function("sandbox", |b| {
        b.to_async(Runtime(served)).iter(|| served.call(ready, vec![input.clone()]));
    });
    group.finish();
}

/// The host's own runtime, as criterion wants it.
struct Runtime<'a>(&'a Served);

impl criterion::async_executor::AsyncExecutor for Runtime<'_> {
    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.runtime().block_on(future)
    }
}

fn path(criterion: &mut Criterion) {
    let served = Served::start(Path::new(env!("CARGO_BIN_EXE_modelet-bench")));
    let identity = served.graph("identity", &graphs::identity());
    for (name, floats_in) in
        [("64 B", 16), ("64 KiB", 16 << 10), ("1 MiB", 256 << 10), ("64 MiB", 16 << 20)]
    {
        let input = floats("x", &[floats_in], |index| index as f32);
        both(criterion, &served, &identity, name, input);
    }
    let mnist = served.graph("mnist", &model_file("mnist.onnx"));
    both(
        criterion,
        &served,
        &mnist,
        "mnist",
        floats("image", &[1, 1, 28, 28], |i| (i % 255) as f32 / 255.0),
    );
    let net = served.graph("net", &model_file("efficientnet-lite0.onnx"));
    both(
        criterion,
        &served,
        &net,
        "efficientnet",
        floats("image", &[1, 3, 224, 224], |i| (i % 255) as f32 / 255.0),
    );
}

criterion_group! {
    name = all;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(500)).measurement_time(std::time::Duration::from_secs(2));
    targets = path
}
criterion_main!(all);
