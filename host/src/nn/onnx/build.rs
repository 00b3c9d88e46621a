//! Tiny models for tests, written with the messages this module reads.

use bytes::Bytes;
use prost::Message as _;

use super::elements;
use super::proto::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, dimension,
    type_proto,
};
use crate::tensor::Datatype;

/// An axis of a declared value.
#[derive(Clone, Copy)]
pub(crate) enum Axis {
    /// A fixed length.
    Is(i64),
    /// A named length.
    Named(&'static str),
}

/// A dense tensor called `name`.
pub(crate) fn value(name: &str, datatype: Datatype, axes: &[Axis]) -> ValueInfoProto {
    let dim = axes.iter().map(|axis| {
        let value = match *axis {
            Axis::Is(length) => dimension::Value::DimValue(length),
            Axis::Named(name) => dimension::Value::DimParam(name.to_owned()),
        };
        Dimension { value: Some(value), denotation: None }
    });
    let tensor = type_proto::Tensor {
        elem_type: Some(elements::number(datatype)),
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    typed(name, type_proto::Value::TensorType(tensor))
}

/// A value of any type.
pub(crate) fn typed(name: &str, value: type_proto::Value) -> ValueInfoProto {
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(value), denotation: None }),
        ..ValueInfoProto::default()
    }
}

/// A use of `op_type` of the default operator set.
pub(crate) fn node(op_type: &str, input: &[&str], output: &[&str]) -> NodeProto {
    NodeProto {
        input: input.iter().map(ToString::to_string).collect(),
        output: output.iter().map(ToString::to_string).collect(),
        op_type: Some(op_type.to_owned()),
        name: Some(format!("{op_type}-node")),
        ..NodeProto::default()
    }
}

/// A graph attribute, as branches and loops have.
pub(crate) fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        g: Some(Box::new(graph)),
        r#type: Some(5),
        ..AttributeProto::default()
    }
}

/// A tensor attribute, as constants have.
pub(crate) fn constant(name: &str, tensor: TensorProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        t: Some(Box::new(tensor)),
        r#type: Some(4),
        ..AttributeProto::default()
    }
}

/// FP32 weights, inside the model.
pub(crate) fn weights(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(elements::FLOAT),
        raw_data: Some(data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>().into()),
        ..TensorProto::default()
    }
}

/// FP32 weights that stand elsewhere, as `entries` says.
pub(crate) fn elsewhere(name: &str, dims: &[i64], entries: &[(&str, &str)]) -> TensorProto {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: Some((*key).to_owned()),
        value: Some((*value).to_owned()),
    };
    TensorProto {
        raw_data: None,
        external_data: entries.iter().map(entry).collect(),
        data_location: Some(1),
        ..weights(name, dims, &[])
    }
}

/// A graph; initializers are added to it.
pub(crate) fn graph(
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
    node: Vec<NodeProto>,
) -> GraphProto {
    GraphProto { name: Some("graph".to_owned()), input, output, node, ..GraphProto::default() }
}

/// A model over `graph`, of IR version 8 and operator set 17, which all engines in use read.
pub(crate) fn model(graph: GraphProto) -> ModelProto {
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
}

/// The file of a model over `graph`.
pub(crate) fn file(graph: GraphProto) -> Bytes {
    model(graph).encode_to_vec().into()
}

/// `y = x` of any datatype and shape.
pub(crate) fn identity(datatype: Datatype, axes: &[Axis]) -> Bytes {
    file(graph(
        vec![value("x", datatype, axes)],
        vec![value("y", datatype, axes)],
        vec![node("Identity", &["x"], &["y"])],
    ))
}

/// `y = x + weights`, all FP32 `[n]`.
pub(crate) fn add(weights: TensorProto) -> ModelProto {
    let axes = [Axis::Is(weights.dims.iter().product())];
    let name = weights.name().to_owned();
    let mut graph = graph(
        vec![value("x", Datatype::Fp32, &axes)],
        vec![value("y", Datatype::Fp32, &axes)],
        vec![node("Add", &["x", &name], &["y"])],
    );
    graph.initializer = vec![weights];
    model(graph)
}
