"""Builds the C++ extension once per instruction set; everything else stands in pyproject.toml.

SPIRAL_ISA=avx512 (a comma-separated list) limits what is built, for quick development builds.
A machine without a compiler gets the NumPy kernels; a compiler that fails fails the installation.
"""

import os
import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
SOURCES = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "kernels" / "cpu").glob("*.cpp"))
HEADERS = [str(p.relative_to(ROOT)) for d in ("cpu", "common") for p in (ROOT / "kernels" / d).glob("*.h")]
# -fno-math-errno and its kin let loops vectorise; never -ffast-math, which changes denormals for the process
FLAGS = [
    "-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math",
    "-fassociative-math", "-fno-signed-zeros", "-Wall", "-Wno-unknown-pragmas",
    # GCC 12 warns about its own AVX-512 intrinsics
    "-Wno-maybe-uninitialized", "-Wno-uninitialized",
]  # fmt: skip
ISA_FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c", "-mbmi2"],
    "avx512": ["-march=skylake-avx512", "-mprefer-vector-width=512"],
}


def wanted_isas() -> list[str]:
    """Instruction sets to build for this processor family."""
    given = os.environ.get("SPIRAL_ISA")
    if given and given != "numpy":
        return given.split(",")
    return list(ISA_FLAGS) if platform.machine() in ("x86_64", "AMD64") else ["baseline"]


def have_compiler() -> bool:
    """Whether a C++ compiler is there; if SPIRAL_REQUIRE_NATIVE=1 it must be."""
    compiler = (os.environ.get("CXX") or "c++").split()[0]
    found = shutil.which(compiler) or shutil.which("g++") or shutil.which("clang++")
    if not found and os.environ.get("SPIRAL_REQUIRE_NATIVE") == "1":
        sys.exit("spiral: SPIRAL_REQUIRE_NATIVE=1, and no C++ compiler was found (looked for c++, g++, clang++)")
    return bool(found)


class Build(build_ext):
    """Compiles the files of an extension side by side."""

    def build_extension(self, ext: Extension) -> None:
        import numpy

        ext.include_dirs = [numpy.get_include(), "kernels/cpu", "kernels"]
        compile_one = self.compiler.compile

        def compile_all(sources: list[str], **options: object) -> list[str]:
            workers = int(os.environ.get("SPIRAL_BUILD_JOBS", 0)) or os.cpu_count() or 1
            with ThreadPoolExecutor(workers) as pool:
                return [o for os_ in pool.map(lambda s: compile_one([s], **options), sources) for o in os_]

        self.compiler.compile = compile_all
        try:
            super().build_extension(ext)
        finally:
            self.compiler.compile = compile_one


extensions = []
if have_compiler():
    for isa in wanted_isas():
        extensions.append(
            Extension(
                f"spiral._native_{isa}",
                SOURCES,
                depends=HEADERS,
                language="c++",
                define_macros=[("SPIRAL_ISA", isa)],
                extra_compile_args=[*FLAGS, *ISA_FLAGS[isa]],
                extra_link_args=["-pthread"],
            )
        )
else:
    print("spiral: no C++ compiler found; the NumPy kernels will be used (slower)", file=sys.stderr)

setup(
    packages=find_packages(include=["spiral", "spiral.*"]),
    py_modules=["spiral_command"],
    ext_modules=extensions,
    cmdclass={"build_ext": Build},
)
