//! `modelet efficiency`: the figures of the host, its models and versions, and the engine account.

use super::operations::{buckets_cells, scalar_text};
use crate::args::EfficiencyArgs;
use crate::client::Client;
use crate::documents::{Efficiency, EfficiencyRow, EngineTime};
use crate::failure::Failure;
use crate::out::Out;
use crate::{table, units};

pub(super) fn run(args: &EfficiencyArgs, client: &Client, out: &Out) -> Result<(), Failure> {
    let answer = client.efficiency(args.window)?;
    let efficiency: Efficiency = answer.read("")?;
    out.answer(&answer.document, || efficiency_text(&efficiency))
}

fn efficiency_text(efficiency: &Efficiency) -> String {
    let host = std::iter::once(("host".to_owned(), &efficiency.host));
    let models = efficiency.models.iter().map(|row| (row.model.clone(), row));
    let versions =
        efficiency.versions.iter().map(|row| (format!("{}@{}", row.model, row.version), row));
    let rows: Vec<_> = host.chain(models).chain(versions).collect();
    let mut parts = vec![
        format!("window: {} ({:.1} s)", efficiency.window, efficiency.seconds),
        figures_text(&rows),
        time_text(&rows),
        engine_text(&efficiency.engine),
    ];
    if !efficiency.note.is_empty() {
        parts.push(table::plain(&format!("note: {}", efficiency.note)));
    }
    parts.join("\n\n")
}

fn figures_text(rows: &[(String, &EfficiencyRow)]) -> String {
    table::table(
        ["of", "calls", "eta compute", "rho data", "xi sharing", "useful", "sharing factor"],
        rows.iter().map(|(name, row)| {
            [
                name.clone(),
                row.calls.to_string(),
                units::ratio(row.eta),
                units::ratio(row.rho),
                units::ratio(row.xi),
                units::ratio(row.useful),
                units::ratio(row.sharing_factor),
            ]
        }),
    )
}

fn time_text(rows: &[(String, &EfficiencyRow)]) -> String {
    table::table(
        ["instance time", "cold", "guest", "compute", "wait", "idle", "drain"],
        rows.iter().map(|(name, row)| {
            let [cold, guest, compute, wait, idle, drain] = buckets_cells(&row.buckets_ns);
            [name.clone(), cold, guest, compute, wait, idle, drain]
        }),
    )
}

fn engine_text(engine: &EngineTime) -> String {
    let threads = engine.threads.iter().map(|thread| {
        [
            format!("thread {}", scalar_text(&thread.thread)),
            units::nanoseconds(thread.busy_ns),
            units::nanoseconds(thread.idle_ns),
        ]
    });
    let table = table::table(["engine time", "busy", "idle"], threads);
    format!(
        "{table}\nbusy {} = calls {} + abandoned {} + empty batch slots {}",
        units::nanoseconds(engine.busy_ns),
        units::nanoseconds(engine.apportioned_ns),
        units::nanoseconds(engine.abandoned_ns),
        units::nanoseconds(engine.empty_slots_ns),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_row_has_its_figures_and_a_missing_one_is_a_dash() {
        let efficiency: Efficiency = serde_json::from_value(json!({
            "window": "1m", "seconds": 60.0,
            "host": { "eta": 0.9312, "rho": 0.5, "xi": null, "useful": 1.0, "sharing_factor": 8.0,
                      "calls": 12, "buckets_ns": { "guest": 1_000_000 } },
            "models": [{ "model": "mnist", "eta": null, "calls": 12 }],
            "versions": [{ "model": "mnist", "version": "1.0.0", "calls": 12 }],
            "engine": { "threads": [{ "thread": 0, "busy_ns": 5, "idle_ns": 7 }],
                        "busy_ns": 5, "apportioned_ns": 4, "abandoned_ns": 1, "empty_slots_ns": 0 },
            "note": "authentication is off"
        }))
        .unwrap();
        let text = efficiency_text(&efficiency);
        let cells = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(cells("host"), ["12", "0.931", "0.500", "-", "1.000", "8.000"]);
        assert_eq!(cells("mnist@1.0.0"), ["12", "-", "-", "-", "-", "-"]);
        assert!(text.contains("busy 5 ns = calls 4 ns + abandoned 1 ns + empty batch slots 0 ns"));
        assert!(text.ends_with("note: authentication is off"), "{text}");
    }
}
