//! The server as the commands see it: one method a route, typed in and out.

mod transport;

use modelet_host::digest::Digest;
use modelet_host::names::{AliasName, ModelName, VersionName};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::transport::{Method, Payload, Request, Transport};
use crate::args::{ModelTarget, Window};
use crate::body::Body;
use crate::exit::Exit;
use crate::failure::Failure;

/// A Modelet server at an address.
pub(crate) struct Client {
    transport: Transport,
}

/// A JSON answer of the server.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status, one that means success or, for health, not ready.
    pub(crate) status: u16,
    /// The ETag without its quotes, where the route has one.
    pub(crate) etag: Option<String>,
    /// The document as it came, with fields that this client may not know.
    pub(crate) document: Value,
}

/// An answer of an inference: a JSON head, and the tensors' bytes behind it.
#[derive(Debug)]
pub(crate) struct InferAnswer {
    pub(crate) head: Vec<u8>,
    pub(crate) tensors: Vec<u8>,
    /// The server's own account of where the time went.
    pub(crate) server_timing: Option<String>,
}

/// What a server has of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlobState {
    /// All of it.
    Whole,
    /// Its upload goes on at this byte.
    Part(u64),
    /// The server takes no blobs by digest, as one older than this client.
    Unsupported,
}

/// What came of sending bytes of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The server has it or more of it.
    Taken,
    /// Another request sends it, or it goes on elsewhere.
    NotNow,
}

/// Where the targets of an alias are set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AliasPlace<'a> {
    pub(crate) model: &'a ModelName,
    pub(crate) alias: &'a AliasName,
}

const INFERENCE_HEADER: &str = "inference-header-content-length";
/// Where the upload of a blob goes on.
const OFFSET_HEADER: &str = "upload-offset";

impl Client {
    /// A client of the server at `server`; nothing is sent yet.
    ///
    /// # Errors
    /// When `server` is not a plain-HTTP address.
    pub(crate) fn new(server: &str) -> Result<Self, Failure> {
        Ok(Self { transport: Transport::new(server)? })
    }

    pub(crate) fn models(&self) -> Result<Answer, Failure> {
        self.get("/api/v1/models")
    }

    pub(crate) fn model(&self, model: &ModelName) -> Result<Answer, Failure> {
        self.get(&format!("/api/v1/models/{model}"))
    }

    pub(crate) fn versions(&self, model: &ModelName) -> Result<Answer, Failure> {
        self.get(&format!("/api/v1/models/{model}/versions"))
    }

    pub(crate) fn version(
        &self,
        model: &ModelName,
        version: &VersionName,
    ) -> Result<Answer, Failure> {
        self.get(&version_path(model, version))
    }

    /// Publishes a version from a multipart form.
    pub(crate) fn publish(
        &self,
        model: &ModelName,
        version: &VersionName,
        (content_type, body): (String, Body),
        dry_run: bool,
    ) -> Result<Answer, Failure> {
        let path = changing(&version_path(model, version), dry_run);
        let payload = Payload::Stream { content_type, body };
        self.json(Request::new(Method::Put, path).payload(payload))
    }

    /// What the server has of a blob.
    pub(crate) fn blob(&self, digest: &Digest) -> Result<BlobState, Failure> {
        let request = Request::new(Method::Head, blob_path(digest)).quick().accepting(404);
        let response = self.transport.send(request)?;
        if response.status != 404 {
            return Ok(BlobState::Whole);
        }
        let Some(offset) = response.header(OFFSET_HEADER) else {
            return Ok(BlobState::Unsupported);
        };
        offset.parse().map(BlobState::Part).map_err(|_| not_modelet(OFFSET_HEADER))
    }

    /// Sends the bytes of a blob of `length` bytes from `offset` on.
    pub(crate) fn send_blob(
        &self,
        digest: &Digest,
        length: u64,
        offset: u64,
        body: Body,
    ) -> Result<Sent, Failure> {
        let content_type = "application/octet-stream".to_owned();
        let request = Request::new(Method::Patch, blob_path(digest))
            .payload(Payload::Stream { content_type, body })
            .header(OFFSET_HEADER, offset.to_string())
            .header("upload-length", length.to_string())
            .accepting(409);
        let taken = self.transport.send(request)?.status != 409;
        Ok(if taken { Sent::Taken } else { Sent::NotNow })
    }

    /// Replaces a version's annotations, if they are still those that `etag` belongs to.
    pub(crate) fn annotate(
        &self,
        model: &ModelName,
        version: &VersionName,
        annotations: &Value,
        etag: Option<&str>,
        dry_run: bool,
    ) -> Result<Answer, Failure> {
        let path = changing(&format!("{}/annotations", version_path(model, version)), dry_run);
        self.json(Request::new(Method::Put, path).json(annotations).if_match(etag))
    }

    pub(crate) fn delete_version(
        &self,
        model: &ModelName,
        version: &VersionName,
        dry_run: bool,
    ) -> Result<Answer, Failure> {
        self.json(Request::new(Method::Delete, changing(&version_path(model, version), dry_run)))
    }

    pub(crate) fn release(
        &self,
        model: &ModelName,
        version: &VersionName,
        dry_run: bool,
    ) -> Result<Answer, Failure> {
        let path = format!("{}/quarantine", version_path(model, version));
        self.json(Request::new(Method::Delete, changing(&path, dry_run)))
    }

    pub(crate) fn delete_model(&self, model: &ModelName, dry_run: bool) -> Result<Answer, Failure> {
        let path = changing(&format!("/api/v1/models/{model}"), dry_run);
        self.json(Request::new(Method::Delete, path))
    }

    pub(crate) fn aliases(&self, model: &ModelName) -> Result<Answer, Failure> {
        self.get(&format!("/api/v1/models/{model}/aliases"))
    }

    /// Points an alias at weighted versions, if it is still what `etag` belongs to.
    pub(crate) fn set_alias(
        &self,
        place: AliasPlace<'_>,
        targets: &[(VersionName, u32)],
        etag: Option<&str>,
        dry_run: bool,
    ) -> Result<Answer, Failure> {
        let targets: Vec<Value> = targets
            .iter()
            .map(|(version, weight)| json!({ "version": version.as_str(), "weight": weight }))
            .collect();
        let request = Request::new(Method::Put, changing(&place.path(), dry_run))
            .json(&json!({ "targets": targets }))
            .if_match(etag);
        self.json(request)
    }

    pub(crate) fn remove_alias(
        &self,
        place: AliasPlace<'_>,
        dry_run: bool,
    ) -> Result<Answer, Failure> {
        self.json(Request::new(Method::Delete, changing(&place.path(), dry_run)))
    }

    pub(crate) fn roll_back_alias(
        &self,
        place: AliasPlace<'_>,
        dry_run: bool,
    ) -> Result<Answer, Failure> {
        let path = changing(&format!("{}/rollback", place.path()), dry_run);
        // An empty document, because management routes speak JSON only.
        self.json(Request::new(Method::Post, path).json(&json!({})))
    }

    pub(crate) fn history(&self, model: &ModelName, limit: Option<u32>) -> Result<Answer, Failure> {
        let limit = limit.map(|limit| format!("?limit={limit}")).unwrap_or_default();
        self.get(&format!("/api/v1/models/{model}/history{limit}"))
    }

    pub(crate) fn instances(&self) -> Result<Answer, Failure> {
        self.get("/api/v1/instances")
    }

    pub(crate) fn efficiency(&self, window: Window) -> Result<Answer, Failure> {
        self.get(&format!("/api/v1/efficiency?window={}", window.as_str()))
    }

    pub(crate) fn config(&self) -> Result<Answer, Failure> {
        self.get("/api/v1/config")
    }

    /// Whether the server is alive.
    pub(crate) fn alive(&self) -> Result<Answer, Failure> {
        self.json(Request::new(Method::Get, "/healthz".to_owned()).quick())
    }

    /// Whether the server is ready; "not ready" is an answer here, with status 503.
    pub(crate) fn ready(&self) -> Result<Answer, Failure> {
        let request = Request::new(Method::Get, "/readyz".to_owned()).quick().accepting(503);
        self.json(request)
    }

    /// The Open Inference Protocol's metadata of what a call of `target` reaches.
    pub(crate) fn metadata(&self, target: &ModelTarget) -> Result<Answer, Failure> {
        self.get(&inference_path(target))
    }

    /// Calls a model with `head_length` bytes of JSON and the binary tensors behind them.
    pub(crate) fn infer(
        &self,
        target: &ModelTarget,
        head_length: usize,
        body: Body,
    ) -> Result<InferAnswer, Failure> {
        let content_type = "application/octet-stream".to_owned();
        let request = Request::new(Method::Post, format!("{}/infer", inference_path(target)))
            .payload(Payload::Stream { content_type, body })
            .header(INFERENCE_HEADER, head_length.to_string());
        let response = self.transport.send(request)?;
        let head_length = match response.header(INFERENCE_HEADER) {
            // Without the header the whole body is JSON.
            None => response.body.len(),
            Some(length) => length.parse().map_err(|_| not_modelet(INFERENCE_HEADER))?,
        };
        let server_timing = response.header("server-timing").map(str::to_owned);
        let mut head = response.body;
        if head_length > head.len() {
            return Err(not_modelet(INFERENCE_HEADER));
        }
        let tensors = head.split_off(head_length);
        Ok(InferAnswer { head, tensors, server_timing })
    }

    /// Asks for a chat completion as a stream; gives each part of the answer as it comes.
    pub(crate) fn chat(
        &self,
        request: &Value,
    ) -> Result<impl Iterator<Item = Result<Value, Failure>> + use<'_>, Failure> {
        let path = "/v1/chat/completions".to_owned();
        let lines = self.transport.stream(Request::new(Method::Post, path).json(request))?;
        Ok(lines.filter_map(|line| event(line).transpose()))
    }

    fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.json(Request::new(Method::Get, path.to_owned()))
    }

    fn json(&self, request: Request) -> Result<Answer, Failure> {
        let response = self.transport.send(request)?;
        let etag = response.header("etag").map(|etag| etag.trim_matches('"').to_owned());
        let document = serde_json::from_slice(&response.body).map_err(|_| not_modelet("body"))?;
        Ok(Answer { status: response.status, etag, document })
    }
}

impl Answer {
    /// The document, or the part of it under `pointer`, as a type.
    ///
    /// # Errors
    /// When it is not what the API says.
    pub(crate) fn read<T: DeserializeOwned>(&self, pointer: &str) -> Result<T, Failure> {
        let part = self.document.pointer(pointer).unwrap_or(&Value::Null);
        T::deserialize(part).map_err(|error| not_modelet(&format!("document ({error})")))
    }

    /// The part of the document under `pointer`; null where it is missing.
    pub(crate) fn part(&self, pointer: &str) -> &Value {
        self.document.pointer(pointer).unwrap_or(&Value::Null)
    }
}

impl AliasPlace<'_> {
    fn path(&self) -> String {
        format!("/api/v1/models/{}/aliases/{}", self.model, self.alias)
    }
}

impl Window {
    /// The window as the API spells it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::FiveMinutes => "5m",
            Self::Hour => "1h",
            Self::Lifetime => "lifetime",
        }
    }
}

/// The document of a line of a stream of events; none where the line holds none.
fn event(line: Result<String, Failure>) -> Result<Option<Value>, Failure> {
    let line = line?;
    let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else {
        return Ok(None);
    };
    let document: Value = serde_json::from_str(data).map_err(|_| not_modelet("event"))?;
    match document.pointer("/error/message").and_then(Value::as_str) {
        None => Ok(Some(document)),
        Some(message) => {
            let code = document.pointer("/error/code").and_then(Value::as_str).unwrap_or_default();
            Err(Failure::new(Exit::of_answer(code, 500), message).kind(code))
        }
    }
}

fn version_path(model: &ModelName, version: &VersionName) -> String {
    format!("/api/v1/models/{model}/versions/{version}")
}

fn blob_path(digest: &Digest) -> String {
    format!("/api/v1/blobs/{digest}")
}

fn inference_path(target: &ModelTarget) -> String {
    match &target.version {
        None => format!("/v2/models/{}", target.model),
        Some(version) => format!("/v2/models/{}/versions/{version}", target.model),
    }
}

fn changing(path: &str, dry_run: bool) -> String {
    if dry_run { format!("{path}?dry_run=true") } else { path.to_owned() }
}

/// The failure for a success that is not what the API promises.
fn not_modelet(what: &str) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("the server's answer is not understood: its {what} is not what the API says"),
    )
    .remedy("check that --server names a Modelet server of this client's version")
}

#[cfg(test)]
mod tests;
