//! Journals: as bytes, and as lines that the target frames and chains by itself.

use modelet_host::digest::Digest;
use modelet_host::registry::JournalContents;
use serde_json::{Value, json};

use super::Seed;

pub(super) fn seeds() -> Vec<Seed> {
    let seed = |name: &str, bytes: Vec<u8>| ("journal", name.to_owned(), bytes);
    let bytes = |journal: Vec<u8>| [b"bytes\n".to_vec(), journal].concat();
    let text = |records: &[Value]| {
        let lines: Vec<_> = records.iter().map(|record| record.to_string()).collect();
        format!("lines\n{}\n", lines.join("\n\n")).into_bytes()
    };
    let whole = chained(&history());
    let cut = whole.get(..whole.len() - 7).unwrap_or_default().to_vec();
    let mut damaged = whole.clone();
    damaged.iter_mut().skip(60).take(1).for_each(|byte| *byte ^= 4);
    let strange = json!({"time_ms": 1, "actor": "a", "prev": Digest::of(b""), "change": {"op": "delete_model", "model": "m"}});
    vec![
        seed("ok-history", bytes(whole)),
        seed("ok-empty", bytes(Vec::new())),
        seed("no-torn", bytes(cut)),
        seed("no-damaged", bytes(damaged)),
        seed("ok-lines", text(&history())),
        seed("ok-one-frame", {
            let lines: Vec<_> = history().iter().map(|record| record.to_string()).collect();
            format!("lines\n{}\n", lines.join("\n")).into_bytes()
        }),
        seed("no-broken-link", text(&[history(), vec![strange]].concat())),
        seed("no-change-without-a-model", text(history().get(1..).unwrap_or_default())),
    ]
}

/// One of each change there is.
fn history() -> Vec<Value> {
    let digest = Digest::of(b"component");
    let blob = json!({"digest": digest, "bytes": 9});
    let signature = json!({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], "outputs": [], "batch": true,
    });
    let record = json!({
        "component": blob, "assets": {"model.onnx": blob}, "signature": signature,
        "backend": "rten", "config": {"k": "v"},
    });
    let annotations = json!({"description": "d", "accuracy": {"value": 0.5, "method": "top-1"}, "labels": {"k": "v"}});
    let publish = |version: &str, alias: Option<&str>| {
        let mut publish = json!({"op": "publish", "model": "m", "version": version, "owner": "o",
            "record": record, "annotations": annotations});
        if let (Some(alias), Some(fields)) = (alias, publish.as_object_mut()) {
            fields.insert("alias".to_owned(), json!(alias));
        }
        publish
    };
    let target = |version: &str, weight: u32| json!({"version": version, "weight": weight});
    let changes = [
        publish("1", Some("canary")),
        publish("2", None),
        json!({"op": "set_alias", "model": "m", "alias": "live", "targets": [target("1", 9), target("2", 1)], "expect": {"epoch": 1}}),
        json!({"op": "rollback_alias", "model": "m", "alias": "live"}),
        json!({"op": "annotate", "model": "m", "version": "2", "annotations": {}}),
        json!({"op": "remove_alias", "model": "m", "alias": "canary"}),
        json!({"op": "delete_version", "model": "m", "version": "2"}),
        json!({"op": "delete_model", "model": "m"}),
        publish("1", None),
    ];
    let record = |change: Value| {
        let mut record = json!({"time_ms": 5, "actor": "a", "change": change});
        if let ("publish", Some(fields)) =
            (change.get("op").and_then(Value::as_str).unwrap_or_default(), record.as_object_mut())
        {
            fields.insert("model_id".to_owned(), json!("0000000005041061050R3GG28A"));
            fields.insert("digest".to_owned(), json!(digest));
        }
        record
    };
    changes.map(record).to_vec()
}

/// A journal of one frame a record, numbered and linked.
fn chained(records: &[Value]) -> Vec<u8> {
    let mut before: Option<Digest> = None;
    let mut journal = Vec::new();
    for (epoch, record) in (1..).zip(records) {
        let mut record = record.clone();
        if let Some(fields) = record.as_object_mut() {
            fields.insert("epoch".to_owned(), json!(epoch));
            fields.insert("prev".to_owned(), json!(before));
        }
        let line = record.to_string();
        before = Some(Digest::of(line.as_bytes()));
        journal
            .extend(JournalContents::frame(format!("{line}\n").as_bytes()).expect("it is short"));
    }
    journal
}
