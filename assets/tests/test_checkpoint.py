"""The checkpoint reader: both forms read, everything outside the allow-list refused."""

import collections
import io
import pickle
import struct
import unittest
import zipfile

import numpy as np

from modelet_assets import checkpoint
from modelet_assets.checkpoint import CheckpointError, read_checkpoint


class Global:
    """Pickles as a reference to the named global, as PyTorch's own objects do."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickles as the call of a global with arguments."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class Stored:
    """Pickles as a persistent id."""

    def __init__(self, *pid):
        self.pid = pid


class CheckpointPickler(pickle._Pickler):
    """Writes what PyTorch writes, with names of modules that are not installed here."""

    def persistent_id(self, value):
        return value.pid if isinstance(value, Stored) else None

    def save_named(self, value):
        """A global as the opcode of protocol 2."""
        self.write(f"c{value.module}\n{value.name}\n".encode())

    def save_call(self, value):
        """A global, its arguments, and the opcode that calls it."""
        self.save(value.function)
        self.save(tuple(value.arguments))
        self.write(pickle.REDUCE)

    dispatch = dict(pickle._Pickler.dispatch)
    dispatch[Global] = save_named
    dispatch[Call] = save_call


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
FLOAT = Global("torch", "FloatStorage")


def tensor(key="0", count=6, shape=(2, 3), strides=(3, 1), offset=0, storage=FLOAT):
    """A float tensor as PyTorch pickles it."""
    place = Stored("storage", storage, key, "cpu", count)
    hooks = Call(Global("collections", "OrderedDict"))
    return Call(REBUILD, place, offset, shape, strides, False, hooks)


def pickled(value):
    """The bytes of one pickle."""
    stream = io.BytesIO()
    CheckpointPickler(stream, 2).dump(value)
    return stream.getvalue()


def archive(state, storages=None, **extra):
    """A checkpoint in the zip form."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("model/data.pkl", pickled(state))
        for key, values in (storages or {"0": np.arange(6, dtype="<f4")}).items():
            file.writestr(f"model/data/{key}", values.tobytes())
        for name, text in extra.items():
            file.writestr(f"model/{name}", text)
    return stream.getvalue()


def legacy(state, storages):
    """A checkpoint in the older form."""
    head = [checkpoint.LEGACY_MAGIC, checkpoint.LEGACY_PROTOCOL, {"little_endian": True}]
    body = b"".join(map(pickled, [*head, state, list(storages)]))
    for values in storages.values():
        body += struct.pack("<q", values.size) + values.tobytes()
    return body


class ReadsBothForms(unittest.TestCase):
    """What PyTorch writes comes back as arrays."""

    def test_the_zip_form_gives_the_stored_tensors(self):
        state = {"weight": tensor(), "second": tensor(key="1", count=2, shape=(2,), strides=(1,))}
        second = np.array([7, 8], "<f4")
        read = read_checkpoint(archive(state, {"0": np.arange(6, dtype="<f4"), "1": second}))
        np.testing.assert_array_equal(read["weight"], np.arange(6).reshape(2, 3))
        np.testing.assert_array_equal(read["second"], second)

    def test_the_older_form_gives_the_stored_tensors(self):
        long = tensor("9", 1, (), (), storage=Global("torch", "LongStorage"))
        storages = {"9": np.array([5], "<i8"), "0": np.arange(6, dtype="<f4")}
        read = read_checkpoint(legacy({"weight": tensor(), "steps": long}, storages))
        np.testing.assert_array_equal(read["weight"], np.arange(6).reshape(2, 3))
        self.assertEqual(read["steps"].shape, ())
        self.assertEqual(read["steps"], 5)

    def test_a_transposed_view_keeps_its_strides(self):
        read = read_checkpoint(archive({"weight": tensor(shape=(3, 2), strides=(1, 3))}))
        np.testing.assert_array_equal(read["weight"], np.arange(6).reshape(2, 3).T)

    def test_an_ordered_dictionary_is_a_state_dictionary(self):
        state = collections.OrderedDict(weight=tensor())
        self.assertEqual(list(read_checkpoint(archive(state))), ["weight"])


class RefusesTheRest(unittest.TestCase):
    """A hostile or broken file is an error, never code and never a stray read."""

    def refuses(self, data, message):
        """Asserts that reading fails with a message that says this."""
        with self.assertRaisesRegex(CheckpointError, message):
            read_checkpoint(data)

    def test_every_other_global_is_refused_by_name(self):
        for module, name in (
            ("os", "system"),
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("collections", "namedtuple"),
            ("torch", "load"),
            ("torch.storage", "FloatStorage"),
            ("torch._utils", "_rebuild_parameter"),
        ):
            with self.subTest(name=name):
                state = {"weight": Call(Global(module, name), "true")}
                self.refuses(archive(state), f"{module}.{name}, which is not on the allow-list")
                self.refuses(legacy(state, {}), f"{module}.{name}, which is not on the allow-list")

    def test_a_refused_call_does_not_run(self):
        trap = pickle.dumps(_Trap())
        self.assertIn(b"_spring", trap)
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as file:
            file.writestr("model/data.pkl", trap)
        self.refuses(stream.getvalue(), "not on the allow-list")
        self.assertEqual(_sprung, [])

    def test_a_view_past_its_storage_is_refused(self):
        for view in (
            tensor(offset=1),
            tensor(shape=(2, 4), strides=(3, 1)),
            tensor(shape=(7,), strides=(1,)),
        ):
            self.refuses(archive({"weight": view}), "reaches element")

    def test_a_view_that_repeats_elements_is_refused(self):
        wide = tensor(shape=(1 << 40,), strides=(0,))
        self.refuses(archive({"weight": wide}), "more elements than its storage")

    def test_negative_and_odd_dimensions_are_refused(self):
        for view in (tensor(offset=-1), tensor(strides=(-3, 1)), tensor(shape=(True, 3))):
            self.refuses(archive({"weight": view}), "negative or odd")
        self.refuses(archive({"weight": tensor(strides=(1,))}), "bad shape or strides")

    def test_a_storage_of_another_length_is_refused(self):
        self.refuses(archive({"weight": tensor(count=5)}), "missing or has another length")
        self.refuses(archive({"weight": tensor(key="other")}), "storage is missing")

    def test_an_unknown_storage_type_is_refused(self):
        storage = Global("torch", "QUInt8Storage")
        self.refuses(archive({"weight": tensor(storage=storage)}), "torch.QUInt8Storage")
        self.refuses(archive({"weight": tensor(storage="FloatStorage")}), "no known element type")

    def test_a_big_endian_checkpoint_is_refused(self):
        self.refuses(archive({"weight": tensor()}, byteorder="big"), "not little-endian")

    def test_a_state_that_is_no_dictionary_is_refused(self):
        self.refuses(archive([tensor()]), "expected a state dictionary, found list")
        self.refuses(archive({"weight": 3}), "is no tensor")

    def test_a_torn_file_is_refused_at_every_length(self):
        whole = legacy({"weight": tensor()}, {"0": np.arange(6, dtype="<f4")})
        read_checkpoint(whole)
        for length in range(len(whole)):
            with self.subTest(length=length), self.assertRaises(CheckpointError):
                read_checkpoint(whole[:length])


_sprung = []


def _spring():
    _sprung.append(True)


class _Trap:
    """An object whose unpickling would call a function."""

    def __reduce__(self):
        return _spring, ()
