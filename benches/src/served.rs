//! A host in this process, as it ships: all limits, the ledger and epochs on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use modelet_host::config::{Config, DataDir};
use modelet_host::engine::call::{Call, Called};
use modelet_host::engine::deployment::Deployment;
use modelet_host::engine::memory;
use modelet_host::host::{Host, Options};
use modelet_host::names::Target;
use modelet_host::nn::graph::Graph;
use modelet_host::registry::Version;
use modelet_host::server;
use modelet_host::tensor::{AlignedBuffer, Datatype, NamedTensor, Tensor};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// When a call of a benchmark is given up on.
const PATIENCE: Duration = Duration::from_secs(30);

/// A host that serves, and the runtime it serves on.
pub struct Served {
    runtime: Runtime,
    host: Arc<Host>,
    url: String,
    _data: TempDir,
}

/// A version of a model that is ready.
#[derive(Clone)]
pub struct Ready {
    version: Arc<Version>,
    deployment: Arc<Deployment>,
}

impl Served {
    /// Starts a host with the defaults; `worker` is the program that has its workers' commands.
    pub fn start(worker: &Path) -> Self {
        Self::start_with(worker, |_| ())
    }

    /// Starts a host with settings of its own.
    pub fn start_with(worker: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        memory::keep_free_memory();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let data = tempfile::tempdir().unwrap();
        let options = Options {
            config,
            data_dir: DataDir::new(data.path()),
            worker: worker.to_owned(),
            set_log_level: None,
        };
        let host = Host::start(options).unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.block_on(async {
            host.spawn_background();
            tokio::spawn(server::serve(Arc::clone(&host), listener, std::future::pending()));
        });
        Self { runtime, host, url, _data: data }
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it serves on.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The host.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Publishes a graph to be served as it is, and makes it ready.
    pub fn graph(&self, model: &str, graph: &[u8]) -> Ready {
        let manifest = json!({ "pool": { "max_instances": 16 } }).to_string();
        publish(
            &self.url,
            model,
            &[("manifest", manifest.as_bytes()), ("asset:model.onnx", graph)],
        );
        self.ready(model)
    }

    /// Publishes an example, which has been built, and makes it ready.
    pub fn example(&self, name: &str) -> Ready {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        let package = package.to_str().unwrap();
        let args = ["modelet", "--json", "publish", "--package", package, "--server", self.url()];
        modelet_cli::main(args.map(Into::into));
        self.ready(name)
    }

    /// The version of a published model that is live, made ready.
    pub fn ready(&self, model: &str) -> Ready {
        let snapshot = self.host.snapshot();
        let model = snapshot.get(model).unwrap();
        let version = Arc::clone(model.resolve(&Target::Live, 0).unwrap());
        let getting = self.host.deployments().get(&version, Instant::now() + PATIENCE);
        let deployment = self.runtime.block_on(getting).unwrap();
        Ready { version, deployment }
    }

    /// What calls it, from any task.
    pub fn caller(&self) -> Caller {
        Caller(Arc::clone(&self.host))
    }

    /// The data path from decoded tensors to output tensors.
    pub async fn call(&self, ready: &Ready, inputs: Vec<NamedTensor>) -> Called {
        self.caller().call(ready, inputs).await
    }
}

/// Calls a host.
#[derive(Clone)]
pub struct Caller(Arc<Host>);

impl Caller {
    /// The data path from decoded tensors to output tensors: acquire, call, account.
    pub async fn call(&self, ready: &Ready, inputs: Vec<NamedTensor>) -> Called {
        let deadline = Instant::now() + PATIENCE;
        let lease = ready.deployment.pool().acquire(deadline).await.unwrap();
        let version = Arc::clone(&ready.version);
        let call =
            Call { lease, inputs, version, request: "bench".to_owned(), deadline, emitter: None };
        ready.deployment.answer(call, self.0.background()).await
    }
}

impl Ready {
    /// The graph that takes an input of this name.
    pub fn graph_of(&self, input: &str) -> Arc<Graph> {
        let takes =
            |graph: &&Arc<Graph>| graph.signature().inputs.iter().any(|spec| spec.name == input);
        Arc::clone(self.deployment.graphs().find(takes).unwrap())
    }

    /// The same graph without a sandbox, on the calling thread.
    pub fn bare(&self, inputs: &[NamedTensor]) -> Vec<NamedTensor> {
        let graph = self.deployment.graphs().next().unwrap();
        graph.run(inputs, &modelet_host::nn::backend::Cancel::new()).unwrap()
    }
}

/// Publishes version 1 of a model from parts: `manifest`, `component`, `asset:NAME`.
pub fn publish(url: &str, model: &str, parts: &[(&str, &[u8])]) {
    const BOUNDARY: &str = "modelet-bench-boundary";
    let mut body = Vec::new();
    for (name, bytes) in parts {
        let file = if *name == "manifest" { "" } else { "; filename=\"f\"" };
        let head = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    let mut answer = ureq::put(format!("{url}/api/v1/models/{model}/versions/1"))
        .config()
        .http_status_as_error(false)
        .build()
        .content_type(format!("multipart/form-data; boundary={BOUNDARY}"))
        .send(&body[..])
        .unwrap();
    let said = answer.body_mut().read_to_string().unwrap();
    assert!(answer.status().is_success(), "{model} is not published: {said}");
}

/// An FP32 tensor with the values that `at` gives, aligned as the decoder makes them.
pub fn floats(name: &str, shape: &[usize], at: impl Fn(usize) -> f32) -> NamedTensor {
    let count = shape.iter().product();
    let mut bytes = AlignedBuffer::with_capacity(count * 4);
    (0..count).for_each(|index| bytes.extend(&at(index).to_le_bytes()));
    (name.to_owned(), Tensor::new(Datatype::Fp32, shape.to_vec(), bytes.freeze()).unwrap())
}

/// A file of the folder that `cargo xtask setup` makes.
pub fn model_file(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("MODELET_MODELS").expect("MODELET_MODELS, which xtask sets");
    std::fs::read(PathBuf::from(folder).join(name)).unwrap()
}
