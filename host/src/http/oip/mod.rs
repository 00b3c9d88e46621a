//! The Open Inference Protocol v2 over REST, with Triton's binary tensor data and classification
//! extensions: bytes and headers in, typed values out, and back. Its gRPC form is in [`grpc`].
//!
//! Pure functions: no socket, no clock, no registry. The pipeline reads the body into one buffer
//! whose first tensor byte is aligned ([`JsonPart::tensor_offset`] says which), and writes the parts
//! of an [`Encoded`] answer; everything between is here. Binary tensors are ranges of the request's
//! buffer on the way in and parts of their own on the way out, so neither direction copies them.

mod classification;
mod document;
mod error;
mod framing;
pub mod grpc;
mod inputs;
mod json_read;
mod json_write;
mod limits;
mod metadata;
mod parameters;
mod raw_request;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub use error::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind};
pub use framing::{JSON_LENGTH_HEADER, JsonPart, json_length};
pub use json_write::json_elements;
pub use limits::{
    Budget, DEFAULT_MAX_INPUTS, DEFAULT_MAX_JSON_DEPTH, DEFAULT_MAX_OUTPUTS,
    DEFAULT_MAX_PARAMETERS, DEFAULT_MAX_TENSOR_ELEMENTS, DecodeLimits, Unlimited,
};
pub use metadata::{
    ErrorBody, Live, ModelList, ModelMetadata, ModelReady, Ready, ServerMetadata, TensorMetadata,
};
pub use parameters::{ParameterValue, Parameters};
pub use request::{
    InferRequest, RequestedOutput, RequestedOutputs, decode_infer, decode_infer_within,
};
pub use response::{Answer, Encoded, encode_infer, encode_infer_within};
