//! The element types of tensors, and how their bytes are read and written.

use std::borrow::Cow;
use std::fmt;

/// The element types of the Open Inference Protocol, with BF16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the protocol's own names say all")]
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

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_uppercase())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A type that tensors have elements of: the numbers, `bool`, `String` for text, `Vec<u8>` for bytes
/// of any kind, and with the feature `half` its `f16` and `bf16`.
pub trait Element: sealed::Sealed + Clone + fmt::Debug + 'static {
    /// What the protocol calls it.
    const DATATYPE: Datatype;
    /// Whether some bytes are no elements, so that a tensor is checked before the model sees it.
    #[doc(hidden)]
    const CHECKED: bool;
    /// The bytes as elements, without a copy, where that can be.
    #[doc(hidden)]
    fn view(bytes: &[u8]) -> Option<&[Self]>;
    /// The elements that the bytes stand for.
    #[doc(hidden)]
    fn decode(bytes: &[u8]) -> Result<Vec<Self>, String>;
    /// The bytes of elements.
    #[doc(hidden)]
    fn encode(elements: &[Self]) -> Cow<'_, [u8]>;
}

/// Elements whose bytes in a tensor are those in memory: little-endian, as WebAssembly is.
macro_rules! plain {
    ($($type:ty => $datatype:ident),*) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DATATYPE: Datatype = Datatype::$datatype;
            const CHECKED: bool = false;
            fn view(bytes: &[u8]) -> Option<&[Self]> {
                bytemuck::try_cast_slice(bytes).ok()
            }
            fn decode(bytes: &[u8]) -> Result<Vec<Self>, String> {
                Ok(bytemuck::pod_collect_to_vec(bytes))
            }
            fn encode(elements: &[Self]) -> Cow<'_, [u8]> {
                Cow::Borrowed(bytemuck::cast_slice(elements))
            }
        }
    )*};
}

plain!(
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    f32 => Fp32, f64 => Fp64
);
#[cfg(feature = "half")]
plain!(half::f16 => Fp16, half::bf16 => Bf16);

#[cfg(target_endian = "big")]
compile_error!("tensors are little-endian, and so must be the machine that tests run on");

impl sealed::Sealed for bool {}
impl Element for bool {
    const DATATYPE: Datatype = Datatype::Bool;
    const CHECKED: bool = true;
    fn view(bytes: &[u8]) -> Option<&[Self]> {
        bytemuck::checked::try_cast_slice(bytes).ok()
    }
    fn decode(bytes: &[u8]) -> Result<Vec<Self>, String> {
        let one = |(index, byte): (usize, &u8)| match byte {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("element {index} is {other}; a BOOL is 0 or 1")),
        };
        bytes.iter().enumerate().map(one).collect()
    }
    fn encode(elements: &[Self]) -> Cow<'_, [u8]> {
        Cow::Borrowed(bytemuck::cast_slice(elements))
    }
}

impl sealed::Sealed for Vec<u8> {}
impl Element for Vec<u8> {
    const DATATYPE: Datatype = Datatype::Bytes;
    const CHECKED: bool = true;
    fn view(_: &[u8]) -> Option<&[Self]> {
        None
    }
    fn decode(bytes: &[u8]) -> Result<Vec<Self>, String> {
        prefixed(bytes).map(|element| element.map(<[u8]>::to_vec)).collect()
    }
    fn encode(elements: &[Self]) -> Cow<'_, [u8]> {
        Cow::Owned(with_prefixes(elements.iter().map(Vec::as_slice)))
    }
}

impl sealed::Sealed for String {}
impl Element for String {
    const DATATYPE: Datatype = Datatype::Bytes;
    const CHECKED: bool = true;
    fn view(_: &[u8]) -> Option<&[Self]> {
        None
    }
    fn decode(bytes: &[u8]) -> Result<Vec<Self>, String> {
        let text = |(index, element): (usize, Result<&[u8], String>)| {
            let text = std::str::from_utf8(element?);
            text.map(str::to_owned).map_err(|error| format!("element {index} is no text: {error}"))
        };
        prefixed(bytes).enumerate().map(text).collect()
    }
    fn encode(elements: &[Self]) -> Cow<'_, [u8]> {
        Cow::Owned(with_prefixes(elements.iter().map(String::as_bytes)))
    }
}

/// The elements of BYTES: each behind its length as a little-endian u32.
fn prefixed(mut bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], String>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let element = bytes.split_first_chunk().and_then(|(length, rest)| {
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
        });
        let Some((element, rest)) = element else {
            bytes = &[];
            return Some(Err("it ends within an element".to_owned()));
        };
        bytes = rest;
        Some(Ok(element))
    })
}

fn with_prefixes<'a>(elements: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for element in elements {
        // A guest's memory ends at 4 GiB, and the host's limits long before.
        bytes.extend_from_slice(&(element.len() as u32).to_le_bytes());
        bytes.extend_from_slice(element);
    }
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that is wrong may panic")]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_protocols() {
        let names = [Datatype::Bool, Datatype::Uint8, Datatype::Fp32, Datatype::Bf16];
        assert_eq!(names.map(|name| name.to_string()), ["BOOL", "UINT8", "FP32", "BF16"]);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let texts = ["", "a", "Grüße, 世界"].map(str::to_owned);
        assert_eq!(String::decode(&String::encode(&texts)).unwrap(), texts);
        let bytes = [vec![], vec![255, 0, 1]];
        assert_eq!(Vec::decode(&Vec::encode(&bytes)).unwrap(), bytes);
        let numbers = [1.5f32, -0.0, f32::INFINITY];
        assert_eq!(f32::decode(&f32::encode(&numbers)).unwrap(), numbers);
        assert_eq!(bool::decode(&bool::encode(&[true, false])).unwrap(), [true, false]);
    }

    #[test]
    fn bytes_that_are_no_elements_are_told_by_place() {
        assert!(bool::decode(&[0, 1, 2]).unwrap_err().contains("element 2 is 2"));
        assert!(String::decode(b"\x01\0\0\0a\x01\0\0\0\xff").unwrap_err().contains("element 1"));
        for torn in [&b"\x02\0\0\0a"[..], b"\0\0\0", b"\xff\xff\xff\xff"] {
            assert!(Vec::<u8>::decode(torn).unwrap_err().contains("ends within"), "{torn:?}");
        }
    }
}
