//! Lanes, deadlines and the watch over runs, with an engine that ends when it is told to.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex};

use super::*;
use crate::digest::Digest;
use crate::ledger::Clock;
use crate::nn::backend::{LoadedGraph, RunErrorKind};
use crate::nn::rows::Rows;

/// A graph whose runs end when they are told to, and no sooner: no engine could be more stubborn.
#[derive(Default)]
struct Stubborn {
    may_end: Mutex<bool>,
    changed: Condvar,
    begun: Option<SyncSender<()>>,
}

impl Stubborn {
    fn end(&self) {
        *self.may_end.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl LoadedGraph for Arc<Stubborn> {
    fn run(&self, _: &[NamedTensor], _: &Cancel) -> Outcome {
        if let Some(begun) = &self.begun {
            begun.send(()).unwrap();
        }
        let may_end = self.may_end.lock().unwrap();
        drop(self.changed.wait_while(may_end, |may_end| !*may_end).unwrap());
        Ok(Vec::new())
    }

    fn bytes(&self) -> u64 {
        0
    }
}

fn mixed() -> Rows {
    Rows::Mixed("a test's".to_owned())
}

struct Bench {
    ledger: Arc<Ledger>,
    threads: ComputeThreads,
    payer: Payer,
    /// The row that `payer` marks.
    instance: crate::ledger::InstanceAccount,
}

fn bench(change: impl FnOnce(&mut ComputeSettings)) -> Bench {
    let mut settings = ComputeSettings {
        threads: 1,
        short_threads: 1,
        queue_length: 4,
        timeout_ms: 60_000,
        grace_ms: 1,
        ..ComputeSettings::default()
    };
    change(&mut settings);
    let ledger = Arc::new(Ledger::new(Clock::monotonic()));
    let version =
        ledger.version(&"m".parse().unwrap(), &"1".parse().unwrap(), Digest::of(b"version"));
    let instance = ledger.instance(&version);
    let payer = Payer { stamp: instance.compute_stamp(), version, inline: Inline::default() };
    let threads = ComputeThreads::start(&settings, &ledger).unwrap();
    Bench { ledger, threads, payer, instance }
}

impl Bench {
    fn graph(&self, stubborn: &Arc<Stubborn>) -> Arc<Graph> {
        Arc::new(Graph::of_engine(Box::new(Arc::clone(stubborn)), &self.ledger, false, mixed()))
    }

    /// A graph whose runs wait for a word, and the receiver that hears of their beginning.
    fn stubborn(&self) -> (Arc<Stubborn>, Arc<Graph>, Receiver<()>) {
        let (begun, begins) = sync_channel(16);
        let stubborn = Arc::new(Stubborn { begun: Some(begun), ..Stubborn::default() });
        let graph = self.graph(&stubborn);
        (stubborn, graph, begins)
    }

    /// A graph that answers at once.
    fn quick(&self) -> Arc<Graph> {
        let quick = Arc::new(Stubborn::default());
        quick.end();
        self.graph(&quick)
    }

    async fn run(&self, graph: &Arc<Graph>) -> Outcome {
        self.threads.handle().run(Arc::clone(graph), Vec::new(), &self.payer).await
    }
}

/// Waits for something that other threads bring about; the test's own time limit is the bound.
async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}

/// Whether `bench` leaves a run of a quick graph, bounded or not, to whoever attends.
async fn is_left(bench: &mut Bench, bounded: bool) -> bool {
    let quick = Arc::new(Stubborn::default());
    quick.end();
    let graph = Arc::new(Graph::of_engine(Box::new(quick), &bench.ledger, bounded, mixed()));
    let inline = bench.payer.inline.clone();
    // Nothing is known of its first run, and nobody attends the second.
    bench.run(&graph).await.unwrap();
    bench.run(&graph).await.unwrap();
    let attending = inline.attend();
    let compute = bench.threads.handle();
    let mut running = std::pin::pin!(compute.run(Arc::clone(&graph), Vec::new(), &bench.payer));
    // A thread may be that quick.
    if ended(&mut running) {
        return false;
    }
    let left = attending.serve(&mut bench.instance);
    assert!(!attending.serve(&mut bench.instance), "one run is served once");
    running.await.unwrap();
    left
}

#[tokio::test]
async fn a_run_known_to_be_short_is_done_by_whoever_polls_its_guest() {
    assert!(is_left(&mut bench(|_| {}), true).await);
    assert!(!is_left(&mut bench(|_| {}), false).await, "its next run may be a long one");
    let none = |settings: &mut ComputeSettings| settings.inline_run_us = 0;
    assert!(!is_left(&mut bench(none), true).await, "compute.inline_run_us");
}

#[tokio::test]
async fn a_short_run_does_not_wait_behind_a_long_one() {
    let bench = bench(|_| {});
    let (stubborn, long, begins) = bench.stubborn();
    let quick = bench.quick();
    // The first run of a graph is among the long ones; from then on it is known.
    bench.run(&quick).await.unwrap();
    let mut running = std::pin::pin!(bench.run(&long));
    until(|| begins.try_recv().is_ok() || ended(&mut running)).await;
    bench.run(&quick).await.unwrap();
    // A graph that nobody knows waits with the long ones.
    let unknown = bench.quick();
    let mut waiting = std::pin::pin!(bench.run(&unknown));
    assert!(!ended(&mut waiting));
    assert_eq!(bench.threads.handle().waiting(), 1);
    stubborn.end();
    running.await.unwrap();
    waiting.await.unwrap();
}

/// Polls once; whether it has ended.
fn ended<T>(future: &mut std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    future.as_mut().poll(&mut cx).is_ready()
}

#[tokio::test]
async fn a_run_that_cannot_be_stopped_loses_its_thread_and_its_graph_is_quarantined() {
    let bench = bench(|settings| settings.timeout_ms = 500);
    let (stubborn, graph, _begins) = bench.stubborn();
    let error = bench.run(&graph).await.unwrap_err();
    assert_eq!(error.kind(), RunErrorKind::Timeout);
    assert!(error.to_string().contains("compute.timeout_ms"), "{error}");
    until(|| graph.quarantined().is_some()).await;
    let compute = bench.threads.handle();
    until(|| compute.lost_threads() == 1).await;
    // The thread was replaced: another graph runs, and this one is not tried again.
    bench.run(&bench.quick()).await.unwrap();
    let refused = bench.run(&graph).await.unwrap_err().to_string();
    assert!(refused.contains("quarantined"), "{refused}");
    assert!(!graph.release(), "a run of it is still stuck");
    stubborn.end();
    until(|| compute.lost_threads() == 0).await;
    assert!(graph.release());
    bench.run(&graph).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_leaves_early_brings_no_graph_into_quarantine() {
    const LONGER_THAN_GRACE: Duration = Duration::from_millis(100);
    let bench = bench(|settings| settings.grace_ms = 1);
    let (stubborn, graph, begins) = bench.stubborn();
    {
        let mut running = std::pin::pin!(bench.run(&graph));
        until(|| begins.try_recv().is_ok() || ended(&mut running)).await;
    }
    // The run goes on without its caller, well within the time that any run has.
    let left = Instant::now();
    until(|| left.elapsed() > LONGER_THAN_GRACE).await;
    assert_eq!((graph.quarantined(), bench.threads.handle().lost_threads()), (None, 0));
    stubborn.end();
    bench.run(&bench.quick()).await.unwrap();
    bench.run(&graph).await.unwrap();
}

#[tokio::test]
async fn threads_that_may_not_be_lost_are_not_replaced() {
    let bench = bench(|settings| (settings.timeout_ms, settings.lost_threads) = (500, 0));
    let (stubborn, graph, _begins) = bench.stubborn();
    assert!(bench.run(&graph).await.is_err());
    until(|| graph.quarantined().is_some()).await;
    assert_eq!(bench.threads.handle().lost_threads(), 0);
    stubborn.end();
    bench.run(&bench.quick()).await.unwrap();
}

/// A graph of `y = 2 x` by rows, which keeps what it was given; the value -1 fails, whoever's it is.
#[derive(Default)]
struct Doubling {
    runs: Mutex<Vec<usize>>,
    /// Rows that it loses where there are several.
    loses: usize,
}

impl LoadedGraph for Arc<Doubling> {
    fn run(&self, inputs: &[NamedTensor], _: &Cancel) -> Outcome {
        let (_, x) = &inputs[0];
        let rows = x.shape()[0];
        self.runs.lock().unwrap().push(rows);
        let values = x.data().iter().map(|value| value.wrapping_mul(2)).collect::<Vec<_>>();
        if x.data().contains(&u8::MAX) {
            return Err(RunError::failed("it does not take -1"));
        }
        let kept = if rows > 1 { rows - self.loses } else { rows };
        Ok(vec![row("y", &values[..kept])])
    }

    fn bytes(&self) -> u64 {
        0
    }
}

/// INT8 `[values]`.
fn row(name: &str, values: &[u8]) -> NamedTensor {
    let shape = vec![values.len()];
    let tensor =
        crate::tensor::Tensor::new(crate::tensor::Datatype::Int8, shape, values.to_vec().into());
    (name.to_owned(), tensor.unwrap())
}

/// Calls a graph that shares runs with each of `inputs`, while the only thread is busy, and gives what
/// came of them and the rows of each run.
async fn shared(
    bench: &Bench,
    doubling: Doubling,
    inputs: &[u8],
    payer: impl Fn(usize) -> Payer,
) -> (Vec<Outcome>, Vec<usize>) {
    let doubling = Arc::new(doubling);
    let engine = Box::new(Arc::clone(&doubling));
    let graph = Arc::new(Graph::of_engine(engine, &bench.ledger, false, Rows::Apart(32)));
    // So that it is known how long a run takes, and what company gains is not.
    let (stubborn, long, begins) = bench.stubborn();
    let compute = bench.threads.handle();
    let mut running = std::pin::pin!(bench.run(&long));
    until(|| begins.try_recv().is_ok() || ended(&mut running)).await;
    for rows in [1, 2, 4, 8] {
        let class = crate::nn::gain::Class::of(&[row("x", &[0])]);
        let _ = graph.gain().choose(class, rows);
        for _ in 0..8 {
            graph.gain().learn(class, rows, Duration::from_micros(100));
        }
    }
    let calls = inputs.iter().enumerate().map(|(index, input)| {
        let (compute, graph, payer) = (compute.clone(), Arc::clone(&graph), payer(index));
        let input = vec![row("x", &[*input])];
        tokio::spawn(async move { compute.run(graph, input, &payer).await })
    });
    let calls: Vec<_> = calls.collect();
    until(|| compute.waiting() == inputs.len()).await;
    stubborn.end();
    running.await.unwrap();
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.unwrap());
    }
    let runs = doubling.runs.lock().unwrap().clone();
    (outcomes, runs)
}

#[tokio::test]
async fn callers_who_wait_share_a_run_and_each_gets_its_own_rows() {
    let bench = bench(|settings| settings.queue_length = 16);
    let inputs = [1, 2, 3, 4, 5];
    let (outcomes, runs) =
        shared(&bench, Doubling::default(), &inputs, |_| bench.payer.clone()).await;
    for (input, outcome) in inputs.iter().zip(outcomes) {
        assert_eq!(outcome.unwrap(), [row("y", &[input * 2])]);
    }
    assert_eq!(runs, [5]);
}

#[tokio::test]
async fn of_callers_who_share_a_run_only_the_one_at_fault_is_told() {
    let bench = bench(|settings| settings.queue_length = 16);
    let inputs = [1, u8::MAX, 3];
    let (outcomes, runs) =
        shared(&bench, Doubling::default(), &inputs, |_| bench.payer.clone()).await;
    assert_eq!(outcomes[0].clone().unwrap(), [row("y", &[2])]);
    assert!(outcomes[1].clone().unwrap_err().to_string().contains("does not take -1"));
    assert_eq!(outcomes[2].clone().unwrap(), [row("y", &[6])]);
    assert_eq!(runs, [3, 1, 1, 1]);
}

#[tokio::test]
async fn callers_of_different_versions_share_no_run() {
    let bench = bench(|settings| settings.queue_length = 16);
    let other =
        bench.ledger.version(&"m".parse().unwrap(), &"2".parse().unwrap(), Digest::of(b"another"));
    let payer = |index| {
        let version = if index % 2 == 0 { &bench.payer.version } else { &other };
        Payer { version: Arc::clone(version), ..bench.payer.clone() }
    };
    let (outcomes, runs) = shared(&bench, Doubling::default(), &[1, 2, 3], payer).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(runs, [2, 1]);
}

#[tokio::test]
async fn a_graph_that_loses_rows_of_a_shared_run_shares_none_any_more() {
    let bench = bench(|settings| settings.queue_length = 16);
    let doubling = Doubling { loses: 1, ..Doubling::default() };
    let (outcomes, runs) = shared(&bench, doubling, &[1, 2], |_| bench.payer.clone()).await;
    assert_eq!(outcomes[1].clone().unwrap(), [row("y", &[4])]);
    assert_eq!(runs, [2, 1, 1]);
}

#[tokio::test]
async fn with_one_row_as_the_most_every_call_runs_alone() {
    let alone = |settings: &mut ComputeSettings| {
        (settings.queue_length, settings.shared_rows) = (16, 1);
    };
    let bench = bench(alone);
    let (_, runs) = shared(&bench, Doubling::default(), &[1, 2, 3], |_| bench.payer.clone()).await;
    assert_eq!(runs, [1, 1, 1], "compute.shared_rows");
}

#[test]
fn a_shared_run_takes_no_more_bytes_and_in_the_short_lane_no_more_time_than_it_may() {
    let bench = bench(|_| {});
    let graph = |cost: Option<Duration>| {
        let engine = Box::new(Arc::<Doubling>::default());
        let graph = Graph::of_engine(engine, &bench.ledger, false, Rows::Apart(32));
        cost.into_iter().for_each(|cost| graph.cost().learn(cost, 1));
        graph
    };
    let most = |graph: &Graph, input: NamedTensor| {
        bench.threads.shared.sharing(graph, &[input]).map(|sharing| sharing.most)
    };
    // A row of so many bytes.
    let of = |bytes: usize| {
        let data = vec![0; bytes].into();
        let shape = vec![1, bytes];
        let tensor = crate::tensor::Tensor::new(crate::tensor::Datatype::Int8, shape, data);
        ("x".to_owned(), tensor.unwrap())
    };
    assert_eq!(most(&graph(None), of(1)), Some(32));
    let bytes = usize::try_from(SHARED_INPUT_BYTES).unwrap();
    assert_eq!(most(&graph(None), of(bytes / 5)), Some(5));
    assert_eq!(most(&graph(None), of(bytes / 2 + 1)), None);
    let short = Duration::from_micros(ComputeSettings::default().short_run_us);
    assert_eq!(most(&graph(Some(short)), of(1)), Some(4), "SHORT_RUNS_TOGETHER");
    assert_eq!(most(&graph(Some(short * 2)), of(1)), Some(32), "not in the short lane");
}

#[tokio::test]
async fn a_full_queue_refuses_by_the_name_of_its_limit() {
    let bench = bench(|settings| settings.queue_length = 1);
    let (stubborn, graph, begins) = bench.stubborn();
    let mut running = std::pin::pin!(bench.run(&graph));
    until(|| begins.try_recv().is_ok() || ended(&mut running)).await;
    let mut waiting = std::pin::pin!(bench.run(&graph));
    assert!(!ended(&mut waiting));
    let refused = bench.run(&graph).await.unwrap_err();
    assert_eq!(refused.kind(), RunErrorKind::Overloaded);
    assert!(refused.to_string().contains("compute.queue_length"), "{refused}");
    stubborn.end();
    running.await.unwrap();
    waiting.await.unwrap();
}
