"""Checkpoints: the same bits come back, and nothing else ever does."""

import errno
import io
import json
import os
import pickle
import time
import tracemalloc
import uuid

import numpy as np
import pytest

import cyconv
from cyconv import CheckpointError, Network, checkpoint, container, files
from cyconv.layers import Conv2D, Flatten, LeakyReLU, Linear, Softmax
from tests.zoo import NETWORKS, Square, batch, network

SAVED = ["exercise", *(name for name in NETWORKS if name != "a user's layers")]


def tiny(seed=0):
    return Network([Flatten(), Linear(2), Softmax()], (2, 1, 1), seed)


@pytest.fixture
def file(tmp_path):
    """Return the path of a small checkpoint."""
    path = tmp_path / "net.safetensors"
    tiny().save(path)
    return path


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("name", SAVED)
def test_what_was_saved_comes_back_bit_for_bit(name, dtype, tmp_path):
    net = network(name, 3, dtype)
    x, labels = batch(net)
    net.train_step(x, labels, cyconv.Adam())
    net.save(tmp_path / "net")
    again = Network.load(tmp_path / "net")
    assert repr(again) == repr(net)
    assert again.summary() == net.summary()
    assert again.parameters().keys() == net.parameters().keys()
    for key, parameter in net.parameters().items():
        assert again.parameters()[key].dtype == dtype
        assert again.parameters()[key].tobytes() == parameter.tobytes()
    np.testing.assert_array_equal(again.predict_proba(x), net.predict_proba(x))
    optimizers = cyconv.Adam(), cyconv.Adam()
    assert net.train_step(x, labels, optimizers[0]) == again.train_step(x, labels, optimizers[1])


def test_every_value_of_a_float_comes_back(tmp_path):
    net = tiny()
    values = np.array([np.nan, np.inf, -0.0, 1e-45, 3.4e38, 0.1], np.float32)
    net.parameters()["1.weight"][...] = values[:4].reshape(2, 2)
    net.parameters()["1.bias"][...] = values[4:]
    net.save(tmp_path / "net")
    again = Network.load(tmp_path / "net").parameters()
    assert again["1.weight"].tobytes() + again["1.bias"].tobytes() == values.tobytes()


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [Conv2D(np.int64(2), np.int32(3), (np.int16(1), 1), np.uint8(1))],
        lambda: [Conv2D(2, [3, 2], [1, 1], [[1, 0], [0, 1]])],
        lambda: [LeakyReLU(np.float32(0.25))],
        lambda: [Flatten(), Linear(np.int64(3))],
    ],
    ids=("NumPy integers", "lists", "NumPy floats", "Linear"),
)
def test_arguments_of_every_accepted_kind_come_back(layers, tmp_path):
    net = Network(layers(), (4, 4, 1), np.int64(2))
    net.save(tmp_path / "net")
    again = Network.load(tmp_path / "net")
    x = np.random.default_rng(0).random((3, 4, 4, 1), np.float32)
    np.testing.assert_array_equal(again.forward(x), net.forward(x))


def test_a_file_is_the_same_bytes_for_the_same_network(file, tmp_path):
    tiny().save(tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == file.read_bytes()
    Network.load(file).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def refused(path, data, load=Network.load):
    """Check that a file with this content is refused by its name; return what is said of it."""
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=path.name) as caught:
        load(path)
    return str(caught.value)


@pytest.mark.parametrize("mask", (0x01, 0x80, 0xFF))
def test_every_flipped_byte_is_found(file, mask):
    data = file.read_bytes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= mask
        refused(file, bytes(damaged))


def test_a_file_that_was_cut_or_grew_is_refused(file):
    data = file.read_bytes()
    for size in range(len(data)):
        refused(file, data[:size])
    refused(file, data + b"\0")
    refused(file, data + data)
    refused(file, data[::-1])
    refused(file, bytes(len(data)))


class Trap:
    """Unpickled, it leaves a trace."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_code_in_a_file_is_ever_run(file, tmp_path):
    trap = tmp_path / "trap"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        refused(file, pickle.dumps(Trap(trap), protocol))
    np.save(tmp_path / "net.npy", np.array([Trap(trap)], object), allow_pickle=True)
    refused(file, (tmp_path / "net.npy").read_bytes())
    assert not trap.exists()


ARCHITECTURE = {
    "format": checkpoint.NETWORK,
    "input_shape": [2, 1, 1],
    "seed": 0,
    "dtype": "float32",
    "layers": [{"type": "Flatten"}, {"type": "Linear", "out_features": 2}, {"type": "Softmax"}],
}


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


HOSTILE = {
    "no object": [],
    "no format": {"format": None},
    "a later format": {"format": "cyconv network 2"},
    "no layers": {"layers": None},
    "empty layers": {"layers": []},
    "a number for a layer": {"layers": [5]},
    "a list for a layer": {"layers": [["Flatten"]]},
    "a mapping of layers": {"layers": {"0": {"type": "Flatten"}}},
    "a layer without a type": {"layers": [{}]},
    "an unknown layer": {"layers": [{"type": "os.system"}]},
    "an attribute that is no layer": {"layers": [{"type": "__all__"}]},
    "a list for a type": {"layers": [{"type": []}]},
    "the base class": {"layers": [{"type": "Layer"}]},
    "an argument too many": {"layers": [{"type": "Flatten", "x": 1}]},
    "an argument too few": {"layers": [{"type": "Linear"}]},
    "a wrong argument": {"layers": [{"type": "Linear", "out_features": "2"}]},
    "an infinite slope": {"layers": [{"type": "LeakyReLU", "negative_slope": float("inf")}]},
    "a missing layer": {"layers": [{"type": "Flatten"}]},
    "a wider layer": {"layers": [{"type": "Flatten"}, {"type": "Linear", "out_features": 3}]},
    "more layers": {"layers": [*ARCHITECTURE["layers"], {"type": "Linear", "out_features": 2}]},
    "a huge layer": {"layers": [{"type": "Flatten"}, {"type": "Linear", "out_features": 2**62}]},
    "another input": {"input_shape": [3, 1, 1]},
    "a number for an input": {"input_shape": 2},
    "no input": {"input_shape": []},
    "a negative input": {"input_shape": [-2, 1, 1]},
    "a huge input": {"input_shape": [2**62, 2**62, 1]},
    "a seed that is none": {"seed": "x"},
    "another dtype": {"dtype": "float64"},
    "objects": {"dtype": "O"},
    "a dtype that is none": {"dtype": {}},
    "a deep nest": {"layers": nested(500)},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_header_with_a_true_digest_is_refused(what, file):
    change = HOSTILE[what]
    architecture = {**ARCHITECTURE, **change} if isinstance(change, dict) else change
    refused(file, container.encode(tiny().parameters(), architecture))


def test_a_small_file_that_promises_much_takes_no_memory(file):
    description = [{"type": "Flatten"}, {"type": "Linear", "out_features": 12000}]
    architecture = {**ARCHITECTURE, "layers": description, "input_shape": [12000, 1, 1]}
    file.write_bytes(container.encode(tiny().parameters(), architecture))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            Network.load(file)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_saved_file_has_the_mode_of_any_other(file, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"")
    assert file.stat().st_mode == other.stat().st_mode


def test_the_headers_of_these_tests_differ_from_a_good_one_by_their_fault(file):
    file.write_bytes(container.encode(tiny().parameters(), ARCHITECTURE))
    assert repr(Network.load(file)) == repr(tiny())


def test_tensors_that_are_not_those_of_the_network_are_refused(file):
    good = tiny().parameters()
    weight, bias = good["1.weight"], good["1.bias"]
    for tensors in (
        {},
        {"1.weight": weight},
        {**good, "2.weight": weight},
        {"1.weight": weight.T.reshape(1, 4), "1.bias": bias},
        {"1.weight": weight.astype(np.float64), "1.bias": bias},
        {"1.weight": weight.astype(np.float16), "1.bias": bias},
        {"1.weight": weight.view(np.int32), "1.bias": bias},
        {"1.weight": weight, "1.bias": bias[:1]},
    ):
        tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
        refused(file, container.encode(tensors, ARCHITECTURE))


@pytest.mark.parametrize("dtype", ("BF16", "F8_E4M3", "F8_E5M2", "I64", "BOOL", "X"))
def test_element_types_that_are_not_ours_are_refused(dtype, file):
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    size = {"BF16": 2, "I64": 8}.get(dtype, 1)
    at = 0
    for name in ("1.weight", "1.bias"):
        count = int(np.prod(header[name]["shape"]))
        header[name].update(dtype=dtype, data_offsets=[at, at + size * count])
        at += size * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    refused(file, len(text).to_bytes(8, "little") + text + bytes(at))


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Network.load(tmp_path / "none")
    with pytest.raises(OSError, match=tmp_path.name):
        Network.load(tmp_path)
    with pytest.raises(OSError, match="none"):
        tiny().save(tmp_path / "none" / "net")


def test_a_layer_that_a_file_cannot_name_is_refused_and_nothing_is_written(tmp_path):
    net = Network([Square(), Flatten(), Linear(2)], (2, 2, 1))
    with pytest.raises(TypeError, match=r"Network\.save: Square '0'"):
        net.save(tmp_path / "net")
    assert not list(tmp_path.iterdir())


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullFile(io.FileIO):
    """A file that may be opened, but not written or flushed, as `fault` says."""

    fault = "write"

    def write(self, data):
        return full() if self.fault == "write" else super().write(data)

    def flush(self):
        return full() if self.fault == "flush" else super().flush()


@pytest.mark.parametrize("step", ("write", "flush", "fsync", "replace"))
def test_a_save_that_fails_leaves_the_older_file_and_no_other(file, monkeypatch, step):
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        if step in ("write", "flush"):
            patch.setattr(FullFile, "fault", step)
            patch.setattr(files, "open", FullFile, raising=False)
        else:
            patch.setattr(os, step, full)
        # A write or fsync does not know the name of its file; a person needs it.
        with pytest.raises(OSError, match=f"No space left on device: '{file}'$") as caught:
            tiny(1).save(file)
        assert caught.value.errno == errno.ENOSPC
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]
    tiny(1).save(file)
    assert file.read_bytes() != before
    assert os.listdir(file.parent) == [file.name]


def test_what_killed_writers_left_is_removed_when_it_is_old_and_nothing_else(file):
    def put(name, hours):
        (file.parent / name).write_bytes(b"")
        then = time.time() - 3600 * hours
        os.utime(file.parent / name, (then, then))

    left = uuid.uuid4().hex
    put(f"{file.name}.{left}", 25)
    kept = {f"{file.name}.{uuid.uuid4().hex}": 23, f"other.{left}": 25, f"{file.name}.{left}0": 25,
            f"{file.name}.backup": 25, left: 25}  # fmt: skip
    for name, hours in kept.items():
        put(name, hours)
    tiny(1).save(file)
    assert sorted(os.listdir(file.parent)) == sorted([file.name, *kept])


def test_an_error_of_who_writes_stays_as_it_is(tmp_path):
    for error in (OSError("no mirror"), FileNotFoundError(errno.ENOENT, "gone", "font")):
        with pytest.raises(type(error)) as caught, files.replacement(tmp_path / "file"):
            raise error
        assert caught.value is error
    assert not os.listdir(tmp_path)
