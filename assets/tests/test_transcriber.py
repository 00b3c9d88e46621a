"""The transcriber's graphs: the same as the engine's own format, of plain operators, and the same bytes
again."""

import unittest

import numpy as np
import onnx

from modelet_assets import engine, graph, moonshine
from modelet_assets.checkpoint import CheckpointError
from modelet_assets.ort_format import read_ort
from modelet_assets.sources import SourceError, Sources

from . import folders

LAYERS = [f"{layer}.{part}" for layer in range(6) for part in ("decoder", "encoder")]
CACHES = [f"{layer}.{kind}" for layer in LAYERS for kind in ("key", "value")]


def feeds(heard, samples):
    """What the decoder is given first."""
    nothing = np.zeros((1, 8, 0, 36), np.float32)
    return {
        "encoder_attention_mask": np.ones((1, samples), np.int64),
        "input_ids": np.array([[moonshine.BEGIN]], np.int64),
        "encoder_hidden_states": heard,
        "use_cache_branch": np.array([False]),
        **{f"past_key_values.{name}": nothing for name in CACHES},
    }


class Moonshine(unittest.TestCase):
    """What is converted is what was published."""

    @classmethod
    def setUpClass(cls):
        cls.package = Sources(folders.PINS, folders.downloads()).open("moonshine-graphs")
        cls.files = {"encoder": moonshine.ENCODER, "decoder": moonshine.DECODER}
        cls.plain = {name: folders.graph(f"moonshine-{name}") for name in cls.files}

    def test_the_plain_graphs_answer_as_those_of_the_engine(self):
        samples = folders.load("speech")[None, 32_000:64_000]
        given = {"input_values": samples, "attention_mask": np.ones_like(samples, np.int64)}
        own, plain = (
            {name: engine.session(data) for name, data in graphs.items()}
            for graphs in (
                {name: self.package.read(file) for name, file in self.files.items()},
                self.plain,
            )
        )
        heard = [each["encoder"].run(None, given)[0] for each in (own, plain)]
        # The engine's own operators round what comes in to 8 bits, others at other places.
        self.assertLess(np.abs(heard[1] - heard[0]).mean(), 0.05)
        first, second = (
            each["decoder"].run(["logits"], feeds(heard[0], samples.shape[1]))[0]
            for each in (own, plain)
        )
        self.assertEqual(second.argmax(), first.argmax())
        self.assertLess(np.abs(second - first).mean(), 0.2)

    def test_all_operators_are_plain(self):
        for name, data in self.plain.items():
            model = onnx.load_from_string(data)
            self.assertEqual([opset.domain for opset in model.opset_import], [""], name)

    def test_shapes_and_names_are_the_contract(self):
        inputs, outputs = graph.describe(self.plain["decoder"])
        names = {port["name"] for port in inputs}
        self.assertEqual(names, set(feeds(None, 1)))
        self.assertEqual(outputs[0], {"name": "logits", "datatype": "FP32", "shape": [-1, -1, 32768]})
        self.assertEqual({port["name"] for port in outputs[1:]}, {f"present.{n}" for n in CACHES})
        inputs, outputs = graph.describe(self.plain["encoder"])
        self.assertEqual([port["shape"] for port in inputs], [[-1, -1], [-1, -1]])
        self.assertEqual([port["shape"] for port in outputs], [[-1, -1, 288]])

    def test_a_second_conversion_gives_the_same_bytes(self):
        for name, file in self.files.items():
            self.assertEqual(read_ort(self.package.read(file)), self.plain[name], name)

    def test_another_file_is_refused(self):
        for data in (b"", b"12345678", self.plain["encoder"]):
            with self.assertRaisesRegex(CheckpointError, "not a file of"):
                read_ort(data)

    def test_tokens_are_as_many_as_scores(self):
        tokens = moonshine.read_tokens((folders.models() / "moonshine-tokens.bin").read_bytes())
        self.assertEqual(len(tokens), 32_768)
        self.assertEqual(tokens[moonshine.BEGIN], b"<s>")
        self.assertEqual(tokens[moonshine.END], b"</s>")
        spelt = [token for token in tokens if token.startswith(moonshine.SPACE.encode())]
        self.assertGreater(len(spelt), 10_000)

    def test_transcripts_have_no_marks(self):
        text = "<s> one two </s> (clip-1)\nthree (clip-2)"
        self.assertEqual(
            moonshine.read_transcripts(text), {"clip-1": ["one", "two"], "clip-2": ["three"]}
        )

    def test_a_debian_package_has_its_files(self):
        clips = Sources(folders.PINS, folders.downloads()).open("librivox-clips")
        recording = clips.read(f"{moonshine.CLIPS}/fileids").decode().split()[0]
        self.assertTrue(clips.read(f"{moonshine.CLIPS}/{recording}.wav").startswith(b"RIFF"))
        with self.assertRaisesRegex(SourceError, "has no file ./usr/nothing"):
            clips.read("./usr/nothing")


if __name__ == "__main__":
    unittest.main()
