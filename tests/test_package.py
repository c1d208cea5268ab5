"""What `import cyconv` gives, and how long it takes."""

import ast
import functools
import importlib.metadata
import inspect
import pathlib

import pytest

import cyconv

MODULES = [cyconv, cyconv.layers]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_names_what_the_module_imports_and_nothing_else(module):
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert list(module.__all__) == sorted(module.__all__)
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
    "layers.Conv2D": "out_channels, kernel_size, stride=1, padding=0",
    "layers.Conv1D": "out_channels, kernel_size, stride=1, padding=0",
    "layers.Im2Col": "kernel_size, stride=1, padding=0",
    "layers.Linear": "out_features",
    "layers.LeakyReLU": "negative_slope=0.1",
    "layers.Softmax": "",
    "layers.Flatten": "",
    "Network": "layers, input_shape=(28, 28, 1), seed=0",
    "Adam": "learning_rate=0.001, betas=(0.9, 0.999), eps=1e-08",
    "presets.exercise": "seed=0",
    "presets.wide": "seed=0",
    "datasets.load_mnist": "directory=None",
    "datasets.load_digits": "",
    "set_num_threads": "n",
    "get_num_threads": "",
}
NETWORK = {
    "forward": "x",
    "backward": "dy",
    "parameters": "",
    "gradients": "",
    "train_step": "x, labels, optimizer",
    "evaluate": "x, labels",
    "predict": "x",
    "predict_proba": "x",
    "summary": "",
    "save": "path",
    "load": "path",
}


def named(name):
    """Return what a dotted name stands for in the package."""
    return functools.reduce(getattr, name.split("."), cyconv)


def parameters(callable_):
    """Return (name, default) of each parameter, self left out."""
    return [
        (parameter.name, parameter.default)
        for parameter in inspect.signature(callable_).parameters.values()
        if parameter.name != "self"
    ]


@pytest.mark.parametrize("name", CONTRACT)
def test_signatures_are_those_of_the_contract(name):
    promised = parameters(eval(f"lambda {CONTRACT[name]}: None"))
    given = parameters(named(name))
    assert [each for each, _ in given[: len(promised)]] == [each for each, _ in promised]
    for (each, default), (_, expected) in zip(given, promised, strict=False):
        if expected is not inspect.Parameter.empty:
            assert default == expected, each
    assert all(default is not inspect.Parameter.empty for _, default in given[len(promised) :])


@pytest.mark.parametrize("name", NETWORK)
def test_methods_are_those_of_the_contract(name):
    method = getattr(cyconv.Network, name)
    assert [each for each, _ in parameters(method)] == [
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
        start = time.perf_counter()
        import cyconv
        print(time.perf_counter() - start)
    """
    seconds = []
    while len(seconds) < 7 and min(seconds, default=1) >= 0.2:  # the best of several
        seconds.append(float(python(code)))
    assert min(seconds) < 0.2


def test_the_import_leaves_the_heavy_and_the_optional_alone(python):
    code = "import sys, cyconv; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(python(code).split())
    assert not {"torch", "matplotlib", "PIL", "pytest", "pooch", "requests", "sklearn"} & loaded
