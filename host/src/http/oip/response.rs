//! An inference answer: its JSON part, then the binary outputs as they are.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use super::classification::classify;
use super::error::{EncodeError, Failure};
use super::json_write::JsonData;
use super::limits::{Budget, Unlimited};
use super::request::{RequestedOutput, RequestedOutputs};
use crate::tensor::{Datatype, NamedTensor, Tensor};
use crate::version::Signature;

/// What an answer says.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The model's name.
    pub model: &'a str,
    /// The version that answered, whatever alias was called.
    pub version: &'a str,
    /// The request's id, when it had one.
    pub id: Option<&'a str>,
    /// What the model returned, in any order.
    pub outputs: &'a [NamedTensor],
}

/// An answer's body and what its headers say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The value of [`super::JSON_LENGTH_HEADER`]; `None` where the whole body is JSON and the
    /// header is not sent.
    pub header_length: Option<usize>,
    /// The body: the JSON part, then each binary output, none of them copied.
    pub parts: Vec<Bytes>,
}

impl Encoded {
    /// The value of the header Content-Type.
    pub fn content_type(&self) -> &'static str {
        match self.header_length {
            Some(_) => "application/octet-stream",
            None => "application/json",
        }
    }

    /// The length of the whole body in bytes.
    pub fn body_length(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }
}

/// Encodes an answer with the outputs that were asked for, or all that `signature` has.
///
/// What the model returned beyond its signature is not sent. Shapes and datatypes are those of the
/// tensors, whatever the signature says of them.
///
/// # Errors
/// When an output is missing from the answer, or was asked for as JSON or classes and cannot be; see
/// [`EncodeError::kind`] for whose fault that is.
pub fn encode_infer(
    answer: &Answer<'_>,
    requested: &RequestedOutputs,
    signature: &Signature,
) -> Result<Encoded, EncodeError> {
    encode_infer_within(answer, requested, signature, &mut Unlimited)
}

/// Encodes an answer, taking the room for its JSON part from `budget` first. The outputs themselves
/// are the caller's to account for.
///
/// # Errors
/// Those of [`encode_infer`], and `NoRoom` where the budget refuses.
pub fn encode_infer_within(
    answer: &Answer<'_>,
    requested: &RequestedOutputs,
    signature: &Signature,
    budget: &mut dyn Budget,
) -> Result<Encoded, EncodeError> {
    let selected = select(answer.outputs, requested, signature)?;
    let mut outputs = Vec::with_capacity(selected.len());
    let mut parts = vec![Bytes::new()];
    let mut estimate = 128 + answer.id.map_or(0, str::len);
    for Selected { name, tensor, binary } in &selected {
        let data = match binary {
            true => None,
            false => {
                Some(JsonData::new(tensor).map_err(|failure| EncodeError::new(name, failure))?)
            }
        };
        estimate += name.len() + 128 + data.as_ref().map_or(0, JsonData::estimate);
        if *binary && !tensor.data().is_empty() {
            parts.push(tensor.data().clone());
        }
        let parameters = binary.then(|| BinarySize { binary_data_size: tensor.data().len() });
        let (datatype, shape) = (tensor.datatype(), tensor.shape());
        outputs.push(OutputDocument { name, datatype, shape, parameters, data });
    }
    let Answer { model: model_name, version: model_version, id, .. } = *answer;
    let document = AnswerDocument { model_name, model_version, id, outputs };
    if !budget.take(estimate) {
        let largest = selected.iter().filter(|selected| !selected.binary);
        let largest = largest.max_by_key(|selected| selected.tensor.data().len());
        let name = largest.map_or("", |selected| selected.name);
        return Err(EncodeError::new(name, Failure::NoRoom { bytes: estimate }));
    }
    let mut json = Vec::with_capacity(estimate);
    serde_json::to_writer(&mut json, &document)
        .expect("a vector takes every byte, keys are strings, and the data was checked above");
    // Without binary bytes the header would only make clients look for some.
    let header_length = (parts.len() > 1).then_some(json.len());
    if let Some(first) = parts.first_mut() {
        *first = json.into();
    }
    Ok(Encoded { header_length, parts })
}

/// An output that will be sent.
pub(super) struct Selected<'a> {
    pub(super) name: &'a str,
    pub(super) tensor: Cow<'a, Tensor>,
    pub(super) binary: bool,
}

/// The outputs that were asked for, in their order.
pub(super) fn select<'a>(
    outputs: &'a [NamedTensor],
    requested: &'a RequestedOutputs,
    signature: &'a Signature,
) -> Result<Vec<Selected<'a>>, EncodeError> {
    let find = |wanted: &str| {
        let found = outputs.iter().find(|(name, _)| name == wanted);
        found.map(|(_, tensor)| tensor).ok_or_else(|| EncodeError::new(wanted, Failure::Missing))
    };
    let default = requested.binary_by_default;
    match &requested.listed {
        None => {
            let all = signature.outputs.iter().map(|spec| {
                let tensor = Cow::Borrowed(find(&spec.name)?);
                Ok(Selected { name: &spec.name, tensor, binary: default })
            });
            all.collect()
        }
        Some(listed) => {
            let some = listed.iter().map(|RequestedOutput { name, binary, classification }| {
                let tensor = find(name)?;
                let tensor = match classification {
                    None => Cow::Borrowed(tensor),
                    Some(count) => classify(tensor, *count, signature.batch)
                        .map(Cow::Owned)
                        .map_err(|failure| EncodeError::new(name, failure))?,
                };
                Ok(Selected { name, tensor, binary: binary.unwrap_or(default) })
            });
            some.collect()
        }
    }
}

#[derive(Serialize)]
struct AnswerDocument<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    model_name: &'a str,
    model_version: &'a str,
    outputs: Vec<OutputDocument<'a>>,
}

#[derive(Serialize)]
struct OutputDocument<'a> {
    name: &'a str,
    datatype: Datatype,
    shape: &'a [usize],
    /// Only where the output is binary: clients take any parameters as the sign that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<JsonData<'a>>,
}

#[derive(Serialize)]
struct BinarySize {
    binary_data_size: usize,
}
