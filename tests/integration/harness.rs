//! A server under test, and the few words that make a test one sentence.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};
use serde_json::{Value, json};
use tempfile::TempDir;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_modelet-under-test");

/// How long anything may take that is waited for; far beyond what it takes, so that a slow machine
/// fails no test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running server with a data directory of its own. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    url: String,
    data: DataDir,
    /// What it holds at rest, with MNIST and nothing else.
    rest: OnceLock<Holdings>,
}

/// A data directory: its own, or one that outlives the server.
pub(crate) enum DataDir {
    Own(TempDir),
    Shared(PathBuf),
}

impl DataDir {
    fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Shared(path) => path,
        }
    }
}

/// A server to be started.
#[derive(Default)]
pub(crate) struct Builder {
    data: Option<PathBuf>,
    home: Option<PathBuf>,
    config: String,
    /// What a shell does before it becomes the server.
    before: Option<String>,
    program: Option<PathBuf>,
}

impl Builder {
    /// Serves an existing data directory.
    pub(crate) fn data_dir(mut self, path: &Path) -> Self {
        self.data = Some(path.to_owned());
        self
    }

    /// Runs it as a user with this home, and with nothing else in its environment that points anywhere.
    pub(crate) fn home(mut self, path: &Path) -> Self {
        self.home = Some(path.to_owned());
        self
    }

    /// Runs another file than the program under test.
    pub(crate) fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// Lines of its configuration file.
    pub(crate) fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self
    }

    /// Has a shell do something first, such as `ulimit -n 64`.
    pub(crate) fn after(mut self, command: &str) -> Self {
        self.before = Some(command.to_owned());
        self
    }

    /// Starts it; panics with what it said if it does not.
    pub(crate) fn start(self) -> Server {
        self.try_start().unwrap_or_else(|said| panic!("the server did not start: {said}"))
    }

    /// Starts it, or gives what it said instead.
    pub(crate) fn try_start(self) -> Result<Server, String> {
        let data = match self.data {
            Some(path) => DataDir::Shared(path),
            None => DataDir::Own(tempfile::tempdir().unwrap()),
        };
        let config = data.path().join("test-config.toml");
        std::fs::write(&config, &self.config).unwrap();
        let log = std::fs::File::create(data.path().join("test-server.log")).unwrap();
        let program = self.program.unwrap_or_else(|| PROGRAM.into());
        let mut command = match &self.before {
            None => Command::new(program),
            Some(before) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("{before} && exec \"$0\" \"$@\"")).arg(program);
                shell
            }
        };
        if let Some(home) = self.home {
            command.env("HOME", home);
            command.env_remove("XDG_CACHE_HOME").env_remove("ORT_DISABLE_TELEMETRY");
        }
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data.path())
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(url) = line.trim().strip_prefix("modelet listening on ") else {
            child.wait().unwrap();
            return Err(std::fs::read_to_string(data.path().join("test-server.log")).unwrap());
        };
        let url = url.to_owned();
        Ok(Server { child, url, data, rest: OnceLock::new() })
    }
}

/// An answer: status, headers in lower case, body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; panics with the body if it is none.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The `error` of the body, after the status was found to be `status`.
    #[track_caller]
    pub(crate) fn error(&self, status: u16) -> String {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{body}");
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error: {body}")).to_owned()
    }

    /// This answer, after its status was found to be 200 or 201.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        let body = String::from_utf8_lossy(&self.body);
        assert!(matches!(self.status, 200 | 201), "{}: {body}", self.status);
        self
    }
}

impl Server {
    /// A server with the defaults.
    pub(crate) fn start() -> Self {
        Self::builder().start()
    }

    /// A server to be set up.
    pub(crate) fn builder() -> Builder {
        Builder::default()
    }

    /// Its address: `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its host and port.
    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data_dir().join("test-server.log")).unwrap()
    }

    /// Bytes of it in physical memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most bytes of it in physical memory since the last [`forget_peak`](Self::forget_peak).
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// Begins to look for the peak anew.
    pub(crate) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    fn status_bytes(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// A figure of its metrics, by the name and labels it is written with.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let metrics = String::from_utf8(self.get("/metrics").body).unwrap();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
    }

    /// How often a limit has refused, by its setting's key.
    #[track_caller]
    pub(crate) fn refusals(&self, limit: &str) -> u64 {
        self.metric(&format!("modelet_limit_refusals_total{{limit=\"{limit}\"}}"))
    }

    /// What it holds at this moment.
    pub(crate) fn holdings(&self) -> Holdings {
        let figure = |name: &str| self.metric(&format!("modelet_{name}"));
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        Holdings {
            inflight_requests: figure("inflight_requests"),
            receiving_requests: figure("receiving_requests"),
            inflight_bytes: figure("inflight_bytes"),
            compute_jobs: figure("compute_queue_jobs"),
            instances: figure("instances"),
            graphs: figure("resident_graphs"),
            descriptors: descriptors.count() as u64,
        }
    }

    /// What it held when `with_mnist` had made it.
    pub(crate) fn at_rest(&self) -> Holdings {
        self.rest.get().expect("a server made by with_mnist").clone()
    }

    /// Waits until it holds no more than `before`, with all instances it has idle.
    #[track_caller]
    pub(crate) fn settles_to(&self, before: &Holdings) {
        let mut last = None;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let now = self.holdings();
            if now.within(before) {
                return;
            }
            last = Some(now);
            std::thread::yield_now();
        }
        panic!("{last:?} is left of {before:?}\n{}", self.log());
    }

    /// Deletes all models but one.
    #[track_caller]
    pub(crate) fn forget_all_but(&self, kept: &str) {
        let document = self.get("/api/v1/models").ok().json();
        let names = document["models"].as_array().unwrap().iter().map(|line| line["name"].clone());
        for name in names.filter(|name| name != kept) {
            self.send("DELETE", &format!("/api/v1/models/{}", name.as_str().unwrap()), &[], b"")
                .ok();
        }
    }

    /// Sets a limit of its process from outside.
    pub(crate) fn limit(&self, resource: Resource, current: Option<u64>) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32);
        let maximum = rustix::process::getrlimit(resource).maximum;
        rustix::process::prlimit(pid, resource, Rlimit { current, maximum }).unwrap();
    }

    /// Sends a request.
    #[track_caller]
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        send(&format!("{}{path}", self.url), method, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()))
    }

    /// Its metrics, as text.
    #[track_caller]
    pub(crate) fn metrics(&self) -> String {
        String::from_utf8(self.get("/metrics").ok().body).unwrap()
    }

    /// A connection to it on which nothing has been sent.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// GET.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    /// POST of a JSON document.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(
            "POST",
            path,
            &[("content-type", "application/json")],
            &serde_json::to_vec(body).unwrap(),
        )
    }

    /// PUT of a JSON document.
    #[track_caller]
    pub(crate) fn put(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        self.send("PUT", path, &all, &serde_json::to_vec(body).unwrap())
    }

    /// Publishes parts: `manifest`, `component`, `asset:NAME`.
    #[track_caller]
    pub(crate) fn publish(&self, model: &str, version: &str, parts: &[(&str, &[u8])]) -> Answer {
        let (content_type, body) = multipart(parts);
        let path = format!("/api/v1/models/{model}/versions/{version}");
        self.send("PUT", &path, &[("content-type", &content_type)], &body)
    }

    /// Publishes a graph to be served as it is, on a backend of choice.
    #[track_caller]
    pub(crate) fn publish_onnx(
        &self,
        model: &str,
        version: &str,
        graph: &[u8],
        backend: &str,
    ) -> Answer {
        let manifest = serde_json::to_vec(&json!({ "backend": backend })).unwrap();
        self.publish(model, version, &[("manifest", &manifest), ("asset:model.onnx", graph)])
    }

    /// Infers with one FP32 tensor in and all outputs back in binary; gives the first output's values.
    #[track_caller]
    pub(crate) fn infer_f32(
        &self,
        model: &str,
        input: &str,
        shape: &[usize],
        values: &[f32],
    ) -> Vec<f32> {
        let (headers, body) = binary_request(input, shape, values);
        let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let answer = self.send("POST", &format!("/v2/models/{model}/infer"), &headers, &body).ok();
        binary_f32(&answer)
    }

    /// What was counted under a metric's name and labels; 0 if nothing was yet.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let text = String::from_utf8(self.get("/metrics").body).unwrap();
        let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.next().map_or(0, |value| value.parse().unwrap())
    }

    /// Asks it to stop and waits until it has.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        self::signal(self.pid(), signal);
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Kills it at once and gives its data directory, if that is its own.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Runs the command line against it.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        cli(args, &[("MODELET_SERVER", self.url())])
    }
}

/// What a server holds at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) inflight_requests: u64,
    pub(crate) receiving_requests: u64,
    pub(crate) inflight_bytes: u64,
    pub(crate) compute_jobs: u64,
    pub(crate) instances: u64,
    pub(crate) graphs: u64,
    pub(crate) descriptors: u64,
}

impl Holdings {
    /// Whether nothing is more than in `other`.
    fn within(&self, other: &Self) -> bool {
        self.inflight_requests <= other.inflight_requests
            && self.receiving_requests <= other.receiving_requests
            && self.inflight_bytes <= other.inflight_bytes
            && self.compute_jobs <= other.compute_jobs
            && self.instances <= other.instances
            && self.graphs <= other.graphs
            && self.descriptors <= other.descriptors
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a run of the command line came to.
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// Its standard output, after it was found to have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Its JSON document, after it was found to have succeeded.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}"))
    }
}

/// Runs the command line.
pub(crate) fn cli(args: &[&str], environment: &[(&str, &str)]) -> Output {
    let output = Command::new(PROGRAM)
        .args(args)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Output {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Sends one request on a connection of its own; the error is of the transport.
pub(crate) fn send(
    url: &str,
    method: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, Box<ureq::Error>> {
    thread_local! {
        static AGENT: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .build()
            .into();
    }
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    AGENT
        .with(|agent| {
            let mut response = match body.is_empty() && !matches!(method, "POST" | "PUT") {
                true => agent.run(request.body(()).unwrap()),
                false => agent.run(request.body(body).unwrap()),
            }?;
            let headers = response.headers().iter();
            let headers = headers
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("").to_owned()))
                .collect();
            let mut bytes = Vec::new();
            response.body_mut().as_reader().read_to_end(&mut bytes).map_err(ureq::Error::from)?;
            Ok(Answer { status: response.status().as_u16(), headers, body: bytes })
        })
        .map_err(Box::new)
}

/// Reads one answer from a connection, none if it was closed; the answer must say its length.
pub(crate) fn read_answer(stream: &mut impl Read) -> std::io::Result<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body)?;
    Ok(Answer { status, headers, body })
}

/// A multipart/form-data body and its content type.
pub(crate) fn multipart(parts: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    const BOUNDARY: &str = "modelet-test-boundary-7f3a";
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
    (format!("multipart/form-data; boundary={BOUNDARY}"), body)
}

/// Headers and body of a request with one FP32 tensor and binary data both ways.
pub(crate) fn binary_request(
    input: &str,
    shape: &[usize],
    values: &[f32],
) -> (Vec<(&'static str, String)>, Vec<u8>) {
    let json = serde_json::to_vec(&json!({
        "inputs": [{ "name": input, "datatype": "FP32", "shape": shape,
            "parameters": { "binary_data_size": values.len() * 4 } }],
        "parameters": { "binary_data_output": true },
    }))
    .unwrap();
    let length = json.len().to_string();
    let mut body = json;
    values.iter().for_each(|value| body.extend_from_slice(&value.to_le_bytes()));
    (vec![("inference-header-content-length", length)], body)
}

/// The values of the first output of a binary answer.
#[track_caller]
pub(crate) fn binary_f32(answer: &Answer) -> Vec<f32> {
    let header: usize = answer.headers["inference-header-content-length"].parse().unwrap();
    let head: Value = serde_json::from_slice(&answer.body[..header]).unwrap();
    let size = head["outputs"][0]["parameters"]["binary_data_size"].as_u64().unwrap() as usize;
    floats(&answer.body[header..header + size])
}

/// Little-endian FP32 values.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

/// The folder of models and inputs that `cargo xtask setup` makes.
pub(crate) fn models() -> PathBuf {
    std::env::var_os("MODELET_MODELS").map_or_else(|| cache().join("models"), PathBuf::from)
}

/// A file of that folder.
#[track_caller]
pub(crate) fn model_file(name: &str) -> Vec<u8> {
    let path = models().join(name);
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask setup`", path.display()))
}

/// The cache folder of `cargo xtask`.
pub(crate) fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("modelet")
}

/// The largest difference of two answers of equal length.
#[track_caller]
pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The index of the largest value.
pub(crate) fn argmax(values: &[f32]) -> usize {
    values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0
}

/// Asks again until `done`, without sleeping longer than it takes: each question is a request.
#[track_caller]
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come true");
        std::thread::yield_now();
    }
}

/// The shape of the inputs of MNIST.
pub(crate) const DIGIT: [usize; 4] = [1, 1, 28, 28];

/// A server with MNIST on it, used once, so that what it holds at rest is known.
pub(crate) fn with_mnist(server: Server) -> Server {
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "auto").ok();
    asked_for_a_digit(&server);
    server.rest.set(server.holdings()).unwrap();
    server
}

#[track_caller]
fn asked_for_a_digit(server: &Server) {
    let pixels = floats(&model_file("digit-7.f32"));
    assert_eq!(argmax(&server.infer_f32("mnist", "image", &DIGIT, &pixels)), 7);
}

/// A good request succeeds; and with all models but MNIST deleted, nothing is left of the bad ones:
/// no request, instance, job, tensor, graph or descriptor.
#[track_caller]
pub(crate) fn still_serves(server: &Server) {
    asked_for_a_digit(server);
    server.forget_all_but("mnist");
    server.settles_to(&server.at_rest());
}

/// A component whose `infer` has this body, over an otherwise well-behaved module that serves the
/// graph `model.onnx`.
pub(crate) fn component(infer: &str) -> Vec<u8> {
    Guest { infer, ..Guest::default() }.build()
}

/// A component written as text: a core module with these bodies, for the world `model`.
pub(crate) struct Guest<'a> {
    /// Imports of the module, which must come first.
    pub(crate) imports: &'a str,
    /// Fields of the module beside the usual ones.
    pub(crate) fields: &'a str,
    /// Pages of its memory at the start.
    pub(crate) pages: u32,
    /// The body of `describe`, which gives an address.
    pub(crate) describe: &'a str,
    /// The body of `infer`, which gives an address.
    pub(crate) infer: &'a str,
}

/// A `describe` that says it is the graph `model.onnx`.
pub(crate) const SAME_AS_GRAPH: &str = "
    (i32.store8 (i32.const 64) (i32.const 1))
    (i32.store offset=4 (i32.const 64) (i32.const 16))
    (i32.store offset=8 (i32.const 64) (i32.const 10))
    (i32.const 64)";

impl Default for Guest<'_> {
    fn default() -> Self {
        Self { imports: "", fields: "", pages: 1, describe: SAME_AS_GRAPH, infer: "unreachable" }
    }
}

impl Guest<'_> {
    /// The component.
    pub(crate) fn build(&self) -> Vec<u8> {
        let Self { imports, fields, pages, describe, infer } = self;
        let text = format!(
            r#"(module
              {imports}
              (memory (export "memory") {pages})
              (data (i32.const 16) "model.onnx")
              {fields}
              (func (export "describe") (result i32) {describe})
              (func (export "infer") (param i32 i32) (result i32) {infer})
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))"#
        );
        let mut module = wat::parse_str(text).unwrap();
        let mut resolve = wit_parser::Resolve::default();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit");
        let (package, _) = resolve.push_path(path).unwrap();
        let world = resolve.select_world(&[package], Some("model")).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
    }
}

/// The process that `parent` started to run the hidden `command`, if there is one now.
pub(crate) fn worker_of(parent: u32, command: &str) -> Option<u32> {
    std::fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let runs = words.split(|byte| *byte == 0).nth(1)? == command.as_bytes();
        (runs && parent_of(pid)? == parent).then_some(pid)
    })
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// Whether a process runs; one that only waits to be buried does not.
pub(crate) fn is_running(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ") && !status.contains("State:\tX"))
}

/// Sends a process a signal.
pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
