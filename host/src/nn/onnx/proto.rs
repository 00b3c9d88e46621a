//! The messages of the ONNX protobuf, up to IR version 14, as far as decoding and encoding need
//! them.
//!
//! Every singular field is optional, as in the schema (proto2): an absent field stays absent when a
//! model is written again, since engines tell absent from zero. Tensor data is [`Bytes`], so that a
//! model decoded from `Bytes` shares its weights with them.

use bytes::Bytes;
use prost::{Message, Oneof};

/// A whole model file.
#[derive(Clone, PartialEq, Message)]
pub struct ModelProto {
    /// The version of the format itself.
    #[prost(int64, optional, tag = "1")]
    pub ir_version: Option<i64>,
    /// The tool that wrote the model.
    #[prost(string, optional, tag = "2")]
    pub producer_name: Option<String>,
    /// That tool's version.
    #[prost(string, optional, tag = "3")]
    pub producer_version: Option<String>,
    /// The model's namespace.
    #[prost(string, optional, tag = "4")]
    pub domain: Option<String>,
    /// The model's own version number.
    #[prost(int64, optional, tag = "5")]
    pub model_version: Option<i64>,
    /// Free text.
    #[prost(string, optional, tag = "6")]
    pub doc_string: Option<String>,
    /// What is computed.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    /// The operator sets that node names are looked up in.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// Free key/values.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringStringEntryProto>,
    /// How the model is trained; inference ignores it.
    #[prost(message, repeated, tag = "20")]
    pub training_info: Vec<TrainingInfoProto>,
    /// Operators the model defines itself.
    #[prost(message, repeated, tag = "25")]
    pub functions: Vec<FunctionProto>,
    /// The sets of devices that nodes may be spread over.
    #[prost(message, repeated, tag = "26")]
    pub configuration: Vec<DeviceConfigurationProto>,
}

/// Nodes, their constants, and what goes in and out.
#[derive(Clone, PartialEq, Message)]
pub struct GraphProto {
    /// The computation, in topological order.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    /// The graph's name.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    /// Named constants; one that is also an input is that input's default.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    /// Free text.
    #[prost(string, optional, tag = "10")]
    pub doc_string: Option<String>,
    /// What a run brings.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    /// What a run gives.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
    /// Types of values in between.
    #[prost(message, repeated, tag = "13")]
    pub value_info: Vec<ValueInfoProto>,
    /// Quantization parameters of values.
    #[prost(message, repeated, tag = "14")]
    pub quantization_annotation: Vec<TensorAnnotation>,
    /// Named constants in sparse form.
    #[prost(message, repeated, tag = "15")]
    pub sparse_initializer: Vec<SparseTensorProto>,
    /// Free key/values.
    #[prost(message, repeated, tag = "16")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// One use of an operator.
#[derive(Clone, PartialEq, Message)]
pub struct NodeProto {
    /// Names of the values it takes; empty where an optional one is left out.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// Names of the values it gives.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// The node's name.
    #[prost(string, optional, tag = "3")]
    pub name: Option<String>,
    /// The operator's name.
    #[prost(string, optional, tag = "4")]
    pub op_type: Option<String>,
    /// The operator's settings.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    /// Free text.
    #[prost(string, optional, tag = "6")]
    pub doc_string: Option<String>,
    /// The operator set it is looked up in; absent is `ai.onnx`.
    #[prost(string, optional, tag = "7")]
    pub domain: Option<String>,
    /// Which overload of a function of the model.
    #[prost(string, optional, tag = "8")]
    pub overload: Option<String>,
    /// Free key/values.
    #[prost(message, repeated, tag = "9")]
    pub metadata_props: Vec<StringStringEntryProto>,
    /// How it is spread over devices.
    #[prost(message, repeated, tag = "10")]
    pub device_configurations: Vec<NodeDeviceConfigurationProto>,
}

/// A named setting of a node, of which one value field is in use.
#[derive(Clone, PartialEq, Message)]
pub struct AttributeProto {
    /// The setting's name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// One float.
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    /// One integer.
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    /// One string.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub s: Option<Bytes>,
    /// One tensor.
    #[prost(message, optional, boxed, tag = "5")]
    pub t: Option<Box<TensorProto>>,
    /// One graph: the body of a branch or loop.
    #[prost(message, optional, boxed, tag = "6")]
    pub g: Option<Box<GraphProto>>,
    /// Floats.
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    /// Integers.
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    /// Strings.
    #[prost(bytes = "bytes", repeated, tag = "9")]
    pub strings: Vec<Bytes>,
    /// Tensors.
    #[prost(message, repeated, tag = "10")]
    pub tensors: Vec<TensorProto>,
    /// Graphs.
    #[prost(message, repeated, tag = "11")]
    pub graphs: Vec<GraphProto>,
    /// Free text.
    #[prost(string, optional, tag = "13")]
    pub doc_string: Option<String>,
    /// One type.
    #[prost(message, optional, boxed, tag = "14")]
    pub tp: Option<Box<TypeProto>>,
    /// Types.
    #[prost(message, repeated, tag = "15")]
    pub type_protos: Vec<TypeProto>,
    /// Which value field is in use.
    #[prost(int32, optional, tag = "20")]
    pub r#type: Option<i32>,
    /// The attribute of the enclosing function whose value this takes.
    #[prost(string, optional, tag = "21")]
    pub ref_attr_name: Option<String>,
    /// One sparse tensor.
    #[prost(message, optional, boxed, tag = "22")]
    pub sparse_tensor: Option<Box<SparseTensorProto>>,
    /// Sparse tensors.
    #[prost(message, repeated, tag = "23")]
    pub sparse_tensors: Vec<SparseTensorProto>,
}

/// A constant: its data stands in `raw_data`, in the list of its type, or in another file.
#[derive(Clone, PartialEq, Message)]
pub struct TensorProto {
    /// The length of each axis.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    /// The element type, one of [`super::elements`].
    #[prost(int32, optional, tag = "2")]
    pub data_type: Option<i32>,
    /// Which part of a split tensor this is; unused in practice.
    #[prost(message, optional, tag = "3")]
    pub segment: Option<Segment>,
    /// Elements of FLOAT and COMPLEX64.
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// Elements of the integers up to 32 bits, BOOL and the small floats.
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    /// Elements of STRING.
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub string_data: Vec<Bytes>,
    /// Elements of INT64.
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    /// The value's name.
    #[prost(string, optional, tag = "8")]
    pub name: Option<String>,
    /// All elements, little-endian.
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub raw_data: Option<Bytes>,
    /// Elements of DOUBLE and COMPLEX128.
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    /// Elements of UINT32 and UINT64.
    #[prost(uint64, repeated, tag = "11")]
    pub uint64_data: Vec<u64>,
    /// Free text.
    #[prost(string, optional, tag = "12")]
    pub doc_string: Option<String>,
    /// Where the data stands: `location`, `offset`, `length`.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringStringEntryProto>,
    /// 0 in this message, 1 as `external_data` says.
    #[prost(int32, optional, tag = "14")]
    pub data_location: Option<i32>,
    /// Free key/values.
    #[prost(message, repeated, tag = "16")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// A part of a split tensor.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Segment {
    /// Its first element.
    #[prost(int64, optional, tag = "1")]
    pub begin: Option<i64>,
    /// One past its last element.
    #[prost(int64, optional, tag = "2")]
    pub end: Option<i64>,
}

/// A constant of which only some elements are not zero.
#[derive(Clone, PartialEq, Message)]
pub struct SparseTensorProto {
    /// Those elements.
    #[prost(message, optional, tag = "1")]
    pub values: Option<TensorProto>,
    /// Where they stand.
    #[prost(message, optional, tag = "2")]
    pub indices: Option<TensorProto>,
    /// The shape of the whole.
    #[prost(int64, repeated, packed = "false", tag = "3")]
    pub dims: Vec<i64>,
}

/// A value's name and type.
#[derive(Clone, PartialEq, Message)]
pub struct ValueInfoProto {
    /// The value's name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Its type.
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<TypeProto>,
    /// Free text.
    #[prost(string, optional, tag = "3")]
    pub doc_string: Option<String>,
    /// Free key/values.
    #[prost(message, repeated, tag = "4")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// A type.
#[derive(Clone, PartialEq, Message)]
pub struct TypeProto {
    /// Which kind of type.
    #[prost(oneof = "type_proto::Value", tags = "1, 4, 5, 7, 8, 9")]
    pub value: Option<type_proto::Value>,
    /// The standard name of what the value means.
    #[prost(string, optional, tag = "6")]
    pub denotation: Option<String>,
}

/// The kinds of types.
pub mod type_proto {
    use super::{Message, Oneof, TensorShapeProto, TypeProto};

    /// One of the kinds.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Value {
        /// A dense tensor.
        #[prost(message, tag = "1")]
        TensorType(Tensor),
        /// A list of values of one type.
        #[prost(message, tag = "4")]
        SequenceType(Box<Sequence>),
        /// Keys to values.
        #[prost(message, tag = "5")]
        MapType(Box<Map>),
        /// A type no standard knows.
        #[prost(message, tag = "7")]
        OpaqueType(Opaque),
        /// A sparse tensor.
        #[prost(message, tag = "8")]
        SparseTensorType(Tensor),
        /// A value that may be absent.
        #[prost(message, tag = "9")]
        OptionalType(Box<Optional>),
    }

    /// A tensor's element type and shape.
    #[derive(Clone, PartialEq, Message)]
    pub struct Tensor {
        /// The element type, one of [`super::super::elements`].
        #[prost(int32, optional, tag = "1")]
        pub elem_type: Option<i32>,
        /// The shape; absent where not even the rank is known.
        #[prost(message, optional, tag = "2")]
        pub shape: Option<TensorShapeProto>,
    }

    /// A list's element type.
    #[derive(Clone, PartialEq, Message)]
    pub struct Sequence {
        /// The type of every element.
        #[prost(message, optional, boxed, tag = "1")]
        pub elem_type: Option<Box<TypeProto>>,
    }

    /// A map's types.
    #[derive(Clone, PartialEq, Message)]
    pub struct Map {
        /// The element type of keys.
        #[prost(int32, optional, tag = "1")]
        pub key_type: Option<i32>,
        /// The type of values.
        #[prost(message, optional, boxed, tag = "2")]
        pub value_type: Option<Box<TypeProto>>,
    }

    /// The type of a value that may be absent.
    #[derive(Clone, PartialEq, Message)]
    pub struct Optional {
        /// Its type when it is there.
        #[prost(message, optional, boxed, tag = "1")]
        pub elem_type: Option<Box<TypeProto>>,
    }

    /// A type by name.
    #[derive(Clone, PartialEq, Message)]
    pub struct Opaque {
        /// The name's namespace.
        #[prost(string, optional, tag = "1")]
        pub domain: Option<String>,
        /// The name.
        #[prost(string, optional, tag = "2")]
        pub name: Option<String>,
    }
}

/// A shape.
#[derive(Clone, PartialEq, Message)]
pub struct TensorShapeProto {
    /// Its axes; none for a scalar.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

/// An axis: a length, a name that equal lengths share, or neither.
#[derive(Clone, PartialEq, Message)]
pub struct Dimension {
    /// The length or its name.
    #[prost(oneof = "dimension::Value", tags = "1, 2")]
    pub value: Option<dimension::Value>,
    /// The standard name of what the axis means.
    #[prost(string, optional, tag = "3")]
    pub denotation: Option<String>,
}

/// What an axis may say.
pub mod dimension {
    use super::Oneof;

    /// A length or its name.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Value {
        /// The length.
        #[prost(int64, tag = "1")]
        DimValue(i64),
        /// The name of a length not known yet.
        #[prost(string, tag = "2")]
        DimParam(String),
    }
}

/// An operator set and which version of it.
#[derive(Clone, PartialEq, Message)]
pub struct OperatorSetIdProto {
    /// Its namespace; absent is `ai.onnx`.
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    /// Its version.
    #[prost(int64, optional, tag = "2")]
    pub version: Option<i64>,
}

/// A key and a value.
#[derive(Clone, PartialEq, Message)]
pub struct StringStringEntryProto {
    /// The key.
    #[prost(string, optional, tag = "1")]
    pub key: Option<String>,
    /// The value.
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

/// The quantization parameters of a value.
#[derive(Clone, PartialEq, Message)]
pub struct TensorAnnotation {
    /// The value's name.
    #[prost(string, optional, tag = "1")]
    pub tensor_name: Option<String>,
    /// Parameter names to names of the tensors that hold them.
    #[prost(message, repeated, tag = "2")]
    pub quant_parameter_tensor_names: Vec<StringStringEntryProto>,
}

/// An operator that the model defines by nodes.
#[derive(Clone, PartialEq, Message)]
pub struct FunctionProto {
    /// The operator's name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Names of its inputs.
    #[prost(string, repeated, tag = "4")]
    pub input: Vec<String>,
    /// Names of its outputs.
    #[prost(string, repeated, tag = "5")]
    pub output: Vec<String>,
    /// Names of its settings without defaults.
    #[prost(string, repeated, tag = "6")]
    pub attribute: Vec<String>,
    /// The body.
    #[prost(message, repeated, tag = "7")]
    pub node: Vec<NodeProto>,
    /// Free text.
    #[prost(string, optional, tag = "8")]
    pub doc_string: Option<String>,
    /// The operator sets its nodes are looked up in.
    #[prost(message, repeated, tag = "9")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// The operator's namespace.
    #[prost(string, optional, tag = "10")]
    pub domain: Option<String>,
    /// Its settings with defaults.
    #[prost(message, repeated, tag = "11")]
    pub attribute_proto: Vec<AttributeProto>,
    /// Types of values in the body.
    #[prost(message, repeated, tag = "12")]
    pub value_info: Vec<ValueInfoProto>,
    /// Tells functions of one name apart.
    #[prost(string, optional, tag = "13")]
    pub overload: Option<String>,
    /// Free key/values.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// How a model is trained.
#[derive(Clone, PartialEq, Message)]
pub struct TrainingInfoProto {
    /// Gives the first values of what is trained.
    #[prost(message, optional, tag = "1")]
    pub initialization: Option<GraphProto>,
    /// One step of training.
    #[prost(message, optional, tag = "2")]
    pub algorithm: Option<GraphProto>,
    /// Which outputs of the initialization go where.
    #[prost(message, repeated, tag = "3")]
    pub initialization_binding: Vec<StringStringEntryProto>,
    /// Which outputs of a step go where.
    #[prost(message, repeated, tag = "4")]
    pub update_binding: Vec<StringStringEntryProto>,
}

/// A set of devices.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceConfigurationProto {
    /// The set's name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// How many devices it has.
    #[prost(int32, optional, tag = "2")]
    pub num_devices: Option<i32>,
    /// Their names.
    #[prost(string, repeated, tag = "3")]
    pub device: Vec<String>,
}

/// How a node is spread over a set of devices.
#[derive(Clone, PartialEq, Message)]
pub struct NodeDeviceConfigurationProto {
    /// The set's name.
    #[prost(string, optional, tag = "1")]
    pub configuration_id: Option<String>,
    /// How each of its tensors is split.
    #[prost(message, repeated, tag = "2")]
    pub sharding_spec: Vec<ShardingSpecProto>,
    /// Its stage in a pipeline.
    #[prost(int32, optional, tag = "3")]
    pub pipeline_stage: Option<i32>,
}

/// How a tensor is split over devices.
#[derive(Clone, PartialEq, Message)]
pub struct ShardingSpecProto {
    /// The tensor's name.
    #[prost(string, optional, tag = "1")]
    pub tensor_name: Option<String>,
    /// The devices, or groups of them where negative.
    #[prost(int64, repeated, packed = "false", tag = "2")]
    pub device: Vec<i64>,
    /// The groups.
    #[prost(message, repeated, tag = "3")]
    pub index_to_device_group_map: Vec<IntIntListEntryProto>,
    /// The axes that are split.
    #[prost(message, repeated, tag = "4")]
    pub sharded_dim: Vec<ShardedDimProto>,
}

/// A group of devices.
#[derive(Clone, PartialEq, Message)]
pub struct IntIntListEntryProto {
    /// The group's number.
    #[prost(int64, optional, tag = "1")]
    pub key: Option<i64>,
    /// Its devices.
    #[prost(int64, repeated, packed = "false", tag = "2")]
    pub value: Vec<i64>,
}

/// An axis that is split.
#[derive(Clone, PartialEq, Message)]
pub struct ShardedDimProto {
    /// Which axis.
    #[prost(int64, optional, tag = "1")]
    pub axis: Option<i64>,
    /// Its parts.
    #[prost(message, repeated, tag = "2")]
    pub simple_sharding: Vec<SimpleShardedDimProto>,
}

/// A part of a split axis.
#[derive(Clone, PartialEq, Message)]
pub struct SimpleShardedDimProto {
    /// The part's length or its name.
    #[prost(oneof = "dimension::Value", tags = "1, 2")]
    pub dim: Option<dimension::Value>,
    /// Into how many shards it goes.
    #[prost(int64, optional, tag = "3")]
    pub num_shards: Option<i64>,
}
