"""KServe's clients of the protocol, over REST and over gRPC."""

import os
import pathlib
import unittest

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

from clients.covers import covers

SERVER = os.environ["MODELET_SERVER"]
FOLDER = pathlib.Path(os.environ["MODELET_MODELS"])


def request(binary):
    """A seven."""
    image = InferInput("image", [1, 1, 28, 28], "FP32")
    digit = np.fromfile(FOLDER / "digit-7.f32", "<f4").reshape(1, 1, 28, 28)
    image.set_data_from_numpy(digit, binary_data=binary)
    return InferRequest(model_name="mnist", infer_inputs=[image])


class Rest(unittest.IsolatedAsyncioTestCase):
    """The client for REST."""

    CLIENT = "kserve: InferenceRESTClient"

    async def asyncSetUp(self):
        self.client = InferenceRESTClient(RESTConfig(protocol="v2"))

    @covers("is_server_live", "is_server_ready", "is_model_ready")
    async def test_health(self):
        self.assertTrue(await self.client.is_server_live(SERVER))
        self.assertTrue(await self.client.is_server_ready(SERVER))
        self.assertTrue(await self.client.is_model_ready(SERVER, "mnist"))

    @covers("infer")
    async def test_infer(self):
        for binary in (False, True):
            answer = await self.client.infer(SERVER, request(binary), model_name="mnist")
            self.assertEqual(answer.outputs[0].as_numpy().argmax(), 7)


class Grpc(unittest.IsolatedAsyncioTestCase):
    """The client for gRPC."""

    CLIENT = "kserve: InferenceGRPCClient"

    async def asyncSetUp(self):
        self.client = InferenceGRPCClient(SERVER.removeprefix("http://"))
        self.addAsyncCleanup(self.client.close)

    @covers("is_server_live", "is_server_ready", "is_model_ready")
    async def test_health(self):
        self.assertTrue(await self.client.is_server_live())
        self.assertTrue(await self.client.is_server_ready())
        self.assertTrue(await self.client.is_model_ready("mnist"))

    @covers("infer")
    async def test_infer(self):
        for binary in (False, True):
            answer = await self.client.infer(request(binary))
            self.assertEqual(answer.outputs[0].as_numpy().argmax(), 7)
            self.assertEqual(answer.model_version, "1.0.0")


if __name__ == "__main__":
    unittest.main()
