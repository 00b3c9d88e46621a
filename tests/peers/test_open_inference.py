"""The protocol's own clients, as its working group publishes them: generated from its documents, for REST
and for gRPC."""

import os
import pathlib
import unittest

import grpc
import httpx
import numpy as np
from open_inference.grpc import protocol, service
from open_inference.openapi.client import AsyncOpenInferenceClient, OpenInferenceClient
from open_inference.openapi.errors import BadRequestError, NotFoundError
from open_inference.openapi.types import InferenceRequest, RequestInput, RequestOutput, TensorData

from clients.covers import covers

SERVER = os.environ["MODELET_SERVER"]
FOLDER = pathlib.Path(os.environ["MODELET_MODELS"])
DIGIT = np.fromfile(FOLDER / "digit-7.f32", "<f4")
SHAPE = [1, 1, 28, 28]


def request(**wrong):
    """A seven."""
    said = {"name": "image", "shape": SHAPE, "datatype": "FP32"} | wrong
    data = TensorData.parse_obj(DIGIT.tolist())
    inputs = [RequestInput(data=data, **said)]
    return InferenceRequest(id="7", inputs=inputs, outputs=[RequestOutput(name="logits")])


def seven(answer):
    """Whether it is a seven, as the version says that answered."""
    (output,) = answer.outputs
    data = np.array(output.data.dict()["__root__"])
    return (answer.id, answer.model_version, output.name, data.argmax()) == (
        *("7", "1.0.0", "logits"),
        7,
    )


class OpenApi(unittest.TestCase):
    """The client for REST."""

    CLIENT = "open-inference-openapi: OpenInferenceClient"

    def setUp(self):
        connections = httpx.Client()
        self.addCleanup(connections.close)
        self.client = OpenInferenceClient(base_url=SERVER, httpx_client=connections)

    @covers(
        "check_server_liveness",
        "check_server_readiness",
        "check_model_readiness",
        "check_model_version_readiness",
    )
    def test_health(self):
        self.client.check_server_liveness()
        self.client.check_server_readiness()
        self.client.check_model_readiness("mnist")
        self.client.check_model_version_readiness("mnist", "1.0.0")
        with self.assertRaises(NotFoundError):
            self.client.check_model_readiness("no-such-model")

    @covers("read_server_metadata", "read_model_metadata", "read_model_version_metadata")
    def test_metadata(self):
        self.assertIn("statistics", self.client.read_server_metadata().extensions)
        metadata = self.client.read_model_metadata("mnist")
        self.assertEqual(metadata, self.client.read_model_version_metadata("mnist", "1.0.0"))
        (image,) = metadata.inputs
        self.assertEqual((image.name, image.datatype, image.shape[1:]), ("image", "FP32", SHAPE[1:]))

    @covers("model_infer", "model_version_infer")
    def test_infer(self):
        self.assertTrue(seven(self.client.model_infer("mnist", request=request())))
        self.assertTrue(seven(self.client.model_version_infer("mnist", "1.0.0", request=request())))
        with self.assertRaises(BadRequestError) as raised:
            self.client.model_infer("mnist", request=request(name="picture"))
        self.assertIn("picture", raised.exception.body["error"])


class AsyncOpenApi(unittest.IsolatedAsyncioTestCase):
    """The same, asynchronous."""

    CLIENT = "open-inference-openapi: AsyncOpenInferenceClient"

    async def asyncSetUp(self):
        connections = httpx.AsyncClient()
        self.addAsyncCleanup(connections.aclose)
        self.client = AsyncOpenInferenceClient(base_url=SERVER, httpx_client=connections)

    @covers(
        "check_server_liveness",
        "check_server_readiness",
        "check_model_readiness",
        "check_model_version_readiness",
    )
    async def test_health(self):
        await self.client.check_server_liveness()
        await self.client.check_server_readiness()
        await self.client.check_model_readiness("mnist")
        await self.client.check_model_version_readiness("mnist", "1.0.0")

    @covers("read_server_metadata", "read_model_metadata", "read_model_version_metadata")
    async def test_metadata(self):
        server = await self.client.read_server_metadata()
        self.assertIn("statistics", server.extensions)
        metadata = await self.client.read_model_metadata("mnist")
        version = await self.client.read_model_version_metadata("mnist", "1.0.0")
        self.assertEqual(metadata, version)

    @covers("model_infer", "model_version_infer")
    async def test_infer(self):
        self.assertTrue(seven(await self.client.model_infer("mnist", request=request())))
        answer = await self.client.model_version_infer("mnist", "1.0.0", request=request())
        self.assertTrue(seven(answer))


class Grpc(unittest.TestCase):
    """The stub for gRPC."""

    CLIENT = "open-inference-grpc: GRPCInferenceServiceStub"

    def setUp(self):
        channel = grpc.insecure_channel(SERVER.removeprefix("http://"))
        self.addCleanup(channel.close)
        self.stub = service.GRPCInferenceServiceStub(channel)

    @covers("ServerLive", "ServerReady", "ModelReady")
    def test_health(self):
        self.assertTrue(self.stub.ServerLive(protocol.ServerLiveRequest()).live)
        self.assertTrue(self.stub.ServerReady(protocol.ServerReadyRequest()).ready)
        self.assertTrue(self.stub.ModelReady(protocol.ModelReadyRequest(name="mnist")).ready)

    @covers("ServerMetadata", "ModelMetadata")
    def test_metadata(self):
        server = self.stub.ServerMetadata(protocol.ServerMetadataRequest())
        self.assertIn("statistics", server.extensions)
        model = self.stub.ModelMetadata(protocol.ModelMetadataRequest(name="mnist"))
        self.assertEqual([spec.name for spec in model.inputs], ["image"])

    @covers("ModelInfer")
    def test_infer(self):
        asked = protocol.ModelInferRequest(model_name="mnist", id="7")
        image = asked.inputs.add(name="image", datatype="FP32", shape=SHAPE)
        typed, raw = protocol.ModelInferRequest(), protocol.ModelInferRequest()
        typed.CopyFrom(asked)
        typed.inputs[0].contents.fp32_contents.extend(DIGIT)
        raw.CopyFrom(asked)
        raw.raw_input_contents.append(DIGIT.tobytes())
        self.assertEqual(image.name, "image")
        for message in (typed, raw):
            answer = self.stub.ModelInfer(message)
            (logits,) = answer.raw_output_contents
            self.assertEqual((answer.id, answer.model_version), ("7", "1.0.0"))
            self.assertEqual(np.frombuffer(logits, "<f4").argmax(), 7)


if __name__ == "__main__":
    unittest.main()
