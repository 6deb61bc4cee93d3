"""A small signed marketplace, a server for it, and an environment that pip may change."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_wheels import make_wheel

from spiral.plugin.marketplace import Index, Marketplace, PrivateKey, build_index, generate_key, write_index


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    path = tmp_path_factory.mktemp("key") / "market.pem"
    generate_key(path, "tests")
    return PrivateKey.load(path)


@pytest.fixture(scope="session")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    path = tmp_path_factory.mktemp("key") / "other.pem"
    generate_key(path, "somebody else")
    return PrivateKey.load(path)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Path:
    folder = tmp_path_factory.mktemp("built")
    make_wheel(folder, "metrics", "1.4", declared={"capabilities": ["Telemetry"]})
    make_wheel(folder, "metrics", "2.1", declared={"capabilities": ["Telemetry", "Custom:Counter"]})
    make_wheel(folder, "dashboard", "1.1", requires=["tiny-metrics<2"], summary="Shows what metrics counts.")
    make_wheel(folder, "trainer", "2.0", declared={"dependencies": [{"id": "metrics", "versions": ">=2"}]})
    build_index(folder, key, name="tests")
    return folder


@pytest.fixture
def repository(tmp_path: Path, built: Path) -> Path:
    """metrics 1.4 and 2.1; dashboard 1.1, which needs metrics<2; trainer 2.0, which needs metrics>=2."""
    return Path(shutil.copytree(built, tmp_path / "repository"))


@pytest.fixture
def market(repository: Path, key: PrivateKey, tmp_path: Path) -> Marketplace:
    return Marketplace(repository, {key.public.id: key.public}, tmp_path / "state")


@pytest.fixture
def republish(key: PrivateKey) -> Callable[..., Index]:
    """Signs an index with other fields: ``republish(folder, serial=9)``."""

    def republish(folder: Path, *, by: PrivateKey | None = None, **fields: object) -> Index:
        now = datetime.now(UTC).replace(microsecond=0)
        old = Index.from_bytes((folder / "index.json").read_bytes())
        start = {"name": old.name, "serial": old.serial + 1, "created": now, "expires": now + timedelta(days=1)}
        index = Index(**{**start, "plugins": old.plugins, **fields})  # type: ignore[arg-type]
        write_index(folder, index, [by or key])
        return index

    return republish


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server on this machine whose answers a function writes; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            try:
                answer(self)
            except OSError:  # the client hung up, as it should
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="session")
def served() -> Callable[..., object]:
    return serving


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an empty environment; pip of the tests' own works on it."""
    folder = tmp_path_factory.mktemp("environment") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return str(folder / ("Scripts" if sys.platform == "win32" else "bin") / "python")
