"""Voice activity: the contract of the ready-made graph, and speech told from silence."""

import unittest

import numpy as np

from modelet_assets import engine, graph, speech

from . import folders
from .folders import load

# The silence before and after the recording, in frames.
SILENT_FRAMES = speech.SILENCE // speech.FRAME


class VoiceActivity(unittest.TestCase):
    """The graph is what its contract says, and hears where there is speech."""

    def test_shapes_and_names_are_the_contract(self):
        inputs, outputs = graph.describe(folders.graph("silero-vad"))
        shapes = {port["name"]: port["shape"] for port in inputs + outputs}
        state = list(speech.STATE)
        window = [-1, speech.CONTEXT + speech.FRAME]
        expected = {"input": window, "h": state, "c": state, "hn": state, "cn": state}
        self.assertEqual(shapes, {**expected, "speech_probs": [-1]})
        self.assertEqual({port["datatype"] for port in inputs + outputs}, {"FP32"})

    def test_speech_is_told_from_silence(self):
        samples, answers = load("speech"), load("speech-probs")
        self.assertEqual((samples.shape, answers.shape), ((208_896,), (408,)))
        self.assertLess(answers[:SILENT_FRAMES].max(), 0.05)
        self.assertLess(answers[-SILENT_FRAMES:].max(), 0.05)
        self.assertGreater((answers > 0.5).sum(), 200)

    def test_the_answers_are_the_engines(self):
        again = speech.probabilities(folders.graph("silero-vad"), load("speech"))
        np.testing.assert_allclose(again, load("speech-probs"), atol=1e-4)

    def test_frames_run_together_answer_as_one_by_one(self):
        samples = load("speech")[: 64 * speech.FRAME]
        contexts = np.concatenate([np.zeros(speech.CONTEXT, np.float32), samples])
        width = speech.CONTEXT + speech.FRAME
        windows = np.lib.stride_tricks.sliding_window_view(contexts, width)[:: speech.FRAME]
        state = np.zeros(speech.STATE, np.float32)
        feeds = {"input": np.ascontiguousarray(windows), "h": state, "c": state}
        answers = engine.session(folders.graph("silero-vad")).run(["speech_probs"], feeds)[0]
        np.testing.assert_allclose(answers, load("speech-probs")[:64], atol=1e-4)
