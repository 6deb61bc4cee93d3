"""The system calls that a sandboxed plugin is refused, as a seccomp filter: no library, no privileges.

See seccomp(2). The filter is a classic BPF program that reads ``struct seccomp_data``: the number at offset 0, the
architecture at 4, the arguments from 16 on, 8 bytes each, the low half first.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

KILL, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH = 0, 4
_CLONE_THREAD = 0x00010000
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
_X32 = 0x40000000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2

ARCHITECTURES: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            "clone": 56, "fork": 57, "vfork": 58, "clone3": 435, "setsid": 112, "setpgid": 109,
            "kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
            "pidfd_send_signal": 424, "pidfd_getfd": 438, "ptrace": 101, "process_vm_readv": 310,
            "process_vm_writev": 311, "setrlimit": 160, "prlimit64": 302, "unshare": 272, "setns": 308,
            "socket": 41, "io_uring_setup": 425, "fcntl": 72,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "clone": 220, "clone3": 435, "setsid": 157, "setpgid": 154,
            "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240,
            "pidfd_send_signal": 424, "pidfd_getfd": 438, "ptrace": 117, "process_vm_readv": 270,
            "process_vm_writev": 271, "setrlimit": 164, "prlimit64": 261, "unshare": 97, "setns": 268,
            "socket": 198, "io_uring_setup": 425, "fcntl": 25,
        },
    ),
}  # fmt: skip
"""Audit number and system call numbers (include/uapi/linux/audit.h, arch/*/include/**/unistd.h)."""

_REFUSED = (
    "setsid", "setpgid", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal", "pidfd_getfd",
    "ptrace", "process_vm_readv", "process_vm_writev", "setrlimit", "unshare", "setns",
)  # fmt: skip


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _fail(number: int) -> bytes:
    return _op(_RETURN, ERRNO | number)


def _argument(index: int, high: bool = False) -> bytes:
    return _op(_LOAD, 16 + 8 * index + 4 * high)


def _allow_if_equal(values: list[int]) -> bytes:
    """Allows where the loaded word is one of the values, else fails with EPERM."""
    tests = b"".join(_op(_EQUAL, value, len(values) - i) for i, value in enumerate(values))
    return tests + _fail(errno.EPERM) + _op(_RETURN, ALLOW)


def program(machine: str, pid: int, *, network: bool) -> bytes:
    """The filter for one process.

    Args:
        machine: a key of `ARCHITECTURES`.
        pid: the process that it is for; the only one to which it may send signals.
        network: whether sockets may be opened.
    """
    audit, numbers = ARCHITECTURES[machine]
    blocks: dict[str, bytes] = {name: _fail(errno.EPERM) for name in _REFUSED}
    # Threads are allowed, processes are not. clone3 hides its flags from a filter; ENOSYS makes libc use clone.
    blocks["clone"] = _argument(0) + _op(_ANY_BIT, _CLONE_THREAD, 1) + _op(_RETURN, KILL) + _op(_RETURN, ALLOW)
    blocks["clone3"] = _fail(errno.ENOSYS)
    for name in ("fork", "vfork"):
        if name in numbers:
            blocks[name] = _op(_RETURN, KILL)
    blocks["kill"] = _argument(0) + _allow_if_equal([pid, 0])
    blocks["tgkill"] = _argument(0) + _allow_if_equal([pid])
    # Reading limits is allowed, that is a null pointer for the new ones.
    null = _argument(2) + _op(_EQUAL, 0, 0, 3) + _argument(2, high=True) + _op(_EQUAL, 0, 0, 1)
    blocks["prlimit64"] = null + _op(_RETURN, ALLOW) + _fail(errno.EPERM)
    # A signal can also be sent by asking for one when a descriptor is ready.
    owner = b"".join(_op(_EQUAL, c, 3 - i) for i, c in enumerate((_F_SETOWN, _F_SETSIG, _F_SETOWN_EX)))
    blocks["fcntl"] = _argument(1) + owner + _op(_RETURN, ALLOW) + _fail(errno.EPERM)
    blocks["io_uring_setup"] = _fail(errno.ENOSYS)  # it opens sockets without the socket call
    if not network:
        blocks["socket"] = _fail(errno.EACCES)
    code = _op(_LOAD, _ARCH) + _op(_EQUAL, audit, 1) + _op(_RETURN, KILL) + _op(_LOAD, _NUMBER)
    if machine == "x86_64":  # the x32 calls have numbers of their own
        code += _op(_AT_LEAST, _X32, 0, 1) + _op(_RETURN, KILL)
    for name, block in blocks.items():
        code += _op(_EQUAL, numbers[name], 0, len(block) // 8) + block
    return code + _op(_RETURN, ALLOW)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def install(*, network: bool) -> None:
    """Puts this process, and whatever program it becomes, under the filter for good.

    Raises:
        OSError: the kernel refuses.
    """
    code = program(os.uname().machine, os.getpid(), network=network)
    libc = ctypes.CDLL(None, use_errno=True)
    prctl = libc.prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    filled = _Program(len(code) // 8, code)
    if prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(filled), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")
