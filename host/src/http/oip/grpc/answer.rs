//! An answer's message: its head, then each output's bytes as they are.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::super::error::{EncodeError, Failure};
use super::super::limits::Budget;
use super::super::request::RequestedOutputs;
use super::super::response::{Answer, Selected, select};
use super::contents;
use crate::grpc::proto::model_infer_response::InferOutputTensor;
use crate::grpc::proto::{InferParameter, ModelInferResponse};
use crate::version::Signature;

/// The number of `raw_output_contents`.
const RAW_OUTPUT_CONTENTS: u32 = 6;

/// Encodes an answer with the outputs that were asked for, or all that `signature` has: the parts of
/// its message, of which the outputs are some, not copied. `parameters` are the answer's.
///
/// Outputs are raw; they are typed where every one of them was asked for as other than binary data,
/// since a message has either.
///
/// # Errors
/// When an output is missing from the answer, or was asked for as classes or as typed contents and
/// cannot be; `NoRoom` where the budget refuses.
pub fn encode(
    answer: &Answer<'_>,
    requested: &RequestedOutputs,
    signature: &Signature,
    parameters: BTreeMap<String, InferParameter>,
    budget: &mut dyn Budget,
) -> Result<Vec<Bytes>, EncodeError> {
    let selected = select(answer.outputs, requested, signature)?;
    let typed = !selected.is_empty() && selected.iter().all(|selected| !selected.binary);
    let mut message = ModelInferResponse {
        model_name: answer.model.to_owned(),
        model_version: answer.version.to_owned(),
        id: answer.id.unwrap_or_default().to_owned(),
        parameters,
        ..ModelInferResponse::default()
    };
    for output in &selected {
        message.outputs.push(describe(output, typed, budget)?);
    }
    if !budget.take(message.encoded_len()) {
        let bytes = message.encoded_len();
        return Err(EncodeError::new("", Failure::NoRoom { bytes }));
    }
    let mut head = Vec::with_capacity(message.encoded_len() + 16);
    message.encode_raw(&mut head);
    if typed {
        return Ok(vec![head.into()]);
    }
    Ok(raw(head, &selected))
}

fn describe(
    Selected { name, tensor, .. }: &Selected<'_>,
    typed: bool,
    budget: &mut dyn Budget,
) -> Result<InferOutputTensor, EncodeError> {
    let contents = match typed {
        false => None,
        true => {
            let bytes = contents::estimate(tensor);
            if !budget.take(bytes) {
                return Err(EncodeError::new(name, Failure::NoRoom { bytes }));
            }
            let only_raw = || EncodeError::new(name, Failure::OnlyRaw(tensor.datatype()));
            Some(contents::of(tensor).ok_or_else(only_raw)?)
        }
    };
    Ok(InferOutputTensor {
        name: (*name).to_owned(),
        datatype: tensor.datatype().to_string(),
        // An axis is no longer than memory.
        shape: tensor.shape().iter().map(|axis| *axis as i64).collect(),
        contents,
        ..InferOutputTensor::default()
    })
}

/// The head and the outputs' bytes, each behind the key and the length of its field.
fn raw(mut head: Vec<u8>, selected: &[Selected<'_>]) -> Vec<Bytes> {
    let mut parts = Vec::with_capacity(2 * selected.len() + 1);
    for Selected { tensor, .. } in selected {
        encode_key(RAW_OUTPUT_CONTENTS, WireType::LengthDelimited, &mut head);
        encode_varint(tensor.data().len() as u64, &mut head);
        if tensor.data().len() < SMALL_BYTES {
            head.put_slice(tensor.data());
            continue;
        }
        parts.push(std::mem::take(&mut head).into());
        parts.push(tensor.data().clone());
    }
    parts.push(head.into());
    parts
}

/// An output of fewer bytes is copied: a part of its own would cost more.
const SMALL_BYTES: usize = 256;
