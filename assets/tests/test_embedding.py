"""The sentence embedding: known answers, as float32 and as int8, and the reference token ids."""

import json
import unittest

import numpy as np

from modelet_assets import engine, minilm, sentences
from modelet_assets.safetensors import read_safetensors
from modelet_assets.sources import Sources

from . import folders

# "A man is eating food."
FOOD = [101, 1037, 2158, 2003, 5983, 2833, 1012, 102]


class Embedding(unittest.TestCase):
    """Both graphs embed as the published model does."""

    @classmethod
    def setUpClass(cls):
        cls.exact = engine.session(folders.graph("minilm"))
        cls.small = engine.session(folders.graph("minilm-int8"))
        tokenizer = (folders.models() / "minilm-tokenizer.json").read_text()
        cls.ids = staticmethod(lambda text: sentences.token_ids(tokenizer, [text])[0])

    def embed(self, ids, padding=0):
        """The float32 model's vector of one text, optionally padded."""
        mask = [1] * len(ids) + [0] * padding
        feeds = {"input_ids": [ids + [0] * padding], "attention_mask": [mask]}
        feeds = {name: np.array(value, np.int64) for name, value in feeds.items()}
        return self.exact.run(["embedding"], feeds)[0][0]

    def embed_small(self, ids):
        """The int8 model's vector of one text, pooled here."""
        ones = np.ones((1, len(ids)), np.int64)
        feeds = {"input_ids": np.array([ids], np.int64), "attention_mask": ones}
        feeds["token_type_ids"] = 0 * ones
        mean = self.small.run(["last_hidden_state"], feeds)[0][0].mean(axis=0)
        return mean / np.linalg.norm(mean)

    def test_a_sentence_has_the_published_vector(self):
        vector = self.embed(FOOD)
        np.testing.assert_allclose(vector[:4], [0.0332, 0.0044, -0.0063, 0.0484], atol=2e-4)
        self.assertAlmostEqual(float(np.linalg.norm(vector)), 1, places=5)

    def test_int8_is_near_to_float32(self):
        small = self.embed_small(FOOD)
        np.testing.assert_allclose(small[:4], [0.0310, 0.0067, -0.0044, 0.0475], atol=2e-4)
        self.assertGreaterEqual(float(small @ self.embed(FOOD)), 0.999)

    def test_padding_changes_nothing(self):
        np.testing.assert_allclose(self.embed(FOOD, padding=9), self.embed(FOOD), atol=1e-6)
        self.assertTrue(np.isfinite(self.embed([], padding=3)).all())

    def test_near_meanings_have_near_vectors(self):
        for first, second, expected in (
            ("A man is eating food.", "Someone is having a meal.", 0.689),
            ("A man is eating food.", "The stock market fell sharply today.", 0.004),
            ("How do I reset my password?", "I forgot my login credentials.", 0.637),
        ):
            with self.subTest(second=second):
                cosine = self.embed(self.ids(first)) @ self.embed(self.ids(second))
                self.assertAlmostEqual(float(cosine), expected, delta=1e-3)

    def test_a_second_conversion_gives_the_same_bytes(self):
        package = Sources(folders.PINS, folders.downloads()).open("minilm-checkpoint")
        tensors = read_safetensors(package.read(minilm.CHECKPOINT))
        self.assertEqual(minilm.convert(tensors), folders.graph("minilm"))


class Sentences(unittest.TestCase):
    """The sentences are many and the ids are the reference's."""

    @classmethod
    def setUpClass(cls):
        # Not by `splitlines`, which takes more for the end of a line than a line feed.
        lines = (folders.models() / "sentences.txt").read_bytes().decode().split("\n")
        cls.texts = lines[:-1]
        cls.ids = json.loads((folders.models() / "sentences-ids.json").read_text())

    def test_five_hundred_texts_are_distinct(self):
        self.assertEqual(self.texts, sentences.sentences())
        self.assertEqual((len(set(self.texts)), len(self.ids)), (500, 500))

    def test_every_variation_is_there(self):
        for vary in sentences.VARIATIONS:
            found = {vary(text, other) for text in sentences.BASES for other in sentences.BASES}
            self.assertGreater(len(found.intersection(self.texts)), 40, vary.__name__)

    def test_the_ids_are_framed_and_cut(self):
        lengths = list(map(len, self.ids))
        self.assertEqual((min(lengths) >= 3, max(lengths)), (True, sentences.MAX_TOKENS))
        self.assertGreater(lengths.count(sentences.MAX_TOKENS), 30)
        self.assertEqual({(row[0], row[-1]) for row in self.ids}, {(101, 102)})

    def test_the_ids_are_those_of_the_vocabulary(self):
        vocabulary = (folders.models() / "minilm-vocab.txt").read_text().split("\n")
        self.assertEqual(self.ids[self.texts.index("A man is eating food.")], FOOD)
        greeting = "Die Grüße aus München kamen schon früh über die Straße."
        words = self.ids[self.texts.index(greeting)]
        expected = "[CLS] die gr ##u ##ße aus munchen"
        self.assertEqual([vocabulary[word] for word in words[:7]], expected.split())
        special = [vocabulary[word] for word in (0, 100, 101, 102)]
        self.assertEqual(special, ["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
