//! Settings: what was written in a file or said by a flag, and what the host acts on.
//!
//! One list says of every setting its key, its type, its default and the reason for it; the types
//! for both sides and the table of `/api/v1/config` come from that list.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::http::Outgoing;
use crate::telemetry::is_endpoint;
use crate::tensor::MAX_RANK;

/// One setting as `/api/v1/config` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Setting {
    /// Its key in the file: `section.name`.
    pub key: &'static str,
    /// What the host acts on.
    pub value: serde_json::Value,
    /// What it would be if nobody said anything.
    pub default: serde_json::Value,
    /// Who said it: `default`, `file`, or `flag` for an option of the command line.
    pub origin: &'static str,
    /// Why the default is what it is.
    pub reason: &'static str,
}

macro_rules! settings {
    ($($(#[doc = $section_doc:literal])* $section:ident : $raw:ident -> $acted:ident {
        $($(#[doc = $doc:literal])* $name:ident : $type:ty = $default:expr ;)*
    })*) => {
        $(
            $(#[doc = $section_doc])*
            #[derive(Debug, Clone, Default, Deserialize)]
            #[serde(deny_unknown_fields)]
            struct $raw { $($name: Option<$type>,)* }

            $(#[doc = $section_doc])*
            #[derive(Debug, Clone)]
            pub struct $acted { $($(#[doc = $doc])* pub $name: $type,)* }

            impl Default for $acted {
                fn default() -> Self {
                    Self { $($name: $default,)* }
                }
            }

            impl $acted {
                fn from_raw(raw: $raw) -> Self {
                    let defaults = Self::default();
                    Self { $($name: raw.$name.unwrap_or(defaults.$name),)* }
                }
            }
        )*

        /// What a configuration file holds; unknown keys are errors.
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw { $(#[serde(default)] $section: $raw,)* }

        /// What the host acts on.
        #[derive(Debug, Clone, Default)]
        pub struct Config {
            $($(#[doc = $section_doc])* pub $section: $acted,)*
            /// Keys that the file set.
            written: std::collections::BTreeSet<&'static str>,
            /// What options of the command line decide, to be shown with the rest.
            flags: Vec<Setting>,
        }

        impl Config {
            fn from_raw(raw: Raw) -> Self {
                let mut written = std::collections::BTreeSet::new();
                $($(
                    if raw.$section.$name.is_some() {
                        written.insert(concat!(stringify!($section), ".", stringify!($name)));
                    }
                )*)*
                Self { $($section: $acted::from_raw(raw.$section),)* written, flags: Vec::new() }
            }

            /// Every setting with its value, default, origin and reason.
            pub fn settings(&self) -> Vec<Setting> {
                $(let $section = $acted::default();)*
                let mut settings = vec![$($(
                    Setting {
                        key: concat!(stringify!($section), ".", stringify!($name)),
                        value: serde_json::json!(self.$section.$name),
                        default: serde_json::json!($section.$name),
                        origin: self.origin(concat!(stringify!($section), ".", stringify!($name))),
                        reason: concat!($($doc,)* "").trim_ascii(),
                    },
                )*)*];
                settings.extend(self.flags.iter().cloned());
                settings
            }
        }
    };
}

settings! {
    /// How the server listens and stops.
    server: RawServer -> ServerSettings {
        /// Name in `/v2`; some of Triton's own examples insist on `triton`.
        name: String = "modelet".to_owned();
        /// Names besides its addresses and localhost that clients may call the server by to manage it; any other is taken for a web page's trick.
        hosts: Vec<String> = Vec::new();
        /// Whether the protocol's clients may load and unload models and change what is logged and traced, as Triton's may where it runs with explicit model control.
        client_control: bool = true;
        /// Connections at once; each costs a descriptor and some kilobytes, and 10,000 idle ones must leave room for the others. Further ones wait in the kernel's queue.
        connections: u32 = 16_384;
        /// Seconds from a request's first byte to the end of its head; slower is an attack or a dead peer.
        header_timeout_s: u64 = 30;
        /// Seconds a connection may stay without a request; longer than clients keep theirs, which is a minute with most.
        idle_timeout_s: u64 = 75;
        /// Requests at once on one HTTP/2 connection, as most servers allow.
        http2_streams: u32 = 256;
        /// Seconds a gRPC stream may wait for its next message; a client that keeps one open between its users' questions needs it for longer than a connection without a request.
        stream_idle_timeout_s: u64 = 3600;
        /// Bytes of a request's head; large enough for trace and authentication headers.
        header_bytes: usize = 64 * 1024;
        /// Seconds a drain waits for requests under way; longer than the longest request deadline.
        drain_timeout_s: u64 = 60;
    }
    /// Limits on a request.
    limits: RawLimits -> Limits {
        /// Bytes of a request body, as Triton's default; a batch of 100 pictures at 224x224x3 FP32 is 60 MB.
        request_body_bytes: u64 = 64 << 20;
        /// Bytes of request bodies and tensors in flight on the whole host; past it requests are refused rather than swapped.
        inflight_bytes: u64 = 2 << 30;
        /// Requests at once on the whole host, from the last byte of the body to that of the answer, waiting ones included.
        inflight_requests: u32 = 4096;
        /// Requests at once of one tenant, waiting ones included; below the host's, so that one tenant cannot fill it.
        tenant_requests: u32 = 2048;
        /// Requests at once whose body is still coming; as many as connections, so that slow callers take nothing from those whose requests are there.
        receiving_requests: u32 = 16_384;
        /// Calls of one version that may wait for an instance; past it a wait would outlive the deadline.
        queue_length: u32 = 1024;
        /// Milliseconds from a request's head to its answer.
        request_timeout_ms: u64 = 30_000;
        /// Milliseconds a request body may take to come.
        body_timeout_ms: u64 = 30_000;
        /// Milliseconds a caller may take to read an answer, as for sending a body; the host holds the answer meanwhile.
        answer_timeout_ms: u64 = 30_000;
        /// Nesting of a JSON body, as Triton.
        json_depth: u32 = 100;
        /// Elements of one tensor.
        tensor_elements: u64 = 1 << 28;
        /// Axes of one tensor; engines check no more than a few, and NumPy stops at 64.
        tensor_rank: u32 = 32;
        /// Inputs of one request; a language model with a key and a value for each of 100 layers stays below.
        inputs: u32 = 1024;
        /// Outputs that one request asks for; such a model returns its caches too.
        outputs: u32 = 1024;
        /// Parameters of one request, input or output; clients send fewer than ten.
        parameters: u32 = 64;
        /// Bytes of partial answers that wait for the caller of one stream, all of which counts as in flight; a guest that emits more waits. Some hundred words of text, or a picture.
        stream_bytes: u32 = 256 << 10;
        /// Bytes of a published component; Python components are 18 MB.
        component_bytes: u64 = 64 << 20;
        /// Bytes of one published asset.
        asset_bytes: u64 = 8 << 30;
        /// Assets of one version.
        assets: u32 = 256;
        /// Blobs that came by digest, whole or in part, and that no version names yet; each is a file on the disk and somebody's work under way.
        uploads: u32 = 64;
        /// Bytes of those blobs, at the lengths they were announced with; eight of the largest assets.
        uploads_bytes: u64 = 64 << 30;
        /// Seconds that part of a blob is kept while nothing more of it comes; whoever was cut off in the evening goes on in the morning.
        upload_idle_s: u64 = 86_400;
        /// Seconds that a whole blob is kept for a version to name it, from when it came or the server started; the other files of a version may take hours on a slow line.
        upload_grace_s: u64 = 86_400;
        /// Milliseconds a publication may take to come and be checked, and a request that sends part of a blob to come.
        upload_timeout_ms: u64 = 900_000;
        /// Management requests at once; each may hold a thread that waits for the disk, and there are 512 of those.
        management_requests: u32 = 256;
        /// Bytes of a management request that is no upload; annotations may take 256 KB.
        management_body_bytes: u64 = 1 << 20;
    }
    /// What a guest may use.
    guest: RawGuest -> GuestSettings {
        /// Bytes of linear memory of one instance, all memories together.
        memory_bytes: u64 = 256 << 20;
        /// Elements of all tables of one instance; a Python component has 5,684.
        table_elements: u64 = 100_000;
        /// Bytes of tensors the host holds for one call.
        tensor_bytes: u64 = 1 << 30;
        /// Handles one instance may hold.
        handles: u32 = 4096;
        /// Bytes of log lines for one call; more is counted and dropped.
        log_bytes: u64 = 64 * 1024;
        /// Hosts that guests may send HTTP requests to (`example.org`, `*.example.org`, either with a port), and networks whose private addresses they may reach (`10.1.0.0/16`); empty, since a guest that reaches nothing gives nothing away.
        outgoing_http: Vec<String> = Vec::new();
        /// Connections that all guests together may have to other servers; each takes a descriptor of the host, and callers need theirs.
        outgoing_connections: u32 = 256;
        /// Milliseconds an instance may take to start and describe itself.
        start_timeout_ms: u64 = 10_000;
    }
    /// Compilation of components.
    compile: RawCompile -> CompileSettings {
        /// Bytes of address space of a compile worker; Cranelift takes about 1 GB for an 18 MB component.
        memory_bytes: u64 = 4 << 30;
        /// Seconds of processor time of a compile worker.
        cpu_s: u64 = 300;
        /// Seconds on the wall clock of a compile worker.
        timeout_s: u64 = 600;
    }
    /// The check of graphs before they are loaded, and what is remembered of all checks.
    gate: RawGate -> GateSettings {
        /// Bytes of address space of a graph worker, beside what its graph takes: the engine's library, stacks, and what a run on made-up inputs needs.
        memory_bytes: u64 = 2 << 30;
        /// Times a graph's bytes that a graph worker may take beside that; two copies at once while it is loaded (measured, 1.5 GB), and four more where weights of a byte are unfolded to FP32.
        memory_per_graph_byte: u64 = 6;
        /// Seconds of processor time of a graph worker; loading 2 GiB and running it once takes less, an endless graph takes all.
        cpu_s: u64 = 60;
        /// Seconds on the wall clock of a graph worker, which gives way to serving.
        timeout_s: u64 = 180;
        /// Verdicts remembered, some hundred bytes each; past it the oldest are forgotten and their checks done again.
        verdicts: u32 = 100_000;
    }
    /// The pool all instances live in.
    engine: RawEngine -> EngineSettings {
        /// Live instances on the host, idle ones included; below what the usual limit of 65,530 memory mappings allows.
        instances: u32 = 4096;
        /// Bytes of a guest's stack, wasmtime's own default; deep recursion ends in a trap. Every live instance has one, and as much again as the host needs.
        stack_bytes: usize = 512 << 10;
        /// Bytes of linear memory of all live instances; 0 is a quarter of the machine's memory.
        memory_bytes: u64 = 0;
        /// Milliseconds of guest code after which a call goes on at low priority, so that it holds up no shorter one.
        foreground_ms: u32 = 5;
        /// Bytes of an idle slot's memory kept resident, so that a start does not page-fault.
        keep_resident_bytes: usize = 1 << 20;
    }
    /// Tensor compute.
    compute: RawCompute -> ComputeSettings {
        /// Threads that run graphs, at low priority; 0 is one per core.
        threads: usize = 0;
        /// Threads kept for runs learned to be short, at normal priority; 0 is one per core. They take processor time only while short runs are there.
        short_threads: usize = 0;
        /// Microseconds up to which a run is short: so little that any caller can wait for a few of them.
        short_run_us: u64 = 3_000;
        /// Microseconds up to which a run stays on the thread that polls the guest, if its work follows from the shapes of its inputs: no longer than a guest's own turn. 0 sends every run to a compute thread.
        inline_run_us: u64 = 1_000;
        /// Rows of several callers that may share a run of a graph in which rows stay apart, 32 at most: what more would gain is little, and whoever comes next waits for all of them. 1 lets every call run alone.
        shared_rows: usize = 32;
        /// Milliseconds one run of a graph may take; below the deadline of a request, so that the guest can still answer.
        timeout_ms: u64 = 20_000;
        /// Milliseconds a cancelled run has to end after its time was up; an engine looks between two nodes of a graph. A run that goes on loses its thread, and its graph is quarantined.
        grace_ms: u64 = 2_000;
        /// Threads of a lane that may be lost to runs that cannot be stopped; past it they are not replaced, so that one graph cannot fill the machine with threads.
        lost_threads: usize = 16;
        /// Threads inside one run of a graph; 1, because calls already run side by side.
        intra_op_threads: usize = 1;
        /// Jobs that may wait for a compute thread.
        queue_length: usize = 4096;
        /// Where ONNX Runtime's library is; empty means the places `modelet setup --help` lists.
        onnxruntime_library: String = String::new();
        /// Bytes of one graph with its external data; protobuf's own limit is 2 GiB.
        graph_bytes: u64 = (2 << 30) - 1;
        /// Bytes of all loaded graphs; past it versions that nobody calls are unloaded. 0 is half of the machine's memory.
        resident_graph_bytes: u64 = 0;
    }
    /// Spans for a tracing system.
    telemetry: RawTelemetry -> TelemetrySettings {
        /// Address of an OpenTelemetry collector that spans of traced requests are sent to, as OTLP over plain HTTP in JSON, such as `http://127.0.0.1:4318`; empty for none.
        otlp_endpoint: String = String::new();
        /// Spans that may wait to be sent, some kilobyte each; past it they are lost, so that a slow collector slows nobody down.
        queue_length: u32 = 4096;
        /// Milliseconds a collector may take to accept spans; what it did not accept by then is lost.
        timeout_ms: u64 = 10_000;
    }
    /// Accounting.
    ledger: RawLedger -> LedgerSettings {
        /// Seconds between checkpoints of the counters; what a crash may lose.
        checkpoint_s: u64 = 5;
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("the configuration file {path} is not valid: {error}")]
    Parse { path: PathBuf, error: Box<toml::de::Error> },
    #[error("the configuration is not valid: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

impl Config {
    /// Reads and checks a file, or takes the defaults when there is none.
    ///
    /// # Errors
    /// When the file cannot be read or parsed, names an unknown key, or holds values that contradict
    /// each other; all mistakes at once.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        let raw: Raw = toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            error: Box::new(error),
        })?;
        Self::from_raw(raw).check()
    }

    /// Adds what an option of the command line decides, so that all settings are in one table.
    pub fn show_flag(&mut self, flag: Setting) {
        self.flags.push(flag);
    }

    /// Who said a setting of the file's sections.
    fn origin(&self, key: &'static str) -> &'static str {
        if self.written.contains(key) { "file" } else { "default" }
    }

    fn check_telemetry(&self, require: &mut dyn FnMut(bool, &str)) {
        require(
            self.telemetry.otlp_endpoint.is_empty() || is_endpoint(&self.telemetry.otlp_endpoint),
            "telemetry.otlp_endpoint must be empty or an address of the form http://host:port",
        );
        require(
            self.telemetry.queue_length > 0 && self.telemetry.timeout_ms > 0,
            "telemetry.queue_length and telemetry.timeout_ms must be at least 1",
        );
    }

    fn check_workers(&self, require: &mut dyn FnMut(bool, &str)) {
        require(
            self.gate.cpu_s > 0 && self.gate.timeout_s > 0,
            "gate.cpu_s and gate.timeout_s must be at least 1, or no graph could ever be loaded",
        );
        require(
            self.compile.cpu_s > 0 && self.compile.timeout_s > 0,
            "compile.cpu_s and compile.timeout_s must be at least 1, or nothing could ever be compiled",
        );
    }

    fn check(self) -> Result<Self, ConfigError> {
        let mut wrong = Vec::new();
        let mut require = |holds: bool, text: &str| {
            if !holds {
                wrong.push(text.to_owned());
            }
        };
        require(self.server.connections > 0, "server.connections must be at least 1");
        require(self.server.http2_streams > 0, "server.http2_streams must be at least 1");
        let times = [
            self.server.header_timeout_s,
            self.server.idle_timeout_s,
            self.server.stream_idle_timeout_s,
        ];
        require(
            !times.contains(&0),
            "server.header_timeout_s, idle_timeout_s and stream_idle_timeout_s must be at least 1",
        );
        require(
            (8 * 1024..=1 << 20).contains(&self.server.header_bytes),
            "server.header_bytes must be between 8192 (the HTTP library's least) and 1048576",
        );
        require(
            self.limits.request_body_bytes <= self.limits.inflight_bytes,
            "limits.request_body_bytes must not exceed limits.inflight_bytes, or no such body could ever come",
        );
        require(
            self.limits.tenant_requests <= self.limits.inflight_requests,
            "limits.tenant_requests must not exceed limits.inflight_requests",
        );
        require(
            self.limits.inflight_requests.min(self.limits.receiving_requests) > 0,
            "limits.inflight_requests and limits.receiving_requests must be at least 1",
        );
        require(self.limits.stream_bytes > 0, "limits.stream_bytes must be at least 1");
        require(
            (1..=MAX_RANK as u32).contains(&self.limits.tensor_rank),
            "limits.tensor_rank must be between 1 and 32, the most that a tensor of this host has",
        );
        require(
            self.limits.inputs.max(self.limits.outputs).max(self.limits.parameters) <= 1024,
            "limits.inputs, limits.outputs and limits.parameters must not exceed 1024, the most that are parsed",
        );
        require(
            self.guest.memory_bytes <= 4 << 30,
            "guest.memory_bytes must not exceed 4294967296, the most a 32-bit guest can address",
        );
        require(
            (1..=8000).contains(&self.engine.instances),
            "engine.instances must be between 1 and 8000",
        );
        require(
            (64 << 10..=64 << 20).contains(&self.engine.stack_bytes),
            "engine.stack_bytes must be between 65536 and 67108864",
        );
        require(self.compute.threads <= 1024, "compute.threads must not exceed 1024");
        require(self.compute.short_threads <= 1024, "compute.short_threads must not exceed 1024");
        require(self.compute.timeout_ms > 0, "compute.timeout_ms must be at least 1");
        if let Err(problem) = Outgoing::new(&self.guest) {
            require(false, &problem);
        }
        self.check_telemetry(&mut require);
        self.check_workers(&mut require);
        if wrong.is_empty() { Ok(self) } else { Err(ConfigError::Invalid(wrong)) }
    }
}

/// Where things are in the data directory.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The data directory at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Compiled components, made again whenever they are missing.
    pub fn compiled(&self) -> PathBuf {
        self.0.join("compiled")
    }

    /// What gates found out, found out again whenever it is missing.
    pub fn verdicts(&self) -> PathBuf {
        self.0.join("verdicts")
    }

    /// Checkpoints of the ledger.
    pub fn counters(&self) -> PathBuf {
        self.0.join("counters")
    }
}

// The message of the check says the number.
const _: () = assert!(MAX_RANK == 32);

/// Free key/values, as versions and guests carry them.
pub type KeyValues = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path()))
    }

    #[test]
    fn the_defaults_are_valid_and_each_has_a_reason() {
        let config = Config::default().check().unwrap();
        for setting in config.settings() {
            assert!(!setting.reason.is_empty(), "{}", setting.key);
            assert_eq!(setting.value, setting.default, "{}", setting.key);
            assert_eq!(setting.origin, "default");
        }
    }

    #[test]
    fn a_file_sets_what_it_names_and_says_so() {
        let config = load("[limits]\nrequest_body_bytes = 1000\n").unwrap();
        let setting = config.settings().into_iter().find(|s| s.origin == "file").unwrap();
        assert_eq!((setting.key, setting.value), ("limits.request_body_bytes", 1000.into()));
    }

    #[test]
    fn flags_are_shown_with_the_settings() {
        let mut config = Config::default();
        let (value, default) = ("127.0.0.1:1".into(), "127.0.0.1:8080".into());
        let (key, origin, reason) = ("--listen", "flag", "loopback only");
        config.show_flag(Setting { key, value, default, origin, reason });
        let shown = config.settings().into_iter().find(|s| s.key == "--listen").unwrap();
        assert_eq!((shown.origin, shown.value), ("flag", "127.0.0.1:1".into()));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = load("[limits]\nrequest_body = 1\n").unwrap_err().to_string();
        assert!(error.contains("request_body"), "{error}");
    }

    #[test]
    fn all_contradictions_are_told_at_once() {
        let text = "[limits]\nrequest_body_bytes = 10\ninflight_bytes = 5\ntensor_rank = 33\n\
            inputs = 1025\n[engine]\ninstances = 0\n[server]\nidle_timeout_s = 0\n";
        let error = load(text).unwrap_err().to_string();
        for key in
            ["inflight_bytes", "engine.instances", "tensor_rank", "limits.inputs", "idle_timeout_s"]
        {
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
