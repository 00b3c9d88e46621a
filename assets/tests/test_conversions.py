"""The conversions: known shapes, known answers, and the same bytes every time."""

import json
import tempfile
import unittest

import numpy as np
import onnx

from modelet_assets import build, efficientnet, engine, inputs, mnist
from modelet_assets.checkpoint import read_checkpoint
from modelet_assets.sources import SourceError, Sources

from . import folders
from .folders import load


class SameBytes(unittest.TestCase):
    """The finished folder is what the downloads and the scripts give, again."""

    @classmethod
    def setUpClass(cls):
        cls.sources = Sources(folders.PINS, folders.downloads())

    def test_a_second_conversion_gives_the_same_bytes(self):
        for file, module, source in (
            ("mnist.onnx", mnist, "mnist-checkpoint"),
            ("efficientnet-lite0.onnx", efficientnet, "efficientnet-checkpoint"),
        ):
            with self.subTest(file=file):
                tensors = read_checkpoint(self.sources.open(source).read(module.CHECKPOINT))
                self.assertEqual(module.convert(tensors), (folders.models() / file).read_bytes())

    def test_a_second_reading_of_the_inputs_gives_the_same_bytes(self):
        images, labels = inputs.read_digits(self.sources.open("mnist-digits"))
        np.testing.assert_array_equal(images, load("digits"))
        np.testing.assert_array_equal(labels, load("digits.labels"))
        for photograph in inputs.PHOTOGRAPHS:
            data = self.sources.open(photograph.source).read(photograph.member)
            np.testing.assert_array_equal(inputs.read_photograph(data), load(photograph.name))

    def test_a_download_with_another_hash_is_refused(self):
        pin = self.sources.pins["mnist-checkpoint"]
        with tempfile.TemporaryDirectory() as folder:
            tampered = Sources(folders.PINS, folder)
            with self.assertRaisesRegex(SourceError, "is missing"):
                tampered.open("mnist-checkpoint")
            (tampered.downloads / pin["file"]).write_bytes(b"other bytes")
            with self.assertRaisesRegex(SourceError, f"expected SHA-256 {pin['sha256']}, got "):
                tampered.open("mnist-checkpoint")

    def test_a_missing_member_is_named(self):
        with self.assertRaisesRegex(SourceError, "has no file no/such/file"):
            self.sources.open("mnist-digits").read("no/such/file")


class Graphs(unittest.TestCase):
    """The graphs keep their contract."""

    def test_shapes_and_names_are_the_contract(self):
        for name, sizes, classes in (
            ("mnist", [1, 28, 28], 10),
            ("efficientnet-lite0", [3, 224, 224], 1000),
        ):
            with self.subTest(model=name):
                graph = onnx.load(folders.models() / f"{name}.onnx").graph
                (image,), (logits,) = graph.input, graph.output
                self.assertEqual((image.name, _shape(image)), ("image", ["batch", *sizes]))
                self.assertEqual((logits.name, _shape(logits)), ("logits", ["batch", classes]))

    def test_a_batch_answers_each_row_as_alone(self):
        images = load("digits")[:16]
        model = (folders.models() / "mnist.onnx").read_bytes()
        together = engine.onnxruntime.InferenceSession(model).run(["logits"], {"image": images})[0]
        np.testing.assert_allclose(together, load("digits.logits")[:16], atol=1e-4)


class KnownAnswers(unittest.TestCase):
    """The models are the real ones: they recognise real inputs."""

    def test_9974_of_10000_digits_are_right(self):
        images, labels = load("digits"), load("digits.labels")
        model = (folders.models() / "mnist.onnx").read_bytes()
        answers = engine.logits(model, images)
        self.assertEqual((answers.argmax(axis=1) == labels).sum(), 9974)
        self.assertEqual(labels[:10].tolist(), list(range(10)))
        np.testing.assert_allclose(answers, load("digits.logits"), atol=1e-4)

    def test_photographs_are_recognised(self):
        names = (folders.models() / "imagenet-labels.txt").read_text().splitlines()
        model = (folders.models() / "efficientnet-lite0.onnx").read_bytes()
        for name, index, probability in (
            ("coffee", 967, 0.951),
            ("camera", 872, 0.937),
            ("flower", 985, 0.327),
            ("china", 698, 0.360),
        ):
            with self.subTest(photograph=name):
                row = engine.logits(model, load(name))[0]
                self.assertEqual(row.argmax(), index)
                self.assertAlmostEqual(engine.softmax(row)[index], probability, places=3)
                expected = next(p.label for p in inputs.PHOTOGRAPHS if p.name == name)
                self.assertEqual(names[index], expected)

    def test_the_ready_request_is_the_seven(self):
        request = json.loads((folders.models() / "digit-7.json").read_text())
        (tensor,) = request["inputs"]
        data = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        np.testing.assert_allclose(data, load("digit-7"), atol=1e-6)
        self.assertEqual(load("digits.labels")[build.REQUEST_DIGIT], 7)


def _shape(value):
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
