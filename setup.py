"""The extension modules and the OpenMP probe; everything else is in pyproject.toml."""

import hashlib
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

OPTIMIZED = [
    # No -ffast-math: the last two change no result, they let a select be vectorised.
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
]
# Without `inline` a .pxd holds no function. What is inlined is the compiler's choice all the same,
# but for kernels, which say it (cyconv/_core/kernel.pxd).
INLINE = "-DCYTHON_INLINE=__attribute__((unused))"
SANITIZERS = ["-fsanitize=address,undefined"]
# What CYCONV_BUILD can ask for, and gcc's flags. "annotate" is for a look at the kernels: annotated
# C in build/annotate, and line numbers in the modules; "debug" checks the indices of arrays;
# "address" checks every access and overflow, and is for python -m tests.sanitize.
BUILDS = {
    "release": [*OPTIMIZED, "-g0"],
    "annotate": [*OPTIMIZED, "-g"],
    "debug": ["-O1", "-g"],
    # Python's -fwrapv would let integers overflow in silence.
    "address": ["-O1", "-g1", "-fno-wrapv", *SANITIZERS],
}
BUILD = os.environ.get("CYCONV_BUILD", "release")
if BUILD not in BUILDS:
    sys.exit(f"cyconv: CYCONV_BUILD must be one of {', '.join(BUILDS)}, got {BUILD!r}")
BUILD_DIR = Path("build", BUILD)  # of the generated C, which depends on the directives

DIRECTIVES = {
    "language_level": "3",
    "boundscheck": BUILD == "debug",
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": BUILD == "debug",
    "embedsignature": False,
}

PROBE = """
#include <omp.h>
int main(void) {
    int n = 0;
    #pragma omp parallel reduction(+:n)
    n += omp_get_num_threads();
    return n < 1;
}
"""

NO_OPENMP = """
************************************************************************
cyconv: this compiler does not build OpenMP programs, so the kernels will
run on one thread. Everything works, only slower. On macOS install libomp
(and set CPPFLAGS and LDFLAGS to it), on Linux a gcc or clang with OpenMP.
************************************************************************
"""


def openmp_flags(compiler):
    """Return (compile, link) flags with which an OpenMP program builds, or two empty lists."""
    if compiler.compiler_type == "msvc":
        choices = [(["/openmp"], [])]
    elif sys.platform == "darwin":
        choices = [(["-Xpreprocessor", "-fopenmp"], ["-lomp"]), (["-fopenmp"], ["-fopenmp"])]
    else:
        choices = [(["-fopenmp"], ["-fopenmp"])]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(PROBE)
        for compile_flags, link_flags in choices:
            try:
                objects = compiler.compile(
                    [str(source)], output_dir=folder, extra_postargs=compile_flags
                )
                # As the modules are linked: an executable would be linked without LDFLAGS.
                compiler.link_shared_object(
                    objects, str(Path(folder, "probe.so")), extra_postargs=link_flags
                )
                return compile_flags, link_flags
            except Exception:
                continue
    return [], []


class BuildExt(build_ext):
    """Build with OpenMP if the compiler has it, and say so if it has not; keep what is compiled."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        compile_flags, link_flags = openmp_flags(self.compiler)
        if not compile_flags:
            print(NO_OPENMP, file=sys.stderr)
        if self.compiler.compiler_type != "msvc":
            compile_flags = [*compile_flags, INLINE, *BUILDS[BUILD]]
        if BUILD == "address":
            link_flags = [*link_flags, *SANITIZERS]
        for extension in self.extensions:
            extension.extra_compile_args += compile_flags
            extension.extra_link_args += link_flags
        super().build_extensions()

    def build_extension(self, ext):
        """Take the module of the last build of the same C with the same flags, or compile it.

        For an editable package pip builds in a folder that it deletes: without this,
        `pip install -e` compiles everything each time.
        """
        commands = [getattr(self.compiler, name, None) for name in ("compiler_so", "linker_so")]
        flags = ext.extra_compile_args, ext.extra_link_args
        path = Path(self.get_ext_fullpath(ext.name))
        key = hashlib.sha256(repr((self.plat_name, path.name, commands, flags)).encode())
        key.update(Path(*ext.sources).read_bytes())
        kept = BUILD_DIR / "modules" / f"{ext.name}-{key.hexdigest()}"
        if kept.exists() and not self.force:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(kept, path)
            return
        super().build_extension(ext)
        kept.parent.mkdir(parents=True, exist_ok=True)
        for old in kept.parent.glob(f"{ext.name}-*"):
            old.unlink()
        part = kept.with_name(f"{kept.name}.part")
        shutil.copy(path, part)
        part.replace(kept)


# The kernels are compiled once more for each level of vector units that cyconv._core.cpu knows, and
# once in double. What has no double build is compiled once: cyconv/_core/__init__.py goes by that.
BUILDS_OF_KERNELS = {
    "double": ["-DCYCONV_DOUBLE"],
    "v3": ["-mavx2", "-mfma", "-mbmi", "-mbmi2"],
    "v4": [
        "-mavx2",
        "-mfma",
        "-mbmi",
        "-mbmi2",
        "-mavx512f",
        "-mavx512bw",
        "-mavx512dq",
        "-mavx512vl",
    ],
}
ONCE = ("atomic", "blas", "cpu", "op", "team")
# What Cython generates for memoryviews, which takes longer to compile than most kernels: once, for
# all modules.
VIEWS = "cyconv._core.views"


def has_levels():
    """Tell whether the target is an x86-64 with a compiler that takes gcc's flags."""
    return platform.machine().lower() in ("x86_64", "amd64") and sys.platform != "win32"


def module(path):
    """Return the name of the module that a source file becomes."""
    return ".".join(path.with_suffix("").parts)


def extensions():
    """Return all extension modules, the further builds of a kernel as copies of the generated C."""
    core = Path("cyconv", "_core")
    sources = sorted([*core.glob("*.pyx"), *core.glob("ops/*.pyx")])
    plain = [Extension(module(path), [str(path)]) for path in (Path("cyconv/naive.pyx"), *sources)]
    built = cythonize(
        [*plain, Extension(VIEWS, [str(core / "views.c")])],
        shared_utility_qualified_name=VIEWS,
        nthreads=os.cpu_count(),
        compiler_directives=DIRECTIVES,
        build_dir=str(BUILD_DIR),
        annotate=BUILD == "annotate",
        emit_linenums=BUILD == "address",  # reports name lines of the .pyx and .pxd files
    )
    for build, flags in BUILDS_OF_KERNELS.items():
        if build != "double" and not has_levels():
            continue
        for path in sources:
            if path.stem in ONCE:
                continue
            source = Path(BUILD_DIR, path.with_suffix(".c"))
            copy = source.with_name(f"{path.stem}_{build}.c")
            text = source.read_text(encoding="utf-8")
            copy.write_text(
                text.replace(f"PyInit_{path.stem}", f"PyInit_{path.stem}_{build}"), encoding="utf-8"
            )
            built.append(
                Extension(
                    f"{module(path)}_{build}",
                    [str(copy)],
                    extra_compile_args=list(flags),
                    # A compiler without a level's flags leaves the level out.
                    optional=build != "double",
                )
            )
    return built


if __name__ == "__main__":  # cythonize's processes may import this file
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
