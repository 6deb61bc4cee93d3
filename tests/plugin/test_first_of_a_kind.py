"""A plugin that is the first to use a kind does not own what spiral itself has of it."""

from __future__ import annotations

import subprocess
import sys

CODE = """
from spiral.plugin import Plugin, PluginMetadata, PluginRegistry
from spiral.registry import HOMES, complete_catalog

class First(Plugin):
    def metadata(self):
        return PluginMetadata("first", "1.0")
    def on_load(self, ctx):
        import spiral as sp
        ctx.register_optimizer("mine", lambda params: None)
        ctx.register_loss("mine", lambda x, y: x)
        ctx.register_dataset("mine", lambda: "")
        ctx.register_callback("mine", lambda: None)
        ctx.register_exporter("mine", lambda: None)
        ctx.register_module(sp.nn.ReLU, name="mine")
        for kind in HOMES:
            complete_catalog(kind)
        sp.add(sp.ones(2), 1.0)  # loads the backends

registry = PluginRegistry()
registry.register(First())
wrong = {kind: [n for n in complete_catalog(kind).owned_by("first") if n != "mine"] for kind in HOMES}
print({kind: names for kind, names in wrong.items() if names} or "nothing else is owned")
registry.unregister("first")
for kind, name in {"optimizer": "adamw", "loss": "cross_entropy", "dataset": "files", "command": "train",
                   "module": "linear", "backend": "numpy", "op": "add"}.items():
    assert name in complete_catalog(kind), (kind, name)
    assert "mine" not in complete_catalog(kind)
print("there")
"""


def test_what_spiral_has_stays_when_the_first_plugin_to_use_it_goes():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stdout == "nothing else is owned\nthere\n", done.stdout + done.stderr
