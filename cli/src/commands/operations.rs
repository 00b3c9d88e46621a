//! `modelet health`, `modelet instances` and `modelet config`: the server at this moment.

use serde_json::{Value, json};

use crate::client::Client;
use crate::documents::{Buckets, Instance, Setting};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::{table, units};

/// Whether the server is alive and ready; not ready is an answer with its own exit code.
pub(super) fn health(client: &Client, out: &Out) -> Result<Exit, Failure> {
    client.alive()?;
    let ready = client.ready()?;
    let is_ready = ready.status == 200;
    let document = json!({ "alive": true, "ready": is_ready, "readiness": ready.document });
    out.answer(&document, || health_text(is_ready, &ready.document))?;
    Ok(if is_ready { Exit::Ok } else { Exit::Unavailable })
}

pub(super) fn instances(client: &Client, out: &Out) -> Result<(), Failure> {
    let answer = client.instances()?;
    let instances: Vec<Instance> = answer.read("/instances")?;
    out.answer(answer.part("/instances"), || instances_text(&instances))
}

pub(super) fn config(client: &Client, out: &Out) -> Result<(), Failure> {
    let answer = client.config()?;
    let settings: Vec<Setting> = answer.read("/settings")?;
    out.answer(answer.part("/settings"), || config_text(&settings))
}

/// The nanoseconds of an instance, its buckets in the order of its life.
pub(super) fn buckets_cells(buckets: &Buckets) -> [String; 6] {
    [buckets.cold, buckets.guest, buckets.compute, buckets.wait, buckets.idle, buckets.drain]
        .map(units::nanoseconds)
}

fn health_text(is_ready: bool, readiness: &Value) -> String {
    let mut fields = vec![
        ("alive", "yes".to_owned()),
        ("ready", if is_ready { "yes" } else { "no" }.to_owned()),
    ];
    let details = readiness.as_object().into_iter().flatten();
    // Readiness says why not; "status" only repeats the line above.
    let details = details.filter(|(key, _)| *key != "status");
    fields.extend(details.map(|(key, value)| (key.as_str(), state_text(value))));
    table::fields(fields)
}

/// A value in a line: of a `{"state", "reason"}`, what people read of it.
pub(crate) fn state_text(value: &Value) -> String {
    match (value.get("state").and_then(Value::as_str), value.get("reason").and_then(Value::as_str))
    {
        (Some(state), Some(reason)) => format!("{state}: {reason}"),
        (Some(state), None) => state.to_owned(),
        (None, _) => scalar_text(value),
    }
}

fn instances_text(instances: &[Instance]) -> String {
    if instances.is_empty() {
        return "no instances: every version is scaled to zero".to_owned();
    }
    table::table(
        [
            "id", "version", "state", "uses", "memory", "age", "cold", "guest", "compute", "wait",
            "idle", "drain",
        ],
        instances.iter().map(|instance| {
            let [cold, guest, compute, wait, idle, drain] = buckets_cells(&instance.buckets_ns);
            [
                scalar_text(&instance.id),
                format!("{}@{}", instance.model, instance.version),
                instance.state.clone(),
                instance.uses.to_string(),
                units::bytes(instance.memory_bytes),
                units::nanoseconds(instance.lifetime_ns),
                cold,
                guest,
                compute,
                wait,
                idle,
                drain,
            ]
        }),
    )
}

fn config_text(settings: &[Setting]) -> String {
    table::table(
        ["setting", "value", "from", "default", "reason"],
        settings.iter().map(|setting| {
            [
                setting.key.clone(),
                scalar_text(&setting.value),
                setting.origin.clone(),
                scalar_text(&setting.default),
                setting.reason.clone(),
            ]
        }),
    )
}

/// A JSON value in a cell: text without its quotes, null as `-`.
pub(super) fn scalar_text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_says_why_a_server_is_not_ready() {
        let text =
            health_text(false, &json!({ "status": "not_ready", "reason": "registry is loading" }));
        assert_eq!(text, "alive:   yes\nready:   no\nreason:  registry is loading");
        let registry = json!({ "state": "read_only", "reason": "the disk" });
        let text = health_text(true, &json!({ "models": 3, "registry": registry }));
        assert!(text.ends_with("models:    3\nregistry:  read_only: the disk"), "{text}");
    }

    #[test]
    fn instances_show_where_their_time_went() {
        let instances: Vec<Instance> = serde_json::from_value(json!([
            { "id": 7, "model": "m", "version": "1", "state": "idle", "uses": 3,
              "memory_bytes": 65536, "lifetime_ns": 2_000_000, "buckets_ns": { "idle": 1_500_000 } }
        ]))
        .unwrap();
        let text = instances_text(&instances);
        let row: Vec<_> = text.lines().nth(1).unwrap().split("  ").map(str::trim).collect();
        assert_eq!(row.iter().filter(|cell| **cell == "1.5 ms").count(), 1, "{text}");
        assert!(
            row.starts_with(&["7"]) && text.contains("64.0 KiB") && text.contains("m@1"),
            "{text}"
        );
        assert!(instances_text(&[]).contains("scaled to zero"));
    }

    #[test]
    fn settings_show_value_origin_and_default() {
        let settings: Vec<Setting> = serde_json::from_value(json!([
            { "key": "limits.x", "value": 1, "default": null, "origin": "flag", "reason": "why" }
        ]))
        .unwrap();
        assert!(config_text(&settings).ends_with("limits.x  1      flag  -        why"));
    }
}
