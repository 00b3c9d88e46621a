//! An inference request as the host acts on it, and how it comes from a body.

use std::time::Duration;

use bytes::Bytes;

use super::document::{self, Capped, OutputDocument};
use super::error::{DecodeError, Listed, Problem};
use super::framing::JsonPart;
use super::limits::{Budget, DecodeLimits, Unlimited};
use super::parameters::{self, ParameterValue, Parameters};
use super::{inputs, raw_request};
use crate::tensor::NamedTensor;
use crate::version::Signature;

/// What a request asks for, known to agree with the model's signature.
#[derive(Debug, Clone, PartialEq)]
pub struct InferRequest {
    /// The caller's id for the request, which the answer repeats.
    pub id: Option<String>,
    /// Every input of the signature once, in the request's order. Binary ones are ranges of the
    /// request's body; of those only the first is sure to be aligned.
    pub inputs: Vec<NamedTensor>,
    /// Which outputs the answer carries, and in which form.
    pub outputs: RequestedOutputs,
    /// How long the caller will wait for the answer, where it says so.
    pub timeout: Option<Duration>,
    /// The request's parameters, without those that the codec itself acts on.
    pub parameters: Parameters,
}

/// Which outputs an answer carries, and in which form.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestedOutputs {
    /// The outputs asked for, in the order of the answer; `None` for all that the signature has.
    pub listed: Option<Vec<RequestedOutput>>,
    /// Whether outputs that do not say otherwise are sent as binary data.
    pub binary_by_default: bool,
}

impl RequestedOutputs {
    /// All outputs, as binary data.
    pub fn all_binary() -> Self {
        Self { listed: None, binary_by_default: true }
    }
}

/// One output that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedOutput {
    /// The output's name, which the signature has.
    pub name: String,
    /// Whether it is sent as binary data; `None` leaves it to the request's default.
    pub binary: Option<bool>,
    /// Send the so many highest values and their indexes instead of the tensor; at least 1.
    pub classification: Option<u32>,
}

impl RequestedOutput {
    /// An output as the request's default has it.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), binary: None, classification: None }
    }
}

/// Decodes the body of an inference request.
///
/// `json` is what [`super::json_length`] made of the header. Binary inputs share `body`; JSON ones
/// get a buffer of their own, of which no more is allocated than both the shape and the text's
/// length allow (at most eight bytes for two of text).
///
/// # Errors
/// When the body is no inference request, does not fit `signature`, or is over a limit; the error
/// names the tensor and the place.
pub fn decode_infer(
    body: Bytes,
    json: JsonPart,
    signature: &Signature,
    limits: &DecodeLimits,
) -> Result<InferRequest, DecodeError> {
    decode_infer_within(body, json, signature, limits, &mut Unlimited)
}

/// Decodes the body of an inference request, taking what that allocates from `budget` first.
///
/// # Errors
/// Those of [`decode_infer`], and `NoRoom` where the budget refuses.
pub fn decode_infer_within(
    body: Bytes,
    json: JsonPart,
    signature: &Signature,
    limits: &DecodeLimits,
    budget: &mut dyn Budget,
) -> Result<InferRequest, DecodeError> {
    let json_bytes = match json {
        JsonPart::Absent => return raw_request::decode(body, signature, limits, budget),
        JsonPart::Whole => body.len(),
        JsonPart::Prefix(bytes) => bytes,
    };
    let Some((text, tail)) = body.split_at_checked(json_bytes) else {
        // Without a Content-Length this could not be known any sooner.
        let (json, body) = (json_bytes as u64, body.len() as u64);
        return Err(Problem::HeaderPastBody { json, body }.at(super::JSON_LENGTH_HEADER));
    };
    let document = document::parse(text, limits.json_depth)?;
    // These become values of their own as they are; inputs are asked for one by one.
    let copied = document.id.as_ref().map_or(0, String::len)
        + document.parameters.map_or(0, |parameters| parameters.get().len());
    if !budget.take(copied) {
        return Err(Problem::NoRoom { bytes: copied }.anywhere());
    }
    let mut parameters = parameters::read(document.parameters, limits.parameters)
        .map_err(|problem| problem.at("parameters"))?;
    let binary_by_default = take_own_parameters(&mut parameters)?;
    let outputs = RequestedOutputs {
        listed: decode_outputs(document.outputs, signature, limits)?,
        binary_by_default,
    };
    let documents = document.inputs.ok_or_else(|| Problem::MissingField("inputs").at("inputs"))?;
    let timeout = parameters::take_timeout(&mut parameters).map_err(|p| p.at("parameters"))?;
    let inputs = inputs::decode(documents, body.slice_ref(tail), signature, limits, budget)?;
    Ok(InferRequest { id: document.id, inputs, outputs, timeout, parameters })
}

/// Refuses what callers may not set, and takes out `binary_data_output`, whose value it returns.
fn take_own_parameters(parameters: &mut Parameters) -> Result<bool, DecodeError> {
    // Over gRPC clients send such names as a matter of course; over REST Triton refuses them.
    if let Some(name) = parameters.keys().find(|name| name.starts_with("triton_")) {
        let name = super::error::excerpt(name);
        return Err(Problem::ReservedParameter { name }.at("parameters"));
    }
    match parameters.remove("binary_data_output") {
        None => Ok(false),
        Some(ParameterValue::Bool(binary)) => Ok(binary),
        Some(_) => Err(not_a_boolean("binary_data_output").at("parameters")),
    }
}

fn decode_outputs(
    documents: Option<Capped<OutputDocument<'_>>>,
    signature: &Signature,
    limits: &DecodeLimits,
) -> Result<Option<Vec<RequestedOutput>>, DecodeError> {
    let documents = documents
        .unwrap_or_default()
        .within(Listed::Outputs, limits.outputs)
        .map_err(|problem| problem.at("outputs"))?;
    // An empty list asks for all, as none does: clients with typed models send one.
    if documents.is_empty() {
        return Ok(None);
    }
    let mut outputs: Vec<RequestedOutput> = Vec::with_capacity(documents.len());
    for (index, document) in documents.iter().enumerate() {
        let output = decode_output(document, index, signature, limits)?;
        if outputs.iter().any(|earlier| earlier.name == output.name) {
            let place = format!("outputs[{index}].name");
            return Err(Problem::Duplicate.in_output(&output.name, place));
        }
        outputs.push(output);
    }
    Ok(Some(outputs))
}

fn decode_output(
    document: &OutputDocument<'_>,
    index: usize,
    signature: &Signature,
    limits: &DecodeLimits,
) -> Result<RequestedOutput, DecodeError> {
    let place = |field: &str| format!("outputs[{index}].{field}");
    let name =
        document.name.as_deref().ok_or_else(|| Problem::MissingField("name").at(place("name")))?;
    if !signature.outputs.iter().any(|spec| spec.name == name) {
        let known = inputs::describe(&signature.outputs);
        return Err(Problem::UnknownOutput { known }.in_output(name, place("name")));
    }
    let wrong = |problem: Problem| problem.in_output(name, place("parameters"));
    let parameters = parameters::read(document.parameters, limits.parameters).map_err(wrong)?;
    if parameters.contains_key("shared_memory_region") {
        return Err(wrong(Problem::SharedMemory));
    }
    let binary = match parameters.get("binary_data") {
        None => None,
        Some(ParameterValue::Bool(binary)) => Some(*binary),
        Some(_) => return Err(wrong(not_a_boolean("binary_data"))),
    };
    let classification =
        parameters.get("classification").map(class_count).transpose().map_err(wrong)?;
    Ok(RequestedOutput { name: name.to_owned(), binary, classification })
}

/// How many classes an output is asked for as.
pub(super) fn class_count(value: &ParameterValue) -> Result<u32, Problem> {
    let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
    count.filter(|count| *count > 0).ok_or_else(|| Problem::Parameter {
        name: "classification".to_owned(),
        wanted: "a number of classes, at least 1",
    })
}

pub(super) fn not_a_boolean(name: &str) -> Problem {
    Problem::Parameter { name: name.to_owned(), wanted: "true or false" }
}
