//! Graphs that cost nothing of their own, so that all that is measured is the way to them.

use modelet_host::nn::onnx::proto::{
    Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto,
    ValueInfoProto, dimension, type_proto,
};
use prost::Message as _;

/// ONNX's number of FP32.
const FLOAT: i32 = 1;

/// `y = x`, FP32 of any length.
pub fn identity() -> Vec<u8> {
    let node = NodeProto {
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        op_type: Some("Identity".to_owned()),
        ..NodeProto::default()
    };
    let graph = GraphProto {
        name: Some("identity".to_owned()),
        input: vec![vector("x")],
        output: vec![vector("y")],
        node: vec![node],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset],
        graph: Some(graph),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

fn vector(name: &str) -> ValueInfoProto {
    let length = dimension::Value::DimParam("n".to_owned());
    let dim = vec![Dimension { value: Some(length), denotation: None }];
    let shape = Some(TensorShapeProto { dim });
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
