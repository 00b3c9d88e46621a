//! Graphs that cost nothing of their own, so that all that is measured is the way to them.

use modelet_host::nn::onnx::elements;
use modelet_host::nn::onnx::proto::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, dimension, type_proto,
};
use modelet_host::tensor::Datatype;
use prost::Message as _;

/// `y = x`, FP32 of any length.
pub fn identity() -> Vec<u8> {
    Stub::default().input("x", Datatype::Fp32, &["n"]).passed("y", "x").file()
}

/// A graph with the inputs and outputs of another, which answers at once.
#[derive(Default)]
pub struct Stub {
    graph: GraphProto,
}

impl Stub {
    /// Takes `name`, each axis a number or a name.
    pub fn input(mut self, name: &str, datatype: Datatype, axes: &[&str]) -> Self {
        self.graph.input.push(value(name, datatype, axes));
        self
    }

    /// Answers `name` with the input `from`, unchanged.
    pub fn passed(self, name: &str, from: &str) -> Self {
        let as_given = self.graph.input.iter().find(|input| input.name() == from);
        let mut output = as_given.expect("an input of that name").clone();
        output.name = Some(name.to_owned());
        self.answered(output, "Identity", &[from])
    }

    /// Answers `name` with `values` FP32 of the shape.
    pub fn floats(self, name: &str, shape: &[i64], values: f32) -> Self {
        let count = shape.iter().product::<i64>() as usize;
        let data = values.to_le_bytes().repeat(count);
        self.constant(name, Datatype::Fp32, shape, data)
    }

    /// Answers `name` with the numbers from 0 on.
    pub fn counted(self, name: &str, shape: &[i64]) -> Self {
        let data = (0..shape.iter().product()).flat_map(i64::to_le_bytes).collect();
        self.constant(name, Datatype::Int64, shape, data)
    }

    /// Answers `name` with the first column of the input `from`, FP32.
    pub fn first_column(mut self, name: &str, from: &str, axis: &str) -> Self {
        self.initializer("first", Datatype::Int64, &[], 0i64.to_le_bytes().to_vec());
        let output = value(name, Datatype::Fp32, &[axis]);
        let mut whole = self.answered(output, "Gather", &[from, "first"]);
        let attribute = AttributeProto {
            name: Some("axis".to_owned()),
            i: Some(1),
            r#type: Some(2),
            ..AttributeProto::default()
        };
        whole.graph.node.iter_mut().last().expect("the node").attribute.push(attribute);
        whole
    }

    /// The ONNX file.
    pub fn file(mut self) -> Vec<u8> {
        self.graph.name = Some("stub".to_owned());
        let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
        ModelProto {
            ir_version: Some(8),
            opset_import: vec![opset],
            graph: Some(self.graph),
            ..ModelProto::default()
        }
        .encode_to_vec()
    }

    fn constant(mut self, name: &str, datatype: Datatype, shape: &[i64], data: Vec<u8>) -> Self {
        let constant = format!("{name}-constant");
        self.initializer(&constant, datatype, shape, data);
        let axes: Vec<_> = shape.iter().map(ToString::to_string).collect();
        let axes: Vec<_> = axes.iter().map(String::as_str).collect();
        self.answered(value(name, datatype, &axes), "Identity", &[&constant])
    }

    fn initializer(&mut self, name: &str, datatype: Datatype, shape: &[i64], data: Vec<u8>) {
        self.graph.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            dims: shape.to_vec(),
            data_type: Some(elements::number(datatype)),
            raw_data: Some(data.into()),
            ..TensorProto::default()
        });
    }

    fn answered(mut self, output: ValueInfoProto, op_type: &str, inputs: &[&str]) -> Self {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.name().to_owned()],
            op_type: Some(op_type.to_owned()),
            ..NodeProto::default()
        });
        self.graph.output.push(output);
        self
    }
}

fn value(name: &str, datatype: Datatype, axes: &[&str]) -> ValueInfoProto {
    let dim = axes.iter().map(|axis| {
        let value = match axis.parse() {
            Ok(length) => dimension::Value::DimValue(length),
            Err(_) => dimension::Value::DimParam((*axis).to_owned()),
        };
        Dimension { value: Some(value), denotation: None }
    });
    let shape = Some(TensorShapeProto { dim: dim.collect() });
    let tensor = type_proto::Tensor { elem_type: Some(elements::number(datatype)), shape };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            denotation: None,
        }),
        ..ValueInfoProto::default()
    }
}
