"""Artifacts and servers that are not what the index says: nothing is installed, hangs, or is left behind."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from tiny_wheels import make_wheel

from spiral.plugin.marketplace import Marketplace, MarketplaceError, UntrustedError, build_index
from spiral.plugin.marketplace.environment import Environment
from spiral.plugin.marketplace.source import open_source

pytest.importorskip("cryptography", reason="signatures need cryptography (extra `marketplace`)")

WHEEL = "tiny_metrics-2.1-py3-none-any.whl"


@pytest.fixture(autouse=True)
def _no_pip(monkeypatch, tmp_path):
    """pip is never reached here, and private folders are gone afterwards."""

    def pip(self, arguments, folder):
        raise AssertionError(f"pip was called: {arguments}")

    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setattr(Environment, "pip", pip)
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield
    assert list(private.iterdir()) == []


def respond(handler, data, status=200, **headers):
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(data)), **headers}.items():
        if value is not None:
            handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def files_of(repository, **special):
    """Serves the repository, with other answers for some names (``.`` written as ``_``)."""

    def answer(handler):
        name = handler.path.rpartition("/")[2]
        key = "wheel" if name.endswith(".whl") else name.replace(".", "_")
        if key in special:
            special[key](handler)
        elif (repository / name).is_file():
            respond(handler, (repository / name).read_bytes())
        else:
            respond(handler, b"", 404)

    return answer


@pytest.fixture
def at(market, tmp_path):
    return lambda address, **options: Marketplace(address, market.keys, tmp_path / "state", **{"timeout": 1, **options})


# ---------------------------------------------------------------- folders
@pytest.mark.parametrize("by", [-1, -100, 1, 100_000])
def test_artifact_of_another_length_is_refused(market, repository, by):
    path = repository / WHEEL
    data = path.read_bytes()
    path.write_bytes(data[:by] if by < 0 else data + bytes(by))
    with pytest.raises(UntrustedError, match="ends after" if by < 0 else "longer than"):
        market.install(["metrics"])


def test_artifact_with_another_hash_is_refused(market, repository):
    path = repository / WHEEL
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(UntrustedError, match="expected SHA-256"):
        market.install(["metrics"])


def test_artifact_of_another_plugin_under_a_signed_hash_is_refused(market, repository, key, republish):
    """The publisher's index disagrees with the wheel."""
    index = market.index()
    entry = index.plugins["trainer"]["2.0"]
    republish(repository, plugins={"other": {"2.0": replace(entry, id="other", requirements=())}})
    with pytest.raises(UntrustedError, match="the index says otherwise"):
        market.install(["other"])


def test_missing_artifact_is_an_error(market, repository):
    (repository / WHEEL).unlink()
    with pytest.raises(MarketplaceError, match="cannot be read: No such file"):
        market.install(["metrics"])


@pytest.mark.parametrize("name", ["index.json", "index.json.sig", WHEEL])
def test_symbolic_link_in_a_folder_is_refused_even_to_the_right_content(market, repository, tmp_path, name):
    (repository / name).rename(tmp_path / "moved")
    (repository / name).symlink_to(tmp_path / "moved")
    with pytest.raises(UntrustedError, match="symbolic link"):
        market.install(["metrics"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["index.json", WHEEL])
def test_named_pipe_and_folder_are_refused_without_waiting(market, repository, name):
    (repository / name).unlink()
    os.mkfifo(repository / name)
    with pytest.raises(UntrustedError, match="no regular file"):
        market.install(["metrics"])
    (repository / name).unlink()
    (repository / name).mkdir()
    with pytest.raises(MarketplaceError):
        market.install(["metrics"])


def test_artifact_that_changes_after_it_was_checked_is_not_what_pip_sees(market, repository, monkeypatch):
    """The repository may change at any time: pip gets the private copy whose hash was compared."""
    good = (repository / WHEEL).read_bytes()
    seen = []

    class Reached(Exception):
        pass

    def pip(self, arguments, folder):
        (repository / WHEEL).write_bytes(b"evil")
        [url] = [a for a in arguments if a.startswith("file:")]
        path = Path(url.removeprefix("file://").partition("#")[0])
        seen.append((path.read_bytes(), path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777, url))
        raise Reached

    monkeypatch.setattr(Environment, "pip", pip)
    with pytest.raises(Reached):
        market.install(["metrics"])
    [(data, mode, folder_mode, url)] = seen
    assert data == good and str(repository) not in url and "#sha256=" in url
    if os.name == "posix":
        assert (mode, folder_mode) == (0o400, 0o700)


def test_download_gives_verified_files_and_installs_nothing(market, repository, tmp_path):
    paths = market.download(["dashboard"], tmp_path / "out")
    assert [p.name for p in paths] == ["tiny_metrics-1.4-py3-none-any.whl", "tiny_dashboard-1.1-py3-none-any.whl"]
    assert all(p.read_bytes() == (repository / p.name).read_bytes() for p in paths)
    (repository / "tiny_dashboard-1.1-py3-none-any.whl").write_bytes(b"evil")
    with pytest.raises(UntrustedError):
        market.download(["dashboard"], tmp_path / "none")
    assert not (tmp_path / "none").exists()


# ---------------------------------------------------------------- what is asked for
@pytest.mark.parametrize(
    "wanted", ["../x", "", "--index-url", "x y", "metrics=>1", "https://host/x", "metrics; rm", "a[b]"]
)
def test_odd_wish_is_refused(market, wanted):
    with pytest.raises(ValueError, match="install:|plugin"):
        market.install([wanted])


def test_one_string_is_not_taken_for_a_list_of_letters(market):
    with pytest.raises(MarketplaceError, match="one string"):
        market.install("metrics")


def test_version_for_another_python_is_left_out_and_named(market, repository, key):
    make_wheel(repository, "future", "1", python=">=4")
    build_index(repository, key)
    assert "future" not in [p.entry.id for p in market.search()]
    with pytest.raises(ValueError, match=r"(?s)there is no future.*future 1 needs Python >=4"):
        market.install(["future"])


def test_address_in_the_requirements_of_a_wheel_is_refused(market, repository, key, republish):
    """`build_index` refuses it too; another publisher's tool may not."""
    path = make_wheel(repository, "metrics", "2.1", requires=["x @ https://host.invalid/x.whl"])
    entry = market.index().plugins["metrics"]["2.1"]
    entry = replace(entry, sha256=sha256(path.read_bytes()).hexdigest(), size=path.stat().st_size)
    republish(repository, plugins={"metrics": {"2.1": entry}})
    with pytest.raises(UntrustedError, match="an address"):
        market.install(["metrics"])


@pytest.mark.parametrize("marker", ["", "; python_version>'3'", "; python_version>'3' or extra=='x'", "; extra==''"])
@pytest.mark.parametrize("distribution", ["tiny-secret", "Tiny_Secret"])
def test_distribution_that_the_index_has_is_never_left_to_pip_whatever_its_marker_says(
    market, repository, key, republish, marker, distribution
):
    make_wheel(repository, "secret", "1")
    make_wheel(repository, "clock", "1", requires=[f"{distribution}{marker}"])
    index = build_index(repository, key)
    clock = replace(index.plugins["clock"]["1"], requirements=())  # a publisher who does not say that it needs it
    republish(repository, plugins={**index.plugins, "clock": {"1": clock}})
    with pytest.raises(ValueError, match="pip may not fetch what is 'secret' here from elsewhere"):
        market.install(["clock"])


def test_distribution_of_an_extra_that_nobody_asked_for_does_not_count(market, repository, key):
    make_wheel(repository, "secret", "1")
    make_wheel(repository, "clock", "1", requires=["tiny-secret; extra=='x'"])
    assert build_index(repository, key).plugins["clock"]["1"].requirements == ()
    with pytest.raises(AssertionError, match="pip was called"):
        market.install(["clock"])


def test_plugin_cannot_replace_a_distribution_that_is_none(market, repository, key):
    make_wheel(repository, "clock", "99", distribution="packaging")
    build_index(repository, key)
    with pytest.raises(UntrustedError, match="would replace packaging .* which is no plugin"):
        market.install(["clock"])


def test_plugin_cannot_be_spiral_itself(repository, key):
    make_wheel(repository, "clock", "99", distribution="Spiral")
    with pytest.raises(MarketplaceError, match="spiral itself is no plugin"):
        build_index(repository, key)


# ---------------------------------------------------------------- servers
def test_marketplace_is_served_over_http(served, repository, at, tmp_path):
    with served(files_of(repository)) as address:
        assert [p.entry.id for p in at(address).search("counts")] == ["dashboard", "metrics", "trainer"]
        assert (
            at(address + "/").download(["metrics"], tmp_path / "out")[0].read_bytes()
            == (repository / WHEEL).read_bytes()
        )


def test_redirection_is_refused_and_not_followed(served, repository, at):
    asked = []

    def elsewhere(handler):
        asked.append(handler.path)
        respond(handler, (repository / "index.json").read_bytes())

    with served(elsewhere) as other:
        for target in (f"{other}/index.json", "file:///etc/passwd", "/index2.json"):
            move = lambda handler, target=target: respond(handler, b"", 302, Location=target)  # noqa: E731
            with served(files_of(repository, index_json=move, index2_json=move)) as address:
                with pytest.raises(UntrustedError, match="redirects to"):
                    at(address).index()
    assert asked == []


def test_silent_server_is_given_up(served, repository, at):
    with served(files_of(repository, index_json=lambda handler: time.sleep(3))) as address:
        start = time.monotonic()
        with pytest.raises(MarketplaceError, match="stalled"):
            at(address, timeout=0.3).index()
        assert time.monotonic() - start < 2


@pytest.mark.parametrize("where", ["header", "body"])
def test_server_that_drips_is_cut_off(served, repository, at, where):
    """Each byte comes within the time limit of a socket; the whole would take days."""

    def drip(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 8000\r\n\r\n" if where == "body" else b""))
        end = time.monotonic() + 8
        while time.monotonic() < end:
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    with served(files_of(repository, index_json_sig=drip)) as address:
        start = time.monotonic()
        with pytest.raises(MarketplaceError, match="stalled"):
            at(address, timeout=0.2).index()  # 2 × 0.2 s and 8 KB at the least rate
        assert time.monotonic() - start < 5


def lying(data, length):
    def answer(handler):
        handler.send_response(200)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(data)
        handler.wfile.flush()

    return answer


@pytest.mark.parametrize("length", [0, 10, 10**6, 10**30, -5, "many", None])
@pytest.mark.parametrize("part", ["index_json", "wheel"])
def test_server_that_lies_about_the_length_is_noticed_or_harmless(served, repository, at, part, length, tmp_path):
    data = (repository / (WHEEL if part == "wheel" else "index.json")).read_bytes()
    with served(files_of(repository, **{part: lying(data, length)})) as address:
        try:
            paths = at(address).download(["metrics"], tmp_path / "out")
        except MarketplaceError:
            assert length not in (None, "many")
        else:
            assert length in (None, -5, "many") or part == "index_json"
            assert paths[0].read_bytes() == (repository / WHEEL).read_bytes()


@pytest.mark.parametrize("part", ["index_json", "index_json_sig", "wheel"])
def test_server_that_never_ends_is_left_after_the_allowed_bytes(served, repository, at, part, tmp_path):
    sent = [0]

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        while sent[0] < 200 << 20:
            handler.wfile.write(bytes(1 << 20))
            sent[0] += 1 << 20

    with served(files_of(repository, **{part: endless})) as address:
        with pytest.raises(UntrustedError, match="is longer than"):
            at(address).download(["metrics"], tmp_path / "out")
    assert sent[0] < 64 << 20


@pytest.mark.parametrize(
    "answer",
    [
        lambda handler: handler.wfile.write(b"garbage\r\n\r\n"),
        lambda handler: handler.wfile.write(b""),
        lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500),
        lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000),
        lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        lambda handler: respond(handler, b"", 500),
        lambda handler: respond(handler, b"", 404),
        lambda handler: respond(handler, b"", 204, Content_Length=None),
        lambda handler: respond(handler, b"", 301),
        lambda handler: respond(handler, b"\x1f\x8b", Content_Encoding="gzip"),
    ],
    ids=["garbage", "nothing", "500 headers", "long header", "bad chunk", "500", "404", "204", "301", "gzip"],
)  # fmt: skip
def test_server_that_speaks_nonsense_is_reported(served, repository, at, answer):
    with served(files_of(repository, index_json=answer)) as address:
        with pytest.raises(MarketplaceError, match="http://127"):
            at(address).index()


def test_closed_port_is_reported(served, repository, at):
    with served(files_of(repository)) as address:
        pass
    with pytest.raises(MarketplaceError, match="cannot be read"):
        at(address).index()


@pytest.mark.parametrize(
    "location",
    [
        "ftp://host/x",
        "file:///tmp",
        "http://",
        "http://user:secret@host/x",
        "http://host/x?y",
        "https://host/x#y",
        "gopher://x",
        "http://host/\nx",
    ],
)
def test_odd_location_is_refused_without_repeating_a_password(location, tmp_path):
    with pytest.raises(MarketplaceError, match="expected") as caught:
        Marketplace(location, {}, tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "..", "", "a\\b", "a%2fb", "x?y", "c:x", "a\nb", "ä"])
def test_sources_give_only_files_of_their_own_folder(tmp_path, name):
    for source in (open_source(tmp_path), open_source("http://127.0.0.1:9/")):
        with pytest.raises(MarketplaceError, match="plain name"):
            source.read(name, 100)
