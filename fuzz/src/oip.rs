//! Inference requests, JSON and binary: they fit the signature and the limits, and come back as they
//! are when they are written as an answer.

use std::collections::BTreeSet;

use bytes::Bytes;
use modelet_host::http::oip::{
    Answer, DecodeErrorKind, DecodeLimits, InferRequest, JsonPart, RequestedOutput,
    RequestedOutputs, decode_infer, encode_infer, json_length,
};
use modelet_host::tensor::{Datatype, NamedTensor};
use modelet_host::version::{Signature, TensorSpec};
use serde_json::Value;

use crate::{Outcome, first_line, tensor};

/// The first line is the header with the JSON part's length: nothing where there is none, `=` for
/// "wherever the JSON ends", which stays right when a mutation moves it. The rest is the body.
///
/// # Panics
/// When a property of the decoder does not hold.
pub fn oip_request(data: &[u8]) -> Outcome {
    let (header, body) = first_line(data);
    let body = Bytes::copy_from_slice(body);
    let (asked, json_end) = asked_for(&body);
    let Some(json) = json_part(header, &body, json_end) else { return Outcome::Refused };
    // A model that takes something else, then one that takes just this.
    decode_both(&body, json, &fixed());
    decode_both(&body, json, &asked)
}

/// Limits that even a small request can exceed.
pub(crate) fn tight() -> DecodeLimits {
    DecodeLimits {
        json_depth: 6,
        tensor_elements: 16,
        rank: 4,
        inputs: 2,
        outputs: 2,
        parameters: 2,
    }
}

/// What a decoded request has whatever it was decoded from.
pub(crate) fn check_limits(request: &InferRequest, limits: &DecodeLimits) {
    assert!(request.inputs.len() <= limits.inputs, "{} inputs", request.inputs.len());
    assert!(request.parameters.len() <= limits.parameters, "{:?}", request.parameters);
    let outputs = request.outputs.listed.iter().flatten().count();
    assert!(outputs <= limits.outputs, "{outputs} outputs");
    for (name, given) in &request.inputs {
        tensor::check(given);
        assert!(given.element_count() <= limits.tensor_elements, "{name:?} {given:?}");
        let longest = given.shape().iter().max().copied().unwrap_or_default();
        assert!(longest <= limits.tensor_elements, "{name:?} {given:?}");
    }
}

/// Writes tensors as an answer, in every form there is, and reads them back as a request.
pub(crate) fn check_answers(tensors: &[NamedTensor]) {
    let signature = signature_of(tensors);
    for binary in [true, false] {
        let requested = RequestedOutputs { listed: None, binary_by_default: binary };
        let Some(answer) = answer(tensors, &requested, &signature) else {
            let binary_only = tensors.iter().any(|(_, tensor)| !has_json(tensor));
            assert!(!binary && binary_only, "{tensors:?} cannot be written, binary {binary}");
            continue;
        };
        let (body, json) = answer;
        let read = decode_infer(body, json, &signature, &DecodeLimits::default());
        let read = read.unwrap_or_else(|error| panic!("{error} in an answer of {tensors:?}"));
        assert_eq!(read.inputs, tensors, "binary {binary}");
    }
    check_classes(tensors, &signature);
}

fn json_part(header: &[u8], body: &Bytes, json_end: usize) -> Option<JsonPart> {
    let length = Some(body.len() as u64);
    match header {
        b"" => Some(JsonPart::Whole),
        b"=" if json_end > 0 => Some(JsonPart::Prefix(json_end)),
        other => match json_length(Some(&String::from_utf8_lossy(other)), length) {
            // A raw request is another target's.
            Ok(JsonPart::Absent) => None,
            Ok(part) => {
                assert!(part.tensor_offset() <= body.len(), "{part:?}");
                Some(part)
            }
            Err(error) => {
                assert_eq!(error.kind(), DecodeErrorKind::BadRequest);
                None
            }
        },
    }
}

fn decode_both(body: &Bytes, json: JsonPart, signature: &Signature) -> Outcome {
    let decode = |limits: &DecodeLimits| decode_infer(body.clone(), json, signature, limits);
    let within = decode(&tight());
    let request = match decode(&DecodeLimits::default()) {
        Ok(request) => request,
        Err(error) => {
            assert!(error.to_string().len() < 4_000, "{error}");
            assert!(within.is_err(), "only a tighter limit took it: {error}");
            return Outcome::Refused;
        }
    };
    check(&request, signature, body);
    if let Ok(within) = within {
        check_limits(&within, &tight());
        assert_eq!(within, request);
    }
    check_answers(&request.inputs);
    Outcome::Accepted
}

fn check(request: &InferRequest, signature: &Signature, body: &Bytes) {
    check_limits(request, &DecodeLimits::default());
    let names: BTreeSet<_> = request.inputs.iter().map(|(name, _)| name).collect();
    let wanted: BTreeSet<_> = signature.inputs.iter().map(|spec| &spec.name).collect();
    assert_eq!((names.len(), &names), (request.inputs.len(), &wanted));
    for (name, given) in &request.inputs {
        let spec = signature.inputs.iter().find(|spec| spec.name == *name);
        let fits = spec.is_some_and(|spec| {
            spec.datatype == given.datatype() && spec.accepts_shape(given.shape())
        });
        assert!(fits, "{name:?} {given:?} for {spec:?}");
        // Eight bytes for two of text, and a length before each string.
        assert!(given.data().len() <= 4 * body.len() + 8, "{given:?} from {} bytes", body.len());
    }
    for output in request.outputs.listed.iter().flatten() {
        assert!(signature.outputs.iter().any(|spec| spec.name == output.name), "{output:?}");
        assert_ne!(output.classification, Some(0));
    }
}

/// An answer's body, with its outputs called inputs.
fn answer(
    tensors: &[NamedTensor],
    requested: &RequestedOutputs,
    signature: &Signature,
) -> Option<(Bytes, JsonPart)> {
    let answer = Answer { model: "m", version: "1", id: Some("7"), outputs: tensors };
    let encoded = encode_infer(&answer, requested, signature).ok()?;
    assert_eq!(encoded.body_length(), encoded.parts.concat().len());
    let (json, binary) = encoded.parts.split_first()?;
    assert_eq!(encoded.header_length, (!binary.is_empty()).then_some(json.len()));
    // Inside a string the quotes would stand behind backslashes.
    let json = std::str::from_utf8(json).ok()?.replacen("\"outputs\":", "\"inputs\":", 1);
    let body = [json.as_bytes(), &binary.concat()].concat();
    Some((body.into(), JsonPart::Prefix(json.len())))
}

/// Classes are as many as asked for or as there are elements, and always text.
fn check_classes(tensors: &[NamedTensor], signature: &Signature) {
    for ((name, given), batch) in tensors.iter().flat_map(|named| [(named, false), (named, true)]) {
        let output = RequestedOutput { name: name.clone(), binary: None, classification: Some(3) };
        let requested = RequestedOutputs { listed: Some(vec![output]), binary_by_default: false };
        let signature = Signature { batch, ..signature.clone() };
        let Some((body, json)) = answer(tensors, &requested, &signature) else {
            let datatype = given.datatype();
            let classless = [Datatype::Bool, Datatype::Fp16, Datatype::Bf16, Datatype::Bytes];
            assert!(classless.contains(&datatype), "{given:?} has no classes");
            continue;
        };
        let rows = given.shape().first().copied().filter(|_| batch);
        let each = given.element_count().checked_div(rows.unwrap_or(1)).unwrap_or(0).min(3);
        let shape = rows.into_iter().chain([each]).map(|axis| axis as i64).collect();
        let spec = TensorSpec { name: name.clone(), datatype: Datatype::Bytes, shape };
        let signature = Signature { inputs: vec![spec], ..Signature::default() };
        let limits = DecodeLimits { tensor_elements: usize::MAX, ..DecodeLimits::default() };
        let classes = decode_infer(body, json, &signature, &limits);
        assert!(classes.is_ok(), "{given:?}, batch {batch}: {:?}", classes.err());
    }
}

/// Whether JSON can express the tensor: it knows no half floats, no NaN and no text but UTF-8.
fn has_json(tensor: &modelet_host::tensor::Tensor) -> bool {
    let data = tensor.data();
    match tensor.datatype() {
        Datatype::Fp16 | Datatype::Bf16 => false,
        Datatype::Fp32 => data.as_chunks().0.iter().all(|b| f32::from_le_bytes(*b).is_finite()),
        Datatype::Fp64 => data.as_chunks().0.iter().all(|b| f64::from_le_bytes(*b).is_finite()),
        Datatype::Bytes => tensor.bytes_elements().all(|text| std::str::from_utf8(text).is_ok()),
        _ => true,
    }
}

/// A signature that takes exactly these tensors, and gives them back.
fn signature_of(tensors: &[NamedTensor]) -> Signature {
    let spec = |(name, tensor): &NamedTensor| TensorSpec {
        name: name.clone(),
        datatype: tensor.datatype(),
        shape: tensor.shape().iter().map(|axis| *axis as i64).collect(),
    };
    let specs: Vec<_> = tensors.iter().map(spec).collect();
    Signature { inputs: specs.clone(), outputs: specs, ..Signature::default() }
}

/// What the seeds' own model takes.
fn fixed() -> Signature {
    let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
        name: name.to_owned(),
        datatype,
        shape: shape.to_vec(),
    };
    Signature {
        inputs: vec![spec("a", Datatype::Fp32, &[-1, 2]), spec("b", Datatype::Bytes, &[-1])],
        outputs: vec![spec("y", Datatype::Fp32, &[-1])],
        batch: true,
        task: None,
    }
}

/// The signature of a model that takes what the body's JSON gives, and where that JSON ends.
fn asked_for(body: &[u8]) -> (Signature, usize) {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    let Some(Ok(value)) = values.next() else { return (Signature::default(), 0) };
    let entries = |key| value.get(key).and_then(Value::as_array).into_iter().flatten();
    let mut inputs: Vec<TensorSpec> = Vec::new();
    for spec in entries("inputs").filter_map(spec_of) {
        if inputs.iter().all(|earlier| earlier.name != spec.name) {
            inputs.push(spec);
        }
    }
    let names = entries("outputs").filter_map(|output| output.get("name")?.as_str());
    let output = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: Datatype::Fp32,
        shape: vec![-1],
    };
    let outputs = names.map(output).collect();
    // The protocol has no such field; here it lets a seed ask for the other kind of model.
    let batch = value.get("batch") == Some(&Value::Bool(true));
    (Signature { inputs, outputs, batch, task: None }, values.byte_offset())
}

fn spec_of(input: &Value) -> Option<TensorSpec> {
    let text = |key| input.get(key).and_then(Value::as_str);
    let axes = input.get("shape")?.as_array()?;
    // Every other axis is open, so that both kinds are met.
    let open = |(at, axis): (usize, &Value)| {
        let length = axis.as_i64().unwrap_or(-1);
        if at % 2 == 1 { -1 } else { length }
    };
    Some(TensorSpec {
        name: text("name")?.to_owned(),
        datatype: text("datatype")?.parse().ok()?,
        shape: axes.iter().enumerate().map(open).collect(),
    })
}
