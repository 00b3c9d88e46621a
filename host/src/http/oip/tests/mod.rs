//! The codecs from outside: whole bodies in, requests out, and answers back.

mod budget;
mod grpc;
mod refusals;
mod round_trips;

use bytes::Bytes;

use super::{DecodeError, DecodeLimits, InferRequest, JsonPart, decode_infer};
use crate::tensor::{Datatype, NamedTensor};
use crate::version::{Signature, TensorSpec};

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
}

/// A signature that takes exactly these tensors, and gives them back.
fn signature_of(tensors: &[NamedTensor]) -> Signature {
    let specs: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| {
            let shape: Vec<i64> = tensor.shape().iter().map(|axis| *axis as i64).collect();
            spec(name, tensor.datatype(), &shape)
        })
        .collect();
    Signature { inputs: specs.clone(), outputs: specs, ..Signature::default() }
}

fn decode(
    body: impl Into<Bytes>,
    json: JsonPart,
    signature: &Signature,
) -> Result<InferRequest, DecodeError> {
    decode_infer(body.into(), json, signature, &DecodeLimits::default())
}
