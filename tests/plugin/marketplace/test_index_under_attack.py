"""An index that somebody changed, replayed, let expire or forged is not accepted; its names stay in its folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tiny_wheels import make_wheel

from spiral.plugin.marketplace import (
    Index,
    Marketplace,
    MarketplaceError,
    PrivateKey,
    PublicKey,
    TrustedKeys,
    UntrustedError,
    build_index,
    generate_key,
    sign,
    write_index,
)
from spiral.plugin.marketplace.folders import keys_folder, state_folder
from spiral.plugin.marketplace.index import MAX_INDEX
from spiral.plugin.marketplace.state import State

pytest.importorskip("cryptography", reason="signatures need cryptography (extra `marketplace`)")

NOW = datetime.now(UTC).replace(microsecond=0)


def resign(repository: Path, key: PrivateKey, change) -> None:
    """Lets `change` edit the parsed index and signs the result, as a publisher would who is fooled or fools."""
    parsed = json.loads((repository / "index.json").read_text())
    parsed = change(parsed) or parsed
    data = json.dumps(parsed).encode() if not isinstance(parsed, bytes) else parsed
    (repository / "index.json").write_bytes(data)
    (repository / "index.json.sig").write_bytes(sign(data, [key]))


def entry_of(parsed, id="metrics", version="2.1"):
    return parsed["plugins"][id][version]


# ---------------------------------------------------------------- signatures
def test_index_is_read_and_searched(market):
    assert [p.entry.id for p in market.search()] == ["dashboard", "metrics", "trainer"]
    assert [p.versions for p in market.search("METRICS")] == [("1.1",), ("2.1", "1.4")]  # one by its description
    assert [p.entry.id for p in market.search(capability="custom:counter")] == ["metrics"]
    assert market.search("nothing like it") == ()
    [dashboard] = market.search("shows")
    assert [str(r) for r in dashboard.entry.requirements] == ["metrics <2"]  # from the wheel's Requires-Dist


@pytest.mark.parametrize("part", ["index.json", "index.json.sig"])
def test_any_changed_byte_is_noticed(market, repository, part):
    path = repository / part
    good = path.read_bytes()
    for place in sorted({*range(0, len(good), max(1, len(good) // 60)), len(good) - 2}):
        for flipped in (1, 0x20):  # 0x20: only the case of a letter
            bad = bytearray(good)
            bad[place] ^= flipped
            path.write_bytes(bad)
            with pytest.raises(UntrustedError):
                market.index()
    path.write_bytes(good)
    market.index()


@pytest.mark.parametrize(
    "bad", [b"", b"\n", b"ed25519\n", b"\xff" * 100, b"ed25519 " + b"0" * 32 + b" AAAA\n", b"x" * 9000]
)
def test_malformed_signature_file_is_refused(market, repository, bad):
    (repository / "index.json.sig").write_bytes(bad)
    with pytest.raises(MarketplaceError):
        market.index()


def test_missing_signature_is_an_error(market, repository):
    (repository / "index.json.sig").unlink()
    with pytest.raises(MarketplaceError, match=r"index\.json\.sig: cannot be read"):
        market.index()


def test_index_signed_by_a_stranger_is_refused_with_both_keys_named(market, repository, republish, key, other_key):
    republish(repository, by=other_key)
    with pytest.raises(UntrustedError, match=f"is signed by {other_key.public.id}; you trust {key.public.id}"):
        market.index()


def test_signature_in_the_name_of_a_trusted_key_must_be_its(market, repository, key, other_key):
    data = (repository / "index.json").read_bytes()
    forged = sign(data, [other_key]).replace(other_key.public.id.encode(), key.public.id.encode())
    (repository / "index.json.sig").write_bytes(forged)
    with pytest.raises(UntrustedError, match=r"key [0-9a-f]{32} \(.*\) does not match"):
        market.index()


def test_bad_signature_of_one_trusted_key_spoils_the_good_one_of_another(market, repository, key, other_key, tmp_path):
    data = (repository / "index.json").read_bytes()
    (repository / "index.json.sig").write_bytes(sign(data, [key]) + sign(data + b" ", [other_key]))
    market.index()  # of an unknown key: nothing to it
    both = Marketplace(repository, {k.public.id: k.public for k in (key, other_key)}, tmp_path / "other")
    with pytest.raises(UntrustedError, match="does not match"):
        both.index()


def test_key_listed_under_another_ones_id_is_not_taken_for_it(repository, key, other_key, tmp_path):
    market = Marketplace(repository, {key.public.id: other_key.public}, tmp_path / "state")
    with pytest.raises(UntrustedError):
        market.index()


def test_key_is_replaced_by_signing_with_both_for_a_while(repository, key, other_key, tmp_path):
    keys = TrustedKeys(tmp_path / "keys")
    keys.trust(key.public)
    market = Marketplace(repository, keys, tmp_path / "state")
    market.index()
    build_index(repository, [key, other_key])
    market.index()
    keys.trust(str(other_key.public))
    build_index(repository, other_key)
    market.index()
    keys.distrust(key.public.id)
    market.index()
    build_index(repository, key)  # the old key, stolen after all
    with pytest.raises(UntrustedError, match="is signed by"):
        market.index()


# ---------------------------------------------------------------- age
def test_replayed_older_index_is_refused_and_the_newer_one_still_taken(market, repository, republish):
    old = {n: (repository / n).read_bytes() for n in ("index.json", "index.json.sig")}
    republish(repository, serial=7)
    new = {n: (repository / n).read_bytes() for n in old}
    assert market.index().serial == 7
    for name, data in old.items():
        (repository / name).write_bytes(data)
    with pytest.raises(UntrustedError, match="serial number 1, but 7 was seen"):
        market.index()
    with pytest.raises(UntrustedError):
        market.install(["metrics"])
    for name, data in new.items():
        (repository / name).write_bytes(data)
    assert market.index().serial == 7


def test_replay_is_noticed_at_another_location_of_the_same_marketplace(market, repository, republish, tmp_path):
    mirror = tmp_path / "mirror"
    shutil.copytree(repository, mirror)
    republish(repository, serial=7)
    market.index()
    with pytest.raises(UntrustedError, match="serial number 1, but 7"):
        Marketplace(mirror, market.keys, market.state.folder).index()


def test_two_indexes_of_one_serial_number_are_refused(market, repository, republish):
    market.index()
    republish(repository, serial=1)
    with pytest.raises(UntrustedError, match="two different indexes"):
        market.index()


def test_another_marketplace_at_a_known_location_is_refused_until_forgotten(market, repository, republish):
    market.index()
    republish(repository, name="nightly")
    with pytest.raises(UntrustedError, match="'nightly' now and was 'tests' before"):
        market.index()
    market.forget()
    assert market.index().name == "nightly"


def test_refused_index_is_not_remembered(market, repository, republish, key, other_key):
    market.index()
    republish(repository, by=other_key, serial=1000)
    with pytest.raises(UntrustedError):
        market.index()
    republish(repository, serial=2000, expires=NOW - timedelta(seconds=1))
    with pytest.raises(UntrustedError, match="has expired"):
        market.index()
    republish(repository, by=key, serial=2)
    assert market.index().serial == 2


def test_index_from_the_future_is_refused(market, repository, republish):
    republish(repository, created=NOW + timedelta(days=3), expires=NOW + timedelta(days=9))
    with pytest.raises(UntrustedError, match="which is to come"):
        market.index()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"serials": 3}', b"\xff"])
def test_damaged_memory_of_serial_numbers_is_an_error_not_a_fresh_start(market, content):
    market.index()
    (market.state.folder / "indexes.json").write_bytes(content)
    with pytest.raises(MarketplaceError, match=r"indexes\.json"):
        market.index()


def test_another_process_at_work_is_told(market):
    market.index()
    code = (
        "import sys; from spiral.plugin.marketplace.state import State\n"
        "with State(sys.argv[1]).lock(): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(market.state.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline().strip() == b"held"
        with pytest.raises(MarketplaceError, match="another process"):
            market.index()
        process.stdin.close()
        process.wait()
    market.index()


# ---------------------------------------------------------------- what an index says
WHEEL = "tiny_metrics-2.1-py3-none-any.whl"
NAMES = [
    "../evil-1.0-py3-none-any.whl", f"..\\{WHEEL}", f"/tmp/{WHEEL}",
    f"C:{WHEEL}", f"file:///{WHEEL}", f"//host/{WHEEL}",
    f"https://host/{WHEEL}", f"{WHEEL}?x", f"{WHEEL}#sha256=0",
    f"%2e%2e%2f{WHEEL}", "-r.whl", ".whl", "", ".", "..", f"{WHEEL}\n",
    f"{WHEEL}\0", "tiny_metrics-2.1..-py3-none-any.whl", "tiny metrics-2.1-py3-none-any.whl",
    "tiny_metrics-2.1.tar.gz", "tiny_metrics-9-py3-none-any.whl", "other-2.1-py3-none-any.whl",
    "tiny_metrics-2.1-py3-none.whl",
    "index.json", "ｔiny_metrics-2.1-py3-none-any.whl", "tiny_metrics-2.1-py3-none-any.WHL", 3, None, ["x.whl"],
    "a" * 300 + ".whl", f"\x1b[31m{WHEEL}", f"{WHEEL}/",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=lambda n: ascii(n)[:40])
def test_odd_artifact_name_is_refused_even_if_signed(market, repository, key, name):
    resign(repository, key, lambda parsed: entry_of(parsed).update(artifact=name))
    with pytest.raises(MarketplaceError, match="artifact"):
        market.index()


CHANGES = {
    "format of the future": lambda p: p.update(format="spiral-plugin-index/2"),
    "no format": lambda p: p.pop("format") and None,
    "serial is text": lambda p: p.update(serial="9"),
    "serial is true": lambda p: p.update(serial=True),
    "serial is zero": lambda p: p.update(serial=0),
    "serial is huge": lambda p: p.update(serial=2**63),
    "no expiry": lambda p: p.pop("expires") and None,
    "expiry without zone": lambda p: p.update(expires="2999-01-01 00:00"),
    "name with escape": lambda p: p.update(name="\x1b[2J"),
    "plugins is a list": lambda p: p.update(plugins=[]),
    "versions is a list": lambda p: p["plugins"].update(metrics=[]),
    "id with a path": lambda p: p["plugins"].update({"../x": p["plugins"].pop("metrics")}),
    "id with escape": lambda p: p["plugins"].update({"x\x1b[31m": p["plugins"].pop("metrics")}),
    "id empty": lambda p: p["plugins"].update({"": p["plugins"].pop("metrics")}),
    "ids that differ in case": lambda p: p["plugins"].update({"Metrics": p["plugins"]["metrics"]}),
    "version is none": lambda p: p["plugins"].update(metrics={"latest": entry_of(p)}),
    "one version twice": lambda p: p["plugins"]["metrics"].update({"2.1.0": entry_of(p)}),
    "hash too short": lambda p: entry_of(p).update(sha256="00"),
    "hash in capitals": lambda p: entry_of(p).update(sha256="A" * 64),
    "negative size": lambda p: entry_of(p).update(size=-1),
    "boundless size": lambda p: entry_of(p).update(size=10**15),
    "fractional size": lambda p: entry_of(p).update(size=1.5),
    "distribution is an option": lambda p: entry_of(p).update(distribution="--index-url"),
    "malformed python": lambda p: entry_of(p).update(requires_python="python 3"),
    "description with escape": lambda p: entry_of(p).update(description="x\x1b]0;y\x07"),
    "description too long": lambda p: entry_of(p).update(description="x" * 2000),
    "capability is a number": lambda p: entry_of(p).update(capabilities=[1]),
    "dependency is text": lambda p: entry_of(p).update(dependencies=["clock"]),
    "malformed dependency": lambda p: entry_of(p).update(dependencies=[{"id": "clock", "versions": "^1"}]),
    "optional is text": lambda p: entry_of(p).update(dependencies=[{"id": "clock", "optional": "no"}]),
    "malformed provides": lambda p: entry_of(p).update(provides=[{"id": "clock", "version": "new"}]),
    "too many conflicts": lambda p: entry_of(p).update(conflicts=[{"id": "clock"}] * 1000),
    "shared distribution": lambda p: entry_of(p, "trainer", "2.0").update(
        distribution="Tiny.Metrics", artifact="tiny_metrics-2.0-py3-none-any.whl"
    ),
    "no object": lambda p: b"[]",
    "no text": lambda p: b"\xff\xfe",
    "not a number": lambda p: b'{"format": NaN}',
    "key twice": lambda p: b'{"format": "spiral-plugin-index/1", "format": "spiral-plugin-index/1"}',
    "deep": lambda p: b"[" * 100_000,
    "endless digits": lambda p: b'{"serial": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_malformed_index_is_refused_even_if_signed(market, repository, key, change):
    resign(repository, key, change)
    with pytest.raises(MarketplaceError):
        market.index()
    assert not (market.state.folder / "indexes.json").exists()


def test_huge_index_is_refused_before_it_is_parsed(market, repository, key):
    with (repository / "index.json").open("r+b") as file:
        file.truncate(MAX_INDEX + 1)
    with pytest.raises(MarketplaceError, match="is longer than"):
        market.index()


def test_fields_of_later_days_are_ignored(market, repository, key):
    resign(repository, key, lambda parsed: (parsed.update(serial=5, news=[1]), entry_of(parsed).update(mood="good"))[1])
    assert market.index().serial == 5


# ---------------------------------------------------------------- keys
def test_private_key_is_its_owners_alone_and_never_overwritten(tmp_path):
    public = generate_key(tmp_path / "k", "me")
    assert (
        PrivateKey.load(tmp_path / "k").public.id == public.id == PublicKey.parse((tmp_path / "k.pub").read_text()).id
    )
    with pytest.raises(MarketplaceError, match="File exists"):
        generate_key(tmp_path / "k")
    if os.name == "posix":
        assert (tmp_path / "k").stat().st_mode & 0o077 == 0
        (tmp_path / "k").chmod(0o640)
        with pytest.raises(MarketplaceError, match="chmod 600"):
            PrivateKey.load(tmp_path / "k")


def test_encrypted_private_key_needs_its_password(tmp_path):
    generate_key(tmp_path / "k", password=b"secret")
    assert PrivateKey.load(tmp_path / "k", b"secret").public
    for password in (None, b"wrong"):
        with pytest.raises(MarketplaceError, match="password"):
            PrivateKey.load(tmp_path / "k", password)


@pytest.mark.parametrize(
    "text", ["", "ssh-ed25519 AAAA", "spiral-ed25519 AAAA", "spiral-ed25519 " + "A" * 42 + "B=", "x" * 500]
)
def test_malformed_public_key_is_refused(text, tmp_path):
    with pytest.raises(MarketplaceError, match="public key"):
        TrustedKeys(tmp_path).trust(text)
    assert len(TrustedKeys(tmp_path)) == 0


def test_trusted_key_file_under_another_name_is_refused(tmp_path, key):
    (tmp_path / f"{'0' * 32}.pub").write_text(f"{key.public}\n")
    with pytest.raises(MarketplaceError, match="name the file after it"):
        list(TrustedKeys(tmp_path))


def test_user_folders_follow_spiral_home_then_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("SPIRAL_HOME", str(tmp_path))
    assert keys_folder() == tmp_path / "trusted-keys" and state_folder() == tmp_path / "marketplace"
    monkeypatch.setenv("SPIRAL_HOME", "relative")
    with pytest.raises(MarketplaceError, match="SPIRAL_HOME"):
        keys_folder()
    monkeypatch.delenv("SPIRAL_HOME")
    if os.name == "posix":
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
        monkeypatch.setenv("XDG_STATE_HOME", "relative is to be ignored")
        monkeypatch.setenv("HOME", str(tmp_path / "h"))
        assert keys_folder() == tmp_path / "c/spiral/trusted-keys"
        assert state_folder() == tmp_path / "h/.local/state/spiral/marketplace"


def test_missing_cryptography_is_told_with_the_remedy():
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from spiral.errors import MissingDependencyError\n"
        "from spiral.plugin.marketplace import generate_key\n"
        "try: generate_key('/nowhere/k')\n"
        "except MissingDependencyError as error: assert 'spiral[marketplace]' in str(error), error\n"
        "else: raise SystemExit('no error')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- the author's side
def test_serial_number_grows_by_itself_and_may_not_fall(repository, key):
    assert build_index(repository, key).serial == 2
    assert build_index(repository, key, serial=10).serial == 10
    with pytest.raises(MarketplaceError, match="must grow beyond 10"):
        build_index(repository, key, serial=10)


def test_index_is_signed_over_its_bytes_as_they_are(repository, key):
    index = Index.from_bytes((repository / "index.json").read_bytes())
    write_index(repository, index, [key])
    assert Index.from_bytes(index.to_bytes()) == index
    name, id, _ = (repository / "index.json.sig").read_text().split()
    assert (name, id) == ("ed25519", hashlib.sha256(key.public.raw).hexdigest()[:32])


WHEELS = {
    "no entry point": dict(entry_points="[console_scripts]\nx = y:z\n"),
    "two entry points": dict(entry_points="[spiral.plugins]\na = y:z\nb = y:z\n"),
    "malformed entry points": dict(entry_points="a = b"),
    "odd id": dict(entry_points="[spiral.plugins]\n../x = y:z\n"),
    "address as dependency": dict(requires=["x @ https://host/x.whl"]),
    "malformed dependency": dict(requires=["x >>= 1"]),
    "unknown declaration": dict(declared={"capabilites": []}),
    "malformed declaration": dict(declared={"dependencies": "clock"}),
    "path that leads outside": dict(extra_files={"../evil.py": b""}),
    "absolute path": dict(extra_files={"/evil.py": b""}),
    "drive": dict(extra_files={"c:evil.py": b""}),
    "file twice": dict(extra_files={"BAD_PLUGIN/__init__.py": b""}),
    "record of nothing": dict(record=""),
    "record of something else": dict(record="x.py,sha256=AAAA,1\n"),
    "escape in summary": dict(summary="\x1b[31m"),
}


@pytest.mark.parametrize("options", WHEELS.values(), ids=WHEELS.keys())
def test_unusable_wheel_makes_no_index(tmp_path, key, options):
    make_wheel(tmp_path, "bad", "1", **options)
    with pytest.raises(MarketplaceError):
        build_index(tmp_path, key, name="tests")
    assert not (tmp_path / "index.json").exists()


def test_wheel_with_a_changed_file_makes_no_index(tmp_path, key):
    path = make_wheel(tmp_path, "bad", "1")
    data = path.read_bytes().replace(b"VERSION = '1'", b"VERSION = '2'")
    path.write_bytes(data)
    with pytest.raises(MarketplaceError):
        build_index(tmp_path, key, name="tests")


def test_folder_without_wheels_or_with_links_makes_no_index(tmp_path, key, repository):
    with pytest.raises(MarketplaceError, match="no wheels"):
        build_index(tmp_path, key, name="tests")
    (repository / "link-1-py3-none-any.whl").symlink_to(repository / "tiny_metrics-1.4-py3-none-any.whl")
    with pytest.raises(MarketplaceError, match="no regular file"):
        build_index(repository, key)


def test_state_lock_is_taken_again_by_its_holder(tmp_path):
    state = State(tmp_path)
    with state.lock(), state.lock():
        state.accept("here", "tests", 1, "00")
