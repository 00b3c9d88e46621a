//! Windows: what is older drops out, and what nobody needs is put away.

use super::*;

/// Lets time pass with a sample every second.
fn pass(ledger: &Ledger, hand: &ManualClock, seconds: u64) {
    for _ in 0..seconds {
        hand.advance_ns(SECOND_NS);
        ledger.sample();
    }
}

fn call(ledger: &Ledger, hand: &ManualClock, version: &Arc<VersionRow>) {
    let mut account = ledger.instance(version);
    account.lease();
    hand.advance_ns(1_000);
    drop(account);
    ledger.called("default", version.model());
}

fn calls(ledger: &Ledger, window: Window) -> (u64, Option<u64>) {
    let report = report(ledger, window, &["m"]);
    (report.host.calls, report.models.first().map(|model| model.row.calls))
}

#[test]
fn a_window_drops_what_is_older() {
    let (ledger, hand) = ledger();
    let version = version(&ledger, "m");
    call(&ledger, &hand, &version);
    pass(&ledger, &hand, 30);
    for window in [Window::OneMinute, Window::FiveMinutes, Window::OneHour, Window::Lifetime] {
        assert_eq!(calls(&ledger, window), (1, Some(1)), "{window}");
    }
    assert_eq!(report(&ledger, Window::OneMinute, &["m"]).host.xi, Some(1.0));
    pass(&ledger, &hand, 32);
    assert_eq!(calls(&ledger, Window::OneMinute), (0, Some(0)));
    assert_eq!(calls(&ledger, Window::FiveMinutes), (1, Some(1)));
    assert_eq!(report(&ledger, Window::OneMinute, &["m"]).host.xi, Some(0.0));
    pass(&ledger, &hand, 300);
    assert_eq!(calls(&ledger, Window::FiveMinutes), (0, Some(0)));
    assert_eq!(calls(&ledger, Window::OneHour), (1, Some(1)));
    pass(&ledger, &hand, 3_600);
    assert_eq!(calls(&ledger, Window::OneHour), (0, None));
    assert_eq!(calls(&ledger, Window::Lifetime), (1, Some(1)));
}

#[test]
fn a_window_is_as_long_as_it_says() {
    let (ledger, hand) = ledger();
    pass(&ledger, &hand, 20);
    assert_eq!(report(&ledger, Window::OneHour, &[]).seconds, 20.0);
    pass(&ledger, &hand, 5_000);
    hand.advance_ns(SECOND_NS / 4);
    assert_eq!(report(&ledger, Window::OneMinute, &[]).seconds, 60.25);
    let hour = report(&ledger, Window::OneHour, &[]).seconds;
    assert!((3_600.0..3_611.0).contains(&hour), "{hour}");
    assert_eq!(report(&ledger, Window::Lifetime, &[]).seconds, 5_020.25);
}

#[test]
fn a_row_that_wakes_after_hours_brings_nothing_old_into_the_window() {
    let (ledger, hand) = ledger();
    let version = version(&ledger, "m");
    call(&ledger, &hand, &version);
    pass(&ledger, &hand, 4_000);
    call(&ledger, &hand, &version);
    assert_eq!(calls(&ledger, Window::OneHour), (1, Some(1)));
    pass(&ledger, &hand, 2);
    for window in [Window::OneMinute, Window::OneHour] {
        assert_eq!(calls(&ledger, window), (1, Some(1)), "{window}");
    }
}

#[test]
fn models_and_host_agree_in_every_window() {
    let (ledger, hand) = ledger();
    let (a, b) = (version(&ledger, "a"), version(&ledger, "b"));
    let mut idle = ledger.instance(&a);
    idle.release();
    for second in 0..4_000_u64 {
        if second % 7 == 0 {
            call(&ledger, &hand, &b);
        }
        pass(&ledger, &hand, 1);
    }
    for window in [Window::OneMinute, Window::FiveMinutes, Window::OneHour, Window::Lifetime] {
        let report = report(&ledger, window, &[]);
        let sum = |of: fn(&Buckets) -> u64| -> u64 {
            report.models.iter().map(|model| of(&model.row.buckets_ns)).sum()
        };
        assert_eq!(sum(Buckets::idle_ns), report.host.buckets_ns.idle_ns(), "{window}");
        assert_eq!(sum(Buckets::busy_ns), report.host.buckets_ns.busy_ns(), "{window}");
        // One instance was idle all the time.
        assert_eq!(report.host.buckets_ns.idle as f64 / 1e9, report.seconds, "{window}");
    }
}

#[test]
fn a_version_nobody_refers_to_is_folded_into_its_model() {
    let (ledger, hand) = ledger();
    let row = version(&ledger, "m");
    let graph = ledger.object(ObjectKind::Graph, SECOND_NS, std::slice::from_ref(&row));
    call(&ledger, &hand, &row);
    drop(graph);
    drop(row);
    pass(&ledger, &hand, 3_500);
    assert_eq!(report(&ledger, Window::Lifetime, &[]).versions.len(), 1);
    pass(&ledger, &hand, 200);
    let report = report(&ledger, Window::Lifetime, &[]);
    assert_eq!(report.versions, []);
    assert_eq!(report.models[0].row.calls, 1);
    assert_eq!(report.models[0].row.idle_byte_seconds, 1_000);
    assert_eq!(report.host.idle_byte_seconds, 1_000);
}

#[test]
fn a_version_name_given_to_another_digest_is_another_row() {
    let (ledger, _hand) = ledger();
    let (model, one) = (name("m"), "1".parse().unwrap());
    let old = ledger.version(&model, &one, Digest::of(b"old"));
    let new = ledger.version(&model, &one, Digest::of(b"new"));
    assert!(!Arc::ptr_eq(&old, &new));
    assert!(Arc::ptr_eq(&old, &ledger.version(&model, &one, Digest::of(b"old"))));
    assert_eq!(new.digest(), Digest::of(b"new"));
}

#[test]
fn windows_are_read_as_they_are_written() {
    for window in [Window::OneMinute, Window::FiveMinutes, Window::OneHour, Window::Lifetime] {
        assert_eq!(window.to_string().parse(), Ok(window));
        assert_eq!(serde_json::to_value(window).unwrap(), window.to_string());
    }
    assert_eq!("2m".parse::<Window>(), Err(WindowError));
}
