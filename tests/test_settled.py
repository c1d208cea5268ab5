"""One truth of a network: what forward, predict, a step, `save` and `repr` use cannot part."""

import copy
import pickle

import numpy as np
import pytest

import cyconv
from cyconv import Adam, Network, presets
from cyconv.initializers import zeros
from cyconv.layers import (
    BatchNorm,
    Conv2D,
    Dropout,
    Flatten,
    Layer,
    LeakyReLU,
    Linear,
    Residual,
    Softmax,
)
from tests.zoo import batch

CHANGES = {  # of an entry, by each way that a dict has
    "[]": lambda entries, name, value: entries.__setitem__(name, value),
    "del": lambda entries, name, value: entries.__delitem__(name),
    "update": lambda entries, name, value: entries.update({name: value}),
    "|=": lambda entries, name, value: entries.__ior__({name: value}),
    "pop": lambda entries, name, value: entries.pop(name),
    "popitem": lambda entries, name, value: entries.popitem(),
    "clear": lambda entries, name, value: entries.clear(),
    "setdefault": lambda entries, name, value: entries.setdefault("new", value),
}
OF = {
    "layer.parameters": lambda net: net.layers[0].parameters,
    "layer.gradients": lambda net: net.layers[0].gradients,
    "layer.config": lambda net: net.layers[0].config,
    "layer.slices": lambda net: net.layers[0].slices,
    "a layer's beside a network": lambda net: Conv2D(4, 3).config,
    "a fresh layer's": lambda net: net.layers[0].fresh().config,
    "an unpickled layer's beside a network": lambda net: (
        pickle.loads(pickle.dumps(Linear(3))).config
    ),
    "a dict's in it": lambda net: Counts({"scale": [1, 2]}).config["scale"],
    "network.parameters": Network.parameters,
    "network.gradients": Network.gradients,
    "a copy's": lambda net: copy.deepcopy(net).layers[0].parameters,
    "a pickled layer's": lambda net: pickle.loads(pickle.dumps(net.layers[0])).parameters,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("of", OF)
def test_an_entry_cannot_be_replaced(of, change):
    entries = OF[of](presets.exercise())
    before = dict(entries)
    with pytest.raises(TypeError, match=r"cannot be replaced; write into an array"):
        CHANGES[change](entries, next(iter(entries)), np.ones(3))
    assert entries.keys() == before.keys()
    assert all(entries[name] is value for name, value in before.items())


def test_an_array_can_be_written_to_and_all_see_it():
    net = presets.exercise()
    x, _ = batch(net, 5)
    before = net.predict_proba(x)
    net.parameters()["0.weight"][...] *= 2
    net.layers[2].parameters["bias"] += 1
    net.parameters()["4.bias"] -= 1
    net.parameters() | {"0.weight": 0}  # a dict of its own
    after = net.predict_proba(x)
    assert not np.array_equal(before, after)
    np.testing.assert_allclose(net.forward(x), after, rtol=1e-5)


LISTS = {  # in a config
    "made": lambda layer: layer,
    "fresh": Layer.fresh,
    "copied": copy.deepcopy,
    "pickled": lambda layer: pickle.loads(pickle.dumps(layer)),
    "in a network": lambda layer: Network([layer], (4, 4, 2)).layers[0],
    "copied with it": lambda layer: copy.deepcopy(Network([layer], (4, 4, 2))).layers[0],
}


@pytest.mark.parametrize("how", LISTS)
def test_a_list_in_a_config_is_the_one_that_the_layer_has(how):
    layer = LISTS[how](Residual([Conv2D(2, 1)], [LeakyReLU(0.1)]))
    assert repr(layer) == "Residual([Conv2D(2, kernel_size=1)], shortcut=[LeakyReLU(0.1)])"
    for name in ("body", "shortcut"):
        assert layer.config[name] == getattr(layer, name)
        assert not hasattr(layer.config[name], "append")
        with pytest.raises(TypeError):
            layer.config[name][0] = Flatten()
        assert layer.config[name][0] is getattr(layer, name)[0]
    given = [3, [4, (5,)]]
    layer = LISTS[how](Counts(given))
    given.append(6)
    given[1].append(6)
    assert repr(layer) == "Counts([3, [4, (5,)]])"


@pytest.mark.parametrize("kind", ("parameters", "gradients", "state", "config", "slices"))
def test_layers_have_no_entries_in_common(kind):
    with pytest.raises(TypeError, match="cannot be replaced"):
        getattr(Flatten(), kind)["new"] = 1
    assert getattr(Softmax(), kind) == {}


@pytest.mark.parametrize("change", ("shape", "dtype"))
def test_the_form_of_an_array_that_a_network_gives_is_not_the_network_s(change, tmp_path):
    net = Network([BatchNorm(), Flatten(), Linear(3), Softmax()], (2, 3, 4))
    for entries in (net.parameters(), net.gradients(), net.state()):
        for array in entries.values():
            setattr(array, change, {"shape": (1, array.size), "dtype": np.int32}[change])
    net.save(tmp_path / "net")
    again = Network.load(tmp_path / "net")
    for name, array in (again.parameters() | again.state()).items():
        np.testing.assert_array_equal(array, (net.parameters() | net.state())[name])


def test_a_copy_of_the_entries_is_a_dict():
    entries = presets.exercise().parameters()
    for each in (copy.copy(entries), copy.deepcopy(entries), entries.copy(), dict(entries)):
        assert type(each) is dict
        each["new"] = 0
    assert "new" not in entries


SETTINGS = {  # layer by layer: what is changed, and to what
    0: {"stride": (2, 2), "geometry": None, "bias": False, "parameters": {}, "gradients": {}},
    1: {"negative_slope": 0.9, "config": {}, "input_shape": (1,), "name": "9", "number": 4,
        "__class__": Softmax, "__dict__": {}},
    2: {"p": 0.9, "state": {}},
    3: {"body": (), "shortcut": (), "slices": {}},
}  # fmt: skip
METHODS = "forward", "backward", "operations", "enter", "onnx", "build"


def made():
    body = [Conv2D(3, 3, padding=1), LeakyReLU()]
    layers = [
        Conv2D(3, 3), LeakyReLU(0.1), Dropout(0.1), Residual(body),
        Flatten(), Linear(4), Softmax(),
    ]  # fmt: skip
    return Network(layers, (6, 6, 2))


@pytest.mark.parametrize("how", ("made", "copied", "pickled"))
def test_an_attribute_of_a_layer_in_a_network_cannot_be_changed(how):
    net = made()
    net = {"made": net, "copied": copy.deepcopy(net), "pickled": pickle.loads(pickle.dumps(net))}[
        how
    ]
    for number, changes in SETTINGS.items():
        layer = net.layers[number]
        for name, value in (changes | dict.fromkeys(METHODS, lambda x: x)).items():
            with pytest.raises(AttributeError, match=rf"^{layer.who}: {name} cannot be changed"):
                setattr(layer, name, value)
            if name in vars(layer):
                with pytest.raises(AttributeError, match=rf"^{layer.who}: {name} cannot be chan"):
                    delattr(layer, name)
    with pytest.raises(AttributeError, match=r"^LeakyReLU '3.body.1': negative_slope cannot be"):
        net.layers[3].body[1].negative_slope = 0
    x, labels = np.ones((2, 6, 6, 2), np.float32), np.array([0, 1])
    np.testing.assert_allclose(net.forward(x), net.predict_proba(x), rtol=1e-6)
    net.train_step(x, labels, Adam())


def test_the_settings_that_are_saved_cannot_be_changed_before_there_is_a_network():
    layer = Conv2D(3, 3)
    with pytest.raises(AttributeError, match=r"^Conv2D: stride cannot be changed any more; make a"):
        layer.stride = (2, 2)
    with pytest.raises(AttributeError, match=r"^Conv2D: stride cannot be changed any more; make a"):
        del layer.stride
    with pytest.raises(AttributeError, match=r"^Conv2D: __class__ cannot be changed any more"):
        layer.__class__ = Linear
    again = Network([layer], (6, 6, 2)).layers[0].fresh()
    with pytest.raises(AttributeError, match=r"^Conv2D: stride cannot be changed any more"):
        again.stride = (2, 2)


@pytest.mark.parametrize("name", ("layers", "input_shape", "output_shape", "seed"))
def test_an_attribute_of_a_network_cannot_be_changed(name):
    net = made()
    with pytest.raises(AttributeError, match=rf"^Network: {name} cannot be changed any more"):
        setattr(net, name, ())
    with pytest.raises(AttributeError, match=rf"^Network: {name} cannot be changed any more"):
        delattr(net, name)


BUILT = {  # what is done to a layer on its way into a network
    "setup": lambda layer: layer.setup((6, 6, 2)),
    "bind": lambda layer: layer.bind(*np.zeros((2, layer.size), np.float32)),
    "reset": Layer.reset,
    "declare": lambda layer: layer.declare("weight", (1,), zeros),
    "a network": lambda layer: Network([layer], (6, 6, 2)),
    "a network with it inside": lambda layer: Network([Residual([layer])], (6, 6, 2)),
}


@pytest.mark.parametrize("how", ("made", "copied", "pickled"))
@pytest.mark.parametrize("done", BUILT)
def test_a_layer_of_a_network_is_not_built_again(done, how):
    net = made()
    if how == "copied":
        net = copy.deepcopy(net)
    for layer in net.layers if how != "pickled" else [pickle.loads(pickle.dumps(net.layers[3]))]:
        for each in layer.walk():
            with pytest.raises(
                (ValueError, RuntimeError),
                match=r": this layer is part of a netw"
                r"ork already; make a new one|: parameters are declared in build",
            ):
                BUILT[done](each)
    x = np.ones((2, 6, 6, 2), np.float32)
    np.testing.assert_allclose(net.forward(x), made().predict_proba(x), rtol=1e-6)


def test_a_layer_that_was_set_up_can_be_reset():
    block = Residual([Conv2D(2, 3, padding=1)])
    block.setup((6, 6, 2))
    block.reset()
    Network([block], (6, 6, 2))


class Enters(LeakyReLU):
    """What comes in is doubled."""

    def enter(self, x):
        return 2 * super().enter(x)


class Counts(Layer):
    """In plain NumPy, with attributes of its own that change."""

    def __init__(self, scale):
        self.scale, self.calls, self.x = scale, 0, None
        self.config = {"scale": scale}

    def forward(self, x):
        self.x, self.calls = x, self.calls + 1
        return self.scale * x

    def backward(self, dy):
        return self.scale * dy


def test_a_subclass_that_changes_enter_is_run_as_it_says():
    net = Network([Enters(0.5), Flatten(), Linear(4), Softmax()], (3, 3, 1))
    plain = Network([LeakyReLU(0.5), Flatten(), Linear(4), Softmax()], (3, 3, 1))
    x = np.random.default_rng(0).normal(size=(5, 3, 3, 1)).astype(np.float32)
    expected = plain.predict_proba(2 * x)
    for y in (net.predict_proba(x), net.forward(x)):
        np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_a_layer_in_numpy_changes_what_it_likes_but_not_its_config():
    net = Network([Counts(2), Flatten(), Linear(4), Softmax()], (3, 3, 1))
    x = np.ones((5, 3, 3, 1), np.float32)
    net.train_step(x, np.arange(5) % 4, Adam())
    assert net.layers[0].calls == 1
    with pytest.raises(AttributeError, match=r"^Counts '0': scale cannot be changed any more"):
        net.layers[0].scale = 3
    net.layers[0].forward = lambda x: 0 * x  # which is what all passes call
    np.testing.assert_array_equal(net.predict_proba(x), net.forward(x))
    assert np.ptp(net.forward(x), axis=0).max() == 0


def test_a_block_of_ones_own_has_its_own_config_in_a_copy():
    class Block(Residual):
        def __init__(self, channels):
            super().__init__([Conv2D(channels, 1), LeakyReLU()])
            self.config = {"channels": channels}

    net = Network([Block(2), Flatten(), Linear(4), Softmax()], (3, 3, 2))
    assert copy.deepcopy(net).layers[0].config == {"channels": 2}
    assert repr(net.layers[0]) == "Block(2)"
    assert cyconv.Network([net.layers[0].fresh()], (3, 3, 2)).layers[0].config == {"channels": 2}


def test_a_layer_may_say_its_config_first():
    class First(LeakyReLU):
        def __init__(self, slope):
            self.config = {"slope": slope}
            self.slope = slope
            self.negative_slope = slope

    assert First(0.5).slope == 0.5


def test_a_layer_may_say_more_of_its_config_than_the_one_it_inherits_from():
    class Named(Conv2D):
        def __init__(self, out_channels, kernel_size, label="", **others):
            super().__init__(out_channels, kernel_size, **others)
            self.label = label
            self.config = {**self.config, "label": label}

    layer = Named(2, 3, "a")
    assert layer.config == {**Conv2D(2, 3).config, "label": "a"}
    assert layer.fresh().config == layer.config
