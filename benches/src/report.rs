//! `modelet-bench report`: everything in pairs, and the page `docs/benchmarks.md` made of it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use modelet_host::tensor::NamedTensor;
use serde::Serialize;
use serde_json::json;

use crate::graphs;
use crate::pairs::{Ratio, median};
use crate::served::{Ready, Served, floats, model_file, publish};
use crate::{batching, density};

/// Pairs of each ratio.
const PAIRS: usize = 9;
/// How long each side of a pair is measured in this process.
const BLOCK: Duration = Duration::from_secs(1);
/// How long each side of a pair is measured over HTTP.
const SECONDS: u64 = 5;
/// Connections of the client over HTTP.
const CONNECTIONS: u32 = 16;

/// What a call through a sandbox takes, beside the bare engine.
#[derive(Debug, Serialize)]
struct Overhead {
    case: String,
    /// Medians of the blocks' medians, in microseconds.
    bare_us: f64,
    sandbox_us: f64,
    ratio: Ratio,
}

/// What a server does in a second, beside the least that one could do.
#[derive(Debug, Serialize)]
struct Throughput {
    case: String,
    modelet: f64,
    modelet_p99_us: f64,
    echo: f64,
    echo_p99_us: f64,
    ratio: Ratio,
}

/// Measures everything and writes `benchmarks.md`, `.json` and `.svg` into `folder`.
pub fn write(folder: &Path) {
    let overheads = overheads();
    let throughput = small_calls();
    let shared = batching::measure();
    let many = density::measure();
    let machine = machine();
    let document = json!({ "machine": machine, "overhead": overheads, "small_calls": throughput,
        "shared_runs": shared, "many_models": many });
    let text = serde_json::to_string_pretty(&document).unwrap();
    std::fs::write(folder.join("benchmarks.json"), text + "\n").unwrap();
    std::fs::write(folder.join("benchmarks.svg"), plot(&overheads)).unwrap();
    let page = std::fs::read_to_string(folder.join("benchmarks.md")).unwrap_or_default();
    let kept = page.split_once(MARK).map_or("", |(kept, _)| kept);
    let tables = tables(&machine, &overheads, &throughput)
        + &batching::table(&shared)
        + &density::table(&many);
    std::fs::write(folder.join("benchmarks.md"), format!("{kept}{MARK}\n\n{tables}")).unwrap();
}

/// What follows on the page is written here.
const MARK: &str = "<!-- written by cargo xtask bench -->";

fn overheads() -> Vec<Overhead> {
    let served = Served::start(&std::env::current_exe().unwrap());
    let identity = served.graph("identity", &graphs::identity());
    let ramp = |count| floats("x", &[count], |index| index as f32);
    let sizes = [("64 B", 16), ("4 KiB", 1 << 10), ("64 KiB", 16 << 10), ("1 MiB", 256 << 10)];
    let sizes = sizes.into_iter().chain([("16 MiB", 4 << 20), ("64 MiB", 16 << 20)]);
    let mut rows: Vec<_> = sizes
        .map(|(size, count)| overhead(&served, &identity, format!("identity, {size}"), ramp(count)))
        .collect();
    let picture = |shape: &[usize]| floats("image", shape, |index| (index % 255) as f32 / 255.0);
    let mnist = served.graph("mnist", &model_file("mnist.onnx"));
    rows.push(overhead(&served, &mnist, "MNIST CNN".to_owned(), picture(&[1, 1, 28, 28])));
    let net = served.graph("net", &model_file("efficientnet-lite0.onnx"));
    let input = picture(&[1, 3, 224, 224]);
    rows.push(overhead(&served, &net, "EfficientNet-Lite0".to_owned(), input));
    rows
}

fn overhead(served: &Served, ready: &Ready, case: String, input: NamedTensor) -> Overhead {
    let inputs = [input.clone()];
    let mut bare = || drop(ready.bare(&inputs));
    let mut sandbox = || {
        let called = served.runtime().block_on(served.call(ready, vec![input.clone()]));
        assert!(called.outcome.is_ok());
    };
    // What a first run learns and allocates is not what is measured.
    for _ in 0..20 {
        bare();
        sandbox();
    }
    let pairs: Vec<_> = (0..PAIRS).map(|_| (block(&mut sandbox), block(&mut bare))).collect();
    let (sandbox_us, bare_us) = pairs.iter().copied().unzip();
    let (sandbox_us, bare_us) = (median(sandbox_us), median(bare_us));
    Overhead { case, bare_us, sandbox_us, ratio: Ratio::of(&pairs) }
}

/// The median of what a call takes, in microseconds, over one block.
fn block(call: &mut impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut took = Vec::new();
    while begun.elapsed() < BLOCK {
        let call_begun = Instant::now();
        call();
        took.push(call_begun.elapsed().as_secs_f64() * 1e6);
    }
    median(took)
}

/// The identity of 16 floats in binary over kept connections, beside hyper that sends a body back.
fn small_calls() -> Throughput {
    let program = std::env::current_exe().unwrap();
    let data = tempfile::tempdir().unwrap();
    let (modelet, echo) = ("127.0.0.1:18480", "127.0.0.1:18481");
    let mut serve = Command::new(&program);
    serve
        .env("RUST_LOG", "error")
        .args(["serve", "--listen", modelet, "--data-dir"])
        .arg(data.path());
    let _modelet = Server::start(&mut serve, modelet);
    publish(&format!("http://{modelet}"), "identity", &[("asset:model.onnx", &graphs::identity())]);
    let _echo = Server::start(Command::new(&program).args(["echo", echo]), echo);
    let head = json!({
        "inputs": [{ "name": "x", "datatype": "FP32", "shape": [16],
            "parameters": { "binary_data_size": 64 } }],
        "parameters": { "binary_data_output": true },
    });
    let head = head.to_string();
    let script = data.path().join("request.lua");
    std::fs::write(data.path().join("body"), [head.as_bytes(), &[0; 64]].concat()).unwrap();
    std::fs::write(&script, request(&data.path().join("body"), head.len())).unwrap();
    let url = |address| format!("http://{address}/v2/models/identity/infer");
    let run = |address| wrk(&script, &url(address));
    run(modelet);
    run(echo);
    let runs: Vec<_> = (0..PAIRS).map(|_| (run(modelet), run(echo))).collect();
    let pairs: Vec<_> = runs.iter().map(|(one, other)| (one.0, other.0)).collect();
    let side = |figure: fn(&(Load, Load)) -> f64| median(runs.iter().map(figure).collect());
    Throughput {
        case: "identity of 16 floats, binary, 16 connections".to_owned(),
        modelet: side(|(one, _)| one.0),
        modelet_p99_us: side(|(one, _)| one.1),
        echo: side(|(_, other)| other.0),
        echo_p99_us: side(|(_, other)| other.1),
        ratio: Ratio::of(&pairs),
    }
}

/// Requests a second, and the 99th percentile of their latency in microseconds.
type Load = (f64, f64);

/// A process that is killed when this is dropped.
struct Server(Child);

impl Server {
    fn start(command: &mut Command, address: &str) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while std::net::TcpStream::connect(address).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "nothing came to listen at {address}");
            std::thread::yield_now();
        }
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A script for wrk: one fixed request, and one line of result.
fn request(body: &Path, head: usize) -> String {
    format!(
        r#"local file = assert(io.open({body:?}, "rb"))
wrk.method, wrk.body = "POST", file:read("*a")
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.headers["Inference-Header-Content-Length"] = "{head}"
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %.3f %.3f %d\n", summary.requests / summary.duration * 1e6,
    latency:percentile(99), errors.status + errors.connect + errors.read + errors.timeout))
end
"#
    )
}

fn wrk(script: &Path, url: &str) -> Load {
    let connections = CONNECTIONS.to_string();
    let mut command = Command::new("wrk");
    command.args(["-t1", "-c", &connections, &format!("-d{SECONDS}s"), "-s"]).arg(script).arg(url);
    let output = command.output().expect("wrk, which xtask installs");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT ")).expect(&text);
    let figures: Vec<f64> = line.split(' ').map(|figure| figure.parse().unwrap()).collect();
    assert_eq!(figures[2], 0.0, "requests failed: {text}");
    (figures[0], figures[1])
}

fn machine() -> serde_json::Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    json!({
        "cores": cores,
        "processor": model.trim_start_matches([' ', '\t', ':']),
        "modelet": env!("CARGO_PKG_VERSION"),
        "profile": if cfg!(debug_assertions) { "debug" } else { "optimised" },
    })
}

fn tables(machine: &serde_json::Value, overheads: &[Overhead], calls: &Throughput) -> String {
    let mut out = String::new();
    let (cores, cpu) = (&machine["cores"], machine["processor"].as_str().unwrap_or_default());
    let _ = writeln!(
        out,
        "Measured on {cores} cores of \"{cpu}\", Modelet {}.\n",
        env!("CARGO_PKG_VERSION")
    );
    out.push_str("## From decoded tensors to output tensors\n\n");
    out.push_str("![Microseconds added by the sandbox](benchmarks.svg)\n\n");
    out.push_str("| graph | bare engine | through the sandbox | added | ratio | 95 % interval |\n");
    out.push_str("| --- | --- | --- | --- | --- | --- |\n");
    for row in overheads {
        let Overhead { case, bare_us, sandbox_us, ratio } = row;
        let added = sandbox_us - bare_us;
        let [low, high] = ratio.interval;
        let _ = writeln!(
            out,
            "| {case} | {bare_us:.1} µs | {sandbox_us:.1} µs | {added:+.1} µs | {:.3} | {low:.3} to {high:.3} |",
            ratio.median
        );
    }
    let Throughput { case, modelet, modelet_p99_us, echo, echo_p99_us, ratio } = calls;
    let [low, high] = ratio.interval;
    let _ = write!(
        out,
        "\n## Small calls over HTTP\n\n| {case} | requests a second | p99 |\n| --- | --- | --- |\n\
         | Modelet | {modelet:.0} | {modelet_p99_us:.0} µs |\n| bare hyper, sending the body back | {echo:.0} | {echo_p99_us:.0} µs |\n\
         | ratio | {:.2} ({low:.2} to {high:.2}) | |\n",
        ratio.median
    );
    out
}

/// Bars of what the sandbox adds to a call.
fn plot(rows: &[Overhead]) -> String {
    const ROW: usize = 28;
    const LEFT: f64 = 170.0;
    const WIDTH: f64 = 420.0;
    let added: Vec<f64> = rows.iter().map(|row| (row.sandbox_us - row.bare_us).max(0.0)).collect();
    // The largest tensors vary by more than all others together; the scale is that of small calls.
    let scale = added.iter().copied().filter(|us| *us < 100.0).fold(5.0, f64::max);
    let height = rows.len() * ROW + 20;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"720\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (index, (row, us)) in rows.iter().zip(added).enumerate() {
        let y = index * ROW + 10;
        let width = WIDTH * (us / scale).min(1.0);
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"{text_y}\" text-anchor=\"end\">{case}</text>\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" fill=\"#4c78a8\"/>\
             <text x=\"{label:.1}\" y=\"{text_y}\">{us:.1} µs</text>",
            x = LEFT - 8.0,
            text_y = y + 14,
            case = row.case,
            label = LEFT + width + 6.0
        );
    }
    out.push_str("</svg>\n");
    out
}
