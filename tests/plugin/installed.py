"""Distributions with entry points, laid out by hand as an installer would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import spiral

ROOT = Path(spiral.__file__).parents[1]

GOOD = """
from spiral.plugin import Plugin, PluginMetadata
from spiral.train import Callback
class Installed(Plugin):
    def metadata(self):
        return PluginMetadata("{id}", "1.0"){more}
    def on_load(self, ctx):
        ctx.register_callback("callback of {id}", Callback)
        ctx.register_service("service of {id}", self)
        {load}
"""


def plugin(plugin_id: str, more: str = "", load: str = "pass") -> str:
    """The source of a plugin that registers a callback and a service; ``more`` completes its metadata."""
    return GOOD.format(id=plugin_id, more=more, load=load)


def install(site: Path, name: str, source: str, target: str = "") -> None:
    """A distribution of one module of the same name; its entry point names a target, or the class ``Installed``."""
    if source:
        (site / f"{name}.py").write_text(dedent(source))
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[spiral.plugins]\n{name} = {target or f'{name}:Installed'}\n")


def python(site: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs code where these distributions are installed."""
    path = os.pathsep.join([str(site), str(ROOT)])
    unset = {k: v for k, v in os.environ.items() if not k.startswith("SPIRAL_PLUGIN")}
    environment = {**unset, "PYTHONPATH": path, **variables}
    return subprocess.run([sys.executable, "-c", dedent(code)], env=environment, capture_output=True, text=True,
                          check=False)  # fmt: skip


LOOK = """
import json, sys, time
import spiral
early = [m for m in sys.modules if m.startswith(("bulk_", "bad_", "good_"))]
from spiral.plugin import init_plugin_system
from spiral.registry import HOMES, complete_catalog, snapshot
for kind in HOMES: complete_catalog(kind)
start = time.process_time()
registry = init_plugin_system()
took = time.process_time() - start
again = registry.initialize_all()
print(json.dumps({
    "early": early, "took": took, "again": again, "loaded": [m.id for m in registry.list_plugins()],
    "quarantine": {n: [q.origin, q.reason, q.traceback] for n, q in registry.quarantine.items()},
    "owners": sorted({o for names in snapshot().values() for layers in names.values() for _, o in layers}),
}))
"""


def look(site: Path, **variables: str) -> dict[str, Any]:
    """What becomes of everything that is installed."""
    done = python(site, LOOK, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "log": done.stderr}
