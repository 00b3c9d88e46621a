//! Names and routes: what is taken as a name is one that can stand in a path, a file and a record, and
//! every path has an answer.

use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::sync::LazyLock;

use http::Method;
use modelet_host::digest::Digest;
use modelet_host::error::Kind;
use modelet_host::http::openai::OpenAi;
use modelet_host::http::route::{Document, Route, route};
use modelet_host::names::{AliasName, AssetName, ModelName, Target, VersionName};
use modelet_host::registry::{JournalContents, Snapshot};
use modelet_host::tensor::Datatype;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};

use crate::{Outcome, first_line};

/// The first line is a method; the rest is a path, and each of its segments a name.
///
/// # Panics
/// When a property of a parser does not hold.
pub fn names(data: &[u8]) -> Outcome {
    let (method, path) = first_line(data);
    let Ok(path) = std::str::from_utf8(path) else { return Outcome::Refused };
    for segment in path.split('/') {
        if let Ok(name) = percent_decode_str(segment).decode_utf8() {
            check_names(&name);
        }
    }
    // An asset's name has slashes of its own.
    check_names(path);
    let Ok(method) = Method::from_bytes(method) else { return Outcome::Refused };
    check_route(&method, path)
}

/// Whether a relative path stays where it is.
pub(crate) fn is_plain_path(path: &str) -> bool {
    let is_plain = |segment: &str| !matches!(segment, "" | "." | "..");
    path.split('/').all(is_plain) && !path.contains(['\0', '\\'])
}

fn check_route(method: &Method, path: &str) -> Outcome {
    let routed = route(method, path, &SNAPSHOT, 0);
    let routed = match routed {
        Ok(routed) => routed,
        Err(error) => {
            let known =
                matches!(error.kind(), Kind::NotFound | Kind::MethodNotAllowed | Kind::BadRequest);
            assert!(known, "{:?}", error.kind());
            assert_eq!(error.allowed().is_some(), error.kind() == Kind::MethodNotAllowed);
            assert!(error.text().len() < 4_000, "{} bytes of error", error.text().len());
            return Outcome::Refused;
        }
    };
    assert!(routed.label().bytes().all(|byte| byte.is_ascii_lowercase()));
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match &routed {
        Route::Infer(_) | Route::Generate(..) | Route::OpenAi(OpenAi::Call(_)) => {
            assert_eq!(*method, Method::POST);
        }
        Route::Management => {}
        _ => assert!(reads, "{method} {path:?} reads"),
    }
    if let Route::Infer(called)
    | Route::Generate(called, _)
    | Route::Document(Document::Model(called) | Document::ModelReady(called)) = &routed
    {
        assert_eq!(called.model.name, called.version.model);
        let rest = path.trim_start_matches('/').strip_prefix("v2/models/").unwrap_or_default();
        let given = rest.split('/').next().unwrap_or_default();
        let given = percent_decode_str(given).decode_utf8_lossy();
        assert_eq!(given, called.model.name.as_str(), "{path:?}");
    }
    Outcome::Accepted
}

fn check_names(given: &str) {
    check_name::<ModelName>(given, |name| name.len() <= 63 && name != "stats");
    check_name::<VersionName>(given, |name| name.len() <= 64);
    check_name::<AliasName>(given, |name| name.len() <= 64);
    check_name::<Digest>(given, |name| name.len() == 71);
    check_name::<Datatype>(given, |name| name.len() <= 6);
    if let Ok(asset) = given.parse::<AssetName>() {
        assert!(is_plain_path(asset.as_str()) && given.len() <= 255, "{given:?}");
        assert_eq!(asset.as_str(), given);
    }
    if let Ok((model, target)) = Target::split(given) {
        let again = match &target {
            Target::Live => model.to_string(),
            Target::Named(name) => format!("{model}@{name}"),
        };
        assert_eq!(again, given);
    }
}

/// A name is spelled as it was given, is what `rule` says, and needs no escape in a path.
fn check_name<T>(given: &str, rule: impl FnOnce(&str) -> bool)
where
    T: FromStr + Display,
    T::Err: Debug + Display,
{
    match given.parse::<T>() {
        Ok(name) => {
            assert_eq!(name.to_string(), given);
            assert!(rule(given) && is_plain_path(given), "{given:?}");
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+:".contains(&byte);
            assert!(given.bytes().all(plain), "{given:?}");
            let escaped = utf8_percent_encode(given, NON_ALPHANUMERIC).to_string();
            assert_eq!(percent_decode_str(&escaped).decode_utf8_lossy(), given);
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && said.len() < 2_000, "{} bytes of error", said.len());
        }
    }
}

/// A registry with the model `m`, its version 1 and its alias `live`.
static SNAPSHOT: LazyLock<Snapshot> =
    LazyLock::new(|| snapshot(&json!({"inputs": [], "outputs": []})));

/// A registry with the model `m`, whose only version `1` has this signature.
pub(crate) fn snapshot(signature: &Value) -> Snapshot {
    let digest = Digest::of(b"");
    let blob = json!({"digest": digest, "bytes": 0});
    let record = json!({"component": blob, "assets": {}, "signature": signature});
    let publish =
        json!({"op": "publish", "model": "m", "version": "1", "owner": "o", "record": record});
    let line = json!({
        "epoch": 1, "time_ms": 1, "actor": "a", "prev": null,
        "model_id": "0000000005041061050R3GG28A", "digest": digest, "change": publish,
    });
    let frame = JournalContents::frame(format!("{line}\n").as_bytes());
    let contents = JournalContents::read(&frame.expect("a line is no long frame"));
    assert_eq!(contents.snapshot.len(), 1, "{:?}", contents.tail);
    contents.snapshot
}
