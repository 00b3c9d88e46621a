//! A request's message, compared with what the model takes.

use bytes::Bytes;
use prost::Message as _;

use super::super::error::{DecodeError, Listed, Problem};
use super::super::inputs::{InputReader, check_complete, describe, find_spec};
use super::super::limits::{Budget, DecodeLimits};
use super::super::parameters::{ParameterValue, Parameters, take_timeout};
use super::super::request::{
    InferRequest, RequestedOutput, RequestedOutputs, class_count, not_a_boolean,
};
use super::contents;
use super::weigh::weigh;
use crate::grpc::proto::infer_parameter::ParameterChoice;
use crate::grpc::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::grpc::proto::{InferParameter, ModelInferRequest};
use crate::tensor::{MAX_RANK, NamedTensor, ShapeText, Tensor};
use crate::version::{Signature, TensorSpec};

/// Reads a message, taking what that allocates from `budget` first. Raw contents share `bytes`.
///
/// # Errors
/// When it is no request, or is over a limit; `NoRoom` where the budget refuses.
pub fn read_message(
    bytes: Bytes,
    limits: &DecodeLimits,
    budget: &mut dyn Budget,
) -> Result<ModelInferRequest, DecodeError> {
    let weight = weigh(&bytes, limits).map_err(Problem::anywhere)?;
    if !budget.take(weight) {
        return Err(Problem::NoRoom { bytes: weight }.anywhere());
    }
    ModelInferRequest::decode(bytes)
        .map_err(|error| Problem::Message { message: error.to_string() }.anywhere())
}

/// Makes tensors of a message, taking what that allocates from `budget` first.
///
/// # Errors
/// When it does not fit `signature` or is over a limit; the error names the tensor and the place.
pub fn decode(
    message: ModelInferRequest,
    signature: &Signature,
    limits: &DecodeLimits,
    budget: &mut dyn Budget,
) -> Result<InferRequest, DecodeError> {
    let ModelInferRequest { id, parameters, inputs, outputs, raw_input_contents, .. } = message;
    let mut parameters =
        read_parameters(parameters, limits).map_err(|problem| problem.at("parameters"))?;
    // What a client of Triton's sends to any server of the protocol, and what none of ours acts on.
    parameters.retain(|name, _| !name.starts_with("triton_"));
    let binary_by_default = match parameters.remove("binary_data_output") {
        None => true,
        Some(ParameterValue::Bool(binary)) => binary,
        Some(_) => return Err(not_a_boolean("binary_data_output").at("parameters")),
    };
    let timeout = take_timeout(&mut parameters).map_err(|problem| problem.at("parameters"))?;
    let listed = read_outputs(outputs, signature, limits)?;
    let outputs = RequestedOutputs { listed, binary_by_default };
    let inputs = read_inputs(inputs, raw_input_contents, signature, limits, budget)?;
    let id = (!id.is_empty()).then_some(id);
    Ok(InferRequest { id, inputs, outputs, timeout, parameters })
}

/// How many elements of typed contents a message has.
pub fn typed_elements(message: &ModelInferRequest) -> usize {
    let contents = message.inputs.iter().filter_map(|input| input.contents.as_ref());
    contents.map(contents::elements_of).sum()
}

type Given = std::collections::BTreeMap<String, InferParameter>;

fn read_parameters(given: Given, limits: &DecodeLimits) -> Result<Parameters, Problem> {
    let (count, limit) = (given.len(), limits.parameters);
    if count > limit {
        return Err(Problem::TooMany { what: Listed::Parameters, given: count, limit });
    }
    // A parameter without a value says nothing.
    let read = |(name, parameter): (String, InferParameter)| {
        Some((name, value(parameter.parameter_choice?)))
    };
    Ok(given.into_iter().filter_map(read).collect())
}

fn value(choice: ParameterChoice) -> ParameterValue {
    match choice {
        ParameterChoice::BoolParam(value) => ParameterValue::Bool(value),
        ParameterChoice::Int64Param(value) => ParameterValue::Int64(value),
        ParameterChoice::StringParam(value) => ParameterValue::String(value),
        ParameterChoice::DoubleParam(value) => ParameterValue::Double(value),
        ParameterChoice::Uint64Param(value) => match i64::try_from(value) {
            Ok(value) => ParameterValue::Int64(value),
            Err(_) => ParameterValue::Uint64(value),
        },
    }
}

fn read_inputs(
    given: Vec<InferInputTensor>,
    raw: Vec<Bytes>,
    signature: &Signature,
    limits: &DecodeLimits,
    budget: &mut dyn Budget,
) -> Result<Vec<NamedTensor>, DecodeError> {
    check_count(Listed::Inputs, given.len(), limits.inputs).map_err(|p| p.at("inputs"))?;
    if !raw.is_empty() && raw.len() != given.len() {
        let problem = Problem::RawCount { raw: raw.len(), inputs: given.len() };
        return Err(problem.at("raw_input_contents"));
    }
    let is_raw = !raw.is_empty();
    let mut raw = raw.into_iter();
    let mut inputs: Vec<NamedTensor> = Vec::with_capacity(given.len());
    for (index, input) in given.into_iter().enumerate() {
        let spec = find_spec(Some(&input.name), index, signature, &inputs)?;
        let reader = InputReader { index, spec, limits };
        let raw = if is_raw { raw.next() } else { None };
        let tensor = read_input(&reader, input, raw, budget)?;
        inputs.push((spec.name.clone(), tensor));
    }
    check_complete(&inputs, signature)?;
    Ok(inputs)
}

fn read_input(
    reader: &InputReader<'_>,
    input: InferInputTensor,
    raw: Option<Bytes>,
    budget: &mut dyn Budget,
) -> Result<Tensor, DecodeError> {
    let at = |field| reader.at(field);
    let datatype = input.datatype.parse().map_err(Problem::UnknownDatatype);
    let datatype = datatype.map_err(at("datatype"))?;
    let shape = read_shape(&input.shape, reader.limits.rank).map_err(at("shape"))?;
    reader.check(datatype, &shape)?;
    let parameters = read_parameters(input.parameters, reader.limits).map_err(at("parameters"))?;
    if parameters.contains_key("shared_memory_region") {
        return Err(at("parameters")(Problem::SharedMemory));
    }
    let contents = input.contents.unwrap_or_default();
    match raw {
        Some(_) if contents::is_there(&contents) => Err(at("contents")(Problem::RawAndTyped)),
        Some(raw) => Tensor::new(datatype, shape, raw)
            .map_err(Problem::Tensor)
            .map_err(at("raw_input_contents")),
        None => contents::read(contents, datatype, shape, budget).map_err(at("contents")),
    }
}

fn read_shape(axes: &[i64], limit: usize) -> Result<Vec<usize>, Problem> {
    let limit = limit.min(MAX_RANK);
    if axes.len() > limit {
        return Err(Problem::Rank { given: axes.len(), limit });
    }
    let lengths = axes.iter().map(|axis| usize::try_from(*axis));
    lengths
        .collect::<Result<_, _>>()
        .map_err(|_| Problem::NegativeAxis { shape: ShapeText(axes).to_string() })
}

fn read_outputs(
    given: Vec<InferRequestedOutputTensor>,
    signature: &Signature,
    limits: &DecodeLimits,
) -> Result<Option<Vec<RequestedOutput>>, DecodeError> {
    check_count(Listed::Outputs, given.len(), limits.outputs).map_err(|p| p.at("outputs"))?;
    if given.is_empty() {
        return Ok(None);
    }
    let mut outputs: Vec<RequestedOutput> = Vec::with_capacity(given.len());
    for (index, output) in given.into_iter().enumerate() {
        let output = read_output(output, index, &signature.outputs, limits)?;
        if outputs.iter().any(|earlier| earlier.name == output.name) {
            let place = format!("outputs[{index}].name");
            return Err(Problem::Duplicate.in_output(&output.name, place));
        }
        outputs.push(output);
    }
    Ok(Some(outputs))
}

fn read_output(
    output: InferRequestedOutputTensor,
    index: usize,
    known: &[TensorSpec],
    limits: &DecodeLimits,
) -> Result<RequestedOutput, DecodeError> {
    let InferRequestedOutputTensor { name, parameters } = output;
    if !known.iter().any(|spec| spec.name == name) {
        let problem = Problem::UnknownOutput { known: describe(known) };
        return Err(problem.in_output(&name, format!("outputs[{index}].name")));
    }
    let wrong = |problem: Problem| problem.in_output(&name, format!("outputs[{index}].parameters"));
    let parameters = read_parameters(parameters, limits).map_err(wrong)?;
    if parameters.contains_key("shared_memory_region") {
        return Err(wrong(Problem::SharedMemory));
    }
    let binary = match parameters.get("binary_data") {
        None => None,
        Some(ParameterValue::Bool(binary)) => Some(*binary),
        Some(_) => return Err(wrong(not_a_boolean("binary_data"))),
    };
    let classification = parameters.get("classification").map(class_count).transpose();
    let classification = classification.map_err(wrong)?;
    Ok(RequestedOutput { name, binary, classification })
}

fn check_count(what: Listed, given: usize, limit: usize) -> Result<(), Problem> {
    if given > limit { Err(Problem::TooMany { what, given, limit }) } else { Ok(()) }
}
