//! The classification extension: an output as its highest values, instead of as a tensor.
//!
//! Each class is one BYTES element, `value:index`. Labels are assets of a model that not all models
//! have, so the protocol's optional third part is left out.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fmt::Display;

use super::error::Failure;
use crate::tensor::{AlignedBuffer, Datatype, Tensor};

/// The `count` highest values of `tensor`, or of each row where axis 0 is a batch, highest first:
/// BYTES of shape `[count]` or `[rows, count]`, with fewer classes where a row has fewer elements.
pub(super) fn classify(tensor: &Tensor, count: u32, is_batch: bool) -> Result<Tensor, Failure> {
    let data = tensor.data();
    let rows = match tensor.shape().split_first() {
        Some((rows, _)) if is_batch => Some(*rows),
        _ => None,
    };
    let elements = tensor.element_count().checked_div(rows.unwrap_or(1)).unwrap_or(0);
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(elements);
    let classes = match tensor.datatype() {
        Datatype::Uint8 => classes(data, u8::from_le_bytes, elements, count),
        Datatype::Uint16 => classes(data, u16::from_le_bytes, elements, count),
        Datatype::Uint32 => classes(data, u32::from_le_bytes, elements, count),
        Datatype::Uint64 => classes(data, u64::from_le_bytes, elements, count),
        Datatype::Int8 => classes(data, i8::from_le_bytes, elements, count),
        Datatype::Int16 => classes(data, i16::from_le_bytes, elements, count),
        Datatype::Int32 => classes(data, i32::from_le_bytes, elements, count),
        Datatype::Int64 => classes(data, i64::from_le_bytes, elements, count),
        Datatype::Fp32 => classes(data, |b| Fp32(f32::from_le_bytes(b)), elements, count),
        Datatype::Fp64 => classes(data, |b| Fp64(f64::from_le_bytes(b)), elements, count),
        other @ (Datatype::Bool | Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes) => {
            return Err(Failure::NoClasses(other));
        }
    };
    let shape = rows.into_iter().chain([count]).collect();
    Ok(Tensor::new(Datatype::Bytes, shape, classes)
        .expect("each of the rows above wrote as many elements as the shape says"))
}

/// The classes of each row of `elements` values, as BYTES elements.
fn classes<T: Ord + Copy + Display, const N: usize>(
    data: &[u8],
    value: impl Fn([u8; N]) -> T,
    elements: usize,
    count: usize,
) -> bytes::Bytes {
    let mut out = AlignedBuffer::with_capacity(0);
    // A row of no elements has no classes, and `chunks` refuses a length of zero.
    for row in data.as_chunks().0.chunks(elements.max(1)) {
        for (value, index) in highest(row.iter().map(|bytes| value(*bytes)), count) {
            let class = format!("{value}:{index}");
            // Two numbers and a colon: some twenty to four hundred bytes.
            out.extend(&(class.len() as u32).to_le_bytes());
            out.extend(class.as_bytes());
        }
    }
    out.freeze()
}

/// The `count` highest values with their indexes, highest first; of equal ones the earlier first.
fn highest<T: Ord>(values: impl Iterator<Item = T>, count: usize) -> Vec<(T, usize)> {
    // The least of those kept is on top, so a heap of `count` suffices however many values there are.
    let mut kept = BinaryHeap::new();
    for (index, value) in values.enumerate() {
        kept.push(Reverse((value, Reverse(index))));
        if kept.len() > count {
            kept.pop();
        }
    }
    let highest_first = kept.into_sorted_vec().into_iter();
    highest_first.map(|Reverse((value, Reverse(index)))| (value, index)).collect()
}

macro_rules! ordered_float {
    ($($name:ident($float:ty))*) => {$(
        /// A float with an order: NaN below all numbers, since it is no one's best class.
        #[derive(Clone, Copy)]
        struct $name($float);

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                match (self.0.is_nan(), other.0.is_nan()) {
                    // Zeros compare equal, whatever their sign.
                    (false, false) => self.0.partial_cmp(&other.0).unwrap_or(Ordering::Equal),
                    (this, other) => other.cmp(&this),
                }
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other) == Ordering::Equal
            }
        }

        impl Eq for $name {}

        impl Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ordered_float!(Fp32(f32) Fp64(f64));

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn classes_of(tensor: &Tensor, count: u32, is_batch: bool) -> (Vec<usize>, Vec<String>) {
        let classes = classify(tensor, count, is_batch).unwrap();
        let text = |element: &[u8]| String::from_utf8(element.to_vec()).unwrap();
        (classes.shape().to_vec(), classes.bytes_elements().map(text).collect())
    }

    fn floats(values: &[f32], shape: &[usize]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor::new(Datatype::Fp32, shape.to_vec(), data.into()).unwrap()
    }

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_highest_values_come_first_and_equal_ones_in_order() {
        let tensor = floats(&[1.0, 5.0, 10.5, 4.0, 5.0, f32::NAN], &[6]);
        assert_eq!(
            classes_of(&tensor, 4, false),
            (vec![4], owned(&["10.5:2", "5:1", "5:4", "4:3"]))
        );
        let all = classes_of(&tensor, 100, false).1;
        assert_eq!((all.len(), all[5].as_str()), (6, "NaN:5"));
    }

    #[test]
    fn a_batch_is_classified_row_by_row() {
        let tensor = floats(&[1.0, 2.0, 4.0, 3.0], &[2, 2]);
        assert_eq!(classes_of(&tensor, 1, true), (vec![2, 1], owned(&["2:1", "4:0"])));
        assert_eq!(classes_of(&tensor, 1, false), (vec![1], owned(&["4:2"])));
        assert_eq!(classes_of(&floats(&[], &[0, 2]), 1, true), (vec![0, 0], vec![]));
        assert_eq!(classes_of(&floats(&[], &[2, 0]), 1, true), (vec![2, 0], vec![]));
    }

    #[test]
    fn whole_numbers_keep_their_digits() {
        let data: Vec<u8> = [u64::MAX, u64::MAX - 1].iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = Tensor::new(Datatype::Uint64, vec![2], data.into()).unwrap();
        assert_eq!(classes_of(&tensor, 1, false).1, ["18446744073709551615:0"]);
    }

    #[test]
    fn text_and_half_floats_have_no_classes() {
        let tensor = Tensor::new(Datatype::Fp16, vec![1], Bytes::from_static(&[0, 0])).unwrap();
        assert_eq!(classify(&tensor, 1, false), Err(Failure::NoClasses(Datatype::Fp16)));
    }
}
