"""`tritonclient.http`, the Open Inference Protocol's usual client, blocking and asynchronous."""

import asyncio
import unittest

import numpy as np
import tritonclient.http as http
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException

from .covers import covers
from .models import ADDRESS, CLASSES, MODELS, TOLERANCE, load

# Requests sent side by side; enough that several run at once on any machine.
CONCURRENT = 64


def tensor(images, binary=True):
    """The input of either model."""
    image = http.InferInput("image", list(images.shape), "FP32")
    image.set_data_from_numpy(images, binary_data=binary)
    return image


class Blocking(unittest.TestCase):
    """The blocking client."""

    CLIENT = "tritonclient: http"

    def setUp(self):
        self.client = http.InferenceServerClient(ADDRESS, concurrency=8)
        self.addCleanup(self.client.close)

    @covers("is_server_live", "is_server_ready", "is_model_ready")
    def test_health_is_good(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())
        for model in MODELS:
            self.assertTrue(self.client.is_model_ready(model))
            self.assertTrue(self.client.is_model_ready(model, "1.0.0"))

    def test_a_model_that_is_not_there_is_not_ready(self):
        self.assertFalse(self.client.is_model_ready("no-such-model"))
        self.assertFalse(self.client.is_model_ready("mnist", "9.9.9"))

    @covers("get_server_metadata")
    def test_the_server_says_what_it_is(self):
        metadata = self.client.get_server_metadata()
        self.assertEqual(metadata["name"], "modelet")
        self.assertIn("binary_tensor_data", metadata["extensions"])

    @covers("get_model_metadata")
    def test_metadata_is_the_graphs_signature(self):
        for model, sizes in MODELS.items():
            with self.subTest(model=model):
                metadata = self.client.get_model_metadata(model)
                self.assertEqual(metadata["name"], model)
                self.assertIn("1.0.0", metadata["versions"])
                image = {"name": "image", "datatype": "FP32", "shape": [-1, *sizes]}
                logits = {"name": "logits", "datatype": "FP32", "shape": [-1, CLASSES[model]]}
                self.assertEqual(metadata["inputs"], [image])
                self.assertEqual(metadata["outputs"], [logits])

    @covers("infer")
    def test_every_combination_of_json_and_binary_gives_the_engines_answer(self):
        images, expected = load("digits")[:4], load("digits.logits")[:4]
        for sent in (False, True):
            for received in (False, True):
                with self.subTest(binary_input=sent, binary_output=received):
                    wanted = http.InferRequestedOutput("logits", binary_data=received)
                    answer = self.client.infer("mnist", [tensor(images, sent)], outputs=[wanted])
                    np.testing.assert_allclose(answer.as_numpy("logits"), expected, atol=TOLERANCE)

    def test_photographs_give_the_engines_answer(self):
        for name in ("coffee", "camera", "flower", "china"):
            with self.subTest(photograph=name):
                answer = self.client.infer("efficientnet-lite0", [tensor(load(name))])
                given = answer.as_numpy("logits")
                np.testing.assert_allclose(given, load(f"{name}.logits"), atol=TOLERANCE)

    def test_answers_carry_the_version_and_the_request_id(self):
        image = [tensor(load("digit-7"))]
        answer = self.client.infer("mnist", image, request_id="seven").get_response()
        self.assertEqual(answer["model_name"], "mnist")
        self.assertEqual(answer["model_version"], "1.0.0")
        self.assertEqual(answer["id"], "seven")

    def test_a_time_of_the_request_ends_it_and_a_priority_does_not(self):
        photograph = [tensor(load("coffee"))]
        with self.assertRaisesRegex(InferenceServerException, "deadline"):
            self.client.infer("efficientnet-lite0", photograph, timeout=1000)
        self.client.infer("efficientnet-lite0", photograph, timeout=60_000_000, priority=1)

    def test_compressed_requests_and_responses_are_understood(self):
        # The plain answer is the one to compare with; it is large enough to be worth compressing.
        image = [tensor(load("coffee"))]
        plain = self.client.infer("efficientnet-lite0", image).as_numpy("logits")
        seen = []
        post = self.client._post

        def recording(*arguments, **named):
            answer = post(*arguments, **named)
            seen.append((answer.get("content-encoding"), answer.get("content-length")))
            return answer

        self.client._post = recording
        for algorithm in ("gzip", "deflate"):
            with self.subTest(algorithm=algorithm):
                answer = self.client.infer(
                    "efficientnet-lite0",
                    image,
                    request_compression_algorithm=algorithm,
                    response_compression_algorithm=algorithm,
                )
                np.testing.assert_array_equal(answer.as_numpy("logits"), plain)
                self.assertEqual(seen[-1][0], algorithm)
        self.client.infer("efficientnet-lite0", image)
        self.assertEqual(seen[-1][0], None)

    def test_a_bad_request_is_a_clear_error_and_the_next_good_one_succeeds(self):
        for bad in (
            tensor(np.zeros((1, 1, 28, 27), np.float32)),
            tensor(np.zeros((1, 28, 28), np.float32)),
        ):
            with self.assertRaisesRegex(InferenceServerException, "image"):
                self.client.infer("mnist", [bad])
        wrong = http.InferInput("picture", [1, 1, 28, 28], "FP32")
        wrong.set_data_from_numpy(load("digit-7"))
        with self.assertRaisesRegex(InferenceServerException, "picture"):
            self.client.infer("mnist", [wrong])
        with self.assertRaisesRegex(InferenceServerException, "no-such-model"):
            self.client.infer("no-such-model", [tensor(load("digit-7"))])
        answer = self.client.infer("mnist", [tensor(load("digit-7"))])
        self.assertEqual(answer.as_numpy("logits").argmax(), 7)

    @covers("async_infer")
    def test_requests_side_by_side_each_get_their_own_answer(self):
        images, expected = load("digits")[:CONCURRENT], load("digits.logits")[:CONCURRENT]
        calls = [self.client.async_infer("mnist", [tensor(image[None])]) for image in images]
        for call, row in zip(calls, expected):
            answer = call.get_result().as_numpy("logits")[0]
            np.testing.assert_allclose(answer, row, atol=TOLERANCE)


class Asynchronous(unittest.IsolatedAsyncioTestCase):
    """The asyncio client."""

    CLIENT = "tritonclient: http.aio"

    async def asyncSetUp(self):
        self.client = aio.InferenceServerClient(ADDRESS)
        self.addAsyncCleanup(self.client.close)

    @covers(
        "is_server_live",
        "is_server_ready",
        "is_model_ready",
        "get_server_metadata",
        "get_model_metadata",
    )
    async def test_health_and_metadata_are_those_of_the_blocking_client(self):
        self.assertTrue(await self.client.is_server_live())
        self.assertTrue(await self.client.is_server_ready())
        self.assertTrue(await self.client.is_model_ready("mnist"))
        self.assertEqual((await self.client.get_server_metadata())["name"], "modelet")
        metadata = await self.client.get_model_metadata("mnist")
        self.assertEqual(metadata["inputs"][0]["shape"], [-1, 1, 28, 28])

    @covers("infer")
    async def test_requests_side_by_side_each_get_their_own_answer(self):
        images, expected = load("digits")[:CONCURRENT], load("digits.logits")[:CONCURRENT]
        calls = [self.client.infer("mnist", [tensor(image[None])]) for image in images]
        for answer, row in zip(await asyncio.gather(*calls), expected):
            np.testing.assert_allclose(answer.as_numpy("logits")[0], row, atol=TOLERANCE)

    async def test_compressed_requests_and_responses_are_understood(self):
        image = [tensor(load("coffee"))]
        expected = load("coffee.logits")
        seen = []
        post = self.client._post

        async def recording(*arguments, **named):
            answer = await post(*arguments, **named)
            seen.append(answer.headers.get("content-encoding"))
            return answer

        self.client._post = recording
        for algorithm in ("gzip", "deflate"):
            answer = await self.client.infer(
                "efficientnet-lite0",
                image,
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            np.testing.assert_allclose(answer.as_numpy("logits"), expected, atol=TOLERANCE)
            self.assertEqual(seen[-1], algorithm)
        # Without being told, this client accepts gzip, and undoes it for inferences alone.
        answer = await self.client.infer("efficientnet-lite0", image)
        np.testing.assert_allclose(answer.as_numpy("logits"), expected, atol=TOLERANCE)
        self.assertEqual(seen[-1], "gzip")
        metadata = await self.client.get_model_metadata("efficientnet-lite0")
        self.assertEqual(metadata["name"], "efficientnet-lite0")
        # A refusal of an inference is plain for the same client.
        with self.assertRaisesRegex(InferenceServerException, "picture"):
            wrong = http.InferInput("picture", [1, 1000], "FP32")
            wrong.set_data_from_numpy(np.zeros((1, 1000), np.float32))
            await self.client.infer("efficientnet-lite0", [wrong])

    async def test_an_error_has_its_reason(self):
        with self.assertRaisesRegex(InferenceServerException, "no-such-model"):
            await self.client.infer("no-such-model", [tensor(load("digit-7"))])
