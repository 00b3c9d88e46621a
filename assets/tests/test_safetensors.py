"""The safetensors reader: what is written comes back, and a broken file is an error."""

import json
import struct
import unittest

import numpy as np

from modelet_assets.checkpoint import CheckpointError
from modelet_assets.safetensors import read_safetensors


def entry(begin=0, end=24, shape=(2, 3), dtype="F32"):
    """One tensor's entry of the header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


SIX = np.arange(6, dtype="<f4").tobytes()


def file(header, body=SIX):
    """A safetensors file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


class Safetensors(unittest.TestCase):
    """Tensors are read by the header, which is not trusted."""

    def refuses(self, data, message):
        """Asserts that reading fails with a message that says this."""
        with self.assertRaisesRegex(CheckpointError, message):
            read_safetensors(data)

    def test_the_stored_tensors_come_back(self):
        half = np.array([0.5, 2], "<f2")
        body = SIX + half.tobytes()
        header = {"__metadata__": {"format": "pt"}, "a": entry(), "b": entry(24, 28, (2,), "F16")}
        read = read_safetensors(file(header, body))
        self.assertEqual(list(read), ["a", "b"])
        np.testing.assert_array_equal(read["a"], np.arange(6).reshape(2, 3))
        np.testing.assert_array_equal(read["b"], half)

    def test_a_tensor_that_does_not_fit_its_bytes_is_refused(self):
        for bad in (entry(0, 20), entry(4, 28), entry(24, 0), entry(shape=(7,)), entry(4, 24)):
            self.refuses(file({"a": bad}), "needs [0-9]+ bytes and has")

    def test_negative_and_odd_dimensions_are_refused(self):
        for bad in (entry(-24, 0), entry(shape=(-2, -3)), entry(shape=(2.0, 3)), entry(0, True)):
            self.refuses(file({"a": bad}), "negative or odd")

    def test_an_unknown_element_type_is_refused(self):
        self.refuses(file({"a": entry(dtype="BF16")}), "unknown type 'BF16'")

    def test_a_header_of_another_form_is_refused(self):
        for header in (b"[]", b"{", b'{"a": 1}', b'{"a": {}}', b"\xff", b"[" * 100_000):
            self.refuses(file(header), "not a readable safetensors header")
        self.refuses(struct.pack("<Q", 1 << 63) + b"{}", "a header of")

    def test_a_torn_file_is_refused_at_every_length(self):
        whole = file({"a": entry()})
        read_safetensors(whole)
        for length in range(len(whole)):
            with self.subTest(length=length), self.assertRaises(CheckpointError):
                read_safetensors(whole[:length])
