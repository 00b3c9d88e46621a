"""Every datatype of the protocol there and back, in both forms, through both of tritonclient's."""

import unittest

import ml_dtypes
import numpy as np
import tritonclient.http as http
import tritonclient.http.aio as aio
from onnx import TensorProto
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from .graphs import identity, publish
from .models import ADDRESS

# The datatypes, ONNX's numbers for them, and values at the ends of what each can hold.
DATATYPES = {
    "BOOL": (TensorProto.BOOL, [True, False, False, True]),
    "UINT8": (TensorProto.UINT8, [0, 1, 2, 2**8 - 1]),
    "UINT16": (TensorProto.UINT16, [0, 1, 2, 2**16 - 1]),
    "UINT32": (TensorProto.UINT32, [0, 1, 2, 2**32 - 1]),
    "UINT64": (TensorProto.UINT64, [0, 1, 2**53 + 1, 2**64 - 1]),
    "INT8": (TensorProto.INT8, [-(2**7), -1, 0, 2**7 - 1]),
    "INT16": (TensorProto.INT16, [-(2**15), -1, 0, 2**15 - 1]),
    "INT32": (TensorProto.INT32, [-(2**31), -1, 0, 2**31 - 1]),
    "INT64": (TensorProto.INT64, [-(2**63), -1, 2**53 + 1, 2**63 - 1]),
    "FP16": (TensorProto.FLOAT16, [-65504, 6e-8, 0.1, 65504]),
    "BF16": (TensorProto.BFLOAT16, [-3.38e38, 1e-40, 0.1, 3.38e38]),
    "FP32": (TensorProto.FLOAT, [-3.4e38, 1e-45, 0.1, 3.4e38]),
    "FP64": (TensorProto.DOUBLE, [-1.7e308, 5e-324, 0.1, 1.7e308]),
    "BYTES": (TensorProto.STRING, ["", "a", "日本", 'quoted "text"\n']),
}

# Those that JSON cannot carry, by the protocol's own rule.
ONLY_BINARY = ("FP16", "BF16")


def model(datatype):
    """The name of the model that gives back tensors of this datatype."""
    return "identity-" + datatype.lower()


def values(datatype):
    """A tensor of this datatype."""
    given = DATATYPES[datatype][1]
    if datatype == "BYTES":
        return np.array([text.encode() for text in given], np.object_).reshape(2, 2)
    numpy = {"BOOL": bool, "BF16": ml_dtypes.bfloat16}.get(datatype) or triton_to_np_dtype(datatype)
    return np.array(given, numpy).reshape(2, 2)


def tensor(datatype, binary):
    """The input of this datatype's model."""
    x = http.InferInput("x", [2, 2], datatype)
    return x.set_data_from_numpy(values(datatype), binary_data=binary)


def output(binary):
    """What is asked for."""
    return http.InferRequestedOutput("y", binary_data=binary)


def forms(datatype):
    """The forms a tensor of this datatype can be sent and received in."""
    either = (True,) if datatype in ONLY_BINARY else (True, False)
    return [(sent, received) for sent in either for received in either]


def setUpModule():
    """Publishes one model a datatype."""
    for datatype, (element_type, _) in DATATYPES.items():
        publish(model(datatype), identity(element_type))


class Blocking(unittest.TestCase):
    """The blocking client."""

    def setUp(self):
        self.client = http.InferenceServerClient(ADDRESS)
        self.addCleanup(self.client.close)

    def test_the_metadata_names_the_datatype(self):
        for datatype in DATATYPES:
            metadata = self.client.get_model_metadata(model(datatype))
            x = {"name": "x", "datatype": datatype, "shape": [-1, 2]}
            self.assertEqual(metadata["inputs"], [x])

    def test_every_datatype_comes_back_as_it_was(self):
        for datatype in DATATYPES:
            for sent, received in forms(datatype):
                with self.subTest(datatype=datatype, binary_in=sent, binary_out=received):
                    inputs = [tensor(datatype, sent)]
                    answer = self.client.infer(model(datatype), inputs, outputs=[output(received)])
                    check(self, datatype, answer)

    def test_what_json_cannot_carry_is_refused_with_the_reason(self):
        for datatype in ONLY_BINARY:
            with self.assertRaisesRegex(InferenceServerException, f"{datatype}.*binary"):
                inputs = [tensor(datatype, True)]
                self.client.infer(model(datatype), inputs, outputs=[output(False)])
        # This client sends FP16 as JSON if it is told to, though no server takes it.
        with self.assertRaisesRegex(InferenceServerException, "FP16.*binary"):
            self.client.infer(model("FP16"), [tensor("FP16", False)])

    def test_bytes_that_are_no_text_come_back_in_binary(self):
        given = np.array([b"\xff\xfe", b"\x00"], np.object_).reshape(1, 2)
        x = http.InferInput("x", [1, 2], "BYTES").set_data_from_numpy(given)
        answer = self.client.infer(model("BYTES"), [x])
        np.testing.assert_array_equal(answer.as_numpy("y"), given)
        with self.assertRaisesRegex(InferenceServerException, "UTF-8"):
            self.client.infer(model("BYTES"), [x], outputs=[output(False)])


class Asynchronous(unittest.IsolatedAsyncioTestCase):
    """The asyncio client."""

    async def asyncSetUp(self):
        self.client = aio.InferenceServerClient(ADDRESS)
        self.addAsyncCleanup(self.client.close)

    async def test_every_datatype_comes_back_as_it_was(self):
        for datatype in DATATYPES:
            for sent, received in forms(datatype):
                with self.subTest(datatype=datatype, binary_in=sent, binary_out=received):
                    inputs, outputs = [tensor(datatype, sent)], [output(received)]
                    answer = await self.client.infer(model(datatype), inputs, outputs=outputs)
                    check(self, datatype, answer)


def check(case, datatype, answer):
    """The answer is the input, to the bit."""
    given, back = values(datatype), answer.as_numpy("y")
    case.assertEqual(answer.get_output("y")["datatype"], datatype)
    case.assertEqual(back.shape, given.shape)
    if datatype == "BYTES":
        as_bytes = [x if isinstance(x, bytes) else x.encode() for x in back.flatten()]
        case.assertEqual(as_bytes, list(given.flatten()))
    else:
        case.assertEqual(back.astype(given.dtype).tobytes(), given.tobytes())
