//! Requests without JSON: the body is the one input, and its shape follows from its length.

use bytes::Bytes;
use modelet_host::http::oip::{
    DecodeErrorKind, DecodeLimits, InferRequest, JsonPart, RequestedOutputs, decode_infer,
};
use modelet_host::tensor::Datatype;
use modelet_host::version::{Signature, TensorSpec};

use crate::oip::{check_limits, tight};
use crate::{Outcome, tensor};

/// As a tensor's first bytes, of which an axis over 127 is an open one; then the body. An odd datatype
/// byte makes axis 0 a batch.
///
/// # Panics
/// When a property of the decoder does not hold.
pub fn oip_raw(data: &[u8]) -> Outcome {
    let Some((datatype, shape, body)) = tensor::declared(data) else { return Outcome::Refused };
    let axis = |length: &usize| if *length > 127 { -1 } else { *length as i64 };
    let shape = shape.iter().map(axis).collect();
    let spec = TensorSpec { name: "x".to_owned(), datatype, shape };
    let batch = data.first().is_some_and(|byte| byte % 2 == 1);
    let signature = Signature { inputs: vec![spec], batch, ..Signature::default() };
    let body = Bytes::copy_from_slice(body);
    let decode =
        |limits: &DecodeLimits| decode_infer(body.clone(), JsonPart::Absent, &signature, limits);
    let within = decode(&tight());
    match decode(&DecodeLimits::default()) {
        Ok(request) => {
            check(&request, &signature, &body);
            match within {
                Ok(within) => {
                    check_limits(&within, &tight());
                    assert_eq!(within, request);
                }
                Err(error) => assert_eq!(error.kind(), DecodeErrorKind::TooLarge, "{error}"),
            }
            Outcome::Accepted
        }
        Err(error) => {
            assert!(error.to_string().len() < 2_000, "{error}");
            assert!(within.is_err(), "only a tighter limit took it");
            Outcome::Refused
        }
    }
}

fn check(request: &InferRequest, signature: &Signature, body: &Bytes) {
    check_limits(request, &DecodeLimits::default());
    assert_eq!(request.outputs, RequestedOutputs::all_binary());
    let ([(name, tensor)], [spec]) = (&*request.inputs, &*signature.inputs) else {
        panic!("{} inputs", request.inputs.len());
    };
    assert_eq!((name, tensor.datatype()), (&spec.name, spec.datatype));
    assert!(spec.accepts_shape(tensor.shape()), "{tensor:?} for {}", spec.describe());
    if signature.batch && spec.shape.first() == Some(&-1) {
        assert_eq!(tensor.shape().first(), Some(&1), "{tensor:?}");
    }
    if tensor.datatype() == Datatype::Bytes {
        assert_eq!(tensor.bytes_elements().collect::<Vec<_>>(), [&**body]);
    } else {
        assert_eq!(tensor.data().as_ptr(), body.as_ptr(), "the body was copied");
        assert_eq!(tensor.data(), body);
    }
}
