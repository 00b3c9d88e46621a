"""The MNIST digit classifier: its weights and architecture as an ONNX graph."""

from .graph import GraphBuilder

# Where the checkpoint lies in the package `mnist-checkpoint` of pins.json.
CHECKPOINT = "digit_recognizer/models/handwriting_model.pth"

INPUT = {"image": ["batch", 1, 28, 28]}
OUTPUT = {"logits": ["batch", 10]}

# Positions of the layers that have weights, in the network's two sequences.
CONVOLUTIONS = (0, 3, 6)
HIDDEN, LAST = 0, 2


def convert(tensors):
    """The classifier as ONNX bytes: three convolutions with pooling, then two dense layers."""
    graph = GraphBuilder("mnist")
    value = "image"
    for layer in CONVOLUTIONS:
        name = f"conv_layers.{layer}"
        value = graph.node(
            "Conv",
            [value, *_layer(graph, tensors, name)],
            name,
            kernel_shape=[3, 3],
            pads=[1, 1, 1, 1],
        )
        value = graph.node("Relu", [value], name + ".relu")
        value = graph.node(
            "MaxPool", [value], name + ".pool", kernel_shape=[2, 2], strides=[2, 2]
        )
    value = graph.node("Flatten", [value], "flatten", axis=1)
    hidden = f"fc_layers.{HIDDEN}"
    value = graph.node("Gemm", [value, *_layer(graph, tensors, hidden)], hidden, transB=1)
    value = graph.node("Relu", [value], hidden + ".relu")
    last = _layer(graph, tensors, f"fc_layers.{LAST}")
    graph.node("Gemm", [value, *last], "logits", transB=1)
    return graph.finish(INPUT, OUTPUT)


def _layer(graph, tensors, name):
    names = (f"{name}.weight", f"{name}.bias")
    return [graph.weight(name, tensors[name]) for name in names]
