"""The language model: known next tokens, a known continuation, and texts cut as in training."""

import json
import unittest

import numpy as np
from tokenizers import Tokenizer

from modelet_assets import engine, graph, sentences, smollm2
from modelet_assets.gguf import read_gguf
from modelet_assets.sources import Sources

from . import folders

# What the model says of these is sure by more than two logits.
NEXT = {
    "The capital of France is": (7042, " Paris"),
    "The opposite of hot is": (4011, " cold"),
    "Water freezes at 0 degrees": (20590, " Celsius"),
}
LAW = "The first law of thermodynamics states that"
CONTINUATION = (
    " energy cannot be created or destroyed, only converted from one form to another."
)


class Chat(unittest.TestCase):
    """The graph goes on with texts as the published model does."""

    @classmethod
    def setUpClass(cls):
        cls.session = engine.session(folders.graph("smollm2"))
        text = (folders.models() / "smollm2-tokenizer.json").read_text(encoding="utf-8")
        cls.tokenizer = Tokenizer.from_str(text)

    def run_on(self, ids, cache=None):
        """Scores behind the last of the ids, and the cache that is left."""
        shape = (smollm2.LAYERS, 1, smollm2.SHARED_HEADS, 0, smollm2.HEAD_SIZE)
        keys, values = cache or [np.zeros(shape, np.float32)] * 2
        feeds = {"input_ids": np.array([ids], np.int64), "past_k": keys, "past_v": values}
        logits, *cache = self.session.run(["logits", "present_k", "present_v"], feeds)
        return logits[0], cache

    def test_next_tokens_are_known(self):
        for text, (token, spelt) in NEXT.items():
            with self.subTest(text=text):
                logits, _ = self.run_on(self.tokenizer.encode(text).ids)
                second, first = np.sort(logits)[-2:]
                self.assertEqual((logits.argmax(), self.tokenizer.decode([token])), (token, spelt))
                self.assertGreater(first - second, 2)

    def test_it_goes_on_with_its_cache(self):
        logits, cache = self.run_on(self.tokenizer.encode(LAW).ids)
        ids = []
        while len(ids) < 15:
            ids.append(int(logits.argmax()))
            logits, cache = self.run_on(ids[-1:], cache)
        self.assertEqual(self.tokenizer.decode(ids), CONTINUATION)
        # 46,080 bytes a position.
        positions = len(self.tokenizer.encode(LAW).ids) + len(ids)
        self.assertEqual(sum(part.nbytes for part in cache), positions * 46_080)

    def test_a_prompt_in_parts_is_one_prompt(self):
        ids = self.tokenizer.encode(LAW).ids
        whole, (keys, values) = self.run_on(ids)
        _, cache = self.run_on(ids[:3])
        parts, (other_keys, other_values) = self.run_on(ids[3:], cache)
        np.testing.assert_allclose(parts, whole, atol=1e-3)
        np.testing.assert_allclose(other_keys, keys, atol=1e-3)
        np.testing.assert_allclose(other_values, values, atol=1e-3)

    def test_rows_of_a_batch_know_nothing_of_each_other(self):
        texts = [self.tokenizer.encode(text).ids for text in list(NEXT)[:2]]
        shape = (smollm2.LAYERS, 2, smollm2.SHARED_HEADS, 0, smollm2.HEAD_SIZE)
        empty = np.zeros(shape, np.float32)
        feeds = {"input_ids": np.array(texts, np.int64), "past_k": empty, "past_v": empty}
        together = self.session.run(["logits"], feeds)[0]
        for row, ids in zip(together, texts, strict=True):
            np.testing.assert_allclose(row, self.run_on(ids)[0], atol=1e-3)

    def test_shapes_and_names_are_the_contract(self):
        inputs, outputs = graph.describe(folders.graph("smollm2"))
        shapes = {port["name"]: port["shape"] for port in inputs + outputs}
        cache = [30, -1, 3, -1, 64]
        caches = dict.fromkeys(("past_k", "past_v", "present_k", "present_v"), cache)
        self.assertEqual(shapes, {"input_ids": [-1, -1], "logits": [-1, 49152], **caches})

    def test_a_second_conversion_gives_the_same_bytes(self):
        package = Sources(folders.PINS, folders.downloads()).open("smollm2-checkpoint")
        metadata, tensors = read_gguf(package.read(smollm2.CHECKPOINT))
        self.assertEqual(smollm2.convert(tensors), folders.graph("smollm2"))
        text = (folders.models() / "smollm2-tokenizer.json").read_bytes()
        self.assertEqual(smollm2.tokenizer(metadata).encode(), text)

    def test_texts_come_back_from_their_tokens(self):
        for text in sentences.sentences():
            self.assertEqual(self.tokenizer.decode(self.tokenizer.encode(text).ids), text)
        digits = self.tokenizer.encode("2024").ids
        self.assertEqual([self.tokenizer.decode([id]) for id in digits], ["2", "0", "2", "4"])
        rows = json.loads((folders.models() / "smollm2-sentences-ids.json").read_text())
        encoded = [encoding.ids for encoding in self.tokenizer.encode_batch(sentences.sentences())]
        self.assertEqual(rows, encoded)

    def test_a_conversation_has_the_models_own_tokens(self):
        ids = self.tokenizer.encode("<|im_start|>user\nHi<|im_end|>\n").ids
        self.assertEqual((ids[0], ids[-2]), (1, 2))
        self.assertNotIn(1, ids[1:])


if __name__ == "__main__":
    unittest.main()
