"""The example models' inputs and the bare engine's answers, as `cargo xtask setup` made them."""

import json
import os
import pathlib

import numpy as np

FOLDER = pathlib.Path(os.environ["MODELET_MODELS"])
URL = os.environ["MODELET_SERVER"]
ADDRESS = URL.removeprefix("http://")

# How far an answer may be from the bare engine's.
TOLERANCE = 1e-4

MODELS = {"mnist": [1, 28, 28], "efficientnet-lite0": [3, 224, 224]}
CLASSES = {"mnist": 10, "efficientnet-lite0": 1000}

_INDEX = json.loads((FOLDER / "index.json").read_text())["tensors"]


def load(name):
    """A listed tensor."""
    entry = _INDEX[name]
    dtype = {"FP32": "<f4", "UINT8": "u1"}[entry["datatype"]]
    return np.fromfile(FOLDER / entry["file"], dtype).reshape(entry["shape"])
