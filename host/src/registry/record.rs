//! A record: one change as the journal keeps it, and as history shows it.

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::change::{Change, CommitError, Op};
use super::limits;
use super::snapshot::Snapshot;
use crate::digest::Digest;

/// One change with everything needed to apply it again. Kept as one line of JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Its number; each record's is one more than the one before.
    pub(super) epoch: u64,
    /// When it was committed, in milliseconds since 1970; never before the record before it.
    pub(super) time_ms: u64,
    /// Who asked for it.
    pub(super) actor: String,
    /// The SHA-256 of the line before it; none for the first.
    pub(super) prev: Option<Digest>,
    /// The id of the model that a publish makes.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "ulid_text")]
    pub(super) model_id: Option<Ulid>,
    /// The digest of the version that a publish adds, as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<Digest>,
    /// What was asked for.
    pub(super) change: Op,
}

/// A change in a model's history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// The change's number, counted over all models.
    pub epoch: u64,
    /// When it was committed, in milliseconds since 1970.
    pub time_ms: u64,
    /// Who asked for it.
    pub actor: String,
    /// What was asked for.
    pub change: Op,
}

impl Record {
    /// The record of a change to `state`. `now_ms` is raised to the time of the record before it,
    /// since "what was live at that time" must have one answer even where the clock was set back.
    pub(super) fn of(state: &Snapshot, change: &Change, tip: &Tip, now_ms: u64) -> Self {
        let time_ms = now_ms.max(tip.time_ms);
        let (model_id, digest) = match &change.op {
            Op::Publish(publish) => {
                let new = state.get(&publish.model).is_none();
                let id = new.then(|| Ulid::from_parts(time_ms, Ulid::new().random()));
                (id, Some(publish.record.digest()))
            }
            _ => (None, None),
        };
        Self {
            epoch: state.epoch + 1,
            time_ms,
            actor: change.actor.clone(),
            prev: tip.chain,
            model_id,
            digest,
            change: change.op.clone(),
        }
    }

    /// The record as a line, without its end, and as it will read back. What is applied is what was
    /// read back, so that a replay cannot differ, down to the last digit of a number.
    pub(super) fn encode(&self) -> Result<(Vec<u8>, Self), CommitError> {
        let unreadable = |error: serde_json::Error| CommitError::Invalid {
            what: format!("the change cannot be kept as a record: {error}"),
        };
        let line = serde_json::to_vec(self).map_err(unreadable)?;
        limits::check_record(line.len())?;
        let record = Self::decode(&line).map_err(unreadable)?;
        Ok((line, record))
    }

    /// Reads a line.
    pub(super) fn decode(line: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }
}

impl From<Record> for Entry {
    fn from(record: Record) -> Self {
        let Record { epoch, time_ms, actor, change, .. } = record;
        Self { epoch, time_ms, actor, change }
    }
}

/// The end of the chain of records: what the next one must follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tip {
    /// The SHA-256 of the last line; none before the first.
    pub(super) chain: Option<Digest>,
    /// The time of the last record.
    pub(super) time_ms: u64,
}

impl Tip {
    /// The tip after `record`, whose line is `line`.
    pub(super) fn after(record: &Record, line: &[u8]) -> Self {
        Self { chain: Some(Digest::of(line)), time_ms: record.time_ms }
    }
}

/// A ULID as its 26 characters.
mod ulid_text {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;
    use ulid::Ulid;

    pub(super) fn serialize<S: Serializer>(id: &Option<Ulid>, out: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => out.collect_str(id),
            None => out.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Ulid>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| Ulid::from_string(&text).map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as format 1 writes them. A journal lives longer than the program that wrote it: these
    /// may be added to, never edited.
    const LINES: [&str; 7] = [
        r#"{"epoch":1,"time_ms":5,"actor":"a","prev":null,"model_id":"0000000005041061050R3GG28A","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","change":{"op":"publish","model":"m","version":"1","owner":"o","record":{"component":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","bytes":0},"assets":{"model.onnx":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","bytes":0}},"signature":{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}],"outputs":[],"batch":true,"task":"embedding"},"backend":"auto","config":{"k":"v"},"pool":{"min_instances":0,"max_instances":32,"max_instance_reuse_count":10000,"idle_instance_timeout_s":60}},"annotations":{"description":"d","accuracy":{"value":0.5,"method":"top-1"},"labels":{"k":"v"},"links":{"paper":"p"}},"alias":"canary"}}"#,
        r#"{"epoch":2,"time_ms":5,"actor":"a","prev":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","change":{"op":"set_alias","model":"m","alias":"live","targets":[{"version":"1","weight":100}],"expect":{"epoch":1}}}"#,
        r#"{"epoch":3,"time_ms":5,"actor":"a","prev":null,"change":{"op":"rollback_alias","model":"m","alias":"live"}}"#,
        r#"{"epoch":4,"time_ms":5,"actor":"a","prev":null,"change":{"op":"remove_alias","model":"m","alias":"canary","expect":"absent"}}"#,
        r#"{"epoch":5,"time_ms":5,"actor":"a","prev":null,"change":{"op":"annotate","model":"m","version":"1","annotations":{}}}"#,
        r#"{"epoch":6,"time_ms":5,"actor":"a","prev":null,"change":{"op":"delete_version","model":"m","version":"1"}}"#,
        r#"{"epoch":7,"time_ms":5,"actor":"a","prev":null,"change":{"op":"delete_model","model":"m"}}"#,
    ];

    #[test]
    fn lines_of_format_1_are_read_and_written() {
        for line in LINES {
            let record = Record::decode(line.as_bytes()).unwrap();
            let (written, read) = record.encode().unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), line);
            assert_eq!(read, record);
        }
    }

    #[test]
    fn a_word_that_is_not_known_is_not_passed_over() {
        for line in LINES {
            let head = line.strip_suffix('}').unwrap();
            assert!(Record::decode(format!("{head},\"more\":1}}").as_bytes()).is_err());
            let body = head.strip_suffix('}').unwrap();
            assert!(Record::decode(format!("{body},\"more\":1}}}}").as_bytes()).is_err(), "{line}");
        }
    }
}
