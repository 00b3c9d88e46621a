//! ONNX graphs: what is read is what a second reading reads, and external data comes from given assets
//! or not at all.

use std::cell::RefCell;
use std::collections::BTreeSet;

use bytes::Bytes;
use modelet_host::names::AssetName;
use modelet_host::nn::onnx::{Onnx, OnnxError};
use modelet_host::tensor::MAX_RANK;
use prost::Message as _;

use crate::{Outcome, hash};

/// Bytes of every asset there is: what the seeds' weights need and not much more.
const ASSET_BYTES: usize = 64;

/// A model file.
///
/// # Panics
/// When a property of the reader does not hold.
pub fn onnx(data: &[u8]) -> Outcome {
    let bytes = Bytes::copy_from_slice(data);
    let parsed = match Onnx::parse(bytes.clone()) {
        Ok(parsed) => parsed,
        Err(error) => {
            check_error(&error);
            return Outcome::Refused;
        }
    };
    check_again(&parsed);
    if let Ok(signature) = parsed.signature() {
        for spec in signature.inputs.iter().chain(&signature.outputs) {
            assert!(!spec.name.is_empty() && spec.shape.len() <= MAX_RANK, "{spec:?}");
            assert!(spec.shape.iter().all(|axis| *axis >= -1), "{spec:?}");
        }
    }
    check_external(&parsed, &bytes)
}

/// What is encoded again reads as the same model.
fn check_again(parsed: &Onnx) {
    // Compared as bytes: a model may hold NaN, which equals nothing.
    let encoded = parsed.model().encode_to_vec();
    let again = Onnx::parse(encoded.clone().into());
    let again = again.unwrap_or_else(|error| panic!("{error} in what was read before"));
    assert_eq!(again.model().encode_to_vec(), encoded);
    assert_eq!(again.signature(), parsed.signature());
    assert_eq!(again.operators(), parsed.operators());
    assert_eq!(again.external_files(), parsed.external_files());
}

/// The model with its weights inside comes from the assets it named, and names none any more.
fn check_external(parsed: &Onnx, bytes: &Bytes) -> Outcome {
    let files = match parsed.external_files() {
        Ok(files) => files,
        Err(error) => {
            check_error(&error);
            let resolved = parsed.clone().resolve_external(&|name| Some(asset(name)));
            assert!(resolved.is_err(), "a location that is no asset was resolved");
            return Outcome::Refused;
        }
    };
    let without = parsed.clone().resolve_external(&|_| None);
    assert_eq!(without.is_ok(), files.is_empty(), "{files:?} are not there");
    let asked = RefCell::new(BTreeSet::new());
    let resolved = parsed.clone().resolve_external(&|name| {
        asked.borrow_mut().insert(name.clone());
        Some(asset(name))
    });
    let asked = asked.into_inner();
    assert!(asked.is_subset(&files), "asked for {asked:?}, named {files:?}");
    let resolved = match resolved {
        Ok(resolved) => resolved,
        Err(error) => {
            check_error(&error);
            return Outcome::Refused;
        }
    };
    if files.is_empty() {
        assert_eq!(resolved.as_ptr(), bytes.as_ptr(), "a model without external data was copied");
        return Outcome::Accepted;
    }
    assert_eq!(asked, files);
    let inside = Onnx::parse(resolved);
    let inside = inside.unwrap_or_else(|error| panic!("{error} in a model made whole"));
    assert_eq!(inside.external_files(), Ok(BTreeSet::new()));
    assert_eq!(inside.operators(), parsed.operators());
    assert_eq!(inside.signature(), parsed.signature());
    Outcome::Accepted
}

/// The bytes of an asset follow from its name.
fn asset(name: &AssetName) -> Bytes {
    hash(name.as_str().as_bytes()).to_le_bytes().repeat(ASSET_BYTES / 8).into()
}

fn check_error(error: &OnnxError) {
    let said = error.to_string();
    assert!(!said.is_empty(), "{error:?}");
}
