"""Installed plugins and backends that are broken in every way: the program goes on, and says what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def install(folder: Path, name: str, code: str, **groups: str) -> None:
    """A distribution with one module and entry points, as pip would leave it."""
    (folder / f"{name}.py").write_text(textwrap.dedent(code))
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    points = "".join(f"[spiral.{group}]\n{lines}\n" for group, lines in groups.items())
    (info / "entry_points.txt").write_text(points)


def run(folder: Path, program: str, **variables: str) -> str:
    """What a program prints that finds what the folder holds."""
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "SPIRAL_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PLUGIN = """
from spiral.plugin import Plugin, PluginMetadata

class It(Plugin):
    def metadata(self):
        return PluginMetadata("{id}", "1.0")
    def on_load(self, ctx):
        {on_load}
"""

BROKEN = {
    "exits": "import sys\nsys.exit(3)",
    "recurses": "def f():\n    f()\nf()",
    "has_no_syntax": "def (",
    "is_mute": "class E(Exception):\n    def __str__(self):\n        raise RuntimeError\nraise E()",
    "is_hostile": (
        "class It:\n    def __repr__(self):\n        raise RuntimeError('repr')\n"
        "    def __eq__(self, other):\n        raise RuntimeError('eq')\nit = It()"
    ),
    "quits_in_on_load": PLUGIN.format(id="quits_in_on_load", on_load="raise SystemExit(3)"),
    "has_bad_metadata": PLUGIN.format(id=" ", on_load="pass"),
}


def test_broken_plugins_are_set_aside_and_the_others_load(tmp_path):
    for name, code in BROKEN.items():
        point = f"{name}:it" if name == "is_hostile" else f"{name}:It"
        install(tmp_path, name, code, plugins=f"{name} = {point}")
    install(tmp_path, "good", PLUGIN.format(id="good", on_load="pass"), plugins="good = good:It")
    install(tmp_path, "namesake", "1 / 0", plugins="exits = namesake")
    (tmp_path / "paths").mkdir()
    (tmp_path / "paths" / "no_plugin.py").write_text("number = 1\n")
    (tmp_path / "paths" / "プラグイン.py").write_text(PLUGIN.format(id="プラグイン", on_load="pass"))
    out = run(
        tmp_path,
        """
        from spiral.plugin import init_plugin_system
        registry = init_plugin_system()
        assert registry.get("good") is not None and registry.get("プラグイン") is not None
        for name, found in sorted(registry.quarantine.items()):
            assert isinstance(found.traceback, str) and "Traceback" in found.traceback or "Error" in found.traceback
            print(name, "|", found.reason)
        """,
        SPIRAL_PLUGIN_PATH=str(tmp_path / "paths"),
        PYTHONUTF8="1",
    )
    lines = dict(line.split(" | ", 1) for line in out.splitlines())
    assert {name.split(" ")[0] for name in lines} == {*BROKEN, "no_plugin"} and len(lines) == len(BROKEN) + 2
    reasons = "\n".join(lines.values())
    for text in ("SystemExit: 3", "RecursionError", "SyntaxError", "its message raised RuntimeError", "one Plugin sub"):
        assert text in reasons, text


def test_a_plugin_of_the_search_path_that_was_loaded_by_hand_is_no_fault(tmp_path):
    path = tmp_path / "by_hand.py"
    path.write_text(PLUGIN.format(id="by_hand", on_load="pass"))
    run(
        tmp_path,
        f"""
        from spiral.plugin import init_plugin_system, global_registry
        assert global_registry().load_path({str(path)!r}) == ["by_hand"]
        registry = init_plugin_system()
        assert not registry.quarantine and registry.get("by_hand") is not None, dict(registry.quarantine)
        """,
        SPIRAL_PLUGIN_PATH=str(path),
    )


def test_a_plugin_that_was_left_out_loads_when_it_is_wanted(tmp_path):
    install(tmp_path, "wanted", PLUGIN.format(id="wanted", on_load="pass"), plugins="wanted = wanted:It")
    run(
        tmp_path,
        """
        import os
        from spiral.plugin import init_plugin_system
        assert init_plugin_system().get("wanted") is None
        del os.environ["SPIRAL_PLUGINS"]
        assert init_plugin_system().get("wanted") is not None
        """,
        SPIRAL_PLUGINS="+other",
    )


OP = """
from spiral.backend import Spec
from spiral.op import op

@op("doubled_by_package(x) -> y")
class Doubled:
    '''Twice x.'''
    @staticmethod
    def meta(x):
        return Spec(tuple(x.shape), x.dtype)
    @staticmethod
    def oracle(x):
        return 2 * x
"""


def test_an_op_declared_at_import_comes_back_with_its_plugin(tmp_path):
    install(tmp_path, "doubles", OP + PLUGIN.format(id="doubles", on_load="pass"), plugins="doubles = doubles:It")
    run(
        tmp_path,
        """
        import spiral as sp
        from spiral.op import OPS
        from spiral.plugin import init_plugin_system
        for _ in range(3):
            registry = init_plugin_system()
            assert sp.ops.doubled_by_package(sp.ones(2)).tolist() == [2.0, 2.0]
            assert OPS.owner_of("doubled_by_package") == "doubles"
            registry.shutdown()
            assert "doubled_by_package" not in OPS
        assert (sp.ones(2) + 1).tolist() == [2.0, 2.0]
        """,
    )


BACKEND = """
from spiral.backend import ANY, DeviceInfo, Kernel
class B:
    name, device_type, priority = "{name}", "card", 5
    def probe(self):
        {probe}
    def kernels(self):
        {kernels}
backend = B()
"""
BAD_BACKENDS = {
    "fails_at_import": ("1 / 0", "ZeroDivisionError"),
    "exits_at_import": ("raise SystemExit(3)", "SystemExit"),
    "fails_in_probe": (BACKEND.format(name="b1", probe="1 / 0", kernels="return []"), "ZeroDivisionError"),
    "probes_nothing": (BACKEND.format(name="b2", probe="return None", kernels="return []"), "received None"),
    "fails_in_kernels": (
        BACKEND.format(name="b3", probe="return [DeviceInfo('card', 0)]", kernels="yield 1 / 0"),
        "ZeroDivisionError",
    ),
    "gives_no_kernels": (BACKEND.format(name="b4", probe="return []", kernels="yield 'add'"), "received 'add'"),
    "lacks_a_part": ("class backend:\n    name = 'b5'", "lacks a part of the contract"),
    "cpu": (BACKEND.format(name="cpu", probe="return []", kernels="return []"), "is loaded already"),
    "numpy": ("1 / 0", "ZeroDivisionError"),
}


def test_broken_backends_are_set_aside_and_leave_no_devices(tmp_path):
    for name, (code, _) in BAD_BACKENDS.items():
        module = f"backend_that_{name}"
        install(tmp_path, module, code, backends=f"{name} = {module}:backend")
    good = BACKEND.format(name="good", probe="return [DeviceInfo('card', 1)]", kernels="return []")
    install(tmp_path, "good_backend", good, backends="good = good_backend:backend")
    out = run(
        tmp_path,
        """
        import spiral as sp
        assert (sp.ones(3) + 1).tolist() == [2.0, 2.0, 2.0]
        from spiral.device import known_devices
        assert [str(d) for d in known_devices()] == ["cpu", "card:1"], known_devices()
        assert {"good", "numpy"} <= {n for n, e in sp.backends().items() if e.backend is not None}
        for name, entry in sp.backends().items():
            if entry.backend is None:
                print(name, "|", entry.unavailable.reason.strip().splitlines()[-1])
        from spiral.plugin import global_registry
        registry = global_registry()
        registry.unregister("backend-numpy")
        if registry.get("backend-cpu"):
            registry.unregister("backend-cpu")
        try:
            sp.ones(3) + 1
        except sp.errors.CapabilityError as error:
            assert "no backend" in str(error)
        else:
            raise AssertionError("somebody computes")
        registry.shutdown()
        assert (sp.ones(3) + 1).tolist() == [2.0, 2.0, 2.0]  # found again
        """,
    )
    lines = dict(line.split(" | ", 1) for line in out.splitlines())
    assert len(lines) == len(BAD_BACKENDS)
    for name, (_, text) in BAD_BACKENDS.items():
        reason = lines.get(name) or lines[f"{name} (not loaded)"]
        assert text in reason, (name, reason)


def test_backends_found_by_an_op_in_on_load_are_not_the_plugins(tmp_path):
    install(tmp_path, "breaks", "1 / 0", backends="breaks = breaks:backend")
    run(
        tmp_path,
        """
        import spiral as sp
        from spiral.plugin import Plugin, PluginMetadata, global_registry
        class First(Plugin):
            def metadata(self):
                return PluginMetadata("first", "1.0")
            def on_load(self, ctx):
                assert (sp.ones(1) + 1).item() == 2.0
        registry = global_registry()
        registry.register(First())
        before = set(sp.backends())
        assert "breaks" in before and registry.get("backend-numpy") is not None
        registry.unregister("first")
        assert set(sp.backends()) == before and registry.get("backend-numpy") is not None
        """,
    )


@pytest.mark.parametrize("program", ["import spiral", "import spiral as sp; sp.ones(1)"])
def test_import_alone_loads_no_plugins(tmp_path, program):
    install(tmp_path, "never", "raise SystemExit(3)", plugins="never = never:It", backends="never = never:backend")
    run(tmp_path, f"{program}\nimport sys\nassert 'never' not in sys.modules and 'spiral.plugin' not in sys.modules")
