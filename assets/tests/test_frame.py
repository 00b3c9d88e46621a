"""The reader of pickled tables: the real one read, everything outside the allow-list refused."""

import lzma
import pickle
import unittest

import numpy as np

from modelet_assets import frame, recommender
from modelet_assets.frame import FrameError, read_frame
from modelet_assets.sources import Sources

from . import folders
from .test_checkpoint import Call, Global, pickled


def packed(value):
    """The value as a compressed pickle."""
    return lzma.compress(pickled(value))


class ReadsTheTable(unittest.TestCase):
    """The table of ratings is what its publisher says it is."""

    def test_the_ratings_are_all_there(self):
        package = Sources(folders.PINS, folders.downloads()).open("movielens-ratings")
        table = read_frame(package.read(recommender.RATINGS))
        names = ["rownames", "movieId", "title", "year", "genres", "userId", "rating", "timestamp"]
        self.assertEqual(list(table), names)
        self.assertEqual({len(column) for column in table.values()}, {100_004})
        self.assertEqual(len(np.unique(table["userId"])), 671)
        self.assertEqual(len(np.unique(table["movieId"])), 9_066)
        self.assertEqual((table["rating"].min(), table["rating"].max()), (0.5, 5.0))
        first = (table["userId"][0], table["movieId"][0], table["title"][0], table["year"][0])
        self.assertEqual(first, (1, 31, "Dangerous Minds", 1995))


class RefusesTheRest(unittest.TestCase):
    """A hostile or broken file is an error, never code."""

    def refuses(self, data, message):
        """Asserts that reading fails with a message that says this."""
        with self.assertRaisesRegex(FrameError, message):
            read_frame(data)

    def test_every_other_global_is_refused_by_name(self):
        for module, name in (
            ("os", "system"),
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("numpy", "load"),
            ("pandas.core.frame", "read_pickle"),
        ):
            with self.subTest(name=name):
                value = Call(Global(module, name), "true")
                self.refuses(packed(value), f"{module}.{name}, which is not on the allow-list")

    def test_a_value_that_is_no_table_is_refused(self):
        for value in (3, [1], Global("numpy", "ndarray"), Call(Global("builtins", "slice"), 1)):
            self.refuses(packed(value), "not a readable table")

    def test_elements_of_other_types_are_refused(self):
        for name in ("f4", "V8", "O16"):
            self.refuses(packed(Call(Global("numpy", "dtype"), name, False, True)), "element type")
        objects = Call(Global("numpy", "dtype"), "O8", False, True)
        buffer = Global("numpy.core.numeric", "_frombuffer")
        self.refuses(packed(Call(buffer, "8 bytes.", objects, (1,), "C")), "objects in a buffer")

    def test_a_torn_or_endless_file_is_refused(self):
        whole = packed([0] * 100)
        for length in range(0, len(whole), 7):
            with self.subTest(length=length), self.assertRaises(FrameError):
                read_frame(whole[:length])
        self.refuses(pickle.dumps([]), "not a readable table")
        limit, frame.MAX_FRAME_BYTES = frame.MAX_FRAME_BYTES, 1000
        try:
            self.refuses(lzma.compress(bytes(2000)), "more than 1000 bytes")
        finally:
            frame.MAX_FRAME_BYTES = limit
