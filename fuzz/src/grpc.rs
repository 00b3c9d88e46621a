//! Inference requests over gRPC: they fit the signature and the limits, take no more memory than was
//! asked for, and come back as they are when they are written as an answer.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use modelet_host::grpc::proto::model_infer_request::InferInputTensor;
use modelet_host::grpc::proto::{ModelInferRequest, ModelInferResponse};
use modelet_host::http::oip::grpc::{decode, encode, read_message};
use modelet_host::http::oip::{
    Answer, DecodeError, DecodeErrorKind, DecodeLimits, InferRequest, RequestedOutputs, Unlimited,
};
use modelet_host::tensor::{Datatype, NamedTensor};
use modelet_host::version::{Signature, TensorSpec};
use prost::Message as _;

use crate::Outcome;
use crate::oip::{check_limits, tight};

/// The bytes are a message.
///
/// # Panics
/// When a property of the decoder does not hold.
pub fn grpc_request(data: &[u8]) -> Outcome {
    let bytes = Bytes::copy_from_slice(data);
    let limits = DecodeLimits::default();
    let mut taken = 0;
    let mut take = |bytes: usize| {
        taken += bytes;
        true
    };
    let message = match read_message(bytes.clone(), &limits, &mut take) {
        Ok(message) => message,
        Err(error) => {
            assert!(error.to_string().len() < 4_000, "{error}");
            assert!(read_message(bytes, &tight(), &mut Unlimited).is_err(), "{error}");
            return Outcome::Refused;
        }
    };
    let held = held(&message);
    assert!(held <= taken, "{held} bytes for the {taken} that were asked for");
    let signature = asked_for(&message);
    match decode(message.clone(), &signature, &limits, &mut Unlimited) {
        Ok(request) => {
            check(&request, &signature);
            check_tight(&bytes, &request, &signature);
            check_answers(&request.inputs);
            Outcome::Accepted
        }
        Err(error) => {
            assert!(error.to_string().len() < 4_000, "{error}");
            assert_ne!(error.kind(), DecodeErrorKind::NoRoom);
            Outcome::Refused
        }
    }
}

/// Bytes that the vectors of a decoded message hold at least.
fn held(message: &ModelInferRequest) -> usize {
    let contents = message.inputs.iter().filter_map(|input| input.contents.as_ref());
    let contents = contents.map(|contents| {
        contents.bool_contents.capacity()
            + 4 * (contents.int_contents.capacity() + contents.uint_contents.capacity())
            + 8 * (contents.int64_contents.capacity() + contents.uint64_contents.capacity())
            + 4 * contents.fp32_contents.len()
            + 8 * contents.fp64_contents.len()
            + size_of::<Bytes>() * contents.bytes_contents.len()
    });
    let inputs = message.inputs.len() * size_of::<InferInputTensor>();
    let raw = message.raw_input_contents.len() * size_of::<Bytes>();
    // The least capacity of a vector is four elements, whatever was asked for.
    (inputs + raw + contents.sum::<usize>()).saturating_sub(128 * message.inputs.len())
}

fn check(request: &InferRequest, signature: &Signature) {
    check_limits(request, &DecodeLimits::default());
    let names: BTreeSet<_> = request.inputs.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), request.inputs.len());
    for (name, given) in &request.inputs {
        let spec = signature.inputs.iter().find(|spec| spec.name == *name);
        let fits = spec.is_some_and(|spec| {
            spec.datatype == given.datatype() && spec.accepts_shape(given.shape())
        });
        assert!(fits, "{name:?} {given:?} for {spec:?}");
    }
    assert!(request.parameters.keys().all(|name| !name.starts_with("triton_")));
}

fn check_tight(bytes: &Bytes, request: &InferRequest, signature: &Signature) {
    let within = |limits: &DecodeLimits| -> Result<InferRequest, DecodeError> {
        let message = read_message(bytes.clone(), limits, &mut Unlimited)?;
        decode(message, signature, limits, &mut Unlimited)
    };
    if let Ok(within) = within(&tight()) {
        check_limits(&within, &tight());
        assert_eq!(within, *request);
    }
}

/// Writes tensors as an answer, raw and typed, and reads them back as a request.
fn check_answers(tensors: &[NamedTensor]) {
    let specs: Vec<_> = tensors.iter().map(spec_of).collect();
    let signature = Signature { inputs: specs.clone(), outputs: specs, ..Signature::default() };
    for raw in [true, false] {
        let answer = Answer { model: "m", version: "1", id: None, outputs: tensors };
        let requested = RequestedOutputs { listed: None, binary_by_default: raw };
        let parts = encode(&answer, &requested, &signature, BTreeMap::new(), &mut Unlimited);
        let Ok(parts) = parts else {
            let typeless = [Datatype::Fp16, Datatype::Bf16];
            let only_raw = tensors.iter().any(|(_, tensor)| typeless.contains(&tensor.datatype()));
            assert!(!raw && only_raw, "{tensors:?} cannot be written, raw {raw}");
            continue;
        };
        let answer = ModelInferResponse::decode(&*parts.concat());
        let request = answer.map(asked).unwrap_or_else(|error| panic!("{error}"));
        let limits = DecodeLimits::default();
        let read = decode(request, &signature, &limits, &mut Unlimited);
        let read = read.unwrap_or_else(|error| panic!("{error} in an answer of {tensors:?}"));
        assert_eq!(read.inputs, tensors, "raw {raw}");
    }
}

/// An answer's outputs as a request's inputs.
fn asked(answer: ModelInferResponse) -> ModelInferRequest {
    let inputs = answer.outputs.into_iter().map(|output| InferInputTensor {
        name: output.name,
        datatype: output.datatype,
        shape: output.shape,
        parameters: output.parameters,
        contents: output.contents,
    });
    ModelInferRequest {
        inputs: inputs.collect(),
        raw_input_contents: answer.raw_output_contents,
        ..ModelInferRequest::default()
    }
}

fn spec_of((name, tensor): &NamedTensor) -> TensorSpec {
    TensorSpec {
        name: name.clone(),
        datatype: tensor.datatype(),
        shape: tensor.shape().iter().map(|axis| *axis as i64).collect(),
    }
}

/// The signature of a model that takes what the message gives.
fn asked_for(message: &ModelInferRequest) -> Signature {
    let mut inputs: Vec<TensorSpec> = Vec::new();
    for input in &message.inputs {
        let Ok(datatype) = input.datatype.parse() else { continue };
        if inputs.iter().all(|earlier| earlier.name != input.name) {
            let (name, shape) = (input.name.clone(), input.shape.clone());
            inputs.push(TensorSpec { name, datatype, shape });
        }
    }
    let output = |name: &String| TensorSpec {
        name: name.clone(),
        datatype: Datatype::Fp32,
        shape: vec![-1],
    };
    let outputs = message.outputs.iter().map(|asked| output(&asked.name)).collect();
    // Messages of an odd id are for the other kind of model.
    let batch = message.id.len() % 2 == 1;
    Signature { inputs, outputs, batch, task: None }
}
