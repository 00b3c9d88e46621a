//! Whether the rows of a batch stay apart in a model: whether each output's row follows from the same
//! row of the inputs alone, so that rows of several callers may share a run.
//!
//! A proof by following every value from the inputs to the outputs, with the operators of which it is
//! known what they do to axis 0. What is not known is taken to mix rows.

mod node;

use std::collections::{HashMap, HashSet};

use self::node::Node;
use super::elements;
use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

/// What is known of a value.
#[derive(Debug, Clone, PartialEq)]
enum Known {
    /// It has nothing to do with the rows.
    Fixed(Fixed),
    /// Lengths, made of the shapes of others.
    Lengths(Vec<Length>),
    /// Its outermost axis is the rows, or each row's parts, row by row; of this rank.
    Rows(usize),
}

/// A value without rows.
#[derive(Debug, Clone, Default, PartialEq)]
struct Fixed {
    /// The number of its axes, where that is known.
    rank: Option<usize>,
    /// Whether its outermost axis is known to be one long.
    one: bool,
    /// Its elements, where they are integers and constant.
    integers: Option<Vec<i64>>,
}

/// One length.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Length {
    /// In proportion to the number of rows.
    Rows,
    /// A number.
    Is(i64),
    /// Whatever it is, it has nothing to do with the number of rows.
    Other,
}

/// Why a node is not known to keep rows apart.
type Doubt = &'static str;

/// Proves that rows stay apart.
///
/// # Errors
/// The node at which the proof ends, and why.
pub(super) fn stay_apart(model: &ModelProto) -> Result<(), String> {
    let Some(graph) = &model.graph else { return Err("it holds no graph".to_owned()) };
    if !model.functions.is_empty() {
        return Err("it defines functions, which are not looked into".to_owned());
    }
    let mut values = Values::of(graph);
    for node in &graph.node {
        values.follow(node).map_err(|doubt| {
            let (name, op_type) = (node.name(), node.op_type());
            format!("node {name:?} ({op_type}) {doubt}")
        })?;
    }
    let mut outputs = graph.output.iter();
    match outputs.find(|output| !matches!(values.get(output.name()), Ok(Known::Rows(_)))) {
        Some(output) => Err(format!("output {:?} has no rows", output.name())),
        None => Ok(()),
    }
}

/// What is known of the values so far.
struct Values<'a> {
    known: HashMap<&'a str, Known>,
    /// Whether a reshape left the outermost length open. It is the number of rows if that of the
    /// outputs is, which each run shows, as long as no further reshape changes it.
    open: bool,
}

impl<'a> Values<'a> {
    fn of(graph: &'a GraphProto) -> Self {
        let constants = graph.initializer.iter().map(|tensor| (tensor.name(), constant(tensor)));
        let mut values: HashMap<_, _> = constants.collect();
        for input in &graph.input {
            // An initializer that is an input too is its default, which a caller may replace: it is
            // none of those that have rows, and none that is constant.
            let known = match values.contains_key(input.name()) {
                true => Known::Fixed(Fixed::default()),
                false => Known::Rows(rank_of(input)),
            };
            values.insert(input.name(), known);
        }
        Self { known: values, open: false }
    }

    fn get(&self, name: &str) -> Result<Known, Doubt> {
        self.known.get(name).cloned().ok_or("uses a value of which nothing is known")
    }

    /// The inputs of a node; one that is left out is constant.
    fn inputs(&self, node: &NodeProto) -> Result<Vec<Known>, Doubt> {
        let known = |name: &String| match name.as_str() {
            "" => Ok(Known::Fixed(Fixed::default())),
            name => self.get(name),
        };
        node.input.iter().map(known).collect()
    }

    fn follow(&mut self, node: &'a NodeProto) -> Result<(), Doubt> {
        if !matches!(node.domain(), "" | "ai.onnx") {
            return Err("is none of ONNX's own operators, of which this is known");
        }
        // Engines differ in which of two they take.
        let names: HashSet<_> = node.attribute.iter().map(AttributeProto::name).collect();
        if names.len() != node.attribute.len() {
            return Err("has an attribute twice");
        }
        let looked_at = Node { node, inputs: self.inputs(node)? };
        let has_rows = looked_at.inputs.iter().any(|input| matches!(input, Known::Rows(_)));
        if has_rows && node.op_type() == "Reshape" {
            self.reshaped(&looked_at)?;
        }
        let known = if has_rows { looked_at.with_rows()? } else { looked_at.without_rows()? };
        // Further outputs have the rows of the first.
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if self.known.insert(name, known.clone()).is_some() {
                return Err("makes a value that there is already");
            }
        }
        Ok(())
    }

    /// Sees to it that outermost lengths stay known.
    fn reshaped(&mut self, node: &Node<'_>) -> Result<(), Doubt> {
        let shape = node.inputs.get(1).and_then(as_lengths);
        match shape.as_ref().and_then(|shape| shape.first()) {
            Some(Length::Is(0)) => Ok(()),
            _ if self.open => Err("comes after a reshape that left the number of rows open"),
            Some(Length::Is(-1)) => {
                self.open = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn rank_of(input: &super::proto::ValueInfoProto) -> usize {
    use super::proto::type_proto::Value;
    match input.r#type.as_ref().and_then(|kind| kind.value.as_ref()) {
        Some(Value::TensorType(tensor)) => tensor.shape.as_ref().map_or(0, |shape| shape.dim.len()),
        _ => 0,
    }
}

fn constant(tensor: &TensorProto) -> Known {
    let one = tensor.dims.first() == Some(&1);
    Known::Fixed(Fixed { rank: Some(tensor.dims.len()), one, integers: integers(tensor) })
}

/// The elements of a small constant of INT64.
fn integers(tensor: &TensorProto) -> Option<Vec<i64>> {
    if tensor.data_type() != elements::INT64 || !tensor.external_data.is_empty() {
        return None;
    }
    let Some(raw) = &tensor.raw_data else { return Some(tensor.int64_data.clone()) };
    let (numbers, _) = raw.as_chunks::<8>();
    Some(numbers.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
}

/// A value as lengths, if it is such.
fn as_lengths(known: &Known) -> Option<Vec<Length>> {
    match known {
        Known::Lengths(lengths) => Some(lengths.clone()),
        Known::Fixed(Fixed { integers: Some(integers), .. }) => {
            Some(integers.iter().map(|number| Length::Is(*number)).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
