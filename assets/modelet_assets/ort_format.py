"""ONNX Runtime's own format as ONNX of plain operators, which every engine knows.

A file of that format is an ONNX graph after optimisation, as flatbuffers: with operators of the
engine's own, which are spelt out here again. Weights that such an operator takes as whole numbers
are unfolded to float32; numbers that were rounded on their way through the graph still are.
"""

import math

import numpy as np
import onnx
import onnxruntime.tools.ort_format_model  # noqa: F401 (makes the next import possible)
from onnx import TensorProto, helper, numpy_helper
from ort_flatbuffers_py.fbs.InferenceSession import InferenceSession
from ort_flatbuffers_py.fbs.TensorTypeAndShape import TensorTypeAndShape

from .checkpoint import CheckpointError
from .graph import IR_VERSION

# The engine's own operators are of this domain.
OWN = "com.microsoft"

# What a file of the format has behind its first four bytes.
IDENTIFIER = b"ORTM"


def read_ort(data):
    """The model of the file in `data` (bytes), as ONNX bytes of plain operators.

    Raises CheckpointError for another file, or an operator that is not known here.
    """
    if data[4:8] != IDENTIFIER:
        raise CheckpointError("not a file of ONNX Runtime's format")
    stored = InferenceSession.GetRootAsInferenceSession(bytearray(data), 0).Model()
    opsets = (stored.OpsetImport(index) for index in range(stored.OpsetImportLength()))
    opsets = [(_text(opset.Domain()), opset.Version()) for opset in opsets]
    model = helper.make_model(
        _Reader().graph(stored.Graph(), "graph"),
        opset_imports=[helper.make_opsetid(*opset) for opset in opsets if opset[0] == ""],
        ir_version=IR_VERSION,
        producer_name="modelet-assets",
    )
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def _text(data):
    return (data or b"").decode()


def _each(stored, field):
    """The elements of a list of the format."""
    return map(getattr(stored, field), range(getattr(stored, f"{field}Length")()))


class _Reader:
    """Reads graphs, and names what it adds to them."""

    def __init__(self):
        self.added = 0

    def name(self, stem):
        """A name that nothing else has."""
        self.added += 1
        return f"plain.{stem}.{self.added}"

    def graph(self, stored, name):
        """A graph, with its nodes in an order in which they can be run."""
        values = {_text(value.Name()): value for value in _each(stored, "NodeArgs")}
        weights = [_tensor(tensor) for tensor in _each(stored, "Initializers")]
        names = {weight.name for weight in weights}
        nodes = []
        for node in map(self.node, _each(stored, "Nodes")):
            nodes += _Plain(self, node, weights).nodes if node.domain == OWN else [node]
        inputs = [_text(value) for value in _each(stored, "Inputs")]
        outputs = [_text(value) for value in _each(stored, "Outputs")]
        return helper.make_graph(
            _ordered(nodes),
            name,
            [_declared(values[value]) for value in inputs if value not in names],
            [_declared(values[value]) for value in outputs],
            weights,
        )

    def node(self, stored):
        """One node as it is."""
        node = onnx.NodeProto(
            name=_text(stored.Name()) or self.name("node"),
            op_type=_text(stored.OpType()),
            domain=_text(stored.Domain()),
            input=map(_text, _each(stored, "Inputs")),
            output=map(_text, _each(stored, "Outputs")),
        )
        node.attribute.extend(map(self.attribute, _each(stored, "Attributes")))
        return node

    def attribute(self, stored):
        """One attribute, of a type that the graphs have."""
        kind, proto = stored.Type(), onnx.AttributeProto
        attribute = proto(name=_text(stored.Name()), type=kind)
        if kind == proto.FLOAT:
            attribute.f = stored.F()
        elif kind == proto.INT:
            attribute.i = stored.I()
        elif kind == proto.STRING:
            attribute.s = stored.S() or b""
        elif kind == proto.TENSOR:
            attribute.t.CopyFrom(_tensor(stored.T()))
        elif kind == proto.GRAPH:
            attribute.g.CopyFrom(self.graph(stored.G(), self.name("branch")))
        elif kind == proto.INTS:
            attribute.ints.extend(_each(stored, "Ints"))
        elif kind == proto.FLOATS:
            attribute.floats.extend(_each(stored, "Floats"))
        else:
            raise CheckpointError(f"attribute {attribute.name!r} is of the unknown type {kind}")
        return attribute


def _tensor(stored):
    raw = stored.RawDataAsNumpy().tobytes() if stored.RawDataLength() else b""
    kind, shape = stored.DataType(), list(_each(stored, "Dims"))
    return TensorProto(name=_text(stored.Name()), data_type=kind, dims=shape, raw_data=raw)


def _declared(stored):
    """An input or output with its type and, as far as it has one, its shape."""
    value, kind = stored.Type().Value(), TensorTypeAndShape()
    kind.Init(value.Bytes, value.Pos)
    sizes = (size.Value() for size in _each(kind.Shape(), "Dim"))
    # A size has a name, or is a number.
    shape = [_text(size.DimParam()) or size.DimValue() for size in sizes]
    return helper.make_tensor_value_info(_text(stored.Name()), kind.ElemType(), shape)


def _ordered(nodes):
    """The nodes, each behind those whose outputs it takes: the format keeps no order."""
    makers = {output: place for place, node in enumerate(nodes) for output in node.output if output}
    ordered, begun, done = [], set(), set()
    for start in range(len(nodes)):
        # By hand, because a graph is deeper than Python's stack.
        stack = [start]
        while stack:
            place = stack.pop()
            if place in done:
                continue
            needs = {makers[name] for name in _taken(nodes[place]) if name in makers} - done
            if not needs:
                done.add(place)
                ordered.append(nodes[place])
            elif place in begun:
                raise CheckpointError("the graph has a circle")
            else:
                begun.add(place)
                stack += [place, *sorted(needs)]
    return ordered


def _taken(node):
    """Names of what a node takes, its branches included, from around them."""
    taken = set(node.input)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            own = {weight.name for weight in attribute.g.initializer}
            own.update(name for inner in attribute.g.node for name in inner.output)
            inner = (_taken(inner) for inner in attribute.g.node)
            # A branch may give what it has only been given.
            given = {output.name for output in attribute.g.output}
            taken.update(given.union(*inner) - own)
    return taken


class _Plain:
    """One of the engine's own nodes as plain nodes."""

    def __init__(self, reader, node, weights):
        self.reader = reader
        self.weights = weights
        self.nodes = []
        self.inputs = list(node.input)
        self.outputs = list(node.output)
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        try:
            spell = self.SPELLINGS[node.op_type]
        except KeyError as error:
            raise CheckpointError(f"the operator {OWN}:{node.op_type} is not known") from error
        spell(self)

    def node(self, operator, inputs, output=None, **attributes):
        """Adds a node, and gives the name of its output."""
        output = output or self.reader.name(operator)
        name = self.reader.name(operator)
        self.nodes.append(helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output

    def constant(self, value):
        """Adds a number."""
        name = self.reader.name("constant")
        self.weights.append(numpy_helper.from_array(np.float32(value), name))
        return name

    def given(self, place):
        """The input at a place; none where it was left out."""
        return self.inputs[place] if place < len(self.inputs) and self.inputs[place] else None

    def unfolded(self, numbers, scale, zero):
        """Whole numbers as float32."""
        value = self.node("Cast", [numbers], to=TensorProto.FLOAT)
        if zero:
            zero = self.node("Cast", [zero], to=TensorProto.FLOAT)
            value = self.node("Sub", [value, zero])
        return self.node("Mul", [value, scale])

    def shifted(self, value, bias):
        """The node's output: a value, and what is added to it, if something is."""
        if bias:
            self.node("Add", [value, bias], self.outputs[0])
        else:
            self.node("Identity", [value], self.outputs[0])

    def product_of_a_rounded_matrix(self):
        weight = self.unfolded(self.inputs[1], self.inputs[2], self.given(3))
        self.shifted(self.node("MatMul", [self.inputs[0], weight]), self.given(4))

    def product_of_rounded_matrices(self):
        first, second, first_scale, second_scale = self.inputs[:4]
        first = self.unfolded(first, first_scale, self.given(4))
        second = self.unfolded(second, second_scale, self.given(5))
        self.shifted(self.node("MatMul", [first, second]), self.given(6))

    def product_of_turned_matrices(self):
        if self.attributes.get("transBatchA") or self.attributes.get("transBatchB"):
            raise CheckpointError(f"{OWN}:FusedMatMul turns its batch, which is not known")
        factors = []
        for matrix, is_turned in zip(self.inputs, ("transA", "transB"), strict=True):
            if self.attributes.get(is_turned):
                # All matrices of the graphs have these four axes.
                matrix = self.node("Transpose", [matrix], perm=[0, 1, 3, 2])
            factors.append(matrix)
        scale = self.constant(self.attributes.get("alpha", 1))
        self.node("Mul", [self.node("MatMul", factors), scale], self.outputs[0])

    def gelu(self):
        scaled = self.node("Mul", [self.inputs[0], self.constant(math.sqrt(0.5))])
        share = self.node("Add", [self.node("Erf", [scaled]), self.constant(1)])
        half = self.node("Mul", [self.inputs[0], self.constant(0.5)])
        self.node("Mul", [half, share], self.outputs[0])

    def quick_gelu(self):
        scale = self.constant(self.attributes["alpha"])
        share = self.node("Sigmoid", [self.node("Mul", [self.inputs[0], scale])])
        self.node("Mul", [self.inputs[0], share], self.outputs[0])

    def normalisation_of_a_sum(self):
        if self.given(4) or any(self.outputs[1:]):
            raise CheckpointError(f"{OWN}:SkipLayerNormalization is used in a way not known")
        total = self.node("Add", self.inputs[:2])
        epsilon = self.attributes["epsilon"]
        inputs = [total, *self.inputs[2:4]]
        self.node("LayerNormalization", inputs, self.outputs[0], axis=-1, epsilon=epsilon)

    def convolution_with_activation(self):
        attributes = dict(self.attributes)
        activation = attributes.pop("activation").decode()
        attributes.pop("activation_params", None)
        value = self.node("Conv", self.inputs[:3], **attributes)
        self.node(activation, [value], self.outputs[0])

    SPELLINGS = {
        "DynamicQuantizeMatMul": product_of_a_rounded_matrix,
        "FusedConv": convolution_with_activation,
        "FusedMatMul": product_of_turned_matrices,
        "Gelu": gelu,
        "MatMulIntegerToFloat": product_of_rounded_matrices,
        "QuickGelu": quick_gelu,
        "SkipLayerNormalization": normalisation_of_a_sum,
    }
