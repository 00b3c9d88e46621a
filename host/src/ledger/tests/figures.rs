//! Known work gives known figures, and no work gives none.

use super::*;

/// 10 ns cold, then 2 calls of 10 guest + 20 compute + 30 wait, 25 idle after each, 20 drain.
fn worked_instance(ledger: &Ledger, hand: &ManualClock, version: &Arc<VersionRow>) {
    let mut account = ledger.instance(version);
    account.set_memory_bytes(SECOND_NS);
    hand.advance_ns(10);
    for _ in 0..2 {
        account.lease();
        account.enter(Bucket::Guest);
        hand.advance_ns(10);
        account.enter(Bucket::Wait);
        hand.advance_ns(30);
        let run = account.compute_stamp().start();
        hand.advance_ns(20);
        drop(run);
        account.release();
        hand.advance_ns(25);
    }
    account.enter(Bucket::Drain);
    hand.advance_ns(20);
}

#[test]
fn known_work_gives_exact_figures() {
    let (ledger, hand) = ledger();
    let version = version(&ledger, "m");
    worked_instance(&ledger, &hand, &version);
    ledger.called("default", &name("m"));
    let report = report(&ledger, Window::Lifetime, &["m", "n", "o", "p"]);
    for row in [&report.host, &report.models[0].row, &report.versions[0].row] {
        assert_eq!(row.eta, Some(0.6));
        assert_eq!(row.useful, Some(0.5));
        assert_eq!(row.rho, Some(0.6));
        assert_eq!(row.calls, 2);
        assert_eq!((row.used_byte_seconds, row.idle_byte_seconds), (120, 80));
        let buckets = Buckets { cold: 10, guest: 20, compute: 40, wait: 60, idle: 50, drain: 20 };
        assert_eq!(row.buckets_ns, buckets);
    }
    assert_eq!(report.host.xi, Some(0.25));
    assert_eq!(report.models[0].row.xi, Some(1.0));
    assert_eq!(report.versions[0].row.xi, None);
}

#[test]
fn empty_denominators_are_null() {
    let (ledger, _hand) = ledger();
    for window in [Window::OneMinute, Window::FiveMinutes, Window::OneHour, Window::Lifetime] {
        let json = serde_json::to_value(report(&ledger, window, &[])).unwrap();
        for figure in ["eta", "rho", "xi", "useful", "sharing_factor"] {
            assert!(json["host"][figure].is_null(), "{figure} {window}");
        }
    }
}

#[test]
fn the_report_has_the_shape_of_the_management_api() {
    let (ledger, hand) = ledger();
    let version = version(&ledger, "m");
    worked_instance(&ledger, &hand, &version);
    let _thread = ledger.engine_thread("compute-0");
    let json = serde_json::to_value(report(&ledger, Window::OneMinute, &["m"])).unwrap();
    assert_eq!(json["window"], "1m");
    assert_eq!(json["models"][0]["model"], "m");
    assert_eq!(json["versions"][0]["version"], "1");
    assert_eq!(json["versions"][0]["model"], "m");
    assert_eq!(json["versions"][0]["buckets_ns"]["drain"], 20);
    assert_eq!(json["models"][0]["used_byte_seconds"], 120);
    assert_eq!(json["engine"]["threads"][0]["thread"], "compute-0");
    assert_eq!(json["engine"]["empty_slots_ns"], 0);
    assert!(json["note"].as_str().unwrap().contains("authentication is off"));
}

#[test]
fn a_model_is_a_ratio_of_sums_not_a_mean_of_ratios() {
    let (ledger, hand) = ledger();
    let mut busy = ledger.instance(&numbered(&ledger, "m", "1"));
    busy.lease();
    hand.advance_ns(10);
    drop(busy);
    let idle = ledger.instance(&numbered(&ledger, "m", "2"));
    hand.advance_ns(90);
    drop(idle);
    let report = report(&ledger, Window::Lifetime, &[]);
    let eta: Vec<_> = report.versions.iter().map(|version| version.row.eta).collect();
    assert_eq!(eta, [Some(1.0), Some(0.0)]);
    assert_eq!(report.models[0].row.eta, Some(0.1));
}

#[test]
fn one_graph_of_many_instances_has_a_sharing_factor() {
    let (ledger, _hand) = ledger();
    let (a, b) = (version(&ledger, "a"), version(&ledger, "b"));
    let _graphs = [
        ledger.object(ObjectKind::Graph, 300, &[a.clone(), b.clone()]),
        ledger.object(ObjectKind::Graph, 100, std::slice::from_ref(&b)),
        ledger.object(ObjectKind::CodeImage, 999, std::slice::from_ref(&b)),
    ];
    let _instances: Vec<_> =
        [&a, &a, &a, &b].into_iter().map(|version| ledger.instance(version)).collect();
    let report = report(&ledger, Window::Lifetime, &[]);
    assert_eq!(report.host.sharing_factor, Some((300.0 * 4.0 + 100.0) / 400.0));
    assert_eq!(report.models[0].row.sharing_factor, Some(3.0));
    assert_eq!(report.versions[1].row.sharing_factor, Some(1.0));
}

#[test]
fn pairs_of_tenant_and_model_count_when_authentication_is_on() {
    let (ledger, hand) = ledger();
    let pairs = [("ann", "m"), ("bob", "m"), ("ann", "n"), ("bob", "n")]
        .map(|(tenant, model)| (tenant.to_owned(), name(model)));
    let _row = version(&ledger, "m");
    ledger.called("bob", &name("m"));
    ledger.called("eve", &name("n"));
    hand.advance_ns(5);
    ledger.called("bob", &name("m"));
    let report = ledger.efficiency(Window::Lifetime, Callable::Pairs(&pairs));
    assert_eq!(report.host.xi, Some(0.25));
    assert_eq!(report.models[0].row.xi, Some(0.5));
    assert!(report.note.contains("pairs"));
    let callers = ledger.callers();
    assert_eq!((callers[0].tenant.as_str(), callers[0].calls), ("bob", 2));
    assert_eq!((callers[1].tenant.as_str(), callers[1].last_call_ago_ns), ("eve", 5));
}

#[test]
fn the_bill_is_guest_and_engine_time_and_the_waste_names_its_settings() {
    let (ledger, hand) = ledger();
    let version = version(&ledger, "m");
    worked_instance(&ledger, &hand, &version);
    version.book(Booking::Compile, 5);
    version.book(Booking::Deserialize, 6);
    version.book(Booking::GraphLoad, 7);
    let mut thread = ledger.engine_thread("compute-0");
    let work = thread.begin();
    hand.advance_ns(40);
    work.finish(&[Share { version: &version, rows: 1, abandoned: false }], 2);
    let bill = ledger.bill(Window::OneHour);
    assert_eq!((bill[0].calls, bill[0].guest_ns, bill[0].engine_ns), (2, 20, 20));
    assert_eq!(bill[0].billed_ns, 40);
    let totals = version.totals(0).0;
    assert_eq!((totals.compile_ns, totals.deserialize_ns, totals.graph_load_ns), (5, 6, 7));
    let waste = ledger.waste(Window::OneHour);
    assert!(waste.iter().all(|line| !line.settings.is_empty()));
    let amounts: Vec<_> = waste.iter().map(|line| line.amount).collect();
    assert_eq!(amounts, [80, 10, 20, 0]);
}
