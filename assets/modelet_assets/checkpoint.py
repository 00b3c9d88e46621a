"""Reads PyTorch checkpoints without PyTorch and without trusting them.

A checkpoint is a pickle, and a pickle can name any function of any module. This reader resolves
the few names that a plain state dictionary needs, to its own stand-ins, and refuses all others.
Both forms are read: the zip archive of PyTorch 1.6 and later, and the older stream of pickles.
"""

import collections
import dataclasses
import io
import pickle
import struct
import zipfile

import numpy as np

# First two pickles of the older form: its magic number and the only protocol it ever had.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

# A state dictionary of a model this project would serve stays far below this.
MAX_CHECKPOINT_BYTES = 1 << 30

STORAGE_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class CheckpointError(Exception):
    """The file is no checkpoint this reader accepts; the message says what is wrong with it."""


@dataclasses.dataclass(frozen=True, slots=True)
class StorageType:
    """Stands for one of PyTorch's storage classes."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """A run of elements of one type, kept outside the pickle under `key`."""

    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class TensorView:
    """A tensor as the pickle describes it: a strided view into a storage not yet read."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple


def read_checkpoint(data):
    """The tensors of the checkpoint in `data` (bytes), as a dictionary from name to array.

    Raises CheckpointError for a file of another kind, one that names anything outside the
    allow-list, or one whose tensors reach outside their storages.
    """
    if len(data) > MAX_CHECKPOINT_BYTES:
        raise CheckpointError(f"checkpoint has {len(data)} bytes, more than {MAX_CHECKPOINT_BYTES}")
    try:
        if zipfile.is_zipfile(io.BytesIO(data)):
            state, storages = _read_archive(data)
        else:
            state, storages = _read_legacy(data)
    except CheckpointError:
        raise
    except Exception as error:  # a torn pickle raises nearly anything: IndexError, EOFError, …
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"not a readable checkpoint: {reason}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"expected a state dictionary, found {type(state).__name__}")
    return {name: _materialise(name, view, storages) for name, view in state.items()}


class _StateUnpickler(pickle.Unpickler):
    """An unpickler that knows nothing but the allow-list below."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in STORAGE_DTYPES:
            return StorageType(name)
        raise CheckpointError(f"checkpoint names {module}.{name}, which is not on the allow-list")

    def persistent_load(self, pid):
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise CheckpointError(f"unknown persistent id {pid!r}")
        kind, key, count = pid[1], pid[2], pid[4]
        if not isinstance(kind, StorageType) or not isinstance(key, str):
            raise CheckpointError(f"storage {key!r} has no known element type")
        if len(pid) == 6 and pid[5] is not None:
            raise CheckpointError(f"storage {key!r} is a view of another one")
        if not _is_size(count):
            raise CheckpointError(f"storage {key!r} has a bad length {count!r}")
        return Storage(key, STORAGE_DTYPES[kind.name], count)


def _rebuild_tensor(storage, offset, shape, strides, *_autograd):
    if not isinstance(storage, Storage):
        raise CheckpointError("a tensor without a storage")
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or len(shape) != len(strides):
        raise CheckpointError(f"tensor in storage {storage.key!r} has a bad shape or strides")
    if not all(map(_is_size, (offset, *shape, *strides))):
        raise CheckpointError(f"tensor in storage {storage.key!r} has a negative or odd dimension")
    return TensorView(storage, offset, shape, strides)


def _is_size(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_archive(data):
    archive = zipfile.ZipFile(io.BytesIO(data))
    total = sum(entry.file_size for entry in archive.infolist())
    if total > MAX_CHECKPOINT_BYTES:
        limit = f"more than {MAX_CHECKPOINT_BYTES}"
        raise CheckpointError(f"checkpoint unpacks to {total} bytes, {limit}")
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(f"expected one data.pkl in the archive, found {len(pickles)}")
    root = pickles[0].removesuffix("data.pkl")
    if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
        raise CheckpointError("checkpoint is not little-endian")
    state = _StateUnpickler(io.BytesIO(archive.read(pickles[0]))).load()
    keys = [name.removeprefix(root + "data/") for name in archive.namelist()]
    return state, {key: archive.read(root + "data/" + key) for key in keys if "/" not in key}


def _read_legacy(data):
    stream = io.BytesIO(data)
    magic, protocol, system = (_StateUnpickler(stream).load() for _ in range(3))
    if (magic, protocol) != (LEGACY_MAGIC, LEGACY_PROTOCOL):
        raise CheckpointError("neither a zip archive nor the older checkpoint stream")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("checkpoint is not little-endian")
    unpickler = _StateUnpickler(stream)
    state = unpickler.load()
    keys = _StateUnpickler(stream).load()
    itemsizes = {view.storage.key: view.storage.dtype.itemsize for view in state.values()}
    storages = {}
    for key in keys:
        (count,) = struct.unpack("<q", stream.read(8))
        size = count * itemsizes[key]
        if not 0 <= size <= len(data) - stream.tell():
            raise CheckpointError(f"storage {key!r} reaches past the end of the file")
        storages[key] = stream.read(size)
    return state, storages


def _materialise(name, view, storages):
    if not isinstance(name, str) or not isinstance(view, TensorView):
        raise CheckpointError(f"entry {name!r} is no tensor")
    raw = storages.get(view.storage.key)
    if raw is None or len(raw) != view.storage.count * view.storage.dtype.itemsize:
        raise CheckpointError(f"tensor {name!r}: its storage is missing or has another length")
    elements = np.frombuffer(raw, view.storage.dtype)
    if 0 in view.shape:
        return np.empty(view.shape, view.storage.dtype)
    last = view.offset + sum((size - 1) * stride for size, stride in zip(view.shape, view.strides))
    if last >= len(elements):
        raise CheckpointError(f"tensor {name!r} reaches element {last} of {len(elements)}")
    # A stride of 0 repeats elements, so that a small file could ask for an array of any size.
    if np.prod(view.shape, dtype=object) > len(elements):
        raise CheckpointError(f"tensor {name!r} has more elements than its storage")
    byte_strides = [stride * elements.itemsize for stride in view.strides]
    start = elements[view.offset :]
    return np.lib.stride_tricks.as_strided(start, view.shape, byte_strides).copy()
