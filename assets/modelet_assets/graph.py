"""A small builder of ONNX graphs: nodes in order, weights beside them, one output each."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Operator set 13 and IR 8 are understood by every engine the project runs on.
OPSET = 13
IR_VERSION = 8


class GraphBuilder:
    """Collects the nodes and weights of a graph; node names are the output names."""

    def __init__(self, name):
        self.name = name
        self.nodes = []
        self.weights = []

    def weight(self, name, values):
        """Adds a constant (kept as float32) and returns its name."""
        self.weights.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def node(self, operator, inputs, output, **attributes):
        """Adds a node with one output and returns that output's name."""
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def finish(self, inputs, outputs):
        """The checked model as bytes; `inputs` and `outputs` map float32 names to shapes."""
        graph = helper.make_graph(
            self.nodes, self.name, _declare(inputs), _declare(outputs), self.weights
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="modelet-assets"
        )
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)


def _declare(tensors):
    return [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in tensors.items()
    ]
