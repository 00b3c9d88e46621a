"""Reads a table out of a pickled pandas DataFrame, without pandas and without trusting the pickle.

The file is an xz-compressed pickle. As with checkpoints, the reader resolves the few names that a
plain table needs, to its own stand-ins, and refuses all others.
"""

import dataclasses
import io
import lzma
import pickle

import numpy as np

# The table the project reads has 6 MB; a small file could unpack to any size.
MAX_FRAME_BYTES = 1 << 28

# Types of the elements: NumPy's names, those of pickled objects being the last.
DTYPES = {"f8": np.dtype("<f8"), "i8": np.dtype("<i8"), "O8": np.dtype(object)}


class FrameError(Exception):
    """The file is no table this reader accepts; the message says what is wrong with it."""


def read_frame(data):
    """The columns of the table in `data` (bytes), as a dictionary from name to array of one axis.

    Raises FrameError for a file of another kind, or one that names anything outside the allow-list.
    """
    try:
        stream = lzma.LZMADecompressor()
        raw = stream.decompress(data, MAX_FRAME_BYTES)
        if not stream.eof:
            raise FrameError(f"torn, or more than {MAX_FRAME_BYTES} bytes when unpacked")
        return _FrameUnpickler(io.BytesIO(raw)).load().columns()
    except FrameError:
        raise
    except Exception as error:  # a torn pickle raises nearly anything: IndexError, EOFError, …
        raise FrameError(f"not a readable table: {type(error).__name__}: {error}") from error


class _FrameUnpickler(pickle.Unpickler):
    """An unpickler that knows nothing but the allow-list below."""

    def find_class(self, module, name):
        try:
            return ALLOWED[module, name]
        except KeyError:
            message = f"table names {module}.{name}, which is not on the allow-list"
            raise FrameError(message) from None


class _Dtype:
    """Stands for `numpy.dtype`; only those in DTYPES, as they are on a little-endian machine."""

    def __init__(self, name, *_flags):
        if name not in DTYPES:
            raise FrameError(f"unknown element type {name!r}")
        self.dtype = DTYPES[name]

    def __setstate__(self, state):
        if state[1] not in ("<", "|"):
            raise FrameError(f"elements of byte order {state[1]!r}")


class _Objects:
    """Stands for an array of objects; its elements lie in the pickle."""

    def __init__(self, *_empty):
        self.array = None

    def __setstate__(self, state):
        _version, shape, _dtype, in_columns, elements = state
        # Built element by element: NumPy would look for axes in elements that are lists.
        flat = np.empty(len(elements), object)
        for index, element in enumerate(elements):
            flat[index] = element
        self.array = flat.reshape(shape, order="F" if in_columns else "C")


@dataclasses.dataclass(frozen=True, slots=True)
class _Block:
    """Columns of one type, the values [columns, rows], and where they stand in the table."""

    values: object
    placement: object
    axes: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Blocks:
    """Stands for pandas' block manager: the blocks of a table, and its names and rows."""

    blocks: tuple
    axes: list


class _Frame:
    """Stands for a DataFrame."""

    def __setstate__(self, state):
        self.blocks = state["_mgr"]

    def columns(self):
        """The columns by name, in their order in the table."""
        names = list(_array(self.blocks.axes[0]))
        found = {}
        for block in self.blocks.blocks:
            values = _array(block.values)
            places = np.arange(len(names))[_place(block.placement)]
            if values.ndim != 2 or len(values) != len(places):
                raise FrameError("a block has more or fewer columns than places")
            found.update((names[place], column) for place, column in zip(places, values))
        missing = [name for name in names if name not in found]
        if missing or not all(isinstance(name, str) for name in names):
            raise FrameError(f"columns without values: {missing!r}")
        return {name: found[name] for name in names}


def _array(value):
    return value.array if isinstance(value, _Objects) else value


def _place(value):
    return value if isinstance(value, slice) else _array(value)


def _from_buffer(buffer, dtype, shape, order):
    if dtype.dtype == object:
        raise FrameError("objects in a buffer of bytes")
    return np.frombuffer(buffer, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


def _index(_kind, state):
    return state.get("data")


ALLOWED = {
    ("builtins", "slice"): slice,
    ("numpy", "dtype"): _Dtype,
    # Only a name in the arguments of what follows; the stand-ins never look at it.
    ("numpy", "ndarray"): "ndarray",
    ("numpy.core.multiarray", "_reconstruct"): _Objects,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("pandas._libs.internals", "_unpickle_block"): _Block,
    ("pandas.core.frame", "DataFrame"): _Frame,
    ("pandas.core.indexes.base", "Index"): "Index",
    ("pandas.core.indexes.base", "_new_Index"): _index,
    ("pandas.core.indexes.range", "RangeIndex"): "RangeIndex",
    ("pandas.core.internals.managers", "BlockManager"): _Blocks,
}
