"""python -m tests.mutate: take each check out of the gate, one at a time; a test must notice.

A mutant is a module of the gate with one edit: a raise, the call of a check or an operand of its
condition is gone, or a bound moved by one. It exists in the memory of a forked child only, which
runs the tests on it. What no test notices is printed with file and line, and the exit code is 1.
"""

import argparse
import ast
import copy
import importlib.util
import os
import random
import resource
import signal
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import pytest
import scipy.linalg  # noqa: F401 - once, for all children, each of which imports its own cyconv

TESTS = Path(__file__).parent
CYCONV = TESTS.parent / "cyconv"
GATE = {  # the files of cyconv, and the tests of each beside those of ALL
    "averages.py": ("test_averages.py",),
    "callbacks.py": ("test_training.py",),
    "checks.py": (),
    "geometry.py": (),
    "threads.py": ("test_threads.py::test_a_count_that_was_set_is_the_count",),
    "functional.py": (
        "test_functional.py::test_mistakes_in_dilation_groups_and_rounding",
        "test_functional.py::test_groups_must_divide_the_filters",
        "test_winograd.py::test_the_argument_is_true_or_false",
    ),
    "losses.py": ("test_losses.py",),
    "network.py": ("test_settled.py",),
    "optimizers.py": ("test_optimizers.py", "test_optimizer_states.py"),
    "passes.py": (),
    "pooling.py": ("test_pooling.py",),
    "prediction.py": ("test_network.py::test_a_predictor_refuses_what_it_was_not_made_for",),
    "presets.py": (),
    "program.py": (),
    "schedules.py": (),
    "stages.py": (),
    "training.py": ("test_training.py", "test_schedules.py", "test_averages.py", "test_resume.py"),
    "layers/activations.py": (),
    "layers/base.py": (
        "test_layers.py::test_the_table_says_which_layers_have_an_onnx_node",
        "test_network.py::test_a_layer_that_changes_forward_and_inherits_operations_is_run_as_it_says",
        "test_settled.py",
    ),
    "layers/conv.py": (),
    "layers/dropout.py": (),
    "layers/im2col.py": (),
    "layers/linear.py": (),
    "layers/norm.py": (),
    "layers/pooling.py": (),
    "layers/residual.py": ("test_layers.py",),
}
if importlib.util.find_spec("sklearn"):
    GATE["classifier.py"] = ("test_classifier.py",)
ALL = "errors", "test_checks.py", "test_geometry.py"
SECONDS = 60  # of CPU time, and
MEMORY = 2**35  # bytes of address space, for what computes without end when a check is gone

MOVED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
CHECKS = {  # functions that raise, or return what they were given first
    *("array", "not_empty", "same_dtype", "allocate", "representable", "blas_extent", "finite"),
    *(
        "number",
        "_number",
        "_numbers",
        "optimizer",
        "labels",
        "integer",
        "pair",
        "padding_pairs",
        "axis_padding",
        "flag",
        "divides",
        "rounding_mode",
        "batch_shape",
    ),
    *("_any_array", "_check_owner", "flat", "_images", "_labels", "_layers", "_needs_softmax"),
    *("check_is_fitted", "check_classification_targets", "enter", "not_masked"),
}


@dataclass
class Mutant:
    """A module with an edit, and the finder and loader that import it in place of the module."""

    file: str
    line: int
    before: str
    after: str
    source: bytes

    def find_spec(self, name, path=None, target=None):
        if name == "cyconv." + self.file.removesuffix(".py").replace("/", "."):
            return importlib.util.spec_from_loader(name, self)
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(self.source, self.file, "exec"), vars(module))

    def __str__(self):
        return f"cyconv/{self.file}:{self.line}: {self.before}  ->  {self.after}"


def mutants(file: str) -> Iterator[Mutant]:
    """Yield the mutants of a file, in the order of its lines."""
    source = (CYCONV / file).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = sorted(edits(ast.parse(source)), key=lambda edit: (edit[0].lineno, edit[0].col_offset))
    for node, after in found:
        first = starts[node.lineno - 1] + node.col_offset
        last = starts[node.end_lineno - 1] + node.end_col_offset
        text = after if isinstance(node, ast.stmt) else f"({after})"
        changed = source[:first] + text.encode() + source[last:]
        yield Mutant(file, node.lineno, ast.unparse(node), after, changed)


def edits(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield (node, the code that replaces it) for all that checks consist of."""
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Raise():
                yield node, "pass"
            case ast.Call() if name := check_called(node):
                yield from edits_of_a_call(node, name, id(node) in statements)
            case ast.FunctionDef(returns=ast.Name("bool")):
                yield from edits_of_a_condition(node.body[-1])
        for field in ("body", "orelse"):
            block = getattr(node, field, None)
            for index, each in enumerate(block if isinstance(block, list) else ()):
                if isinstance(each, ast.If):
                    leaves = isinstance(each.body[-1], ast.Return)
                    guarded = [*each.body, *(block[index + 1 :] if leaves else ())]
                    if any(isinstance(n, ast.Raise) or check_called(n) for n in walk(guarded)):
                        yield from edits_of_a_condition(each.test)


def walk(nodes) -> Iterator[ast.AST]:
    return (inner for node in nodes for inner in ast.walk(node))


def check_called(node: ast.AST) -> str | None:
    """Return the name in a call like checks.finite(...), self.enter(...) or integer(...)."""
    match node:
        case ast.Call(func=ast.Attribute(ast.Name("checks" | "self"), name) | ast.Name(name)):
            return name if name in CHECKS else None
    return None


def edits_of_a_call(call, name: str, alone: bool) -> Iterator[tuple[ast.AST, str]]:
    """Leave out a check, the shape that it requires or a keyword, or lower its minimum."""
    arguments = [ast.unparse(argument) for argument in call.args]
    if alone:
        yield call, "None"
    elif name == "allocate":
        yield call, f"np.empty({arguments[0]}, {arguments[1]})"
    else:
        yield call, arguments[0]
    if name == "array" and len(arguments) > 3:
        changed = copy.deepcopy(call)
        changed.args[3] = ast.Constant(None)
        yield call, ast.unparse(changed)
    for index in range(len(call.keywords)):
        yield call, without(index, call, "keywords")
    if name in ("integer", "pair"):
        for index in range(len(minimums(call))):
            changed = copy.deepcopy(call)
            minimums(changed)[index].value -= 1
            yield call, ast.unparse(changed)


def minimums(call) -> list[ast.Constant]:
    """Return the numbers in the last argument of a call like integer(n, who, "n", 1)."""
    return [node for node in walk(call.args[3:]) if isinstance(node, ast.Constant)]


def edits_of_a_condition(test: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Leave out each operand, and move each bound."""
    for node in ast.walk(test):
        if isinstance(node, ast.BoolOp):
            for index in range(len(node.values)):
                yield node, without(index, node, "values")
        elif isinstance(node, ast.Compare):
            for index, operator in enumerate(node.ops):
                if type(operator) in MOVED:
                    moved = copy.deepcopy(node)
                    moved.ops[index] = MOVED[type(operator)]()
                    yield node, ast.unparse(moved)


def without(index: int, node: ast.AST, field: str) -> str:
    """Return the code of a node that lacks one part of a field."""
    changed = copy.deepcopy(node)
    del getattr(changed, field)[index]
    return ast.unparse(changed)


def survives(files: Iterable[str], mutant: Mutant | None = None) -> bool:
    """Tell whether the tests of some files of the gate pass, on a mutant or without one."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(run_tests(files, mutant))
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def run_tests(files: Iterable[str], mutant: Mutant | None) -> int:
    """Return pytest's exit code; this process has no other use afterwards."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if mutant:
        sys.meta_path.insert(0, mutant)
    tests = [str(TESTS / name) for name in (*ALL, *chain(*(GATE[file] for file in files)))]
    return pytest.main(["-x", "-p", "no:cacheprovider", *tests])


def main() -> int:
    """Run the tests on each mutant, and print the verdict."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"of {', '.join(GATE)}")
    parser.add_argument("--sample", type=int, metavar="N", help="try N of the mutants only")
    options = parser.parse_args()
    files = options.files or list(GATE)
    if not set(files) <= set(GATE):
        parser.error(f"FILE must be of {', '.join(GATE)}, got {' '.join(files)}")
    every = [mutant for file in files for mutant in mutants(file)]
    if options.sample:
        drawn = random.Random(0).sample(range(len(every)), options.sample)
        every = [every[index] for index in sorted(drawn)]
    survivors = 0
    with ProcessPoolExecutor(os.cpu_count(), get_context("fork")) as pool:
        files = list(dict.fromkeys(mutant.file for mutant in every))
        whole = pool.submit(survives, files)
        results = pool.map(survives, ([mutant.file] for mutant in every), every)
        if not whole.result():
            pool.shutdown(cancel_futures=True)
            print("FAILED: the tests fail on the gate itself; see python -m pytest")
            return 1
        for file in files:
            own = [mutant for mutant in every if mutant.file == file]
            alive = [mutant for mutant in own if next(results)]
            noticed = len(own) - len(alive)
            print(f"cyconv/{file:<22}{noticed:>4} of {len(own):>3} mutants noticed")
            for mutant in alive:
                print(f"  NOT NOTICED  {mutant}")
            sys.stdout.flush()
            survivors += len(alive)
    print(f"{len(every) - survivors} of {len(every)} mutants of the gate noticed by a test")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
