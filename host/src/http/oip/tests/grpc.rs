//! The protocol's gRPC form: every datatype comes back, raw and typed; what does not fit is refused by
//! name; and whatever is sent, nothing panics and nothing is allocated that was not asked for.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

use super::round_trips::{Form, any_damage, any_inputs, damage};
use super::{signature_of, spec};
use crate::grpc::proto::infer_parameter::ParameterChoice;
use crate::grpc::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::grpc::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
};
use crate::http::oip::grpc::{decode, encode, raw_offset, read_message};
use crate::http::oip::{
    Answer, DecodeError, DecodeErrorKind, DecodeLimits, InferRequest, ParameterValue,
    RequestedOutput, RequestedOutputs, Unlimited,
};
use crate::limit::Limit;
use crate::tensor::{Datatype, NamedTensor, Tensor};
use crate::version::Signature;

/// An answer's outputs, raw or typed.
fn answered(tensors: &[NamedTensor], raw: bool) -> Option<ModelInferResponse> {
    let answer = Answer { model: "m", version: "1", id: Some("7"), outputs: tensors };
    let requested = RequestedOutputs { listed: None, binary_by_default: raw };
    let signature = signature_of(tensors);
    let parts = encode(&answer, &requested, &signature, BTreeMap::new(), &mut Unlimited).ok()?;
    Some(ModelInferResponse::decode(&*parts.concat()).unwrap())
}

/// An answer's outputs as a request's inputs.
fn asked(answer: ModelInferResponse) -> ModelInferRequest {
    let input =
        |output: crate::grpc::proto::model_infer_response::InferOutputTensor| InferInputTensor {
            name: output.name,
            datatype: output.datatype,
            shape: output.shape,
            parameters: output.parameters,
            contents: output.contents,
        };
    ModelInferRequest {
        model_name: answer.model_name,
        model_version: answer.model_version,
        id: answer.id,
        inputs: answer.outputs.into_iter().map(input).collect(),
        raw_input_contents: answer.raw_output_contents,
        ..ModelInferRequest::default()
    }
}

fn read(
    bytes: impl Into<Bytes>,
    signature: &Signature,
    limits: &DecodeLimits,
) -> Result<InferRequest, DecodeError> {
    let message = read_message(bytes.into(), limits, &mut Unlimited)?;
    decode(message, signature, limits, &mut Unlimited)
}

fn refused(message: &ModelInferRequest, signature: &Signature) -> DecodeError {
    read(message.encode_to_vec(), signature, &DecodeLimits::default()).unwrap_err()
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

/// A request of one INT8 input with these typed contents.
fn typed(contents: InferTensorContents) -> ModelInferRequest {
    let contents = Some(contents);
    ModelInferRequest {
        inputs: vec![InferInputTensor { contents, ..input("x", "INT8", &[2]) }],
        ..ModelInferRequest::default()
    }
}

fn one(datatype: Datatype, shape: &[i64]) -> Signature {
    let specs = vec![spec("x", datatype, shape)];
    Signature { inputs: specs.clone(), outputs: specs, ..Signature::default() }
}

proptest! {
    #[test]
    fn raw_contents_are_the_tensors_and_are_not_copied(inputs in any_inputs()) {
        let tensors: Vec<NamedTensor> = inputs.into_iter().map(|(named, _)| named).collect();
        let request = asked(answered(&tensors, true).unwrap());
        let bytes = Bytes::from(request.encode_to_vec());
        let decoded = read(bytes.clone(), &signature_of(&tensors), &DecodeLimits::default());
        let decoded = decoded.unwrap();
        for (_, tensor) in decoded.inputs.iter().filter(|(_, tensor)| !tensor.data().is_empty()) {
            prop_assert!(bytes.as_ptr_range().contains(&tensor.data().as_ptr()));
        }
        prop_assert_eq!(decoded.inputs, tensors);
        prop_assert_eq!(decoded.id.as_deref(), Some("7"));
    }

    #[test]
    fn typed_contents_are_the_tensors(inputs in any_inputs()) {
        let typed = inputs.into_iter().filter(|((_, tensor), _)| {
            !matches!(tensor.datatype(), Datatype::Fp16 | Datatype::Bf16)
        });
        let tensors: Vec<NamedTensor> = typed.map(|(named, _)| named).collect();
        let request = asked(answered(&tensors, false).unwrap());
        prop_assert!(request.raw_input_contents.is_empty());
        let bytes = request.encode_to_vec();
        let decoded = read(bytes, &signature_of(&tensors), &DecodeLimits::default()).unwrap();
        prop_assert_eq!(decoded.inputs, tensors);
    }

    #[test]
    fn no_damage_makes_a_request_panic_or_fit_what_it_should_not(
        inputs in any_inputs(),
        raw in any::<bool>(),
        damages in any_damage(),
    ) {
        let binary = |form: &Form| raw || *form != Form::Binary;
        let inputs = inputs.into_iter().filter(|(_, form)| binary(form));
        let tensors: Vec<NamedTensor> = inputs.map(|(named, _)| named).collect();
        let signature = signature_of(&tensors);
        let mut bytes = asked(answered(&tensors, raw).unwrap()).encode_to_vec();
        damage(&mut bytes, &damages);
        match read(bytes, &signature, &DecodeLimits::default()) {
            Ok(request) => prop_assert_eq!(signature_of(&request.inputs).inputs.len(), tensors.len()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn noise_is_refused_or_read_and_never_a_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(noise, &one(Datatype::Fp32, &[-1]), &DecodeLimits::default());
    }
}

#[test]
fn the_place_of_the_first_raw_tensor_is_seen_in_the_beginning_of_a_message() {
    let request = ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![input("x", "FP32", &[2]), input("y", "FP32", &[1])],
        raw_input_contents: vec![Bytes::from_static(b"12345678"), Bytes::from_static(b"abcd")],
        ..ModelInferRequest::default()
    };
    let bytes = request.encode_to_vec();
    let offset = raw_offset(&bytes);
    assert!(bytes[offset..].starts_with(b"12345678"), "{offset}");
    for seen in 0..bytes.len() {
        assert_eq!(raw_offset(&bytes[..seen]), if seen < offset { 0 } else { offset }, "{seen}");
    }
    let contents = InferTensorContents { int_contents: vec![1, 2], ..Default::default() };
    assert_eq!(raw_offset(&typed(contents).encode_to_vec()), 0);
    assert_eq!(raw_offset(b"no message"), 0);
}

#[test]
fn what_a_message_becomes_is_taken_before_it_is_decoded() {
    // Two bytes on the wire become 32 in memory.
    let contents = InferTensorContents {
        bytes_contents: vec![Bytes::new(); 10_000],
        ..InferTensorContents::default()
    };
    let mut message = typed(contents);
    message.inputs[0].datatype = "BYTES".into();
    let bytes = Bytes::from(message.encode_to_vec());
    assert!(bytes.len() < 25_000);
    let limits = DecodeLimits::default();
    let refused = read_message(bytes.clone(), &limits, &mut |wanted| wanted < 300_000);
    let error = refused.unwrap_err();
    assert_eq!(
        (error.kind(), error.limit()),
        (DecodeErrorKind::NoRoom, Some(Limit::InflightBytes))
    );
    // Raw contents stay where they are and take next to nothing.
    let raw = ModelInferRequest {
        inputs: vec![input("x", "UINT8", &[1 << 20])],
        raw_input_contents: vec![vec![0; 1 << 20].into()],
        ..ModelInferRequest::default()
    };
    let bytes = Bytes::from(raw.encode_to_vec());
    assert!(read_message(bytes, &limits, &mut |wanted| wanted < 1000).is_ok());
}

#[test]
fn every_list_has_its_limit_before_it_is_decoded() {
    let limits = DecodeLimits { inputs: 3, outputs: 3, parameters: 3, ..DecodeLimits::default() };
    let parameters: BTreeMap<_, _> = (0..4)
        .map(|index| (index.to_string(), parameter(ParameterChoice::BoolParam(true))))
        .collect();
    let few = ModelInferRequest::default();
    let messages = [
        (
            Limit::Inputs,
            ModelInferRequest { inputs: vec![input("x", "FP32", &[]); 4], ..few.clone() },
        ),
        (
            Limit::Inputs,
            ModelInferRequest { raw_input_contents: vec![Bytes::new(); 4], ..few.clone() },
        ),
        (
            Limit::Outputs,
            ModelInferRequest {
                outputs: vec![InferRequestedOutputTensor::default(); 4],
                ..few.clone()
            },
        ),
        (Limit::Parameters, ModelInferRequest { parameters: parameters.clone(), ..few.clone() }),
        (
            Limit::Parameters,
            ModelInferRequest {
                inputs: vec![InferInputTensor { parameters, ..input("x", "FP32", &[]) }],
                ..few.clone()
            },
        ),
        (
            Limit::TensorRank,
            ModelInferRequest { inputs: vec![input("x", "FP32", &[1; 400])], ..few },
        ),
    ];
    for (limit, message) in messages {
        let bytes = Bytes::from(message.encode_to_vec());
        let error = read_message(bytes, &limits, &mut Unlimited).unwrap_err();
        assert_eq!(error.limit(), Some(limit), "{error}");
    }
}

#[test]
fn typed_contents_must_be_those_of_the_datatype() {
    let signature = one(Datatype::Int8, &[2]);
    let int = |values: &[i32]| InferTensorContents {
        int_contents: values.to_vec(),
        ..InferTensorContents::default()
    };
    let given =
        read(typed(int(&[-128, 127])).encode_to_vec(), &signature, &DecodeLimits::default());
    assert_eq!(&given.unwrap().inputs[0].1.data()[..], [0x80, 0x7f]);
    for (contents, words) in [
        (int(&[1, 128]), "element 1 is 128"),
        (int(&[1]), "int_contents holds 1 elements, and shape [2] has 2"),
        (
            InferTensorContents { int64_contents: vec![1, 2], ..int(&[]) },
            "INT8 is given in int64_contents, and it goes into int_contents",
        ),
        (InferTensorContents { bool_contents: vec![true], ..int(&[1, 2]) }, "bool_contents"),
    ] {
        let error = refused(&typed(contents), &signature).to_string();
        assert!(error.contains(words) && error.contains("\"x\""), "{error}");
    }
    let half = ModelInferRequest {
        inputs: vec![InferInputTensor { contents: Some(int(&[1])), ..input("x", "FP16", &[1]) }],
        ..ModelInferRequest::default()
    };
    let error = refused(&half, &one(Datatype::Fp16, &[1])).to_string();
    assert!(error.contains("raw_input_contents"), "{error}");
}

#[test]
fn raw_and_typed_contents_do_not_mix() {
    let signature = one(Datatype::Int8, &[2]);
    let mut both = typed(InferTensorContents { int_contents: vec![1, 2], ..Default::default() });
    both.raw_input_contents = vec![Bytes::from_static(&[1, 2])];
    assert!(refused(&both, &signature).to_string().contains("both contents"));
    both.raw_input_contents.push(Bytes::new());
    assert!(refused(&both, &signature).to_string().contains("2 entries for 1 inputs"));
    // An empty message beside raw contents is what some clients send.
    both.raw_input_contents.pop();
    both.inputs[0].contents = Some(InferTensorContents::default());
    assert!(read(both.encode_to_vec(), &signature, &DecodeLimits::default()).is_ok());
}

#[test]
fn parameters_are_taken_over_and_those_of_clients_libraries_dropped() {
    let signature = one(Datatype::Int8, &[2]);
    let mut message = typed(InferTensorContents { int_contents: vec![1, 2], ..Default::default() });
    for (name, choice) in [
        ("binary_data_output", ParameterChoice::BoolParam(false)),
        ("triton_enable_empty_final_response", ParameterChoice::BoolParam(true)),
        ("priority", ParameterChoice::Uint64Param(3)),
        ("huge", ParameterChoice::Uint64Param(u64::MAX)),
        ("t", ParameterChoice::DoubleParam(0.5)),
    ] {
        message.parameters.insert(name.into(), parameter(choice));
    }
    let classes = parameter(ParameterChoice::Int64Param(3));
    message.outputs = vec![InferRequestedOutputTensor {
        name: "x".into(),
        parameters: BTreeMap::from([("classification".into(), classes)]),
    }];
    let request = read(message.encode_to_vec(), &signature, &DecodeLimits::default()).unwrap();
    assert!(!request.outputs.binary_by_default);
    let output = RequestedOutput { name: "x".into(), binary: None, classification: Some(3) };
    assert_eq!(request.outputs.listed, Some(vec![output]));
    let names: Vec<_> = request.parameters.keys().map(String::as_str).collect();
    assert_eq!(names, ["huge", "priority", "t"]);
    assert_eq!(request.parameters["priority"], ParameterValue::Int64(3));
    message.outputs.push(message.outputs[0].clone());
    assert!(refused(&message, &signature).to_string().contains("twice"));
}

#[test]
fn shared_memory_is_refused_by_name() {
    let signature = one(Datatype::Int8, &[2]);
    let mut message = typed(InferTensorContents::default());
    let region = parameter(ParameterChoice::StringParam("r".into()));
    message.inputs[0].parameters.insert("shared_memory_region".into(), region);
    assert!(refused(&message, &signature).to_string().contains("shared memory is not enabled"));
}

#[test]
fn an_output_without_a_typed_form_is_sent_raw_or_refused() {
    let tensor = Tensor::new(Datatype::Fp16, vec![1], Bytes::from_static(&[0, 60])).unwrap();
    let tensors = [("x".to_owned(), tensor)];
    assert!(answered(&tensors, false).is_none());
    let raw = answered(&tensors, true).unwrap();
    assert_eq!(raw.raw_output_contents, [Bytes::from_static(&[0, 60])]);
}
