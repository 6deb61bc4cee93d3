"""What a type checker knows about a user's script. The cache is that of `make lint`, so this is quick after it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("mypy", reason="mypy is not installed")

SCRIPT = """
import numpy as np

import spiral as sp
from spiral import Tensor, nn, optim


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(784, 256), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = nn.functional.relu(self.fc1(x))
        return nn.functional.softmax(self.fc2(hidden))


model = MLP()
opt = optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
x, y = np.zeros((64, 784), np.float32), np.zeros(64, np.int64)
loss: Tensor = nn.functional.cross_entropy(model(sp.asarray(x)), sp.asarray(y))
opt.zero_grad()
loss.backward()
opt.step()
with sp.no_grad(), sp.prefer("numpy"):
    z = sp.reshape(sp.permute_dims(sp.arange(6), (0,)), (2, 3)) * 2 + 1
"""


TYPES = {
    "z": "spiral.tensor.Tensor",
    "2.0 * z - z @ z.T": "spiral.tensor.Tensor",
    "z == z": "spiral.tensor.Tensor",
    "z[0].sum(axis=0)": "spiral.tensor.Tensor",
    "z.grad": "spiral.tensor.Tensor | None",
    "model.fc1.weight": "spiral.nn.parameter.Parameter",
    "sp.nn.Linear(3, 4)": "spiral.nn.linear.Linear",
    "sp.float32": "spiral.dtype.DType",
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What mypy says about the script, by line: the script itself, each expression, and a name that does not exist."""
    path = tmp_path_factory.mktemp("user") / "script.py"
    path.write_text(SCRIPT + "".join(f"reveal_type({expression})\n" for expression in TYPES) + "sp.relux(z)\n")
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return dict(re.findall(r"script\.py:(\d+): (.*)", done.stdout))


def test_a_script_in_the_documented_style_is_strictly_typed(said):
    assert [line for line in said if int(line) <= SCRIPT.count("\n")] == []


@pytest.mark.parametrize("expression", TYPES)
def test_expressions_have_types_worth_having(said, expression):
    line = SCRIPT.count("\n") + 1 + list(TYPES).index(expression)
    assert said[str(line)] == f'note: Revealed type is "{TYPES[expression]}"'


def test_a_misspelt_name_is_reported(said):
    assert 'has no attribute "relux"' in said[str(SCRIPT.count("\n") + 1 + len(TYPES))]
