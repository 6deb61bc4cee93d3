"""What can go wrong with a sandboxed plugin, each with its own type."""

from __future__ import annotations

from spiral.errors import SpiralError


class SandboxError(SpiralError, RuntimeError):
    """Base of everything a sandboxed plugin can do wrong.

    Attributes:
        plugin: its id, or its command while it has not told its id.
        stderr: the end of what it wrote to its standard error.
    """

    def __init__(self, message: str, *, plugin: str = "", stderr: str = "") -> None:
        super().__init__(message)
        self.plugin = plugin
        self.stderr = stderr


class SandboxUnavailable(SandboxError):
    """This system cannot enforce the limits; the message says what is missing. Nothing was run."""


class LimitExceeded(SandboxError):
    """A plugin broke one of its limits and was killed.

    Attributes:
        limit: the field of `Limits` that was broken, or ``processes``.
        allowed: its value.
        received: what the plugin did.
    """

    def __init__(
        self, message: str, *, limit: str, allowed: float, received: str, plugin: str = "", stderr: str = ""
    ) -> None:
        super().__init__(message, plugin=plugin, stderr=stderr)
        self.limit = limit
        self.allowed = allowed
        self.received = received


class ProtocolError(SandboxError):
    """A plugin sent something that is not the protocol and was killed."""


class PluginDied(SandboxError):
    """A plugin's process ended by itself.

    Attributes:
        status: its exit status; ``-n``: it was killed by signal n; None: another part of this program took the status.
    """

    def __init__(self, message: str, *, status: int | None, plugin: str = "", stderr: str = "") -> None:
        super().__init__(message, plugin=plugin, stderr=stderr)
        self.status = status


class PluginCallError(SandboxError):
    """A plugin answered with an error; it is alive and can be called again.

    Attributes:
        code: the JSON-RPC error code.
        remote_type: the name of the exception that its code raised, if it told.
        remote_traceback: where, if it told.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int,
        plugin: str = "",
        stderr: str = "",
        remote_type: str = "",
        remote_traceback: str = "",
    ) -> None:
        super().__init__(message, plugin=plugin, stderr=stderr)
        self.code = code
        self.remote_type = remote_type
        self.remote_traceback = remote_traceback


class PluginNotRunning(SandboxError):
    """A plugin was asked for something although its process has ended; ``__cause__`` says why it ended."""
