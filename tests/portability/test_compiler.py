"""What installing does with, without and with a broken C++ compiler. Nothing is compiled here."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="77", reason="building needs setuptools")
if os.path.isabs((sysconfig.get_config_var("CXX") or "c++").split()[0]):
    pytest.skip("this Python names its compiler by an absolute path: it cannot be hidden", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]


def build(tmp_path, **variables):
    """Runs the build of the extensions, with nothing on PATH."""
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("CXX", "CC") and not k.startswith("SPIRAL_")}
    environment.update(PATH=str(empty), **variables)
    out = tmp_path / "lib"
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(out), "--build-temp", str(tmp_path / "temp")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr, sorted(p.name for p in out.rglob("*") if p.is_file())


def test_without_a_compiler_nothing_is_built_and_that_is_said(tmp_path):
    status, said, built = build(tmp_path)
    assert (status, built) == (0, [])
    assert "no C++ compiler found; the NumPy kernels will be used" in said


def test_without_a_compiler_a_required_extension_is_an_error(tmp_path):
    status, said, _ = build(tmp_path, SPIRAL_REQUIRE_NATIVE="1")
    assert status != 0
    assert "SPIRAL_REQUIRE_NATIVE=1, and no C++ compiler was found" in said


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for the compiler")
def test_a_compiler_that_fails_fails_the_installation_with_its_message(tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'broken: out of cheese' >&2\nexit 7\n")
    broken.chmod(0o755)
    status, said, built = build(tmp_path, CXX=str(broken), SPIRAL_ISA="baseline")
    assert status != 0 and built == []
    assert "out of cheese" in said


def test_a_compiler_that_is_asked_for_and_missing_is_not_replaced_by_another(tmp_path):
    status, said, _ = build(tmp_path, CXX="no-such-c++ -O2")
    assert status != 0
    assert "CXX=no-such-c++ -O2: there is no such command" in said


def test_an_unknown_instruction_set_is_named_with_those_that_exist(tmp_path):
    status, said, _ = build(tmp_path, CXX=sys.executable, SPIRAL_ISA="avx9")
    assert status != 0
    assert "expected native or some of baseline, avx2, avx512; received 'avx9'" in said
