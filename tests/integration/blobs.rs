//! Blobs by digest: uploads that go on where they were cut, versions that name what is stored, and large
//! files that cost no memory.

use std::io::{self, Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use modelet_host::digest::Digest;
use modelet_host::engine::PASSTHROUGH;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{Answer, Server, cli, eventually, model_file, models, read_answer};
use crate::wire::sent;

/// Bytes that are like no others with another seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    Noise::new(seed, length as u64).read_to_end(&mut bytes).unwrap();
    bytes
}

fn path(digest: &Digest) -> String {
    format!("/api/v1/blobs/{digest}")
}

/// Sends some bytes of a blob.
fn patch(server: &Server, digest: &Digest, (at, length): (u64, u64), bytes: &[u8]) -> Answer {
    let (at, length) = (at.to_string(), length.to_string());
    let headers = [("upload-offset", &*at), ("upload-length", &*length)];
    server.send("PATCH", &path(digest), &headers, bytes)
}

/// Sends all bytes of a blob.
#[track_caller]
fn upload(server: &Server, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    patch(server, &digest, (0, bytes.len() as u64), bytes).ok();
    digest
}

/// Where the upload of a blob goes on; none if the blob is there.
#[track_caller]
fn offset(server: &Server, digest: &Digest) -> Option<u64> {
    let answer = server.send("HEAD", &path(digest), &[], b"");
    assert!(matches!(answer.status, 200 | 404), "{}", answer.status);
    (answer.status == 404).then(|| answer.headers["upload-offset"].parse().unwrap())
}

/// A connection on which a request stopped in the middle of its body.
fn unfinished(server: &Server, digest: &Digest, length: usize, bytes: &[u8]) -> TcpStream {
    let head = format!(
        "PATCH {} HTTP/1.1\r\nhost: localhost\r\nupload-offset: 0\r\nupload-length: {length}\r\n\
         content-length: {length}\r\n\r\n",
        path(digest)
    );
    let stream = sent(server, &[head.as_bytes(), bytes].concat());
    eventually("what was sent has come", || offset(server, digest) == Some(bytes.len() as u64));
    stream
}

/// Files of uploads that are not whole.
fn partial_files(server: &Server) -> usize {
    std::fs::read_dir(server.data_dir().join("blobs/partial")).unwrap().count()
}

#[track_caller]
fn refused(server: &Server, answer: &Answer, status: u16, limit: &str) {
    let error = answer.error(status);
    assert!(error.contains(limit), "{limit} is not in {error:?}");
    assert_eq!(answer.json()["limit"], limit);
    assert!(server.refusals(limit) > 0, "{limit} was not counted");
}

#[test]
fn a_blob_comes_whole_and_is_there_with_its_length() {
    let server = Server::start();
    for (seed, length) in [(1, 0), (2, 1), (3, 300_000)] {
        let bytes = noise(seed, length);
        let digest = Digest::of(&bytes);
        assert_eq!(offset(&server, &digest), Some(0));
        let answer = patch(&server, &digest, (0, length as u64), &bytes);
        assert_eq!(answer.status, 201);
        assert_eq!(answer.json(), json!({ "digest": digest.to_string(), "bytes": length }));
        let head = server.send("HEAD", &path(&digest), &[], b"");
        assert_eq!((head.status, &*head.headers["content-length"]), (200, &*length.to_string()));
        // Once more is no mistake, and nothing of it is read.
        assert_eq!(patch(&server, &digest, (0, length as u64), &bytes).status, 200);
    }
    assert_eq!((partial_files(&server), server.metric("modelet_uploads")), (0, 3));
}

#[test]
fn a_blob_in_three_pieces_is_the_same_blob() {
    let server = Server::start();
    let bytes = noise(1, 100_000);
    let (digest, length) = (Digest::of(&bytes), bytes.len() as u64);
    for (from, to) in [(0, 1), (1, 70_000)] {
        let answer = patch(&server, &digest, (from as u64, length), &bytes[from..to]);
        assert_eq!((answer.status, &*answer.headers["upload-offset"]), (204, &*to.to_string()));
        assert_eq!(offset(&server, &digest), Some(to as u64));
    }
    // The length has been announced.
    let headers = [("upload-offset", "70000")];
    let answer = server.send("PATCH", &path(&digest), &headers, &bytes[70_000..]);
    assert_eq!(answer.status, 201);
    assert_eq!(offset(&server, &digest), None);
}

#[test]
fn an_upload_that_was_cut_goes_on_where_it_was_cut() {
    let server = Server::start();
    let bytes = noise(1, 200_000);
    let digest = Digest::of(&bytes);
    drop(unfinished(&server, &digest, bytes.len(), &bytes[..80_000]));
    let mut status = 0;
    eventually("the server has noticed", || {
        status = patch(&server, &digest, (80_000, 200_000), &bytes[80_000..]).status;
        status != 409
    });
    assert_eq!((status, offset(&server, &digest)), (201, None));
}

#[test]
fn a_body_that_stops_coming_is_given_up_and_what_came_stays() {
    let server = Server::builder().config("[limits]\nbody_timeout_ms = 200\n").start();
    let bytes = noise(1, 1000);
    let digest = Digest::of(&bytes);
    let mut stream = unfinished(&server, &digest, 1000, &bytes[..600]);
    let answer = read_answer(&mut stream).unwrap();
    refused(&server, &answer, 504, "limits.body_timeout_ms");
    assert_eq!(answer.headers["upload-offset"], "600");
    assert_eq!(patch(&server, &digest, (600, 1000), &bytes[600..]).status, 201);
}

#[test]
fn a_wrong_offset_is_told_the_right_one() {
    let server = Server::start();
    let bytes = noise(1, 1000);
    let digest = Digest::of(&bytes);
    patch(&server, &digest, (0, 1000), &bytes[..400]);
    for wrong in [0, 399, 401, 1000] {
        let answer = patch(&server, &digest, (wrong, 1000), &bytes[..10]);
        assert!(answer.error(409).contains("400"), "{}", answer.error(409));
        assert_eq!(answer.headers["upload-offset"], "400");
    }
    // More than was announced, and what is no number.
    let answer = patch(&server, &digest, (400, 1000), &bytes);
    assert_eq!((answer.status, &*answer.headers["upload-offset"]), (400, "400"));
    let answer = server.send("PATCH", &path(&digest), &[("upload-offset", "-1")], b"x");
    assert!(answer.error(400).contains("upload-offset"));
    let answer = server.send("PATCH", &path(&digest), &[], b"x");
    assert!(answer.error(400).contains("Upload-Offset"));
    let new = Digest::of(b"new");
    let answer = server.send("PATCH", &path(&new), &[("upload-offset", "0")], b"new");
    assert!(answer.error(400).contains("Upload-Length"));
    server.send("HEAD", "/api/v1/blobs/sha256:12", &[], b"");
    assert_eq!(server.send("HEAD", "/api/v1/blobs/sha256:12", &[], b"").status, 400);
    let page = [("origin", "http://evil.example"), ("upload-offset", "0")];
    server.send("PATCH", &path(&new), &page, b"new").error(403);
    assert_eq!(patch(&server, &digest, (400, 1000), &bytes[400..]).status, 201);
}

#[test]
fn bytes_of_another_digest_are_refused_and_nothing_of_them_is_left() {
    let server = Server::start();
    let (bytes, other) = (noise(1, 5000), noise(2, 5000));
    let digest = Digest::of(&bytes);
    patch(&server, &digest, (0, 5000), &other[..3000]);
    let error = patch(&server, &digest, (3000, 5000), &other[3000..]).error(400);
    assert!(error.contains(&digest.to_string()), "{error}");
    assert!(error.contains(&Digest::of(&other).to_string()), "{error}");
    assert_eq!((offset(&server, &digest), partial_files(&server)), (Some(0), 0));
    assert_eq!(server.metric("modelet_uploads"), 0);
    upload(&server, &bytes);
}

#[test]
fn an_upload_goes_on_after_the_server_was_killed() {
    let data = tempfile::tempdir().unwrap();
    let bytes = noise(1, 3_000_000);
    let (digest, length) = (Digest::of(&bytes), bytes.len() as u64);
    let mut server = Server::builder().data_dir(data.path()).start();
    let _stream = unfinished(&server, &digest, bytes.len(), &bytes[..2_000_000]);
    server.kill();
    let server = Server::builder().data_dir(data.path()).start();
    assert_eq!(offset(&server, &digest), Some(2_000_000));
    assert_eq!(server.metric("modelet_upload_bytes"), length);
    let answer = patch(&server, &digest, (2_000_000, length), &bytes[2_000_000..]);
    assert_eq!((answer.status, offset(&server, &digest)), (201, None));
}

#[test]
fn one_writes_a_blob_at_a_time() {
    let server = Server::start();
    let bytes = noise(1, 1000);
    let digest = Digest::of(&bytes);
    let mut first = unfinished(&server, &digest, 1000, &bytes[..500]);
    let second = patch(&server, &digest, (500, 1000), &bytes[500..]);
    assert!(second.error(409).contains("another request"), "{}", second.error(409));
    assert!(second.headers.contains_key("retry-after"));
    first.write_all(&bytes[500..]).unwrap();
    assert_eq!(read_answer(&mut first).unwrap().status, 201);
    assert_eq!(offset(&server, &digest), None);
}

/// Publishes with a manifest and these parts.
fn publish(server: &Server, model: &str, manifest: &Value, parts: &[(&str, &[u8])]) -> Answer {
    let manifest = manifest.to_string();
    server.publish(model, "1", &[&[("manifest", manifest.as_bytes())], parts].concat())
}

fn version_digest(server: &Server, model: &str) -> Value {
    server.get(&format!("/api/v1/models/{model}/versions/1")).ok().json()["digest"].clone()
}

#[test]
fn a_version_that_names_blobs_is_the_one_that_was_sent_in_parts() {
    let server = Server::start();
    let graph = model_file("mnist.onnx");
    let labels = noise(1, 3000);
    let parts =
        [("component", PASSTHROUGH), ("asset:model.onnx", &*graph), ("asset:labels.txt", &*labels)];
    let elsewhere = Server::start();
    publish(&elsewhere, "parts", &json!({}), &parts).ok();
    let blob = |bytes: &[u8]| upload(&server, bytes).to_string();
    let assets = json!({ "model.onnx": blob(&graph), "labels.txt": blob(&labels) });
    let manifest = json!({ "component": blob(PASSTHROUGH), "assets": assets });
    publish(&server, "named", &manifest, &[]).ok();
    assert_eq!(version_digest(&server, "named"), version_digest(&elsewhere, "parts"));
    assert_eq!(server.metric("modelet_uploads"), 0, "what is named waits no more");
    // Both ways in one publication, and the same again is known.
    let some = json!({ "assets": { "labels.txt": assets["labels.txt"] } });
    publish(&server, "mixed", &some, &parts[..2]).ok();
    assert_eq!(version_digest(&server, "mixed"), version_digest(&server, "named"));
    assert_eq!(publish(&server, "named", &json!({}), &parts).status, 200);
    let twice = publish(&server, "twice", &some, &parts).error(400);
    assert!(twice.contains("asset:labels.txt"), "{twice}");
    server.infer_f32("named", "image", &[1, 1, 28, 28], &[0.0; 784]);
}

#[test]
fn a_version_that_names_what_is_not_stored_is_told_which_and_what_to_do() {
    let server = Server::start();
    let graph = model_file("mnist.onnx");
    let missing = Digest::of(b"never sent");
    let parts: [(&str, &[u8]); 1] = [("asset:model.onnx", &graph)];
    for (manifest, name) in [
        (json!({ "assets": { "labels.txt": missing.to_string() } }), "labels.txt"),
        (json!({ "component": missing.to_string() }), "component"),
    ] {
        let error = publish(&server, "m", &manifest, &parts).error(409);
        for words in [name, &missing.to_string(), "PATCH /api/v1/blobs/"] {
            assert!(error.contains(words), "{words}: {error}");
        }
    }
    let error = publish(&server, "m", &json!({ "component": "sha256:1" }), &parts).error(400);
    assert!(error.contains("not a digest"), "{error}");
    // A blob passes the same gates as a part.
    let garbage = upload(&server, &noise(1, 1000)).to_string();
    let by_name = publish(&server, "m", &json!({ "component": garbage }), &parts).error(400);
    let by_part = [parts[0], ("component", &noise(1, 1000))];
    assert_eq!(publish(&server, "m", &json!({}), &by_part).error(400), by_name);
}

#[test]
fn limits_on_uploads_are_named_and_counted() {
    let config = "[limits]\nuploads = 2\nuploads_bytes = 5000\nasset_bytes = 4000\n";
    let server = Server::builder().config(config).start();
    let begin = |seed: u64, length: usize| {
        let bytes = noise(seed, length);
        patch(&server, &Digest::of(&bytes), (0, length as u64), &bytes[..1])
    };
    refused(&server, &begin(1, 4001), 413, "limits.asset_bytes");
    assert_eq!(begin(1, 4000).status, 204);
    refused(&server, &begin(2, 1001), 503, "limits.uploads_bytes");
    upload(&server, &noise(2, 1000));
    refused(&server, &begin(3, 1), 503, "limits.uploads");
    // What was begun may end.
    let first = noise(1, 4000);
    assert_eq!(patch(&server, &Digest::of(&first), (1, 4000), &first[1..]).status, 201);
}

#[test]
fn an_abandoned_upload_is_removed_and_counted() {
    let server = Server::builder().config("[limits]\nupload_idle_s = 1\n").start();
    let bytes = noise(1, 1000);
    let digest = Digest::of(&bytes);
    patch(&server, &digest, (0, 1000), &bytes[..10]);
    eventually("it is removed", || offset(&server, &digest) == Some(0));
    assert_eq!(partial_files(&server), 0);
    eventually("it is counted", || server.refusals("limits.upload_idle_s") == 1);
}

#[test]
fn a_blob_that_no_version_names_is_kept_for_its_grace_and_then_collected() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::builder().data_dir(data.path()).start();
    let collect = |server: &Server| {
        server.publish_onnx("passing", "1", &model_file("mnist.onnx"), "rten").ok();
        server.send("DELETE", "/api/v1/models/passing", &[], b"").ok();
    };
    let digest = upload(&server, &noise(1, 1000));
    let graph = Digest::of(&model_file("mnist.onnx"));
    collect(&server);
    assert_eq!((offset(&server, &graph), offset(&server, &digest)), (Some(0), None));
    // A restart begins its time anew.
    assert!(server.stop().success());
    let server = Server::builder().data_dir(data.path()).start();
    collect(&server);
    assert_eq!(offset(&server, &digest), None);
    assert!(server.stop().success());
    let config = "[limits]\nupload_grace_s = 1\n";
    let server = Server::builder().data_dir(data.path()).config(config).start();
    eventually("it is collected", || offset(&server, &digest) == Some(0));
    assert_eq!(server.refusals("limits.upload_grace_s"), 1);
}

/// Stands between a client and a server, counts what the client sends, and cuts its connections once
/// when that is more than it was told.
struct Proxy {
    url: String,
    sent: Arc<AtomicU64>,
}

impl Proxy {
    fn start(server: &Server, cut_at: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sent, address) = (Arc::new(AtomicU64::new(0)), server.address().to_owned());
        let counted = Arc::clone(&sent);
        std::thread::spawn(move || {
            // Its threads end with their connections, and this one with the test's process.
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&address).unwrap());
                let (back, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || pass(back, to, |_| true));
                let counted = Arc::clone(&counted);
                let goes_on = move |bytes| {
                    let before = counted.fetch_add(bytes, Ordering::Relaxed);
                    before >= cut_at || before + bytes < cut_at
                };
                std::thread::spawn(move || pass(client, server, goes_on));
            }
        });
        Self { url, sent }
    }

    fn cli(&self, args: &[&str]) -> crate::harness::Output {
        cli(args, &[("MODELET_SERVER", &self.url)])
    }

    /// Bytes that clients have sent since this was asked before.
    fn sent(&self) -> u64 {
        self.sent.swap(0, Ordering::Relaxed)
    }
}

/// Passes bytes on until there are no more, or it is told to stop.
fn pass(mut from: TcpStream, mut to: TcpStream, goes_on: impl Fn(u64) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() || !goes_on(count as u64) {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn the_command_line_sends_large_files_once_and_goes_on_after_a_cut() {
    const LARGE: u64 = (64 << 20) + 5;
    const SMALL: u64 = 1 << 20;
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("weights.bin");
    std::fs::File::create(&large).unwrap().set_len(LARGE).unwrap();
    let onnx = models().join("mnist.onnx").to_str().unwrap().to_owned();
    let graph = std::fs::metadata(&onnx).unwrap().len();
    let publish = ["publish", "m", "1", "--onnx", &onnx, "--with", large.to_str().unwrap()];
    let proxy = Proxy::start(&server, LARGE / 3);
    // A dry run sends what is to be checked; the graph is forgotten after it, the blob is not.
    proxy.cli(&[&publish[..], &["--dry-run"]].concat()).ok();
    let sent = proxy.sent();
    assert!(
        (LARGE + graph..LARGE + graph + SMALL).contains(&sent),
        "{sent} of {LARGE} and {graph}"
    );
    server.get("/api/v1/models/m").error(404);
    proxy.cli(&publish).ok();
    let sent = proxy.sent();
    assert!((graph..graph + SMALL).contains(&sent), "{sent} although {LARGE} were known");
    let version = server.get("/api/v1/models/m/versions/1").ok().json();
    assert_eq!(version["assets"]["weights.bin"]["bytes"], LARGE);
    let again = ["publish", "n", "1", "--onnx", &onnx, "--with", large.to_str().unwrap()];
    proxy.cli(&again).ok();
    let sent = proxy.sent();
    assert!(sent < SMALL, "{sent} although all was known");
    assert_eq!(version_digest(&server, "m"), version_digest(&server, "n"));
}

/// Bytes without a pattern that a disk or a network could make less of.
struct Noise {
    state: u64,
    left: u64,
}

impl Noise {
    fn new(seed: u64, length: u64) -> Self {
        Self { state: seed, left: length }
    }
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.left.min(buffer.len() as u64) as usize;
        for eight in buffer[..count].chunks_mut(8) {
            self.state =
                self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let word = (self.state ^ (self.state >> 29)).to_le_bytes();
            eight.copy_from_slice(&word[..eight.len()]);
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Sends a body as it is made.
#[track_caller]
fn stream(
    server: &Server,
    method: &str,
    path: &str,
    headers: &[(&str, String)],
    (length, mut body): (u64, impl Read),
) {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = config.allow_non_standard_methods(true).proxy(None).build().new_agent();
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", server.url()))
        .header("content-length", length);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(ureq::SendBody::from_reader(&mut body)).unwrap();
    let mut response = agent.run(request).unwrap();
    let said = response.body_mut().read_to_string().unwrap();
    assert_eq!(response.status().as_u16(), 201, "{said}");
}

/// By how much a server's resident memory grows at most while something is done.
fn most_grown(server: &Server, work: impl FnOnce()) -> u64 {
    let proc = format!("/proc/{}", server.pid());
    // The most is counted from here on (proc(5)).
    std::fs::write(format!("{proc}/clear_refs"), "5").unwrap();
    let before = server.resident_bytes();
    work();
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let most = most.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024;
    most.saturating_sub(before)
}

const LARGE_ASSET: u64 = 1 << 30;
const ALLOWED: u64 = 32 << 20;

/// A server that has published before, so that what is made once is there.
fn warm() -> Server {
    let server = Server::start();
    for version in ["1", "2"] {
        let parts: [(&str, &[u8]); 2] =
            [("asset:model.onnx", &model_file("mnist.onnx")), ("asset:large", version.as_bytes())];
        server.publish("warm", version, &parts).ok();
        upload(&server, &noise(1, 10_000_000));
    }
    server
}

#[test]
fn a_large_blob_streams_to_disk_without_growing_memory() {
    let server = warm();
    let mut hasher = Sha256::new();
    io::copy(&mut Noise::new(9, LARGE_ASSET), &mut hasher).unwrap();
    let digest = Digest::from_hasher(hasher);
    let headers = [("upload-offset", "0".to_owned()), ("upload-length", LARGE_ASSET.to_string())];
    let begun = std::time::Instant::now();
    let grown = most_grown(&server, || {
        let body = (LARGE_ASSET, Noise::new(9, LARGE_ASSET));
        stream(&server, "PATCH", &path(&digest), &headers, body);
        let graph = model_file("mnist.onnx");
        let manifest = json!({ "assets": { "large": digest.to_string() } });
        publish(&server, "m", &manifest, &[("asset:model.onnx", &graph)]).ok();
    });
    println!("by digest: {grown} bytes more for {LARGE_ASSET} in {:?}", begun.elapsed());
    assert!(grown < ALLOWED, "{grown}");
    assert_eq!(offset(&server, &digest), None);
}

#[test]
fn a_large_part_streams_to_disk_without_growing_memory() {
    let server = warm();
    let (content_type, parts) = crate::harness::multipart(&[
        ("asset:model.onnx", &model_file("mnist.onnx")),
        ("asset:large", b"HERE"),
    ]);
    let place = parts.windows(4).rposition(|four| four == b"HERE").unwrap();
    let (before, after) = (&parts[..place], &parts[place + 4..]);
    let length = LARGE_ASSET + parts.len() as u64 - 4;
    let body = before.chain(Noise::new(10, LARGE_ASSET)).chain(after);
    let begun = std::time::Instant::now();
    let grown = most_grown(&server, || {
        let headers = [("content-type", content_type)];
        stream(&server, "PUT", "/api/v1/models/m/versions/1", &headers, (length, body));
    });
    println!("as a part: {grown} bytes more for {LARGE_ASSET} in {:?}", begun.elapsed());
    assert!(grown < ALLOWED, "{grown}");
    let version = server.get("/api/v1/models/m/versions/1").ok().json();
    assert_eq!(version["assets"]["large"]["bytes"], LARGE_ASSET);
}
