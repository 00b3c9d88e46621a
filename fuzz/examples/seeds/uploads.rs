//! Uploads, their manifests, and compressed bodies.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::Seed;

const MANIFEST: &str = r#"{
  "backend": "rten",
  "config": {"temperature": "0.7"},
  "pool": {"min_instances": 1, "max_instances": 4},
  "annotations": {
    "description": "reads digits",
    "accuracy": {"value": 0.9853, "method": "top-1", "dataset": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    "labels": {"team": "vision"},
    "links": {"source": "https://example.com"}
  },
  "task": "classification",
  "alias": "canary"
}"#;

pub(super) fn seeds() -> Vec<Seed> {
    [manifests(), uploads(), compressed()].concat()
}

fn manifests() -> Vec<Seed> {
    let seed = |(name, text): (&str, &str)| ("manifest", name.to_owned(), text.as_bytes().to_vec());
    let seeds = [
        ("ok-full", MANIFEST),
        ("ok-empty", "{}"),
        (
            "ok-last-digit",
            r#"{"annotations":{"accuracy":{"value":0.030000000000000004,"method":"f1"}}}"#,
        ),
        ("ok-config", r#"{"config":{"":"","k":"\u0000\ud83d\ude00"},"task":null,"alias":null}"#),
        ("no-unknown-key", r#"{"backends":"rten"}"#),
        ("no-backend", r#"{"backend":"cuda"}"#),
        ("no-alias", r#"{"alias":"1"}"#),
        ("no-negative", r#"{"pool":{"max_instances":-1}}"#),
        ("no-infinity", r#"{"annotations":{"accuracy":{"value":1e999,"method":"m"}}}"#),
        ("any-list", "[]"),
        ("no-text", "backend = \"rten\""),
    ];
    seeds.into_iter().map(seed).collect()
}

fn uploads() -> Vec<Seed> {
    let part = |name: &str, body: &str| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\nContent-Type: application/octet-stream\r\n\r\n{body}\r\n"
        )
    };
    let upload =
        |parts: &[String]| format!("multipart/form-data; boundary=b\n{}--b--\r\n", parts.concat());
    let whole = upload(&[
        part("manifest", "{\"backend\":\"rten\"}"),
        part("component", "\0asm\r\0\u{1}\0"),
        part("asset:model.onnx", "\r\n--a\r\n-\r\n--a"),
        part("asset:weights/part 1.bin", ""),
    ]);
    let cut = whole.trim_end_matches("--b--\r\n").to_owned();
    let seed = |(name, text): (&str, String)| ("multipart", name.to_owned(), text.into_bytes());
    let seeds = [
        ("ok-upload", whole),
        ("ok-nothing", upload(&[])),
        ("ok-twice", upload(&[part("component", "1"), part("component", "2")])),
        ("ok-traversal", upload(&[part("asset:../../etc/passwd", "root")])),
        ("ok-quoted-boundary", "multipart/form-data; charset=utf-8; boundary=\"b b\"\n--b b\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--b b--".to_owned()),
        ("no-end", cut),
        ("no-boundary", "multipart/form-data\n--b--\r\n".to_owned()),
        ("no-form", "application/json\n{}".to_owned()),
        ("no-line-ends", "multipart/form-data; boundary=b\n--b\nContent-Disposition: form-data; name=a\n\nx\n--b--\n".to_owned()),
        ("no-header-end", "multipart/form-data; boundary=b\n--b\r\nContent-Disposition: form-data; name=a\r\nx".to_owned()),
    ];
    seeds.into_iter().map(seed).collect()
}

/// The first byte is the coding: even gzip, odd deflate.
fn compressed() -> Vec<Seed> {
    let text =
        b"{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1.5]}]}";
    let gzip = |plain: &[u8]| {
        let mut encoder = GzEncoder::new(vec![0], Compression::best());
        encoder.write_all(plain).and_then(|()| encoder.finish()).expect("a vector takes all")
    };
    let zlib = |plain: &[u8]| {
        let mut encoder = ZlibEncoder::new(vec![1], Compression::best());
        encoder.write_all(plain).and_then(|()| encoder.finish()).expect("a vector takes all")
    };
    let two = [gzip(text), gzip(b" and more").split_off(1)].concat();
    let half = |whole: Vec<u8>| whole.get(..whole.len() / 2).unwrap_or_default().to_vec();
    let seed = |(name, bytes): (&str, Vec<u8>)| ("inflate", name.to_owned(), bytes);
    let seeds = [
        ("ok-gzip", gzip(text)),
        ("ok-deflate", zlib(text)),
        ("ok-gzip-of-nothing", gzip(b"")),
        ("ok-deflate-of-zeros", zlib(&vec![0; 100_000])),
        ("ok-two-members", two),
        ("no-bomb", gzip(&vec![0; 8 << 20])),
        ("no-cut-gzip", half(gzip(text))),
        ("no-cut-deflate", half(zlib(text))),
        ("no-text", [b"\0".to_vec(), text.to_vec()].concat()),
        ("no-more-after-the-end", [zlib(text), b"more".to_vec()].concat()),
    ];
    seeds.into_iter().map(seed).collect()
}
