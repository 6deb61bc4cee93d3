"""The process of a sandboxed plugin: started bare, ended for certain, always reaped."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spiral.plugin.sandbox import seccomp
from spiral.plugin.sandbox.errors import PluginNotRunning, SandboxUnavailable
from spiral.plugin.sandbox.limits import Limits

_LAUNCHER = Path(__file__).with_name("launch.py")
_log = logging.getLogger(__name__)


def why_unavailable(
    system: str = sys.platform, machine: str | None = None, pointer_bytes: int = struct.calcsize("P")
) -> str | None:
    """What this system lacks that the limits need; None: nothing.

    Args:
        system: as `sys.platform` names it.
        machine: as `platform.machine` names it; None: this one.
        pointer_bytes: 8 in a 64-bit program.
    """
    machine = machine or platform.machine()
    if not system.startswith("linux"):
        return f"the sandbox needs Linux (setrlimit and seccomp filters); this is {system}"
    if machine not in seccomp.ARCHITECTURES or pointer_bytes != 8:
        known = ", ".join(seccomp.ARCHITECTURES)
        return f"the sandbox has system call filters for {known}; this is {machine}, {8 * pointer_bytes}-bit"
    if not sys.executable:
        return "the sandbox starts programs with sys.executable, which is empty in this interpreter"
    return None


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Attributes:
        status: exit status; ``-n``: by signal n; None: somebody else took it (``os.wait`` or an ignored SIGCHLD).
        cpu_seconds: processor time it used.
    """

    status: int | None
    cpu_seconds: float

    def __str__(self) -> str:
        if self.status is None:
            return "its exit status was taken by another part of this program"
        if self.status >= 0:
            return f"it exited with status {self.status}"
        with contextlib.suppress(ValueError):
            return f"it was killed by {signal.Signals(-self.status).name}"
        return f"it was killed by signal {-self.status}"


class Child:
    """A program in a process, session and empty folder of its own, with pipes to its standard streams.

    Args:
        command: program and arguments.
        limits: what it may use.
        env: added to its environment, which is otherwise minimal.

    Raises:
        SandboxUnavailable: the limits cannot be enforced here.
    """

    def __init__(self, command: Sequence[str], limits: Limits, env: Mapping[str, str]) -> None:
        missing = why_unavailable()
        if missing is not None:
            raise SandboxUnavailable(f"sandbox: {missing}. Nothing was run.", plugin=command[0])
        self.ending: Ending | None = None
        self._host = os.getpid()
        self.folder = tempfile.mkdtemp(prefix="spiral-sandbox-")
        kernel_limits = {
            "cpu_seconds": limits.cpu_whole_seconds,
            "memory_bytes": limits.memory_bytes,
            "file_bytes": limits.file_bytes,
            "open_files": limits.open_files,
            "network": int(limits.network),
        }
        given = [f"{name}={value}" for name, value in kernel_limits.items()]
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), *given, "--"]
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": self.folder,
            "TMPDIR": self.folder,
            # each thread of BLAS, and each arena of malloc, reserves tens of MiB of the address space
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
            **env,
        }
        try:
            self._process = subprocess.Popen(
                [*launcher, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=self.folder,
                env=environment,
                close_fds=True,
                start_new_session=True,
            )
        except BaseException:
            self._remove_folder()
            raise
        self.pid = self._process.pid
        streams = self._process.stdin, self._process.stdout, self._process.stderr
        assert streams[0] is not None and streams[1] is not None and streams[2] is not None
        self.stdin, self.stdout, self.stderr = streams[0].fileno(), streams[1].fileno(), streams[2].fileno()
        for descriptor in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(descriptor, False)

    def require_host(self, name: str) -> None:
        """Refuses the work in a process that was forked from the one it belongs to.

        Raises:
            PluginNotRunning: it is one.
        """
        if os.getpid() != self._host:
            raise PluginNotRunning(
                f"plugin {name!r}: belongs to process {self._host}; one that was forked from it cannot talk to it.",
                plugin=name,
            )

    def exited(self) -> bool:
        """Whether the process has ended; it stays to be reaped."""
        if self.ending is not None:
            return True
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def wait_exited(self, seconds: float) -> bool:
        """Waits until the process has ended, but no longer; says whether it has."""
        deadline = time.monotonic() + seconds
        pause = 0.0005
        while not self.exited():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))  # a process of another program cannot be waited for with a deadline
            pause = min(pause * 2, 0.02)
        return True

    def close_stdin(self) -> None:
        """Tells it that nothing more will come."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self, grace: float) -> Ending:
        """Ends the process and everything in its group: SIGTERM, a while, SIGKILL; reaps it, closes, cleans up.

        Args:
            grace: seconds between the two signals; 0: SIGKILL at once.
        """
        if self.ending is not None:
            return self.ending
        if os.getpid() != self._host:  # at the exit of a fork
            return Ending(None, 0.0)
        if not self.exited() and grace > 0:
            self._signal(signal.SIGTERM)
            self.wait_exited(grace)
        # Before reaping: until then nobody else can get the number of the group.
        self._signal(signal.SIGKILL)
        try:
            _, status, usage = os.wait4(self.pid, 0)
            code: int | None = os.waitstatus_to_exitcode(status)
            self.ending = Ending(code, usage.ru_utime + usage.ru_stime)
        except ChildProcessError:
            code = None
            self.ending = Ending(None, 0.0)
        self._process.returncode = -1 if code is None else code  # reaped here, for its resource usage
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        self._remove_folder()
        return self.ending

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended, or has not yet made its session
            os.killpg(self.pid, number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _remove_folder(self) -> None:
        try:
            shutil.rmtree(self.folder)
        except OSError as error:
            _log.warning("the folder of a sandboxed plugin could not be removed: %s", error)
