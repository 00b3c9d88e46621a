"""Reads GGUF files: metadata, then tensors, of which some are quantised in blocks of 32 elements.

Quantised tensors stay what they are: whole numbers and the scales of their blocks, from which a
graph can unfold them again without a loss.
"""

import dataclasses
import math
import struct

import numpy as np

from .checkpoint import MAX_CHECKPOINT_BYTES, CheckpointError

MAGIC = b"GGUF"
VERSIONS = (2, 3)

# Elements that share a scale.
BLOCK = 32

# Tensors lie at multiples of this, unless the metadata says otherwise.
ALIGNMENT = 32

# Numbers in metadata, by the format's number of their type.
NUMBERS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
TEXT = 8
ARRAY = 9

# More axes than any tensor of this format has.
MAX_RANK = 4

# Types of tensors by the format's number: their elements, or a block of them.
F32 = 0
Q4_1 = 3
Q8_0 = 8
LAYOUTS = {
    F32: np.dtype("<f4"),
    Q4_1: np.dtype([("scale", "<f2"), ("least", "<f2"), ("pairs", "u1", BLOCK // 2)]),
    Q8_0: np.dtype([("scale", "<f2"), ("numbers", "i1", BLOCK)]),
}


@dataclasses.dataclass(frozen=True)
class Quantised:
    """A matrix of whole numbers; each block of a row has a scale, and may have a least value.

    An element is `number * scale + least`.
    """

    numbers: np.ndarray
    """uint8 or int8 [rows, blocks, 32]"""
    scales: np.ndarray
    """float16 [rows, blocks]"""
    least: np.ndarray | None
    """float16 [rows, blocks]"""

    def rows(self, order):
        """The same matrix with its rows in this order."""
        least = None if self.least is None else self.least[order]
        return Quantised(self.numbers[order], self.scales[order], least)

    def unfolded(self):
        """The elements: float32 [rows, columns]."""
        values = self.numbers.astype(np.float32) * self.scales[..., None].astype(np.float32)
        if self.least is not None:
            values += self.least[..., None].astype(np.float32)
        return values.reshape(len(values), -1)


def read_gguf(data):
    """Metadata and tensors of the file in `data` (bytes), as two dictionaries by name.

    Tensors are arrays of float32 or `Quantised`. Raises CheckpointError for a torn file, an unknown
    type, or a tensor that does not lie within the file.
    """
    if len(data) > MAX_CHECKPOINT_BYTES:
        raise CheckpointError(f"checkpoint has {len(data)} bytes, more than {MAX_CHECKPOINT_BYTES}")
    reader = _Reader(memoryview(data))
    if reader.take(4) != MAGIC or (version := reader.number("<I")) not in VERSIONS:
        raise CheckpointError("not a GGUF file of version 2 or 3")
    tensor_count, entry_count = reader.number("<Q"), reader.number("<Q")
    metadata = dict((reader.text(), reader.value()) for _ in reader.count(entry_count))
    entries = [reader.tensor() for _ in reader.count(tensor_count)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or alignment <= 0:
        raise CheckpointError(f"tensors aligned to {alignment!r}")
    body = memoryview(data)[-(-reader.place // alignment) * alignment :]
    return metadata, {name: _tensor(name, body, *entry) for name, *entry in entries}


class _Reader:
    """A place in the file, from which values are taken in order."""

    def __init__(self, data):
        self.data = data
        self.place = 0

    def take(self, length):
        end = self.place + length
        if end > len(self.data):
            raise CheckpointError(f"not a readable GGUF file: it ends before byte {end}")
        taken = bytes(self.data[self.place : end])
        self.place = end
        return taken

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def count(self, count):
        """As many turns, of which each takes a byte at least."""
        if count > len(self.data):
            raise CheckpointError(f"not a readable GGUF file: {count} entries")
        return range(count)

    def text(self):
        try:
            return self.take(self.number("<Q")).decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"not a readable GGUF file: {error}") from error

    def value(self):
        kind = self.number("<I")
        if kind != ARRAY:
            return self._element(kind)
        kind, count = self.number("<I"), self.number("<Q")
        if kind == ARRAY:
            raise CheckpointError("an array of arrays in a GGUF file's metadata")
        return [self._element(kind) for _ in self.count(count)]

    def _element(self, kind):
        if kind == TEXT:
            return self.text()
        if kind not in NUMBERS:
            raise CheckpointError(f"metadata of the unknown type {kind}")
        return self.number(NUMBERS[kind])

    def tensor(self):
        name, rank = self.text(), self.number("<I")
        if rank > MAX_RANK:
            raise CheckpointError(f"tensor {name!r} has {rank} axes")
        # The format names the innermost axis first.
        shape = tuple(self.number("<Q") for _ in range(rank))[::-1]
        return name, shape, self.number("<I"), self.number("<Q")


def _tensor(name, body, shape, kind, offset):
    if kind not in LAYOUTS:
        raise CheckpointError(f"tensor {name!r} has elements of the unknown type {kind}")
    layout, count = LAYOUTS[kind], math.prod(shape)
    if kind != F32:
        if len(shape) != 2 or shape[1] % BLOCK != 0:
            raise CheckpointError(f"tensor {name!r} of shape {shape} is no matrix of whole blocks")
        count //= BLOCK
    end = offset + count * layout.itemsize
    if end > len(body):
        raise CheckpointError(f"tensor {name!r} needs bytes {offset} to {end} of {len(body)}")
    elements = np.frombuffer(body[offset:end], layout)
    if kind == F32:
        return elements.reshape(shape)
    blocks = elements.reshape(shape[0], shape[1] // BLOCK)
    if kind == Q8_0:
        return Quantised(blocks["numbers"], blocks["scale"], None)
    # The first half of a block lies in the low halves of its bytes.
    pairs = blocks["pairs"]
    return Quantised(
        np.concatenate([pairs & 15, pairs >> 4], axis=-1), blocks["scale"], blocks["least"]
    )
