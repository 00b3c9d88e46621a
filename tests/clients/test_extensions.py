"""`tritonclient.http`'s methods for Triton's extensions, blocking and asynchronous: configuration,
statistics, the model repository, settings and shared memory."""

import json
import unittest
import urllib.request

import numpy as np
import tritonclient.http as http
import tritonclient.http.aio as aio
from onnx import TensorProto
from tritonclient.utils import InferenceServerException

from .covers import covers
from .graphs import identity, publish
from .models import ADDRESS, MODELS, load

# The model that is loaded and unloaded.
CONTROLLED = "rest-control"


def setUpModule():
    """Publishes the model to load and unload."""
    publish(CONTROLLED, identity(TensorProto.FLOAT))


def digits(count):
    """So many digits as an input."""
    image = http.InferInput("image", [count, 1, 28, 28], "FP32")
    return image.set_data_from_numpy(load("digits")[:count])


class Blocking(unittest.TestCase):
    """The blocking client."""

    CLIENT = "tritonclient: http"

    def setUp(self):
        self.client = http.InferenceServerClient(ADDRESS)
        self.addCleanup(self.client.close)

    def test_the_extensions_are_listed(self):
        extensions = self.client.get_server_metadata()["extensions"]
        for extension in (
            *("generate", "generate_stream", "logging", "model_configuration"),
            *("model_repository", "statistics"),
        ):
            self.assertIn(extension, extensions)

    @covers("get_model_config")
    def test_get_model_config(self):
        config = self.client.get_model_config("mnist")
        self.assertEqual((config["name"], config["backend"]), ("mnist", "modelet"))
        self.assertGreater(config["max_batch_size"], 100)
        image = {"name": "image", "data_type": "TYPE_FP32", "dims": [1, 28, 28]}
        self.assertEqual(config["input"], [image])
        self.assertEqual(config["model_transaction_policy"], {"decoupled": False})
        self.assertNotIn("null", json.dumps(config))
        # The presence of either would choose a scheduler.
        self.assertFalse({"sequence_batching", "dynamic_batching"} & set(config))
        self.assertEqual(self.client.get_model_config("mnist", "1.0.0"), config)
        parrot = self.client.get_model_config("parrot")
        self.assertEqual(parrot["model_transaction_policy"], {"decoupled": True})

    @covers("get_inference_statistics")
    def test_get_inference_statistics(self):
        before = self.count()
        self.client.infer("mnist", [digits(5)])
        with self.assertRaises(InferenceServerException):
            self.client.infer("mnist", [http.InferInput("other", [1], "FP32")])
        after = self.count()
        # Other tests call it at the same time.
        self.assertGreaterEqual(after["inference_count"], before["inference_count"] + 5)
        self.assertGreater(after["execution_count"], before["execution_count"])
        self.assertGreater(after["last_inference"], 1_600_000_000_000)
        stats, earlier = after["inference_stats"], before["inference_stats"]
        for key in ("success", "fail", "compute_input", "compute_infer", "compute_output"):
            self.assertGreater(stats[key]["count"], earlier[key]["count"], key)
            self.assertGreater(stats[key]["ns"], earlier[key]["ns"], key)
        self.assertEqual(stats["cache_hit"], {"count": 0, "ns": 0})
        (five,) = (batch for batch in after["batch_stats"] if batch["batch_size"] == 5)
        self.assertGreater(five["compute_infer"]["ns"], 0)
        self.assertGreater(after["memory_usage"][0]["byte_size"], 10_000)
        everything = self.client.get_inference_statistics()["model_stats"]
        self.assertLessEqual(set(MODELS), {model["name"] for model in everything})

    def count(self):
        """The statistics of the version that the tests call."""
        (stats,) = self.client.get_inference_statistics("mnist", "1.0.0")["model_stats"]
        return stats

    @covers("get_model_repository_index", "load_model", "unload_model")
    def test_get_model_repository_index_load_model_and_unload_model(self):
        x = http.InferInput("x", [1, 2], "FP32")
        x.set_data_from_numpy(np.ones((1, 2), np.float32))

        def states():
            index = self.client.get_model_repository_index()
            return [entry["state"] for entry in index if entry["name"] == CONTROLLED]

        self.assertEqual(states(), ["READY"])
        self.client.unload_model(CONTROLLED)
        self.assertEqual(states(), ["UNAVAILABLE"])
        self.assertFalse(self.client.is_model_ready(CONTROLLED))
        self.assertTrue(self.client.is_model_ready("mnist"))
        with self.assertRaisesRegex(InferenceServerException, "unloaded"):
            self.client.infer(CONTROLLED, [x])
        self.client.load_model(CONTROLLED)
        self.assertEqual(states(), ["READY"])
        self.client.infer(CONTROLLED, [x])
        with self.assertRaisesRegex(InferenceServerException, "failed to load 'no-such-model'"):
            self.client.load_model("no-such-model")
        with self.assertRaisesRegex(InferenceServerException, "no-such-model"):
            self.client.unload_model("no-such-model")
        with self.assertRaisesRegex(InferenceServerException, "not supported"):
            self.client.load_model(CONTROLLED, config="{}")

    @covers("update_trace_settings", "get_trace_settings")
    def test_update_and_get_trace_settings(self):
        changed = self.client.update_trace_settings("mnist", {"trace_rate": "10"})
        self.assertEqual(changed["trace_rate"], "10")
        self.assertEqual(self.client.get_trace_settings("mnist")["trace_rate"], "10")
        self.assertEqual(self.client.get_trace_settings()["trace_rate"], "1000")
        cleared = self.client.update_trace_settings("mnist", {"trace_rate": None})
        self.assertEqual(cleared["trace_rate"], "1000")
        self.assertEqual(cleared["trace_level"], ["OFF"])
        with self.assertRaisesRegex(InferenceServerException, "not written down"):
            self.client.update_trace_settings(settings={"trace_level": ["TENSORS"]})

    @covers("update_log_settings", "get_log_settings")
    def test_update_and_get_log_settings(self):
        self.assertTrue(self.client.get_log_settings()["log_info"])
        changed = self.client.update_log_settings({"log_verbose_level": 1})
        self.assertEqual(changed["log_verbose_level"], 1)
        changed = self.client.update_log_settings({"log_verbose_level": 0})
        self.assertEqual(self.client.get_log_settings(), changed)
        with self.assertRaisesRegex(InferenceServerException, "cannot be changed"):
            self.client.update_log_settings({"log_file": "/tmp/log"})

    @covers(
        "get_system_shared_memory_status",
        "unregister_system_shared_memory",
        "get_cuda_shared_memory_status",
        "unregister_cuda_shared_memory",
    )
    def test_there_is_no_shared_memory(self):
        self.assertEqual(self.client.get_system_shared_memory_status(), [])
        self.assertEqual(self.client.get_cuda_shared_memory_status(), [])
        with self.assertRaisesRegex(InferenceServerException, "no shared memory region"):
            self.client.get_system_shared_memory_status("region")
        self.client.unregister_system_shared_memory()
        self.client.unregister_system_shared_memory("region")
        self.client.unregister_cuda_shared_memory()

    @covers(
        "register_system_shared_memory",
        "register_cuda_shared_memory",
        but="answered as unsupported: shared memory is off",
    )
    def test_shared_memory_is_not_taken(self):
        with self.assertRaisesRegex(InferenceServerException, "not enabled"):
            self.client.register_system_shared_memory("region", "/key", 4)
        with self.assertRaisesRegex(InferenceServerException, "not enabled"):
            self.client.register_cuda_shared_memory("region", b"aGFuZGxl", 0, 4)

    def test_a_tensor_in_shared_memory_is_refused(self):
        image = http.InferInput("image", [1, 1, 28, 28], "FP32")
        image.set_shared_memory("region", 4 * 28 * 28)
        with self.assertRaisesRegex(InferenceServerException, "shared memory is not enabled"):
            self.client.infer("mnist", [image])


class Asynchronous(unittest.IsolatedAsyncioTestCase):
    """The asyncio client."""

    CLIENT = "tritonclient: http.aio"

    async def asyncSetUp(self):
        self.client = aio.InferenceServerClient(ADDRESS)
        self.addAsyncCleanup(self.client.close)

    @covers("get_model_config", "get_inference_statistics")
    async def test_config_and_statistics(self):
        self.assertEqual((await self.client.get_model_config("mnist"))["name"], "mnist")
        statistics = await self.client.get_inference_statistics("mnist")
        self.assertEqual(statistics["model_stats"][0]["name"], "mnist")

    @covers("get_model_repository_index", "load_model", "unload_model")
    async def test_repository(self):
        index = await self.client.get_model_repository_index()
        self.assertIn("mnist", {entry["name"] for entry in index})
        await self.client.unload_model(CONTROLLED)
        await self.client.load_model(CONTROLLED)
        with self.assertRaisesRegex(InferenceServerException, "failed to load"):
            await self.client.load_model("no-such-model")

    @covers(
        "get_trace_settings",
        "update_trace_settings",
        "get_log_settings",
        "update_log_settings",
    )
    async def test_settings(self):
        self.assertEqual((await self.client.get_trace_settings())["trace_level"], ["OFF"])
        await self.client.update_trace_settings(settings={"trace_rate": "1000"})
        self.assertTrue((await self.client.get_log_settings())["log_error"])
        await self.client.update_log_settings({"log_error": True})

    @covers(
        "get_system_shared_memory_status",
        "unregister_system_shared_memory",
        "get_cuda_shared_memory_status",
        "unregister_cuda_shared_memory",
    )
    async def test_there_is_no_shared_memory(self):
        self.assertEqual(await self.client.get_system_shared_memory_status(), [])
        self.assertEqual(await self.client.get_cuda_shared_memory_status(), [])
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


class TraceContext(unittest.TestCase):
    """W3C's Trace Context on every route."""

    def answered(self, traceparent):
        """The trace context of an answer."""
        request = urllib.request.Request(f"http://{ADDRESS}/v2/health/live")
        request.add_header("traceparent", traceparent)
        with urllib.request.urlopen(request) as answer:
            return answer.headers.get("traceparent")

    def test_a_trace_is_continued(self):
        trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
        version, answered, span, flags = self.answered(f"00-{trace}-{parent}-01").split("-")
        self.assertEqual((version, answered, flags), ("00", trace, "01"))
        self.assertNotEqual(span, parent)

    def test_what_is_no_trace_is_ignored(self):
        self.assertIsNone(self.answered(f"00-{'0' * 32}-{'0' * 16}-01"))


if __name__ == "__main__":
    unittest.main()
