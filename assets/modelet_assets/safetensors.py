"""Reads safetensors files: an 8-byte length, a JSON header of names, then the raw elements."""

import json
import math
import struct

import numpy as np

from .checkpoint import MAX_CHECKPOINT_BYTES, CheckpointError

# A header far beyond what a state dictionary needs is no header.
MAX_HEADER_BYTES = 1 << 24

DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I64": np.dtype("<i8")}


def read_safetensors(data):
    """The tensors of the file in `data` (bytes), as a dictionary from name to array.

    Raises CheckpointError for a torn file, an unknown element type, or a tensor whose bytes are
    not exactly what its shape needs.
    """
    if len(data) > MAX_CHECKPOINT_BYTES:
        raise CheckpointError(f"checkpoint has {len(data)} bytes, more than {MAX_CHECKPOINT_BYTES}")
    if len(data) < 8:
        raise CheckpointError("not a safetensors file: shorter than its header's length")
    (length,) = struct.unpack_from("<Q", data)
    if length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise CheckpointError(f"not a safetensors file: a header of {length} bytes")
    try:
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        entries = [(name, *_entry(entry)) for name, entry in header.items()]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"not a readable safetensors header: {reason}") from error
    body = memoryview(data)[8 + length :]
    return {name: _tensor(name, body, *entry) for name, *entry in entries}


def _entry(entry):
    begin, end = entry["data_offsets"]
    return entry["dtype"], tuple(entry["shape"]), begin, end


def _tensor(name, body, dtype, shape, begin, end):
    if dtype not in DTYPES:
        raise CheckpointError(f"tensor {name!r} has elements of the unknown type {dtype!r}")
    if not all(type(size) is int and size >= 0 for size in (*shape, begin, end)):
        raise CheckpointError(f"tensor {name!r} has a negative or odd dimension")
    size = math.prod(shape) * DTYPES[dtype].itemsize
    if end > len(body) or end - begin != size:
        raise CheckpointError(f"tensor {name!r} needs {size} bytes and has {begin} to {end}")
    return np.frombuffer(body[begin:end], DTYPES[dtype]).reshape(shape)
