//! Telemetry: spans of the requests that their callers trace, sent to an OpenTelemetry collector: OTLP
//! over HTTP, in its JSON form. Off unless a collector is named.
//!
//! Sending is beside the path of a request: a span goes into a queue, and what finds no room there, or
//! no collector, is lost and counted or told of. Whatever has gathered while one batch was sent is the
//! next.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::config::TelemetrySettings;
use crate::http::trace_context::TraceContext;

/// The path of traces below a collector's address.
const TRACES: &str = "/v1/traces";

/// Spans that are sent at once: some hundred kilobytes.
const MAX_BATCH: usize = 512;

/// Bytes of a collector's answer that are read; it says how many spans it did not take.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// OTLP's number for the server's side of a call.
const KIND_SERVER: u32 = 2;

/// OTLP's number for a call that failed.
const STATUS_ERROR: u32 = 2;

/// A request that is over, as tracing systems show it.
#[derive(Debug, Clone)]
pub struct Span {
    /// The trace, this span's id and its parent's.
    pub context: TraceContext,
    /// What was called, by the label of its route.
    pub name: &'static str,
    /// How long it took, up to now.
    pub took: Duration,
    /// The kind of the error that it ended with.
    pub error: Option<&'static str>,
    /// What else is known of it: text by name.
    pub attributes: Vec<(&'static str, String)>,
    /// How long its stages took, in milliseconds.
    pub stages: Vec<(&'static str, f64)>,
}

impl Span {
    fn json(&self, now: SystemTime) -> Value {
        let end = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = self
            .attributes
            .iter()
            .map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } }));
        let error = self
            .error
            .map(|error| json!({ "key": "error.type", "value": { "stringValue": error } }));
        let stages = self.stages.iter().map(|(stage, ms)| {
            let key = format!("modelet.stage.{stage}_ms");
            json!({ "key": key, "value": { "doubleValue": ms } })
        });
        let mut span = json!({
            "traceId": self.context.trace_id(),
            "spanId": self.context.span_id(),
            "parentSpanId": self.context.parent_id(),
            "name": self.name,
            "kind": KIND_SERVER,
            // 64-bit numbers are text in protobuf's JSON.
            "startTimeUnixNano": end.saturating_sub(self.took).as_nanos().to_string(),
            "endTimeUnixNano": end.as_nanos().to_string(),
            "attributes": text.chain(error).chain(stages).collect::<Vec<_>>(),
        });
        if let (Some(error), Some(fields)) = (self.error, span.as_object_mut()) {
            let status = json!({ "code": STATUS_ERROR, "message": error });
            fields.insert("status".to_owned(), status);
        }
        span
    }
}

/// A span and when it ended.
type Ended = (Span, SystemTime);

/// The way of spans to a collector.
pub struct Telemetry {
    /// None where no collector is named.
    queue: Option<mpsc::Sender<Ended>>,
    /// The other end of the queue, until the task that sends takes it.
    waiting: Mutex<Option<mpsc::Receiver<Ended>>>,
    settings: TelemetrySettings,
    /// What the server calls itself.
    service: String,
}

impl Telemetry {
    /// As configured, for a server of this name.
    pub fn new(settings: TelemetrySettings, service: &str) -> Self {
        let (queue, waiting) = match settings.otlp_endpoint.is_empty() {
            true => (None, None),
            false => {
                let (queue, waiting) = mpsc::channel(settings.queue_length.max(1) as usize);
                (Some(queue), Some(waiting))
            }
        };
        Self { queue, waiting: Mutex::new(waiting), settings, service: service.to_owned() }
    }

    /// Whether spans are sent anywhere.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Has a span sent; `false` if there is no room for it.
    pub fn send(&self, span: Span) -> bool {
        let Some(queue) = &self.queue else { return true };
        queue.try_send((span, SystemTime::now())).is_ok()
    }

    /// Sends what comes into the queue; does not end while the host lives.
    pub async fn export(&self) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut waiting) = waiting else { return };
        let mut batch = Vec::with_capacity(MAX_BATCH);
        let mut failing = false;
        while waiting.recv_many(&mut batch, MAX_BATCH).await > 0 {
            let limit = Duration::from_millis(self.settings.timeout_ms);
            let sent = tokio::time::timeout(limit, self.post(&batch)).await;
            let sent = sent.unwrap_or_else(|_| Err("it did not answer in time".into()));
            match sent {
                Ok(()) => failing = false,
                // Once an episode: there may be thousands a second.
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    let (spans, endpoint) = (batch.len(), &self.settings.otlp_endpoint);
                    tracing::warn!(%error, %endpoint, spans, "spans are lost: no collector takes them");
                }
                Err(_) => {}
            }
            batch.clear();
        }
    }

    async fn post(&self, batch: &[Ended]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let endpoint: Uri = self.settings.otlp_endpoint.parse()?;
        let authority = endpoint.authority().ok_or("the endpoint names no host")?;
        let path = endpoint.path().trim_end_matches('/');
        let body = serde_json::to_vec(&self.document(batch))?;
        let request = Request::post(format!("{path}{TRACES}"))
            .header(HOST, authority.as_str())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let port = authority.port_u16().unwrap_or(DEFAULT_PORT);
        let stream = TcpStream::connect((authority.host().trim_matches(['[', ']']), port)).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await?;
            match status.is_success() {
                true => Ok(()),
                false => Err(format!("it answered {status}").into()),
            }
        };
        // The connection is there for this exchange alone, and ends with it.
        tokio::select! {
            done = exchange => done,
            ended = connection => ended.map_err(Into::into).and(Err("the connection ended".into())),
        }
    }

    fn document(&self, batch: &[Ended]) -> Value {
        let text = |key, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        let (name, version) = ("modelet", env!("CARGO_PKG_VERSION"));
        json!({ "resourceSpans": [{
            "resource": { "attributes": [
                text("service.name", &self.service),
                text("service.version", version),
            ] },
            "scopeSpans": [{
                "scope": { "name": name, "version": version },
                "spans": batch.iter().map(|(span, at)| span.json(*at)).collect::<Vec<_>>(),
            }],
        }] })
    }
}

/// Where collectors listen for OTLP over HTTP.
const DEFAULT_PORT: u16 = 4318;

/// Whether a collector's address can be used: plain HTTP, a host, and nothing after its path.
pub fn is_endpoint(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    uri.scheme_str() == Some("http") && uri.authority().is_some() && uri.query().is_none()
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::http::trace_context::TRACEPARENT;

    fn span() -> Span {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = HeaderMap::from_iter([(TRACEPARENT, given.parse().unwrap())]);
        Span {
            context: TraceContext::of(&headers, 7).unwrap(),
            name: "infer",
            took: Duration::from_millis(5),
            error: Some("trap"),
            attributes: vec![("modelet.model", "m".to_owned())],
            stages: vec![("guest", 1.5)],
        }
    }

    #[test]
    fn a_span_has_ids_in_hex_and_times_as_text() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_005);
        let json = span().json(at);
        assert_eq!(json["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(json["parentSpanId"], "00f067aa0ba902b7");
        assert_eq!(json["startTimeUnixNano"], "1700000000000000000");
        assert_eq!(json["endTimeUnixNano"], "1700000000005000000");
        assert_eq!(json["status"], json!({ "code": 2, "message": "trap" }));
        let keys: Vec<_> =
            json["attributes"].as_array().unwrap().iter().map(|a| &a["key"]).collect();
        assert_eq!(keys, ["modelet.model", "error.type", "modelet.stage.guest_ms"]);
    }

    #[test]
    fn without_a_collector_nothing_is_kept_and_a_full_queue_is_told() {
        let off = Telemetry::new(TelemetrySettings::default(), "modelet");
        assert!(!off.is_on() && off.send(span()));
        let settings = TelemetrySettings {
            otlp_endpoint: "http://127.0.0.1:4318".to_owned(),
            queue_length: 1,
            ..TelemetrySettings::default()
        };
        let on = Telemetry::new(settings, "modelet");
        assert_eq!([on.send(span()), on.send(span())], [true, false]);
    }

    #[test]
    fn an_endpoint_is_plain_http_with_a_host() {
        for (text, holds) in [
            ("http://127.0.0.1:4318", true),
            ("http://collector/otlp", true),
            ("https://collector", false),
            ("collector:4318", false),
            ("/v1/traces", false),
            ("http://collector/?a=b", false),
        ] {
            assert_eq!(is_endpoint(text), holds, "{text}");
        }
    }
}
