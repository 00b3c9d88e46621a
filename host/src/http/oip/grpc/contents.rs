//! Typed contents: a tensor's elements in the field of a message that its datatype goes with.

use bytes::Bytes;

use super::super::error::Problem;
use super::super::limits::Budget;
use crate::grpc::proto::InferTensorContents;
use crate::tensor::{AlignedBuffer, Datatype, ShapeText, Tensor, element_count};

/// Makes a tensor of typed contents, with the room for it taken from `budget` first.
pub(super) fn read(
    contents: InferTensorContents,
    datatype: Datatype,
    shape: Vec<usize>,
    budget: &mut dyn Budget,
) -> Result<Tensor, Problem> {
    let wanted = element_count(&shape).map_err(Problem::Tensor)?;
    let given = count(&contents, datatype)?;
    if given != wanted {
        let shape = ShapeText(&shape).to_string();
        return Err(Problem::TypedCount { given, wanted, shape, field: field(datatype) });
    }
    let bytes = match datatype.size() {
        Some(size) => given.saturating_mul(size),
        None => contents.bytes_contents.iter().map(|element| element.len() + 4).sum(),
    };
    if !budget.take(bytes) {
        return Err(Problem::NoRoom { bytes });
    }
    let mut data = AlignedBuffer::with_capacity(bytes);
    write(&contents, datatype, &mut data)?;
    Tensor::new(datatype, shape, data.freeze()).map_err(Problem::Tensor)
}

/// Whether there are any: some clients send an empty message beside raw contents.
pub(super) fn is_there(contents: &InferTensorContents) -> bool {
    elements_of(contents) > 0
}

/// How many elements there are, in all fields.
pub(super) fn elements_of(contents: &InferTensorContents) -> usize {
    lengths(contents).iter().map(|(_, length)| length).sum()
}

/// The elements of a tensor as typed contents; `None` for what has no such form.
pub(super) fn of(tensor: &Tensor) -> Option<InferTensorContents> {
    let data = tensor.data();
    let mut contents = InferTensorContents::default();
    match tensor.datatype() {
        Datatype::Bool => contents.bool_contents = data.iter().map(|byte| *byte != 0).collect(),
        Datatype::Int8 => contents.int_contents = elements(data, i8::from_le_bytes),
        Datatype::Int16 => contents.int_contents = elements(data, i16::from_le_bytes),
        Datatype::Int32 => contents.int_contents = elements(data, i32::from_le_bytes),
        Datatype::Int64 => contents.int64_contents = elements(data, i64::from_le_bytes),
        Datatype::Uint8 => contents.uint_contents = elements(data, u8::from_le_bytes),
        Datatype::Uint16 => contents.uint_contents = elements(data, u16::from_le_bytes),
        Datatype::Uint32 => contents.uint_contents = elements(data, u32::from_le_bytes),
        Datatype::Uint64 => contents.uint64_contents = elements(data, u64::from_le_bytes),
        Datatype::Fp32 => contents.fp32_contents = elements(data, f32::from_le_bytes),
        Datatype::Fp64 => contents.fp64_contents = elements(data, f64::from_le_bytes),
        Datatype::Bytes => {
            contents.bytes_contents =
                tensor.bytes_elements().map(|element| data.slice_ref(element)).collect();
        }
        Datatype::Fp16 | Datatype::Bf16 => return None,
    }
    Some(contents)
}

/// Bytes that a tensor takes as typed contents, on the wire and in memory together, at most.
pub(super) fn estimate(tensor: &Tensor) -> usize {
    // Ten bytes of varint and eight in memory; a BYTES element has a descriptor and a length.
    tensor.element_count().saturating_mul(40).saturating_add(tensor.data().len())
}

/// The field that a datatype goes with.
fn field(datatype: Datatype) -> &'static str {
    match datatype {
        Datatype::Bool => "bool_contents",
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => "int_contents",
        Datatype::Int64 => "int64_contents",
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => "uint_contents",
        Datatype::Uint64 => "uint64_contents",
        Datatype::Fp32 => "fp32_contents",
        Datatype::Fp64 => "fp64_contents",
        Datatype::Bytes => "bytes_contents",
        Datatype::Fp16 | Datatype::Bf16 => "raw_input_contents",
    }
}

/// How many elements of `datatype` there are; elements of any other are a mistake.
fn count(contents: &InferTensorContents, datatype: Datatype) -> Result<usize, Problem> {
    if matches!(datatype, Datatype::Fp16 | Datatype::Bf16) {
        return Err(Problem::OnlyRaw(datatype));
    }
    let wanted = field(datatype);
    let mut count = 0;
    for (given, length) in lengths(contents) {
        if given == wanted {
            count = length;
        } else if length > 0 {
            return Err(Problem::WrongField { given, datatype, wanted });
        }
    }
    Ok(count)
}

fn lengths(contents: &InferTensorContents) -> [(&'static str, usize); 8] {
    [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ]
}

fn write(
    contents: &InferTensorContents,
    datatype: Datatype,
    to: &mut AlignedBuffer,
) -> Result<(), Problem> {
    let (signed, unsigned) = (&contents.int_contents, &contents.uint_contents);
    match datatype {
        Datatype::Bool => put(to, &contents.bool_contents, |value| [u8::from(value)]),
        Datatype::Int8 => narrow(to, signed, datatype, |value: i8| value.to_le_bytes())?,
        Datatype::Int16 => narrow(to, signed, datatype, |value: i16| value.to_le_bytes())?,
        Datatype::Int32 => put(to, signed, i32::to_le_bytes),
        Datatype::Int64 => put(to, &contents.int64_contents, i64::to_le_bytes),
        Datatype::Uint8 => narrow(to, unsigned, datatype, |value: u8| value.to_le_bytes())?,
        Datatype::Uint16 => narrow(to, unsigned, datatype, |value: u16| value.to_le_bytes())?,
        Datatype::Uint32 => put(to, unsigned, u32::to_le_bytes),
        Datatype::Uint64 => put(to, &contents.uint64_contents, u64::to_le_bytes),
        Datatype::Fp32 => put(to, &contents.fp32_contents, f32::to_le_bytes),
        Datatype::Fp64 => put(to, &contents.fp64_contents, f64::to_le_bytes),
        Datatype::Bytes => put_elements(to, &contents.bytes_contents),
        Datatype::Fp16 | Datatype::Bf16 => return Err(Problem::OnlyRaw(datatype)),
    }
    Ok(())
}

fn put<T: Copy, const N: usize>(
    to: &mut AlignedBuffer,
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) {
    for value in values {
        to.extend(&bytes(*value));
    }
}

/// Writes values of a datatype that shares its field with wider ones.
fn narrow<W: Copy + std::fmt::Display, T: TryFrom<W>, const N: usize>(
    to: &mut AlignedBuffer,
    values: &[W],
    datatype: Datatype,
    bytes: impl Fn(T) -> [u8; N],
) -> Result<(), Problem> {
    for (index, value) in values.iter().enumerate() {
        let given = || value.to_string();
        let narrowed = T::try_from(*value);
        let narrowed =
            narrowed.map_err(|_| Problem::Element { index, given: given(), datatype })?;
        to.extend(&bytes(narrowed));
    }
    Ok(())
}

fn put_elements(to: &mut AlignedBuffer, elements: &[Bytes]) {
    for element in elements {
        // A message is shorter than 4 GiB, and so is every part of it.
        to.extend(&(element.len() as u32).to_le_bytes());
        to.extend(element);
    }
}

fn elements<T, W: From<T>, const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<W> {
    data.as_chunks().0.iter().map(|bytes| W::from(value(*bytes))).collect()
}
