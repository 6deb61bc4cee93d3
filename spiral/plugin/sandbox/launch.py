"""Takes everything away that a sandboxed plugin shall not have, then becomes the plugin's program.

Run by path in an isolated interpreter: ``python -I -S launch.py cpu_seconds=300 ... -- PROGRAM ARGUMENT...``. Doing
this in a program of its own keeps Python code out of the moment between fork and exec, where it may not run in a
process with threads. It imports little: with json, pathlib and typing a start takes 50 ms instead of 25.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

FAILED = 125
"""Exit status: a limit could not be set, or the program not be run; the reason stands on standard error."""
PREFIX = "spiral-sandbox: "
"""What that reason begins with."""
_PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _CLEAR_ALL = 24, 47, 4
_CAPABILITY_VERSION = 0x20080522


def _without_init(name: str, folder: str) -> None:
    """Makes a package importable without running its ``__init__``, which would import NumPy and more."""
    module = type(sys)(name)
    module.__path__ = [folder]
    sys.modules[name] = module


def set_limits(limits: dict[str, int]) -> None:
    """Limits the kernel counts for us; the plugin cannot raise them again (see `spiral.plugin.sandbox.seccomp`)."""
    import resource  # missing on Windows, where this file must be importable

    cpu = limits["cpu_seconds"]
    _set(resource.RLIMIT_CPU, cpu, cpu + 1)  # SIGXCPU, then SIGKILL
    _set(resource.RLIMIT_FSIZE, limits["file_bytes"])
    _set(resource.RLIMIT_NOFILE, limits["open_files"])
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_AS, limits["memory_bytes"])


def _set(which: int, soft: int, hard: int | None = None) -> None:
    import resource

    ceiling = resource.getrlimit(which)[1]
    values = [soft, soft if hard is None else hard]
    if ceiling != resource.RLIM_INFINITY:  # a stricter limit of the user's stays
        values = [min(value, ceiling) for value in values]
    resource.setrlimit(which, (values[0], values[1]))


def drop_capabilities() -> None:
    """Takes the privileges of root away: only files that its user owns or may open stay open to it."""
    libc = ctypes.CDLL(None, use_errno=True)
    prctl = libc.prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    capability = 0
    while prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:  # fails after the last, or at once without privileges
        capability += 1
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


def main(arguments: list[str]) -> NoReturn:
    """Sets the limits and becomes the program."""
    doing = "read its arguments"
    try:
        end = arguments.index("--")
        limits = {name: int(value) for name, _, value in (a.partition("=") for a in arguments[:end])}
        command = arguments[end + 1 :]
        here = os.path.dirname(os.path.realpath(__file__))
        _without_init("spiral", os.path.dirname(os.path.dirname(here)))
        _without_init("spiral.plugin", os.path.dirname(here))
        _without_init("spiral.plugin.sandbox", here)
        from spiral.plugin.sandbox import seccomp

        doing = "reset signals"
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):  # Python's own settings would be inherited
            signal.signal(number, signal.SIG_DFL)
        doing = "drop capabilities"
        drop_capabilities()
        doing = "set resource limits"
        set_limits(limits)
        doing = "install the system call filter"
        seccomp.install(network=bool(limits["network"]))
        doing = f"run {command[0]}"
        os.execvp(command[0], command)
    except Exception as error:
        sys.stderr.write(f"{PREFIX}cannot {doing}: {type(error).__name__}: {error}\n")
        sys.stderr.flush()
        os._exit(FAILED)


if __name__ == "__main__":
    main(sys.argv[1:])
