"""The GGUF reader: what is written comes back, and a broken file is an error."""

import struct
import unittest

import numpy as np

from modelet_assets.checkpoint import CheckpointError
from modelet_assets.gguf import F32, Q4_1, Q8_0, read_gguf


def text(value):
    """A text as the format has it."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def tensor(name="a", shape=(2, 3), kind=F32, offset=0):
    """One tensor's entry; the innermost axis comes first."""
    axes = b"".join(struct.pack("<Q", size) for size in reversed(shape))
    return text(name) + struct.pack("<I", len(shape)) + axes + struct.pack("<IQ", kind, offset)


SIX = np.arange(6, dtype="<f4").tobytes()
NUMBERS = text("number") + struct.pack("<II", 4, 7)
TEXTS = text("texts") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("é")


def file(tensors=(tensor(),), body=SIX, metadata=(), version=3, alignment=32):
    """A GGUF file."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join((*metadata, *tensors))
    return head + bytes(-len(head) % alignment) + body


class Gguf(unittest.TestCase):
    """Tensors are read by their entries, which are not trusted."""

    def refuses(self, data, message):
        """Asserts that reading fails with a message that says this."""
        with self.assertRaisesRegex(CheckpointError, message):
            read_gguf(data)

    def test_metadata_and_tensors_come_back(self):
        metadata, tensors = read_gguf(file(metadata=(NUMBERS, TEXTS)))
        self.assertEqual(metadata, {"number": 7, "texts": ["a", "é"]})
        np.testing.assert_array_equal(tensors["a"], np.arange(6).reshape(2, 3))

    def test_tensors_lie_where_the_alignment_says(self):
        aligned = text("general.alignment") + struct.pack("<II", 4, 64)
        _, tensors = read_gguf(file(metadata=(aligned,), alignment=64))
        np.testing.assert_array_equal(tensors["a"].ravel(), np.arange(6))
        none = text("general.alignment") + struct.pack("<II", 4, 0)
        self.refuses(file(metadata=(none,)), "tensors aligned to 0")

    def test_blocks_of_four_bits_are_unfolded(self):
        # Two blocks; the first half of each is in the low halves of its bytes.
        numbers = np.arange(64, dtype=np.uint8) % 16
        body = b""
        for block, (scale, least) in enumerate([(0.5, -2), (2, 1)]):
            low, high = numbers[block * 32 :][:16], numbers[block * 32 + 16 :][:16]
            body += np.array([scale, least], "<f2").tobytes() + (low | high << 4).tobytes()
        _, tensors = read_gguf(file([tensor(shape=(1, 64), kind=Q4_1)], body))
        expected = np.concatenate([numbers[:32] * 0.5 - 2, numbers[32:] * 2.0 + 1])
        np.testing.assert_array_equal(tensors["a"].unfolded(), expected[None])

    def test_blocks_of_eight_bits_are_unfolded_and_rows_change_places(self):
        numbers = np.arange(-32, 32, dtype=np.int8).reshape(2, 32)
        scales = np.array([0.25, 4], "<f2")
        body = b"".join(scales[row].tobytes() + numbers[row].tobytes() for row in range(2))
        _, tensors = read_gguf(file([tensor(shape=(2, 32), kind=Q8_0)], body))
        expected = numbers * scales[:, None].astype(np.float32)
        np.testing.assert_array_equal(tensors["a"].unfolded(), expected)
        np.testing.assert_array_equal(tensors["a"].rows([1, 0]).unfolded(), expected[::-1])

    def test_a_tensor_outside_of_the_file_is_refused(self):
        for wrong in (tensor(shape=(7,)), tensor(offset=4), tensor(offset=1 << 63)):
            self.refuses(file([wrong]), "tensor 'a' needs bytes")

    def test_a_matrix_of_broken_blocks_is_refused(self):
        for shape in ((64,), (2, 33), (1, 2, 32)):
            self.refuses(file([tensor(shape=shape, kind=Q8_0)], bytes(200)), "whole blocks")

    def test_what_is_not_known_is_named(self):
        self.refuses(file([tensor(kind=2)]), "tensor 'a' has elements of the unknown type 2")
        self.refuses(file(metadata=(text("a") + struct.pack("<I", 13),)), "unknown type 13")
        nested = text("a") + struct.pack("<IIQ", 9, 9, 1)
        self.refuses(file(metadata=(nested,)), "array of arrays")
        self.refuses(file([tensor(shape=(1,) * 5)]), "has 5 axes")
        self.refuses(file(version=1), "not a GGUF file")
        self.refuses(b"GGML" + bytes(40), "not a GGUF file")

    def test_counts_beyond_the_file_are_refused(self):
        head = b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0)
        self.refuses(head, "entries")
        endless = text("a") + struct.pack("<IIQ", 9, 0, 1 << 60)
        self.refuses(file(metadata=(endless,)), "entries")
        self.refuses(file(metadata=(struct.pack("<Q", 1 << 63),)), "it ends before byte")

    def test_a_torn_file_is_refused_at_every_length(self):
        whole = file(metadata=(NUMBERS, TEXTS))
        read_gguf(whole)
        for length in range(len(whole)):
            with self.subTest(length=length), self.assertRaises(CheckpointError):
                read_gguf(whole[:length])


if __name__ == "__main__":
    unittest.main()
