//! Requests over gRPC.

use std::collections::BTreeMap;

use bytes::Bytes;
use modelet_host::grpc::proto::infer_parameter::ParameterChoice;
use modelet_host::grpc::proto::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use modelet_host::grpc::proto::{InferParameter, InferTensorContents, ModelInferRequest};
use prost::Message as _;

use super::Seed;

pub(super) fn seeds() -> Vec<Seed> {
    let messages = [
        ("ok-raw", raw()),
        ("ok-typed", typed()),
        ("ok-bytes", bytes()),
        ("ok-parameters", parameters()),
        (
            "no-both",
            ModelInferRequest { raw_input_contents: vec![Bytes::from_static(&[1, 2])], ..typed() },
        ),
        ("no-count", ModelInferRequest { raw_input_contents: vec![], ..raw() }),
        ("ok-empty", ModelInferRequest::default()),
    ];
    let mut seeds: Vec<Seed> = messages
        .into_iter()
        .map(|(name, message)| ("grpc_request", name.to_owned(), message.encode_to_vec()))
        .collect();
    // A group, which no message of this protocol has.
    seeds.push(("grpc_request", "no-group".to_owned(), vec![0x0b, 0x0c]));
    seeds
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

fn raw() -> ModelInferRequest {
    ModelInferRequest {
        model_name: "m".into(),
        model_version: "1".into(),
        id: "7".into(),
        inputs: vec![input("x", "FP32", &[2, 2]), input("h", "FP16", &[2, 1])],
        raw_input_contents: vec![Bytes::from_static(&[0; 16]), Bytes::from_static(&[0, 60, 0, 62])],
        ..ModelInferRequest::default()
    }
}

fn typed() -> ModelInferRequest {
    let contents =
        Some(InferTensorContents { int_contents: vec![-1, 7], ..InferTensorContents::default() });
    ModelInferRequest {
        inputs: vec![InferInputTensor { contents, ..input("x", "INT8", &[2]) }],
        ..ModelInferRequest::default()
    }
}

fn bytes() -> ModelInferRequest {
    let contents = Some(InferTensorContents {
        bytes_contents: vec![Bytes::from_static(b"one"), Bytes::new()],
        ..InferTensorContents::default()
    });
    ModelInferRequest {
        inputs: vec![InferInputTensor { contents, ..input("text", "BYTES", &[2, 1]) }],
        ..ModelInferRequest::default()
    }
}

fn parameters() -> ModelInferRequest {
    let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
    let classes = parameter(ParameterChoice::Int64Param(3));
    let names = [
        ("binary_data_output", ParameterChoice::BoolParam(false)),
        ("triton_enable_empty_final_response", ParameterChoice::BoolParam(true)),
        ("priority", ParameterChoice::Uint64Param(3)),
        ("temperature", ParameterChoice::DoubleParam(0.5)),
        ("stop", ParameterChoice::StringParam("\n".into())),
    ];
    ModelInferRequest {
        parameters: names
            .into_iter()
            .map(|(name, value)| (name.into(), parameter(value)))
            .collect(),
        outputs: vec![InferRequestedOutputTensor {
            name: "y".into(),
            parameters: BTreeMap::from([("classification".into(), classes)]),
        }],
        ..typed()
    }
}
