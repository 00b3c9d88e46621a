//! A tensor as JSON `data`: flat, and in numbers that read back as exactly the same elements.

use serde::ser::{Error as _, Serialize, Serializer};

use super::error::Failure;
use crate::tensor::{Datatype, Tensor};

/// The elements of a tensor that JSON is known to be able to express, as one flat array.
pub(super) struct JsonData<'a>(&'a Tensor);

impl<'a> JsonData<'a> {
    /// Checks every element first, so that writing cannot fail halfway through an answer.
    pub(super) fn new(tensor: &'a Tensor) -> Result<Self, Failure> {
        let data = tensor.data();
        match tensor.datatype() {
            Datatype::Fp16 | Datatype::Bf16 => return Err(Failure::OnlyBinary(tensor.datatype())),
            Datatype::Fp32 => all_finite(data, |b| f32::from_le_bytes(b).is_finite())?,
            Datatype::Fp64 => all_finite(data, |b| f64::from_le_bytes(b).is_finite())?,
            Datatype::Bytes => {
                let broken = tensor.bytes_elements().position(|e| std::str::from_utf8(e).is_err());
                if let Some(index) = broken {
                    return Err(Failure::NotUtf8 { index });
                }
            }
            _ => {}
        }
        Ok(Self(tensor))
    }

    /// About how many bytes the array takes, to allocate an answer once.
    pub(super) fn estimate(&self) -> usize {
        let per_element = match self.0.datatype() {
            Datatype::Bool => 6,
            Datatype::Uint8 | Datatype::Int8 => 4,
            Datatype::Uint16 | Datatype::Int16 => 6,
            Datatype::Fp64 => 20,
            Datatype::Bytes => return self.0.data().len(),
            _ => 12,
        };
        self.0.element_count().saturating_mul(per_element)
    }
}

/// The elements of a tensor as one flat JSON array, for protocols beside this one.
///
/// # Errors
/// Which element JSON cannot express.
pub fn json_elements(tensor: &Tensor) -> Result<serde_json::Value, String> {
    let data = JsonData::new(tensor).map_err(|failure| failure.to_string())?;
    serde_json::to_value(&data).map_err(|error| error.to_string())
}

impl Serialize for JsonData<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let data = self.0.data();
        match self.0.datatype() {
            Datatype::Bool => to.collect_seq(data.iter().map(|b| *b != 0)),
            Datatype::Uint8 => to.collect_seq(data.iter()),
            Datatype::Uint16 => write(to, data, u16::from_le_bytes),
            Datatype::Uint32 => write(to, data, u32::from_le_bytes),
            Datatype::Uint64 => write(to, data, u64::from_le_bytes),
            Datatype::Int8 => write(to, data, i8::from_le_bytes),
            Datatype::Int16 => write(to, data, i16::from_le_bytes),
            Datatype::Int32 => write(to, data, i32::from_le_bytes),
            Datatype::Int64 => write(to, data, i64::from_le_bytes),
            Datatype::Fp32 => write(to, data, f32::from_le_bytes),
            Datatype::Fp64 => write(to, data, f64::from_le_bytes),
            Datatype::Fp16 | Datatype::Bf16 => Err(S::Error::custom("checked when it was made")),
            Datatype::Bytes => {
                to.collect_seq(self.0.bytes_elements().map(|e| String::from_utf8_lossy(e)))
            }
        }
    }
}

fn all_finite<const N: usize>(data: &[u8], is_finite: fn([u8; N]) -> bool) -> Result<(), Failure> {
    match data.as_chunks().0.iter().position(|bytes| !is_finite(*bytes)) {
        Some(index) => Err(Failure::NotFinite { index }),
        None => Ok(()),
    }
}

fn write<S: Serializer, T: Serialize, const N: usize>(
    to: S,
    data: &[u8],
    number: fn([u8; N]) -> T,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(data.as_chunks().0.iter().map(|bytes| number(*bytes)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn written(datatype: Datatype, data: &[u8], count: usize) -> Result<String, String> {
        let tensor = Tensor::new(datatype, vec![count], Bytes::copy_from_slice(data)).unwrap();
        let data = JsonData::new(&tensor).map_err(|failure| failure.to_string())?;
        Ok(serde_json::to_string(&data).unwrap())
    }

    #[test]
    fn elements_are_written_flat_and_short() {
        let floats = [0.1f32, -0.0, 1e-7, 16_777_216.0].map(f32::to_le_bytes).concat();
        assert_eq!(written(Datatype::Fp32, &floats, 4).unwrap(), "[0.1,-0.0,1e-7,16777216.0]");
        assert_eq!(written(Datatype::Bool, &[0, 1], 2).unwrap(), "[false,true]");
        let integers = [i64::MIN, i64::MAX].map(i64::to_le_bytes).concat();
        assert_eq!(
            written(Datatype::Int64, &integers, 2).unwrap(),
            "[-9223372036854775808,9223372036854775807]"
        );
        assert_eq!(written(Datatype::Bytes, b"\x03\0\0\0a\"\n", 1).unwrap(), r#"["a\"\n"]"#);
        assert_eq!(written(Datatype::Uint8, &[], 0).unwrap(), "[]");
    }

    #[test]
    fn what_json_cannot_express_is_refused_with_the_element() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let data = [1.0, bad].map(f32::to_le_bytes).concat();
            assert_eq!(
                written(Datatype::Fp32, &data, 2).unwrap_err(),
                "holds NaN or infinity at element 1, which JSON cannot express; ask for it with \
                 binary_data=true"
            );
        }
        let error = written(Datatype::Fp64, &f64::NAN.to_le_bytes(), 1).unwrap_err();
        assert!(error.contains("at element 0"), "{error}");
        let error = written(Datatype::Bytes, b"\0\0\0\0\x01\0\0\0\xff", 2).unwrap_err();
        assert!(error.starts_with("is not UTF-8 at element 1, which JSON cannot"), "{error}");
        for datatype in [Datatype::Fp16, Datatype::Bf16] {
            let error = written(datatype, &[0, 0], 1).unwrap_err();
            assert!(error.starts_with(&format!("is {datatype}, which JSON cannot")), "{error}");
        }
    }
}
