"""The example models against pipelines of the bare engine: the same answers, for 200 inputs at once.

Every pipeline is written here anew, in Python over ONNX Runtime, with the reference tokenizer and
the reference decoder of pictures; none of it is the code that the guests run.
"""

import concurrent.futures
import io
import json
import os
import pathlib
import subprocess
import tempfile
import threading
import unittest

import numpy as np
import onnxruntime
import tokenizers
import tritonclient.http as http
from PIL import Image
from tritonclient.utils import InferenceServerException

from .models import ADDRESS, FOLDER

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
# Distinct inputs of each example, and how many are under way at once.
INPUTS, CONCURRENT = 200, 16
# How far an answer may be from the bare engine's.
TOLERANCE = 1e-4

WIDTH = 384
FRAME, CONTEXT = 512, 64


def session(file):
    """A graph in the bare engine, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(FOLDER / file, options, providers=["CPUExecutionProvider"])


def tensor(name, values, datatype):
    """An input of one call."""
    given = http.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values)
    return given


def of_bytes(elements):
    """A vector of byte strings."""
    return np.array(elements, dtype=np.object_)


def sentences():
    """The 500 reference sentences."""
    return (FOLDER / "sentences.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")


class Example(unittest.TestCase):
    """What all examples are tested with."""

    # The client cannot be shared by threads.
    clients = threading.local()

    def infer(self, model, inputs, version):
        """The answer to one call."""
        if not hasattr(self.clients, "own"):
            self.clients.own = http.InferenceServerClient(ADDRESS)
        return self.clients.own.infer(model, inputs, model_version=version)

    def check_all(self, check, inputs):
        """Calls with all inputs, many at once, and compares each answer with its own."""
        inputs = list(inputs)
        self.assertEqual(len(inputs), INPUTS)
        with concurrent.futures.ThreadPoolExecutor(CONCURRENT) as pool:
            for done in [pool.submit(check, given) for given in inputs]:
                done.result()

    def on_rten(self, package):
        """Publishes a package once more, for the other engine, and gives the version's name."""
        version = "2.0.0-rten"
        text = (EXAMPLES / package).read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("version =")]
        library = pathlib.Path(package).parent.name.replace("-", "_")
        component = pathlib.Path(os.environ["MODELET_GUESTS"]) / "modelet" / f"{library}.wasm"
        head = [f'version = "{version}"', 'backend = "rten"', f'component = "{component}"']
        with tempfile.TemporaryDirectory() as folder:
            manifest = pathlib.Path(folder) / "modelet.toml"
            manifest.write_text("\n".join(head + lines), encoding="utf-8")
            command = [os.environ["MODELET"], "publish", "--package", manifest]
            subprocess.run(command, check=True, capture_output=True)
        return version


class Embedding(Example):
    """Text to vectors."""

    @classmethod
    def setUpClass(cls):
        cls.tokenizer = tokenizers.Tokenizer.from_file(str(FOLDER / "minilm-tokenizer.json"))
        cls.tokenizer.no_padding()
        cls.graph, cls.small = session("minilm.onnx"), session("minilm-int8.onnx")

    def reference(self, text):
        """The bare engine's vector of a text."""
        ids = np.array([self.tokenizer.encode(text).ids], np.int64)
        return self.graph.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0]

    def reference_int8(self, text):
        """The same by the graph with weights of 8 bits, whose mean is taken outside of it."""
        ids = np.array([self.tokenizer.encode(text).ids], np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        vectors = self.small.run(None, given | {"token_type_ids": np.zeros_like(ids)})[0][0]
        mean = vectors.mean(axis=0)
        return mean / np.linalg.norm(mean)

    def vector(self, text, version):
        """The server's vector of a text."""
        answer = self.infer("embedding", [tensor("text", of_bytes([text]), "BYTES")], version)
        return answer.as_numpy("embedding")[0]

    def test_known_answers(self):
        text = "A man is eating food."
        for version, start in (
            ("1.0.0", [0.0332, 0.0044, -0.0063, 0.0484]),
            ("1.1.0", [0.0310, 0.0067, -0.0044, 0.0475]),
            (self.on_rten("embedding/modelet.toml"), [0.0332, 0.0044, -0.0063, 0.0484]),
        ):
            np.testing.assert_allclose(self.vector(text, version)[:4], start, atol=1e-4)
        meal = self.vector("Someone is having a meal.", "1.0.0")
        market = self.vector("The stock market fell sharply today.", "1.0.0")
        eating = self.vector(text, "1.0.0")
        np.testing.assert_allclose([eating @ meal, eating @ market], [0.689, 0.004], atol=1e-3)

    def test_many_at_once_are_the_engines(self):
        def check(text):
            np.testing.assert_allclose(
                self.vector(text, "1.0.0"), self.reference(text), atol=TOLERANCE
            )

        self.check_all(check, sentences()[::2][:INPUTS])

    def test_many_at_once_are_the_engines_in_8_bits(self):
        def check(text):
            given, wanted = self.vector(text, "1.1.0"), self.reference_int8(text)
            np.testing.assert_allclose(given, wanted, atol=TOLERANCE)

        self.check_all(check, sentences()[1::2][:INPUTS])

    def test_a_batch_is_as_good_as_one_by_one(self):
        texts = sentences()[:16]
        answer = self.infer("embedding", [tensor("text", of_bytes(texts), "BYTES")], "1.0.0")
        wanted = np.stack([self.reference(text) for text in texts])
        np.testing.assert_allclose(answer.as_numpy("embedding"), wanted, atol=TOLERANCE)


class ImageClassifier(Example):
    """Pictures to labels."""

    @classmethod
    def setUpClass(cls):
        cls.graph = session("efficientnet-lite0.onnx")
        cls.labels = (FOLDER / "imagenet-labels.txt").read_text(encoding="utf-8").splitlines()

    def reference(self, picture):
        """The bare engine's five most likely labels and their shares."""
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        side = int(min(image.size) * 0.875)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        centre = image.crop((left, top, left + side, top + side))
        pixels = np.asarray(centre.resize((224, 224), Image.Resampling.BICUBIC), np.float32)
        given = ((pixels - 127) / 128).transpose(2, 0, 1)[None]
        logits = self.graph.run(None, {"image": np.ascontiguousarray(given)})[0][0]
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = np.argsort(-shares, kind="stable")[:5]
        return [self.labels[place] for place in best], shares[best]

    def answer(self, picture, version="1.0.0"):
        """The server's."""
        given = [tensor("image", of_bytes([picture]), "BYTES")]
        answer = self.infer("image-classifier", given, version)
        labels = [label.decode() for label in answer.as_numpy("label")]
        return labels, answer.as_numpy("probability")

    def test_known_answers(self):
        for version in ("1.0.0", self.on_rten("image-classifier/modelet.toml")):
            for name, label, share in (
                ("flower.jpg", "daisy", 0.327),
                ("camera-grey.jpg", "tripod", 0.938),
                ("coffee-palette.png", "espresso", 0.899),
            ):
                with self.subTest(picture=name, version=version):
                    labels, shares = self.answer((FOLDER / "pictures" / name).read_bytes(), version)
                    self.assertEqual(labels[0], label)
                    self.assertAlmostEqual(float(shares[0]), share, delta=0.01)

    def test_many_at_once_are_the_engines(self):
        # Parts of a photograph, each another picture, without loss.
        whole = Image.open(FOLDER / "pictures" / "chelsea.png").convert("RGB")

        def picture(number):
            left, top = number % 20, number // 20
            part = whole.crop((left, top, left + 250 + number % 7, top + 240 + number % 11))
            file = io.BytesIO()
            part.save(file, "PNG", compress_level=1)
            return file.getvalue()

        def check(given):
            (labels, shares), (wanted, known) = self.answer(given), self.reference(given)
            np.testing.assert_allclose(shares, known, atol=TOLERANCE)
            self.assertEqual(labels[0], wanted[0])

        self.check_all(check, map(picture, range(INPUTS)))

    def test_what_is_no_picture_is_the_callers_mistake(self):
        with self.assertRaisesRegex(InferenceServerException, "neither a JPEG nor a PNG"):
            self.answer(b"GIF89a")


class Recommender(Example):
    """Films to films."""

    @classmethod
    def setUpClass(cls):
        cls.graph = session("ease.onnx")
        cls.titles = (FOLDER / "ease-titles.txt").read_text(encoding="utf-8").splitlines()

    def answer(self, films, k, version="1.0.0"):
        """The server's titles and scores."""
        liked = of_bytes([self.titles[film] for film in films])
        given = [tensor("liked", liked, "BYTES"), tensor("k", np.array([k], np.int64), "INT64")]
        answer = self.infer("recommender", given, version)
        return [title.decode() for title in answer.as_numpy("title")], answer.as_numpy("score")

    def test_known_answers(self):
        for version in ("1.0.0", self.on_rten("recommender/modelet.toml")):
            titles, _ = self.answer([0, 1120], 4, version)
            names = ["Toy Story 2", "Monsters, Inc.", "Incredibles", "Shrek"]
            for title, name in zip(titles, names, strict=True):
                self.assertIn(name, title)

    def test_recall_is_as_published(self):
        metrics = json.loads((FOLDER / "ease-metrics.json").read_text())
        self.assertGreaterEqual(metrics["recall@20"], 0.34)

    def test_many_at_once_are_the_engines(self):
        random = np.random.default_rng(5)
        histories = [
            random.choice(len(self.titles), 1 + number % 12, replace=False)
            for number in range(INPUTS)
        ]

        def check(films):
            titles, scores = self.answer(films, 20)
            given = {"history": films[None].astype(np.int64), "k": np.array([20], np.int64)}
            known, best = self.graph.run(None, given)
            np.testing.assert_allclose(scores, known[0], atol=TOLERANCE)
            self.assertEqual(titles, [self.titles[film] for film in best[0]])

        self.check_all(check, histories)


class VoiceActivity(Example):
    """Sound to segments."""

    @classmethod
    def setUpClass(cls):
        cls.graph = session("silero-vad.onnx")
        cls.speech = np.fromfile(FOLDER / "speech.f32", "<f4")

    def reference(self, audio):
        """The bare engine's probability of each frame, one frame a run."""
        audio = np.pad(audio, (0, -len(audio) % FRAME))
        state = {"h": np.zeros((1, 1, 128), np.float32), "c": np.zeros((1, 1, 128), np.float32)}
        padded = np.pad(audio, (CONTEXT, 0))
        probabilities = []
        for start in range(0, len(audio), FRAME):
            frame = padded[None, start : start + CONTEXT + FRAME]
            speech, h, c = self.graph.run(None, {"input": frame} | state)
            state = {"h": h, "c": c}
            probabilities.append(speech.ravel()[0])
        return np.array(probabilities, np.float32)

    def answer(self, audio, version="1.0.0"):
        """The server's segments and probabilities."""
        answer = self.infer("voice-activity", [tensor("audio", audio, "FP32")], version)
        return answer.as_numpy("segments"), answer.as_numpy("probability")

    def test_known_answers(self):
        known = np.fromfile(FOLDER / "speech-probs.f32", "<f4")
        for version in ("1.0.0", self.on_rten("voice-activity/modelet.toml")):
            segments, probabilities = self.answer(self.speech, version)
            np.testing.assert_allclose(probabilities, known, atol=1e-3)
            # Frames 42 to 101, with 30 ms around them.
            np.testing.assert_allclose(segments[0], [1.314, 3.262], atol=1e-3)
            self.assertTrue((np.diff(segments.ravel()) >= 0).all())

    def test_many_at_once_are_the_engines(self):
        def check(number):
            start, length = 20_000 + 511 * number, 9_000 + 37 * number
            audio = self.speech[start : start + length]
            _, probabilities = self.answer(audio)
            np.testing.assert_allclose(probabilities, self.reference(audio), atol=1e-3)

        self.check_all(check, range(INPUTS))


if __name__ == "__main__":
    unittest.main()
