"""Where the tests find the downloads and the finished models: set by `cargo xtask test`."""

import json
import os
import pathlib

import numpy as np

PINS = pathlib.Path(__file__).parents[1] / "pins.json"


def _cache():
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "modelet"


def downloads():
    """The folder of pinned downloads."""
    return pathlib.Path(os.environ.get("MODELET_DOWNLOADS") or _cache() / "downloads")


def models():
    """The finished folder of models."""
    return pathlib.Path(os.environ.get("MODELET_MODELS") or _cache() / "models")


def graph(name):
    """The bytes of a graph of the finished folder."""
    return (models() / f"{name}.onnx").read_bytes()


def load(name):
    """A listed tensor of the finished folder."""
    index = json.loads((models() / "index.json").read_text())
    entry = index["tensors"][name]
    dtype = {"FP32": "<f4", "UINT8": "u1"}[entry["datatype"]]
    return np.fromfile(models() / entry["file"], dtype).reshape(entry["shape"])
