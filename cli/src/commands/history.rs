//! `modelet history`: what was done to a model, by whom and when.

use serde_json::{Map, Value};

use crate::args::HistoryArgs;
use crate::client::Client;
use crate::documents::HistoryRecord;
use crate::failure::Failure;
use crate::out::Out;
use crate::{table, units};

pub(super) fn run(args: &HistoryArgs, client: &Client, out: &Out) -> Result<(), Failure> {
    let answer = client.history(&args.name, args.limit)?;
    let records: Vec<HistoryRecord> = answer.read("/records")?;
    out.answer(answer.part("/records"), || history_text(&records))
}

fn history_text(records: &[HistoryRecord]) -> String {
    if records.is_empty() {
        return "no history".to_owned();
    }
    table::table(
        ["epoch", "time", "actor", "change"],
        records.iter().map(|record| {
            [
                record.epoch.to_string(),
                units::time(record.time_ms),
                record.actor.clone(),
                change_text(&record.change),
            ]
        }),
    )
}

/// A change on one line: what was done, then its single values; `--json` has the nested ones.
fn change_text(change: &Map<String, Value>) -> String {
    let op = change.get("op").and_then(Value::as_str).unwrap_or("?").to_owned();
    let details =
        change.iter().filter(|(key, _)| *key != "op").filter_map(|(key, value)| match value {
            Value::String(text) => Some(format!("{key}={text}")),
            Value::Number(_) | Value::Bool(_) => Some(format!("{key}={value}")),
            Value::Array(targets) => Some(format!("{key}={}", targets_text(targets)?)),
            Value::Object(_) | Value::Null => None,
        });
    std::iter::once(op).chain(details).collect::<Vec<_>>().join(" ")
}

/// The weighted targets of an alias, which are what people look for in a history.
fn targets_text(targets: &[Value]) -> Option<String> {
    let target = |target: &Value| {
        Some(format!("{}:{}", target.get("version")?.as_str()?, target.get("weight")?))
    };
    targets.iter().map(target).collect::<Option<Vec<_>>>().map(|targets| targets.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_one_line() {
        let records: Vec<HistoryRecord> = serde_json::from_value(json!([
            { "epoch": 3, "actor": "ops", "change": { "op": "set_alias", "alias": "live",
              "targets": [{ "version": "1", "weight": 90 }, { "version": "2", "weight": 10 }] } },
            { "epoch": 2, "change": { "op": "publish", "version": "2", "record": {} } }
        ]))
        .unwrap();
        let text = history_text(&records);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].ends_with("ops    set_alias alias=live targets=1:90,2:10"), "{text}");
        assert!(lines[2].ends_with("publish version=2"), "{text}");
        assert_eq!(history_text(&[]), "no history");
    }
}
