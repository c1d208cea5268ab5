"""The types: what a user's mypy sees agrees with what is there, and finds mistakes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="needs the extra dev")

ROOT = Path(__file__).parents[1]
ALLOWED = r"""
cyconv(\.\w+)*\.(_[^_].*|__test__)               # private, and Cython's
cyconv\.geometry\.Rounding                        # a Literal, which stubtest takes for a union
cyconv\.layers\.base\.Layer\.forward              # layers of one's own may leave out `training`
cyconv\.classifier                               # cannot be imported without scikit-learn
cyconv\.classifier\.CNNClassifier\.set_.+_request  # made by scikit-learn
"""
MISTAKES = """\
import cyconv, numpy as np
x = np.zeros((1, 4, 4, 1))
cyconv.conv2d(x, x, padding="full")
cyconv.im2col(x, kernel_size=2.5)
cyconv.naive.col2im(x, (1, 4, 4, 1))
cyconv.layers.Conv2D(4)
cyconv.layers.Conv2D(1, 8, 3)
cyconv.layers.MaxPool2D(2, rounding="ceil")
cyconv.layers.Residual(cyconv.layers.Flatten())
cyconv.layers.LeakyReLU("0.1")
net = cyconv.Network([np.tanh])
net.train_step(x, [3], cyconv.Adam)
net.fit(x, [3], callbacks=[print, 7])
net.predict(x).argmx()
loss: str = net.evaluate(x, [3])[0]
cyconv.set_num_threads("2")
"""


def mypy(tool, *arguments):
    """Return the (exit code, output) of mypy or stubtest, which takes its types from here."""
    done = subprocess.run(
        [sys.executable, "-m", tool, *map(str, arguments)],
        env={**os.environ, "MYPYPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def strict(program, cache):
    return mypy("mypy", "--strict", "--follow-imports=silent", "--cache-dir", cache, program)


def test_the_types_agree_with_what_is_there(tmp_path):
    allowed = tmp_path / "allowed"
    allowed.write_text(ALLOWED)
    code, output = mypy(
        *("mypy.stubtest", "cyconv", "--mypy-config-file", "pyproject.toml"),
        *("--allowlist", allowed, "--ignore-unused-allowlist"),
    )
    assert code == 0, output


def test_a_users_program_passes_strictly(tmp_path):
    code, output = strict(ROOT / "tests" / "user_program.py", tmp_path)
    assert code == 0, output


def test_every_mistake_is_found(tmp_path):
    program = tmp_path / "mistakes.py"
    program.write_text(MISTAKES)
    found = re.findall(r"mistakes\.py:(\d+): error", strict(program, tmp_path)[1])
    assert list(map(int, found)) == list(range(3, 1 + len(MISTAKES.splitlines())))
