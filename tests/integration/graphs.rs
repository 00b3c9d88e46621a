//! The pass-through component serves any graph its engine can run, and says which it cannot.

use modelet_host::nn::onnx::proto::{
    Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, dimension, type_proto,
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::harness::Server;

/// ONNX's number of FP32.
const FLOAT: i32 = 1;
/// Lengths of axes; below zero where they may vary.
pub(crate) type Shape<'a> = &'a [i64];

pub(crate) fn value(name: &str, shape: Shape<'_>) -> ValueInfoProto {
    let dim = shape.iter().enumerate().map(|(axis, length)| Dimension {
        value: Some(match length {
            0.. => dimension::Value::DimValue(*length),
            _ => dimension::Value::DimParam(format!("axis{axis}")),
        }),
        denotation: None,
    });
    let shape = Some(TensorShapeProto { dim: dim.collect() });
    let tensor = type_proto::Tensor { elem_type: Some(FLOAT), shape };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            denotation: None,
        }),
        ..ValueInfoProto::default()
    }
}

pub(crate) fn node(domain: &str, op_type: &str, input: &[&str], output: &[&str]) -> NodeProto {
    NodeProto {
        input: input.iter().map(ToString::to_string).collect(),
        output: output.iter().map(ToString::to_string).collect(),
        op_type: Some(op_type.to_owned()),
        domain: Some(domain.to_owned()),
        ..NodeProto::default()
    }
}

pub(crate) fn graph(
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
    node: Vec<NodeProto>,
) -> GraphProto {
    GraphProto { name: Some("g".to_owned()), input, output, node, ..GraphProto::default() }
}

pub(crate) fn file(graph: GraphProto) -> Vec<u8> {
    let opset = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", 17), opset("com.microsoft", 1), opset("com.example", 1)],
        graph: Some(graph),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

/// `y = -x`, of any length.
pub(crate) fn negation() -> Vec<u8> {
    let negate = node("", "Neg", &["x"], &["y"]);
    file(graph(vec![value("x", &[-1])], vec![value("y", &[-1])], vec![negate]))
}

/// `y = x + w`, with `w` in a file beside the graph.
pub(crate) fn with_external_weights(location: &str) -> Vec<u8> {
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    };
    let weights = TensorProto {
        name: Some("w".to_owned()),
        dims: vec![2],
        data_type: Some(FLOAT),
        external_data: vec![
            entry("location", location),
            entry("offset", "4"),
            entry("length", "8"),
        ],
        data_location: Some(1),
        ..TensorProto::default()
    };
    let add = node("", "Add", &["x", "w"], &["y"]);
    let graph = graph(vec![value("x", &[2])], vec![value("y", &[2])], vec![add]);
    file(GraphProto { initializer: vec![weights], ..graph })
}

/// The sum of every element of a column `x` with every element of a row `y`: an answer that is much
/// larger than its request.
pub(crate) fn outer_sum() -> Vec<u8> {
    let add = node("", "Add", &["x", "y"], &["z"]);
    let inputs = vec![value("x", &[-1, 1]), value("y", &[1, -1])];
    file(graph(inputs, vec![value("z", &[-1, -1])], vec![add]))
}

/// Calls a model with FP32 inputs in JSON; the outputs by name, each with shape and data.
#[track_caller]
fn call(
    server: &Server,
    model: &str,
    inputs: &[(&str, &[usize], &[f32])],
) -> Vec<(String, Value, Value)> {
    let inputs: Vec<_> = inputs
        .iter()
        .map(|(name, shape, data)| json!({ "name": name, "datatype": "FP32", "shape": shape, "data": data }))
        .collect();
    let answer = server.post(&format!("/v2/models/{model}/infer"), &json!({ "inputs": inputs }));
    let document = answer.ok().json();
    let outputs = document["outputs"].as_array().unwrap().iter();
    outputs
        .map(|output| {
            (
                output["name"].as_str().unwrap().into(),
                output["shape"].clone(),
                output["data"].clone(),
            )
        })
        .collect()
}

pub(crate) const BACKENDS: [&str; 2] = ["onnxruntime", "rten"];

#[test]
fn a_scalar_has_the_shape_of_a_scalar() {
    let server = Server::start();
    let add = node("", "Add", &["x", "x"], &["y"]);
    let double = file(graph(vec![value("x", &[])], vec![value("y", &[])], vec![add]));
    for backend in BACKENDS {
        server.publish_onnx(backend, "1", &double, backend).ok();
        let outputs = call(&server, backend, &[("x", &[], &[2.5])]);
        assert_eq!(outputs, [("y".into(), json!([]), json!([5.0]))], "{backend}");
    }
}

#[test]
fn names_may_have_any_characters_and_outputs_may_be_several() {
    const INPUT: &str = "日本 / {x} \"quoted\"";
    const OUTPUTS: [&str; 2] = ["sum: ünïcode", "../product"];
    let server = Server::start();
    let nodes = vec![
        node("", "Add", &[INPUT, INPUT], &[OUTPUTS[0]]),
        node("", "Mul", &[INPUT, INPUT], &[OUTPUTS[1]]),
    ];
    let outputs = OUTPUTS.map(|name| value(name, &[-1])).to_vec();
    let bytes = file(graph(vec![value(INPUT, &[-1])], outputs, nodes));
    for backend in BACKENDS {
        server.publish_onnx(backend, "1", &bytes, backend).ok();
        let answered = call(&server, backend, &[(INPUT, &[2], &[3.0, 4.0])]);
        let expected = [
            (OUTPUTS[0].into(), json!([2]), json!([6.0, 8.0])),
            (OUTPUTS[1].into(), json!([2]), json!([9.0, 16.0])),
        ];
        assert_eq!(answered, expected, "{backend}");
    }
}

#[test]
fn any_axis_may_be_dynamic() {
    let server = Server::start();
    let identity = node("", "Neg", &["x"], &["y"]);
    let shape: Shape<'_> = &[2, -1, -1];
    let bytes = file(graph(vec![value("x", shape)], vec![value("y", shape)], vec![identity]));
    for backend in BACKENDS {
        server.publish_onnx(backend, "1", &bytes, backend).ok();
        for (a, b) in [(1, 1), (3, 2), (1, 5)] {
            let data: Vec<f32> = (0..2 * a * b).map(|x| x as f32 + 1.0).collect();
            let outputs = call(&server, backend, &[("x", &[2, a, b], &data)]);
            let negative: Vec<_> = data.iter().map(|x| -x).collect();
            assert_eq!(outputs, [("y".into(), json!([2, a, b]), json!(negative))], "{backend}");
        }
    }
}

#[test]
fn external_data_comes_from_the_versions_own_assets() {
    let server = Server::start();
    let bytes = with_external_weights("weights.bin");
    let weights: Vec<u8> = [9.0f32, 10.0, 20.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    for backend in BACKENDS {
        let manifest = json!({ "backend": backend }).to_string();
        let parts: [(&str, &[u8]); 3] = [
            ("manifest", manifest.as_bytes()),
            ("asset:model.onnx", &bytes),
            ("asset:weights.bin", &weights),
        ];
        server.publish(backend, "1", &parts).ok();
        let outputs = call(&server, backend, &[("x", &[2], &[1.0, 2.0])]);
        assert_eq!(outputs, [("y".into(), json!([2]), json!([11.0, 22.0]))], "{backend}");
    }
}

#[test]
fn external_data_that_is_not_an_asset_is_refused_by_name() {
    let server = Server::start();
    let refused = |location| {
        let bytes = with_external_weights(location);
        server.publish_onnx("m", "1", &bytes, "auto").error(400)
    };
    let missing = refused("weights.bin");
    assert!(missing.contains("weights.bin"), "{missing}");
    for location in ["/etc/os-release", "../../../etc/os-release", "etc/../../x", "a\\b"] {
        let error = refused(location);
        assert!(error.contains("\"w\"") || error.contains("w"), "{location}: {error}");
    }
    server.get("/v2/models/m").error(404);
}

#[test]
fn external_data_of_another_model_is_not_to_be_had() {
    let server = Server::start();
    let bytes = with_external_weights("weights.bin");
    let weights: Vec<u8> = [9.0f32, 10.0, 20.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let parts: [(&str, &[u8]); 2] = [("asset:model.onnx", &bytes), ("asset:weights.bin", &weights)];
    let published = server.publish("theirs", "1", &parts).ok().json();
    let digest = published["version"]["assets"]["weights.bin"]["digest"].as_str().unwrap();
    let hex = digest.strip_prefix("sha256:").unwrap();
    // By its name, by its address, and by where it lies: only assets of the same version are there.
    for location in ["weights.bin", hex, &format!("../../sha256/{}/{hex}", &hex[..2])] {
        let bytes = with_external_weights(location);
        let error = server.publish_onnx("mine", "1", &bytes, "auto").error(400);
        assert!(error.contains(location), "{location}: {error}");
    }
    server.get("/api/v1/models/mine").error(404);
}

#[test]
fn a_graph_over_the_limit_of_bytes_is_refused_with_its_data_counted() {
    let server = Server::builder().config("[compute]\ngraph_bytes = 1000\n").start();
    let bytes = with_external_weights("weights.bin");
    let parts: [(&str, &[u8]); 2] =
        [("asset:model.onnx", &bytes), ("asset:weights.bin", &[0; 1000])];
    let error = server.publish("m", "1", &parts).error(400);
    assert!(error.contains("compute.graph_bytes"), "{error}");
    let parts: [(&str, &[u8]); 2] =
        [("asset:model.onnx", &bytes), ("asset:weights.bin", &[0; 100])];
    server.publish("m", "1", &parts).ok();
}

#[test]
fn a_vendors_operator_runs_where_the_engine_has_it() {
    let server = Server::start();
    let gelu = node("com.microsoft", "Gelu", &["x"], &["y"]);
    let bytes = file(graph(vec![value("x", &[-1])], vec![value("y", &[-1])], vec![gelu]));
    server.publish_onnx("m", "1", &bytes, "onnxruntime").ok();
    let outputs = call(&server, "m", &[("x", &[2], &[0.0, 10.0])]);
    assert_eq!(outputs, [("y".into(), json!([2]), json!([0.0, 10.0]))]);
}

#[test]
fn an_operator_that_no_engine_has_is_named() {
    let server = Server::start();
    for (domain, op) in [("com.example", "Frobnicate"), ("", "NoSuchOperator")] {
        let bytes = file(graph(
            vec![value("x", &[1])],
            vec![value("y", &[1])],
            vec![node(domain, op, &["x"], &["y"])],
        ));
        for backend in BACKENDS {
            let error = server.publish_onnx("m", "1", &bytes, backend).error(400);
            assert!(error.contains(op), "{backend}: {error}");
        }
    }
}
