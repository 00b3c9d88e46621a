//! The limits that refuse, each by the key of its setting, and how often each has refused.
//!
//! A refusal carries its [`Limit`] to the edge, where the account counts it; what refuses where no
//! answer can be given (a connection, a guest's log) counts by itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

macro_rules! limits {
    ($($(#[doc = $doc:literal])* $name:ident = $key:literal;)*) => {
        /// A setting that things are refused for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Limit { $($(#[doc = $doc])* $name,)* }

        impl Limit {
            /// All of them, in the order of the settings.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The key of its setting, as in a configuration file.
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }
        }
    };
}

limits! {
    /// Connections at once.
    Connections = "server.connections";
    /// Time for a request's head to come.
    HeaderTime = "server.header_timeout_s";
    /// Bytes of a request's head.
    HeaderBytes = "server.header_bytes";
    /// Time a connection may stay without a request.
    IdleTime = "server.idle_timeout_s";
    /// Time a gRPC stream may wait for its next message.
    StreamIdleTime = "server.stream_idle_timeout_s";
    /// Bytes of one request's body.
    RequestBodyBytes = "limits.request_body_bytes";
    /// Bytes of all requests under way.
    InflightBytes = "limits.inflight_bytes";
    /// Requests under way on the host.
    InflightRequests = "limits.inflight_requests";
    /// Requests under way of one tenant.
    TenantRequests = "limits.tenant_requests";
    /// Requests whose body is still coming.
    ReceivingRequests = "limits.receiving_requests";
    /// Calls that wait for an instance.
    QueueLength = "limits.queue_length";
    /// Time from a request's head to its answer.
    RequestTime = "limits.request_timeout_ms";
    /// Time for a request's body to come.
    BodyTime = "limits.body_timeout_ms";
    /// Time for an answer to be taken.
    AnswerTime = "limits.answer_timeout_ms";
    /// Nesting of a request's JSON.
    JsonDepth = "limits.json_depth";
    /// Elements of one tensor.
    TensorElements = "limits.tensor_elements";
    /// Axes of one tensor.
    TensorRank = "limits.tensor_rank";
    /// Inputs of one request.
    Inputs = "limits.inputs";
    /// Outputs that one request asks for.
    Outputs = "limits.outputs";
    /// Parameters of one request, input or output.
    Parameters = "limits.parameters";
    /// Bytes of partial answers on their way to one caller.
    StreamBytes = "limits.stream_bytes";
    /// Bytes of a published component.
    ComponentBytes = "limits.component_bytes";
    /// Bytes of a published asset.
    AssetBytes = "limits.asset_bytes";
    /// Assets of one version.
    Assets = "limits.assets";
    /// Blobs that came by digest and that no version names yet.
    Uploads = "limits.uploads";
    /// Bytes of those blobs.
    UploadsBytes = "limits.uploads_bytes";
    /// Time that part of a blob is kept.
    UploadIdle = "limits.upload_idle_s";
    /// Time that a blob is kept for a version to name it.
    UploadGrace = "limits.upload_grace_s";
    /// Time for a publication.
    UploadTime = "limits.upload_timeout_ms";
    /// Management requests at once.
    ManagementRequests = "limits.management_requests";
    /// Bytes of a management request that is no upload.
    ManagementBodyBytes = "limits.management_body_bytes";
    /// Bytes of a guest's linear memory.
    GuestMemory = "guest.memory_bytes";
    /// Elements of a guest's tables.
    GuestTables = "guest.table_elements";
    /// Bytes of tensors held for one call.
    GuestTensors = "guest.tensor_bytes";
    /// Handles of one instance.
    GuestHandles = "guest.handles";
    /// Bytes of a guest's log lines.
    GuestLog = "guest.log_bytes";
    /// Time for an instance to start.
    StartTime = "guest.start_timeout_ms";
    /// Live instances on the host.
    Instances = "engine.instances";
    /// Bytes of a guest's stack.
    GuestStack = "engine.stack_bytes";
    /// Bytes of linear memory of all guests.
    EngineMemory = "engine.memory_bytes";
    /// Jobs that wait for a compute thread.
    ComputeQueue = "compute.queue_length";
    /// Time for one run of a graph.
    ComputeTime = "compute.timeout_ms";
    /// Spans that wait to be sent to a collector.
    TelemetryQueue = "telemetry.queue_length";
    /// Bytes of all loaded graphs.
    ResidentGraphs = "compute.resident_graph_bytes";
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.key())
    }
}

/// Without a refusal for so long an episode of them has ended.
const EPISODE_END: Duration = Duration::from_secs(10);

/// An episode that lasts is told of again this often.
const EPISODE_REMINDER: Duration = Duration::from_secs(60);

/// How often each limit has refused something, and which refusals are worth a line in the log: under
/// overload there are thousands a second, and writing of each would take the time of what is served.
#[derive(Debug)]
pub struct Refusals {
    counts: [AtomicU64; LIMITS],
    episodes: [Mutex<Option<Episode>>; LIMITS],
}

const LIMITS: usize = Limit::ALL.len();

/// Refusals for one limit that follow each other.
#[derive(Debug, Clone, Copy)]
struct Episode {
    /// When the last one was.
    last: Instant,
    /// When it was last told of.
    told: Instant,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; LIMITS],
            episodes: [const { Mutex::new(None) }; LIMITS],
        }
    }
}

impl Refusals {
    /// Counts a refusal.
    pub fn count(&self, limit: Limit) {
        if let Some(count) = self.counts.get(limit as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a refusal at `now` is to be told: the first of an episode, and one a minute in a long
    /// one.
    pub fn is_news(&self, limit: Limit, now: Instant) -> bool {
        let Some(episode) = self.episodes.get(limit as usize) else { return true };
        let mut episode = episode.lock().unwrap_or_else(PoisonError::into_inner);
        let told = episode.filter(|episode| {
            now.saturating_duration_since(episode.last) < EPISODE_END
                && now.saturating_duration_since(episode.told) < EPISODE_REMINDER
        });
        *episode = Some(Episode { last: now, told: told.map_or(now, |episode| episode.told) });
        told.is_none()
    }

    /// Every limit with its count, those that never refused included.
    pub fn counts(&self) -> impl Iterator<Item = (Limit, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        Limit::ALL.iter().copied().zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Config;

    /// Settings that refuse nothing a caller could be told of or an operator count, and why.
    const NOT_COUNTED: &[(&str, &str)] = &[
        ("server.name", "is no limit"),
        ("server.hosts", "is no limit: who is not in it is forbidden, not over something"),
        ("server.client_control", "is no limit: what it forbids is forbidden, not over something"),
        ("server.http2_streams", "the HTTP library refuses the stream by itself and tells nobody"),
        ("server.drain_timeout_s", "acts once, when the process ends and nobody reads metrics"),
        ("compile.memory_bytes", "kills the worker; the publisher is told, as for a bad component"),
        ("compile.cpu_s", "kills the worker; the publisher is told, as for a bad component"),
        ("compile.timeout_s", "kills the worker; the publisher is told, as for a bad component"),
        ("gate.memory_bytes", "kills the worker; counted as a publication refused by its check"),
        ("gate.memory_per_graph_byte", "as gate.memory_bytes"),
        ("gate.cpu_s", "as gate.memory_bytes"),
        ("gate.timeout_s", "as gate.memory_bytes"),
        ("gate.verdicts", "forgets the oldest and refuses nothing"),
        ("guest.outgoing_connections", "is told to the guest, whose own request it is"),
        ("guest.outgoing_http", "is no limit"),
        ("engine.keep_resident_bytes", "is a trade of memory for speed and refuses nothing"),
        ("engine.foreground_ms", "moves a call to other threads and refuses nothing"),
        ("compute.threads", "is how much there is, and refuses nothing"),
        ("compute.short_threads", "is how much there is, and refuses nothing"),
        ("compute.short_run_us", "chooses threads and refuses nothing"),
        ("compute.inline_run_us", "chooses threads and refuses nothing"),
        ("compute.shared_rows", "chooses how many run at once and refuses nothing"),
        ("compute.grace_ms", "ends in a quarantine, which the log and the version's state tell"),
        ("compute.lost_threads", "is told to the log, as the loss of every thread is"),
        ("compute.intra_op_threads", "is how much there is, and refuses nothing"),
        ("compute.onnxruntime_library", "is no limit"),
        ("compute.graph_bytes", "is told to the publisher as a fault of the graph"),
        ("telemetry.otlp_endpoint", "is no limit"),
        ("telemetry.timeout_ms", "is told to the log: the collector is at fault, and no request"),
        ("ledger.checkpoint_s", "is how often, and refuses nothing"),
    ];

    #[test]
    fn every_setting_is_a_counted_limit_or_says_why_it_is_not() {
        let counted: BTreeSet<_> = Limit::ALL.iter().map(|limit| limit.key()).collect();
        assert_eq!(counted.len(), Limit::ALL.len());
        let excepted: BTreeSet<_> = NOT_COUNTED.iter().map(|(key, _)| *key).collect();
        assert_eq!(counted.intersection(&excepted).count(), 0);
        let settings: BTreeSet<_> =
            Config::default().settings().into_iter().map(|setting| setting.key).collect();
        for key in &settings {
            assert!(
                counted.contains(&**key) || excepted.contains(&**key),
                "{key} is neither in Limit nor in NOT_COUNTED"
            );
        }
        for key in counted.iter().chain(&excepted) {
            assert!(settings.contains(*key), "{key} is no setting");
        }
    }

    #[test]
    fn an_episode_is_told_at_its_beginning_and_once_a_minute() {
        let (refusals, begun) = (Refusals::default(), Instant::now());
        let tell =
            |seconds| refusals.is_news(Limit::QueueLength, begun + Duration::from_secs(seconds));
        let told: Vec<_> = (0..130).filter(|second| tell(*second)).collect();
        assert_eq!(told, [0, 60, 120]);
        assert!(refusals.is_news(Limit::RequestTime, begun), "each limit has its own");
        assert!(!tell(138) && tell(148), "ten seconds without one end an episode");
    }

    #[test]
    fn each_limit_has_a_count_of_its_own() {
        let refusals = Refusals::default();
        for (times, limit) in Limit::ALL.iter().enumerate() {
            (0..times).for_each(|_| refusals.count(*limit));
        }
        for (times, (limit, count)) in refusals.counts().enumerate() {
            assert_eq!((limit, count), (Limit::ALL[times], times as u64));
        }
    }
}
