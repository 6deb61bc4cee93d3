"""Plugins in processes of their own, with limits, in any language; see ``docs/sandbox.md``.
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
from spiral.plugin.sandbox.protocol import Array, WireError

__all__ = [
    "Array", "LimitExceeded", "Limits", "PluginCallError", "PluginDied", "PluginNotRunning", "ProtocolError",
    "SandboxError", "SandboxUnavailable", "WireError", "why_unavailable",
]  # fmt: skip
