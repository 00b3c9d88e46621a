//! What a graph declares that it takes and gives.

use std::collections::HashSet;

use super::proto::{Dimension, GraphProto, ValueInfoProto, dimension, type_proto};
use super::{Direction, OnnxError, elements};
use crate::tensor::MAX_RANK;
use crate::version::{Signature, TensorSpec};

/// The signature of `graph`.
pub(super) fn of(graph: Option<&GraphProto>) -> Result<Signature, OnnxError> {
    let Some(graph) = graph else { return Ok(Signature::default()) };
    let initialized: HashSet<&str> = graph
        .initializer
        .iter()
        .map(|tensor| tensor.name())
        .chain(
            graph
                .sparse_initializer
                .iter()
                .filter_map(|sparse| Some(sparse.values.as_ref()?.name())),
        )
        .collect();
    // Up to IR version 3 every initializer is an input as well, and later ones may be: a default
    // that engines let callers override. We do not: a version's weights are what was published.
    let inputs = graph.input.iter().filter(|value| !initialized.contains(value.name()));
    let inputs: Vec<Value<'_>> =
        inputs.map(|value| Value::of(value, Direction::Input)).collect::<Result<_, _>>()?;
    let outputs: Vec<Value<'_>> = graph
        .output
        .iter()
        .map(|value| Value::of(value, Direction::Output))
        .collect::<Result<_, _>>()?;
    let batch = is_batch(inputs.iter().chain(&outputs));
    Ok(Signature { inputs: specs(inputs), outputs: specs(outputs), batch, task: None })
}

/// A declared input or output.
struct Value<'a> {
    spec: TensorSpec,
    /// The name of axis 0, if it has one.
    axis_0: Option<&'a str>,
}

impl<'a> Value<'a> {
    fn of(value: &'a ValueInfoProto, direction: Direction) -> Result<Self, OnnxError> {
        let refuse = |problem: String| {
            Err(OnnxError::Unservable { direction, name: value.name().to_owned(), problem })
        };
        if value.name().is_empty() {
            return refuse("it has no name".to_owned());
        }
        let declared = value.r#type.as_ref().and_then(|declared| declared.value.as_ref());
        let tensor = match declared {
            Some(type_proto::Value::TensorType(tensor)) => tensor,
            Some(other) => return refuse(format!("it is {}, not a tensor", kind(other))),
            None => return refuse("its type is not declared".to_owned()),
        };
        let Some(datatype) = elements::datatype(tensor.elem_type()) else {
            let name = elements::name(tensor.elem_type());
            return refuse(format!("its elements are {name}, which has no datatype for callers"));
        };
        let name = value.name().to_owned();
        let Some(shape) = &tensor.shape else {
            // Nothing is checked against an output's shape, so a placeholder does; an input's is a
            // promise to callers.
            return match direction {
                Direction::Output => {
                    Ok(Self { spec: TensorSpec { name, datatype, shape: vec![-1] }, axis_0: None })
                }
                Direction::Input => refuse(
                    "its rank is not declared; give it a shape, with named axes where lengths vary"
                        .to_owned(),
                ),
            };
        };
        if shape.dim.len() > MAX_RANK {
            return refuse(format!(
                "it has {} axes, over the limit of {MAX_RANK}",
                shape.dim.len()
            ));
        }
        let axis_0 = shape.dim.first().and_then(axis_name);
        let shape = shape.dim.iter().map(axis_length).collect();
        Ok(Self { spec: TensorSpec { name, datatype, shape }, axis_0 })
    }
}

fn axis_length(axis: &Dimension) -> i64 {
    match axis.value {
        Some(dimension::Value::DimValue(length)) if length >= 0 => length,
        // A negative length is what some exporters write for one they do not know.
        _ => -1,
    }
}

fn axis_name(axis: &Dimension) -> Option<&str> {
    match &axis.value {
        Some(dimension::Value::DimParam(name)) if !name.is_empty() => Some(name),
        _ => None,
    }
}

fn is_batch<'a>(mut values: impl Iterator<Item = &'a Value<'a>>) -> bool {
    let first = values.next().and_then(|value| value.axis_0);
    first.is_some() && values.all(|value| value.axis_0 == first)
}

fn specs(values: Vec<Value<'_>>) -> Vec<TensorSpec> {
    values.into_iter().map(|value| value.spec).collect()
}

fn kind(value: &type_proto::Value) -> &'static str {
    match value {
        type_proto::Value::TensorType(_) => "a tensor",
        type_proto::Value::SequenceType(_) => "a sequence",
        type_proto::Value::MapType(_) => "a map",
        type_proto::Value::OpaqueType(_) => "of an opaque type",
        type_proto::Value::SparseTensorType(_) => "a sparse tensor",
        type_proto::Value::OptionalType(_) => "optional",
    }
}
