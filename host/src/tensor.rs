//! Tensors as the host holds them: a datatype, a shape, and reference-counted bytes.
//!
//! The bytes are the Open Inference Protocol's binary form: little-endian, row-major, BOOL one byte,
//! BYTES elements each behind a four-byte length. Cloning a tensor clones no data.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Tensor data begins at a multiple of this: a cache line, and enough for any vector instruction.
pub const ALIGNMENT: usize = 64;

/// The most axes a tensor may have. Engines support fewer than this (ONNX Runtime's own checks use
/// small vectors, numpy stops at 64); a longer shape is a mistake or an attack.
pub const MAX_RANK: usize = 32;

/// The datatypes of the Open Inference Protocol, with Triton's and KServe's BF16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the names are the protocol's own and say it all")]
pub enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
    Bf16,
    Bytes,
}

impl Datatype {
    /// All fourteen.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bf16,
        Self::Bytes,
    ];

    /// Bytes of one element, or `None` where it varies (BYTES).
    pub const fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// The protocol's spelling, such as `FP32`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bf16 => "BF16",
            Self::Bytes => "BYTES",
        }
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that names no datatype.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown datatype {0:?}: use one of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64, BF16, BYTES"
)]
pub struct UnknownDatatype(pub String);

impl FromStr for Datatype {
    type Err = UnknownDatatype;
    fn from_str(text: &str) -> Result<Self, UnknownDatatype> {
        Self::ALL
            .into_iter()
            .find(|d| d.as_str() == text)
            .ok_or_else(|| UnknownDatatype(text.chars().take(40).collect()))
    }
}

/// A shape as people read it: `[1,3,224,224]`, `[]` for a scalar, `-1` for a dynamic axis.
pub struct ShapeText<'a, T>(pub &'a [T]);

impl<T: fmt::Display> fmt::Display for ShapeText<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (axis, dim) in self.0.iter().enumerate() {
            if axis > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// Why some bytes are not the tensor they are said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum TensorError {
    #[error("rank {0} is over the limit of {MAX_RANK} axes")]
    Rank(usize),
    #[error("shape {0} has more elements than memory could hold")]
    Overflow(String),
    #[error("{datatype} of shape {shape} takes {wanted} bytes, and {given} were given")]
    ByteCount { datatype: Datatype, shape: String, wanted: usize, given: usize },
    #[error("BYTES of shape {shape} has {wanted} elements, and its data {problem}")]
    Elements { shape: String, wanted: usize, problem: String },
    #[error("BOOL holds only 0 and 1, and element {index} is {value}")]
    NotBool { index: usize, value: u8 },
}

/// The number of elements of `shape`: the product of its axes, 1 for a scalar.
///
/// # Errors
/// [`TensorError::Rank`] past [`MAX_RANK`] axes; [`TensorError::Overflow`] when the product does not
/// fit a `usize`.
pub fn element_count(shape: &[usize]) -> Result<usize, TensorError> {
    if shape.len() > MAX_RANK {
        return Err(TensorError::Rank(shape.len()));
    }
    // A zero anywhere makes the tensor empty, however large the other axes are.
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1usize, |count, dim| count.checked_mul(*dim))
        .ok_or_else(|| TensorError::Overflow(ShapeText(shape).to_string()))
}

/// A tensor: its datatype, shape and bytes, which are known to agree.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    datatype: Datatype,
    shape: Vec<usize>,
    data: Bytes,
}

/// A tensor and the name it goes by, as graphs, guests and protocols pass it.
pub type NamedTensor = (String, Tensor);

/// Bytes of all `tensors` together.
pub fn total_bytes(tensors: &[NamedTensor]) -> u64 {
    tensors.iter().map(|(_, tensor)| tensor.data().len() as u64).sum()
}

impl Tensor {
    /// A tensor over `data`, which is checked against `datatype` and `shape`.
    ///
    /// # Errors
    /// When the shape is impossible or the bytes do not match it; see [`TensorError`].
    pub fn new(datatype: Datatype, shape: Vec<usize>, data: Bytes) -> Result<Self, TensorError> {
        let elements = element_count(&shape)?;
        match datatype.size() {
            Some(size) => check_byte_count(datatype, &shape, elements, size, data.len())?,
            None => check_bytes_elements(&shape, elements, &data)?,
        }
        if datatype == Datatype::Bool
            && let Some(index) = data.iter().position(|b| *b > 1)
        {
            let value = data.get(index).copied().unwrap_or_default();
            return Err(TensorError::NotBool { index, value });
        }
        Ok(Self { datatype, shape, data })
    }

    /// The type of every element.
    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// The length of each axis; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, in the protocol's binary form.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// How many elements there are.
    pub fn element_count(&self) -> usize {
        // The constructor proved that there is a count; a plain product would overflow on its way to
        // the zero that makes `[usize::MAX, 2, 0]` empty.
        element_count(&self.shape).unwrap_or_default()
    }

    /// The same tensor with its data at a multiple of [`ALIGNMENT`]; copies only if it is not yet.
    #[must_use]
    pub fn aligned(&self) -> Self {
        if self.data.as_ptr().align_offset(ALIGNMENT) == 0 {
            return self.clone();
        }
        let mut buffer = AlignedBuffer::with_capacity(self.data.len());
        buffer.extend(&self.data);
        Self { datatype: self.datatype, shape: self.shape.clone(), data: buffer.freeze() }
    }

    /// `count` rows from `start` on: a view.
    ///
    /// # Errors
    /// When it has no rows of equal size, or not those.
    pub fn rows(&self, start: usize, count: usize) -> Result<Self, String> {
        let (Some(size), Some((rows, rest))) = (self.datatype.size(), self.shape.split_first())
        else {
            return Err(format!("{self:?} has no rows of equal size"));
        };
        if start.checked_add(count).is_none_or(|end| end > *rows) {
            return Err(format!(
                "rows {start} to {start} + {count} reach past the {rows} there are"
            ));
        }
        let row = rest.iter().product::<usize>() * size;
        let data = self.data.slice(start * row..(start + count) * row);
        let shape = std::iter::once(count).chain(rest.iter().copied()).collect();
        // A part of a tensor that was checked.
        Ok(Self { datatype: self.datatype, shape, data })
    }

    /// The elements of a BYTES tensor, without their length prefixes; empty for other datatypes.
    pub fn bytes_elements(&self) -> impl Iterator<Item = &[u8]> {
        let data: &[u8] = if self.datatype == Datatype::Bytes { &self.data } else { &[] };
        BytesElements(data).map_while(Result::ok)
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Data belongs to a tenant: it never reaches a log by way of a debug print.
        write!(f, "{} {} ({} bytes)", self.datatype, ShapeText(&self.shape), self.data.len())
    }
}

fn check_byte_count(
    datatype: Datatype,
    shape: &[usize],
    elements: usize,
    size: usize,
    given: usize,
) -> Result<(), TensorError> {
    let wanted = elements
        .checked_mul(size)
        .ok_or_else(|| TensorError::Overflow(ShapeText(shape).to_string()))?;
    if wanted == given {
        return Ok(());
    }
    Err(TensorError::ByteCount { datatype, shape: ShapeText(shape).to_string(), wanted, given })
}

fn check_bytes_elements(shape: &[usize], wanted: usize, data: &[u8]) -> Result<(), TensorError> {
    let elements = |problem: String| TensorError::Elements {
        shape: ShapeText(shape).to_string(),
        wanted,
        problem,
    };
    let mut count = 0usize;
    for element in BytesElements(data) {
        element.map_err(|end| elements(format!("ends inside element {count} ({end})")))?;
        count += 1;
        if count > wanted {
            return Err(elements("holds more".to_owned()));
        }
    }
    if count == wanted { Ok(()) } else { Err(elements(format!("holds {count}"))) }
}

/// Walks length-prefixed elements; yields an error once where the data ends too early.
struct BytesElements<'a>(&'a [u8]);

impl<'a> Iterator for BytesElements<'a> {
    type Item = Result<&'a [u8], &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((prefix, rest)) = self.0.split_first_chunk::<4>() else {
            self.0 = &[];
            return Some(Err("less than a length prefix is left"));
        };
        let Some((element, rest)) = rest.split_at_checked(u32::from_le_bytes(*prefix) as usize)
        else {
            self.0 = &[];
            return Some(Err("its length prefix points past the end"));
        };
        self.0 = rest;
        Some(Ok(element))
    }
}

/// Appends one BYTES element, behind its length, to `out`.
///
/// # Errors
/// When the element is longer than a `u32` can say.
pub fn push_bytes_element(out: &mut Vec<u8>, element: &[u8]) -> Result<(), TensorError> {
    let length = u32::try_from(element.len())
        .map_err(|_| TensorError::Overflow(format!("an element of {} bytes", element.len())))?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(element);
    Ok(())
}

/// A growing buffer whose first byte, or a chosen later one, is aligned to [`ALIGNMENT`].
///
/// Built from a plain vector with room for a lead-in, so that no `unsafe` is needed.
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    /// Bytes before the buffer's first one, there only to align it.
    lead: usize,
}

impl AlignedBuffer {
    /// A buffer for `capacity` bytes, the first of which is aligned.
    pub fn with_capacity(capacity: usize) -> Self {
        Self::with_aligned_offset(capacity, 0)
    }

    /// A buffer for `capacity` bytes, of which the one at `offset` is aligned: a request's JSON part
    /// stands before its tensors, and it is the tensors that need it.
    pub fn with_aligned_offset(capacity: usize, offset: usize) -> Self {
        let mut bytes: Vec<u8> = Vec::with_capacity(capacity.saturating_add(ALIGNMENT));
        let address = bytes.as_ptr().addr().wrapping_add(offset);
        let lead = address.wrapping_neg() % ALIGNMENT;
        bytes.resize(lead, 0);
        Self { bytes, lead }
    }

    /// Appends `part`. Past the capacity the buffer moves and may lose its alignment, never its bytes.
    pub fn extend(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
    }

    /// Bytes held so far.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.lead
    }

    /// Whether nothing is held yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, shared from here on, where they stand.
    pub fn freeze(self) -> Bytes {
        Bytes::from(self.bytes).slice(self.lead..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_has_exactly_the_bytes_of_its_shape() {
        let data = Bytes::from(vec![0; 24]);
        assert!(Tensor::new(Datatype::Fp32, vec![2, 3], data.clone()).is_ok());
        let error = Tensor::new(Datatype::Fp32, vec![2, 2], data.clone()).unwrap_err();
        assert_eq!(error.to_string(), "FP32 of shape [2,2] takes 16 bytes, and 24 were given");
        assert!(Tensor::new(Datatype::Fp64, vec![], data.slice(..8)).is_ok());
        let empty = Tensor::new(Datatype::Fp64, vec![usize::MAX, usize::MAX, 0], Bytes::new());
        assert_eq!(empty.unwrap().element_count(), 0);
        assert!(Tensor::new(Datatype::Fp64, vec![usize::MAX, 2], Bytes::new()).is_err());
        assert!(Tensor::new(Datatype::Fp64, vec![usize::MAX / 2], Bytes::new()).is_err());
        assert!(Tensor::new(Datatype::Uint8, vec![1; 33], data.slice(..1)).is_err());
    }

    #[test]
    fn bytes_elements_are_counted_and_bounded() {
        let mut data = Vec::new();
        push_bytes_element(&mut data, b"one").unwrap();
        push_bytes_element(&mut data, b"").unwrap();
        let tensor = Tensor::new(Datatype::Bytes, vec![2], data.clone().into()).unwrap();
        assert_eq!(tensor.bytes_elements().collect::<Vec<_>>(), [&b"one"[..], b""]);
        assert!(Tensor::new(Datatype::Bytes, vec![1], data.clone().into()).is_err());
        assert!(Tensor::new(Datatype::Bytes, vec![3], data.clone().into()).is_err());
        data.pop();
        data.pop();
        assert!(Tensor::new(Datatype::Bytes, vec![2], data.into()).is_err());
    }

    #[test]
    fn a_bool_is_zero_or_one() {
        let error = Tensor::new(Datatype::Bool, vec![2], Bytes::from_static(&[1, 2])).unwrap_err();
        assert_eq!(error, TensorError::NotBool { index: 1, value: 2 });
    }

    #[test]
    fn the_chosen_byte_is_aligned() {
        for offset in [0, 1, 63, 64, 1000] {
            let mut buffer = AlignedBuffer::with_aligned_offset(2000, offset);
            buffer.extend(&[7; 2000]);
            let bytes = buffer.freeze();
            assert_eq!(bytes.len(), 2000);
            assert_eq!((bytes.as_ptr().addr() + offset) % ALIGNMENT, 0);
        }
    }

    #[test]
    fn alignment_is_restored_by_a_copy_and_only_then() {
        let mut buffer = AlignedBuffer::with_capacity(100);
        buffer.extend(&[1; 100]);
        let bytes = buffer.freeze();
        let odd = Tensor::new(Datatype::Uint8, vec![99], bytes.slice(1..)).unwrap();
        let even = Tensor::new(Datatype::Uint8, vec![100], bytes).unwrap();
        assert_eq!(even.aligned().data().as_ptr(), even.data().as_ptr());
        assert_eq!(odd.aligned().data().as_ptr().addr() % ALIGNMENT, 0);
        assert_eq!(odd.aligned(), odd);
    }
}
