"""Checkpoints of networks: the same bits come back, and nothing else ever does."""

import json
import os
import pickle
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

import cyconv
from cyconv import CheckpointError, Network, checkpoint, container
from cyconv.layers import Conv2D, Flatten, LeakyReLU, Linear, Residual
from tests.checkpoint.samples import refused, tiny
from tests.zoo import NETWORKS, batch, network

SAVED = ["exercise", *(name for name in NETWORKS if "user" not in name and "NumPy" not in name)]


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
        lambda: [Conv2D(np.int64(2), np.int32(3), stride=(np.int16(1), 1), padding=np.uint8(1))],
        lambda: [Conv2D(2, [3, 2], stride=[1, 1], padding=[[1, 0], [0, 1]])],
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


def test_a_foreign_safetensors_file_is_said_to_be_one(file):
    for metadata in (None, {"format": "pt"}, {"cyconv": "{}"}):
        foreign = safetensors.numpy.save({"weight": np.ones(3, np.float32)}, metadata)
        assert "it has no header of cyconv" in refused(file, foreign)


@pytest.mark.parametrize(("module", "name", "most", "text"), [
    (checkpoint, "MOST_LAYERS", 2, "at most 2 layers, got 3"),
    (container, "MOST_HEADER", 400, "at most 400"),
])  # fmt: skip
def test_what_would_not_be_read_is_not_written(file, monkeypatch, module, name, most, text):
    before = file.read_bytes()
    monkeypatch.setattr(module, name, most)
    with pytest.raises(ValueError, match=text):
        tiny(1).save(file)
    assert file.read_bytes() == before
    assert text in refused(file, before)
    monkeypatch.undo()
    assert Network.load(file).seed == 0


def test_the_layers_inside_others_count(file, monkeypatch):
    monkeypatch.setattr(checkpoint, "MOST_LAYERS", 3)
    Network([Residual([LeakyReLU(), LeakyReLU()])], (3,)).save(file)
    with pytest.raises(ValueError, match="at most 3 layers, got 4"):
        Network([Residual([LeakyReLU(), LeakyReLU()], [LeakyReLU()])], (3,)).save(file)


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
    "not an object": [],
    "no format": {"format": None},
    "a later format": {"format": "cyconv network 2"},
    "no layers": {"layers": None},
    "empty layers": {"layers": []},
    "a number for a layer": {"layers": [5]},
    "a list for a layer": {"layers": [["Flatten"]]},
    "a mapping of layers": {"layers": {"0": {"type": "Flatten"}}},
    "a layer without a type": {"layers": [{}]},
    "an unknown layer": {"layers": [{"type": "os.system"}]},
    "an attribute that is not a layer": {"layers": [{"type": "__all__"}]},
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
    "a seed that is not a number": {"seed": "x"},
    "another dtype": {"dtype": "float64"},
    "objects": {"dtype": "O"},
    "a dtype that is not a name": {"dtype": {}},
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
