//! What a run is given: checked against the signature, or made up for a first run.

use bytes::Bytes;

use super::{Cancel, LoadedGraph, RunError, RunErrorKind};
use crate::tensor::{Datatype, NamedTensor, ShapeText, Tensor, element_count};
use crate::version::{Signature, TensorSpec};

/// The most bytes that made-up inputs may take together: an input of fixed shape can be as large as
/// its model says.
pub const MAX_PROBE_BYTES: usize = 256 << 20;

/// Checks `inputs` against `signature` and gives them in its order.
///
/// # Errors
/// The first input that is missing, given twice, not of the graph, or of another datatype or shape
/// than it takes; the error says which, what was wanted and what was given.
pub fn check_inputs<'a>(
    signature: &Signature,
    inputs: &'a [NamedTensor],
) -> Result<Vec<&'a Tensor>, RunError> {
    if let Some((name, tensor)) = inputs.iter().find(|(name, _)| find(signature, name).is_none()) {
        let have: Vec<&str> = signature.inputs.iter().map(|spec| spec.name.as_str()).collect();
        return Err(RunError::invalid_input(
            name,
            format!("one of {have:?}"),
            format!("{}, which the graph does not take", describe(tensor)),
        ));
    }
    signature.inputs.iter().map(|spec| check_input(spec, inputs)).collect()
}

fn check_input<'a>(spec: &TensorSpec, inputs: &'a [NamedTensor]) -> Result<&'a Tensor, RunError> {
    let mut given = inputs.iter().filter(|(name, _)| *name == spec.name).map(|(_, tensor)| tensor);
    let refuse = |given: String| Err(RunError::invalid_input(&spec.name, spec.describe(), given));
    match (given.next(), given.count()) {
        (None, _) => refuse("nothing".to_owned()),
        (Some(tensor), 0) if matches(spec, tensor) => Ok(tensor),
        (Some(tensor), 0) => refuse(describe(tensor)),
        (Some(_), more) => refuse(format!("{} tensors of that name", more + 1)),
    }
}

fn matches(spec: &TensorSpec, tensor: &Tensor) -> bool {
    spec.datatype == tensor.datatype() && spec.accepts_shape(tensor.shape())
}

fn find<'a>(signature: &'a Signature, name: &str) -> Option<&'a TensorSpec> {
    signature.inputs.iter().find(|spec| spec.name == name)
}

fn describe(tensor: &Tensor) -> String {
    format!("{} {}", tensor.datatype(), ShapeText(tensor.shape()))
}

/// Small valid inputs for a first run: dynamic axes are 1 long, integers are 1, everything else 0,
/// false or empty. One is the better guess for what integers mostly are: ids, masks and counts.
///
/// # Errors
/// When an input of fixed shape is impossible, or all of them exceed [`MAX_PROBE_BYTES`].
pub fn probe_inputs(signature: &Signature) -> Result<Vec<NamedTensor>, RunError> {
    filled(signature, 1)
}

/// Runs `graph` once on made-up inputs, to find out whether its engine can run it at all. Integers
/// are 1 and, where that fails, 0: an index into an axis of one element must be.
///
/// # Errors
/// What the engine says of the first run, where the second fails as well. Made-up inputs can be
/// wrong for a graph that callers run well, so this is evidence, not proof.
pub fn probe(
    graph: &dyn LoadedGraph,
    signature: &Signature,
    cancel: &Cancel,
) -> Result<Vec<NamedTensor>, RunError> {
    let first = match graph.run(&filled(signature, 1)?, cancel) {
        Err(error) if error.kind() == RunErrorKind::Failed => error,
        ended => return ended,
    };
    graph.run(&filled(signature, 0)?, cancel).map_err(|_| first)
}

fn filled(signature: &Signature, integer: u8) -> Result<Vec<NamedTensor>, RunError> {
    let mut left = MAX_PROBE_BYTES;
    signature
        .inputs
        .iter()
        .map(|spec| {
            let shape: Vec<usize> =
                spec.shape.iter().map(|axis| usize::try_from(*axis).unwrap_or(1)).collect();
            let refuse = |problem: &str| {
                RunError::invalid_input(&spec.name, spec.describe(), format!("nothing: {problem}"))
            };
            let elements = element_count(&shape).map_err(|error| refuse(&error.to_string()))?;
            // A BYTES element is at least its length.
            let size = spec.datatype.size().unwrap_or(4);
            let bytes = elements.checked_mul(size).filter(|bytes| *bytes <= left);
            let bytes = bytes.ok_or_else(|| refuse("it is too large to be made up"))?;
            left -= bytes;
            let data = pattern(spec.datatype, integer, bytes);
            let tensor = Tensor::new(spec.datatype, shape, data)
                .map_err(|error| refuse(&error.to_string()))?;
            Ok((spec.name.clone(), tensor))
        })
        .collect()
}

/// `bytes` bytes of elements that are all `integer`, or zero where they are no integers.
fn pattern(datatype: Datatype, integer: u8, bytes: usize) -> Bytes {
    let size = match datatype {
        Datatype::Uint8 | Datatype::Int8 => 1,
        Datatype::Uint16 | Datatype::Int16 => 2,
        Datatype::Uint32 | Datatype::Int32 => 4,
        Datatype::Uint64 | Datatype::Int64 => 8,
        Datatype::Bool
        | Datatype::Fp16
        | Datatype::Fp32
        | Datatype::Fp64
        | Datatype::Bf16
        | Datatype::Bytes => return vec![0; bytes].into(),
    };
    let mut data = vec![0; bytes];
    data.iter_mut().step_by(size).for_each(|byte| *byte = integer);
    data.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.to_owned(), datatype, shape: shape.to_vec() }
    }

    fn signature() -> Signature {
        let inputs = vec![spec("a", Datatype::Fp32, &[-1, 2]), spec("b", Datatype::Int64, &[])];
        Signature { inputs, ..Signature::default() }
    }

    fn zeros(name: &str, datatype: Datatype, shape: &[usize]) -> NamedTensor {
        let bytes = shape.iter().product::<usize>() * datatype.size().unwrap();
        (name.to_owned(), Tensor::new(datatype, shape.to_vec(), vec![0; bytes].into()).unwrap())
    }

    fn refusal(inputs: &[NamedTensor]) -> String {
        let error = check_inputs(&signature(), inputs).unwrap_err();
        assert_eq!(error.kind(), RunErrorKind::InvalidInput);
        error.to_string()
    }

    #[test]
    fn inputs_come_in_the_order_of_the_signature() {
        let (a, b) = (zeros("a", Datatype::Fp32, &[3, 2]), zeros("b", Datatype::Int64, &[]));
        let given = [b, a];
        let checked = check_inputs(&signature(), &given).unwrap();
        assert_eq!(
            checked.iter().map(|t| t.datatype()).collect::<Vec<_>>(),
            [Datatype::Fp32, Datatype::Int64]
        );
    }

    #[test]
    fn a_wrong_input_is_named_with_what_was_wanted_and_given() {
        let (a, b) = (|| zeros("a", Datatype::Fp32, &[3, 2]), || zeros("b", Datatype::Int64, &[]));
        assert_eq!(refusal(&[a()]), "input \"b\": wanted INT64 [], given nothing");
        assert_eq!(
            refusal(&[a(), zeros("b", Datatype::Int32, &[])]),
            "input \"b\": wanted INT64 [], given INT32 []"
        );
        assert_eq!(
            refusal(&[zeros("a", Datatype::Fp32, &[3, 3]), b()]),
            "input \"a\": wanted FP32 [-1,2], given FP32 [3,3]"
        );
        assert_eq!(
            refusal(&[a(), a(), b()]),
            "input \"a\": wanted FP32 [-1,2], given 2 tensors of that name"
        );
        assert_eq!(
            refusal(&[a(), b(), zeros("c", Datatype::Bool, &[])]),
            "input \"c\": wanted one of [\"a\", \"b\"], given BOOL [], which the graph does not take"
        );
    }

    #[test]
    fn made_up_inputs_fit_every_datatype() {
        let inputs: Vec<_> =
            Datatype::ALL.into_iter().map(|d| spec(d.as_str(), d, &[-1, 2])).collect();
        let signature = Signature { inputs, ..Signature::default() };
        let made = probe_inputs(&signature).unwrap();
        assert!(check_inputs(&signature, &made).is_ok());
        let (_, ids) = made.iter().find(|(name, _)| name == "INT64").unwrap();
        assert_eq!(&ids.data()[..], [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn made_up_inputs_are_bounded() {
        let large = spec("x", Datatype::Fp64, &[MAX_PROBE_BYTES as i64 / 8]);
        let huge = spec("x", Datatype::Fp64, &[i64::MAX, i64::MAX]);
        for inputs in [vec![large.clone(), TensorSpec { name: "y".into(), ..large }], vec![huge]] {
            assert!(probe_inputs(&Signature { inputs, ..Signature::default() }).is_err());
        }
    }
}
