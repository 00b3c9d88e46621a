//! Tensors on their way into ONNX Runtime and out of it, without a copy wherever there can be none.
#![allow(
    unsafe_code,
    reason = "values cross the C interface by pointer, so that a tensor's bytes are not copied; the ort crate has neither strings with zero bytes nor outputs that outlive the borrow of a session"
)]

use std::ptr::{self, NonNull};
use std::sync::Arc;

use bytes::Bytes;
use ort::AsPointer as _;
use ort::memory::Allocator;
use ort::session::Session;
use ort_sys::{ONNXTensorElementDataType, OrtStatusPtr, OrtTensorTypeAndShapeInfo, OrtValue};

use super::library::Library;
use crate::nn::onnx::elements;
use crate::tensor::{Datatype, Tensor, element_count, push_bytes_element};

const _: () = assert!(cfg!(target_endian = "little"), "tensor bytes go to the engine as they are");

/// `ONNXType`: a dense tensor.
const TENSOR: i32 = 1;

/// A value of the engine, released on drop.
pub(super) struct Value(NonNull<OrtValue>);

// SAFETY: a value is a reference-counted object without thread affinity; the engine's own language
// bindings move values between threads. Nothing here writes to one after it was made.
unsafe impl Send for Value {}
// SAFETY: as above; shared, it is only read.
unsafe impl Sync for Value {}

impl Value {
    /// Takes over a value that the engine gave.
    ///
    /// # Safety
    /// `value` is null or a value that the caller owns.
    pub(super) unsafe fn owned(value: *mut OrtValue) -> Option<Self> {
        NonNull::new(value).map(Self)
    }

    /// The pointer that the C interface takes.
    pub(super) fn as_ptr(&self) -> *mut OrtValue {
        self.0.as_ptr()
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: the value is ours and nobody has its pointer any more.
        unsafe { (ort::api().ReleaseValue)(self.as_ptr()) }
    }
}

/// What the engine says of a call; an error is its message.
///
/// # Safety
/// `status` comes from a call of the engine just now.
pub(super) unsafe fn check(status: OrtStatusPtr) -> Result<(), String> {
    // SAFETY: as this function demands.
    unsafe { ort::Error::result_from_status(status) }.map_err(|error| error.message().to_owned())
}

/// A tensor as an input of a run: the engine's view of bytes that this keeps alive.
pub(super) struct Input {
    pub(super) value: Value,
    /// What the value views; empty for BYTES, which the engine copies.
    data: Bytes,
}

impl Input {
    /// `tensor` for the engine. Copies only what is not aligned, and BYTES.
    pub(super) fn new(library: &Library, tensor: &Tensor) -> Result<Self, String> {
        if tensor.datatype() == Datatype::Bytes {
            return Ok(Self { value: strings(tensor)?, data: Bytes::new() });
        }
        let data = tensor.aligned().data().clone();
        let shape = shape_of(tensor)?;
        let mut value = ptr::null_mut();
        // SAFETY: the engine reads `data.len()` bytes at `data`, which lives as long as the value
        // (a field of the same struct, and `Bytes` do not move), and never writes to an input: it
        // plans inputs as existing memory that no node may reuse. The shape is read before this
        // returns.
        unsafe {
            check((ort::api().CreateTensorWithDataAsOrtValue)(
                library.cpu.ptr(),
                data.as_ptr().cast_mut().cast(),
                data.len(),
                shape.as_ptr(),
                shape.len(),
                element_type(tensor.datatype()),
                &raw mut value,
            ))?;
        }
        // SAFETY: the value was made for us just now.
        let value = unsafe { Value::owned(value) }.ok_or("the engine made no value")?;
        Ok(Self { value, data })
    }
}

/// A BYTES tensor as the engine's own strings.
fn strings(tensor: &Tensor) -> Result<Value, String> {
    let shape = shape_of(tensor)?;
    let mut value = ptr::null_mut();
    // SAFETY: the default allocator lives as long as the library; the shape is read before this
    // returns.
    unsafe {
        check((ort::api().CreateTensorAsOrtValue)(
            Allocator::default().ptr().cast_mut(),
            shape.as_ptr(),
            shape.len(),
            ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
            &raw mut value,
        ))?;
    }
    // SAFETY: the value was made for us just now.
    let value = unsafe { Value::owned(value) }.ok_or("the engine made no value")?;
    for (index, element) in tensor.bytes_elements().enumerate() {
        let mut buffer = ptr::null_mut();
        // SAFETY: `index` is below the element count, which a tensor's constructor checked; the
        // buffer has the length that is asked for here. (Filling by C strings would end at a zero
        // byte.)
        unsafe {
            check((ort::api().GetResizedStringTensorElementBuffer)(
                value.as_ptr(),
                index,
                element.len(),
                &raw mut buffer,
            ))?;
            if !element.is_empty() && !buffer.is_null() {
                ptr::copy_nonoverlapping(element.as_ptr(), buffer.cast(), element.len());
            }
        }
    }
    Ok(value)
}

/// An output of a run as a tensor: a view of the engine's memory, or of the input it is part of.
pub(super) fn output(
    value: Value,
    session: &Arc<Session>,
    inputs: &[Input],
) -> Result<Tensor, String> {
    let (number, shape) = described(&value)?;
    let datatype = elements::datatype(number)
        .ok_or_else(|| format!("its elements are {}", elements::name(number)))?;
    let elements = element_count(&shape).map_err(|error| error.to_string())?;
    let data = match datatype.size() {
        None => string_data(&value, elements)?,
        Some(size) => {
            let length = elements.checked_mul(size).ok_or("it is larger than memory")?;
            numeric_data(value, length, session, inputs)?
        }
    };
    Tensor::new(datatype, shape, data).map_err(|error| error.to_string())
}

/// The element type and shape of a value, which must be a tensor.
fn described(value: &Value) -> Result<(i32, Vec<usize>), String> {
    let mut kind = 0i32;
    // SAFETY: the engine writes an `ONNXType`, an `i32` in C. It is not taken as the Rust enum,
    // because a newer library may know kinds that the enum does not have.
    unsafe { check((ort::api().GetValueType)(value.as_ptr(), (&raw mut kind).cast()))? };
    if kind != TENSOR {
        let kind = match kind {
            2 => "a sequence",
            3 => "a map",
            5 => "a sparse tensor",
            6 => "optional",
            _ => "of an unknown kind",
        };
        return Err(format!("it is {kind}, and only dense tensors can be served"));
    }
    let info = Info::of(value)?;
    let (mut number, mut rank) = (0i32, 0usize);
    // SAFETY: as above for the element type; the rank is a `size_t`.
    unsafe {
        check((ort::api().GetTensorElementType)(info.0.as_ptr(), (&raw mut number).cast()))?;
        check((ort::api().GetDimensionsCount)(info.0.as_ptr(), &raw mut rank))?;
    }
    let mut shape = vec![0i64; rank];
    // SAFETY: `shape` has room for the `rank` axes that are asked for.
    unsafe { check((ort::api().GetDimensions)(info.0.as_ptr(), shape.as_mut_ptr(), rank))? };
    let shape: Result<Vec<usize>, _> = shape.into_iter().map(usize::try_from).collect();
    Ok((number, shape.map_err(|_| "its shape is negative")?))
}

/// The engine's description of a tensor, released on drop.
struct Info(NonNull<OrtTensorTypeAndShapeInfo>);

impl Info {
    fn of(value: &Value) -> Result<Self, String> {
        let mut info = ptr::null_mut();
        // SAFETY: the value is a tensor; the description is ours.
        unsafe { check((ort::api().GetTensorTypeAndShape)(value.as_ptr(), &raw mut info))? };
        Ok(Self(NonNull::new(info).ok_or("the engine does not describe it")?))
    }
}

impl Drop for Info {
    fn drop(&mut self) {
        // SAFETY: it is ours, and used no more.
        unsafe { (ort::api().ReleaseTensorTypeAndShapeInfo)(self.0.as_ptr()) }
    }
}

/// The `length` bytes of a value, where they are.
fn numeric_data(
    value: Value,
    length: usize,
    session: &Arc<Session>,
    inputs: &[Input],
) -> Result<Bytes, String> {
    if length == 0 {
        return Ok(Bytes::new());
    }
    let mut data = ptr::null_mut();
    // SAFETY: the value is a tensor of numbers.
    unsafe { check((ort::api().GetTensorMutableData)(value.as_ptr(), &raw mut data))? };
    let data = NonNull::new(data.cast::<u8>()).ok_or("the engine holds no data for it")?;
    // A graph that passes an input through gives back a view of our bytes, which the engine does
    // not keep alive.
    if let Some(part) = inputs.iter().find_map(|input| part_at(&input.data, data.as_ptr(), length))
    {
        return Ok(part);
    }
    Ok(Bytes::from_owner(OutputData { _value: value, data, length, _session: Arc::clone(session) }))
}

/// The `length` bytes of `whole` that begin at `start`, if all of them are its own.
fn part_at(whole: &Bytes, start: *const u8, length: usize) -> Option<Bytes> {
    let offset = start.addr().checked_sub(whole.as_ptr().addr())?;
    let end = offset.checked_add(length)?;
    (end <= whole.len()).then(|| whole.slice(offset..end))
}

/// The engine's memory of one output.
struct OutputData {
    /// Owns the memory, which is released with this.
    _value: Value,
    data: NonNull<u8>,
    length: usize,
    /// Dropped after the value: its memory may come from an allocator of the session.
    _session: Arc<Session>,
}

// SAFETY: `data` points into the memory that `_value` owns, and `Value` and `Session` may move
// between threads.
unsafe impl Send for OutputData {}

impl AsRef<[u8]> for OutputData {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the engine said that the value's data begins here, and its type and shape say
        // that it has this many bytes; a run has filled them, and nobody writes to them after it.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.length) }
    }
}

/// The elements of a value of strings, in the protocol's form.
fn string_data(value: &Value, elements: usize) -> Result<Bytes, String> {
    if elements == 0 {
        return Ok(Bytes::new());
    }
    let mut length = 0usize;
    // SAFETY: the value is a tensor of strings.
    unsafe { check((ort::api().GetStringTensorDataLength)(value.as_ptr(), &raw mut length))? };
    let mut text = vec![0u8; length];
    let mut starts = vec![0usize; elements];
    // SAFETY: `text` has room for all strings together and `starts` for where each begins.
    unsafe {
        check((ort::api().GetStringTensorContent)(
            value.as_ptr(),
            text.as_mut_ptr().cast(),
            length,
            starts.as_mut_ptr(),
            elements,
        ))?;
    }
    let mut data = Vec::with_capacity(length + elements * 4);
    let ends = starts.iter().skip(1).chain([&length]);
    for (start, end) in starts.iter().zip(ends) {
        let element = text.get(*start..*end).ok_or("its strings overlap")?;
        push_bytes_element(&mut data, element).map_err(|error| error.to_string())?;
    }
    Ok(data.into())
}

fn shape_of(tensor: &Tensor) -> Result<Vec<i64>, String> {
    let shape: Result<Vec<i64>, _> = tensor.shape().iter().copied().map(i64::try_from).collect();
    shape.map_err(|_| "an axis is longer than the engine can say".to_owned())
}

fn element_type(datatype: Datatype) -> ONNXTensorElementDataType {
    use ONNXTensorElementDataType as Element;
    match datatype {
        Datatype::Bool => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        Datatype::Uint8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        Datatype::Uint16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        Datatype::Uint32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        Datatype::Uint64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        Datatype::Int8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        Datatype::Int16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        Datatype::Int32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        Datatype::Int64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        Datatype::Fp16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        Datatype::Fp32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        Datatype::Fp64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        Datatype::Bf16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        Datatype::Bytes => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_at_an_address_are_found_only_inside_their_whole() {
        let whole = Bytes::from(vec![1, 2, 3, 4]);
        let start = whole.as_ptr();
        let at = |offset: usize, length| part_at(&whole, start.wrapping_add(offset), length);
        assert_eq!(at(1, 2).as_deref(), Some(&[2, 3][..]));
        assert_eq!(at(0, 4).map(|part| part.as_ptr()), Some(start));
        assert_eq!(at(0, 5), None);
        assert_eq!(at(4, 1), None);
        assert_eq!(at(usize::MAX, 1), None);
        assert_eq!(at(1, usize::MAX), None);
    }
}
