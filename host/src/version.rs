//! What a version is: the record that never changes, its signature, and the annotations beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::names::AssetName;
use crate::tensor::{Datatype, NamedTensor, ShapeText};

/// A blob by its address, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// SHA-256 of the blob's bytes.
    pub digest: Digest,
    /// The blob's length in bytes.
    pub bytes: u64,
}

/// One tensor of a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// The name callers and the graph know it by; any characters.
    pub name: String,
    /// The type of every element.
    pub datatype: Datatype,
    /// The length of each axis, -1 where it is dynamic; empty for a scalar.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// Whether a tensor of `shape` is one this describes: as many axes, and the fixed ones equal.
    pub fn accepts_shape(&self, shape: &[usize]) -> bool {
        self.shape.len() == shape.len()
            && self.shape.iter().zip(shape).all(|(wanted, given)| {
                *wanted < 0 || usize::try_from(*wanted).is_ok_and(|wanted| wanted == *given)
            })
    }

    /// The specification as people read it: `FP32 [-1,10]`.
    pub fn describe(&self) -> String {
        format!("{} {}", self.datatype, ShapeText(&self.shape))
    }
}

/// What a version takes and gives.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Signature {
    /// The tensors a call must bring, all of them.
    pub inputs: Vec<TensorSpec>,
    /// The tensors an answer carries.
    pub outputs: Vec<TensorSpec>,
    /// Whether axis 0 of every input and output is one batch.
    #[serde(default)]
    pub batch: bool,
    /// The standard task it serves, such as `embedding`; none for plain tensors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

impl Signature {
    /// How many rows a call brings; 1 where axis 0 is not a batch.
    pub fn rows(&self, inputs: &[NamedTensor]) -> u64 {
        let first = inputs.first().filter(|_| self.batch);
        let rows = first.and_then(|(_, tensor)| tensor.shape().first());
        rows.map_or(1, |rows| *rows as u64)
    }
}

/// Which engine a version asks for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// ONNX Runtime where its library is installed, rten otherwise.
    #[default]
    Auto,
    /// ONNX Runtime, and an error where it is not installed.
    Onnxruntime,
    /// rten, which is always there.
    Rten,
}

/// How a version's instances are pooled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolPolicy {
    /// Instances kept even when idle.
    pub min_instances: u32,
    /// Instances at most; calls beyond them queue.
    pub max_instances: u32,
    /// Calls an instance serves before it is replaced.
    pub max_instance_reuse_count: u64,
    /// How long an instance may be idle before it is dropped, in seconds.
    pub idle_instance_timeout_s: u64,
}

/// How a publisher wants instances pooled, as far as it says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolWishes {
    /// [`PoolPolicy::min_instances`]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_instances: Option<u32>,
    /// [`PoolPolicy::max_instances`]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_instances: Option<u32>,
    /// [`PoolPolicy::max_instance_reuse_count`]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_instance_reuse_count: Option<u64>,
    /// [`PoolPolicy::idle_instance_timeout_s`]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_instance_timeout_s: Option<u64>,
}

impl PoolWishes {
    /// The policy: what is said, and otherwise the defaults of models that serve tensors, or HTTP.
    pub fn policy(&self, serves_http: bool) -> PoolPolicy {
        let default = PoolPolicy::default();
        let reuse = match serves_http {
            true => DEFAULT_HTTP_INSTANCE_REUSE_COUNT,
            false => default.max_instance_reuse_count,
        };
        PoolPolicy {
            min_instances: self.min_instances.unwrap_or(default.min_instances),
            max_instances: self.max_instances.unwrap_or(default.max_instances),
            max_instance_reuse_count: self.max_instance_reuse_count.unwrap_or(reuse),
            idle_instance_timeout_s: self
                .idle_instance_timeout_s
                .unwrap_or(default.idle_instance_timeout_s),
        }
    }
}

/// A component that was not written for this host may count on being new for every request, as on hosts
/// that start one for each.
pub const DEFAULT_HTTP_INSTANCE_REUSE_COUNT: u64 = 1;
/// Nothing is kept for a version nobody calls: scale to zero.
pub const DEFAULT_MIN_INSTANCES: u32 = 0;
/// Twice what two cores can keep busy many times over; more only adds waiting in the engine.
pub const DEFAULT_MAX_INSTANCES: u32 = 32;
/// High enough that a start of some microseconds is nothing per call, low enough that a guest that
/// leaks is replaced within minutes.
pub const DEFAULT_MAX_INSTANCE_REUSE_COUNT: u64 = 10_000;
/// A pause between bursts keeps its instances; an idle night does not.
pub const DEFAULT_IDLE_INSTANCE_TIMEOUT: Duration = Duration::from_secs(60);

impl PoolPolicy {
    /// Whether the policy can be kept at all.
    ///
    /// # Errors
    /// What contradicts what.
    pub fn check(&self) -> Result<(), String> {
        let (min, max) = (self.min_instances, self.max_instances);
        if max == 0 {
            return Err("pool.max_instances is 0, so that no call could ever be answered".into());
        }
        if min > max {
            return Err(format!("pool.min_instances is {min}, over pool.max_instances, {max}"));
        }
        if self.max_instance_reuse_count == 0 {
            return Err("pool.max_instance_reuse_count is 0; 1 is a new instance a call".into());
        }
        Ok(())
    }
}

impl Default for PoolPolicy {
    fn default() -> Self {
        Self {
            min_instances: DEFAULT_MIN_INSTANCES,
            max_instances: DEFAULT_MAX_INSTANCES,
            max_instance_reuse_count: DEFAULT_MAX_INSTANCE_REUSE_COUNT,
            idle_instance_timeout_s: DEFAULT_IDLE_INSTANCE_TIMEOUT.as_secs(),
        }
    }
}

/// The record of a version, which never changes: it is addressed by the digest of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The WebAssembly component.
    pub component: BlobRef,
    /// The named blobs shipped with it.
    pub assets: BTreeMap<AssetName, BlobRef>,
    /// What it takes and gives.
    pub signature: Signature,
    /// Which engine its graphs run on.
    #[serde(default)]
    pub backend: BackendChoice,
    /// The operator's key/values, which the guest may read.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// How its instances are pooled.
    #[serde(default)]
    pub pool: PoolPolicy,
}

impl VersionRecord {
    /// The record as the bytes its digest is taken over: JSON with fields in declaration order and
    /// maps in key order, so that equal records are equal bytes.
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record has only string keys, so it is always JSON")
    }

    /// The version's address.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.canonical())
    }

    /// Every blob the version needs, the component first.
    pub fn blobs(&self) -> impl Iterator<Item = BlobRef> {
        std::iter::once(self.component).chain(self.assets.values().copied())
    }
}

/// What may be said of a version after it was published.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Annotations {
    /// What the model is, in a sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How well it does, and how that was found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
    /// Free key/values to find it by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Named links: source, paper, terms.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<String, String>,
}

/// A measured accuracy; without method and data it would be a rumour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// The figure, as the method defines it.
    pub value: f64,
    /// How it was measured, such as `top-1`.
    pub method: String,
    /// The digest of the data it was measured on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> VersionRecord {
        let blob = BlobRef { digest: Digest::of(b"component"), bytes: 9 };
        VersionRecord {
            component: blob,
            assets: BTreeMap::from([("model.onnx".parse().unwrap(), blob)]),
            signature: Signature::default(),
            backend: BackendChoice::Auto,
            config: BTreeMap::new(),
            pool: PoolPolicy::default(),
        }
    }

    #[test]
    fn a_record_keeps_its_digest_through_a_round_trip() {
        let read: VersionRecord = serde_json::from_slice(&record().canonical()).unwrap();
        assert_eq!(read.digest(), record().digest());
    }

    #[test]
    fn a_pool_is_as_its_publisher_says_and_otherwise_as_models_of_its_kind_are() {
        let wishes = |text: &str| serde_json::from_str::<PoolWishes>(text).unwrap();
        assert_eq!(wishes("{}").policy(false), PoolPolicy::default());
        let http = wishes(r#"{"max_instances":3}"#).policy(true);
        assert_eq!((http.max_instances, http.max_instance_reuse_count), (3, 1));
        let reused = wishes(r#"{"max_instance_reuse_count":10000}"#);
        assert_eq!(reused.policy(true).max_instance_reuse_count, 10_000);
    }

    #[test]
    fn an_accuracy_is_read_to_the_last_digit() {
        // serde_json's quicker parser, without its feature `float_roundtrip`, makes it 0.03.
        let text = r#"{"value":0.030000000000000002,"method":"f1"}"#;
        let accuracy: Accuracy = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&accuracy).unwrap(), text);
    }

    #[test]
    fn dynamic_axes_accept_any_length_and_fixed_ones_only_their_own() {
        let spec = TensorSpec { name: "x".into(), datatype: Datatype::Fp32, shape: vec![-1, 3] };
        assert!(spec.accepts_shape(&[7, 3]));
        assert!(!spec.accepts_shape(&[7, 4]));
        assert!(!spec.accepts_shape(&[3]));
        assert_eq!(spec.describe(), "FP32 [-1,3]");
    }
}
