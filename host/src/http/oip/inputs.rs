//! A request's inputs, compared with what the model takes and turned into tensors.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::document::{Capped, InputDocument};
use super::error::{DecodeError, Listed, Problem, excerpt};
use super::limits::{Budget, DecodeLimits};
use super::{json_read, parameters};
use crate::tensor::{
    Datatype, MAX_RANK, NamedTensor, ShapeText, Tensor, TensorError, element_count,
};
use crate::version::{Signature, TensorSpec};

/// Decodes `documents` against `signature`, taking the binary ones from the front of `binary`, which
/// must be used up.
pub(super) fn decode(
    documents: Capped<InputDocument<'_>>,
    mut binary: Bytes,
    signature: &Signature,
    limits: &DecodeLimits,
    budget: &mut dyn Budget,
) -> Result<Vec<NamedTensor>, DecodeError> {
    let documents =
        documents.within(Listed::Inputs, limits.inputs).map_err(|problem| problem.at("inputs"))?;
    let mut inputs: Vec<NamedTensor> = Vec::with_capacity(documents.len());
    for (index, document) in documents.into_iter().enumerate() {
        let spec = find_spec(document.name.as_deref(), index, signature, &inputs)?;
        let reader = InputReader { index, spec, limits };
        let tensor = reader.read(&document, &mut binary, budget)?;
        inputs.push((spec.name.clone(), tensor));
    }
    if !binary.is_empty() {
        return Err(Problem::Leftover { bytes: binary.len() }.anywhere());
    }
    check_complete(&inputs, signature)?;
    Ok(inputs)
}

/// The names and types of tensors, for a message about a name that is not among them.
pub(super) fn describe(specs: &[TensorSpec]) -> String {
    let one = |spec: &TensorSpec| format!("{:?} {}", spec.name, spec.describe());
    match specs {
        [] => "none".to_owned(),
        specs => specs.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

/// Checks that a shape holds no more elements, and has no longer axis, than the limit.
pub(super) fn check_elements(shape: &[usize], limits: &DecodeLimits) -> Result<(), Problem> {
    let limit = limits.tensor_elements;
    let over = || Problem::TooManyElements { shape: ShapeText(shape).to_string(), limit };
    // A zero elsewhere makes a tensor of endless axes empty; engines multiply those all the same.
    if shape.iter().any(|length| *length > limit) {
        return Err(over());
    }
    match element_count(shape) {
        Ok(count) if count <= limit => Ok(()),
        Ok(_) | Err(TensorError::Overflow(_)) => Err(over()),
        Err(error) => Err(Problem::Tensor(error)),
    }
}

/// What the signature says of the input that a request calls `name`.
pub(super) fn find_spec<'s>(
    name: Option<&str>,
    index: usize,
    signature: &'s Signature,
    earlier: &[NamedTensor],
) -> Result<&'s TensorSpec, DecodeError> {
    let place = || format!("inputs[{index}].name");
    let name = name.ok_or_else(|| Problem::MissingField("name").at(place()))?;
    let Some(spec) = signature.inputs.iter().find(|spec| spec.name == name) else {
        let known = describe(&signature.inputs);
        return Err(Problem::UnknownInput { known }.in_input(name, place()));
    };
    if earlier.iter().any(|(earlier, _)| earlier == name) {
        return Err(Problem::Duplicate.in_input(name, place()));
    }
    Ok(spec)
}

/// Everything a call must bring is there, and where axis 0 is a batch, all bring as many rows.
pub(super) fn check_complete(
    inputs: &[NamedTensor],
    signature: &Signature,
) -> Result<(), DecodeError> {
    for spec in &signature.inputs {
        if !inputs.iter().any(|(name, _)| *name == spec.name) {
            let wanted = spec.describe();
            return Err(Problem::MissingInput { wanted }.in_input(&spec.name, "inputs"));
        }
    }
    if !signature.batch {
        return Ok(());
    }
    let rows = |tensor: &Tensor| tensor.shape().first().copied().unwrap_or(1);
    let Some((first, tensor)) = inputs.first() else { return Ok(()) };
    let wanted = rows(tensor);
    for (index, (name, tensor)) in inputs.iter().enumerate() {
        let given = rows(tensor);
        if given != wanted {
            let problem = Problem::Rows { given, other: excerpt(first), wanted };
            return Err(problem.in_input(name, format!("inputs[{index}].shape")));
        }
    }
    Ok(())
}

/// Reads one input; knows where it stands and what it should be.
pub(super) struct InputReader<'a> {
    pub(super) index: usize,
    pub(super) spec: &'a TensorSpec,
    pub(super) limits: &'a DecodeLimits,
}

impl InputReader<'_> {
    fn read(
        &self,
        document: &InputDocument<'_>,
        binary: &mut Bytes,
        budget: &mut dyn Budget,
    ) -> Result<Tensor, DecodeError> {
        let datatype = read_datatype(document.datatype.as_deref()).map_err(self.at("datatype"))?;
        let shape = read_shape(document.shape, self.limits.rank).map_err(self.at("shape"))?;
        self.check(datatype, &shape)?;
        let size = self.binary_size(document.parameters).map_err(self.at("parameters"))?;
        match (document.data, size) {
            (Some(data), None) => {
                json_read::read(data, datatype, shape, budget).map_err(self.at("data"))
            }
            (None, Some(size)) => take_binary(binary, size)
                .and_then(|data| Tensor::new(datatype, shape, data).map_err(Problem::Tensor))
                .map_err(self.at("parameters.binary_data_size")),
            (Some(_), Some(_)) => Err(self.at("data")(Problem::DataTwice)),
            (None, None) => Err(self.at("data")(Problem::NoData)),
        }
    }

    /// Checks that what is declared is within the limits and what the model takes.
    pub(super) fn check(&self, datatype: Datatype, shape: &[usize]) -> Result<(), DecodeError> {
        check_elements(shape, self.limits).map_err(self.at("shape"))?;
        let differs = if datatype == self.spec.datatype { "shape" } else { "datatype" };
        self.check_declared(datatype, shape).map_err(self.at(differs))
    }

    /// Turns a problem with one field into an error that names the input and the place.
    pub(super) fn at(&self, field: &'static str) -> impl Fn(Problem) -> DecodeError {
        move |problem| problem.in_input(&self.spec.name, format!("inputs[{}].{field}", self.index))
    }

    fn check_declared(&self, datatype: Datatype, shape: &[usize]) -> Result<(), Problem> {
        if datatype == self.spec.datatype && self.spec.accepts_shape(shape) {
            return Ok(());
        }
        let given = format!("{datatype} {}", ShapeText(shape));
        Err(Problem::NotAsDeclared { wanted: self.spec.describe(), given })
    }

    fn binary_size(&self, parameters: Option<&RawValue>) -> Result<Option<u64>, Problem> {
        let parameters = parameters::read(parameters, self.limits.parameters)?;
        if parameters.contains_key("shared_memory_region") {
            return Err(Problem::SharedMemory);
        }
        let Some(size) = parameters.get("binary_data_size") else { return Ok(None) };
        let wrong = || Problem::Parameter {
            name: "binary_data_size".to_owned(),
            wanted: "a number of bytes",
        };
        size.as_u64().map(Some).ok_or_else(wrong)
    }
}

fn read_datatype(text: Option<&str>) -> Result<Datatype, Problem> {
    text.ok_or(Problem::MissingField("datatype"))?.parse().map_err(Problem::UnknownDatatype)
}

fn read_shape(text: Option<&RawValue>, limit: usize) -> Result<Vec<usize>, Problem> {
    let text = text.ok_or(Problem::MissingField("shape"))?;
    let Ok(axes) = serde_json::from_str::<Capped<i64>>(text.get()) else {
        return Err(Problem::Field { field: "shape", wanted: "an array of whole numbers" });
    };
    let limit = limit.min(MAX_RANK);
    if axes.total > limit {
        return Err(Problem::Rank { given: axes.total, limit });
    }
    let lengths = axes.items.iter().map(|axis| usize::try_from(*axis));
    lengths
        .collect::<Result<_, _>>()
        .map_err(|_| Problem::NegativeAxis { shape: ShapeText(&axes.items).to_string() })
}

/// Takes the next `size` bytes of the binary part, without a copy.
fn take_binary(binary: &mut Bytes, size: u64) -> Result<Bytes, Problem> {
    match usize::try_from(size) {
        Ok(bytes) if bytes <= binary.len() => Ok(binary.split_to(bytes)),
        _ => Err(Problem::BinaryPastEnd { wanted: size, left: binary.len() }),
    }
}
