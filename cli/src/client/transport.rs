//! One HTTP exchange: the address, the limits, and what each way of failing means.

use std::io::{self, BufRead, BufReader};
use std::time::Duration;

use serde_json::Value;
use ureq::http::{self, HeaderMap, StatusCode, Uri};
use ureq::{Agent, SendBody};

use crate::body::{Body, Doing, FileError};
use crate::exit::Exit;
use crate::failure::Failure;

/// A server on this machine or network takes a connection at once; after five seconds it is dead.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Health is asked by people and scripts that wait for it.
const QUICK_TIMEOUT: Duration = Duration::from_secs(10);
/// Publishing compiles, and a slow model computes, for minutes; the server has its own deadlines,
/// so this only ends the wait for one that died without closing its connections.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// More than any server's limit on outputs; a client that reads without end is a hang.
const ANSWER_BYTES: u64 = 1 << 30;
/// Bodies from here on wait for the server's word before they are sent, so that a refusal by head
/// alone (authentication, size) costs no upload.
const EXPECT_FROM_BYTES: u64 = 1 << 20;

pub(super) struct Transport {
    agent: Agent,
    /// The server's address without a slash at its end.
    base: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Head,
    Get,
    Patch,
    Put,
    Post,
    Delete,
}

/// A request's body.
pub(super) enum Payload {
    None,
    Json(Vec<u8>),
    Stream { content_type: String, body: Body },
}

/// A request to a path of the server.
pub(super) struct Request {
    method: Method,
    path: String,
    payload: Payload,
    headers: Vec<(&'static str, String)>,
    /// A status that is an answer although it says failure.
    accepting: Option<u16>,
    timeout: Duration,
}

/// An answer that is a success, or the status that was accepted.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn new(method: Method, path: String) -> Self {
        let (payload, headers) = (Payload::None, Vec::new());
        Self { method, path, payload, headers, accepting: None, timeout: ANSWER_TIMEOUT }
    }

    pub(super) fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    pub(super) fn json(self, document: &Value) -> Self {
        self.payload(Payload::Json(document.to_string().into_bytes()))
    }

    pub(super) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn if_match(self, etag: Option<&str>) -> Self {
        match etag {
            None => self,
            Some(etag) => self.header("if-match", format!("\"{etag}\"")),
        }
    }

    pub(super) fn accepting(mut self, status: u16) -> Self {
        self.accepting = Some(status);
        self
    }

    pub(super) fn quick(mut self) -> Self {
        self.timeout = QUICK_TIMEOUT;
        self
    }
}

impl Response {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Transport {
    pub(super) fn new(server: &str) -> Result<Self, Failure> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would have a change sent to another server than the one that was named.
            .max_redirects(0)
            .max_redirects_will_error(false)
            // The server is the operator's own, mostly on this very machine; a proxy that the
            // environment names for the wide web does not reach it.
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .user_agent(concat!("modelet/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.new_agent(), base: base_of(server)? })
    }

    /// Sends `request` and reads the whole answer.
    ///
    /// # Errors
    /// When the server cannot be reached, breaks off, or answers with an error.
    pub(super) fn send(&self, request: Request) -> Result<Response, Failure> {
        let accepting = request.accepting;
        let (place, answer) = self.exchange(request)?;
        let response = whole(answer).map_err(|error| self.unreachable(error))?;
        if response.status < 300 || Some(response.status) == accepting {
            return Ok(response);
        }
        Err(refusal(&response, &place))
    }

    /// Sends `request` and gives the lines of the answer as they come.
    ///
    /// # Errors
    /// As [`Transport::send`]; an answer that breaks off is an error of its line.
    pub(super) fn stream(
        &self,
        request: Request,
    ) -> Result<impl Iterator<Item = Result<String, Failure>> + use<'_>, Failure> {
        let (place, answer) = self.exchange(request)?;
        if answer.status().as_u16() >= 300 {
            let response = whole(answer).map_err(|error| self.unreachable(error))?;
            return Err(refusal(&response, &place));
        }
        let body = answer.into_body().into_with_config().limit(ANSWER_BYTES).reader();
        let lines = BufReader::new(body).lines();
        Ok(lines.map(|line| line.map_err(|error| self.unreachable(error.into()))))
    }

    /// Sends `request`: the address it went to, and the answer whose body is still to come.
    fn exchange(&self, request: Request) -> Result<(String, http::Response<ureq::Body>), Failure> {
        let place = format!("{}{}", self.base, request.path);
        let mut head = http::Request::builder().uri(&place).method(match request.method {
            Method::Head => http::Method::HEAD,
            Method::Get => http::Method::GET,
            Method::Patch => http::Method::PATCH,
            Method::Put => http::Method::PUT,
            Method::Post => http::Method::POST,
            Method::Delete => http::Method::DELETE,
        });
        for (name, value) in request.headers {
            head = head.header(name, value);
        }
        let sent = match request.payload {
            Payload::None => self.run(head.body(SendBody::none()), request.timeout),
            Payload::Json(json) => {
                let head = head.header("content-type", "application/json");
                self.run_bytes(head, &json, request.timeout)
            }
            Payload::Stream { content_type, body } => {
                self.run_stream(head.header("content-type", content_type), body, request.timeout)
            }
        };
        Ok((place, sent.map_err(|error| self.unreachable(error))?))
    }

    fn run_bytes(
        &self,
        head: http::request::Builder,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<http::Response<ureq::Body>, ureq::Error> {
        let head = head.header("content-length", bytes.len());
        let mut reader = bytes;
        self.run(head.body(SendBody::from_reader(&mut reader)), timeout)
    }

    fn run_stream(
        &self,
        mut head: http::request::Builder,
        mut body: Body,
        timeout: Duration,
    ) -> Result<http::Response<ureq::Body>, ureq::Error> {
        head = head.header("content-length", body.length());
        if body.length() >= EXPECT_FROM_BYTES {
            head = head.header("expect", "100-continue");
        }
        body.show_progress(Doing::Sending);
        self.run(head.body(SendBody::from_reader(&mut body)), timeout)
    }

    fn run(
        &self,
        request: Result<http::Request<SendBody<'_>>, http::Error>,
        timeout: Duration,
    ) -> Result<http::Response<ureq::Body>, ureq::Error> {
        let request = self
            .agent
            .configure_request(request?)
            .timeout_recv_response(Some(timeout))
            .timeout_recv_body(Some(timeout))
            .build();
        self.agent.run(request)
    }

    /// What an exchange that brought no answer means.
    fn unreachable(&self, error: ureq::Error) -> Failure {
        let base = &self.base;
        let failure = match error {
            ureq::Error::Io(error) if is_file_error(&error) => {
                return Failure::new(Exit::Failed, error.to_string());
            }
            ureq::Error::BodyExceedsLimit(limit) => {
                return Failure::new(Exit::Failed, format!("the answer is over {limit} bytes"));
            }
            ureq::Error::Io(error) if broke_off(&error) => Failure::new(
                Exit::Unreachable,
                format!("the server at {base} closed the connection before it answered: {error}"),
            )
            .remedy("look at the server's log; it may have stopped or refused the size"),
            ureq::Error::Timeout(which) => Failure::new(
                Exit::Unreachable,
                format!("the server at {base} did not answer in time ({which})"),
            ),
            error => Failure::new(
                Exit::Unreachable,
                format!("the server at {base} cannot be reached: {error}"),
            ),
        };
        if failure.has_remedy() {
            return failure;
        }
        failure.remedy("start one with 'modelet serve', or name another with --server URL")
    }
}

/// The address to put paths behind; a bare `HOST:PORT` is taken for plain HTTP.
fn base_of(server: &str) -> Result<String, Failure> {
    let wrong = |problem: &str| {
        Failure::usage(format!("'{server}' is not a server's address: {problem}"))
            .remedy("write it as http://HOST:PORT")
    };
    let url = match server.split_once("://") {
        None => format!("http://{server}"),
        Some(("http", _)) => server.to_owned(),
        Some(("https", _)) => {
            return Err(Failure::usage("https is not supported: this client speaks plain HTTP")
                .at(server)
                .remedy(
                    "use an http:// address, through a tunnel such as 'ssh -L' where the network \
                     is not trusted",
                ));
        }
        Some(_) => return Err(wrong("only http:// is supported")),
    };
    let uri: Uri = url.parse().map_err(|error| wrong(&format!("{error}")))?;
    let host =
        uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?;
    let authority = uri.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    // A port that is no number is left in the authority, as a user's name would be.
    if uri.authority().is_none_or(|given| given.as_str() != authority) {
        return Err(wrong("between '//' and '/' there is more than a host and a port"));
    }
    if uri.query().is_some() {
        return Err(wrong("it has a query"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// An answer with all of its body.
fn whole(answer: http::Response<ureq::Body>) -> Result<Response, ureq::Error> {
    let (parts, mut body) = answer.into_parts();
    let body = body.with_config().limit(ANSWER_BYTES).read_to_vec()?;
    Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body })
}

/// The failure that an error answer tells of.
fn refusal(response: &Response, place: &str) -> Failure {
    let document: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    // Under /v1 an error is an object of its own, whose code is the kind where it has no other name.
    let text = |key: &str| {
        document.pointer(&format!("/error/{key}")).or(document.get(key)).and_then(Value::as_str)
    };
    let kind = text("kind").or(text("code")).unwrap_or_default();
    let exit = Exit::of_answer(kind, response.status);
    let mut failure = match text("message").or_else(|| text("error")) {
        Some(message) => Failure::new(exit, message),
        None => Failure::new(exit, format!("the server answered {}", status(response.status)))
            .remedy("check that --server names a Modelet server"),
    };
    if !kind.is_empty() {
        failure = failure.kind(kind);
    }
    failure = failure.at(text("where").unwrap_or(place));
    match (text("remedy"), response.header("retry-after")) {
        (Some(remedy), _) => failure.remedy(remedy),
        (None, Some(seconds)) => failure.remedy(format!("try again in {seconds} s")),
        (None, None) => failure,
    }
}

fn status(status: u16) -> String {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    format!("{status} {}", reason.unwrap_or_default()).trim_end().to_owned()
}

fn is_file_error(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<FileError>())
}

fn broke_off(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_slash_or_lack_its_scheme() {
        for (given, base) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://h:1/", "http://h:1"),
            ("http://h/prefix//", "http://h/prefix"),
            ("localhost:8080", "http://localhost:8080"),
            ("[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(base_of(given).unwrap(), base, "{given}");
        }
    }

    #[test]
    fn other_addresses_are_refused_with_the_reason() {
        let https = base_of("https://h").unwrap_err();
        assert!(https.to_string().contains("https is not supported"), "{https}");
        for bad in [
            "",
            "ftp://h",
            "http://",
            "http://h:port",
            "http://h:65536",
            "http://u:p@h:1",
            "http://h/?q=1",
            "a b",
        ] {
            assert_eq!(base_of(bad).unwrap_err().exit(), Exit::Usage, "{bad:?}");
        }
    }
}
