//! Raw requests: a body without JSON, which is the one tensor of a one-input model.

use bytes::Bytes;

use super::error::{DecodeError, Problem};
use super::inputs::{check_elements, describe};
use super::limits::{Budget, DecodeLimits};
use super::parameters::Parameters;
use super::request::{InferRequest, RequestedOutputs};
use crate::tensor::{AlignedBuffer, Datatype, Tensor};
use crate::version::{Signature, TensorSpec};

/// What an error of such a request points at.
const PLACE: &str = "body";

/// Takes the whole body as the model's one input: batch 1, and at most one axis of open length.
pub(super) fn decode(
    body: Bytes,
    signature: &Signature,
    limits: &DecodeLimits,
    budget: &mut dyn Budget,
) -> Result<InferRequest, DecodeError> {
    let [spec] = signature.inputs.as_slice() else {
        let known = describe(&signature.inputs);
        return Err(Problem::RawInputs { known }.at(super::JSON_LENGTH_HEADER));
    };
    let tensor = read(body, spec, signature.batch, limits, budget)
        .map_err(|problem| problem.in_input(&spec.name, PLACE))?;
    Ok(InferRequest {
        id: None,
        inputs: vec![(spec.name.clone(), tensor)],
        outputs: RequestedOutputs::all_binary(),
        timeout: None,
        parameters: Parameters::new(),
    })
}

fn read(
    body: Bytes,
    spec: &TensorSpec,
    is_batch: bool,
    limits: &DecodeLimits,
    budget: &mut dyn Budget,
) -> Result<Tensor, Problem> {
    // What cannot be told from the body's length is one: the batch, and the axes of BYTES.
    let settled = |(axis, length): (usize, &i64)| match usize::try_from(*length) {
        Err(_) if (is_batch && axis == 0) || spec.datatype == Datatype::Bytes => Some(1),
        length => length.ok(),
    };
    let shape: Vec<Option<usize>> = spec.shape.iter().enumerate().map(settled).collect();
    match spec.datatype.size() {
        None => one_element(&body, spec, &shape, budget),
        Some(size) => fixed_size(body, spec, &shape, size, limits),
    }
}

/// The body is the element itself, without the length that stands before it in binary data.
fn one_element(
    body: &[u8],
    spec: &TensorSpec,
    shape: &[Option<usize>],
    budget: &mut dyn Budget,
) -> Result<Tensor, Problem> {
    let wrong = || Problem::RawElements { wanted: spec.describe() };
    if shape.iter().any(|length| *length != Some(1)) {
        return Err(wrong());
    }
    let length = u32::try_from(body.len()).map_err(|_| wrong())?;
    let bytes = body.len().saturating_add(4);
    if !budget.take(bytes) {
        return Err(Problem::NoRoom { bytes });
    }
    let mut data = AlignedBuffer::with_capacity(bytes);
    data.extend(&length.to_le_bytes());
    data.extend(body);
    Tensor::new(spec.datatype, vec![1; shape.len()], data.freeze()).map_err(Problem::Tensor)
}

fn fixed_size(
    body: Bytes,
    spec: &TensorSpec,
    shape: &[Option<usize>],
    size: usize,
    limits: &DecodeLimits,
) -> Result<Tensor, Problem> {
    if shape.iter().filter(|length| length.is_none()).count() > 1 {
        return Err(Problem::RawAxes { wanted: spec.describe() });
    }
    // The bytes of one step along the open axis; zero where a fixed axis is empty, and then there is
    // nothing to tell a length from.
    let row = shape.iter().flatten().try_fold(size, |row, length| row.checked_mul(*length));
    let open = match row {
        Some(row) if row > 0 && body.len().is_multiple_of(row) => body.len() / row,
        Some(0) if body.is_empty() => 0,
        _ => {
            let (given, wanted) = (body.len(), spec.describe());
            return Err(Problem::RawBytes { given, wanted, row: row.unwrap_or(usize::MAX) });
        }
    };
    let shape: Vec<usize> = shape.iter().map(|length| length.unwrap_or(open)).collect();
    check_elements(&shape, limits)?;
    Tensor::new(spec.datatype, shape, body).map_err(Problem::Tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::oip::{JsonPart, decode_infer};

    fn signature(datatype: Datatype, shape: &[i64], batch: bool) -> Signature {
        let spec = TensorSpec { name: "x".into(), datatype, shape: shape.to_vec() };
        Signature { inputs: vec![spec], batch, ..Signature::default() }
    }

    fn shape_of(body: &'static [u8], signature: &Signature) -> Result<Vec<usize>, String> {
        let body = Bytes::from_static(body);
        decode_infer(body, JsonPart::Absent, signature, &DecodeLimits::default())
            .map(|request| {
                assert_eq!(request.outputs, RequestedOutputs::all_binary());
                request.inputs[0].1.shape().to_vec()
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_open_axis_follows_from_the_length() {
        assert_eq!(shape_of(&[0; 24], &signature(Datatype::Fp32, &[-1, 3], false)), Ok(vec![2, 3]));
        assert_eq!(shape_of(&[0; 24], &signature(Datatype::Fp32, &[-1, 6], true)), Ok(vec![1, 6]));
        assert_eq!(shape_of(&[0; 24], &signature(Datatype::Fp32, &[-1, -1], true)), Ok(vec![1, 6]));
        assert_eq!(shape_of(&[0; 8], &signature(Datatype::Fp64, &[], false)), Ok(vec![]));
        assert_eq!(shape_of(&[], &signature(Datatype::Fp64, &[-1], false)), Ok(vec![0]));
        assert_eq!(shape_of(&[], &signature(Datatype::Fp64, &[-1, 0], false)), Ok(vec![0, 0]));
    }

    #[test]
    fn a_body_that_fits_no_shape_is_refused() {
        let error = shape_of(&[0; 25], &signature(Datatype::Fp32, &[-1, 3], false)).unwrap_err();
        assert_eq!(
            error,
            "input \"x\": 25 bytes are not a whole number of rows of FP32 [-1,3], 12 bytes each"
        );
        let error = shape_of(&[0; 24], &signature(Datatype::Fp32, &[3], false)).unwrap_err();
        assert!(error.contains("FP32 of shape [3] takes 12 bytes, and 24 were given"), "{error}");
        let error = shape_of(&[0; 24], &signature(Datatype::Fp32, &[-1, -1], false)).unwrap_err();
        assert!(error.contains("at most one axis of open length"), "{error}");
        let huge = signature(Datatype::Fp32, &[i64::MAX, i64::MAX], false);
        assert!(shape_of(&[0; 24], &huge).is_err());
    }

    #[test]
    fn the_body_is_one_element_of_bytes() {
        for shape in [&[1][..], &[-1], &[-1, 1], &[]] {
            let signature = signature(Datatype::Bytes, shape, true);
            let body = Bytes::from_static(b"raw text");
            let limits = DecodeLimits::default();
            let request = decode_infer(body, JsonPart::Absent, &signature, &limits).unwrap();
            let elements: Vec<_> = request.inputs[0].1.bytes_elements().collect();
            assert_eq!(elements, [b"raw text"]);
        }
        let error = shape_of(b"x", &signature(Datatype::Bytes, &[2], false)).unwrap_err();
        assert!(error.contains("is one element of BYTES"), "{error}");
    }

    #[test]
    fn only_models_of_one_input_take_it() {
        let mut two = signature(Datatype::Fp32, &[1], false);
        two.inputs.push(TensorSpec { name: "y".into(), ..two.inputs[0].clone() });
        let error = shape_of(&[0; 4], &two).unwrap_err();
        assert!(error.contains("\"x\" FP32 [1], \"y\" FP32 [1]"), "{error}");
    }
}
