"""Without the optional packages: what imports, what runs, and what is said where one is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spiral.cli.main import main

TEXT = "".join(f"line {i}: the cat number {i % 7} sat on mat {i % 5}.\n\n" for i in range(300))
TINY = ["model.context_length=16", "model.n_layer=1", "model.n_head=2", "model.n_kv_head=1", "model.dim=32",
        "model.ffn_dim=32", "data.vocab_size=270", "run.batch_size=4", "run.eval_every=0", "run.steps=3"]  # fmt: skip
OPTIONAL = ("safetensors", "gguf", "rich", "yaml", "tokenizers", "matplotlib", "scipy_openblas32", "torch", "cupy",
            "triton", "pytest")  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    (folder / "text.txt").write_text(TEXT)
    assert main(["train", *TINY, "--data", str(folder / "text.txt"), f"run.out={folder / 'model'}"]) == 0
    assert main(["export", str(folder / "model"), "--type", "F16"]) == 0
    return folder / "model"


def without(packages: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process where some packages cannot be imported, as if they were not installed."""
    block = (
        "import importlib.abc, importlib.util, sys\n"
        "class Missing(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {packages!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "found = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda n, p=None: None if n.split('.')[0] in {packages!r} else found(n, p)\n"
    )
    return subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True, check=False)


def command(packages: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    return without(packages, f"from spiral.cli.main import main\nsys.exit(main({list(arguments)!r}))\n")


def test_tensors_modules_and_optimizers_need_numpy_and_ml_dtypes_only() -> None:
    code = (
        "import numpy as np, spiral as sp\n"
        "from spiral import nn, optim\n"
        "import spiral.data, spiral.io, spiral.models, spiral.text, spiral.train, spiral.cli.main\n"
        "model = nn.Linear(4, 2)\n"
        "opt = optim.AdamW(model.parameters(), lr=0.1)\n"
        "nn.functional.cross_entropy(model(sp.ones((3, 4))), sp.asarray(np.array([0, 1, 0]))).backward()\n"
        "opt.step()\n"
        "foreign = sorted({m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names)\n"
        "                 - {'numpy', 'ml_dtypes', 'spiral', '__main__', '__mp_main__', 'sitecustomize'})\n"
        "print([m for m in foreign if not m.startswith(('_', 'spiral'))])\n"
    )
    done = without(OPTIONAL, code)
    assert done.returncode == 0 and done.stdout == "[]\n", done.stderr + done.stdout


@pytest.mark.parametrize(
    ("package", "arguments", "remedy"),
    [
        ("tokenizers", ("eval", "MODEL"), "pip install 'spiral[text]'"),
        ("tokenizers", ("train", "--data", "TEXT", "run.out=RUN"), "pip install 'spiral[text]'"),
        ("gguf", ("export", "MODEL"), "pip install gguf"),
        ("gguf", ("eval", "MODEL/model-f16.gguf"), "pip install gguf"),
        ("rich", ("train", "--data", "TEXT", "run.out=RUN"), "pip install rich"),
        ("rich", ("demo", "--out", "RUN"), "pip install rich"),
        ("yaml", ("train", "run.steps=3"), "pip install pyyaml"),
        ("safetensors", ("train", "--data", "TEXT", "run.out=RUN", *TINY), "pip install safetensors"),
    ],
)
def test_command_that_needs_a_missing_package_says_how_to_get_it(
    package: str, arguments: tuple[str, ...], remedy: str, model: Path, tmp_path: Path
) -> None:
    places = {"MODEL": str(model), "TEXT": str(model.parent / "text.txt"), "RUN": str(tmp_path / "run")}
    given = [a for argument in arguments for a in [argument]]
    for name, place in places.items():
        given = [a.replace(name, place) for a in given]
    done = command((package,), *given)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr
    assert f"needs the package `{package}`, which is not installed; run `{remedy}`" in done.stderr


def test_training_without_matplotlib_says_that_the_curve_is_missing(model: Path, tmp_path: Path) -> None:
    text = str(model.parent / "text.txt")
    done = command(("matplotlib",), "train", *TINY, "--data", text, f"run.out={tmp_path / 'run'}")
    assert done.returncode == 0 and "the loss curve (PNG) needs the package `matplotlib`" in done.stdout
    assert (tmp_path / "run" / "card.md").exists() and not (tmp_path / "run" / "loss.png").exists()


def test_doctor_runs_without_anything_and_says_what_each_package_is_for() -> None:
    done = command(OPTIONAL, "doctor")
    assert done.returncode == 0, done.stderr
    missing = done.stdout.split("\nmissing\n")[1].split("\nprocessor\n")[0]
    for name in ("safetensors", "gguf", "rich", "pyyaml", "tokenizers", "matplotlib"):
        assert f"  {name}" in missing
    assert missing.count("without it: ") == len(missing.splitlines()) and "pip install 'spiral[text]'" in missing


@pytest.mark.slow
def test_a_new_virtual_environment_with_numpy_and_ml_dtypes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "v")], check=True)
    python = tmp_path / "v" / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", "numpy", "ml_dtypes"], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no package index can be reached: {done.stderr.decode()[-200:]}")
    here = Path(__file__).parents[2]
    variables = {**os.environ, "PYTHONPATH": str(here)}
    code = "import spiral as sp; print((sp.ones((2, 3)) @ sp.ones((3, 2))).tolist())"
    done = subprocess.run([python, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout == "[[3.0, 3.0], [3.0, 3.0]]\n"
    done = subprocess.run(
        [python, "-m", "spiral.cli", "train", "run.steps=1"], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "pip install pyyaml" in done.stderr and done.stderr.count("\n") == 1
