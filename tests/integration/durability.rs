//! What was acknowledged is there: after kills, with a destroyed index, and never under two servers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use modelet_host::digest::Digest;
use serde_json::json;

use crate::harness::{Server, argmax, floats, model_file, multipart, send};

/// Kills of the server in one run.
const KILLS: u64 = 50;
/// Bytes of the largest notes that a version carries: several writes of the server's, and pages of the
/// disk's.
const NOTES_BYTES: u64 = 300_000;

/// What the server acknowledged: the digest of every version, and where `canary` points.
#[derive(Debug, Default, Clone, PartialEq)]
struct Acknowledged {
    versions: BTreeMap<String, String>,
    canary: Option<String>,
    /// The change under way when the server was killed: it may have happened or not.
    open: Option<Change>,
}

#[derive(Debug, Clone, PartialEq)]
enum Change {
    Publish(String),
    Move(String),
    Delete(String),
}

/// Numbers that look random and are the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

impl Acknowledged {
    /// Picks a change that can succeed.
    fn choose(&self, numbers: &mut Numbers, next: &mut u64) -> Change {
        let names: Vec<_> = self.versions.keys().filter(|name| *name != "base").collect();
        let one = |numbers: &mut Numbers| names[numbers.below(names.len() as u64) as usize].clone();
        match numbers.below(4) {
            0 if names.len() > 3 => {
                let name = one(numbers);
                if self.canary.as_ref() == Some(&name) {
                    Change::Move("base".into())
                } else {
                    Change::Delete(name)
                }
            }
            1 | 2 if !names.is_empty() => Change::Move(one(numbers)),
            _ => {
                *next += 1;
                Change::Publish(format!("v{next}"))
            }
        }
    }

    /// Makes a change; false when the server died on it.
    fn make(&mut self, url: &str, change: Change) -> bool {
        self.open = Some(change.clone());
        let Some(answer) = change.send(url) else { return false };
        assert!(matches!(answer.status, 200 | 201), "{change:?}: {}", answer.error(answer.status));
        match &change {
            Change::Publish(name) => {
                let digest = answer.json()["version"]["digest"].as_str().unwrap().to_owned();
                self.versions.insert(name.clone(), digest);
            }
            Change::Move(name) => self.canary = Some(name.clone()),
            Change::Delete(name) => {
                self.versions.remove(name);
            }
        }
        self.open = None;
        true
    }

    /// Compares with what a server says after it came up again, and takes over what was open.
    fn check(&mut self, server: &Server, seed: u64) {
        let documents = match server.get("/api/v1/models/m/versions") {
            answer if answer.status == 404 => Vec::new(),
            answer => answer.ok().json()["versions"].as_array().unwrap().clone(),
        };
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let versions: BTreeMap<String, String> =
            documents.iter().map(|v| (text(&v["version"]), text(&v["digest"]))).collect();
        documents.iter().for_each(|version| check_bytes(server, version, seed));
        let maybe: BTreeSet<_> = match &self.open {
            Some(Change::Publish(name) | Change::Delete(name)) => BTreeSet::from([name]),
            _ => BTreeSet::new(),
        };
        for (name, digest) in &self.versions {
            let found = versions.get(name);
            assert!(
                found == Some(digest) || (found.is_none() && maybe.contains(name)),
                "seed {seed}: {name} is {found:?}"
            );
        }
        for name in versions.keys() {
            assert!(
                self.versions.contains_key(name) || maybe.contains(name),
                "seed {seed}: {name} came back"
            );
        }
        let canary = self.find_canary(server);
        let moved = match &self.open {
            Some(Change::Move(name)) => Some(name.clone()),
            _ => None,
        };
        assert!(
            canary == self.canary || (moved.is_some() && canary == moved),
            "seed {seed}: canary is {canary:?}, not {:?}",
            self.canary
        );
        (self.versions, self.canary, self.open) = (versions, canary, None);
    }

    fn find_canary(&self, server: &Server) -> Option<String> {
        let answer = server.get("/api/v1/models/m/aliases");
        if answer.status == 404 {
            return None;
        }
        let document = answer.json();
        let aliases = document["aliases"].as_array().unwrap();
        let canary = aliases.iter().find(|alias| alias["alias"] == "canary")?;
        Some(canary["targets"][0]["version"].as_str().unwrap().to_owned())
    }
}

/// The bytes that a version of this name was published with beside its graph: as long and as random as
/// its name says, and the same whenever they are asked for.
fn notes(version: &str) -> Vec<u8> {
    let seed = version.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
    let mut numbers = Numbers(seed);
    (0..numbers.below(NOTES_BYTES)).map(|_| numbers.below(256) as u8).collect()
}

/// Every blob that a version names is there with the bytes of its digest, and its notes are those that
/// were sent.
#[track_caller]
fn check_bytes(server: &Server, version: &serde_json::Value, seed: u64) {
    let name = version["version"].as_str().unwrap();
    let assets = version["assets"].as_object().unwrap();
    for blob in assets.values().chain([&version["component"]]) {
        let digest = blob["digest"].as_str().unwrap();
        let hex = digest.strip_prefix("sha256:").unwrap();
        let path = server.data_dir().join("blobs/sha256").join(&hex[..2]).join(hex);
        let bytes = std::fs::read(&path)
            .unwrap_or_else(|error| panic!("seed {seed}: a blob of {name} is gone: {error}"));
        assert_eq!(Digest::of(&bytes).to_string(), digest, "seed {seed}: a blob of {name}");
    }
    let sent = Digest::of(&notes(name)).to_string();
    assert_eq!(assets["notes.bin"]["digest"], sent, "seed {seed}: the notes of {name}");
}

impl Change {
    fn send(&self, url: &str) -> Option<crate::harness::Answer> {
        let base = format!("{url}/api/v1/models/m");
        match self {
            Self::Publish(name) => {
                // The configuration makes every version's record, and so its digest, its own.
                let manifest = json!({ "config": { "name": name }, "backend": "rten" }).to_string();
                let (graph, notes) = (model_file("mnist.onnx"), notes(name));
                let parts: [(&str, &[u8]); 3] = [
                    ("manifest", manifest.as_bytes()),
                    ("asset:model.onnx", &graph),
                    ("asset:notes.bin", &notes),
                ];
                let (content_type, body) = multipart(&parts);
                let headers = [("content-type", content_type.as_str())];
                send(&format!("{base}/versions/{name}"), "PUT", &headers, &body).ok()
            }
            Self::Move(name) => {
                let body = json!({ "targets": [{ "version": name, "weight": 1 }] }).to_string();
                let headers = [("content-type", "application/json")];
                send(&format!("{base}/aliases/canary"), "PUT", &headers, body.as_bytes()).ok()
            }
            Self::Delete(name) => send(&format!("{base}/versions/{name}"), "DELETE", &[], b"").ok(),
        }
    }
}

#[test]
fn everything_acknowledged_survives_fifty_kills() {
    let data = tempfile::tempdir().unwrap();
    let mut known = Acknowledged::default();
    let mut next = 0;
    for seed in 0..KILLS {
        let mut server = Server::builder().data_dir(data.path()).start();
        known.check(&server, seed);
        let mut numbers = Numbers(seed + 1);
        if known.versions.is_empty() {
            known.make(server.url(), Change::Publish("base".into()));
        }
        // Some changes in peace, then the kill falls into whatever is under way.
        for _ in 0..numbers.below(3) {
            let change = known.choose(&mut numbers, &mut next);
            known.make(server.url(), change);
        }
        let url = server.url().to_owned();
        let (mut at_work, mut changes) = (known.clone(), Numbers(seed + 1000));
        let begun = std::sync::Arc::new(std::sync::Barrier::new(2));
        let worker = std::thread::spawn({
            let begun = std::sync::Arc::clone(&begun);
            move || {
                begun.wait();
                loop {
                    let change = at_work.choose(&mut changes, &mut next);
                    if !at_work.make(&url, change) {
                        return (at_work, next);
                    }
                }
            }
        });
        begun.wait();
        // As many questions as chance says: a span of time that is nobody's clock.
        for _ in 0..numbers.below(120) {
            server.get("/healthz");
        }
        server.kill();
        (known, next) = worker.join().unwrap();
    }
    let server = Server::builder().data_dir(data.path()).start();
    known.check(&server, KILLS);
    assert!(known.versions.len() > 3, "{known:?}");
    let pixels = floats(&model_file("digit-7.f32"));
    assert_eq!(argmax(&server.infer_f32("m", "image", &[1, 1, 28, 28], &pixels)), 7);
}

/// Writes over every file below `folder`.
fn destroy(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            destroy(&path);
        } else {
            std::fs::write(&path, b"not what it was").unwrap();
        }
    }
}

#[test]
fn a_destroyed_index_is_rebuilt_and_the_models_are_served() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::builder().data_dir(data.path()).start();
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "auto").ok();
    assert!(server.stop().success());
    let pixels = floats(&model_file("digit-7.f32"));
    for (damage, said) in [
        ("overwritten", "index could not be used and was rebuilt"),
        ("removed", "index was behind the journal and has caught up"),
    ] {
        let index = data.path().join("index");
        match damage {
            "overwritten" => destroy(&index),
            _ => std::fs::remove_dir_all(&index).unwrap(),
        }
        let server = Server::builder().data_dir(data.path()).start();
        let answer = server.infer_f32("mnist", "image", &[1, 1, 28, 28], &pixels);
        assert_eq!(argmax(&answer), 7, "{damage}");
        assert!(server.log().contains(said), "{damage}: {}", server.log());
        assert!(server.stop().success());
    }
}

#[test]
fn a_torn_frame_is_moved_aside_and_told_of() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::builder().data_dir(data.path()).start();
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "auto").ok();
    assert!(server.stop().success());
    let journal = data.path().join("journal/journal");
    let whole = std::fs::read(&journal).unwrap();
    // The beginning of a frame, as a crash in the middle of its write leaves it.
    let torn = [&whole[..], &whole[..20]].concat();
    std::fs::write(&journal, torn).unwrap();
    let server = Server::builder().data_dir(data.path()).start();
    let log = server.log();
    assert!(log.contains("torn frame") && log.contains("journal.torn-1"), "{log}");
    assert!(log.contains("bytes=20"), "{log}");
    assert_eq!(std::fs::read(data.path().join("journal/journal.torn-1")).unwrap(), whole[..20]);
    assert_eq!(server.get("/readyz").ok().json()["registry"], json!({ "state": "writable" }));
    server.get("/v2/models/mnist/ready").ok();
}

#[test]
fn a_registry_that_lost_changes_serves_what_it_has_and_says_why_it_takes_none() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::builder().data_dir(data.path()).start();
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "auto").ok();
    let to = json!({ "targets": [{ "version": "1", "weight": 1 }] });
    server.put("/api/v1/models/mnist/aliases/canary", &[], &to).ok();
    assert!(server.stop().success());
    let journal = data.path().join("journal/journal");
    let whole = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, &whole[..whole.len() - 1]).unwrap();

    let server = Server::builder().data_dir(data.path()).start();
    let ready = server.get("/readyz").ok().json();
    assert_eq!(
        (&ready["status"], &ready["registry"]["state"]),
        (&json!("ready"), &json!("read_only"))
    );
    let reason = ready["registry"]["reason"].as_str().unwrap();
    assert!(reason.contains("epochs 2 to 2 were acknowledged and are gone"), "{reason}");
    assert!(server.log().contains("the registry is read-only"), "{}", server.log());
    let pixels = floats(&model_file("digit-7.f32"));
    assert_eq!(argmax(&server.infer_f32("mnist", "image", &[1, 1, 28, 28], &pixels)), 7);
    let health = server.cli(&["health"]).ok();
    assert!(health.contains("read_only"), "{health}");

    let path = "/api/v1/models/mnist/aliases/canary";
    let body = serde_json::to_vec(&to).unwrap();
    let headers = [("content-type", "application/json"), ("x-request-id", "the-refused-one")];
    let refused = server.send("PUT", path, &headers, &body).error(503);
    assert!(refused.contains("acknowledged and are gone"), "{refused}");
    // What an operator has to see to is logged under the request's id.
    let log = server.log();
    let line = log.lines().find(|line| line.contains("the-refused-one"));
    assert!(line.is_some_and(|line| line.contains("read_only")), "{log}");
    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    let counted = "modelet_http_requests_total{route=\"management\",outcome=\"read_only\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn a_second_server_on_the_same_directory_refuses_and_says_who_holds_it() {
    let data = tempfile::tempdir().unwrap();
    let first = Server::builder().data_dir(data.path()).start();
    let said = Server::builder().data_dir(data.path()).try_start().err().unwrap();
    assert!(said.contains(&first.pid().to_string()), "{said}");
    first.get("/healthz").ok();
}
