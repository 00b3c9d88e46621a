"""A small builder of ONNX graphs: nodes in order, weights beside them, one output each."""

import dataclasses

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Operator set 13 and IR 8 are understood by every engine the project runs on.
OPSET = 13
IR_VERSION = 8

# What the Open Inference Protocol calls the element types of the graphs' inputs and outputs.
DATATYPES = {TensorProto.FLOAT: "FP32", TensorProto.INT64: "INT64", TensorProto.BOOL: "BOOL"}


@dataclasses.dataclass(frozen=True)
class Int64:
    """The shape of an input or output of int64 elements; a plain list is one of float32."""

    shape: list


class GraphBuilder:
    """Collects the nodes and weights of a graph; node names are the output names."""

    def __init__(self, name, opset=OPSET):
        self.name = name
        self.opset = opset
        self.nodes = []
        self.weights = []

    def weight(self, name, values):
        """Adds a constant (kept as float32) and returns its name."""
        self.weights.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def integers(self, name, values):
        """Adds a constant (kept as int64) and returns its name."""
        self.weights.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
        return name

    def stored(self, name, values):
        """Adds a constant of the elements it has and returns its name."""
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, operator, inputs, output, **attributes):
        """Adds a node with one output and returns that output's name."""
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def top(self, values, count, outputs):
        """Adds a node with two outputs: the best `count` of the last axis, and their places."""
        node = helper.make_node("TopK", [values, count], outputs, name=outputs[0], axis=-1)
        self.nodes.append(node)

    def finish(self, inputs, outputs):
        """The checked model as bytes; `inputs` and `outputs` map names to shapes, see `Int64`."""
        graph = helper.make_graph(
            self.nodes, self.name, _declare(inputs), _declare(outputs), self.weights
        )
        opset = helper.make_opsetid("", self.opset)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="modelet-assets"
        )
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)


def describe(model):
    """Inputs and outputs of the ONNX bytes `model`: lists of name, datatype and shape.

    A size that a call may choose is -1 in the shape.
    """
    graph = onnx.load_from_string(model).graph
    return [_port(value) for value in graph.input], [_port(value) for value in graph.output]


def _port(value):
    kind = value.type.tensor_type
    shape = [size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim]
    return {"name": value.name, "datatype": DATATYPES[kind.elem_type], "shape": shape}


def _declare(tensors):
    return [
        helper.make_tensor_value_info(name, TensorProto.INT64, tensor.shape)
        if isinstance(tensor, Int64)
        else helper.make_tensor_value_info(name, TensorProto.FLOAT, tensor)
        for name, tensor in tensors.items()
    ]
