//! A tensor from its JSON `data`: nested to the shape or flat, parsed straight into an aligned
//! buffer, without a value per element in between.
//!
//! The text was found to be valid JSON when the request was taken apart. Numbers go through the
//! standard library's parser, which rounds correctly to the element's own type; serde_json's default
//! one may be off in the last place, and goes by way of a 64-bit float.

use std::borrow::Cow;
use std::str::FromStr;

use serde_json::value::RawValue;

use super::error::{Problem, excerpt};
use super::limits::Budget;
use crate::tensor::{AlignedBuffer, Datatype, MAX_RANK, ShapeText, Tensor, element_count};

/// Reads `data` as a tensor of `datatype` and `shape`, whose element count is known to be within the
/// limit. Memory taken is what the text can fill, and never more than the shape asks for.
pub(super) fn read(
    data: &RawValue,
    datatype: Datatype,
    shape: Vec<usize>,
    budget: &mut dyn Budget,
) -> Result<Tensor, Problem> {
    let text = data.get();
    let elements = element_count(&shape).map_err(Problem::Tensor)?;
    // Every element takes a character and a separator, so a short text cannot fill a large shape.
    let plausible = elements.min(text.len() / 2 + 1);
    let capacity = match datatype.size() {
        Some(size) => plausible * size,
        // An element's bytes are never more than its text, and a length stands before each.
        None => plausible * 4 + text.len(),
    };
    if !budget.take(capacity) {
        return Err(Problem::NoRoom { bytes: capacity });
    }
    let mut out = AlignedBuffer::with_capacity(capacity);
    let sink = Sink { datatype, shape: &shape, elements, out: &mut out };
    sink.fill(text)?;
    Tensor::new(datatype, shape, out.freeze()).map_err(Problem::Tensor)
}

/// One scalar of the text, with what is around it taken away.
#[derive(Clone, Copy)]
enum Scalar<'a> {
    Number(&'a str),
    /// With its quotes.
    String(&'a str),
    Bool(bool),
    Null,
    Object,
}

/// A type that numbers are parsed to and bytes made from.
trait Number: FromStr {
    /// `[u8; N]`.
    type LittleEndian: AsRef<[u8]>;

    fn little_endian(self) -> Self::LittleEndian;

    /// Whether the number is one JSON can have meant: floats past their range parse to infinity.
    fn is_number(&self) -> bool {
        true
    }
}

macro_rules! number {
    ($($type:ty)*) => {$(
        impl Number for $type {
            type LittleEndian = [u8; size_of::<$type>()];

            fn little_endian(self) -> Self::LittleEndian {
                self.to_le_bytes()
            }
        }
    )*};
}

number!(u8 u16 u32 u64 i8 i16 i32 i64);

impl Number for f32 {
    type LittleEndian = [u8; 4];

    fn little_endian(self) -> [u8; 4] {
        self.to_le_bytes()
    }

    fn is_number(&self) -> bool {
        self.is_finite()
    }
}

impl Number for f64 {
    type LittleEndian = [u8; 8];

    fn little_endian(self) -> [u8; 8] {
        self.to_le_bytes()
    }

    fn is_number(&self) -> bool {
        self.is_finite()
    }
}

/// Where elements go, and what is known of the tensor they make.
struct Sink<'a> {
    datatype: Datatype,
    shape: &'a [usize],
    elements: usize,
    out: &'a mut AlignedBuffer,
}

impl Sink<'_> {
    fn fill(self, text: &str) -> Result<(), Problem> {
        match self.datatype {
            Datatype::Bool => self.bools(text),
            Datatype::Uint8 => self.numbers::<u8>(text),
            Datatype::Uint16 => self.numbers::<u16>(text),
            Datatype::Uint32 => self.numbers::<u32>(text),
            Datatype::Uint64 => self.numbers::<u64>(text),
            Datatype::Int8 => self.numbers::<i8>(text),
            Datatype::Int16 => self.numbers::<i16>(text),
            Datatype::Int32 => self.numbers::<i32>(text),
            Datatype::Int64 => self.numbers::<i64>(text),
            Datatype::Fp32 => self.numbers::<f32>(text),
            Datatype::Fp64 => self.numbers::<f64>(text),
            Datatype::Fp16 | Datatype::Bf16 => Err(Problem::OnlyBinary(self.datatype)),
            Datatype::Bytes => self.strings(text),
        }
    }

    fn numbers<T: Number>(self, text: &str) -> Result<(), Problem> {
        let Self { datatype, shape, elements, out } = self;
        for_each_scalar(text, shape, elements, |index, scalar| {
            let number = match scalar {
                Scalar::Number(text) => text.parse::<T>().ok().filter(T::is_number),
                _ => None,
            };
            let number = number.ok_or_else(|| wrong_element(index, scalar, datatype))?;
            out.extend(number.little_endian().as_ref());
            Ok(())
        })
    }

    fn bools(self, text: &str) -> Result<(), Problem> {
        let Self { datatype, shape, elements, out } = self;
        for_each_scalar(text, shape, elements, |index, scalar| {
            let value = match scalar {
                Scalar::Bool(value) => u8::from(value),
                Scalar::Number("0") => 0,
                Scalar::Number("1") => 1,
                _ => return Err(wrong_element(index, scalar, datatype)),
            };
            out.extend(&[value]);
            Ok(())
        })
    }

    fn strings(self, text: &str) -> Result<(), Problem> {
        let Self { datatype, shape, elements, out } = self;
        for_each_scalar(text, shape, elements, |index, scalar| {
            let element = match scalar {
                Scalar::String(quoted) => unquote(quoted),
                _ => None,
            };
            let element = element.ok_or_else(|| wrong_element(index, scalar, datatype))?;
            let length =
                u32::try_from(element.len()).map_err(|_| wrong_element(index, scalar, datatype))?;
            out.extend(&length.to_le_bytes());
            out.extend(element.as_bytes());
            Ok(())
        })
    }
}

/// The text of a JSON string; `None` where its escapes make no text, as a lone surrogate does.
fn unquote(quoted: &str) -> Option<Cow<'_, str>> {
    if quoted.contains('\\') {
        return serde_json::from_str(quoted).ok().map(Cow::Owned);
    }
    quoted.strip_prefix('"')?.strip_suffix('"').map(Cow::Borrowed)
}

#[cold]
fn wrong_element(index: usize, scalar: Scalar<'_>, datatype: Datatype) -> Problem {
    let given = match scalar {
        Scalar::Number(text) => excerpt(text),
        Scalar::String(_) if datatype == Datatype::Bytes => "a string with broken escapes".into(),
        // What a string says is data, and of no use in a message.
        Scalar::String(_) => "a string".into(),
        Scalar::Bool(value) => value.to_string(),
        Scalar::Null => "null".into(),
        Scalar::Object => "an object".into(),
    };
    Problem::Element { index, given, datatype }
}

/// Calls `element` with the index and text of every scalar in order, at most `wanted` times, and
/// checks that the arrays around them are nested to `shape` or flat.
fn for_each_scalar<'a>(
    text: &'a str,
    shape: &[usize],
    wanted: usize,
    mut element: impl FnMut(usize, Scalar<'a>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut nesting = Nesting::new(shape);
    let mut rest = text;
    let mut given = 0usize;
    while let Some(first) = rest.bytes().next() {
        match first {
            b' ' | b'\t' | b'\n' | b'\r' | b',' => {}
            b'[' => nesting.open()?,
            b']' => nesting.close()?,
            _ => {
                nesting.scalar()?;
                let (scalar, after) = split_scalar(rest, first);
                // Past the end elements are only counted, for the message.
                if given < wanted {
                    element(given, scalar)?;
                }
                given += 1;
                rest = after;
                continue;
            }
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    if given == wanted {
        return Ok(());
    }
    Err(Problem::Count { given, wanted, shape: ShapeText(shape).to_string() })
}

/// Splits the scalar that `text` begins with from what follows it.
fn split_scalar(text: &str, first: u8) -> (Scalar<'_>, &str) {
    let split = |length: usize| text.split_at_checked(length).unwrap_or((text, ""));
    match first {
        b'"' => {
            let (quoted, rest) = split(quoted_length(text));
            (Scalar::String(quoted), rest)
        }
        b't' => (Scalar::Bool(true), split("true".len()).1),
        b'f' => (Scalar::Bool(false), split("false".len()).1),
        b'n' => (Scalar::Null, split("null".len()).1),
        // No datatype takes an object, so what follows its beginning is never looked at.
        b'{' => (Scalar::Object, ""),
        _ => {
            let is_number = |b: u8| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
            let length = text.bytes().position(|b| !is_number(b)).unwrap_or(text.len());
            // At least one character, so that nothing can make the walk stand still.
            let (number, rest) = split(length.max(1));
            (Scalar::Number(number), rest)
        }
    }
}

/// The bytes of the JSON string that `text` begins with, quotes included.
fn quoted_length(text: &str) -> usize {
    let mut escaped = true; // the opening quote does not close
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The arrays around the scalars: as deep as the shape has axes and as long as each, or one array
/// around all of them.
struct Nesting<'a> {
    shape: &'a [usize],
    /// How many arrays are open.
    depth: usize,
    /// How many are open around a scalar, once there was one.
    scalar_depth: Option<usize>,
    /// Entries of each open array, the outermost first.
    entries: [usize; MAX_RANK + 1],
}

impl<'a> Nesting<'a> {
    fn new(shape: &'a [usize]) -> Self {
        Self { shape, depth: 0, scalar_depth: None, entries: [0; MAX_RANK + 1] }
    }

    fn scalar(&mut self) -> Result<(), Problem> {
        if self.scalar_depth != Some(self.depth) {
            self.first_scalar()?;
        }
        self.add_entry();
        Ok(())
    }

    #[cold]
    fn first_scalar(&mut self) -> Result<(), Problem> {
        let rank = self.shape.len();
        if self.depth == 0 && rank > 0 {
            return Err(Problem::NotArray { shape: ShapeText(self.shape).to_string() });
        }
        if self.scalar_depth.is_some() || (self.depth != 1 && self.depth != rank) {
            return Err(self.broken());
        }
        self.scalar_depth = Some(self.depth);
        Ok(())
    }

    fn open(&mut self) -> Result<(), Problem> {
        let is_flat = self.scalar_depth == Some(1);
        if self.depth >= self.shape.len().max(1) || (is_flat && self.depth == 1) {
            return Err(self.broken());
        }
        self.add_entry();
        if let Some(entries) = self.entries.get_mut(self.depth) {
            *entries = 0;
        }
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        self.depth = self.depth.saturating_sub(1);
        let axis = self.depth;
        let given = self.entries.get(axis).copied().unwrap_or_default();
        let is_flat = self.shape.len() <= 1 || self.scalar_depth == Some(1);
        // An empty outermost array is a flat tensor of no elements; the count decides about it.
        let is_empty = axis == 0 && given == 0;
        match self.shape.get(axis) {
            Some(wanted) if !is_flat && !is_empty && given != *wanted => Err(Problem::Axis {
                given,
                axis,
                wanted: *wanted,
                shape: ShapeText(self.shape).to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Counts an entry of the innermost open array.
    fn add_entry(&mut self) {
        if let Some(entries) = self.depth.checked_sub(1).and_then(|at| self.entries.get_mut(at)) {
            *entries += 1;
        }
    }

    fn broken(&self) -> Problem {
        Problem::Nesting { shape: ShapeText(self.shape).to_string() }
    }
}

#[cfg(test)]
mod tests;
