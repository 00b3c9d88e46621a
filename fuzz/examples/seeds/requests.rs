//! Inference requests: JSON, binary and neither; tensors of every datatype; names, paths and bodies.

use modelet_host::tensor::Datatype;

use super::Seed;

pub(super) fn seeds() -> Vec<Seed> {
    [requests(), typed_requests(), raw_requests(), tensors(), paths(), texts()].concat()
}

fn text(target: &'static str, seeds: &[(&str, &str)]) -> Vec<Seed> {
    let seed = |(name, text): &(&str, &str)| (target, (*name).to_owned(), text.as_bytes().to_vec());
    seeds.iter().map(seed).collect()
}

/// Requests whose first line is the header, and whose body is all JSON but for some bytes.
fn requests() -> Vec<Seed> {
    text("oip_request", &[
        ("ok-fixed-model", "\n{\"id\":\"1\",\"inputs\":[{\"name\":\"a\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[1,-2.5e-3]},{\"name\":\"b\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"x\\n\\u00e9\"]}],\"outputs\":[{\"name\":\"y\",\"parameters\":{\"binary_data\":true,\"classification\":2}}]}"),
        ("ok-nested", "\n{\"inputs\":[{\"name\":\"x\",\"datatype\":\"INT32\",\"shape\":[2,3],\"data\":[[1,2,3],[4,5,6]]}]}"),
        ("ok-scalar-and-empty", "\n{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP64\",\"shape\":[],\"data\":1},{\"name\":\"e\",\"datatype\":\"UINT8\",\"shape\":[0,7],\"data\":[]}]}"),
        ("ok-parameters", "\n{\"parameters\":{\"a\":\"x\",\"b\":-3,\"c\":18446744073709551615,\"d\":1.5,\"e\":true,\"binary_data_output\":true},\"inputs\":[]}"),
        ("ok-batch", "\n{\"batch\":true,\"inputs\":[{\"name\":\"x\",\"datatype\":\"BOOL\",\"shape\":[2,1],\"data\":[true,0]},{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[2],\"data\":[1,2]}]}"),
        ("ok-binary", "=\n{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,2],\"parameters\":{\"binary_data_size\":8}},{\"name\":\"t\",\"datatype\":\"BYTES\",\"shape\":[1],\"parameters\":{\"binary_data_size\":7}}]}\0\0\u{0}?\0\0\0@\x03\0\0\0abc"),
        ("ok-header", "13\n{\"inputs\":[]}"),
        ("no-header-past-the-end", "14\n{\"inputs\":[]}"),
        ("no-nan", "\n{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[NaN]}]}"),
        ("no-huge-shape", "\n{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[9223372036854775807,9223372036854775807],\"data\":[1]}]}"),
        ("no-empty-huge-shape", "\n{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[0,9223372036854775807,9223372036854775807],\"data\":[]}]}"),
        ("no-negative-axis", "\n{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1],\"data\":[1]}]}"),
        ("no-lone-surrogate", "\n{\"inputs\":[{\"name\":\"t\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"\\ud800\"]}]}"),
        ("no-shared-memory", "\n{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"parameters\":{\"shared_memory_region\":\"r\"}}]}"),
        ("no-json", "\n"),
    ])
    .into_iter()
    .chain([(
        "oip_request",
        "no-deep".to_owned(),
        format!("\n{{\"inputs\":{}{}}}", "[".repeat(300), "]".repeat(300)).into_bytes(),
    )])
    .collect()
}

/// A request for each datatype that JSON can carry.
fn typed_requests() -> Vec<Seed> {
    let with_json = Datatype::ALL.into_iter().filter_map(|datatype| {
        let data = match datatype {
            Datatype::Bool => "[true,false]",
            Datatype::Fp16 | Datatype::Bf16 => return None,
            Datatype::Bytes => "[\"\",\"text\"]",
            Datatype::Fp32 | Datatype::Fp64 => "[0.1,-1e-7]",
            _ => "[0,127]",
        };
        let body = format!(
            "\n{{\"inputs\":[{{\"name\":\"x\",\"datatype\":\"{datatype}\",\"shape\":[2],\"data\":{data}}}]}}"
        );
        let name = format!("ok-{}", datatype.to_string().to_lowercase());
        Some(("oip_request", name, body.into_bytes()))
    });
    with_json.collect()
}

fn index(datatype: Datatype) -> u8 {
    Datatype::ALL.iter().position(|other| *other == datatype).unwrap_or_default() as u8
}

/// Datatype, rank, axes (255 is open), body. An even datatype is no batch.
fn raw_requests() -> Vec<Seed> {
    let seed = |name: &str, datatype, axes: &[u8], body: &[u8]| {
        let head = [index(datatype), axes.len() as u8];
        ("oip_raw", name.to_owned(), [&head, axes, body].concat())
    };
    vec![
        seed("ok-open-axis", Datatype::Fp32, &[255, 3], &[0; 24]),
        seed("ok-fixed", Datatype::Int32, &[2, 3], &[7; 24]),
        seed("ok-batch", Datatype::Uint8, &[255, 255], b"pixels"),
        seed("ok-text", Datatype::Bytes, &[255], b"the text itself"),
        seed("ok-no-rows", Datatype::Fp64, &[255, 0], b""),
        seed("no-two-open-axes", Datatype::Fp32, &[255, 255], &[0; 24]),
        seed("no-half-a-row", Datatype::Fp32, &[255, 3], &[0; 25]),
        seed("no-texts", Datatype::Bytes, &[2], b"x"),
        seed("no-bool", Datatype::Bool, &[2], &[1, 2]),
    ]
}

/// Datatype, rank, axes, data.
fn tensors() -> Vec<Seed> {
    let seed = |name: String, datatype, axes: &[u8], data: &[u8]| {
        let head = [index(datatype), axes.len() as u8];
        ("tensor", name, [&head, axes, data].concat())
    };
    let mut seeds: Vec<_> = Datatype::ALL
        .into_iter()
        .map(|datatype| {
            let name = format!("ok-{}", datatype.to_string().to_lowercase());
            let data: Vec<u8> = match datatype.size() {
                Some(size) => (0..6 * size).map(|at| (at % 2) as u8).collect(),
                None => b"\x03\0\0\0abc\0\0\0\0\x02\0\0\0\xc3\xa9\0\0\0\0\0\0\0\0\x01\0\0\0\xff"
                    .to_vec(),
            };
            seed(name, datatype, &[2, 3], &data)
        })
        .collect();
    let nan = [f32::NAN, f32::INFINITY, -0.0, f32::MIN_POSITIVE].map(f32::to_le_bytes).concat();
    seeds.extend([
        seed("ok-nan".to_owned(), Datatype::Fp32, &[4], &nan),
        seed("ok-scalar".to_owned(), Datatype::Int64, &[], &[1, 2, 3, 4, 5, 6, 7, 8]),
        seed("ok-empty-and-endless".to_owned(), Datatype::Fp64, &[0, 255, 255], b""),
        seed("no-endless".to_owned(), Datatype::Fp64, &[254, 2], b""),
        seed("no-rank".to_owned(), Datatype::Uint8, &[1; 33], b"x"),
        seed("no-cut-text".to_owned(), Datatype::Bytes, &[1], b"\x04\0\0\0abc"),
        seed("no-more-text".to_owned(), Datatype::Bytes, &[1], b"\0\0\0\0\0\0\0\0"),
        seed("no-bool".to_owned(), Datatype::Bool, &[1], b"\x02"),
    ]);
    seeds
}

/// What is asked for, and a body.
fn texts() -> Vec<Seed> {
    let all = r#"{"model":"m","messages":[{"role":"developer","content":"a"},{"role":"user","content":[{"type":"text","text":"b"}]},{"role":"assistant","content":null}],"temperature":1,"top_p":0.5,"top_k":3,"frequency_penalty":-1,"presence_penalty":1,"repetition_penalty":1.5,"seed":-7,"max_tokens":9,"max_completion_tokens":5,"stop":["x","y"],"n":1,"tools":[],"response_format":{"type":"text"},"stream":true,"stream_options":{"include_usage":true},"unknown":[1]}"#;
    text(
        "texts",
        &[
            ("ok-chat", &format!("chat\n{all}")),
            ("ok-chat-whole", "chat\n{\"model\":\"m@1\",\"messages\":[{\"role\":\"user\"}]}"),
            (
                "ok-chat-completion",
                "chat completions\n{\"model\":\"m\",\"prompt\":[\"a\"],\"stop\":\"b\"}",
            ),
            (
                "ok-completion",
                "completions\n{\"model\":\"m@live\",\"prompt\":\"\\u00e9\",\"stream\":true}",
            ),
            (
                "ok-embedding",
                "embeddings\n{\"model\":\"m\",\"input\":\"a\",\"encoding_format\":\"base64\"}",
            ),
            (
                "ok-embeddings",
                "embeddings\n{\"model\":\"m\",\"input\":[\"a\",\"\"],\"dimensions\":4}",
            ),
            (
                "ok-generate",
                "generate\n{\"text_input\":\"a\",\"id\":\"7\",\"parameters\":{\"top_p\":1}}",
            ),
            ("ok-transcription", "transcriptions\n{\"model\":\"m\"}"),
            (
                "ok-subtitles",
                "transcriptions\n{\"model\":\"m\",\"response_format\":\"vtt\",\"language\":\"en\",\"temperature\":\"0.5\",\"prompt\":\"a\"}",
            ),
            (
                "no-words",
                "transcriptions\n{\"model\":\"m\",\"timestamp_granularities[]\":\"word\"}",
            ),
            ("ok-by-name", "plain\n{\"x\":[[1,2],[3,4]],\"name\":[\"a\",\"b\"]}"),
            ("ok-one-by-name", "plain\n{\"x\":[1,2],\"name\":\"a\",\"parameters\":{}}"),
            ("no-model", "chat\n{\"model\":\"n\",\"messages\":[{\"role\":\"user\"}]}"),
            (
                "no-role",
                "chat\n{\"model\":\"m\",\"messages\":[{\"role\":\"robot\",\"content\":\"a\"}]}",
            ),
            (
                "no-picture",
                "chat\n{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
            ),
            (
                "no-tools",
                "chat\n{\"model\":\"m\",\"messages\":[{\"role\":\"user\"}],\"tools\":[{}]}",
            ),
            ("no-tokens", "embeddings\n{\"model\":\"m\",\"input\":[[1,2],[3]]}"),
            ("no-range", "completions\n{\"model\":\"m\",\"prompt\":\"a\",\"temperature\":3}"),
            ("no-several", "completions\n{\"model\":\"m\",\"prompt\":\"a\",\"n\":2}"),
            ("no-shape", "plain\n{\"x\":[[1,2,3]],\"name\":\"a\"}"),
            ("no-such-input", "plain\n{\"z\":1}"),
            ("no-object", "chat\n[]"),
        ],
    )
}

fn paths() -> Vec<Seed> {
    text(
        "names",
        &[
            ("ok-infer", "POST\n/v2/models/m/infer"),
            ("ok-infer-version", "POST\n/v2/models/m/versions/1/infer"),
            ("ok-infer-alias", "POST\n/v2/models/m/versions/live/infer/"),
            ("ok-generate", "POST\n/v2/models/m/generate"),
            ("ok-generate-stream", "POST\n/v2/models/m/versions/1/generate_stream"),
            ("ok-openai-chat", "POST\n/v1/chat/completions"),
            ("ok-openai-transcriptions", "POST\n/v1/audio/transcriptions"),
            ("ok-openai-model", "GET\n/openai/v1/models/m@live"),
            ("no-openai-route", "GET\n/v1/files"),
            ("ok-escaped", "GET\n/v2/models/%6d/ready"),
            ("ok-metadata", "GET\n/v2/models/m"),
            ("ok-models", "HEAD\n/v2/models"),
            ("ok-health", "GET\n/v2/health/live"),
            ("ok-metrics", "GET\n/metrics"),
            ("ok-management", "PUT\n/api/v1/models/all-minilm-l6.v2/versions/1.0.0-rc.1+build"),
            ("no-method", "POST\n/v2"),
            ("no-model", "GET\n/v2/models/nope"),
            ("no-utf8", "GET\n/v2/models/%ff%fe/infer"),
            ("no-traversal", "GET\n/v2/models/..%2f..%2fetc%2fpasswd/versions/%2e%2e"),
            ("no-asset", "GET\nweights/part 1.bin"),
            ("no-target", "GET\nm@canary"),
            (
                "no-digest",
                "GET\nsha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            ("no-datatype", "GET\n/FP32/BYTES/BF16"),
            ("no-route", "GET\n/a/b/c/d/e/f/g/h/i/j/k/l/m/n"),
        ],
    )
}
