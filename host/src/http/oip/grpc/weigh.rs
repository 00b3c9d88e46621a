//! What a request's message takes when it is decoded, and whether its lists are within the limits:
//! found out by walking its fields, before anything is allocated.

use bytes::Buf as _;
use prost::encoding::{WireType, decode_key, decode_varint};

use super::super::error::{Listed, Problem};
use super::super::limits::DecodeLimits;
use crate::grpc::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};

/// Bytes of an entry of a map, beside its text: what the map's nodes take, and the value.
const ENTRY_BYTES: usize = 160;

/// Vectors grow by doubling, so that up to half of one is empty.
const GROWTH: usize = 2;

/// Where the first raw tensor stands in a request's message, of which this is the beginning; 0 where none
/// is seen.
pub fn raw_offset(beginning: &[u8]) -> usize {
    let mut rest = beginning;
    loop {
        let Ok((number, WireType::LengthDelimited)) = decode_key(&mut rest) else { return 0 };
        let Ok(length) = decode_varint(&mut rest) else { return 0 };
        if number == RAW_INPUT_CONTENTS {
            return beginning.len() - rest.len();
        }
        let after = usize::try_from(length).ok().and_then(|length| rest.get(length..));
        let Some(after) = after else { return 0 };
        rest = after;
    }
}

/// The number of `raw_input_contents`.
const RAW_INPUT_CONTENTS: u32 = 7;

/// Bytes that the message in `bytes` takes when it is decoded, beside itself; never less, and for a
/// request with raw contents hardly more than nothing.
pub(super) fn weigh(bytes: &[u8], limits: &DecodeLimits) -> Result<usize, Problem> {
    let mut weight = Weight::default();
    let mut counts = Counts::default();
    for_each_field(bytes, |number, field| {
        match (number, field) {
            // The name, the version and the id are copied.
            (1..=3, Field::Bytes(text)) => weight.add(text.len()),
            (4, Field::Bytes(entry)) => counts.parameter(entry, limits, &mut weight)?,
            (5, Field::Bytes(input)) => {
                counts.inputs = within(counts.inputs, Listed::Inputs, limits.inputs)?;
                weight.add(GROWTH * size_of::<InferInputTensor>());
                weigh_input(input, limits, &mut weight)?;
            }
            (6, Field::Bytes(output)) => {
                counts.outputs = within(counts.outputs, Listed::Outputs, limits.outputs)?;
                weight.add(GROWTH * size_of::<InferRequestedOutputTensor>());
                weigh_output(output, limits, &mut weight)?;
            }
            (RAW_INPUT_CONTENTS, Field::Bytes(_)) => {
                counts.raw = within(counts.raw, Listed::Inputs, limits.inputs)?;
                weight.add(GROWTH * size_of::<bytes::Bytes>());
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(weight.0)
}

fn weigh_input(input: &[u8], limits: &DecodeLimits, weight: &mut Weight) -> Result<(), Problem> {
    let (mut counts, mut axes) = (Counts::default(), 0);
    for_each_field(input, |number, field| {
        match (number, field) {
            (1 | 2, Field::Bytes(text)) => weight.add(text.len()),
            (3, field) => {
                // A number takes a byte at least, and an axis of a real shape hardly more.
                axes += field.numbers();
                weight.add(GROWTH * 8 * field.numbers());
            }
            (4, Field::Bytes(entry)) => counts.parameter(entry, limits, weight)?,
            (5, Field::Bytes(contents)) => weigh_contents(contents, weight)?,
            _ => {}
        }
        Ok(())
    })?;
    // Ten bytes a number at most, so no shape that fits is refused here.
    let limit = limits.rank.saturating_mul(10);
    if axes > limit {
        return Err(Problem::Rank { given: axes / 10, limit: limits.rank });
    }
    Ok(())
}

fn weigh_output(output: &[u8], limits: &DecodeLimits, weight: &mut Weight) -> Result<(), Problem> {
    let mut counts = Counts::default();
    for_each_field(output, |number, field| {
        match (number, field) {
            (1, Field::Bytes(text)) => weight.add(text.len()),
            (2, Field::Bytes(entry)) => counts.parameter(entry, limits, weight)?,
            _ => {}
        }
        Ok(())
    })
}

fn weigh_contents(contents: &[u8], weight: &mut Weight) -> Result<(), Problem> {
    for_each_field(contents, |number, field| {
        let element = match number {
            1 => 1,
            2 | 4 => 4,
            3 | 5 => 8,
            // As many bytes as they have on the wire, where a number alone has as many.
            6 | 7 if matches!(field, Field::Bytes(_)) => 1,
            6 => 4,
            7 => 8,
            8 => size_of::<bytes::Bytes>(),
            _ => 0,
        };
        let elements = if number == 8 { 1 } else { field.numbers() };
        weight.add(GROWTH.saturating_mul(element).saturating_mul(elements));
        Ok(())
    })
}

/// Bytes so far.
#[derive(Default)]
struct Weight(usize);

impl Weight {
    fn add(&mut self, bytes: usize) {
        self.0 = self.0.saturating_add(bytes);
    }
}

/// How many of each list there have been.
#[derive(Default)]
struct Counts {
    parameters: usize,
    inputs: usize,
    outputs: usize,
    raw: usize,
}

impl Counts {
    fn parameter(
        &mut self,
        entry: &[u8],
        limits: &DecodeLimits,
        weight: &mut Weight,
    ) -> Result<(), Problem> {
        self.parameters = within(self.parameters, Listed::Parameters, limits.parameters)?;
        weight.add(ENTRY_BYTES + entry.len());
        Ok(())
    }
}

/// One more, if that is within the limit.
fn within(count: usize, what: Listed, limit: usize) -> Result<usize, Problem> {
    if count >= limit {
        return Err(Problem::TooMany { what, given: count + 1, limit });
    }
    Ok(count + 1)
}

/// A field of a message.
enum Field<'a> {
    Number,
    Bytes(&'a [u8]),
}

impl Field<'_> {
    /// The most numbers that it can hold.
    fn numbers(&self) -> usize {
        match self {
            Self::Number => 1,
            Self::Bytes(packed) => packed.len(),
        }
    }
}

/// Calls `visit` with the number and the content of every field.
fn for_each_field<'a>(
    mut bytes: &'a [u8],
    mut visit: impl FnMut(u32, Field<'a>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let malformed = |error: prost::DecodeError| Problem::Message { message: error.to_string() };
    while bytes.has_remaining() {
        let (number, kind) = decode_key(&mut bytes).map_err(malformed)?;
        let length = match kind {
            WireType::Varint => {
                decode_varint(&mut bytes).map_err(malformed)?;
                visit(number, Field::Number)?;
                continue;
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => decode_varint(&mut bytes).map_err(malformed)?,
            WireType::StartGroup | WireType::EndGroup => {
                let message = format!("the field {number} is a group, which proto3 does not have");
                return Err(Problem::Message { message });
            }
        };
        let split = usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length));
        let Some((content, rest)) = split else {
            let message = format!("the field {number} ends after the message");
            return Err(Problem::Message { message });
        };
        bytes = rest;
        match kind {
            WireType::LengthDelimited => visit(number, Field::Bytes(content))?,
            _ => visit(number, Field::Number)?,
        }
    }
    Ok(())
}
