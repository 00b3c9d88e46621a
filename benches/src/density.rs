//! What many models take, and how soon one answers that nobody called for long: a server with 10,000
//! registered models, 1,000 of them called.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use crate::graphs;
use crate::pairs::{Ratio, median};
use crate::served::publish;

/// Models that are registered.
const REGISTERED: usize = 10_000;
/// Those that are there when few are.
const FEW: usize = 10;
/// Those that are called once each.
const WARM: usize = 1_000;
/// Calls of one model, for a median.
const CALLS: usize = 4_000;
/// Blocks of calls with few models and with many.
const BLOCKS: usize = 9;

/// What was found.
#[derive(Debug, Serialize)]
pub struct Density {
    /// Resident bytes of a registered model that nobody called since the start.
    registered_bytes: f64,
    /// Resident bytes more of one that was called: its version made ready, and an idle instance.
    warm_bytes: f64,
    /// Milliseconds from the start of the process to ready, with few and with all.
    start_ms: [f64; 2],
    /// Microseconds of a call over a kept connection, median, with few models registered and with all.
    call_us: [f64; 2],
    /// With all to with few.
    call_ratio: Ratio,
    /// Milliseconds of the first call of a version that is compiled, with its graph loaded for another.
    first_call_ms: f64,
    /// The 99th percentile of the same.
    first_call_p99_ms: f64,
    /// Microseconds until an instance of a resident component is there, where each call has a new one.
    instance_us: f64,
}

/// Measures all of it.
pub fn measure() -> Density {
    let (few_data, all_data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let graph = graphs::identity();
    let parts = [("asset:model.onnx", graph.as_slice())];
    let register = |server: &Server, from: usize, to: usize| {
        (from..to).for_each(|number| publish(&server.url, &format!("m{number}"), &parts));
    };
    let new_instances = json!({ "pool": { "max_instance_reuse_count": 1 } }).to_string();
    let once = [("manifest", new_instances.as_bytes()), parts[0]];
    // `once` is one of them.
    let filled = |data: &Path, models: usize| {
        let server = Server::start(data);
        register(&server, 0, models - 1);
        publish(&server.url, "once", &once);
    };
    filled(few_data.path(), FEW);
    filled(all_data.path(), REGISTERED);
    let (few, all) = (Started::of(few_data.path()), Started::of(all_data.path()));
    let instance_us = few.server.acquire_us("once");
    let calls = (0..BLOCKS).map(|_| (few.server.call_us("m0"), all.server.call_us("m0")));
    let calls: Vec<(f64, f64)> = calls.collect();
    let (with_few, with_all): (Vec<_>, Vec<_>) = calls.iter().copied().unzip();
    let many: Vec<_> = calls.iter().map(|(few, all)| (*all, *few)).collect();
    let before = all.server.resident_bytes();
    let first: Vec<f64> =
        (1..=WARM).map(|number| all.server.first_ms(&format!("m{number}"))).collect();
    let after = all.server.resident_bytes();
    let mut sorted = first.clone();
    sorted.sort_by(f64::total_cmp);
    Density {
        registered_bytes: (all.resident_bytes - few.resident_bytes) / (REGISTERED - FEW) as f64,
        warm_bytes: (after - before) / WARM as f64,
        start_ms: [few.start_ms, all.start_ms],
        call_us: [median(with_few), median(with_all)],
        call_ratio: Ratio::of(&many),
        first_call_ms: median(first),
        first_call_p99_ms: sorted[WARM * 99 / 100],
        instance_us,
    }
}

/// The section of `docs/benchmarks.md`.
pub fn table(density: &Density) -> String {
    let Density { registered_bytes, warm_bytes, start_ms: [start_few, start_all], .. } = density;
    let Density { call_us: [call_few, call_all], call_ratio, .. } = density;
    let Density { first_call_ms, first_call_p99_ms, instance_us, .. } = density;
    let Ratio { median: times, interval: [low, high], .. } = call_ratio;
    format!(
        "\n## Many models, and cold ones\n\nA server with {REGISTERED} registered models of one small graph, \
         {WARM} of them called once.\n\n| | |\n| --- | --- |\n\
         | resident bytes of a registered model | {registered_bytes:.0} |\n\
         | more for one that was called, its idle instance included | {warm_bytes:.0} |\n\
         | from the start of the process to ready, {FEW} models | {start_few:.0} ms |\n\
         | the same, {REGISTERED} models | {start_all:.0} ms |\n\
         | a call over a kept connection, {FEW} models | {call_few:.1} µs |\n\
         | the same, {REGISTERED} models | {call_all:.1} µs, {times:.2} ({low:.2} to {high:.2}) times as long |\n\
         | first call of a version that is compiled, its graph loaded, median | {first_call_ms:.2} ms |\n\
         | the same, 99th percentile | {first_call_p99_ms:.2} ms |\n\
         | a new instance of a resident component, median | {instance_us:.1} µs |\n"
    )
}

/// A server that was started on what there is, and what that took.
struct Started {
    server: Server,
    start_ms: f64,
    resident_bytes: f64,
}

impl Started {
    fn of(data: &Path) -> Self {
        let begun = Instant::now();
        let server = Server::start(data);
        let start_ms = begun.elapsed().as_secs_f64() * 1e3;
        Self { start_ms, resident_bytes: server.resident_bytes(), server }
    }
}

/// A server in a process of its own.
struct Server {
    child: Child,
    url: String,
    agent: ureq::Agent,
}

impl Server {
    /// Starts it and waits until it is ready.
    fn start(data: &Path) -> Self {
        let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("RUST_LOG", "error").stdout(Stdio::null()).stderr(Stdio::null());
        command.args(["serve", "--listen", &listen.to_string(), "--data-dir"]).arg(data);
        let mut child = command.spawn().unwrap();
        let (url, agent) = (format!("http://{listen}"), ureq::Agent::new_with_defaults());
        while agent.get(format!("{url}/readyz")).call().is_err() {
            assert!(child.try_wait().unwrap().is_none(), "the server does not start");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Self { child, url, agent }
    }

    fn resident_bytes(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
    }

    /// Calls a model with 16 floats; gives the answer's `Server-Timing`.
    fn call(&self, model: &str) -> String {
        let values = [1.0; 16];
        let body = json!({
            "inputs": [{ "name": "x", "datatype": "FP32", "shape": [16], "data": values }]
        });
        let url = format!("{}/v2/models/{model}/infer", self.url);
        let mut answer = self.agent.post(url).send(body.to_string()).unwrap();
        answer.body_mut().read_to_vec().unwrap();
        answer.headers()["server-timing"].to_str().unwrap().to_owned()
    }

    /// The median time of calls, in microseconds.
    fn call_us(&self, model: &str) -> f64 {
        let calls = (0..CALLS).map(|_| {
            let begun = Instant::now();
            self.call(model);
            begun.elapsed().as_secs_f64() * 1e6
        });
        median(calls.collect())
    }

    /// The time of one call, in milliseconds.
    fn first_ms(&self, model: &str) -> f64 {
        let begun = Instant::now();
        self.call(model);
        begun.elapsed().as_secs_f64() * 1e3
    }

    /// The median time that calls took to have an instance, in microseconds, as the server says.
    fn acquire_us(&self, model: &str) -> f64 {
        let acquired = (0..CALLS).map(|_| {
            let timing = self.call(model);
            let entry = timing.split(", ").find_map(|entry| entry.strip_prefix("acquire;dur="));
            entry.unwrap().parse::<f64>().unwrap() * 1e3
        });
        median(acquired.collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What was acknowledged is on the disk; the next start finds it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
