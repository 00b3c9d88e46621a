//! Binary tensors: bytes that agree with a datatype and a shape, and both ways to write them down.

use bytes::Bytes;
use modelet_host::http::oip::DecodeLimits;
use modelet_host::tensor::{
    ALIGNMENT, Datatype, MAX_RANK, Tensor, element_count, push_bytes_element,
};

use crate::Outcome;
use crate::oip::check_answers;

/// The longest data that is also written as JSON and read back; the rest is only checked.
const WRITTEN_BYTES: usize = 4 << 10;

/// A byte for the datatype, one for the rank, one for each axis, and the data.
///
/// # Panics
/// When a property of the decoder does not hold.
pub fn tensor(data: &[u8]) -> Outcome {
    let Some((datatype, shape, data)) = declared(data) else { return Outcome::Refused };
    let count = element_count(&shape);
    let made = Tensor::new(datatype, shape.clone(), Bytes::copy_from_slice(data));
    let tensor = match made {
        Ok(tensor) => tensor,
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && said.len() < 2_000, "{said}");
            return Outcome::Refused;
        }
    };
    assert_eq!((tensor.datatype(), tensor.shape()), (datatype, &*shape));
    assert_eq!(&**tensor.data(), data);
    check(&tensor);
    assert_eq!(Ok(tensor.element_count()), count);
    assert_eq!(tensor.aligned(), tensor);
    assert_eq!(tensor.aligned().data().as_ptr().align_offset(ALIGNMENT), 0);
    let limit = DecodeLimits::default().tensor_elements;
    if data.len() <= WRITTEN_BYTES && shape.iter().all(|axis| *axis <= limit) {
        check_answers(&[("x".to_owned(), tensor)]);
    }
    Outcome::Accepted
}

/// What holds of every tensor, wherever it came from.
pub(crate) fn check(tensor: &Tensor) {
    assert!(tensor.shape().len() <= MAX_RANK, "rank {}", tensor.shape().len());
    let elements = tensor.element_count();
    match tensor.datatype().size() {
        Some(size) => {
            assert_eq!(elements.checked_mul(size), Some(tensor.data().len()), "{tensor:?}");
            assert_eq!(tensor.bytes_elements().count(), 0);
        }
        None => {
            let mut again = Vec::new();
            for element in tensor.bytes_elements() {
                push_bytes_element(&mut again, element).expect("it had a length before");
            }
            assert_eq!(again, &**tensor.data(), "{tensor:?}");
            assert_eq!(tensor.bytes_elements().count(), elements, "{tensor:?}");
        }
    }
    if tensor.datatype() == Datatype::Bool {
        assert!(tensor.data().iter().all(|byte| *byte <= 1), "{tensor:?}");
    }
}

/// The datatype and shape that the first bytes say, and the data after them.
pub(crate) fn declared(data: &[u8]) -> Option<(Datatype, Vec<usize>, &[u8])> {
    let (datatype, data) = data.split_first()?;
    let (rank, data) = data.split_first()?;
    // One more than there may be, so that the limit is met too.
    let (axes, data) = data.split_at_checked(usize::from(*rank) % (MAX_RANK + 2))?;
    let datatype = Datatype::ALL.get(usize::from(*datatype) % Datatype::ALL.len())?;
    Some((*datatype, axes.iter().map(|axis| length(*axis)).collect(), data))
}

/// Short axes are themselves; the last values stand for lengths that overflow something.
fn length(axis: u8) -> usize {
    match axis {
        255 => usize::MAX,
        254 => usize::MAX / 2 + 1,
        253 => 1 << 32,
        252 => (1 << 26) + 1,
        short => usize::from(short),
    }
}
