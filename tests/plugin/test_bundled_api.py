"""Bundled plugins are examples of what anybody can write: small, over the public API only, quiet when loaded."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from recorded_run import bundled

from spiral.plugin.sources import bundled_sources

FOLDER = Path(__file__).parents[2] / "plugins"
NAMES = sorted(p.parent.name for p in FOLDER.glob("*/__init__.py"))
PUBLIC = {
    "spiral", "spiral.data", "spiral.errors", "spiral.io", "spiral.models", "spiral.nn", "spiral.ops", "spiral.optim",
    "spiral.plugin", "spiral.text", "spiral.train",
}  # fmt: skip


def trees(name: str) -> list[tuple[Path, ast.Module]]:
    return [(p, ast.parse(p.read_text(encoding="utf-8"))) for p in sorted((FOLDER / name).rglob("*.py"))]


def exported(module: str) -> set[str]:
    """What a package offers: its ``__all__``, or the names in it without an underscore."""
    found = importlib.import_module(module)
    return set(getattr(found, "__all__", [n for n in dir(found) if not n.startswith("_") or n == "__version__"]))


def test_each_is_found():
    assert NAMES and NAMES == sorted(source.name for source in bundled_sources())


@pytest.mark.parametrize("name", NAMES)
def test_each_is_under_150_lines(name):
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path, _ in trees(name)}
    assert sum(lines.values()) < 150, lines


@pytest.mark.parametrize("name", NAMES)
def test_each_imports_only_what_packages_export(name):
    for path, tree in trees(name):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    assert not alias.name.startswith("spiral.") or alias.name in PUBLIC, f"{path}: {alias.name}"
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "spiral":
                own = node.module.startswith(f"spiral.plugins.{name}")
                assert own or node.module in PUBLIC, f"{path}:{node.lineno}: {node.module} is no public package"
                hidden = {alias.name for alias in node.names} - exported(node.module)
                assert own or not hidden, f"{path}:{node.lineno}: {node.module} does not export {hidden}"


@pytest.mark.parametrize("name", NAMES)
def test_each_uses_no_underscore_name_of_another_object(name):
    for path, tree in trees(name):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                mine = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                public = node.attr in ("__name__", "__version__")
                builtin = isinstance(node.value, ast.Call)  # super().__init__()
                assert mine or public or builtin, f"{path}:{node.lineno}: .{node.attr}"


@pytest.mark.parametrize("name", NAMES)
def test_each_explains_every_option_of_what_it_brings(name):
    import inspect

    from spiral.registry import complete_catalog

    with bundled(name):
        callbacks = complete_catalog("callback")
        for each in callbacks.owned_by(name):
            made = callbacks[each]
            made()  # every option has a default
            for option in inspect.signature(made).parameters.values():
                assert option.annotation is not inspect.Parameter.empty, f"{each}: {option.name} has no type"
                assert f"\n    {option.name}: " in inspect.cleandoc(made.__doc__), (
                    f"{each}: {option.name} is not explained"
                )


def test_loading_all_of_them_imports_nothing_heavy_and_starts_nothing():
    code = (
        "import sys, threading\n"
        "from spiral.plugin import PluginRegistry\n"
        "from spiral.plugin.sources import bundled_sources\n"
        "r = PluginRegistry()\n"
        "for s in bundled_sources(): r.register(s.make(), source=s)\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'matplotlib', 'rich', 'tensorboard', 'torch'}))\n"
        "print('http.server' in sys.modules, threading.active_count())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False 1"], done.stdout + done.stderr
