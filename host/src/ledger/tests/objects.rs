//! Byte-seconds: exact, counted once for the host, and whole for whoever refers to the object.

use std::thread;

use proptest::prelude::*;

use super::*;

fn host(ledger: &Ledger) -> (u128, u128) {
    let data = ledger.read().host.data;
    (data.used, data.idle)
}

/// The byte-time of a model and of its only version.
fn rows(ledger: &Ledger, model: &str) -> [(u128, u128); 2] {
    let reading = ledger.read();
    let of_model = reading.models.iter().find(|row| row.name.as_str() == model).unwrap();
    let of_version = reading.versions.iter().find(|row| row.model.as_str() == model).unwrap();
    [of_model.totals.data, of_version.totals.data].map(|data| (data.used, data.idle))
}

#[derive(Debug, Clone)]
enum Step {
    Advance(u64),
    Lease,
    Release,
    Resize(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..1_000_000_u64).prop_map(Step::Advance),
        Just(Step::Lease),
        Just(Step::Release),
        any::<u64>().prop_map(Step::Resize),
    ]
}

proptest! {
    #[test]
    fn byte_time_is_bytes_by_time_to_the_last_one(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let (ledger, hand) = ledger();
        let version = version(&ledger, "m");
        let object = ledger.object(ObjectKind::Graph, 10, &[version]);
        let (mut bytes, mut leases) = (10_u64, Vec::new());
        let (mut used, mut idle) = (0_u128, 0_u128);
        for step in steps {
            match step {
                Step::Advance(ns) => {
                    hand.advance_ns(ns);
                    let added = u128::from(bytes) * u128::from(ns);
                    if leases.is_empty() { idle += added } else { used += added }
                }
                Step::Lease => leases.push(object.lease()),
                Step::Release => drop(leases.pop()),
                Step::Resize(to) => {
                    object.set_bytes(to);
                    bytes = to;
                }
            }
            prop_assert_eq!(host(&ledger), (used, idle));
        }
        drop(object);
        drop(leases);
        hand.advance_ns(1_000);
        prop_assert_eq!(host(&ledger), (used, idle));
        prop_assert_eq!(rows(&ledger, "m"), [(used, idle); 2]);
    }
}

#[test]
fn an_object_is_counted_once_for_the_host_and_whole_for_each_that_refers_to_it() {
    let (ledger, hand) = ledger();
    let (a, b) = (version(&ledger, "a"), version(&ledger, "b"));
    let graph = ledger.object(ObjectKind::Graph, 100, &[a, b]);
    hand.advance_ns(3);
    let lease = graph.lease();
    hand.advance_ns(2);
    assert_eq!(host(&ledger), (200, 300));
    assert_eq!(rows(&ledger, "a"), [(200, 300); 2]);
    assert_eq!(rows(&ledger, "b"), [(200, 300); 2]);
    drop((lease, graph));
    hand.advance_ns(50);
    assert_eq!(rows(&ledger, "b"), [(200, 300); 2]);
}

#[test]
fn a_version_counts_an_object_only_while_it_refers_to_it() {
    let (ledger, hand) = ledger();
    let (one, two) = (numbered(&ledger, "m", "1"), numbered(&ledger, "m", "2"));
    let graph = ledger.object(ObjectKind::Graph, 1, std::slice::from_ref(&one));
    hand.advance_ns(10);
    graph.add_version(&two);
    graph.add_version(&two);
    hand.advance_ns(20);
    graph.remove_version(&one);
    hand.advance_ns(40);
    let idle = |reading: &reading::Reading| {
        reading.versions.iter().map(|row| row.totals.data.idle).collect::<Vec<_>>()
    };
    let reading = ledger.read();
    assert_eq!(idle(&reading), [30, 60]);
    assert_eq!(reading.models[0].totals.data.idle, 70);
    graph.remove_version(&two);
    hand.advance_ns(80);
    assert_eq!(ledger.read().models[0].totals.data.idle, 70);
    assert_eq!(host(&ledger), (0, 150));
}

#[test]
fn the_memory_of_an_instance_is_used_while_it_is_leased() {
    let (ledger, hand) = ledger();
    let mut account = ledger.instance(&version(&ledger, "m"));
    account.set_memory_bytes(1_000);
    hand.advance_ns(1);
    account.lease();
    account.enter(Bucket::Guest);
    hand.advance_ns(2);
    account.release();
    hand.advance_ns(4);
    assert_eq!(host(&ledger), (2_000, 5_000));
    drop(account);
    hand.advance_ns(8);
    assert_eq!(host(&ledger), (2_000, 5_000));
}

#[test]
fn a_shared_object_is_used_exactly_while_any_of_many_threads_leases_it() {
    let ledger = Ledger::new(Clock::monotonic());
    let before_ns = ledger.clock().now_ns();
    let object = ledger.object(ObjectKind::Graph, 1, &[]);
    let born_ns = ledger.clock().now_ns();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let outer = object.lease();
                    drop((object.lease(), outer));
                }
            });
        }
        let mut last = (0, 0);
        for _ in 0..2_000 {
            let now = host(&ledger);
            assert!(now.0 >= last.0 && now.1 >= last.1, "{last:?} -> {now:?}");
            last = now;
        }
    });
    let dying_ns = ledger.clock().now_ns();
    drop(object);
    let (used, idle) = host(&ledger);
    let residence_ns =
        u128::from(dying_ns - born_ns)..=u128::from(ledger.clock().now_ns() - before_ns);
    assert!(used > 0 && residence_ns.contains(&(used + idle)), "{used} {idle} {residence_ns:?}");
}
