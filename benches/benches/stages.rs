//! The stages of a request that need no server: route, decode, encode, and the ledger's account.

#![allow(missing_docs, reason = "criterion's macros make functions without docstrings")]
#![allow(clippy::unwrap_used, reason = "a measurement that fails may panic")]

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::Method;
use modelet_host::http::oip::{self, DecodeLimits};
use modelet_host::http::route::route;
use modelet_host::ledger::{Bucket, Clock, Ledger};
use modelet_host::registry::Snapshot;
use modelet_host::tensor::Datatype;
use modelet_host::version::{Signature, TensorSpec};
use serde_json::json;

/// Numbers of a picture of 224 by 224 in three colours.
const PICTURE: usize = 150_528;

fn signature(count: usize) -> Signature {
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: Datatype::Fp32,
        shape: vec![count as i64],
    };
    Signature { inputs: vec![spec("x")], outputs: vec![spec("y")], batch: false, task: None }
}

fn json_body(count: usize) -> Bytes {
    let data: Vec<f32> = (0..count).map(|index| (index % 255) as f32 / 255.0).collect();
    json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [count], "data": data }] })
        .to_string()
        .into()
}

fn binary_body(count: usize) -> (Bytes, usize) {
    let head = json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [count],
        "parameters": { "binary_data_size": count * 4 } }] })
    .to_string();
    let length = head.len();
    ([head.into_bytes(), vec![0; count * 4]].concat().into(), length)
}

fn decode(criterion: &mut Criterion) {
    let limits = DecodeLimits::default();
    let mut group = criterion.benchmark_group("decode");
    for count in [16, PICTURE] {
        let signature = signature(count);
        let body = json_body(count);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("json of {count} numbers"), |b| {
            let json = oip::json_length(None, Some(body.len() as u64)).unwrap();
            b.iter(|| oip::decode_infer(body.clone(), json, &signature, &limits).unwrap());
        });
        let (body, head) = binary_body(count);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("binary of {count} numbers"), |b| {
            let head = head.to_string();
            let json = oip::json_length(Some(&head), Some(body.len() as u64)).unwrap();
            b.iter(|| oip::decode_infer(body.clone(), json, &signature, &limits).unwrap());
        });
    }
    group.finish();
}

fn other_stages(criterion: &mut Criterion) {
    let snapshot = Snapshot::default();
    criterion.bench_function("route to nowhere", |b| {
        b.iter(|| route(&Method::GET, "/v2/models/nobody/versions/1/infer", &snapshot, 7).is_err());
    });
    let ledger = Ledger::new(Clock::monotonic());
    let digest = modelet_host::digest::Digest::of(b"version");
    let row = ledger.version(&"m".parse().unwrap(), &"1".parse().unwrap(), digest);
    let mut account = ledger.instance(&row);
    criterion.bench_function("account of a call with one run", |b| {
        b.iter_batched(
            || (),
            |()| {
                account.lease();
                account.enter(Bucket::Guest);
                account.compute_inline(|| ());
                account.enter(Bucket::Guest);
                account.enter(Bucket::Wait);
                account.release();
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(stages, decode, other_stages);
criterion_main!(stages);
