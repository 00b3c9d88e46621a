//! Hostile clients: whatever they do to their own connection, the next good request succeeds and
//! nothing of them is left.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::guests::{ECHO, component, publish, spinner};
use crate::harness::{Holdings, Server, eventually, model_file, multipart};
use crate::wire::{DIGIT, http2, infer_bytes, is_closed, rest, sent};

const INFER: &str = "/v2/models/mnist/infer";

/// Cancelled requests of one run: few enough for every test run.
const CANCELS: u64 = 2_000;
/// Cancelled requests where `MODELET_SOAK` is set.
const SOAK_CANCELS: u64 = 100_000;
/// Clients that cancel at once.
const CANCELLERS: u64 = 8;
/// Slow connections at once.
const SLOW_CONNECTIONS: u64 = 10_000;

fn with_mnist(config: &str) -> Server {
    let server = Server::builder().config(config).start();
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "rten").ok();
    server
}

#[track_caller]
fn good_request(server: &Server) {
    server.infer_f32("mnist", "image", &DIGIT, &[0.0; 784]);
}

/// Numbers that look random and are the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

/// What cancellers send: whole requests, to be cut short anywhere.
struct Requests {
    /// Answered at once.
    quick: Vec<u8>,
    /// One at a time, so that most of those at once wait.
    slow: Vec<u8>,
    /// With an answer that fills the buffers between the two.
    large: Vec<u8>,
    /// An upload.
    upload: Vec<u8>,
}

impl Requests {
    fn new() -> Self {
        let graph = model_file("mnist.onnx");
        let (content_type, body) = multipart(&[("asset:model.onnx", &graph)]);
        let head = format!(
            "PUT /api/v1/models/upload/versions/1 HTTP/1.1\r\nhost: localhost\r\n\
             content-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Self {
            quick: infer_bytes(INFER, &DIGIT),
            slow: infer_bytes("/v2/models/slow/infer", &DIGIT),
            large: infer_bytes("/v2/models/echo/infer", &[2500, 1, 28, 28]),
            upload: [head.as_bytes(), &body].concat(),
        }
    }

    /// Sends a request up to some point, perhaps waits for some of the answer, and goes away.
    fn cancel_one(&self, server: &Server, numbers: &mut Numbers) {
        let (request, whole) = match numbers.below(100) {
            0..50 => (&self.quick, numbers.below(2) == 0),
            50..90 => (&self.slow, numbers.below(4) > 0),
            90..94 => (&self.large, numbers.below(4) > 0),
            // Never whole: it would be published.
            _ => (&self.upload, false),
        };
        // Half of the cuts fall into the head, which is short beside the body.
        let reach = if numbers.below(2) == 0 { 300 } else { request.len() as u64 - 1 };
        let cut = if whole { request.len() } else { numbers.below(reach) as usize };
        let mut stream = sent(server, &request[..cut]);
        if !whole {
            return;
        }
        match numbers.below(3) {
            // At once: decoded, waiting, computing, or not even read.
            0 => {}
            // After as long as some other requests take.
            1 => (0..numbers.below(4)).for_each(|_| drop(server.get("/healthz"))),
            // While the answer is being written.
            _ => {
                let mut some = vec![0; 1 + numbers.below(200) as usize];
                // The one that runs for long is not waited for.
                if request != &self.slow {
                    let _ = stream.read_exact(&mut some);
                }
            }
        }
    }
}

/// Cancels `count` requests at random points of their lives, from several clients at once.
#[allow(clippy::print_stdout, reason = "a failure is replayed from its seed")]
fn cancel_everywhere(count: u64) {
    let server = with_mnist("");
    publish(&server, "slow", &spinner(5_000_000), 1);
    publish(&server, "echo", &component("", "", ECHO), 2);
    let requests = Requests::new();
    good_request(&server);
    let before = server.holdings();
    for client in 0..CANCELLERS {
        println!("client {client} has the seed {client}");
    }
    std::thread::scope(|scope| {
        for seed in 0..CANCELLERS {
            let (server, requests) = (&server, &requests);
            scope.spawn(move || {
                let mut numbers = Numbers(seed);
                for _ in 0..count / CANCELLERS {
                    requests.cancel_one(server, &mut numbers);
                }
            });
        }
    });
    good_request(&server);
    // Some left before there was a request, some after their answer; many in between.
    let left = r#"modelet_http_requests_total{route="infer",outcome="client_gone"}"#;
    let left = server.metric(left);
    assert!(left >= count / 20, "only {left} of {count} left in the middle of a request");
    server.get("/api/v1/models/upload").error(404);
    // Instances of cancelled calls are gone; at most as many as the pools hold are left.
    let pools = CANCELLERS + 1 + 1 + 2;
    server.settles_to(&Holdings { instances: pools, ..before });
    let document = server.get("/api/v1/instances").json();
    for instance in document["instances"].as_array().unwrap() {
        assert_eq!(instance["state"], "idle", "{instance}");
    }
    for model in ["slow", "echo"] {
        server.infer_f32(model, "image", &DIGIT, &[0.0; 784]);
    }
    assert!(std::fs::read_dir(server.data_dir().join("blobs/tmp")).unwrap().next().is_none());
}

#[test]
fn callers_that_leave_at_any_point_leave_nothing_behind() {
    cancel_everywhere(CANCELS);
}

/// Runs long only where somebody asked for it.
#[test]
fn soak_callers_that_leave_at_any_point_leave_nothing_behind() {
    let soak = std::env::var_os("MODELET_SOAK").is_some();
    cancel_everywhere(if soak { SOAK_CANCELS } else { CANCELLERS * 4 });
}

/// Has this process take as many descriptors as it may; gives how many connections that allows.
#[allow(clippy::print_stdout, reason = "a test that does less says so")]
fn room_for_connections() -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let room = maximum.unwrap_or(u64::MAX).saturating_sub(500).min(SLOW_CONNECTIONS);
    if room < SLOW_CONNECTIONS {
        println!("the hard limit on descriptors allows only {room} slow connections here");
    }
    room
}

#[test]
fn ten_thousand_slow_connections_hold_no_instance_and_keep_nobody_out() {
    let connections = room_for_connections();
    let server = with_mnist(
        "[server]\nheader_timeout_s = 3600\nidle_timeout_s = 3600\n\
         [limits]\nbody_timeout_ms = 3600000\nrequest_timeout_ms = 3600000\n",
    );
    good_request(&server);
    let before = server.holdings();
    let request = infer_bytes(INFER, &DIGIT);
    let chunked = format!(
        "POST {INFER} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{{\"inp\r\n"
    );
    // Nothing at all, half a head, half a body, and a body without a length.
    let beginnings: [&[u8]; 4] = [b"", &request[..50], &request[..2000], chunked.as_bytes()];
    let mut slow = Vec::new();
    for number in 0..connections {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(beginnings[number as usize % 4]).unwrap();
        slow.push(stream);
    }
    eventually("all are taken", || {
        let now = server.holdings();
        now.descriptors >= before.descriptors + connections
            && now.receiving_requests == connections / 2
    });
    for round in 0..3 {
        let now = server.holdings();
        assert_eq!((now.inflight_requests, now.instances), (0, before.instances), "{round}");
        good_request(&server);
        // A byte now and then changes nothing: of a head, or of a body.
        for (number, stream) in slow.iter_mut().enumerate() {
            match number % 4 {
                1 => stream.write_all(b"x").unwrap(),
                2 => stream.write_all(&request[2000 + round..][..1]).unwrap(),
                3 => stream.write_all(b"1\r\n \r\n").unwrap(),
                _ => {}
            }
        }
    }
    good_request(&server);
    drop(slow);
    server.settles_to(&before);
    good_request(&server);
}

#[test]
fn nonsense_on_the_wire_is_refused_and_ends_only_its_own_connection() {
    let server = with_mnist("");
    good_request(&server);
    let before = server.holdings();
    let post = format!("POST {INFER} HTTP/1.1\r\nhost: x\r\n");
    let cases = [
        (
            "doubled lengths",
            format!("{post}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}x"),
            "400",
        ),
        ("a negative length", format!("{post}content-length: -1\r\n\r\n"), "400"),
        (
            "a length of 30 digits",
            format!("{post}content-length: {}\r\n\r\n", "9".repeat(30)),
            "400",
        ),
        (
            "a chunk of no number",
            format!("{post}transfer-encoding: chunked\r\n\r\nZZ\r\n{{}}\r\n0\r\n\r\n"),
            "400",
        ),
        (
            "a chunk of 2^64",
            format!("{post}transfer-encoding: chunked\r\n\r\n10000000000000000\r\n"),
            "400",
        ),
        (
            "a chunk that is longer than it says",
            format!("{post}transfer-encoding: chunked\r\n\r\n1\r\n{{}}}}\r\n0\r\n\r\n"),
            "400",
        ),
        ("an unknown transfer coding", format!("{post}transfer-encoding: zip\r\n\r\n"), "400"),
        ("no HTTP", "\x16\x03\x01\x02\0\x01\0\x01\x7c\r\n\r\n".to_owned(), "400"),
        ("a version of the future", "GET / HTTP/9.9\r\nhost: x\r\n\r\n".to_owned(), "400"),
        ("a header of no name", "GET /v2 HTTP/1.1\r\n: x\r\n\r\n".to_owned(), "400"),
        ("a long path", format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a/".repeat(50_000)), "4"),
        (
            "thousands of headers",
            format!("GET /v2 HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(5000)),
            "431",
        ),
    ];
    for (name, bytes, status) in cases {
        let mut stream = sent(&server, bytes.as_bytes());
        let answer = rest(&mut stream);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{name}: {answer:?}");
        good_request(&server);
    }
    server.settles_to(&before);
}

#[test]
fn a_length_and_chunks_in_one_request_smuggle_no_second_one_in() {
    let server = with_mnist("");
    let smuggled = "DELETE /api/v1/models/mnist HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let bytes = format!(
        "POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\
         transfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
        5 + smuggled.len()
    );
    let answer = rest(&mut sent(&server, bytes.as_bytes()));
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    good_request(&server);
}

#[test]
fn pipelined_requests_are_answered_one_after_the_other() {
    let server = with_mnist("");
    let request = infer_bytes(INFER, &DIGIT);
    let last = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let all = [request.repeat(20), last.as_bytes().to_vec()].concat();
    let before = server.holdings();
    let answer = rest(&mut sent(&server, &all));
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 21, "{answer}");
    good_request(&server);
    server.settles_to(&Holdings { instances: before.instances.max(1), ..before });
}

#[test]
fn rapid_resets_of_streams_end_the_connection_and_nothing_else() {
    let server = with_mnist("");
    publish(&server, "endless", &spinner(u64::MAX), 4);
    good_request(&server);
    let before = server.holdings();
    let mut frames = http2::OPENING.to_vec();
    for number in 0..5_000u32 {
        let stream = 2 * number + 1;
        let path = if number % 2 == 0 { INFER } else { "/v2/models/endless/infer" };
        frames.extend(http2::request(stream, "POST", path, false));
        frames.extend(http2::reset(stream));
    }
    let mut stream = sent(&server, &frames);
    good_request(&server);
    // The library takes so many resets for an attack and says so before it closes.
    assert!(is_closed(&mut stream));
    drop(stream);
    server.settles_to(&before);
    good_request(&server);
}

#[test]
fn more_streams_than_allowed_are_refused_and_those_before_are_served() {
    let server = with_mnist("[server]\nhttp2_streams = 4\n[limits]\nbody_timeout_ms = 1000\n");
    good_request(&server);
    let before = server.holdings();
    let mut frames = http2::OPENING.to_vec();
    for number in 0..50u32 {
        frames.extend(http2::request(2 * number + 1, "POST", INFER, false));
    }
    let stream = sent(&server, &frames);
    eventually("as many as allowed are coming", || {
        let now = server.holdings().receiving_requests;
        assert!(now <= 4, "{now}");
        now == 4
    });
    good_request(&server);
    drop(stream);
    server.settles_to(&before);
}

#[test]
fn a_stalled_answer_on_one_stream_holds_its_bytes_for_no_longer_than_the_limit() {
    let server = with_mnist("[limits]\nanswer_timeout_ms = 1000\n");
    let before = server.holdings();
    // A window of no bytes: SETTINGS with INITIAL_WINDOW_SIZE (4) of 0, so no answer can be written.
    let mut frames = http2::OPENING[..24].to_vec();
    frames.extend(b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0");
    frames.extend(http2::request(1, "GET", "/v2/models/mnist", true));
    let mut stream = sent(&server, &frames);
    assert!(is_closed(&mut stream));
    assert!(server.refusals("limits.answer_timeout_ms") == 1, "{}", server.log());
    drop(stream);
    server.settles_to(&before);
    good_request(&server);
}
