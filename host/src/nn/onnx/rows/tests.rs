//! What the proof lets pass, and what it doubts.

use super::super::build::{Axis, constant as value_of, graph, model, node, value, weights};
use super::*;
use crate::nn::onnx::proto::AttributeProto;
use crate::tensor::Datatype;

const FLOATS: Datatype = Datatype::Fp32;

/// INT64 constants, inside the model.
fn numbers(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: vec![values.len() as i64],
        data_type: Some(elements::INT64),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

fn with(mut node: NodeProto, name: &str, value: i64) -> NodeProto {
    let name = Some(name.to_owned());
    node.attribute.push(AttributeProto {
        name,
        i: Some(value),
        r#type: Some(2),
        ..Default::default()
    });
    node
}

fn with_all(mut node: NodeProto, name: &str, values: &[i64]) -> NodeProto {
    let (name, ints) = (Some(name.to_owned()), values.to_vec());
    node.attribute.push(AttributeProto { name, ints, r#type: Some(7), ..Default::default() });
    node
}

/// Whether rows stay apart from `x`, FP32 `[batch, n, 4]`, to `y`, through these nodes.
fn judged(nodes: Vec<NodeProto>) -> Result<(), String> {
    let axes = [Axis::Named("batch"), Axis::Named("n"), Axis::Is(4)];
    let mut graph = graph(vec![value("x", FLOATS, &axes)], vec![value("y", FLOATS, &axes)], nodes);
    graph.initializer = vec![
        weights("bias", &[4], &[0.0; 4]),
        weights("square", &[4, 4], &[0.0; 16]),
        weights("cube", &[2, 2, 4], &[0.0; 16]),
        weights("flat", &[1, 2, 4], &[0.0; 8]),
        numbers("same", &[0, 0, 2, 2]),
        numbers("rest", &[-1, 4]),
        numbers("one", &[1]),
        numbers("zero", &[0]),
        numbers("minus_two", &[-2]),
        numbers("minus_three", &[-3]),
        numbers("inner", &[0, 0, 0, 0, 1, 1]),
        numbers("outer", &[1, 0, 0, 0, 0, 0]),
    ];
    stay_apart(&model(graph))
}

fn apart(nodes: Vec<NodeProto>) {
    judged(nodes).unwrap();
}

fn doubted(nodes: Vec<NodeProto>, why: &str) {
    let doubt = judged(nodes).unwrap_err();
    assert!(doubt.contains(why), "{doubt}");
}

#[test]
fn what_works_within_rows_keeps_them_apart() {
    apart(vec![node("Relu", &["x"], &["y"])]);
    apart(vec![node("Add", &["x", "bias"], &["y"])]);
    apart(vec![node("Add", &["x", "flat"], &["y"])]);
    apart(vec![node("MatMul", &["x", "square"], &["y"])]);
    apart(vec![node("MatMul", &["x", "x"], &["y"])]);
    apart(vec![node("Softmax", &["x"], &["y"])]);
    apart(vec![node("ReduceSum", &["x", "one"], &["y"])]);
    apart(vec![node("ReduceSum", &["x", "minus_two"], &["y"])]);
    apart(vec![with_all(node("Transpose", &["x"], &["y"]), "perm", &[0, 2, 1])]);
    apart(vec![node("Reshape", &["x", "same"], &["y"])]);
    apart(vec![with(node("Gather", &["square", "x"], &["y"]), "axis", 0)]);
    apart(vec![with(node("Concat", &["x", "x"], &["y"]), "axis", 1)]);
    apart(vec![node("Pad", &["x", "inner"], &["y"])]);
}

#[test]
fn what_may_work_across_rows_is_doubted() {
    doubted(vec![node("Add", &["x", "cube"], &["y"])], "broadcasts something over the rows");
    doubted(vec![node("Add", &["x", "unknown"], &["y"])], "a value of which nothing is known");
    doubted(vec![node("MatMul", &["cube", "x"], &["y"])], "may multiply over the rows");
    doubted(vec![with(node("Softmax", &["x"], &["y"]), "axis", 0)], "works along the rows");
    doubted(vec![with(node("Softmax", &["x"], &["y"]), "axis", -3)], "works along the rows");
    doubted(vec![node("ReduceSum", &["x", "zero"], &["y"])], "reduces over the rows");
    doubted(vec![node("ReduceSum", &["x", "minus_three"], &["y"])], "reduces over the rows");
    doubted(vec![node("ReduceSum", &["x"], &["y"])], "axes that are not constant");
    doubted(vec![node("Transpose", &["x"], &["y"])], "moves the rows");
    doubted(vec![with(node("Concat", &["x", "x"], &["y"]), "axis", 0)], "beside the rows");
    doubted(vec![node("Pad", &["x", "outer"], &["y"])], "may add rows");
    doubted(vec![node("ArgMax", &["x"], &["y"])], "works along the rows");
    doubted(vec![node("Gather", &["x", "one"], &["y"])], "may take from other rows");
    doubted(vec![node("Flatten", &["x"], &["f"]), node("MatMul", &["f", "f"], &["y"])], "multiply");
}

#[test]
fn what_takes_its_scale_from_all_rows_is_doubted() {
    doubted(vec![node("DynamicQuantizeLinear", &["x"], &["y", "s", "z"])], "is not known to keep");
    let mut fused = node("DynamicQuantizeMatMul", &["x", "square"], &["y"]);
    fused.domain = Some("com.microsoft".to_owned());
    doubted(vec![fused], "none of ONNX's own operators");
    doubted(vec![node("LSTM", &["x", "cube", "cube"], &["y"])], "is not known to keep");
    let training = node("BatchNormalization", &["x", "bias", "bias", "bias", "bias"], &["y"]);
    doubted(vec![with(training, "training_mode", 1)], "takes the mean over the rows");
}

#[test]
fn lengths_are_followed_to_the_reshape_that_takes_them() {
    let lengths = |first| {
        vec![
            node("Shape", &["x"], &["shape"]),
            with(node("Gather", &["shape", first], &["length"]), "axis", 0),
            with(node("Concat", &["length", "rest"], &["target"]), "axis", 0),
            node("Reshape", &["x", "target"], &["y"]),
        ]
    };
    apart(lengths("zero"));
    doubted(lengths("one"), "may put rows elsewhere");
}

#[test]
fn rows_whose_number_was_left_open_are_not_parted_again() {
    let open = node("Reshape", &["x", "rest"], &["z"]);
    apart(vec![open.clone(), node("Relu", &["z"], &["y"])]);
    doubted(vec![open, node("Reshape", &["z", "rest"], &["y"])], "left the number of rows open");
}

#[test]
fn what_engines_may_read_in_two_ways_is_doubted() {
    let twice = with(with(node("Softmax", &["x"], &["y"]), "axis", 1), "axis", 0);
    doubted(vec![twice], "an attribute twice");
    let both = with_all(node("ReduceSum", &["x", "zero"], &["y"]), "axes", &[1]);
    doubted(vec![both], "axes that are not constant");
    let again = vec![node("Relu", &["x"], &["y"]), node("Tanh", &["x"], &["y"])];
    doubted(again, "a value that there is already");
}

#[test]
fn places_counted_over_all_rows_are_doubted() {
    apart(vec![node("MaxPool", &["x"], &["y"])]);
    doubted(vec![node("MaxPool", &["x"], &["y", "places"])], "counts over all of them");
}

#[test]
fn random_values_and_inner_graphs_are_doubted() {
    let noise = node("RandomNormal", &[], &["noise"]);
    doubted(vec![noise, node("Add", &["x", "noise"], &["y"])], "makes random values");
    let mut constant = node("Constant", &[], &["c"]);
    constant.attribute.push(value_of("value", weights("w", &[4], &[0.0; 4])));
    apart(vec![constant, node("Add", &["x", "c"], &["y"])]);
}

#[test]
fn an_output_without_rows_is_doubted() {
    doubted(vec![node("Relu", &["bias"], &["y"])], "output \"y\" has no rows");
}
