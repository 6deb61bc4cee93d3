"""A copy of the package without the compiled extension: NumPy does all the work, and says so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAIN = """
import numpy as np
import spiral as sp
from spiral import nn, optim

sp.random.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3))
opt = optim.AdamW(model.parameters(), lr=0.05)
x = sp.random.normal((64, 4))
y = sp.argmax(x[:, :3], axis=-1)
for _ in range(60):
    loss = nn.functional.cross_entropy(model(x), y)
    opt.zero_grad(); loss.backward(); opt.step()
print(loss.item() < 0.3, sp.explain("gelu", x).chosen.backend, sp.memory())
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bare")
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "*.dylib", "__pycache__")
    shutil.copytree(ROOT / "spiral", folder / "spiral", ignore=ignored)
    return folder


# an editable installation finds what is missing in a copy in its own source tree
ALONE = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'Editable' not in getattr(f, '__name__', '')]\n"


def python(folder, code, **variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SPIRAL_")}
    environment.update(PYTHONPATH=str(folder), **variables)
    return subprocess.run(
        [sys.executable, "-c", ALONE + code], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_training_works_and_the_missing_kernels_are_logged_once(bare):
    done = python(bare, TRAIN)
    assert done.stdout == "True numpy {}\n", done.stderr
    assert done.stderr.count("NumPy does the work of the kernels, slower") == 1


def test_doctor_says_what_is_missing_and_what_to_do(bare):
    said = python(bare, "from spiral.cli.main import main; main(['doctor'])").stdout
    assert "NumPy only: the C++ extension was not built" in said
    assert "install a C++ compiler and run `pip install -e .` again" in said


def test_a_required_extension_that_is_missing_is_an_error_at_import(bare):
    done = python(bare, "import spiral", SPIRAL_REQUIRE_NATIVE="1")
    assert done.returncode != 0
    assert "SPIRAL_REQUIRE_NATIVE=1 requires it" in done.stderr


def test_asking_for_numpy_is_no_reason_to_complain():
    done = python(ROOT, TRAIN, SPIRAL_ISA="numpy")
    assert (done.stdout, done.stderr) == ("True numpy {}\n", "")
