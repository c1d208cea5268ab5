"""Is one commit faster than another?

Builds both from their sources in a temporary folder with the packages of this interpreter, and
loads each in a process of its own. Both must give the same losses, labels, outputs and gradients;
then they take turns. A ratio is A's time over B's, the median of the ratios of neighbouring turns:
above 1, B is faster.

Where valgrind is installed, it counts the instructions of training steps on one thread, which do
not depend on what else the machine does. The kernels are the baseline ones and OpenBLAS's those for
Haswell then, because valgrind has no AVX-512.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from harness import Worker, interleave, print_row
from peers import Cyconv, check

REPOSITORY = Path(__file__).resolve().parents[1]
CONVOLUTION = (28, 28, 32), (3, 3, 32, 64), {"stride": 1, "padding": 1}
COMPARED = {
    "step exercise 64": ("step", 64, "exercise"),
    "step exercise 512": ("step", 512, "exercise"),
    "step wide 64": ("step", 64, "wide"),
    "predict exercise 64": ("predict", 64, "exercise"),
    "conv forward 64 of 28x28x32, 3x3x64": ("conv", 64, *CONVOLUTION, False),
    "conv forward and backward": ("conv", 64, *CONVOLUTION, True),
}
HEAD = "case", "A ms", "B ms", "A/B", "quartiles"
WIDTHS = 40, 10, 10, 6, 13
COUNTED_STEPS = 4
COUNTED = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import cyconv
cyconv.set_num_threads(1)
rng = np.random.default_rng(0)
x, labels = rng.random((64, 28, 28, 1), np.float32), rng.integers(0, 10, 64)
net, adam = cyconv.presets.exercise(), cyconv.Adam()
for _ in range(int(sys.argv[2])):
    net.train_step(x, labels, adam)
"""
VALGRIND = "valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=" + os.devnull
REPEATABLE = {
    "CYCONV_SIMD": "baseline",
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}


class Build(Cyconv):
    """The package that was built in a folder, in a process of its own."""

    def __init__(self, folder, threads):
        sys.path.insert(0, folder)
        super().__init__(threads)
        if not Path(self.cyconv.__file__).is_relative_to(folder):
            raise ImportError(f"cyconv must come from {folder}, got {self.cyconv.__file__}")


def output(*command, **options) -> bytes:
    """Return what a command prints, or end with its errors."""
    done = subprocess.run(command, capture_output=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr.decode(errors='replace')}")
    return done.stdout


def export(revision, folder) -> None:
    """Write the files of a commit, or those of the working tree if it is None, to a folder."""
    folder.mkdir()
    if revision is not None:
        archive = output("git", "archive", "--format=tar", revision, cwd=REPOSITORY)
        output("tar", "-xf", "-", "-C", str(folder), input=archive)
        return
    listing = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in output(*listing, cwd=REPOSITORY).decode().split("\0")[:-1]:
        if (REPOSITORY / name).is_file():  # not one that was deleted or moved
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)


def build(name, revision, folder) -> None:
    """Build a commit in a folder, and say so."""
    title = "the working tree"
    if revision is not None:
        line = output("git", "log", "-1", "--format=%h %s", revision, "--", cwd=REPOSITORY)
        title = line.decode().strip()
    print(f"{name}: {title}", flush=True)
    export(revision, folder)
    output(sys.executable, "setup.py", "-q", "build_ext", "--inplace", cwd=folder)


def compare(sides, turns, seconds) -> None:
    """Check, measure and print each case."""
    print_row(HEAD, WIDTHS)
    a, b = sides
    for name, case in COMPARED.items():
        check(case, b, a.call(*case))
        times = interleave([partial(side.call, "time") for side in sides], turns, seconds)
        ratios = times[:, 0] / times[:, 1]
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        cells = [f"{1e3 * median:.3f}" for median in np.median(times, axis=0)]
        print_row([name, *cells, f"{middle:.3f}", f"{low:.3f} - {high:.3f}"], WIDTHS)


def instructions(folder, steps) -> int:
    """Return how many instructions a process executes that trains for some steps."""
    command = *VALGRIND, sys.executable, "-c", COUNTED, str(folder), str(steps)
    done = subprocess.run(
        command, env={**os.environ, **REPEATABLE}, capture_output=True, text=True, check=True
    )
    return int(re.search(r"I +refs: +([\d,]+)", done.stderr)[1].replace(",", ""))


def count(folders) -> None:
    """Print the instructions of a training step: of several steps, less those of one."""
    runs = list(product(folders, (1, 1 + COUNTED_STEPS)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        few_a, many_a, few_b, many_b = pool.map(lambda run: instructions(*run), runs)
    a, b = (1e-6 * (many - few) / COUNTED_STEPS for many, few in ((many_a, few_a), (many_b, few_b)))
    print("\nmillions of instructions, baseline kernels, one thread")
    print_row(["step exercise 64", f"{a:.3f}", f"{b:.3f}", f"{a / b:.3f}", ""], WIDTHS)


def main():
    """Build, check, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("a", nargs="?", default="HEAD", help="a commit (default: HEAD)")
    parser.add_argument("b", nargs="?", help="another (default: the files of the working tree)")
    parser.add_argument("--threads", type=int, help="of either side (default: all cores)")
    parser.add_argument("--turns", type=int, default=15, help="of each side (default: 15)")
    parser.add_argument("--seconds", type=float, default=0.1, help="of a turn (default: 0.1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folders = Path(temporary, "a"), Path(temporary, "b")
        for name, revision, folder in zip("AB", (options.a, options.b), folders, strict=True):
            build(name, revision, folder)
        sides = [Worker(Build, str(folder), options.threads) for folder in folders]
        compare(sides, options.turns, options.seconds)
        for side in sides:
            side.close()
        if shutil.which("valgrind"):
            count(folders)
        else:
            print("\nvalgrind is not installed: no instructions counted")


if __name__ == "__main__":
    main()
