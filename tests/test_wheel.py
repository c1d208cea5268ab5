"""What is delivered: the sdist, the wheel that is built from it, and what pip installs."""

import ast
import functools
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import cyconv

if not os.environ.get("CYCONV_WHEEL"):
    pytest.skip(
        "set CYCONV_WHEEL=1 to build and install a wheel: it takes minutes and a package index",
        allow_module_level=True,
    )

ROOT = Path(__file__).parents[1]
BUILT = {".so", ".pyd", ".c", ".pyc"}


def run(*command, **keywords):
    """Return what a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, **keywords)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder():
    """Return a folder outside the checkout, with a user's program in it."""
    with tempfile.TemporaryDirectory() as path:
        shutil.copy(ROOT / "tests" / "user_program.py", path)
        yield Path(path)


@pytest.fixture(scope="module")
def built(folder):
    """Return (sdist, wheel), the wheel being built from the sdist.

    Modules that the checkout has compiled, from the same C with the same flags, are taken from it.
    """
    build, kept = (sys.executable, "-m", "build", "--outdir", folder), "build/release/modules"
    run(*build, "--sdist", ROOT)
    sdist = next(folder.glob("*.tar.gz"))
    shutil.unpack_archive(sdist, folder)
    source = folder / sdist.name.removesuffix(".tar.gz")
    if (ROOT / kept).exists():
        shutil.copytree(ROOT / kept, source / kept)
    run(*build, "--wheel", source)
    return sdist, next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(folder, built):
    """Return f(name), the path of a command in an environment that has the wheel."""
    environment = folder / "environment"
    venv.create(environment, with_pip=True)
    scripts = sysconfig.get_path("scripts", "venv", {"base": str(environment)})
    command = functools.partial(shutil.which, path=scripts)
    run(command("python"), "-m", "pip", "install", built[1])
    return command


def sources(*folders):
    """Return the files in folders of the checkout that people wrote."""
    return {
        path.relative_to(ROOT).as_posix()
        for each in folders
        for path in (ROOT / each).rglob("*")
        if path.is_file() and path.suffix not in BUILT
    }


def of_setup(name):
    """Return what setup.py assigns to a name, numbers and strings only."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise LookupError(name)


def modules():
    """Return the names of all compiled modules: each kernel once for each build."""
    # Windows calls its machine AMD64: its compiler has no levels.
    levels = platform.machine() == "x86_64"
    builds = [build for build in of_setup("BUILDS_OF_KERNELS") if levels or build == "double"]
    yield of_setup("VIEWS").replace(".", "/")
    for path in (ROOT / "cyconv").rglob("*.pyx"):
        name = path.relative_to(ROOT).with_suffix("").as_posix()
        yield name
        if "_core" in path.parts and path.stem not in of_setup("ONCE"):
            yield from (f"{name}_{build}" for build in builds)


def test_the_metadata_are_what_an_index_accepts(built):
    assert run(sys.executable, "-m", "twine", "check", "--strict", *built).count("PASSED") == 2


def test_the_sdist_holds_every_source_and_nothing_built(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert sources("cyconv", "tests", "bench", "docs") < names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "setup.py"} < names
    assert not [name for name in names if Path(name).suffix in BUILT]


def test_the_wheel_holds_the_package_and_the_kernels_of_each_level(built):
    names = set(zipfile.ZipFile(built[1]).namelist())
    compiled = {f"{name}{EXTENSION_SUFFIXES[0]}" for name in modules()}
    metadata = {name for name in names if name.startswith(f"cyconv-{cyconv.__version__}.dist-info")}
    assert names - metadata == sources("cyconv") | compiled


def test_the_wheel_runs_a_users_program(installed, folder):
    assert "accuracy 0." in run(installed("python"), "user_program.py", cwd=folder)


def test_the_wheel_brings_its_types(installed, folder):
    run(
        sys.executable,
        *("-m", "mypy", "--strict", "--cache-dir", "cache"),
        *("--python-executable", installed("python"), "user_program.py"),
        cwd=folder,
    )


def test_the_wheel_brings_the_command(installed, folder):
    arguments = ("train", "--dataset", "digits", "--epochs", "1")
    printed = run(installed("cyconv"), *arguments, cwd=folder)
    assert printed.splitlines()[-1].startswith("test accuracy ")
