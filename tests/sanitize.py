"""python -m tests.sanitize address|bounds: the tests, with kernels in which each access is checked.

The checkout is copied to a temporary folder and built there: for `address` with gcc's
AddressSanitizer and UndefinedBehaviorSanitizer, for `bounds` with Cython's checks of indices. Then,
on each level of vector units, come the canaries, which are faults in tests/canaries.py that must be
reported, and the tests that call kernels; with --all, on the highest level, every test. The last
line is the verdict.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_COPIED = shutil.ignore_patterns(".*", "build", "dist", "__pycache__", "*.egg-info", "*.so")
BUILDS = {"address": "address", "bounds": "debug"}  # values of CYCONV_BUILD
CANARIES = {  # and what their reports must say
    "address": {
        "read": r"heap-buffer-overflow .*\nREAD of size",
        "write": r"heap-buffer-overflow .*\nWRITE of size",
        "overflow": "signed integer overflow",
        "misaligned": "load of misaligned address",
    },
    "bounds": {"read": "IndexError: Out of bounds", "write": "IndexError: Out of bounds"},
}
CALL_KERNELS = [
    "tests/errors",
    *(
        f"tests/test_{name}.py"
        for name in (
            *("exactness", "functional", "layers", "losses"),
            *("network", "optimizers", "pooling", "threads"),
        )
    ),
]
LEFT_OUT = {  # of every test
    "tests/test_speed.py": "checks take time",
    "tests/test_package.py::test_the_import_is_quick": "checks take time",
    "tests/test_soak.py": "AddressSanitizer keeps memory that was freed",
    "tests/test_guard.py": "AddressSanitizer takes the signal of its forbidden pages",
    "tests/test_stubs.py": "types are the same in each build",
    "tests/test_wheel.py": "builds the package itself",
    "tests/test_mutate.py": "limits the address space",
    "tests/test_hostile.py": "limits time and memory, of which the checks take their own",
    "tests/test_images_mutations.py": "the same; and Pillow's buffers take the checks an hour",
}
LEVELS = "from cyconv._core import LEVELS, SIMD; print(*LEVELS[: LEVELS.index(SIMD) + 1])"


def runtime() -> dict[str, str]:
    """Return the environment in which gcc's sanitizers work, or end with what is missing."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "gcc")
    libraries = []
    for name in ("libasan.so", "libubsan.so"):
        command = [*compiler, f"-print-file-name={name}"]
        path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not os.path.isabs(path):  # gcc returns the name of what it has not
            sys.exit(f"address: {compiler[0]} must have {name}, as gcc on Linux does; set CC")
        libraries.append(path)
    return {
        "LD_PRELOAD": " ".join(libraries),
        # Python leaks by design, and some tests ask for more memory than there is.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:abort_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:abort_on_error=1",
        "PYTHONMALLOC": "malloc",  # Python's own allocator hides where objects end
    }


class Checked:
    """A copy of the checkout, built with checks.

    Parameters
    ----------
    kind : str
        A key of `BUILDS`.
    folder : Path
        Where it is made.
    """

    def __init__(self, kind: str, folder: Path):
        self.copy = folder / "cyconv"
        self.environment = os.environ | {"PYTHONPATH": str(self.copy)}
        self.environment.pop("CYCONV_SIMD", None)
        checks = runtime() if kind == "address" else {}
        shutil.copytree(ROOT, self.copy, ignore=NOT_COPIED)
        build = self.run("setup.py", "-q", "build_ext", "--inplace", CYCONV_BUILD=BUILDS[kind])
        if build.returncode:
            sys.exit(f"{build.stdout}{kind}: the build failed")
        self.environment |= checks

    def run(self, *arguments, output=subprocess.PIPE, **environment) -> subprocess.CompletedProcess:
        """Run Python in the copy and return how it ended."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.copy,
            env=self.environment | environment,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            text=True,
        )

    def levels(self) -> list[str]:
        """Return the levels of vector units that this machine has, the highest last."""
        done = self.run("-c", LEVELS)
        if done.returncode:
            sys.exit(f"{done.stdout}the kernels cannot be loaded")
        return done.stdout.split()

    def sees(self, canary: str, report: str, level: str) -> bool:
        """Tell whether a fault is reported on a level, and print what came instead if it is not."""
        text = self.run("-m", "tests.canaries", canary, CYCONV_SIMD=level).stdout
        seen = re.search(report, text) is not None
        print(f"canary on {level}: {canary} {'reported' if seen else 'NOT REPORTED'}", flush=True)
        if not seen:
            print(text)
        return seen

    def passes(self, tests: list[str], level: str) -> bool:
        """Tell whether tests pass on a level; the first fault ends them with a report."""
        print(f"\ntests on {level}", flush=True)
        # Captured by file descriptor, the report would end with the process.
        command = "-m", "pytest", "--capture=sys", "-p", "no:cacheprovider", *tests
        return self.run(*command, output=None, CYCONV_SIMD=level).returncode == 0


def main() -> int:
    """Build, run the canaries and the tests, and print the verdict."""
    parser = argparse.ArgumentParser(prog="python -m tests.sanitize", description=__doc__)
    parser.add_argument("kind", choices=BUILDS)
    parser.add_argument("--all", action="store_true", help="run every test")
    options = parser.parse_args()
    if options.all:
        print("the tests that call kernels, and on the highest level every test but")
        for name, reason in LEFT_OUT.items():
            print(f"  {name}: {reason}")
    else:
        print("the tests that call kernels; --all runs every test")
    with tempfile.TemporaryDirectory() as folder:
        print("building a copy of the checkout", flush=True)
        checked = Checked(options.kind, Path(folder))
        levels = checked.levels()
        seen = [
            checked.sees(canary, report, level)
            for level in levels
            for canary, report in CANARIES[options.kind].items()
        ]
        if not all(seen):
            print(f"{options.kind}: FAILED, {seen.count(False)} of {len(seen)} canaries unseen")
            return 1
        tests = dict.fromkeys(levels, CALL_KERNELS)
        if options.all:
            tests[levels[-1]] = ["tests", *(f"--deselect={name}" for name in LEFT_OUT)]
        failed = [level for level in levels if not checked.passes(tests[level], level)]
    if failed:
        print(f"{options.kind}: FAILED on {', '.join(failed)}")
    else:
        print(f"{options.kind}: {len(seen)} canaries reported, no fault on {', '.join(levels)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
