//! Whether the work of one run follows from the shapes of its inputs alone. Such a graph, learned to be
//! short, will be short again, and may run where nobody can be put in its place.

use std::collections::BTreeSet;

use super::proto::{GraphProto, ModelProto, NodeProto};

/// Operators of the default set that run other nodes as often as a value says.
const REPEAT: &[&str] = &["Loop", "Scan", "SequenceMap"];

/// Operators of the default set that make as much as a value says, with the operands that say it.
const SIZED_BY: &[(&str, &[usize])] = &[
    ("AffineGrid", &[1]),
    ("BlackmanWindow", &[0]),
    ("CenterCropPad", &[1]),
    ("Col2Im", &[1, 2]),
    ("ConstantOfShape", &[0]),
    ("DFT", &[1]),
    ("Expand", &[1]),
    ("HammingWindow", &[0]),
    ("HannWindow", &[0]),
    ("MaxUnpool", &[2]),
    ("MelWeightMatrix", &[0, 1]),
    ("OneHot", &[1]),
    ("Pad", &[1]),
    ("Range", &[0, 1, 2]),
    ("Resize", &[2, 3]),
    ("STFT", &[1, 3]),
    ("Tile", &[1]),
    ("Upsample", &[1]),
];

/// Operators beyond the default set whose work follows from their inputs' shapes. Of any other,
/// nothing is known.
const OTHERS: &[(&str, &str)] = &[
    ("ai.onnx.ml", "ArrayFeatureExtractor"),
    ("ai.onnx.ml", "LinearClassifier"),
    ("ai.onnx.ml", "LinearRegressor"),
    ("ai.onnx.ml", "Normalizer"),
    ("ai.onnx.ml", "Scaler"),
    ("ai.onnx.ml", "TreeEnsembleClassifier"),
    ("ai.onnx.ml", "TreeEnsembleRegressor"),
    ("com.microsoft", "BiasGelu"),
    ("com.microsoft", "DynamicQuantizeMatMul"),
    ("com.microsoft", "FastGelu"),
    ("com.microsoft", "FusedConv"),
    ("com.microsoft", "FusedMatMul"),
    ("com.microsoft", "Gelu"),
    ("com.microsoft", "MatMulIntegerToFloat"),
    ("com.microsoft", "QLinearAdd"),
    ("com.microsoft", "SkipLayerNormalization"),
];

/// Whether the work of a run of `model` follows from the shapes of its inputs.
pub(super) fn is_bounded(model: &ModelProto) -> bool {
    // A function's body sees names of its own; none of the models that are short has one.
    let graph = model.graph.as_ref().filter(|_| model.functions.is_empty());
    graph.is_some_and(|graph| graph_is_bounded(graph, &BTreeSet::new()))
}

fn graph_is_bounded(graph: &GraphProto, outer: &BTreeSet<&str>) -> bool {
    let mut constants = outer.clone();
    constants.extend(graph.initializer.iter().map(|tensor| tensor.name()));
    // An initializer that is an input too is only its default.
    graph.input.iter().for_each(|input| {
        constants.remove(input.name());
    });
    graph.node.iter().all(|node| {
        if node.op_type() == "Constant" {
            constants.extend(node.output.iter().map(String::as_str));
        }
        node_is_bounded(node, &constants)
    })
}

fn node_is_bounded(node: &NodeProto, constants: &BTreeSet<&str>) -> bool {
    let (domain, op_type) = (node.domain(), node.op_type());
    let bounded = match domain {
        "" | "ai.onnx" => !REPEAT.contains(&op_type) && is_sized(node, constants),
        _ => OTHERS.contains(&(domain, op_type)),
    };
    let bodies = node.attribute.iter();
    let mut bodies = bodies.flat_map(|body| body.g.as_deref().into_iter().chain(&body.graphs));
    bounded && bodies.all(|body| graph_is_bounded(body, constants))
}

/// Whether all operands that say how much a node makes are constants.
fn is_sized(node: &NodeProto, constants: &BTreeSet<&str>) -> bool {
    let said_by = SIZED_BY.iter().find(|(name, _)| *name == node.op_type());
    let mut operands = said_by.into_iter().flat_map(|(_, operands)| *operands);
    operands.all(|operand| {
        let name = node.input.get(*operand).map_or("", String::as_str);
        name.is_empty() || constants.contains(name)
    })
}

#[cfg(test)]
mod tests {
    use super::super::build::{Axis, body, graph, model, node, value};
    use super::super::elements;
    use super::*;
    use crate::nn::onnx::proto::TensorProto;
    use crate::tensor::Datatype;

    fn of(nodes: Vec<NodeProto>) -> GraphProto {
        let axes = [Axis::Named("n")];
        let value = |name| value(name, Datatype::Fp32, &axes);
        let mut graph = graph(vec![value("x"), value("k")], vec![value("y")], nodes);
        let number = elements::number(Datatype::Int64);
        graph.initializer = vec![TensorProto {
            name: Some("two".to_owned()),
            dims: vec![1],
            data_type: Some(number),
            ..TensorProto::default()
        }];
        graph
    }

    fn bounded(nodes: Vec<NodeProto>) -> bool {
        is_bounded(&model(of(nodes)))
    }

    #[test]
    fn what_only_looks_at_shapes_is_bounded() {
        assert!(bounded(vec![node("Add", &["x", "x"], &["y"])]));
        assert!(bounded(vec![node("Tile", &["x", "two"], &["y"])]));
        assert!(bounded(vec![node("Constant", &[], &["c"]), node("Expand", &["x", "c"], &["y"])]));
        assert!(bounded(vec![node("Resize", &["x", "", "two"], &["y"])]));
    }

    #[test]
    fn what_a_callers_value_can_make_long_is_not() {
        assert!(!bounded(vec![node("Range", &["two", "k", "two"], &["y"])]));
        assert!(!bounded(vec![node("Tile", &["x", "k"], &["y"])]));
        assert!(!bounded(vec![node("Loop", &["two", "", "x"], &["y"])]));
        // An initializer that callers may overwrite is no constant.
        let mut overwritten = of(vec![node("Tile", &["x", "two"], &["y"])]);
        overwritten.input.push(value("two", Datatype::Int64, &[Axis::Is(1)]));
        assert!(!is_bounded(&model(overwritten)));
    }

    #[test]
    fn a_branch_is_as_bounded_as_what_is_in_it() {
        let branch = |inner| {
            let mut choice = node("If", &["k"], &["y"]);
            choice.attribute.push(body("then_branch", of(vec![inner])));
            bounded(vec![choice])
        };
        assert!(branch(node("Tile", &["x", "two"], &["y"])));
        assert!(!branch(node("Loop", &["k", "", "x"], &["y"])));
    }

    #[test]
    fn of_an_unknown_operator_nothing_is_known() {
        let mut unknown = node("BeamSearch", &["x"], &["y"]);
        unknown.domain = Some("com.microsoft".to_owned());
        assert!(!bounded(vec![unknown]));
    }
}
