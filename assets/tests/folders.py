"""Where the tests find the downloads and the finished models: set by `cargo xtask test`."""

import os
import pathlib

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
