"""Builds the C++ extension once per instruction set; everything else stands in pyproject.toml.

SPIRAL_ISA=avx512 (a comma-separated list) limits what is built, for quick development builds; SPIRAL_ISA=native
builds the one that this processor will load, which is what `make demo` does.
A machine without a compiler gets the NumPy kernels; a compiler that fails fails the installation.
"""

import os
import platform
import shutil
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
# a link to kernels/ in a clone, and the folder itself in an sdist
KERNELS = ROOT / "spiral" / "kernels"
SOURCES = sorted(str(p.relative_to(ROOT)) for p in (KERNELS / "cpu").glob("*.cpp"))
HEADERS = [str(p.relative_to(ROOT)) for d in ("cpu", "common") for p in (KERNELS / d).glob("*.h")]
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


def native_isa() -> str:
    """The best instruction set that this processor and its system support, as NumPy detects them."""
    from numpy._core._multiarray_umath import __cpu_features__ as present

    needed = {"avx512": ("AVX512F", "AVX512CD", "AVX512_SKX"), "avx2": ("AVX2", "FMA3", "F16C")}  # as spiral.storage
    for isa, features in needed.items():
        if all(present.get(f) for f in features):
            return isa
    return "baseline"


def wanted_isas() -> list[str]:
    """Instruction sets to build for this processor family."""
    given = os.environ.get("SPIRAL_ISA")
    if given == "native":
        return [native_isa()]
    if given and given != "numpy":
        unknown = set(given.split(",")) - set(ISA_FLAGS)
        if unknown:
            sys.exit(f"spiral: SPIRAL_ISA: expected native or some of {', '.join(ISA_FLAGS)}; received {given!r}")
        return given.split(",")
    return list(ISA_FLAGS) if platform.machine() in ("x86_64", "AMD64") else ["baseline"]


def find_compiler() -> str | None:
    """The C++ compiler's command: CXX if it is set, else the one Python was built with, else a usual name.

    None where there is none; if SPIRAL_REQUIRE_NATIVE=1 there must be one. A CXX that is not there is an error,
    never a reason to take another.
    """
    given = os.environ.get("CXX")
    if given:
        if not shutil.which(given.split()[0]):
            sys.exit(f"spiral: CXX={given}: there is no such command; unset CXX to let one be found")
        return given
    if os.name != "nt":  # the kernels need POSIX threads: Windows gets NumPy's
        for command in (sysconfig.get_config_var("CXX"), "c++", "g++", "clang++"):
            if command and shutil.which(command.split()[0]):
                return str(command)
    if os.environ.get("SPIRAL_REQUIRE_NATIVE") == "1":
        sys.exit("spiral: SPIRAL_REQUIRE_NATIVE=1, and no C++ compiler was found (looked for c++, g++, clang++)")
    return None


class Build(build_ext):
    """Compiles the files of an extension side by side."""

    def build_extension(self, ext: Extension) -> None:
        import numpy

        ext.include_dirs = [numpy.get_include(), str(KERNELS / "cpu"), str(KERNELS)]
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
compiler = find_compiler()
if compiler is not None:
    os.environ["CXX"] = compiler  # setuptools knows only the command that Python was built with
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

# sources only, so find_packages does not see them; setuptools wants every folder of the wheel to be a package
kernel_folders = [f"spiral.kernels.{p.parent.name}" for p in KERNELS.glob("*/*.*h")]
setup(
    packages=sorted({*find_packages(include=["spiral", "spiral.*"]), *kernel_folders}),
    py_modules=["spiral_command"],
    ext_modules=extensions,
    cmdclass={"build_ext": Build},
)
