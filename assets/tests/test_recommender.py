"""The recommender: known recommendations, its graph's contract, its scores on held-out people."""

import json
import unittest

import numpy as np
import onnx

from modelet_assets import engine, recommender
from modelet_assets.sources import Sources

from . import folders

TOY_STORY, STAR_WARS, FINDING_NEMO = 0, 96, 1120
FILMS = 1448


class Recommender(unittest.TestCase):
    """The trained model recommends what people who liked the same films liked."""

    @classmethod
    def setUpClass(cls):
        cls.session = engine.session(folders.graph("ease"))
        text = (folders.models() / "ease-titles.txt").read_text()
        cls.titles = text.removesuffix("\n").split("\n")

    def top(self, histories, count):
        """Scores and ids, each [people, count]."""
        feeds = {"history": np.array(histories, np.int64), "k": np.array([count], np.int64)}
        return self.session.run(["top_scores", "top_ids"], feeds)

    def test_films_of_a_kind_are_recommended(self):
        for history, expected in (
            (
                [TOY_STORY, FINDING_NEMO],
                [
                    "Toy Story 2 (1999)",
                    "Monsters, Inc. (2001)",
                    "Incredibles, The (2004)",
                    "Shrek (2001)",
                ],
            ),
            (
                [STAR_WARS],
                [
                    "Star Wars: Episode V - The Empire Strikes Back (1980)",
                    "Star Wars: Episode VI - Return of the Jedi (1983)",
                ],
            ),
        ):
            scores, ids = self.top([history], len(expected))
            self.assertEqual([self.titles[film] for film in ids[0]], expected)
            self.assertTrue((np.diff(scores[0]) < 0).all())

    def test_padding_and_company_change_nothing(self):
        alone = self.top([[STAR_WARS]], 5)
        scores, ids = self.top([[TOY_STORY, FINDING_NEMO, 5], [STAR_WARS, FILMS, FILMS]], 5)
        np.testing.assert_array_equal(ids[1], alone[1][0])
        np.testing.assert_allclose(scores[1], alone[0][0], atol=1e-6)

    def test_seen_films_come_last_and_padding_never(self):
        scores, ids = self.top([[TOY_STORY, TOY_STORY, FINDING_NEMO, FILMS]], FILMS)
        self.assertEqual(sorted(ids[0]), list(range(FILMS)))
        self.assertEqual(set(ids[0][-2:]), {TOY_STORY, FINDING_NEMO})
        np.testing.assert_array_equal(scores[0][-2:], recommender.SEEN_SCORE)
        self.assertGreater(scores[0][-3], -1)

    def test_held_out_films_are_found(self):
        metrics = json.loads((folders.models() / "ease-metrics.json").read_text())
        self.assertEqual(metrics["people"], 115)
        self.assertGreaterEqual(metrics["recall@20"], 0.34)
        self.assertGreaterEqual(metrics["ndcg@20"], 0.28)
        self.assertGreaterEqual(metrics["hit@10"], 0.75)

    def test_a_second_training_gives_the_same_model(self):
        package = Sources(folders.PINS, folders.downloads()).open("movielens-ratings")
        likes = recommender.read_likes(package.read(recommender.RATINGS))
        self.assertEqual((likes.matrix.shape, likes.matrix.sum()), ((671, FILMS), 47_912))
        self.assertEqual(likes.titles, self.titles)
        weights = recommender.train(likes.matrix)
        stored = onnx.load_from_string(folders.graph("ease")).graph.initializer
        (stored,) = (tensor for tensor in stored if tensor.name == "weights")
        # The solver may round its last bits otherwise on another number of threads.
        np.testing.assert_allclose(onnx.numpy_helper.to_array(stored)[:-1], weights, atol=1e-6)
        metrics = json.loads((folders.models() / "ease-metrics.json").read_text())
        self.assertEqual(recommender.evaluate(likes.matrix), metrics)
