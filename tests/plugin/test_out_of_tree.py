"""The example distribution: installed with pip it adds a module, an optimizer and a callback, and leaves no trace."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest

import spiral as sp
from spiral.errors import ArgumentError

ROOT = Path(sp.__file__).parents[1]
EXAMPLE = ROOT / "examples" / "spiral_extras"
LOOK = """
import json, sys
from spiral.plugin import init_plugin_system
from spiral.registry import HOMES, complete_catalog, snapshot
imported = "spiral_extras" in sys.modules
registry = init_plugin_system()
for kind in HOMES: complete_catalog(kind)
print(json.dumps({
    "imported before": imported, "plugins": [m.id for m in registry.list_plugins()],
    "quarantine": {n: q.traceback for n, q in registry.quarantine.items()},
    "world": {kind: {n: [o for _, o in ls] for n, ls in names.items()} for kind, names in snapshot().items()},
}))
"""
USE = """
import sys
sys.path[:0] = [{tests!r}]
import numpy as np, pathlib, tempfile
import spiral as sp
from spiral.nn.discovery import ModuleDiscoveryRegistry, ModulePipelineBuilder
from spiral.plugin import Telemetry, event_bus, init_plugin_system
from spiral.registry import HOMES, catalogs, complete_catalog, snapshot
from spiral.train import create_callback
from tiny_run import tiny_config, trained
registry = init_plugin_system()
for kind in HOMES: complete_catalog(kind)
assert "spiral_extras" in [m.id for m in registry.list_plugins()]

modules = ModuleDiscoveryRegistry.shared()
builder = ModulePipelineBuilder(modules).with_input((8, 4, 4))
model = builder.add_module("squeeze_excite", {{"channels": 8, "reduction": 4}}).build()
optimizer = complete_catalog("optimizer")["lamb"](model.parameters(), lr=0.1)
x = sp.asarray(np.random.default_rng(0).normal(size=(2, 8, 4, 4)).astype("float32"))
losses = []
for _ in range(20):
    optimizer.zero_grad()
    loss = sp.mean(model(x) ** 2)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < 0.9 * losses[0], losses

heard = []
with event_bus.subscribe(Telemetry, lambda e: heard.append(e.data)):
    folder = pathlib.Path(tempfile.mkdtemp())
    run = trained(tiny_config(folder, run={{"callbacks": [{{"weight_norms": {{"every": 4}}}}]}})).trainer
found = [e for e in run.metrics.read() if e["event"] == "weights"]
assert [e["step"] for e in found] == [4, 8, 12], found
assert sum(any(k.startswith("norm/") for k in data) for data in heard) == 3
assert all(0 < v < 0.5 for k, v in found[0].items() if k.startswith("update/"))

sp.add(sp.ones(2), 1.0)  # backends are plugins, and come with the first op
before = snapshot()
plugin, source = registry.get("spiral_extras"), registry.loaded("spiral_extras").source
registry.unregister("spiral_extras")
gone = snapshot()
assert not [n for names in gone.values() for n, ls in names.items() if any(o == "spiral_extras" for _, o in ls)]
for name, kind in (("squeeze_excite", "module"), ("lamb", "optimizer"), ("weight_norms", "callback")):
    assert name not in catalogs()[kind]
    try: complete_catalog(kind)[name]
    except KeyError as error: assert "there is no" in str(error)
    else: raise AssertionError(name)
registry.register(plugin, source=source)
registry.unregister("spiral_extras")
assert snapshot() == gone
print("used")
"""


class Environment:
    """A virtual environment that sees this one's packages and this checkout's spiral."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=os.name == "posix")
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        site = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        Path(site, "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.variables = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(self, *arguments: str, **variables: str) -> str:
        done = subprocess.run(
            [str(self.python), *arguments],
            env={**self.variables, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def look(self, **variables: str) -> dict:
        return json.loads(self.run("-c", LOOK, **variables))


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    for package in ("pip", "setuptools"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return Environment(tmp_path_factory.mktemp("environment") / "env")


def test_it_is_found_used_and_gone_without_trace(environment, tmp_path):
    empty = environment.look()
    assert "spiral_extras" not in empty["plugins"]
    source = tmp_path / "source"
    shutil.copytree(EXAMPLE, source)  # building writes into it
    environment.run(
        "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
        "--disable-pip-version-check", str(source),
    )  # fmt: skip

    there = environment.look()
    assert not there["imported before"] and not there["quarantine"]
    assert [p for p in there["plugins"] if p not in empty["plugins"]] == ["spiral_extras"]
    new = {
        (kind, name)
        for kind, names in there["world"].items()
        for name, owners in names.items()
        if "spiral_extras" in owners
    }
    assert new == {
        ("plugin", "spiral_extras"), ("module", "squeeze_excite"), ("optimizer", "lamb"), ("callback", "weight_norms"),
    }  # fmt: skip
    assert environment.run("-c", USE.format(tests=str(ROOT / "tests" / "train"))).endswith("used\n")
    left_out = environment.look(SPIRAL_PLUGINS="-spiral_extras")
    assert left_out["world"] == empty["world"] and not left_out["imported before"]

    environment.run("-m", "pip", "uninstall", "--quiet", "--yes", "spiral-extras")
    assert environment.look() == empty


# ---------------------------------------------------------------- what it brings is right
@pytest.fixture
def extras(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    import spiral_extras

    yield spiral_extras
    for name in [m for m in sys.modules if m.partition(".")[0] == "spiral_extras"]:
        monkeypatch.delitem(sys.modules, name)


def test_lamb_takes_the_steps_of_the_paper(extras):
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=(3, 4)), rng.normal(size=(5, 3, 4))
    lr, (b1, b2), eps, decay = 0.05, (0.9, 0.99), 1e-6, 0.1
    w, m, v = start.copy(), np.zeros((3, 4)), np.zeros((3, 4))
    for t, g in enumerate(grads, 1):  # algorithm 2 in float64
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        r = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * w
        w = w - lr * np.linalg.norm(w) / np.linalg.norm(r) * r
    p = sp.asarray(start.astype("float32"))
    p.requires_grad = True
    optimizer = extras.Lamb([p], lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay)
    for g in grads:
        p.grad = sp.asarray(g.astype("float32"))
        optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), w, rtol=2e-6, atol=2e-6)


def test_lamb_moves_a_parameter_that_is_zero_and_its_state_survives(extras):
    def fresh():
        p = sp.zeros((3,))
        p.requires_grad = True
        return p, extras.Lamb([p], lr=0.1, weight_decay=0.0)

    a, one = fresh()
    for _ in range(3):
        a.grad = sp.asarray([1.0, -2.0, 0.0], dtype=sp.float32)
        one.step()
    assert a.detach().numpy()[0] < 0 < a.detach().numpy()[1] and a.detach().numpy()[2] == 0
    b, two = fresh()
    b.detach().copy_(a.detach())
    two.load_state_dict(one.state_dict())
    for p, optimizer in ((a, one), (b, two)):
        p.grad = sp.asarray([0.5, 0.5, 0.5], dtype=sp.float32)
        optimizer.step()
    np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def test_squeeze_and_excitation_is_the_papers_formula_with_its_gradient(extras):
    x = np.random.default_rng(1).normal(size=(2, 8, 3, 5)).astype("float32")
    block = extras.SqueezeExcite(8, reduction=4)
    w = {name: p.detach().numpy().astype("float64") for name, p in block.named_parameters()}
    z = x.mean(axis=(2, 3), dtype="float64")
    hidden = np.maximum(z @ w["squeeze.weight"].T + w["squeeze.bias"], 0)
    s = 1 / (1 + np.exp(-(hidden @ w["excite.weight"].T + w["excite.bias"])))
    given = sp.asarray(x)
    given.requires_grad = True
    out = block(given)
    np.testing.assert_allclose(out.detach().numpy(), x * s[..., None, None], rtol=1e-5, atol=1e-6)
    sp.sum(out).backward()
    assert given.grad.shape == x.shape and all(p.grad is not None for p in block.parameters())
    with pytest.raises(ArgumentError, match="received 0 and 16"):
        extras.SqueezeExcite(0)
