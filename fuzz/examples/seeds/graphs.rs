//! ONNX graphs: every datatype, weights inside and outside, branches, functions.

use modelet_host::nn::onnx::elements;
use modelet_host::nn::onnx::proto::{
    AttributeProto, Dimension, FunctionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, SparseTensorProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, dimension, type_proto,
};
use modelet_host::tensor::Datatype;
use prost::Message as _;

use super::Seed;

pub(super) fn seeds() -> Vec<Seed> {
    let seed = |name: &str, model: &ModelProto| ("onnx", name.to_owned(), model.encode_to_vec());
    let mut seeds: Vec<_> = Datatype::ALL
        .into_iter()
        .map(|datatype| {
            seed(
                &format!("ok-identity-{}", datatype.to_string().to_lowercase()),
                &identity(datatype),
            )
        })
        .collect();
    let outside = |location: &str, length: &str| {
        add(elsewhere(&[("location", location), ("offset", "8"), ("length", length)]))
    };
    seeds.extend([
        seed("ok-weights-inside", &add(weights())),
        seed("ok-weights-outside", &outside("weights.bin", "8")),
        seed("ok-weights-in-a-folder", &outside("./folder/weights.bin", "8")),
        seed("ok-branches", &branches()),
        seed("ok-function", &function()),
        seed("ok-sparse", &sparse()),
        seed("no-host-file", &outside("/etc/passwd", "8")),
        seed("no-parent-folder", &outside("../weights.bin", "8")),
        seed("no-wrong-length", &outside("weights.bin", "9")),
        seed(
            "no-past-the-end",
            &add(elsewhere(&[("location", "w"), ("offset", "18446744073709551615")])),
        ),
        (
            "onnx",
            "no-graph".to_owned(),
            ModelProto { graph: None, ..identity(Datatype::Fp32) }.encode_to_vec(),
        ),
        ("onnx", "no-gguf".to_owned(), b"GGUF\x03\0\0\0".to_vec()),
        ("onnx", "no-bytes".to_owned(), Vec::new()),
    ]);
    seeds
}

fn value(name: &str, datatype: Datatype) -> ValueInfoProto {
    let named = dimension::Value::DimParam("n".to_owned());
    let axis = |value| Dimension { value: Some(value), denotation: None };
    let dim = vec![axis(named), axis(dimension::Value::DimValue(2))];
    let tensor = type_proto::Tensor {
        elem_type: Some(elements::number(datatype)),
        shape: Some(TensorShapeProto { dim }),
    };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value, denotation: None }),
        ..Default::default()
    }
}

fn node(op_type: &str, input: &[&str], output: &str) -> NodeProto {
    NodeProto {
        input: input.iter().map(ToString::to_string).collect(),
        output: vec![output.to_owned()],
        op_type: Some(op_type.to_owned()),
        ..Default::default()
    }
}

fn model(datatype: Datatype, node: Vec<NodeProto>) -> ModelProto {
    let graph = GraphProto {
        name: Some("g".to_owned()),
        input: vec![value("x", datatype)],
        output: vec![value("y", datatype)],
        node,
        ..Default::default()
    };
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset],
        graph: Some(graph),
        ..Default::default()
    }
}

fn identity(datatype: Datatype) -> ModelProto {
    model(datatype, vec![node("Identity", &["x"], "y")])
}

fn weights() -> TensorProto {
    TensorProto {
        name: Some("w".to_owned()),
        dims: vec![2],
        data_type: Some(elements::FLOAT),
        raw_data: Some([1.5f32, -2.0].map(f32::to_le_bytes).concat().into()),
        ..Default::default()
    }
}

fn elsewhere(entries: &[(&str, &str)]) -> TensorProto {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: Some((*key).to_owned()),
        value: Some((*value).to_owned()),
    };
    TensorProto {
        raw_data: None,
        external_data: entries.iter().map(entry).collect(),
        data_location: Some(1),
        ..weights()
    }
}

fn add(weights: TensorProto) -> ModelProto {
    let mut model = model(Datatype::Fp32, vec![node("Add", &["x", "w"], "y")]);
    model.graph.iter_mut().for_each(|graph| graph.initializer = vec![weights.clone()]);
    model
}

/// A loop in a branch, with weights in the innermost graph.
fn branches() -> ModelProto {
    let body = |name: &str, graph| AttributeProto {
        name: Some(name.to_owned()),
        g: Some(Box::new(graph)),
        r#type: Some(5),
        ..Default::default()
    };
    let inner = GraphProto {
        node: vec![node("Add", &["x", "w"], "y")],
        initializer: vec![elsewhere(&[("location", "w"), ("length", "8")])],
        ..Default::default()
    };
    let looped =
        NodeProto { attribute: vec![body("body", inner)], ..node("Loop", &["", "c"], "y") };
    let outer = GraphProto { node: vec![looped], ..Default::default() };
    let branch = NodeProto {
        attribute: vec![body("then_branch", outer.clone()), body("else_branch", outer)],
        ..node("If", &["c"], "y")
    };
    model(Datatype::Fp32, vec![branch])
}

/// An operator that the model defines, with a constant inside.
fn function() -> ModelProto {
    let constant = AttributeProto {
        name: Some("value".to_owned()),
        t: Some(Box::new(weights())),
        r#type: Some(4),
        ..Default::default()
    };
    let function = FunctionProto {
        name: Some("Own".to_owned()),
        domain: Some("own".to_owned()),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        node: vec![
            NodeProto { attribute: vec![constant], ..node("Constant", &[], "c") },
            node("Mul", &["x", "c"], "y"),
        ],
        ..Default::default()
    };
    let own = NodeProto { domain: Some("own".to_owned()), ..node("Own", &["x"], "y") };
    ModelProto { functions: vec![function], ..model(Datatype::Fp32, vec![own]) }
}

fn sparse() -> ModelProto {
    let indices = TensorProto {
        name: Some("i".to_owned()),
        dims: vec![2],
        data_type: Some(elements::INT64),
        int64_data: vec![0, 3],
        ..Default::default()
    };
    let sparse =
        SparseTensorProto { values: Some(weights()), indices: Some(indices), dims: vec![4] };
    let mut model = model(Datatype::Fp32, vec![node("Add", &["x", "w"], "y")]);
    model.graph.iter_mut().for_each(|graph| graph.sparse_initializer = vec![sparse.clone()]);
    model
}
