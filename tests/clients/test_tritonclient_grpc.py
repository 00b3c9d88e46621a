"""`tritonclient.grpc`, every method of it, blocking and asynchronous; streams; and the messages
themselves, compared with those that the client was built from."""

import asyncio
import json
import queue
import unittest

import grpc
import ml_dtypes
import numpy as np
import tritonclient.grpc as client
import tritonclient.grpc.aio as aio
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from .covers import covers
from .graphs import identity, publish
from .models import ADDRESS, CLASSES, MODELS, TOLERANCE, load
from .test_datatypes import DATATYPES, ONLY_BINARY, values

# Requests sent side by side; enough that several run at once on any machine.
CONCURRENT = 64

# Longer than anything takes; what does not come by then never comes.
PATIENCE = 60

SERVICE = "inference.GRPCInferenceService"


def tensor(images):
    """The input of either model."""
    image = client.InferInput("image", list(images.shape), "FP32")
    return image.set_data_from_numpy(images)


def texts(**inputs):
    """Inputs of one text each."""
    made = []
    for name, text in inputs.items():
        made.append(client.InferInput(name, [1], "BYTES"))
        made[-1].set_data_from_numpy(np.array([text.encode()], object))
    return made


def setUpModule():
    """Publishes one model a datatype, and one to load and unload."""
    for datatype, (element_type, _) in DATATYPES.items():
        publish("grpc-" + datatype.lower(), identity(element_type))
    publish("grpc-control", identity(DATATYPES["FP32"][0]))


class Blocking(unittest.TestCase):
    """The blocking client."""

    CLIENT = "tritonclient: grpc"

    def setUp(self):
        self.client = client.InferenceServerClient(ADDRESS)
        self.addCleanup(self.client.close)

    @covers("is_server_live")
    def test_is_server_live(self):
        self.assertTrue(self.client.is_server_live())

    @covers("is_server_ready")
    def test_is_server_ready(self):
        self.assertTrue(self.client.is_server_ready())

    @covers("is_model_ready")
    def test_is_model_ready(self):
        for model in MODELS:
            self.assertTrue(self.client.is_model_ready(model))
            self.assertTrue(self.client.is_model_ready(model, "1.0.0"))
        self.assertFalse(self.client.is_model_ready("no-such-model"))
        self.assertFalse(self.client.is_model_ready("mnist", "9.9.9"))

    @covers("get_server_metadata")
    def test_get_server_metadata(self):
        metadata = self.client.get_server_metadata(as_json=True)
        self.assertEqual(metadata["name"], "modelet")
        self.assertIn("statistics", metadata["extensions"])

    @covers("get_model_metadata")
    def test_get_model_metadata(self):
        for model, sizes in MODELS.items():
            metadata = self.client.get_model_metadata(model)
            self.assertEqual(metadata.name, model)
            self.assertIn("1.0.0", metadata.versions)
            (image,), (logits,) = metadata.inputs, metadata.outputs
            self.assertEqual((image.datatype, list(image.shape)), ("FP32", [-1, *sizes]))
            self.assertEqual(list(logits.shape), [-1, CLASSES[model]])
        with self.assertRaisesRegex(InferenceServerException, "Request for unknown model"):
            self.client.get_model_metadata("no-such-model")

    @covers("get_model_config")
    def test_get_model_config(self):
        config = self.client.get_model_config("mnist").config
        self.assertEqual(config.name, "mnist")
        self.assertGreater(config.max_batch_size, 100)
        self.assertEqual(list(config.input[0].dims), [1, 28, 28])
        self.assertEqual(config.output[0].data_type, 11)

    @covers("infer")
    def test_infer(self):
        images, expected = load("digits")[:4], load("digits.logits")[:4]
        answer = self.client.infer("mnist", [tensor(images)], request_id="seven")
        np.testing.assert_allclose(answer.as_numpy("logits"), expected, atol=TOLERANCE)
        message = answer.get_response()
        self.assertEqual((message.model_name, message.model_version), ("mnist", "1.0.0"))
        self.assertEqual(message.id, "seven")
        for name in ("coffee", "china"):
            answer = self.client.infer("efficientnet-lite0", [tensor(load(name))])
            given = answer.as_numpy("logits")
            np.testing.assert_allclose(given, load(f"{name}.logits"), atol=TOLERANCE)

    def test_infer_of_every_datatype(self):
        for datatype in DATATYPES:
            with self.subTest(datatype=datatype):
                given = values(datatype)
                x = client.InferInput("x", [2, 2], datatype).set_data_from_numpy(given)
                answer = self.client.infer("grpc-" + datatype.lower(), [x]).as_numpy("y")
                if datatype == "BF16":
                    answer = answer.astype(ml_dtypes.bfloat16)
                np.testing.assert_array_equal(answer, given)

    def test_infer_with_classes(self):
        wanted = client.InferRequestedOutput("logits", class_count=2)
        answer = self.client.infer("mnist", [tensor(load("digit-7"))], outputs=[wanted])
        best = answer.as_numpy("logits")[0]
        self.assertEqual(len(best), 2)
        self.assertEqual(best[0].decode().split(":")[1], "7")

    def test_infer_compressed(self):
        image = [tensor(load("coffee"))]
        plain = self.client.infer("efficientnet-lite0", image).as_numpy("logits")
        for algorithm in ("gzip", "deflate"):
            answer = self.client.infer(
                "efficientnet-lite0", image, compression_algorithm=algorithm
            )
            np.testing.assert_array_equal(answer.as_numpy("logits"), plain)

    def test_infer_of_many_megabytes(self):
        # The client's own limit is two gigabytes; that of a server is often four megabytes.
        rows = np.arange(4_000_000, dtype=np.float32).reshape(-1, 2)
        x = client.InferInput("x", list(rows.shape), "FP32").set_data_from_numpy(rows)
        np.testing.assert_array_equal(self.client.infer("grpc-fp32", [x]).as_numpy("y"), rows)
        rows = np.zeros((9_000_000, 2), np.float32)
        x = client.InferInput("x", list(rows.shape), "FP32").set_data_from_numpy(rows)
        with self.assertRaisesRegex(InferenceServerException, "limits.request_body_bytes"):
            self.client.infer("grpc-fp32", [x])

    def test_infer_with_a_deadline_and_metadata(self):
        image = [tensor(load("digit-7"))]
        answer = self.client.infer("mnist", image, client_timeout=PATIENCE, headers={"test": "1"})
        self.assertEqual(answer.as_numpy("logits").argmax(), 7)
        # As many photographs as take a hundred times as long.
        many = [tensor(np.repeat(load("coffee"), 16, axis=0))]
        with self.assertRaisesRegex(InferenceServerException, "Deadline Exceeded"):
            self.client.infer("efficientnet-lite0", many, client_timeout=0.005)

    def test_a_bad_request_is_a_clear_error_and_the_next_good_one_succeeds(self):
        with self.assertRaisesRegex(InferenceServerException, "INVALID_ARGUMENT.*image"):
            self.client.infer("mnist", [tensor(np.zeros((1, 1, 28, 27), np.float32))])
        with self.assertRaisesRegex(InferenceServerException, "NOT_FOUND.*no-such-model"):
            self.client.infer("no-such-model", [tensor(load("digit-7"))])
        answer = self.client.infer("mnist", [tensor(load("digit-7"))])
        self.assertEqual(answer.as_numpy("logits").argmax(), 7)

    @covers("async_infer")
    def test_async_infer(self):
        images, expected = load("digits")[:CONCURRENT], load("digits.logits")[:CONCURRENT]
        answers = queue.Queue()
        for index, image in enumerate(images):

            def done(result, error, index=index):
                answers.put((index, result, error))

            self.client.async_infer("mnist", [tensor(image[None])], done)
        for _ in images:
            index, result, error = answers.get(timeout=PATIENCE)
            self.assertIsNone(error)
            np.testing.assert_allclose(
                result.as_numpy("logits")[0], expected[index], atol=TOLERANCE
            )

    @covers("start_stream", "async_stream_infer", "stop_stream")
    def test_stream_infer(self):
        images, expected = load("digits")[:8], load("digits.logits")[:8]
        answers = queue.Queue()
        self.client.start_stream(lambda result, error: answers.put((result, error)))
        for image in images:
            self.client.async_stream_infer(
                "mnist", [tensor(image[None])], enable_empty_final_response=True
            )
        for row in expected:
            result, error = answers.get(timeout=PATIENCE)
            self.assertIsNone(error)
            np.testing.assert_allclose(result.as_numpy("logits")[0], row, atol=TOLERANCE)
            final = result.get_response().parameters["triton_final_response"]
            self.assertTrue(final.bool_param)
        # An error is of its message alone.
        self.client.async_stream_infer("no-such-model", [tensor(images[:1])])
        result, error = answers.get(timeout=PATIENCE)
        self.assertIsNone(result)
        self.assertRegex(str(error), "no-such-model")
        self.client.async_stream_infer("mnist", [tensor(images[:1])])
        self.assertIsNone(answers.get(timeout=PATIENCE)[1])
        self.client.stop_stream()

    def test_stream_infer_of_a_model_that_emits(self):
        self.assertTrue(self.decoupled("parrot"))
        self.assertFalse(self.decoupled("mnist"))
        answers = queue.Queue()
        self.client.start_stream(lambda result, error: answers.put((result, error)))
        for empty_final in (False, True):
            self.client.async_stream_infer(
                "parrot",
                texts(messages=json.dumps("one two three"), parameters="{}"),
                request_id="7",
                enable_empty_final_response=empty_final,
            )
            parts, whole = [], None
            while whole is None:
                result, error = answers.get(timeout=PATIENCE)
                self.assertIsNone(error)
                response = result.get_response()
                self.assertEqual((response.id, response.model_version), ("7", "1.0.0"))
                text = result.as_numpy("text")[0].decode()
                if response.parameters["triton_final_response"].bool_param:
                    whole = text
                else:
                    # Of the outputs there is what the model emits.
                    self.assertEqual(len(response.outputs), 1)
                    parts.append(text)
            self.assertEqual((parts, whole), (["one ", "two ", "three"], "one two three"))
            self.assertEqual(result.as_numpy("usage").tolist(), [3, 3])
        # What fails behind a part is an error of its message alone.
        self.client.async_stream_infer(
            "parrot", texts(messages=json.dumps("one !fail later"), parameters="{}")
        )
        self.assertEqual(answers.get(timeout=PATIENCE)[0].as_numpy("text")[0], b"one")
        self.assertRegex(str(answers.get(timeout=PATIENCE)[1]), "later")
        self.client.async_stream_infer("mnist", [tensor(load("digit-7"))])
        self.assertIsNone(answers.get(timeout=PATIENCE)[1])
        self.client.stop_stream()
        # Outside of a stream it is asked for all at once.
        whole = self.client.infer(
            "parrot", texts(messages=json.dumps("one two"), parameters="{}")
        )
        self.assertEqual(whole.as_numpy("text")[0], b"one two")

    def decoupled(self, model):
        """Whether a model's configuration says that a request may have several answers."""
        config = self.client.get_model_config(model).config
        return config.model_transaction_policy.decoupled

    def test_a_time_of_the_request_ends_it_and_a_priority_does_not(self):
        photograph = tensor(np.zeros((1, *MODELS["efficientnet-lite0"]), np.float32))
        with self.assertRaisesRegex(InferenceServerException, "DEADLINE_EXCEEDED"):
            self.client.infer("efficientnet-lite0", [photograph], timeout=1000)
        self.client.infer("efficientnet-lite0", [photograph], timeout=60_000_000, priority=1)

    def test_stream_infer_that_ends_with_its_first_error(self):
        answers = queue.Queue()
        self.client.start_stream(
            lambda result, error: answers.put((result, error)),
            headers={"triton_grpc_error": "true"},
        )
        self.client.async_stream_infer("no-such-model", [tensor(load("digit-7"))])
        result, error = answers.get(timeout=PATIENCE)
        self.assertIsNone(result)
        self.assertRegex(str(error), "NOT_FOUND.*no-such-model")
        self.client.stop_stream()

    @covers("get_inference_statistics")
    def test_get_inference_statistics(self):
        before = self.count()
        self.client.infer("mnist", [tensor(load("digits")[:3])])
        after = self.count()
        self.assertGreaterEqual(after.inference_count, before.inference_count + 3)
        self.assertGreater(after.execution_count, before.execution_count)
        self.assertIn(3, [batch.batch_size for batch in after.batch_stats])
        stats = after.inference_stats
        self.assertGreater(stats.compute_infer.ns, before.inference_stats.compute_infer.ns)
        self.assertEqual(stats.success.count, after.execution_count)
        everything = self.client.get_inference_statistics().model_stats
        self.assertLessEqual(set(MODELS), {model.name for model in everything})

    def count(self):
        """The statistics of the version that every test here calls."""
        (stats,) = self.client.get_inference_statistics("mnist", "1.0.0").model_stats
        return stats

    @covers("get_model_repository_index", "load_model", "unload_model")
    def test_get_model_repository_index_load_model_and_unload_model(self):
        model = "grpc-control"
        x = client.InferInput("x", [1, 2], "FP32")
        x.set_data_from_numpy(np.ones((1, 2), np.float32))

        def states():
            index = self.client.get_model_repository_index()
            return [entry.state for entry in index.models if entry.name == model]

        self.assertEqual(states(), ["READY"])
        self.client.unload_model(model)
        self.assertEqual(states(), ["UNAVAILABLE"])
        self.assertFalse(self.client.is_model_ready(model))
        with self.assertRaisesRegex(InferenceServerException, "UNAVAILABLE.*unloaded"):
            self.client.infer(model, [x])
        self.client.load_model(model)
        self.assertTrue(self.client.is_model_ready(model))
        self.client.infer(model, [x])
        with self.assertRaisesRegex(InferenceServerException, "failed to load 'no-such-model'"):
            self.client.load_model("no-such-model")
        with self.assertRaisesRegex(InferenceServerException, "not supported"):
            self.client.load_model(model, config="{}")

    @covers("update_trace_settings", "get_trace_settings")
    def test_update_and_get_trace_settings(self):
        self.assertEqual(self.traced("trace_level"), ["OFF"])
        self.client.update_trace_settings("mnist", {"trace_level": ["TIMESTAMPS"]})
        self.assertEqual(self.traced("trace_level", "mnist"), ["TIMESTAMPS"])
        self.assertEqual(self.traced("trace_level"), ["OFF"])
        self.client.update_trace_settings("mnist", {"trace_level": None})
        self.assertEqual(self.traced("trace_level", "mnist"), ["OFF"])
        with self.assertRaisesRegex(InferenceServerException, "UNIMPLEMENTED"):
            self.client.update_trace_settings(settings={"trace_level": ["TENSORS"]})

    def traced(self, name, model=None):
        """A trace setting, as it is."""
        return list(self.client.get_trace_settings(model).settings[name].value)

    @covers("update_log_settings", "get_log_settings")
    def test_update_and_get_log_settings(self):
        changed = self.client.update_log_settings({"log_verbose_level": 1})
        self.assertEqual(changed.settings["log_verbose_level"].uint32_param, 1)
        self.client.update_log_settings({"log_verbose_level": 0})
        settings = self.client.get_log_settings().settings
        self.assertEqual(settings["log_verbose_level"].uint32_param, 0)
        self.assertTrue(settings["log_info"].bool_param)
        with self.assertRaisesRegex(InferenceServerException, "UNIMPLEMENTED"):
            self.client.update_log_settings({"log_file": "/tmp/log"})

    @covers(
        "get_system_shared_memory_status",
        "unregister_system_shared_memory",
        "get_cuda_shared_memory_status",
        "unregister_cuda_shared_memory",
    )
    def test_there_is_no_shared_memory(self):
        self.assertEqual(len(self.client.get_system_shared_memory_status().regions), 0)
        self.assertEqual(len(self.client.get_cuda_shared_memory_status().regions), 0)
        with self.assertRaisesRegex(InferenceServerException, "NOT_FOUND"):
            self.client.get_system_shared_memory_status("region")
        self.client.unregister_system_shared_memory()
        self.client.unregister_cuda_shared_memory()

    @covers(
        "register_system_shared_memory",
        "register_cuda_shared_memory",
        but="answered as unsupported: shared memory is off",
    )
    def test_shared_memory_is_not_taken(self):
        with self.assertRaisesRegex(InferenceServerException, "UNIMPLEMENTED.*not enabled"):
            self.client.register_system_shared_memory("region", "/key", 4)
        with self.assertRaisesRegex(InferenceServerException, "UNIMPLEMENTED.*not enabled"):
            self.client.register_cuda_shared_memory("region", b"aGFuZGxl", 0, 4)

    def test_a_tensor_in_shared_memory_is_refused(self):
        image = client.InferInput("image", [1, 1, 28, 28], "FP32")
        image.set_shared_memory("region", 4 * 28 * 28)
        with self.assertRaisesRegex(InferenceServerException, "shared memory is not enabled"):
            self.client.infer("mnist", [image])


class Asynchronous(unittest.IsolatedAsyncioTestCase):
    """The asyncio client."""

    CLIENT = "tritonclient: grpc.aio"

    async def asyncSetUp(self):
        self.client = aio.InferenceServerClient(ADDRESS)
        self.addAsyncCleanup(self.client.close)

    @covers(
        "is_server_live",
        "is_server_ready",
        "is_model_ready",
        "get_server_metadata",
        "get_model_metadata",
        "get_model_config",
    )
    async def test_health_metadata_and_config(self):
        self.assertTrue(await self.client.is_server_live())
        self.assertTrue(await self.client.is_server_ready())
        self.assertTrue(await self.client.is_model_ready("mnist"))
        self.assertEqual((await self.client.get_server_metadata()).name, "modelet")
        metadata = await self.client.get_model_metadata("mnist")
        self.assertEqual(list(metadata.inputs[0].shape), [-1, 1, 28, 28])
        self.assertEqual((await self.client.get_model_config("mnist")).config.name, "mnist")

    @covers("infer")
    async def test_infer(self):
        images, expected = load("digits")[:CONCURRENT], load("digits.logits")[:CONCURRENT]
        calls = [self.client.infer("mnist", [tensor(image[None])]) for image in images]
        for answer, row in zip(await asyncio.gather(*calls), expected):
            np.testing.assert_allclose(answer.as_numpy("logits")[0], row, atol=TOLERANCE)
        with self.assertRaisesRegex(InferenceServerException, "NOT_FOUND.*no-such-model"):
            await self.client.infer("no-such-model", [tensor(images[:1])])

    @covers("stream_infer")
    async def test_stream_infer(self):
        images, expected = load("digits")[:8], load("digits.logits")[:8]

        async def requests():
            for image in images:
                yield {"model_name": "mnist", "inputs": [tensor(image[None])]}

        rows = iter(expected)
        async for result, error in self.client.stream_infer(requests()):
            self.assertIsNone(error)
            np.testing.assert_allclose(result.as_numpy("logits")[0], next(rows), atol=TOLERANCE)
        self.assertEqual(list(rows), [])

    @covers(
        "get_inference_statistics",
        "get_model_repository_index",
        "load_model",
        "unload_model",
        "get_trace_settings",
        "update_trace_settings",
        "get_log_settings",
        "update_log_settings",
    )
    async def test_statistics_repository_and_settings(self):
        statistics = await self.client.get_inference_statistics("mnist")
        self.assertEqual(statistics.model_stats[0].name, "mnist")
        index = await self.client.get_model_repository_index()
        self.assertIn("mnist", {entry.name for entry in index.models})
        await self.client.unload_model("grpc-control")
        await self.client.load_model("grpc-control")
        self.assertIn("trace_rate", (await self.client.get_trace_settings()).settings)
        await self.client.update_trace_settings(settings={"trace_rate": "1000"})
        self.assertIn("log_info", (await self.client.get_log_settings()).settings)
        await self.client.update_log_settings({"log_info": True})

    @covers(
        "get_system_shared_memory_status",
        "unregister_system_shared_memory",
        "get_cuda_shared_memory_status",
        "unregister_cuda_shared_memory",
    )
    async def test_there_is_no_shared_memory(self):
        self.assertEqual(len((await self.client.get_system_shared_memory_status()).regions), 0)
        self.assertEqual(len((await self.client.get_cuda_shared_memory_status()).regions), 0)
        await self.client.unregister_system_shared_memory()
        await self.client.unregister_cuda_shared_memory()

    @covers(
        "register_system_shared_memory",
        "register_cuda_shared_memory",
        but="answered as unsupported: shared memory is off",
    )
    async def test_shared_memory_is_not_taken(self):
        with self.assertRaisesRegex(InferenceServerException, "not enabled"):
            await self.client.register_system_shared_memory("region", "/key", 4)
        with self.assertRaisesRegex(InferenceServerException, "not enabled"):
            await self.client.register_cuda_shared_memory("region", b"aGFuZGxl", 0, 4)


class Messages(unittest.TestCase):
    """The messages themselves, as a client without a library sends them."""

    def setUp(self):
        self.channel = grpc.insecure_channel(ADDRESS)
        self.addCleanup(self.channel.close)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def digit(self):
        """A request with typed contents."""
        request = service_pb2.ModelInferRequest(model_name="mnist")
        image = request.inputs.add(name="image", datatype="FP32", shape=[1, 1, 28, 28])
        image.contents.fp32_contents.extend(load("digit-7").ravel().tolist())
        return request

    def test_typed_contents_are_taken_and_given(self):
        request = self.digit()
        raw = self.stub.ModelInfer(request).raw_output_contents
        request.parameters["binary_data_output"].bool_param = False
        answer = self.stub.ModelInfer(request)
        self.assertEqual(len(answer.raw_output_contents), 0)
        typed = np.array(answer.outputs[0].contents.fp32_contents, np.float32)
        np.testing.assert_array_equal(typed, np.frombuffer(raw[0], np.float32))

    def test_typed_contents_of_every_datatype(self):
        fields = {"BOOL": "bool", "INT64": "int64", "UINT64": "uint64", "BYTES": "bytes"}
        fields |= {"FP32": "fp32", "FP64": "fp64"} | {f"INT{bits}": "int" for bits in (8, 16, 32)}
        fields |= {f"UINT{bits}": "uint" for bits in (8, 16, 32)}
        self.assertEqual(set(fields), set(DATATYPES) - set(ONLY_BINARY))
        for datatype, field in fields.items():
            with self.subTest(datatype=datatype):
                request = service_pb2.ModelInferRequest(model_name="grpc-" + datatype.lower())
                x = request.inputs.add(name="x", datatype=datatype, shape=[2, 2])
                given = values(datatype).ravel().tolist()
                getattr(x.contents, f"{field}_contents").extend(given)
                request.parameters["binary_data_output"].bool_param = False
                contents = self.stub.ModelInfer(request).outputs[0].contents
                self.assertEqual(list(getattr(contents, f"{field}_contents")), given)

    def test_an_answer_names_its_trace_its_request_and_its_version(self):
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        metadata = [("traceparent", f"00-{trace}-00f067aa0ba902b7-01"), ("x-request-id", "seven")]
        _, call = self.stub.ModelInfer.with_call(self.digit(), metadata=metadata)
        answered = dict(call.initial_metadata())
        self.assertIn(trace, answered["traceparent"])
        self.assertEqual(answered["x-request-id"], "seven")
        self.assertEqual(answered["modelet-version"], "1.0.0")

    def test_a_refusal_says_its_kind_to_programs(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.stub.ModelInfer(service_pb2.ModelInferRequest(model_name="no-such-model"))
        metadata = dict(raised.exception.initial_metadata())
        metadata |= dict(raised.exception.trailing_metadata())
        self.assertEqual(metadata["modelet-error"], "not_found")

    def test_what_there_is_not_is_unimplemented(self):
        for method in (f"/{SERVICE}/ModelDream", "/inference.Other/ModelInfer"):
            call = self.channel.unary_unary(method)
            with self.assertRaises(grpc.RpcError) as raised:
                call(b"")
            self.assertEqual(raised.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_a_message_that_is_none_is_an_invalid_argument(self):
        for method in ("ModelInfer", "ModelMetadata", "RepositoryIndex"):
            call = self.channel.unary_unary(f"/{SERVICE}/{method}")
            with self.assertRaises(grpc.RpcError) as raised:
                call(b"\xff\xff\xff")
            self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT, method)

    def test_health(self):
        stub = health_pb2_grpc.HealthStub(self.channel)
        for service in ("", SERVICE):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)
        with self.assertRaises(grpc.RpcError) as raised:
            stub.Check(health_pb2.HealthCheckRequest(service="other"))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        self.assertEqual(next(watch).status, health_pb2.HealthCheckResponse.SERVING)
        watch.cancel()


class Descriptions(unittest.TestCase):
    """The server's description of itself, compared with what the client was built from."""

    @classmethod
    def setUpClass(cls):
        cls.channel = grpc.insecure_channel(ADDRESS)
        cls.addClassCleanup(cls.channel.close)
        cls.reflected = ProtoReflectionDescriptorDatabase(cls.channel)

    def test_the_services_are_listed(self):
        services = set(self.reflected.get_services())
        self.assertLessEqual({SERVICE, "grpc.health.v1.Health"}, services)

    def test_every_method_is_the_clients(self):
        pool = descriptor_pool.DescriptorPool(self.reflected)
        service = pool.FindServiceByName(SERVICE)
        known = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]

        def signatures(of):
            return {
                method.name: (
                    method.input_type.full_name,
                    method.output_type.full_name,
                    method.client_streaming,
                    method.server_streaming,
                )
                for method in of.methods
            }

        self.assertEqual(signatures(service), signatures(known))

    def test_every_field_of_every_message_is_the_clients(self):
        ours, theirs = {}, {}
        for name in ("inference.proto", "model_config.proto"):
            collect(self.reflected.FindFileByName(name), ours)
        for module in (service_pb2, client.model_config_pb2):
            file = descriptor_pb2.FileDescriptorProto()
            module.DESCRIPTOR.CopyToProto(file)
            collect(file, theirs)
        self.assertGreater(len(ours), 60)
        for name, fields in ours.items():
            for field, what in fields.items():
                self.assertEqual(theirs[name].get(field), what, f"{name}.{field}")
        # Of the configuration only a part is told of; of all else, everything.
        for name, fields in theirs.items():
            if not name.startswith(("ModelConfig", "ModelI", "ModelO")) and name in ours:
                self.assertEqual(set(fields), set(ours[name]), name)


def collect(file, into):
    """Every message of a file by its name, with what is said of each field."""

    def visit(message, path):
        name = f"{path}{message.name}"
        into[name] = {
            field.name: (field.number, field.type, field.label, field.type_name)
            for field in message.field
        }
        for nested in message.nested_type:
            visit(nested, f"{name}.")

    for message in file.message_type:
        visit(message, "")
    for enum in file.enum_type:
        into[enum.name] = {value.name: value.number for value in enum.value}


if __name__ == "__main__":
    unittest.main()
