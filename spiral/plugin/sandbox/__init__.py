"""Plugins in processes of their own, with limits, in any language; see ``docs/sandbox.md``.

from spiral.plugin.sandbox import Limits, SandboxedPlugin

plugin = SandboxedPlugin.from_file("untrusted.py", limits=Limits(memory_bytes=256 << 20))
registry.register(plugin)
"""

from spiral.plugin.sandbox.child import why_unavailable
from spiral.plugin.sandbox.errors import (
    LimitExceeded,
    PluginCallError,
    PluginDied,
    PluginNotRunning,
    ProtocolError,
    SandboxError,
    SandboxUnavailable,
)
from spiral.plugin.sandbox.limits import Limits
from spiral.plugin.sandbox.plugin import SandboxedPlugin
from spiral.plugin.sandbox.protocol import Array, WireError

__all__ = [
    "Array", "LimitExceeded", "Limits", "PluginCallError", "PluginDied", "PluginNotRunning", "ProtocolError",
    "SandboxError", "SandboxUnavailable", "SandboxedPlugin", "WireError", "why_unavailable",
]  # fmt: skip
