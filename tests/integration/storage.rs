//! Faults of the disk and the process: what happens is what docs/faults.md says, and nothing that was
//! acknowledged is lost.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Resource;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, PROGRAM, Server, eventually, model_file, send};
use crate::wire::{DIGIT, infer_bytes};

fn publish(server: &Server, version: &str) -> crate::harness::Answer {
    server.publish_onnx("mnist", version, &model_file("mnist.onnx"), "rten")
}

fn point(server: &Server, alias: &str, version: &str) -> crate::harness::Answer {
    let targets = json!({ "targets": [{ "version": version, "weight": 1 }] });
    server.put(&format!("/api/v1/models/mnist/aliases/{alias}"), &[], &targets)
}

#[track_caller]
fn serves(server: &Server) {
    server.infer_f32("mnist", "image", &DIGIT, &[0.0; 784]);
}

/// The versions and aliases that a server knows.
fn state(server: &Server) -> (Vec<Value>, Vec<Value>) {
    let list = |what: &str, name: &str| {
        let document = server.get(&format!("/api/v1/models/mnist/{what}")).ok().json();
        let entries = document[what].as_array().unwrap().iter();
        entries.map(|entry| json!([entry[name], entry["digest"], entry["targets"]])).collect()
    };
    (list("versions", "version"), list("aliases", "alias"))
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[test]
fn a_full_disk_refuses_uploads_and_takes_them_again_when_there_is_room() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::builder().data_dir(data.path()).start();
    publish(&server, "1").ok();
    let known = state(&server);
    // No file may be longer than a megabyte: the disk refuses in the middle of the blob.
    server.limit(Resource::Fsize, Some(1 << 20));
    let mut other = model_file("mnist.onnx");
    other.extend(b"\x92\x01\x00");
    for _ in 0..3 {
        let answer = server.publish_onnx("mnist", "2", &other, "rten");
        let error = answer.error(503);
        assert!(error.contains("disk is full"), "{error}");
        assert_eq!(answer.headers["retry-after"], "60");
        serves(&server);
    }
    assert_eq!(state(&server), known);
    assert!(std::fs::read_dir(data.path().join("blobs/tmp")).unwrap().next().is_none());
    server.limit(Resource::Fsize, None);
    publish(&server, "2").ok();
    let known = state(&server);
    assert!(server.stop().success());
    let server = Server::builder().data_dir(data.path()).start();
    assert_eq!(state(&server), known);
    serves(&server);
}

#[test]
fn a_disk_that_refuses_the_journal_makes_the_registry_read_only_until_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::builder().data_dir(data.path()).start();
    publish(&server, "1").ok();
    point(&server, "before", "1").ok();
    let known = state(&server);
    // Not a byte more of the journal, nor of the log: what cannot be said must not stop the server.
    let journal = data.path().join("journal/journal");
    server.limit(
        Resource::Fsize,
        Some(size(&journal).min(size(&data.path().join("test-server.log")))),
    );
    let answer = point(&server, "during", "1");
    let error = answer.error(503);
    assert!(error.contains("read-only") && error.contains("restart"), "{error}");
    assert_eq!(answer.headers["retry-after"], "60");
    for _ in 0..20 {
        serves(&server);
    }
    assert_eq!(state(&server), known);
    // Room alone does not tell what stands on the disk.
    server.limit(Resource::Fsize, None);
    point(&server, "after", "1").error(503);
    assert!(server.stop().success());
    let server = Server::builder().data_dir(data.path()).start();
    let (versions, aliases) = state(&server);
    assert_eq!(versions, known.0);
    // What was not acknowledged may have happened, as the refusal said.
    let acknowledged = aliases.iter().filter(|alias| alias[0] != "during");
    assert_eq!(acknowledged.cloned().collect::<Vec<_>>(), known.1);
    point(&server, "after", "1").ok();
    serves(&server);
}

/// What a server says that does not start under the shell's `limit`; it is killed if it does.
fn refusal(data: &Path, limit: &str) -> String {
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("{limit} && exec \"$0\" \"$@\""))
        .args([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "", "it started");
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    said
}

#[test]
fn a_disk_that_takes_nothing_keeps_the_server_from_starting_and_is_left_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::builder().data_dir(data.path()).start();
    publish(&server, "1").ok();
    let known = state(&server);
    assert!(server.stop().success());
    let said = refusal(data.path(), "ulimit -f 0");
    assert!(said.contains("LOCK") && said.contains("File too large"), "{said}");
    let server = Server::builder().data_dir(data.path()).start();
    assert_eq!(state(&server), known);
    serves(&server);
}

#[test]
fn a_server_without_descriptors_serves_the_connections_it_has_and_then_all_again() {
    let server = Server::start();
    publish(&server, "1").ok();
    serves(&server);
    let before = server.holdings();
    let mut kept = TcpStream::connect(server.address()).unwrap();
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = infer_bytes("/v2/models/mnist/infer", &DIGIT);
    let mut ask = || {
        kept.write_all(&request).unwrap();
        let mut answer = [0; 12];
        kept.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        // The rest of the answer is short, and there in one piece.
        let mut rest = [0; 4096];
        assert!(kept.read(&mut rest).unwrap() > 40);
    };
    ask();
    // Numbers are given out from the lowest free one on: eight are left.
    let folder = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    let taken: Vec<u64> =
        folder.map(|entry| name(entry).to_str().unwrap().parse().unwrap()).collect();
    let eighth = (0..).filter(|number| !taken.contains(number)).nth(8).unwrap();
    server.limit(Resource::Nofile, Some(eighth));
    let crowd: Vec<_> = (0..50).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    eventually("no connection can be accepted", || {
        server.log().contains("cannot accept a connection")
    });
    (0..20).for_each(|_| ask());
    // Said once, however often it is tried again.
    assert_eq!(server.log().matches("cannot accept a connection").count(), 1);
    let answer = publish(&server, "2");
    assert_eq!(answer.status, 503, "{}", answer.error(answer.status));
    point(&server, "a", "1").ok();
    server.limit(Resource::Nofile, rustix::process::getrlimit(Resource::Nofile).maximum);
    drop(crowd);
    ask();
    eventually("connections are accepted again", || {
        server.log().contains("connections are accepted again")
    });
    drop(kept);
    server.settles_to(&before);
    // A connection of its own, made now.
    std::thread::scope(|scope| scope.spawn(|| serves(&server)).join().unwrap());
    publish(&server, "2").ok();
}

#[test]
fn a_limited_address_space_is_told_at_start_with_what_would_fit() {
    let data = tempfile::tempdir().unwrap();
    // 64 GiB, in kilobytes.
    let limit = "ulimit -v 67108864";
    let said = refusal(data.path(), limit);
    for words in ["address space", "ulimit -v", "engine.instances", "cgroup"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let fitting = said.split("engine.instances to ").nth(1).unwrap_or_else(|| panic!("{said}"));
    let fitting: u32 =
        fitting.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap();
    let config = format!("[engine]\ninstances = {fitting}\n");
    let server = Server::builder().data_dir(data.path()).config(&config).after(limit).start();
    publish(&server, "1").ok();
    serves(&server);
}

#[test]
fn a_server_that_runs_out_of_memory_loses_nothing_it_acknowledged() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::builder().data_dir(data.path()).start();
    publish(&server, "1").ok();
    point(&server, "a", "1").ok();
    let known = state(&server);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmSize:")).unwrap();
    let used = line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024;
    server.limit(Resource::As, Some(used + (32 << 20)));
    // Bodies of 60 MB each find no room in what is left.
    let url = format!("{}/v2/models/mnist/infer", server.url());
    let body = vec![b' '; 60_000_000];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // It answers, or ends: either is allowed, and told in docs/faults.md.
                if let Ok(answer) = send(&url, "POST", &[], &body) {
                    assert!(answer.status >= 400, "{}", answer.status);
                }
            });
        }
    });
    server.kill();
    let server = Server::builder().data_dir(data.path()).start();
    assert_eq!(state(&server), known);
    serves(&server);
}
