"""The documentation is true: every code block of every page runs, every docstring's example gives what it says."""

import doctest
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import spiral

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(spiral.__path__, "spiral.")
    if not m.name.startswith(("spiral.kernels", "spiral._native")) and not m.name.endswith("__main__")
)
PUBLIC = [
    "spiral", "spiral.nn", "spiral.nn.functional", "spiral.nn.init", "spiral.optim", "spiral.data", "spiral.train",
    "spiral.io", "spiral.models", "spiral.text", "spiral.random", "spiral.errors", "spiral.backend", "spiral.testing",
]  # fmt: skip
FRONT_PAGE = [
    "spiral.Tensor", "spiral.asarray", "spiral.explain", "spiral.prefer", "spiral.grad", "spiral.value_and_grad",
    "spiral.no_grad", "spiral.checkpoint", "spiral.nn.Module", "spiral.nn.Linear",
    "spiral.nn.functional.scaled_dot_product_attention", "spiral.nn.functional.cross_entropy", "spiral.optim.AdamW",
    "spiral.train.Trainer", "spiral.io.export_llama_gguf", "spiral.text.Tokenizer", "spiral.models.Llama",
]  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_code_block_of_a_page_runs(page, tmp_path):
    command = [sys.executable, str(Path(__file__).with_name("run_page.py")), str(page)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ok\n"


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_give_what_they_say(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def public_members(name):
    """Functions and classes that a module offers, and the methods and properties of the classes."""
    module = importlib.import_module(name)
    for member in getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]:
        found = getattr(module, member)
        if not (inspect.isclass(found) or inspect.isfunction(found)) or not found.__module__.startswith("spiral"):
            continue
        yield f"{name}.{member}", found
        if inspect.isclass(found):
            for method in vars(found):
                if not method.startswith("_") and callable(getattr(found, method, None)):
                    yield f"{name}.{member}.{method}", getattr(found, method)
                elif not method.startswith("_") and isinstance(vars(found)[method], property):
                    yield f"{name}.{member}.{method}", vars(found)[method]


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_has_a_docstring(name):
    # a dataclass without one gets its signature as docstring
    bare = [
        n
        for n, o in public_members(name)
        if not inspect.getdoc(o) or inspect.getdoc(o).startswith(n.split(".")[-1] + "(")
    ]
    assert bare == []


@pytest.mark.parametrize("name", FRONT_PAGE)
def test_what_the_front_page_shows_is_documented_in_full(name):
    module, _, member = name.rpartition(".")
    found = getattr(importlib.import_module(module), member)
    doc = inspect.getdoc(found)
    assert "Example:" in doc and ">>>" in doc and "+SKIP" not in doc
    parameters = inspect.signature(found).parameters if name not in ("spiral.Tensor", "spiral.nn.Module") else {}
    undocumented = [p for p in parameters if f"{p}:" not in doc.replace("*", "")]
    assert undocumented == []


def test_an_example_that_prints_something_else_is_noticed():
    from run_page import compare

    with pytest.raises(AssertionError, match=r"page\.md:3: the page says"):
        compare("0.5\n", "0.6\n", "page.md:3")
