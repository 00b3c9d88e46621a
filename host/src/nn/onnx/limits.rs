//! What a model file may hold, checked on its bytes before anything is allocated for it.
//!
//! A protobuf of two-byte empty messages decodes into structures a hundred times its size, so the
//! decoder alone would let a small upload take all memory. This walks the wire format once, adds up
//! what decoding would hold, and refuses.

use super::OnnxError;
use super::proto::{
    AttributeProto, FunctionProto, GraphProto, NodeDeviceConfigurationProto, NodeProto,
    ShardingSpecProto, SparseTensorProto, TensorAnnotation, TensorProto, TrainingInfoProto,
    ValueInfoProto, type_proto,
};

/// The most bytes a model may have: protobuf's own limit, which engines keep too. Larger weights
/// belong into external data, up to the same sum.
pub const MAX_MODEL_BYTES: usize = i32::MAX as usize;

/// The most messages inside one another: the limit of protobuf's decoders. A branch or loop takes
/// three, so thirty of them may be nested.
pub const MAX_NESTING: usize = 100;

/// The most nodes, subgraphs and functions included. Exported models of today have up to about a
/// hundred thousand.
pub const MAX_NODES: usize = 1_000_000;

/// The most memory that a decoded model may take beyond its weights, which are not copied: several
/// times what the largest exported models need.
pub const MAX_STRUCTURE_BYTES: usize = 512 << 20;

/// What a list element or a string takes beside its bytes, with room for the list's growth.
const ENTRY_BYTES: usize = 64;

/// Checks the serialized model `bytes` against every limit here.
pub(super) fn check(bytes: &[u8]) -> Result<(), OnnxError> {
    if bytes.len() > MAX_MODEL_BYTES {
        return Err(OnnxError::TooLarge { bytes: bytes.len() as u64 });
    }
    Totals { nodes: 0, structure: 0 }.message(bytes, Kind::Model, 0)
}

/// The messages that hold other messages or lists of numbers; the others are leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Training,
    Function,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    ValueInfo,
    Type,
    /// A sequence, map or optional, each of which holds one more type.
    TypeOfType,
    TypeTensor,
    Shape,
    Annotation,
    NodeDevices,
    Sharding,
    DeviceGroup,
    ShardedDim,
    Leaf,
}

/// What a length-delimited field holds.
enum Field {
    Message(Kind),
    /// Numbers of up to eight bytes each, of which one byte of input may make one.
    Numbers,
    /// Numbers or raw data that take what they take in the file, or nothing.
    Data,
    Text,
}

impl Kind {
    fn field(self, number: u64) -> Field {
        use Field::{Data, Message, Numbers, Text};
        use Kind::*;
        match (self, number) {
            (Model, 7) | (Training, 1 | 2) | (Attribute, 6 | 11) => Message(Graph),
            (Model, 20) => Message(Training),
            (Model, 25) => Message(Function),
            (Graph, 1) | (Function, 7) => Message(Node),
            (Node, 5) | (Function, 11) => Message(Attribute),
            (Graph, 5) | (Attribute, 5 | 10) | (Sparse, 1 | 2) => Message(Tensor),
            (Graph, 15) | (Attribute, 22 | 23) => Message(Sparse),
            (Graph, 11..=13) | (Function, 12) => Message(ValueInfo),
            (ValueInfo, 2) | (Attribute, 14 | 15) | (TypeOfType, 1 | 2) => Message(Type),
            (Type, 4 | 5 | 9) => Message(TypeOfType),
            (Type, 1 | 8) => Message(TypeTensor),
            (TypeTensor, 2) => Message(Shape),
            (Graph, 14) => Message(Annotation),
            (Node, 10) => Message(NodeDevices),
            (NodeDevices, 2) => Message(Sharding),
            (Sharding, 3) => Message(DeviceGroup),
            (Sharding, 4) => Message(ShardedDim),
            (Model, 8 | 14 | 26)
            | (Training, 3 | 4)
            | (Function, 9 | 14)
            | (Graph, 16)
            | (Node, 9)
            | (Tensor, 3 | 13 | 16)
            | (ValueInfo, 4)
            | (Type, 7)
            | (Shape, 1)
            | (Annotation, 2)
            | (ShardedDim, 2) => Message(Leaf),
            (Tensor, 1 | 5 | 7 | 11)
            | (Attribute, 8)
            | (Sparse, 3)
            | (Sharding | DeviceGroup, 2) => Numbers,
            (Tensor, 4 | 9 | 10) | (Attribute, 7) => Data,
            _ => Text,
        }
    }

    /// Bytes that a message of this kind takes once decoded, without what it points to.
    const fn size(self) -> usize {
        match self {
            Self::Training => size_of::<TrainingInfoProto>(),
            Self::Function => size_of::<FunctionProto>(),
            Self::Graph => size_of::<GraphProto>(),
            Self::Node => size_of::<NodeProto>(),
            Self::Attribute => size_of::<AttributeProto>(),
            Self::Tensor => size_of::<TensorProto>(),
            Self::Sparse => size_of::<SparseTensorProto>(),
            Self::ValueInfo => size_of::<ValueInfoProto>(),
            Self::Type | Self::TypeOfType | Self::TypeTensor | Self::Shape => {
                size_of::<type_proto::Tensor>()
            }
            Self::Annotation => size_of::<TensorAnnotation>(),
            Self::NodeDevices => size_of::<NodeDeviceConfigurationProto>(),
            Self::Sharding => size_of::<ShardingSpecProto>(),
            Self::Model | Self::DeviceGroup | Self::ShardedDim | Self::Leaf => 0,
        }
    }
}

/// What was counted so far.
struct Totals {
    nodes: usize,
    structure: usize,
}

impl Totals {
    /// Counts the fields of one message and of all messages in it.
    fn message(&mut self, mut rest: &[u8], kind: Kind, depth: usize) -> Result<(), OnnxError> {
        if depth > MAX_NESTING {
            return Err(OnnxError::Nesting);
        }
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            match key & 7 {
                0 => {
                    varint(&mut rest)?;
                    self.hold(8)?;
                }
                1 => {
                    take(&mut rest, 8)?;
                    self.hold(8)?;
                }
                2 => {
                    let length = varint(&mut rest)?;
                    let part = take(&mut rest, length)?;
                    self.part(part, kind.field(key >> 3), depth)?;
                }
                5 => {
                    take(&mut rest, 4)?;
                    self.hold(8)?;
                }
                wire => return Err(OnnxError::malformed(format!("wire type {wire} is not used"))),
            }
        }
        Ok(())
    }

    fn part(&mut self, part: &[u8], field: Field, depth: usize) -> Result<(), OnnxError> {
        match field {
            Field::Message(kind) => {
                self.hold(ENTRY_BYTES + kind.size())?;
                if kind == Kind::Node {
                    self.nodes += 1;
                    if self.nodes > MAX_NODES {
                        return Err(OnnxError::Nodes);
                    }
                }
                self.message(part, kind, depth + 1)
            }
            Field::Numbers => self.hold(part.len().saturating_mul(8)),
            Field::Data => self.hold(ENTRY_BYTES),
            Field::Text => self.hold(ENTRY_BYTES.saturating_add(part.len())),
        }
    }

    fn hold(&mut self, bytes: usize) -> Result<(), OnnxError> {
        self.structure = self.structure.saturating_add(bytes);
        if self.structure > MAX_STRUCTURE_BYTES { Err(OnnxError::Structure) } else { Ok(()) }
    }
}

/// Takes a protobuf variable-length integer off the front.
fn varint(rest: &mut &[u8]) -> Result<u64, OnnxError> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let Some((byte, after)) = rest.split_first() else { break };
        *rest = after;
        // The tenth byte may only carry the 64th bit; what is beyond is dropped, as decoders do.
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(OnnxError::malformed("an integer is cut off or too long".to_owned()))
}

/// Takes `length` bytes off the front.
fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], OnnxError> {
    let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (part, after) = split.ok_or_else(|| {
        OnnxError::malformed(format!("a field of {length} bytes has only {} left", rest.len()))
    })?;
    *rest = after;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::super::proto::{ModelProto, TypeProto};
    use super::*;

    /// `count` empty messages in field `number`.
    fn empty_messages(number: u8, count: usize) -> Vec<u8> {
        [number << 3 | 2, 0].repeat(count)
    }

    /// `body` as the graph of a model.
    fn in_graph(body: Vec<u8>) -> Vec<u8> {
        let mut model = vec![7 << 3 | 2];
        prost::encode_length_delimiter(body.len(), &mut model).unwrap();
        model.extend(body);
        model
    }

    #[test]
    fn a_small_file_of_many_messages_is_refused_before_it_is_decoded() {
        let nodes = in_graph(empty_messages(1, MAX_NODES + 1));
        assert!(nodes.len() < 3 << 20);
        assert!(matches!(check(&nodes), Err(OnnxError::Nodes)));
        let values = in_graph(empty_messages(11, 4 << 20));
        assert!(matches!(check(&values), Err(OnnxError::Structure)));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut nested = TypeProto::default();
        for _ in 0..MAX_NESTING / 2 {
            let sequence = type_proto::Sequence { elem_type: Some(Box::new(nested)) };
            let value = Some(type_proto::Value::SequenceType(Box::new(sequence)));
            nested = TypeProto { value, denotation: None };
        }
        let input = ValueInfoProto { r#type: Some(nested), ..ValueInfoProto::default() };
        let graph = GraphProto { input: vec![input], ..GraphProto::default() };
        let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        assert!(matches!(check(&model.encode_to_vec()), Err(OnnxError::Nesting)));
    }

    #[test]
    fn weights_are_not_counted_as_structure() {
        let tensor = TensorProto {
            raw_data: Some(vec![0; MAX_STRUCTURE_BYTES / 256].into()),
            float_data: vec![1.0; 1000],
            ..TensorProto::default()
        };
        let graph = GraphProto { initializer: vec![tensor], ..GraphProto::default() };
        let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let mut totals = Totals { nodes: 0, structure: 0 };
        totals.message(&model.encode_to_vec(), Kind::Model, 0).unwrap();
        assert!(totals.structure < 2000, "{}", totals.structure);
    }

    #[test]
    fn cut_off_bytes_are_malformed() {
        for bytes in [&[0x3a][..], &[0x3a, 5, 0], &[0xff; 11], &[0x08], &[0x0b, 0x0c]] {
            assert!(matches!(check(bytes), Err(OnnxError::Malformed { .. })), "{bytes:?}");
        }
    }
}
