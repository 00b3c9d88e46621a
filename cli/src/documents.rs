//! The server's documents, as far as tables show them.
//!
//! Unknown fields are ignored and most may be missing, so that a client and a server of neighbouring
//! versions understand each other; `--json` passes the server's documents on whole.

use std::collections::BTreeMap;

use modelet_host::version::Signature;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A model as the list and its own route give it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) owner: String,
    pub(crate) created_ms: u64,
    pub(crate) description: String,
    pub(crate) versions: Vec<String>,
    pub(crate) aliases: BTreeMap<String, Vec<Weighted>>,
}

/// One target of an alias.
#[derive(Debug, Deserialize)]
pub(crate) struct Weighted {
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) weight: u32,
}

/// An alias with what to name when it is moved.
#[derive(Debug, Deserialize)]
pub(crate) struct Alias {
    pub(crate) alias: String,
    pub(crate) targets: Vec<Weighted>,
    #[serde(default)]
    pub(crate) etag: String,
}

/// A version with everything known of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Version {
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) digest: String,
    pub(crate) created_ms: u64,
    pub(crate) actor: String,
    pub(crate) component: Blob,
    pub(crate) assets: BTreeMap<String, Blob>,
    pub(crate) signature: Signature,
    pub(crate) backend: String,
    pub(crate) engine: Option<String>,
    pub(crate) sharing: Option<BTreeMap<String, GraphSharing>>,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) pool: BTreeMap<String, u64>,
    pub(crate) annotations: Annotations,
    pub(crate) aliases: Vec<String>,
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
}

/// Whether callers share runs of a graph.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GraphSharing {
    pub(crate) rows: usize,
    pub(crate) reason: Option<String>,
}

/// A blob by digest and length.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) bytes: u64,
}

/// What was said of a version after it was published.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Annotations {
    pub(crate) description: String,
    pub(crate) accuracy: Option<Accuracy>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) links: BTreeMap<String, String>,
}

/// A measured accuracy.
#[derive(Debug, Deserialize)]
pub(crate) struct Accuracy {
    pub(crate) value: f64,
    #[serde(default)]
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) dataset: Option<String>,
}

/// One record of a model's history.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HistoryRecord {
    pub(crate) epoch: u64,
    pub(crate) time_ms: u64,
    pub(crate) actor: String,
    /// `op` says what was done; the other fields depend on it.
    pub(crate) change: Map<String, Value>,
}

/// An instance and how it spent its life.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Instance {
    pub(crate) id: Value,
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) state: String,
    pub(crate) uses: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) lifetime_ns: u64,
    pub(crate) buckets_ns: Buckets,
}

/// Where the nanoseconds of instances went.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Buckets {
    pub(crate) cold: u64,
    pub(crate) guest: u64,
    pub(crate) compute: u64,
    pub(crate) wait: u64,
    pub(crate) idle: u64,
    pub(crate) drain: u64,
}

/// The efficiency of the host and of what it serves.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Efficiency {
    pub(crate) window: String,
    pub(crate) seconds: f64,
    pub(crate) host: EfficiencyRow,
    pub(crate) models: Vec<EfficiencyRow>,
    pub(crate) versions: Vec<EfficiencyRow>,
    pub(crate) engine: EngineTime,
    pub(crate) note: String,
}

/// One row of figures; null where there is nothing to divide by.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct EfficiencyRow {
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) eta: Option<f64>,
    pub(crate) rho: Option<f64>,
    pub(crate) xi: Option<f64>,
    pub(crate) useful: Option<f64>,
    pub(crate) sharing_factor: Option<f64>,
    pub(crate) calls: u64,
    pub(crate) buckets_ns: Buckets,
}

/// The engine account.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct EngineTime {
    pub(crate) threads: Vec<EngineThread>,
    pub(crate) busy_ns: u64,
    pub(crate) apportioned_ns: u64,
    pub(crate) abandoned_ns: u64,
    pub(crate) empty_slots_ns: u64,
}

/// One compute thread.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct EngineThread {
    pub(crate) thread: Value,
    pub(crate) busy_ns: u64,
    pub(crate) idle_ns: u64,
}

/// One effective setting.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) default: Value,
    pub(crate) origin: String,
    pub(crate) reason: String,
}
