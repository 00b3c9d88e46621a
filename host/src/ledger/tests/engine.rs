//! Engine time: what a thread was busy with is charged to the last nanosecond.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn shares_and_empty_slots_add_up_to_the_busy_time(
        busy_ns in any::<u64>(),
        rows in prop::collection::vec(prop_oneof![0..100_u64, any::<u64>()], 0..20),
        capacity_rows in prop_oneof![0..200_u64, any::<u64>()],
    ) {
        let (shares, empty) = apportion(busy_ns, &rows, capacity_rows);
        prop_assert_eq!(shares.len(), rows.len());
        let sum = shares.iter().chain([&empty]).map(|ns| u128::from(*ns)).sum::<u128>();
        prop_assert_eq!(sum, u128::from(busy_ns));
    }

    #[test]
    fn a_share_is_within_a_nanosecond_of_its_part(
        busy_ns in 0..1_000_000_000_u64,
        rows in prop::collection::vec(0..64_u64, 1..20),
        spare in 0..64_u64,
    ) {
        let capacity = rows.iter().sum::<u64>() + spare;
        let (shares, empty) = apportion(busy_ns, &rows, capacity);
        for (share, rows) in shares.iter().chain([&empty]).zip(rows.iter().chain([&spare])) {
            if capacity > 0 {
                let part = u128::from(busy_ns) * u128::from(*rows) / u128::from(capacity);
                prop_assert!(u128::from(*share).abs_diff(part) <= 1);
            }
        }
    }

    #[test]
    fn busy_time_is_fully_apportioned_whatever_the_engine_runs(
        runs in prop::collection::vec(
            (0..10_000_u64, 0..10_000_u64, prop::collection::vec((0..9_u64, any::<bool>()), 0..5), 0..40_u64),
            0..20,
        ),
    ) {
        let (ledger, hand) = ledger();
        let version = version(&ledger, "m");
        let mut thread = ledger.engine_thread("compute-0");
        let (mut busy, mut idle) = (0, 0);
        for (pause_ns, run_ns, jobs, capacity_rows) in runs {
            hand.advance_ns(pause_ns);
            let work = thread.begin();
            hand.advance_ns(run_ns);
            let jobs: Vec<_> = jobs
                .into_iter()
                .map(|(rows, abandoned)| Share { version: &version, rows, abandoned })
                .collect();
            prop_assert_eq!(work.finish(&jobs, capacity_rows), run_ns);
            (busy, idle) = (busy + run_ns, idle + pause_ns);
        }
        let engine = report(&ledger, Window::Lifetime, &[]).engine;
        prop_assert_eq!(engine.busy_ns, busy);
        prop_assert_eq!(
            engine.apportioned_ns + engine.abandoned_ns + engine.empty_slots_ns, busy
        );
        prop_assert_eq!(engine.threads[0].idle_ns, idle);
        prop_assert_eq!(version.totals(0).0.engine_ns, engine.apportioned_ns);
    }
}

#[test]
fn a_batch_is_paid_by_rows_with_empty_slots_and_the_abandoned_apart() {
    let (ledger, hand) = ledger();
    let (a, b) = (version(&ledger, "a"), version(&ledger, "b"));
    let mut thread = ledger.engine_thread("compute-0");
    let work = thread.begin();
    hand.advance_ns(800);
    let shares = [
        Share { version: &a, rows: 1, abandoned: false },
        Share { version: &b, rows: 3, abandoned: false },
        Share { version: &b, rows: 2, abandoned: true },
    ];
    work.finish(&shares, 8);
    assert_eq!((a.totals(0).0.engine_ns, b.totals(0).0.engine_ns), (100, 300));
    let engine = report(&ledger, Window::Lifetime, &[]).engine;
    assert_eq!(
        (engine.busy_ns, engine.apportioned_ns, engine.abandoned_ns, engine.empty_slots_ns),
        (800, 400, 200, 200)
    );
}

#[test]
fn a_run_under_way_is_busy_and_one_that_panics_is_abandoned() {
    let (ledger, hand) = ledger();
    let mut thread = ledger.engine_thread("compute-0");
    hand.advance_ns(10);
    let work = thread.begin();
    hand.advance_ns(5);
    let engine = report(&ledger, Window::Lifetime, &[]).engine;
    assert_eq!((engine.busy_ns, engine.under_way_ns, engine.threads[0].idle_ns), (5, 5, 10));
    drop(work);
    let engine = report(&ledger, Window::Lifetime, &[]).engine;
    assert_eq!((engine.busy_ns, engine.under_way_ns, engine.abandoned_ns), (5, 0, 5));
}

#[test]
fn a_thread_that_ended_is_still_in_the_sum() {
    let (ledger, hand) = ledger();
    let mut thread = ledger.engine_thread("compute-0");
    let work = thread.begin();
    hand.advance_ns(7);
    work.finish(&[], 0);
    drop(thread);
    hand.advance_ns(100);
    let engine = report(&ledger, Window::Lifetime, &[]).engine;
    assert_eq!((engine.threads.len(), engine.busy_ns, engine.empty_slots_ns), (0, 7, 7));
}

#[test]
fn a_long_run_that_ends_in_a_window_still_closes_the_windows_account() {
    let (ledger, hand) = ledger();
    let version = version(&ledger, "m");
    let mut thread = ledger.engine_thread("compute-0");
    let work = thread.begin();
    for _ in 0..100 {
        hand.advance_ns(SECOND_NS);
        ledger.sample();
    }
    work.finish(&[Share { version: &version, rows: 1, abandoned: false }], 1);
    let engine = report(&ledger, Window::OneMinute, &[]).engine;
    assert_eq!(engine.busy_ns, 60 * SECOND_NS);
    assert_eq!(engine.apportioned_ns, 100 * SECOND_NS);
    assert_eq!(engine.under_way_ns, -(40 * SECOND_NS).cast_signed());
}
