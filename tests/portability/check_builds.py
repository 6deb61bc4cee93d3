"""Builds and installs spiral in ways that the test suite has no time for: ``python check_builds.py [CASE ...]``.

    wheel        sdist, wheel made from it, installed with NumPy and ml_dtypes alone, used from another folder
    no-compiler  the same where no compiler is found: NumPy does the work, doctor says so
    clang        built with clang++, then the ops' conformance tests
    aarch64      cross-compiled and linked for 64-bit ARM
    pythons      the test suite on every other Python named by SPIRAL_PYTHONS (paths, separated by ``:``)

A case whose tool is not there says so and is skipped. Everything happens in a temporary folder. SPIRAL_ISA
limits what is compiled, SPIRAL_BUILD_JOBS how many compilers run at once; all cases take some 10 minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TRAIN = """
import sys
before = set(sys.modules)
import spiral as sp
foreign = {n.partition(".")[0] for n in set(sys.modules) - before} - sys.stdlib_module_names
assert foreign <= {"numpy", "ml_dtypes", "spiral"}, foreign
from spiral import nn, optim
model = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 3))
opt = optim.AdamW(model.parameters(), lr=0.05)
x = sp.random.normal((64, 4))
y = sp.argmax(x[:, :3], axis=-1)
for _ in range(60):
    loss = nn.functional.cross_entropy(model(x), y)
    opt.zero_grad(); loss.backward(); opt.step()
assert loss.item() < 0.3, loss
print(sp.__file__, sp.explain("gelu", x).chosen.backend)
"""


# for builds only: at import it means the one to use
ISA = {"SPIRAL_ISA": os.environ["SPIRAL_ISA"]} if "SPIRAL_ISA" in os.environ else {}


class Skipped(Exception):
    """A tool is missing."""


def run(command: list[str | Path], cwd: Path = ROOT, **variables: str) -> str:
    """Runs a command and returns what it printed; an error shows it."""
    hidden = ("PYTHONPATH", "CXX", "SPIRAL_ISA")
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | variables
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def make_environment(folder: Path, *packages: str | Path, python: str = sys.executable) -> Path:
    """A virtual environment with these packages; returns its Python."""
    run([python, "-m", "venv", folder])
    inside = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if packages:
        run([inside, "-m", "pip", "install", "-q", *packages])
    return inside


def copy_tree(folder: Path) -> Path:
    """The tree as git would check it out: leftovers of builds must not help."""
    tree = folder / "tree"
    for name in run(["git", "ls-files", "--cached", "--others", "--exclude-standard"]).splitlines():
        source, target = ROOT / name, tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.exists():
            shutil.copy2(source, target, follow_symlinks=False)
    return tree


def make_sdist(folder: Path) -> Path:
    """An sdist of the tree."""
    tree = copy_tree(folder)
    python = make_environment(folder / "build", "setuptools>=77", "numpy>=2.0")
    code = "import setuptools.build_meta as b; print('made', b.build_sdist('dist'))"
    return tree / "dist" / run([python, "-c", code], cwd=tree).split()[-1]


def make_wheel(folder: Path, sdist: Path, **variables: str) -> Path:
    """A wheel built from the sdist alone."""
    python = make_environment(folder / "wheel-maker")
    out = folder / "wheels"
    run([python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", out, sdist], cwd=folder, **ISA, **variables)
    return next(out.glob("*.whl"))


def wheel(folder: Path) -> str:
    sdist = make_sdist(folder)
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "kernels").rglob("*") if p.suffix in (".cpp", ".h")}
    assert sources <= packed, f"the sdist lacks {sorted(sources - packed)}"
    made = make_wheel(folder, sdist)
    inside = set(zipfile.ZipFile(made).namelist())
    wanted = {f"spiral/{s}" for s in sources} | {"spiral/py.typed", "spiral/backends/cpu/__init__.py"}
    assert wanted <= inside, f"the wheel lacks {sorted(wanted - inside)}"
    assert any(name.startswith("spiral/_native_") for name in inside), "the wheel holds no extension"
    python = make_environment(folder / "bare", "numpy", "ml_dtypes")
    run([python, "-m", "pip", "install", "-q", "--no-deps", made])
    return run([python, "-c", TRAIN], cwd=folder, SPIRAL_REQUIRE_NATIVE="1")


def no_compiler(folder: Path) -> str:
    sdist = make_sdist(folder)
    tools = folder / "no-tools"
    tools.mkdir()
    made = make_wheel(folder, sdist, PATH=str(tools))
    assert not any(n.startswith("spiral/_native_") for n in zipfile.ZipFile(made).namelist()), "something was compiled"
    python = make_environment(folder / "bare", "numpy", "ml_dtypes")
    run([python, "-m", "pip", "install", "-q", "--no-deps", made])
    doctor = run([python, "-m", "spiral.cli", "doctor"], cwd=folder)
    assert "NumPy only: the C++ extension was not built" in doctor, doctor
    return run([python, "-c", TRAIN], cwd=folder)


def clang(folder: Path) -> str:
    if not shutil.which("clang++"):
        raise Skipped("there is no clang++")
    made = make_wheel(folder, make_sdist(folder), CXX="clang++")
    python = make_environment(folder / "with-clang", "numpy", "ml_dtypes", "pytest")
    run([python, "-m", "pip", "install", "-q", "--no-deps", made])
    tests = folder / "tests"
    shutil.copytree(ROOT / "tests" / "core", tests)  # away from the sources, so that the wheel is what is tested
    command = [python, "-m", "pytest", "-q", "--import-mode=importlib", tests / "test_op_conformance.py"]
    return run([python, "-c", TRAIN], cwd=folder, SPIRAL_REQUIRE_NATIVE="1") + run(command, folder).splitlines()[-1]


def aarch64(folder: Path) -> str:
    compiler = "aarch64-linux-gnu-g++"
    if not shutil.which(compiler):
        raise Skipped(f"there is no {compiler}")
    python = make_environment(folder / "build", "setuptools>=77", "numpy>=2.0")
    out = ["--build-lib", folder / "lib", "--build-temp", folder / "temp"]
    run(
        [python, "setup.py", "-q", "build_ext", *out],
        CXX=compiler,
        SPIRAL_ISA="baseline",
        CXXFLAGS="-Werror=array-bounds",
    )
    built = next((folder / "lib").rglob("_native_baseline*"))
    assert built.read_bytes()[18:20] == b"\xb7\x00", "not an ELF file for AArch64"  # e_machine
    return built.name


def pythons(folder: Path) -> str:
    given = [p for p in os.environ.get("SPIRAL_PYTHONS", "").split(":") if p]
    if not given:
        raise Skipped("SPIRAL_PYTHONS names none")
    said = []
    for k, interpreter in enumerate(given):
        tree = copy_tree(folder / str(k))
        python = make_environment(folder / str(k) / "env", python=interpreter)
        run([python, "-m", "pip", "install", "-q", "-e", f"{tree}[test]"], cwd=tree, SPIRAL_REQUIRE_NATIVE="1", **ISA)
        ran = run([python, "-m", "pytest", "-q", "-m", "not slow and not gpu", "tests"], cwd=tree)
        said.append(f"{interpreter}: {ran.splitlines()[-1]}")
    return "\n".join(said)


CASES: dict[str, Callable[[Path], str]] = {
    "wheel": wheel, "no-compiler": no_compiler, "clang": clang, "aarch64": aarch64, "pythons": pythons,
}  # fmt: skip


def main() -> None:
    """Run the named cases, or all."""
    for name in sys.argv[1:] or CASES:
        if name not in CASES:
            raise SystemExit(f"there is no case {name!r}; there are {', '.join(CASES)}")
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(f"{name}: {CASES[name](Path(folder)).strip()}", flush=True)
            except Skipped as reason:
                print(f"{name}: skipped: {reason}", flush=True)


if __name__ == "__main__":
    main()
