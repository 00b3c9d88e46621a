//! Account: what every request leaves behind, whatever became of it: its id, how long each stage took,
//! one line in the log if it failed, and its place in the metrics.
//!
//! A request whose caller goes away is dropped wherever it is; the account notices by being dropped
//! unfinished.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::header::HeaderName;
use http::request::Parts;
use http::{HeaderValue, Response};

use super::body::Body;
use super::protocol::Protocol;
use super::route::{Called, Route};
use super::trace_context::{TRACEPARENT, TraceContext};
use crate::error::{Error, Kind};
use crate::host::Host;
use crate::limit::Limit;
use crate::metrics::{Metrics, VersionMetrics};
use crate::statistics::Sample;
use crate::telemetry::{Span, Telemetry};
use crate::trace_settings::Tracing;

/// The request's id, taken over from the caller or made here, and sent back.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The version that answered, whatever alias was called.
pub const MODEL_VERSION: HeaderName = HeaderName::from_static("modelet-version");
/// How long each stage took, in milliseconds (W3C Server Timing).
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Most characters of a caller's own request id; longer ones are replaced.
const REQUEST_ID_CHARS: usize = 128;

/// Makes ids that no two requests of one server share, nor, most likely, those of two servers.
pub struct RequestIds {
    prefix: String,
    next: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        let prefix = ulid::Ulid::new().to_string().to_lowercase();
        Self { prefix, next: AtomicU64::new(0) }
    }
}

impl RequestIds {
    /// The next number, for a request's id and for spreading calls over weighted versions.
    pub fn ticket(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn of(&self, head: &Parts, ticket: u64) -> String {
        let own = head.headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        match own {
            Some(own) if !own.is_empty() && own.len() <= REQUEST_ID_CHARS => own.to_owned(),
            _ => format!("{}-{ticket}", self.prefix),
        }
    }
}

/// From here on a version was loaded and not only found, which takes microseconds.
const LEAST_LOAD: Duration = Duration::from_millis(1);

/// How long the stages of an inference took.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stages {
    /// Reading and decoding the body.
    pub decode: Duration,
    /// Making the version ready, if it was not.
    pub load: Duration,
    /// Waiting while all instances were taken.
    pub queue: Duration,
    /// Getting an instance, started if none was idle; without the wait for one.
    pub acquire: Duration,
    /// The guest's own code.
    pub guest: Duration,
    /// Its graphs in an engine.
    pub compute: Duration,
    /// Making an answer of its outputs.
    pub encode: Duration,
}

/// The account of one request.
pub struct Account {
    /// The request's id.
    pub id: String,
    /// How long the stages took, filled in as they pass.
    pub stages: Stages,
    started: Instant,
    route: &'static str,
    protocol: Protocol,
    /// The trace it is part of, if its caller says so.
    trace: Option<TraceContext>,
    /// Rows of its batch.
    rows: u64,
    tracing: Arc<Tracing>,
    telemetry: Arc<Telemetry>,
    called: Option<(Called, Arc<VersionMetrics>)>,
    metrics: Arc<Metrics>,
    /// Whether the rest is accounted elsewhere, when a stream has ended.
    handed_over: bool,
    finished: bool,
}

impl Account {
    /// Opens the account of a request.
    pub fn open(host: &Host, head: &Parts, ticket: u64) -> Self {
        Self {
            id: host.request_ids().of(head, ticket),
            trace: TraceContext::of(&head.headers, ticket),
            rows: 1,
            tracing: Arc::clone(host.tracing()),
            telemetry: Arc::clone(host.telemetry()),
            protocol: Protocol::of(head),
            stages: Stages::default(),
            started: Instant::now(),
            route: "none",
            called: None,
            metrics: Arc::clone(host.metrics()),
            handed_over: false,
            finished: false,
        }
    }

    /// The protocol that the request speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The request found its route.
    pub fn routed(&mut self, route: &Route) {
        self.labelled(route.label());
        if let Route::Infer(called) | Route::Generate(called, _) | Route::Handler(called, _) = route
        {
            self.called(called);
        }
    }

    /// The request is of this kind, as metrics name it.
    pub fn labelled(&mut self, label: &'static str) {
        self.route = label;
    }

    /// The request found the version it goes to.
    pub fn called(&mut self, called: &Called) {
        let metrics = self.metrics.version(&called.version.model, &called.version.name);
        self.called = Some((called.clone(), metrics));
    }

    /// The request has got an instance.
    pub fn leased(&mut self, lease: &crate::engine::pool::Lease) {
        // Timed with what starting an instance took, and told apart from it.
        self.stages.queue = lease.queued();
        self.stages.acquire = self.stages.acquire.saturating_sub(lease.queued());
    }

    /// Takes in what a call came to.
    pub fn answered(&mut self, call: &crate::engine::call::Called) {
        self.stages.guest = call.guest;
        self.stages.compute = call.compute;
        if call.met.log {
            self.met(Limit::GuestLog);
        }
    }

    /// The request brings so many rows.
    pub fn batch(&mut self, rows: u64) {
        self.rows = rows;
    }

    /// Times the encoding of the answer.
    pub fn encode<T>(&mut self, encode: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let encoded = encode();
        self.stages.encode = started.elapsed();
        encoded
    }

    /// Times a stage.
    pub async fn time<T>(slot: &mut Duration, stage: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let result = stage.await;
        *slot = started.elapsed();
        result
    }

    /// Counts a limit that was met on the way without ending the request.
    pub fn met(&self, limit: Limit) {
        self.metrics.refusals().count(limit);
    }

    /// Closes the account with the response, which gets the headers every answer carries.
    pub fn finish(mut self, result: Result<Response<Body>, Error>) -> Response<Body> {
        self.finished = true;
        let mut response = result.unwrap_or_else(|error| self.protocol.refuse(&error));
        // Management routes answer with encoded errors: each brings along the error it was made from.
        let refusal = response.extensions_mut().remove::<Error>();
        if !self.handed_over {
            self.settle(refusal.as_ref());
        }
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(trace) = self.trace.and_then(|trace| trace.to_string().parse().ok()) {
            headers.insert(TRACEPARENT, trace);
        }
        if let Some((called, _)) = &self.called {
            if let Ok(version) = HeaderValue::from_str(called.version.name.as_str()) {
                headers.insert(MODEL_VERSION, version);
            }
            if let Ok(timing) = HeaderValue::from_str(&self.server_timing()) {
                headers.insert(SERVER_TIMING, timing);
            }
        }
        response
    }

    /// The account of what is still to come of an answer whose head goes out now.
    pub fn hand_over(&mut self) -> Self {
        self.handed_over = true;
        Self {
            id: self.id.clone(),
            called: self.called.clone(),
            metrics: Arc::clone(&self.metrics),
            tracing: Arc::clone(&self.tracing),
            telemetry: Arc::clone(&self.telemetry),
            handed_over: false,
            finished: false,
            ..*self
        }
    }

    /// Closes the account of an answer whose head has gone out, or that is one of several in a stream.
    pub fn close(&mut self, error: Option<&Error>) {
        self.finished = true;
        self.settle(error);
    }

    fn settle(&self, error: Option<&Error>) {
        if let Some(error) = error {
            self.log(error);
            error.limit().into_iter().for_each(|limit| self.met(limit));
        }
        self.record(error.map(Error::kind));
    }

    fn record(&self, outcome: Option<Kind>) {
        if let Some(context) =
            self.trace.filter(|trace| trace.is_sampled() && self.telemetry.is_on())
            && !self.telemetry.send(self.span(context, outcome))
        {
            self.met(Limit::TelemetryQueue);
        }
        self.metrics.request(self.route, outcome);
        let Some((called, metrics)) = &self.called else { return };
        let total = self.started.elapsed();
        metrics.record(outcome, total);
        match outcome {
            None => metrics.statistics().answered(&self.sample(total)),
            Some(_) => metrics.statistics().failed(total),
        }
        if self.tracing.takes(&called.model.name) {
            let (id, trace) = (&self.id, self.trace_id());
            let (model, version) = (called.version.model.as_str(), called.version.name.as_str());
            let (outcome, stages) = (outcome.map_or("ok", Kind::as_str), self.server_timing());
            tracing::info!(id, trace, model, version, outcome, stages, "a traced request");
        }
    }

    fn span(&self, context: TraceContext, outcome: Option<Kind>) -> Span {
        let mut attributes = vec![("modelet.request.id", self.id.clone())];
        if self.protocol == Protocol::Grpc {
            attributes.push(("rpc.system.name", "grpc".to_owned()));
        }
        if let Some((called, _)) = &self.called {
            attributes.push(("modelet.model", called.version.model.to_string()));
            attributes.push(("modelet.version", called.version.name.to_string()));
        }
        let Stages { decode, load, queue, acquire, guest, compute, encode } = self.stages;
        let stages = [
            ("decode", decode),
            ("load", load),
            ("queue", queue),
            ("acquire", acquire),
            ("guest", guest),
            ("compute", compute),
            ("encode", encode),
        ];
        let stages = stages.into_iter().filter(|_| self.called.is_some());
        Span {
            context,
            name: self.route,
            took: self.started.elapsed(),
            error: outcome.map(Kind::as_str),
            attributes,
            stages: stages.map(|(name, took)| (name, took.as_secs_f64() * 1e3)).collect(),
        }
    }

    fn sample(&self, total: Duration) -> Sample {
        let Stages { decode, load, queue, acquire, guest, compute, encode } = self.stages;
        Sample {
            rows: self.rows,
            queue: load + queue + acquire,
            input: decode,
            infer: guest + compute,
            output: encode,
            total,
        }
    }

    fn trace_id(&self) -> Option<String> {
        self.trace.map(|trace| trace.trace_id())
    }

    fn log(&self, error: &Error) {
        let (id, kind) = (&self.id, error.kind().as_str());
        let model = self.called.as_ref().map(|(called, _)| called.version.model.as_str());
        let version = self.called.as_ref().map(|(called, _)| called.version.name.as_str());
        let (detail, trace) = (error.operator_detail(), self.trace_id());
        match error.kind() {
            Kind::Internal | Kind::InstantiationFailed | Kind::ReadOnly => {
                tracing::error!(id, trace, kind, model, version, detail, "{error}");
            }
            Kind::Trap | Kind::NoResponse | Kind::GuestError | Kind::ModelUnavailable => {
                tracing::warn!(id, trace, kind, model, version, detail, "{error}");
            }
            Kind::Overloaded | Kind::QuotaExceeded if !self.is_news(error) => {
                tracing::debug!(id, trace, kind, model, version, detail, "{error}");
            }
            Kind::Overloaded | Kind::QuotaExceeded | Kind::Deadline => {
                tracing::info!(id, trace, kind, model, version, detail, "{error}");
            }
            _ => tracing::debug!(id, trace, kind, model, version, detail, "{error}"),
        }
    }

    /// Whether a refusal is the first of many like it.
    fn is_news(&self, error: &Error) -> bool {
        error.limit().is_none_or(|limit| self.metrics.refusals().is_news(limit, Instant::now()))
    }

    fn server_timing(&self) -> String {
        let Stages { decode, load, queue, acquire, guest, compute, encode } = self.stages;
        let mut text = String::with_capacity(160);
        let load = (load >= LEAST_LOAD).then_some(("load", load));
        let stages = [
            ("queue", queue),
            ("acquire", acquire),
            ("guest", guest),
            ("compute", compute),
            ("encode", encode),
            ("total", self.started.elapsed()),
        ];
        let stages = [("decode", decode)].into_iter().chain(load).chain(stages);
        for (index, (name, time)) in stages.enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            // Milliseconds, without the long way over a float. Writing to a string cannot fail.
            let (whole, part) = (time.as_millis(), time.subsec_micros() % 1000);
            let _ = write!(text, "{separator}{name};dur={whole}.{part:03}");
        }
        text
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.finished && !self.handed_over {
            tracing::debug!(id = self.id, route = self.route, "the caller left before its answer");
            self.record(Some(Kind::ClientGone));
        }
    }
}
