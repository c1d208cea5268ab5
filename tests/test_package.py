"""What `import cyconv` gives, and how long it takes."""

import ast
import functools
import importlib.metadata
import inspect
import pathlib

import pytest

import cyconv
from tests.zoo import BY_KIND

MODULES = [cyconv, cyconv.layers]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_names_what_the_module_imports_and_nothing_else(module):
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert len(module.__all__) == len(set(module.__all__))
    tree = ast.parse(pathlib.Path(module.__file__).read_text())
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module.startswith("cyconv")
        for alias in node.names
    }
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    }
    assert set(module.__all__) == imported | defined


@pytest.mark.parametrize("name", sorted(set(cyconv.layers.__all__) - {"Layer"}))
def test_every_layer_has_a_row_in_the_table_of_layers(name):
    assert name in BY_KIND


def test_what_datasets_names_is_there():
    for name in cyconv.datasets.__all__:
        assert getattr(cyconv.datasets, name).__doc__


CONTRACT = {
    "conv_output_size": "size, kernel, stride, padding, dilation=1, rounding='exact'",
    "im2col": "x, kernel_size, stride=1, padding=0, dilation=1, rounding='exact'",
    "col2im": "cols, input_shape, kernel_size, stride=1, padding=0, dilation=1, rounding='exact'",
    "conv2d": "x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, rounding='exact'",
    "conv2d_backward": "dy, x, weight, stride=1, padding=0, need_dx=True, dilation=1, groups=1, "
    "rounding='exact'",
    "max_pool2d": "x, kernel_size, stride=None, padding=0, rounding='exact'",
    "max_pool2d_backward": "dy, x, kernel_size, stride=None, padding=0, rounding='exact'",
    "avg_pool2d": "x, kernel_size, stride=None, padding=0, rounding='exact'",
    "avg_pool2d_backward": "dy, input_shape, kernel_size, stride=None, padding=0, rounding='exact'",
    "layers.Conv2D": "out_channels, kernel_size, *, stride=1, padding=0, dilation=1, groups=1, "
    "bias=True, rounding='exact'",
    "layers.Conv1D": "out_channels, kernel_size, *, stride=1, padding=0, dilation=1, groups=1, "
    "bias=True, rounding='exact'",
    "layers.Im2Col": "kernel_size, *, stride=1, padding=0, dilation=1, rounding='exact'",
    "layers.Linear": "out_features, *, bias=True",
    "layers.LeakyReLU": "negative_slope=0.1",
    "layers.ReLU": "",
    "layers.Tanh": "",
    "layers.Softmax": "",
    "layers.Flatten": "",
    "layers.MaxPool2D": "kernel_size, *, stride=None, padding=0, rounding='exact'",
    "layers.AvgPool2D": "kernel_size, *, stride=None, padding=0, rounding='exact'",
    "layers.GlobalAvgPool2D": "",
    "layers.BatchNorm": "momentum=0.1, eps=1e-5",
    "layers.Dropout": "p=0.5",
    "layers.Residual": "body, shortcut=None",
    "Network": "layers, input_shape=(28, 28, 1), seed=0",
    "Adam": "learning_rate=0.001, betas=(0.9, 0.999), eps=1e-08",
    "AdamW": "learning_rate=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01",
    "SGD": "learning_rate, momentum=0, nesterov=False, weight_decay=0",
    **dict.fromkeys((f"presets.{name}" for name in cyconv.presets.NAMES), "seed=0"),
    "datasets.load_mnist": "directory=None",
    "datasets.load_digits": "",
    "set_num_threads": "n",
    "get_num_threads": "",
}
NETWORK = {
    "forward": "x, training",
    "backward": "dy",
    "parameters": "",
    "gradients": "",
    "state": "",
    "train_step": "x, labels, optimizer, loss",
    "evaluate": "x, labels",
    "predict": "x",
    "predict_proba": "x",
    "summary": "",
    "save": "path",
    "load": "path, layers",
}


def named(name):
    """Return what a dotted name stands for in the package."""
    return functools.reduce(getattr, name.split("."), cyconv)


def parameters(callable_):
    """Return (name, default, kind) of each parameter, self left out."""
    return [
        (parameter.name, parameter.default, parameter.kind)
        for parameter in inspect.signature(callable_).parameters.values()
        if parameter.name != "self"
    ]


@pytest.mark.parametrize("name", CONTRACT)
def test_signatures_are_those_of_the_contract(name):
    promised = parameters(eval(f"lambda {CONTRACT[name]}: None"))
    given = parameters(named(name))
    for (each, default, kind), (name_, expected, kind_) in zip(given, promised, strict=False):
        assert (each, kind) == (name_, kind_)
        assert expected in (inspect.Parameter.empty, default), each
    assert len(given) >= len(promised)
    assert all(default is not inspect.Parameter.empty for _, default, _ in given[len(promised) :])


@pytest.mark.parametrize("name", cyconv.presets.NAMES)
def test_each_preset_takes_other_images_and_classes(name):
    assert {"input_shape", "classes"} <= {each for each, *_ in parameters(named(f"presets.{name}"))}
    net = named(f"presets.{name}")(input_shape=(40, 36, 2), classes=7)
    assert (net.input_shape, net.output_shape) == ((40, 36, 2), (7,))


def test_the_names_of_presets_are_those_that_the_module_defines():
    tree = ast.parse(pathlib.Path(cyconv.presets.__file__).read_text())
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert list(cyconv.presets.NAMES) == [name for name in defined if not name.startswith("_")]


@pytest.mark.parametrize("name", NETWORK)
def test_methods_are_those_of_the_contract(name):
    method = getattr(cyconv.Network, name)
    assert [each for each, *_ in parameters(method)] == [
        each.strip() for each in NETWORK[name].split(",") if each
    ]


@pytest.mark.parametrize("name", [*CONTRACT, *(f"Network.{name}" for name in [*NETWORK, "fit"])])
def test_every_argument_has_a_type(name):
    given = inspect.signature(named(name)).parameters.values()
    untyped = [each.name for each in given if each.annotation is inspect.Parameter.empty]
    assert set(untyped) <= {"self"}


ON_ARRAYS = (
    "im2col", "col2im", "conv2d", "conv2d_backward",
    "max_pool2d", "max_pool2d_backward", "avg_pool2d", "avg_pool2d_backward",
)  # fmt: skip


@pytest.mark.parametrize("name", ON_ARRAYS)
def test_the_naive_loops_have_the_same_signatures(name):
    assert parameters(getattr(cyconv.naive, name)) == parameters(getattr(cyconv, name))


@pytest.mark.parametrize("name", cyconv.__all__)
def test_every_public_name_explains_itself(name):
    assert len(getattr(cyconv, name).__doc__) > 20


def test_the_version_is_that_of_the_package():
    assert cyconv.__version__ == importlib.metadata.version("cyconv")


def test_errors_about_files_are_what_a_caller_would_catch():
    assert issubclass(cyconv.DataFormatError, ValueError)
    assert issubclass(cyconv.CheckpointError, ValueError)
    assert issubclass(cyconv.DownloadError, OSError)


def test_the_import_is_quick(python):
    code = """
        import time, numpy, scipy.linalg.cython_blas
        start = time.process_time()
        import cyconv
        print(time.process_time() - start)
    """
    seconds = []
    while len(seconds) < 7 and min(seconds, default=1) >= 0.2:  # the best of several
        seconds.append(float(python(code)))
    assert min(seconds) < 0.2


def test_the_import_leaves_the_heavy_and_the_optional_alone(python):
    code = "import sys, cyconv; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(python(code).split())
    assert not {"torch", "matplotlib", "PIL", "pytest", "pooch", "requests", "sklearn"} & loaded
