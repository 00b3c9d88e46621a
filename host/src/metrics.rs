//! Prometheus metrics: what is counted as requests pass, and what is read from the host when somebody
//! asks.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::checks::Check;
use crate::error::Kind;
use crate::host::Host;
use crate::http::body::Body;
use crate::ledger::Window;
use crate::limit::Refusals;
use crate::names::{ModelName, VersionName};
use crate::statistics::Statistics;

/// Versions with series of their own. A series costs about a kilobyte here and more wherever it is
/// scraped to; versions beyond are counted under the name `other`.
const MAX_VERSION_SERIES: usize = 1000;

/// Upper ends of the latency histogram, in seconds: half a millisecond to the default deadline.
const LATENCY_BUCKETS_S: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    model: String,
    version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    model: String,
    version: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GateLabels {
    gate: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabels {
    check: &'static str,
}

/// Upper ends of the histogram of gates, in seconds: from a tiny graph to the longest compilation.
const GATE_BUCKETS_S: [f64; 11] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];

/// The gates that run workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Components are compiled.
    Component,
    /// Graphs are loaded and run.
    Graph,
}

impl Gate {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Graph => "graph",
        }
    }
}

/// What is counted of gates; clones count together.
#[derive(Clone)]
pub struct GateMetrics {
    refusals: Family<CheckLabels, Counter>,
    /// Its count is that of workers: what is remembered starts none.
    workers: Family<GateLabels, Histogram, fn() -> Histogram>,
}

impl Default for GateMetrics {
    fn default() -> Self {
        Self {
            refusals: Family::default(),
            workers: Family::new_with_constructor(|| Histogram::new(GATE_BUCKETS_S)),
        }
    }
}

impl GateMetrics {
    /// Counts a worker that ended.
    pub fn worker(&self, gate: Gate, took: Duration) {
        let labels = GateLabels { gate: gate.as_str() };
        self.workers.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts a publication that was refused.
    pub fn refusal(&self, check: Check) {
        self.refusals.get_or_create(&CheckLabels { check: check.as_str() }).inc();
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "publications_refused",
            "Publications refused, by the check that they did not pass",
            self.refusals.clone(),
        );
        registry.register_with_unit(
            "gate_worker_duration",
            "Time that the workers of a gate took",
            Unit::Seconds,
            self.workers.clone(),
        );
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

type Latency = Family<VersionLabels, Histogram, fn() -> Histogram>;

/// Everything that is counted.
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    inferences: Family<OutcomeLabels, Counter>,
    latency: Latency,
    gates: GateMetrics,
    /// How often each limit refused; shared with what refuses where there is no request.
    refusals: Arc<Refusals>,
    /// The series of each version, so that a request looks its own up once.
    versions: RwLock<BTreeMap<(ModelName, VersionName), Arc<VersionMetrics>>>,
}

/// The series of one version.
pub struct VersionMetrics {
    labels: VersionLabels,
    inferences: Family<OutcomeLabels, Counter>,
    /// Requests that were answered, which is nearly all of them: kept at hand.
    answered: Counter,
    latency: Histogram,
    /// What the protocol's clients ask for.
    statistics: Statistics,
}

impl VersionMetrics {
    /// What the protocol's clients ask for.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Counts an inference that ended.
    pub fn record(&self, outcome: Option<Kind>, took: Duration) {
        match outcome {
            None => self.answered.inc(),
            Some(kind) => {
                let VersionLabels { model, version } = self.labels.clone();
                let labels = OutcomeLabels { model, version, outcome: kind.as_str() };
                self.inferences.get_or_create(&labels).inc()
            }
        };
        self.latency.observe(took.as_secs_f64());
    }
}

fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_BUCKETS_S)
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            inferences: Family::default(),
            latency: Family::new_with_constructor(latency_histogram),
            gates: GateMetrics::default(),
            refusals: Arc::default(),
            versions: RwLock::default(),
        }
    }
}

/// The spelling of a request that was answered, where one that was not has the name of its kind.
const ANSWERED: &str = "ok";

impl Metrics {
    /// Counts a request of any route.
    pub fn request(&self, route: &'static str, outcome: Option<Kind>) {
        let outcome = outcome.map_or(ANSWERED, Kind::as_str);
        self.requests.get_or_create(&RequestLabels { route, outcome }).inc();
    }

    /// What is counted of gates.
    pub fn gates(&self) -> &GateMetrics {
        &self.gates
    }

    /// How often each limit refused.
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// The series of a version, if it was ever called and is not one of too many.
    pub fn find(&self, model: &ModelName, version: &VersionName) -> Option<Arc<VersionMetrics>> {
        let key = (model.clone(), version.clone());
        self.versions.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    /// The series of a version.
    pub fn version(&self, model: &ModelName, version: &VersionName) -> Arc<VersionMetrics> {
        let key = (model.clone(), version.clone());
        let known = self.versions.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&key) {
            return Arc::clone(known);
        }
        let full = known.len() >= MAX_VERSION_SERIES;
        drop(known);
        let (model, version) = match full {
            true => ("other".to_owned(), "other".to_owned()),
            false => (model.to_string(), version.to_string()),
        };
        let made = Arc::new(self.make(VersionLabels { model, version }));
        if !full {
            let mut versions = self.versions.write().unwrap_or_else(PoisonError::into_inner);
            versions.insert(key, Arc::clone(&made));
        }
        made
    }

    fn make(&self, labels: VersionLabels) -> VersionMetrics {
        let VersionLabels { model, version } = labels.clone();
        let answered = OutcomeLabels { model, version, outcome: ANSWERED };
        VersionMetrics {
            inferences: self.inferences.clone(),
            answered: self.inferences.get_or_create(&answered).clone(),
            latency: self.latency.get_or_create(&labels).clone(),
            statistics: Statistics::default(),
            labels,
        }
    }

    /// Forgets the series of versions that are gone.
    pub fn retain(&self, exists: impl Fn(&ModelName, &VersionName) -> bool) {
        let mut versions = self.versions.write().unwrap_or_else(PoisonError::into_inner);
        versions.retain(|(model, version), metrics| {
            let keep = exists(model, version);
            if !keep {
                self.latency.remove(&metrics.labels);
                let VersionLabels { model, version } = metrics.labels.clone();
                for outcome in Kind::ALL.iter().map(|kind| kind.as_str()).chain([ANSWERED]) {
                    let (model, version) = (model.clone(), version.clone());
                    self.inferences.remove(&OutcomeLabels { model, version, outcome });
                }
            }
            keep
        });
    }

    /// The answer of `/metrics`.
    pub fn answer(&self, host: &Host) -> Response<Body> {
        let mut registry = Registry::with_prefix("modelet");
        registry.register("http_requests", "Requests by route and outcome", self.requests.clone());
        registry.register("inferences", "Inferences by outcome", self.inferences.clone());
        registry.register_with_unit(
            "inference_duration",
            "Time from an inference's head to its answer",
            Unit::Seconds,
            self.latency.clone(),
        );
        self.gates.register(&mut registry);
        register_refusals(&mut registry, &self.refusals);
        register_host(&mut registry, host);
        register_efficiency(&mut registry, host);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut text, &registry);
        let mut response = Response::new(Body::from(Bytes::from(text)));
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
        );
        response
    }
}

/// Every limit, those that never refused included, so that an alert can be written before the first.
fn register_refusals(registry: &mut Registry, refusals: &Refusals) {
    let family = Family::<LimitLabels, Counter>::default();
    for (limit, count) in refusals.counts() {
        family.get_or_create(&LimitLabels { limit: limit.key() }).inc_by(count);
    }
    registry.register("limit_refusals", "What was refused, by the limit's setting", family);
}

/// What there is at this moment.
fn register_host(registry: &mut Registry, host: &Host) {
    let (graphs, graph_bytes) = host.deployments().graphs().resident();
    let instances = host.ledger().instances().len();
    let budget = host.deployments().budget();
    let slots = budget.used();
    let (uploads, upload_bytes) = host.uploads().totals(host.registry().blobs());
    let figures: [(&str, &str, u64); 19] = [
        (
            "management_requests",
            "Management requests under way",
            host.admission().management_requests(),
        ),
        (
            "receiving_requests",
            "Requests whose body is still coming",
            host.admission().receiving_requests(),
        ),
        ("inflight_requests", "Requests under way", host.admission().inflight_requests()),
        ("inflight_bytes", "Bytes of requests under way", host.admission().inflight_bytes()),
        (
            "compute_queue_jobs",
            "Jobs waiting for a compute thread",
            host.compute().waiting() as u64,
        ),
        (
            "lost_compute_threads",
            "Compute threads given up on that have not come back",
            host.compute().lost_threads() as u64,
        ),
        (
            "shared_calls",
            "Calls whose run of a graph was shared with other callers, since the start",
            host.compute().shared_calls(),
        ),
        (
            "quarantined_versions",
            "Versions that are not served because a run of theirs could not be stopped",
            host.deployments().quarantined() as u64,
        ),
        ("instances", "Live instances", instances as u64),
        ("core_instances", "Core instances of live instances", u64::from(slots.core_instances)),
        ("guest_memories", "Linear memories of live instances", u64::from(slots.memories)),
        ("guest_memory_bytes", "Bytes of linear memory of live instances", budget.memory_bytes()),
        ("resident_graphs", "Graphs loaded", graphs as u64),
        ("resident_graph_bytes", "Bytes of graphs loaded", graph_bytes),
        ("uploads", "Blobs that came by digest, whole or in part, without a name yet", uploads),
        ("upload_bytes", "Bytes of those blobs, as they were announced", upload_bytes),
        ("models", "Models in the registry", host.snapshot().len() as u64),
        ("registry_epoch", "Changes the registry has seen", host.snapshot().epoch),
        (
            "process_resident_bytes",
            "Resident memory of the server",
            crate::engine::memory::resident_bytes(),
        ),
    ];
    for (name, help, value) in figures {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
}

/// The efficiencies of the last five minutes; a figure with an empty denominator has no sample.
fn register_efficiency(registry: &mut Registry, host: &Host) {
    type Ratio = Gauge<f64, std::sync::atomic::AtomicU64>;
    let report = host.efficiency(Window::FiveMinutes);
    let mut figure = |name: &str, help: &str, of: fn(&crate::ledger::Row) -> Option<f64>| {
        if let Some(value) = of(&report.host) {
            let gauge = Ratio::default();
            gauge.set(value);
            registry.register(format!("host_{name}_ratio"), help.to_owned(), gauge);
        }
        let models = Family::<ModelLabels, Ratio>::default();
        for line in report.models.iter().take(MAX_VERSION_SERIES) {
            if let Some(value) = of(&line.row) {
                let labels = ModelLabels { model: line.model.to_string() };
                models.get_or_create(&labels).set(value);
            }
        }
        registry.register(format!("{name}_ratio"), help.to_owned(), models);
    };
    figure("compute_efficiency", "Busy over busy and idle instance time, 5 minutes", |row| row.eta);
    figure("data_efficiency", "Used over used and idle byte-seconds, 5 minutes", |row| row.rho);
    figure("sharing_efficiency", "Models called over models callable, 5 minutes", |row| row.xi);
}
