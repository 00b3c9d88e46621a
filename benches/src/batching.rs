//! What callers gain that share runs: sixteen sandboxes beside the bare engine at its best number of
//! rows, and beside the same host where every call runs alone.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use modelet_host::tensor::{Datatype, NamedTensor, Tensor};
use serde::Serialize;

use crate::pairs::{Ratio, median};
use crate::served::{Ready, Served, floats, model_file};

/// Pairs of each ratio.
const PAIRS: usize = 9;
/// How long each side of a pair is measured.
const BLOCK: Duration = Duration::from_secs(2);
/// How long each number of rows is tried for the best.
const SEARCH: Duration = Duration::from_millis(700);
/// Callers at once.
const CALLERS: usize = 16;
/// Threads that call the bare engine: as many as the host computes on.
const THREADS: usize = 2;
/// Calls of a block of a caller who is alone, for a median.
const ALONE: usize = 100;

/// What one graph does.
#[derive(Debug, Serialize)]
pub struct Batching {
    case: String,
    /// Rows in a second of the bare engine, by rows of a run, each tried for a moment.
    bare: Vec<(usize, f64)>,
    /// Rows of the bare engine's best run, of those that as many callers can fill on all its threads.
    best_rows: usize,
    /// Rows in a second: of the bare engine at that, through sandboxes each alone, and through
    /// sandboxes that share runs.
    best: f64,
    alone: f64,
    shared: f64,
    /// Sharing sandboxes to the bare engine at its best.
    to_best: Ratio,
    /// Sharing sandboxes to those each alone.
    to_alone: Ratio,
    /// Microseconds of a call whose caller is alone, without sharing and with it, and the ratio.
    lonely_us: [f64; 2],
    lonely: Ratio,
}

/// The table of `docs/benchmarks.md`.
pub fn table(rows: &[Batching]) -> String {
    let mut out = format!(
        "\n## Runs that callers share\n\nRows a second of {CALLERS} callers, each through a sandbox of its own and \
         with one row a call; beside the bare engine on {THREADS} threads at the number of rows that is best \
         for it, of those that so many callers can fill.\n\n\
         | graph | bare, one row | bare, best | each alone | shared | to the best | to each alone | a lonely call |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    for row in rows {
        let ratio = |Ratio { median, interval: [low, high], .. }: &Ratio| {
            format!("{median:.2} ({low:.2} to {high:.2})")
        };
        let single = row.bare.first().map_or(0.0, |(_, rate)| *rate);
        let [alone_us, shared_us] = row.lonely_us;
        let _ = writeln!(
            out,
            "| {} | {single:.0} | {:.0} with {} | {:.0} | {:.0} | {} | {} | {alone_us:.0}, {shared_us:.0} µs: {} |",
            row.case,
            row.best,
            row.best_rows,
            row.alone,
            row.shared,
            ratio(&row.to_best),
            ratio(&row.to_alone),
            ratio(&row.lonely),
        );
    }
    out
}

/// Inputs of rows, by number of rows and of the caller.
type Inputs = fn(usize, usize) -> Vec<NamedTensor>;

/// Measures every case.
pub fn measure() -> Vec<Batching> {
    let worker = std::env::current_exe().unwrap();
    let shared = Served::start(&worker);
    let alone = Served::start_with(&worker, |config| config.compute.shared_rows = 1);
    let cases: [(&str, &str, Inputs); 5] = [
        ("MNIST CNN", "mnist", digits),
        ("MiniLM, 8 tokens", "minilm", |rows, _| tokens(rows, 8)),
        ("MiniLM, 32 tokens", "minilm", |rows, _| tokens(rows, 32)),
        ("MiniLM, 6, 8, 10 or 12 tokens", "minilm", |rows, caller| {
            tokens(rows, 6 + caller % 4 * 2)
        }),
        ("EfficientNet-Lite0", "efficientnet-lite0", pictures),
    ];
    cases.map(|(case, file, inputs)| measured(&shared, &alone, case, file, inputs)).into()
}

fn digits(rows: usize, _: usize) -> Vec<NamedTensor> {
    vec![floats("image", &[rows, 1, 28, 28], |index| (index % 255) as f32 / 255.0)]
}

fn pictures(rows: usize, _: usize) -> Vec<NamedTensor> {
    vec![floats("image", &[rows, 3, 224, 224], |index| (index % 255) as f32 / 255.0)]
}

fn tokens(rows: usize, length: usize) -> Vec<NamedTensor> {
    let tensor = |name: &str, at: fn(usize) -> i64| {
        let data: Vec<u8> = (0..rows * length).flat_map(|index| at(index).to_le_bytes()).collect();
        let tensor = Tensor::new(Datatype::Int64, vec![rows, length], data.into()).unwrap();
        (name.to_owned(), tensor.aligned())
    };
    vec![
        tensor("input_ids", |index| 1000 + index as i64 * 7 % 2000),
        tensor("attention_mask", |_| 1),
    ]
}

fn measured(shared: &Served, alone: &Served, case: &str, file: &str, inputs: Inputs) -> Batching {
    let name = case.to_lowercase().replace([' ', ','], "-");
    let graph = model_file(&format!("{file}.onnx"));
    let (with, without) = (shared.graph(&name, &graph), alone.graph(&name, &graph));
    let search = |rows| (rows, bare(&with, rows, SEARCH, inputs));
    let found: Vec<_> = [1, 2, 4, 8, 16, 32].map(search).into();
    let fits = |(rows, _): &(usize, f64)| rows * THREADS <= CALLERS;
    let best = found.iter().copied().filter(fits);
    let best = best.max_by(|one, other| one.1.total_cmp(&other.1)).unwrap();
    // What the host learns, it learns before.
    for _ in 0..3 {
        callers(shared, &with, SEARCH, inputs);
        callers(alone, &without, SEARCH, inputs);
    }
    let triples: Vec<[f64; 3]> = (0..PAIRS)
        .map(|_| {
            let best = bare(&with, best.0, BLOCK, inputs);
            [best, callers(alone, &without, BLOCK, inputs), callers(shared, &with, BLOCK, inputs)]
        })
        .collect();
    let column = |column: usize| median(triples.iter().map(|row| row[column]).collect());
    let ratio =
        |by: usize| Ratio::of(&triples.iter().map(|row| (row[2], row[by])).collect::<Vec<_>>());
    let lonely_pairs = (0..PAIRS)
        .map(|_| (lonely(shared, &with, inputs), lonely(alone, &without, inputs)))
        .collect::<Vec<_>>();
    let (other, one): (Vec<_>, Vec<_>) = lonely_pairs.iter().copied().unzip();
    Batching {
        case: case.to_owned(),
        bare: found.clone(),
        best_rows: best.0,
        best: column(0),
        alone: column(1),
        shared: column(2),
        to_best: ratio(0),
        to_alone: ratio(1),
        lonely_us: [median(one), median(other)],
        lonely: Ratio::of(&lonely_pairs),
    }
}

/// Rows in a second that the bare engine does, in runs of so many.
fn bare(ready: &Ready, rows: usize, time: Duration, inputs: Inputs) -> f64 {
    let begun = Instant::now();
    let calls = |thread: usize| {
        // Of several kinds of inputs each has its turn.
        let kinds: Vec<_> = (0..4).map(|kind| inputs(rows, thread + kind)).collect();
        let mut done = 0;
        while begun.elapsed() < time {
            ready.bare(&kinds[done % kinds.len()]);
            done += 1;
        }
        done * rows
    };
    let calls = &calls;
    let done: usize = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || calls(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    done as f64 / begun.elapsed().as_secs_f64()
}

/// Rows in a second that callers get, each through a sandbox of its own, one row a call.
fn callers(served: &Served, ready: &Ready, time: Duration, inputs: Inputs) -> f64 {
    let until = Instant::now() + time;
    let begun = Instant::now();
    let counts = served.runtime().block_on(async {
        let served = served.caller();
        let calls = (0..CALLERS).map(|caller| {
            let (served, ready, inputs) = (served.clone(), ready.clone(), inputs(1, caller));
            tokio::spawn(async move {
                let mut done = 0u64;
                while Instant::now() < until {
                    served.call(&ready, inputs.clone()).await.outcome.unwrap();
                    done += 1;
                }
                done
            })
        });
        let mut counts = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            counts.push(call.await.unwrap());
        }
        counts
    });
    counts.iter().sum::<u64>() as f64 / begun.elapsed().as_secs_f64()
}

/// The median time of a call, in microseconds, whose caller is alone.
fn lonely(served: &Served, ready: &Ready, inputs: Inputs) -> f64 {
    let (caller, ready, inputs) = (served.caller(), ready.clone(), inputs(1, 0));
    let times = served.runtime().block_on(async {
        let calls = tokio::spawn(async move {
            let mut times = Vec::new();
            for _ in 0..ALONE {
                let begun = Instant::now();
                caller.call(&ready, inputs.clone()).await.outcome.unwrap();
                times.push(begun.elapsed().as_secs_f64() * 1e6);
            }
            times
        });
        calls.await.unwrap()
    });
    median(times)
}
