//! Instance time: every nanosecond in exactly one bucket, whoever looks and whenever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const BUCKETS: [Bucket; 6] =
    [Bucket::Cold, Bucket::Guest, Bucket::Compute, Bucket::Wait, Bucket::Idle, Bucket::Drain];

#[derive(Debug, Clone)]
enum Step {
    Advance(u64),
    Enter(Bucket),
    Lease,
    Release,
    StartJob,
    EndJob,
    Inline(u64),
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..1_000_000_u64).prop_map(Step::Advance),
        3 => prop::sample::select(&BUCKETS[..]).prop_map(Step::Enter),
        1 => Just(Step::Lease),
        1 => Just(Step::Release),
        2 => Just(Step::StartJob),
        2 => Just(Step::EndJob),
        1 => (0..1_000_u64).prop_map(Step::Inline),
        3 => Just(Step::Read),
    ]
}

/// What an instance does, told as plainly as can be: the bucket of every stretch of time.
#[derive(Debug, Default)]
struct PlainModel {
    buckets: Buckets,
    bucket: Option<Bucket>,
    job: bool,
    uses: u64,
}

impl PlainModel {
    fn advance(&mut self, ns: u64) {
        let bucket = match self.bucket.unwrap_or(Bucket::Cold) {
            Bucket::Wait if self.job => Bucket::Compute,
            bucket => bucket,
        };
        self.buckets.charge(bucket, ns);
    }
}

fn assert_not_earlier(earlier: &Buckets, later: &Buckets) {
    let both = [
        (earlier.cold, later.cold),
        (earlier.guest, later.guest),
        (earlier.compute, later.compute),
        (earlier.wait, later.wait),
        (earlier.idle, later.idle),
        (earlier.drain, later.drain),
    ];
    assert!(both.iter().all(|(earlier, later)| earlier <= later), "{earlier:?} -> {later:?}");
}

proptest! {
    #[test]
    fn buckets_are_what_a_plain_model_says_and_sum_to_the_lifetime(
        born_ns in 0..1_000_000_u64,
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let (ledger, hand) = ledger();
        hand.advance_ns(born_ns);
        let version = version(&ledger, "m");
        let mut account = ledger.instance(&version);
        let stamp = account.compute_stamp();
        let (mut plain, mut run, mut last) = (PlainModel::default(), None, Buckets::default());
        for step in steps {
            match step {
                Step::Advance(ns) => {
                    hand.advance_ns(ns);
                    plain.advance(ns);
                }
                Step::Enter(bucket) => {
                    account.enter(bucket);
                    plain.bucket = Some(bucket);
                }
                Step::Lease => {
                    account.lease();
                    plain.bucket = Some(Bucket::Wait);
                    plain.uses += 1;
                }
                Step::Release => {
                    account.release();
                    plain.bucket = Some(Bucket::Idle);
                }
                Step::StartJob if !plain.job => {
                    run = Some(stamp.start());
                    plain.job = true;
                }
                Step::StartJob => {}
                Step::EndJob => {
                    drop(run.take());
                    plain.job = false;
                }
                Step::Inline(ns) => {
                    account.compute_inline(|| hand.advance_ns(ns));
                    plain.buckets.charge(Bucket::Compute, ns);
                    plain.bucket = Some(Bucket::Wait);
                }
                Step::Read => {
                    let now = account.snapshot();
                    prop_assert_eq!(now.buckets.total_ns(), ledger.clock().now_ns() - born_ns);
                    assert_not_earlier(&last, &now.buckets);
                    last = now.buckets;
                }
            }
        }
        let end = account.snapshot();
        prop_assert_eq!((end.buckets, end.uses), (plain.buckets, plain.uses));
        prop_assert_eq!(end.buckets.total_ns(), end.at_ns - end.created_ns);
        drop(account);
        hand.advance_ns(77);
        drop(run);
        let (totals, live) = version.totals(ledger.clock().now_ns());
        prop_assert_eq!((totals.buckets, totals.calls, live), (plain.buckets, plain.uses, 0));
    }
}

#[test]
fn a_job_counts_as_compute_while_it_runs_and_only_while_the_instance_waits() {
    let (ledger, hand) = ledger();
    let mut account = ledger.instance(&version(&ledger, "m"));
    account.lease();
    account.enter(Bucket::Guest);
    // The engine begins before the poll that asked for it has returned, and goes on during another.
    let run = account.compute_stamp().start();
    hand.advance_ns(1);
    account.enter(Bucket::Wait);
    hand.advance_ns(10);
    assert_eq!(account.snapshot().buckets.compute, 10);
    assert_eq!(account.snapshot().state, Some(Bucket::Compute));
    account.enter(Bucket::Guest);
    hand.advance_ns(100);
    account.enter(Bucket::Wait);
    hand.advance_ns(1_000);
    drop(run);
    hand.advance_ns(10_000);
    account.enter(Bucket::Guest);
    let Buckets { guest, compute, wait, .. } = account.snapshot().buckets;
    assert_eq!((guest, compute, wait), (101, 1_010, 10_000));
}

#[test]
fn a_job_that_outlives_its_instance_changes_nothing() {
    let (ledger, hand) = ledger();
    let version = version(&ledger, "m");
    let mut account = ledger.instance(&version);
    account.lease();
    let run = account.compute_stamp().start();
    hand.advance_ns(5);
    drop(account);
    let closed = version.totals(ledger.clock().now_ns());
    hand.advance_ns(50);
    drop(run);
    assert_eq!(version.totals(ledger.clock().now_ns()), closed);
    assert_eq!(closed.0.buckets.compute, 5);
}

#[test]
fn inline_compute_is_charged_to_the_version_once() {
    let (ledger, hand) = ledger();
    let version = version(&ledger, "m");
    let mut account = ledger.instance(&version);
    account.lease();
    assert_eq!(account.compute_inline(|| hand.advance_ns(30)), ((), Duration::from_nanos(30)));
    let (totals, _) = version.totals(ledger.clock().now_ns());
    assert_eq!((totals.engine_ns, totals.inline_ns, totals.buckets.compute), (30, 30, 30));
}

#[test]
fn an_instance_is_listed_until_it_is_dropped() {
    let (ledger, hand) = ledger();
    let mut first = ledger.instance(&version(&ledger, "b"));
    let second = ledger.instance(&version(&ledger, "a"));
    first.set_memory_bytes(65_536);
    first.lease();
    hand.advance_ns(9);
    let lines = ledger.instances();
    assert_eq!(lines.iter().map(|line| line.id).collect::<Vec<_>>(), [second.id(), first.id()]);
    assert_eq!(
        serde_json::to_value(&lines[1]).unwrap(),
        serde_json::json!({
            "id": first.id(), "model": "b", "version": "1", "state": "wait", "uses": 1,
            "memory_bytes": 65_536, "lifetime_ns": 9,
            "buckets_ns": {"cold": 0, "guest": 0, "compute": 0, "wait": 9, "idle": 0, "drain": 0},
        })
    );
    drop(second);
    assert_eq!(ledger.instances().len(), 1);
}

#[test]
fn readers_see_exact_and_growing_buckets_while_holder_and_engine_write() {
    let ledger = Ledger::new(Clock::monotonic());
    let version = version(&ledger, "m");
    let mut account = ledger.instance(&version);
    let (row, stamp) = (account.compute_stamp(), account.compute_stamp());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let (mut last, mut reads) = (Buckets::default(), 0_u32);
                while !done.load(Ordering::Relaxed) || reads < 1_000 {
                    let now = row.snapshot();
                    assert_eq!(now.buckets.total_ns(), now.at_ns - now.created_ns);
                    assert_not_earlier(&last, &now.buckets);
                    (last, reads) = (now.buckets, reads + 1);
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(stamp.start());
            }
        });
        for bucket in [Bucket::Guest, Bucket::Wait, Bucket::Idle].iter().cycle().take(60_000) {
            account.enter(*bucket);
        }
        done.store(true, Ordering::Relaxed);
    });
    let last = account.snapshot();
    assert_eq!(last.buckets.total_ns(), last.at_ns - last.created_ns);
    drop(account);
    assert_eq!(version.totals(ledger.clock().now_ns()).1, 0);
}

#[test]
fn a_version_never_loses_or_doubles_an_instance_that_closes_under_a_reader() {
    let ledger = Ledger::new(Clock::monotonic());
    let version = version(&ledger, "m");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = Totals::default();
            while !done.load(Ordering::Relaxed) {
                let (now, live) = version.totals(ledger.clock().now_ns());
                assert_not_earlier(&last.buckets, &now.buckets);
                assert!(now.calls >= last.calls && live <= 1, "{live}");
                last = now;
            }
        });
        for _ in 0..5_000 {
            let mut account = ledger.instance(&version);
            account.lease();
            account.release();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(version.totals(ledger.clock().now_ns()).0.calls, 5_000);
}
