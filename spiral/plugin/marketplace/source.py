"""Where an index and its artifacts come from: a folder, or a server of static files.

Nothing that is read here is trusted. A source gives at most as many bytes as were asked for, within a bounded time,
and only files that lie directly in its own folder.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import http.client
import os
import socket
import stat
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from spiral.errors import received
from spiral.plugin.marketplace.errors import MarketplaceError, UntrustedError

_BLOCK = 1 << 16
_LEAST_RATE = 8192
"""Bytes per second below which a server counts as stalled."""


class Source(Protocol):
    """Files by name."""

    location: str

    def read(self, name: str, limit: int) -> bytes:
        """A whole file of at most `limit` bytes."""
        ...

    def fetch(self, name: str, size: int, target: IO[bytes]) -> str:
        """Copies a file of exactly `size` bytes; returns its SHA-256."""
        ...


def open_source(location: str | Path, timeout: float = 15.0) -> Source:
    """The source at a location.

    Args:
        location: a folder, or an address that begins with ``https://`` or ``http://``.
        timeout: seconds that a server may be silent.

    Raises:
        MarketplaceError: it is neither.
    """
    text = os.fspath(location)
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if scheme in ("http", "https"):
        return HttpSource(text, timeout)
    if scheme:
        raise MarketplaceError(f"marketplace: expected a folder, or https:// or http://; received {scheme}://.")
    return FolderSource(Path(text))


def _check_plain(name: str) -> None:
    """Names were checked where they were read; this is the last place before the disk or the network."""
    if (
        not name
        or name in (".", "..")
        or not name.isascii()
        or not name.isprintable()
        or set(name) & set('/\\:%?#*"<>| ')
    ):
        raise MarketplaceError(f"marketplace: expected the plain name of a file; received {received(name)}.")


def _copy(what: str, blocks: Iterator[bytes], size: int, target: IO[bytes]) -> str:
    digest, count = hashlib.sha256(), 0
    for block in blocks:
        count += len(block)
        if count > size:
            raise UntrustedError(f"{what}: is longer than the {size} bytes that the index declares.")
        digest.update(block)
        target.write(block)
    if count < size:
        raise UntrustedError(f"{what}: ends after {count} of {size} bytes.")
    return digest.hexdigest()


class FolderSource:
    """A folder of this machine. Its files are read as they are; symbolic links among them are refused."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.location = str(self.folder)

    @contextmanager
    def _open(self, name: str) -> Iterator[IO[bytes]]:
        _check_plain(name)
        path = self.folder / name
        try:
            if os.name == "nt" and path.is_symlink():
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            flags = (
                os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
            )
            descriptor = os.open(path, flags)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UntrustedError(f"{path}: is a symbolic link; a marketplace holds files themselves.") from error
            raise MarketplaceError(f"{path}: cannot be read: {error.strerror}.") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise UntrustedError(f"{path}: is no regular file.")
        with os.fdopen(descriptor, "rb") as file:
            yield file

    def read(self, name: str, limit: int) -> bytes:
        """A whole file of at most `limit` bytes."""
        with self._open(name) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise MarketplaceError(f"{self.folder / name}: is longer than the {limit} bytes that are allowed.")
        return data

    def fetch(self, name: str, size: int, target: IO[bytes]) -> str:
        """Copies a file of exactly `size` bytes; returns its SHA-256."""
        with self._open(name) as file:
            return _copy(str(self.folder / name), iter(functools.partial(file.read, _BLOCK), b""), size, target)


class HttpSource:
    """A folder on a server of static files. Redirections are refused, whole transfers are limited in time."""

    def __init__(self, address: str, timeout: float) -> None:
        parts = urllib.parse.urlsplit(address)
        if (
            not parts.hostname
            or parts.username is not None
            or parts.query
            or parts.fragment
            or not address.isprintable()
        ):
            raise MarketplaceError(
                "marketplace: expected an address like https://host/folder, without user, query or fragment."
            )
        self.location = address.rstrip("/")
        self.timeout = timeout

    @contextmanager
    def _open(self, name: str, longest: int) -> Iterator[Iterator[bytes]]:
        """The blocks of a file; whatever goes wrong in between is told as ours."""
        _check_plain(name)
        url = f"{self.location}/{urllib.parse.quote(name)}"
        deadline = _Deadline(2 * self.timeout + longest / _LEAST_RATE)
        request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "spiral"})
        try:
            with deadline, _opener(deadline).open(request, timeout=self.timeout) as response:
                declared = response.headers.get("Content-Length")
                if response.status != 200 or response.headers.get("Content-Encoding", "identity") != "identity":
                    raise MarketplaceError(f"{url}: expected status 200 and plain content; received {response.status}.")
                if declared is not None and declared.isdecimal() and int(declared[:20]) > longest:
                    raise UntrustedError(f"{url}: has {declared[:20]} bytes; at most {longest} are expected.")
                yield iter(functools.partial(response.read1, _BLOCK), b"")
                if deadline.passed:
                    raise TimeoutError
        except urllib.error.HTTPError as error:
            target = error.headers.get("Location") if 300 <= error.code < 400 else None
            error.close()
            if target is not None:
                raise UntrustedError(f"{url}: redirects to {received(target)}; give the address itself.") from error
            raise MarketplaceError(f"{url}: the server says {error.code}.") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, MarketplaceError) and not deadline.passed:
                raise
            if deadline.passed or isinstance(error, TimeoutError) or "timed out" in str(error):
                raise MarketplaceError(f"{url}: the server stalled; nothing more was waited for.") from error
            raise MarketplaceError(f"{url}: cannot be read: {error or type(error).__name__}.") from error

    def read(self, name: str, limit: int) -> bytes:
        """A whole file of at most `limit` bytes."""
        data = bytearray()
        with self._open(name, limit) as blocks:
            for block in blocks:
                data += block
                if len(data) > limit:
                    raise UntrustedError(f"{self.location}/{name}: is longer than the {limit} bytes that are allowed.")
        return bytes(data)

    def fetch(self, name: str, size: int, target: IO[bytes]) -> str:
        """Copies a file of exactly `size` bytes; returns its SHA-256."""
        with self._open(name, size) as blocks:
            return _copy(f"{self.location}/{name}", blocks, size, target)


class _Deadline:
    """Cuts a connection after some seconds: a time limit of a socket is for one wait, and a server that sends a byte
    now and then, in its headers too, never exceeds it."""

    def __init__(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._socket: socket.socket | None = None
        self.passed = False

    def watch(self, connection: socket.socket) -> None:
        self._socket = connection
        if self.passed:
            self._cut()

    def _cut(self) -> None:
        self.passed = True
        if self._socket is not None:
            try:
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            except OSError:
                return  # closed already, which is what is wanted

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def _opener(deadline: _Deadline) -> urllib.request.OpenerDirector:
    """Speaks HTTP and HTTPS, through the proxies of the environment, and nothing else: no files, no redirections."""

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            deadline.watch(self.sock)

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()  # Python bounds the whole handshake by the time limit
            deadline.watch(self.sock)

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, request)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Secure, request)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(), PlainHandler(), SecureHandler(), urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(), urllib.request.UnknownHandler(),
    ):  # fmt: skip
        opener.add_handler(handler)
    return opener
