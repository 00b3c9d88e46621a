"""The picture files: their forms, and tensors that are the definition's."""

import io
import json
import unittest

import numpy as np
from PIL import Image

from modelet_assets import inputs, pictures
from modelet_assets.sources import Sources

from . import folders
from .folders import load

FORMS = {
    "flower.jpg": ("JPEG", "RGB", (640, 427)),
    "hubble.jpg": ("JPEG", "RGB", (1000, 872)),
    "camera-grey.jpg": ("JPEG", "L", (512, 512)),
    "astronaut-tall.jpg": ("JPEG", "RGB", (170, 512)),
    "chelsea.png": ("PNG", "RGB", (451, 300)),
    "horse-alpha.png": ("PNG", "RGBA", (400, 328)),
    "coins-grey.png": ("PNG", "L", (384, 303)),
    "coffee-palette.png": ("PNG", "P", (600, 400)),
    "text-wide.png": ("PNG", "L", (448, 172)),
    "eye-small.png": ("PNG", "L", (102, 102)),
}


class Pictures(unittest.TestCase):
    """Ten files of ten forms, each with its tensor."""

    def test_the_files_have_their_forms(self):
        index = json.loads((folders.models() / "index.json").read_text())
        self.assertEqual(index["pictures"], [f"pictures/{name}" for name in FORMS])
        for name, form in FORMS.items():
            with Image.open(folders.models() / "pictures" / name) as image:
                self.assertEqual((image.format, image.mode, image.size), form, name)

    def test_a_second_making_gives_the_same_bytes(self):
        sources = Sources(folders.PINS, folders.downloads())
        for picture in pictures.PICTURES:
            file = folders.models() / "pictures" / picture.name
            self.assertEqual(picture.read(sources), file.read_bytes(), picture.name)

    def test_the_tensors_are_the_definitions(self):
        for name in FORMS:
            with self.subTest(picture=name):
                data = (folders.models() / "pictures" / name).read_bytes()
                tensor = load("pictures/" + name.rsplit(".", 1)[0])
                self.assertEqual(tensor.shape, (3, 224, 224))
                np.testing.assert_array_equal(tensor, inputs.read_photograph(data)[0])

    def test_alpha_is_dropped_and_grey_is_repeated(self):
        data = (folders.models() / "pictures/horse-alpha.png").read_bytes()
        colours = Image.open(io.BytesIO(data)).getchannel("R")
        stream = io.BytesIO()
        colours.save(stream, "PNG")
        red = inputs.read_photograph(stream.getvalue())[0]
        np.testing.assert_array_equal(red[0], load("pictures/horse-alpha")[0])
        grey = load("pictures/coins-grey")
        np.testing.assert_array_equal(grey[0], grey[1])
        np.testing.assert_array_equal(grey[0], grey[2])
