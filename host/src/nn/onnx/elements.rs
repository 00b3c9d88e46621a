//! The element types of ONNX: their numbers, their names, and the datatypes they are to callers.

use crate::tensor::{Datatype, MAX_RANK, ShapeText};

/// FLOAT.
pub const FLOAT: i32 = 1;
/// UINT8.
pub const UINT8: i32 = 2;
/// INT8.
pub const INT8: i32 = 3;
/// UINT16.
pub const UINT16: i32 = 4;
/// INT16.
pub const INT16: i32 = 5;
/// INT32.
pub const INT32: i32 = 6;
/// INT64.
pub const INT64: i32 = 7;
/// STRING.
pub const STRING: i32 = 8;
/// BOOL.
pub const BOOL: i32 = 9;
/// FLOAT16.
pub const FLOAT16: i32 = 10;
/// DOUBLE.
pub const DOUBLE: i32 = 11;
/// UINT32.
pub const UINT32: i32 = 12;
/// UINT64.
pub const UINT64: i32 = 13;
/// BFLOAT16.
pub const BFLOAT16: i32 = 16;

/// The schema's name of each element type, by number.
const NAMES: [&str; 29] = [
    "UNDEFINED",
    "FLOAT",
    "UINT8",
    "INT8",
    "UINT16",
    "INT16",
    "INT32",
    "INT64",
    "STRING",
    "BOOL",
    "FLOAT16",
    "DOUBLE",
    "UINT32",
    "UINT64",
    "COMPLEX64",
    "COMPLEX128",
    "BFLOAT16",
    "FLOAT8E4M3FN",
    "FLOAT8E4M3FNUZ",
    "FLOAT8E5M2",
    "FLOAT8E5M2FNUZ",
    "UINT4",
    "INT4",
    "FLOAT4E2M1",
    "FLOAT8E8M0",
    "UINT2",
    "INT2",
    "FLOAT6E2M3",
    "FLOAT6E3M2",
];

/// The schema's name of element type `number`, such as `FLOAT16`; `type 99` for one it lacks.
pub fn name(number: i32) -> String {
    let known = usize::try_from(number).ok().and_then(|index| NAMES.get(index));
    known.map_or_else(|| format!("type {number}"), |name| (*name).to_owned())
}

/// The datatype that callers know element type `number` by; none for those without one.
pub fn datatype(number: i32) -> Option<Datatype> {
    Some(match number {
        FLOAT => Datatype::Fp32,
        UINT8 => Datatype::Uint8,
        INT8 => Datatype::Int8,
        UINT16 => Datatype::Uint16,
        INT16 => Datatype::Int16,
        INT32 => Datatype::Int32,
        INT64 => Datatype::Int64,
        STRING => Datatype::Bytes,
        BOOL => Datatype::Bool,
        FLOAT16 => Datatype::Fp16,
        DOUBLE => Datatype::Fp64,
        UINT32 => Datatype::Uint32,
        UINT64 => Datatype::Uint64,
        BFLOAT16 => Datatype::Bf16,
        _ => return None,
    })
}

/// The element type that `datatype` is in ONNX.
pub const fn number(datatype: Datatype) -> i32 {
    match datatype {
        Datatype::Fp32 => FLOAT,
        Datatype::Uint8 => UINT8,
        Datatype::Int8 => INT8,
        Datatype::Uint16 => UINT16,
        Datatype::Int16 => INT16,
        Datatype::Int32 => INT32,
        Datatype::Int64 => INT64,
        Datatype::Bytes => STRING,
        Datatype::Bool => BOOL,
        Datatype::Fp16 => FLOAT16,
        Datatype::Fp64 => DOUBLE,
        Datatype::Uint32 => UINT32,
        Datatype::Uint64 => UINT64,
        Datatype::Bf16 => BFLOAT16,
    }
}

/// Bits of one element of type `number` in `raw_data`; none for STRING and types not known here.
pub fn bits(number: i32) -> Option<u64> {
    match (datatype(number), number) {
        (Some(known), _) => known.size().map(|bytes| bytes as u64 * 8),
        // COMPLEX64 and COMPLEX128.
        (None, 14) => Some(64),
        (None, 15) => Some(128),
        // The floats of eight bits; then those of four, and the integers of four and two.
        (None, 17..=20 | 24) => Some(8),
        (None, 21..=23) => Some(4),
        (None, 25 | 26) => Some(2),
        (None, _) => None,
    }
}

/// Why no tensor of `datatype` can have these axes, if so: their product, in bytes, must be a size that
/// there can be. Engines multiply without looking, and read past what they have where it overflows.
pub(super) fn impossible(dims: &[i64], datatype: i32) -> Option<String> {
    if let Some(dim) = dims.iter().find(|dim| **dim < 0) {
        return Some(format!("it has an axis of {dim}"));
    }
    if dims.len() > MAX_RANK {
        return Some(format!("it has {} axes, over the limit of {MAX_RANK}", dims.len()));
    }
    // A zero is counted as one: not every engine looks for it before it multiplies.
    let bytes = bits(datatype).unwrap_or(64).div_ceil(8);
    let bytes = dims.iter().try_fold(bytes, |product, dim| {
        product
            .checked_mul(u64::try_from(*dim).ok()?.max(1))
            .filter(|product| *product <= i64::MAX as u64)
    });
    bytes
        .is_none()
        .then(|| format!("its shape {} takes more bytes than there can be", ShapeText(dims)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datatype_has_its_element_type() {
        for wanted in Datatype::ALL {
            assert_eq!(datatype(number(wanted)), Some(wanted));
        }
    }

    #[test]
    fn element_types_without_a_datatype_still_have_names() {
        assert_eq!(datatype(17), None);
        assert_eq!(name(17), "FLOAT8E4M3FN");
        assert_eq!(name(-1), "type -1");
        assert_eq!(bits(21), Some(4));
        assert_eq!(bits(STRING), None);
    }
}
