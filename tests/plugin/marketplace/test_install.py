"""Installing from a signed index with the real pip: what ends up in the environment, and what never does."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_wheels import make_wheel

from spiral.plugin.dependencies import DependencyError
from spiral.plugin.marketplace import InstallError, MarketplaceError, UntrustedError, build_index
from spiral.plugin.marketplace.environment import Environment

pytest.importorskip("cryptography", reason="signatures need cryptography (extra `marketplace`)")


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, environment):
    """Only the environment counts, and it is empty again afterwards."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    yield
    for folder in Path(environment).parents[1].glob("**/site-packages/*"):
        shutil.rmtree(folder)


def plugins(environment):
    contents = Environment(environment).contents()
    return {n: d.version for n, d in contents.distributions.items() if n.startswith("tiny-")}


def state_of(market):
    path = market.state.folder / "installed.json"
    return path.read_text() if path.exists() else None


def test_plugin_is_installed_with_what_it_needs_found_upgraded_verified_and_removed(
    market, repository, key, environment
):
    assert [str(c) for c in market.resolve(["dashboard"], environment).changes] == ["metrics 1.4", "dashboard 1.1"]
    outcome = market.install(["dashboard"], environment, offline=True)
    assert [str(c) for c in outcome.changes] == ["metrics 1.4", "dashboard 1.1"]
    assert plugins(environment) == {"tiny-metrics": "1.4", "tiny-dashboard": "1.1"}
    assert market.install(["dashboard", "metrics"], environment, offline=True).changes == ()
    verified = market.verify(environment)
    assert verified.ok and sorted(verified.checked) == ["dashboard 1.1", "metrics 1.4"] and verified.files >= 8

    with pytest.raises(DependencyError, match="dashboard 1.1 needs metrics <2") as caught:  # stands in the way
        market.install(["trainer"], environment, offline=True)
    assert "installed are" in str(caught.value)
    assert plugins(environment) == {"tiny-metrics": "1.4", "tiny-dashboard": "1.1"}

    make_wheel(repository, "dashboard", "1.2", requires=["tiny-metrics>=2"])
    build_index(repository, key)
    outcome = market.upgrade(None, environment, offline=True)
    assert sorted(str(c) for c in outcome.changes) == ["dashboard 1.1 → 1.2", "metrics 1.4 → 2.1"]
    assert plugins(environment) == {"tiny-metrics": "2.1", "tiny-dashboard": "1.2"}
    assert market.search("dash", environment=environment)[0].installed == "1.2"

    with pytest.raises(DependencyError, match="'metrics': is needed by dashboard"):
        market.remove(["metrics"], environment)
    outcome = market.remove(["metrics"], environment, cascade=True)
    assert [str(c) for c in outcome.changes] == ["metrics 2.1 removed", "dashboard 1.2 removed"]
    assert plugins(environment) == {} and market.verify(environment).checked == ()


@pytest.mark.slow
def test_upgrade_of_one_leaves_others_as_they_are(market, repository, key, environment):
    make_wheel(repository, "clock", "1+local.2")
    build_index(repository, key)
    market.install(["metrics<2", "clock"], environment, offline=True)
    make_wheel(repository, "clock", "2")
    build_index(repository, key)
    assert [str(c) for c in market.upgrade(["clock"], environment, offline=True).changes] == ["clock 1+local.2 → 2"]
    assert plugins(environment) == {"tiny-metrics": "1.4", "tiny-clock": "2"}
    with pytest.raises(MarketplaceError, match="'trainer': was not installed"):
        market.upgrade(["trainer"], environment)


def test_one_bad_artifact_of_a_set_installs_nothing_of_it(market, repository, environment):
    bad = repository / "tiny_dashboard-1.1-py3-none-any.whl"
    data = bytearray(bad.read_bytes())
    data[len(data) // 2] ^= 1
    bad.write_bytes(data)
    with pytest.raises(UntrustedError, match="SHA-256"):
        market.install(["dashboard"], environment, offline=True)
    assert plugins(environment) == {} and state_of(market) is None


def test_pip_that_fails_half_way_is_reported_and_nothing_is_remembered(market, repository, key, environment):
    make_wheel(repository, "aaa", "1")
    make_wheel(repository, "zzz", "1", requires=["tiny-aaa"], extra_files={"n" * 300 + ".py": b""})  # no such file name
    build_index(repository, key)
    market.install(["metrics<2"], environment, offline=True)
    before = state_of(market)
    with pytest.raises(InstallError, match="pip install: status") as caught:
        market.install(["zzz"], environment, offline=True)
    assert "Changed nevertheless: tiny-aaa: absent → 1" in str(caught.value)
    assert state_of(market) == before
    assert market.verify(environment).ok
    assert "tiny-zzz" not in plugins(environment)  # half of it is not it


def test_pip_that_cannot_resolve_is_reported_with_nothing_changed(market, repository, key, environment):
    make_wheel(repository, "needy", "1", requires=["no-such-distribution-anywhere"])
    build_index(repository, key)
    with pytest.raises(InstallError, match="(?s)no-such-distribution-anywhere.*No plugin was changed"):
        market.install(["needy"], environment, offline=True)
    assert plugins(environment) == {} and state_of(market) is None


@pytest.mark.slow
def test_wheel_for_another_platform_is_reported(market, repository, key, environment):
    make_wheel(repository, "native", "1", tag="cp311-cp311-win32" if sys.platform != "win32" else "cp311-cp311-any")
    build_index(repository, key)
    with pytest.raises(InstallError, match="(?s)not a supported wheel.*No plugin was changed"):
        market.install(["native"], environment, offline=True)


def test_success_of_pip_is_not_believed_where_it_installed_elsewhere(market, environment, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    with pytest.raises(InstallError, match="pip reported success, but tiny-metrics 2.1 is not in"):
        market.install(["metrics"], environment, offline=True)
    assert state_of(market) is None


@pytest.mark.parametrize("needed", ["tiny-metrics>=5", "Tiny.Metrics>=5", "spiral>=99", "spiral"])
def test_pip_never_looks_elsewhere_for_what_is_the_marketplaces_or_spirals_own(
    market, repository, key, environment, needed
):
    wheel = {"dependencies": [{"id": "metrics", "versions": ""}]}
    make_wheel(repository, "confused", "1", requires=[needed], declared=wheel)
    build_index(repository, key)
    with pytest.raises(DependencyError, match="may not fetch|needs the distribution"):
        market.install(["confused"], environment)
    assert plugins(environment) == {}


def test_ordinary_dependency_is_pips_and_may_not_bring_a_namesake_of_a_plugin(
    market, repository, key, environment, monkeypatch, tmp_path
):
    elsewhere = tmp_path / "elsewhere"  # stands for the place where pip looks
    elsewhere.mkdir()
    none = {"entry_points": ""}
    make_wheel(elsewhere, "plain", "1", distribution="tiny-plain", **none)
    make_wheel(elsewhere, "sly", "1", distribution="tiny-sly", requires=["tiny-secret"], **none)
    make_wheel(elsewhere, "secret", "99", distribution="tiny-secret", **none)
    monkeypatch.setenv("PIP_FIND_LINKS", str(elsewhere))
    make_wheel(repository, "secret", "1")
    make_wheel(repository, "clock", "1", requires=["tiny-plain"])
    make_wheel(repository, "bell", "1", requires=["tiny-sly"])
    build_index(repository, key)
    market.install(["clock"], environment, offline=True)
    assert plugins(environment) == {"tiny-plain": "1", "tiny-clock": "1"}
    with pytest.raises(InstallError, match="(?s)tiny-secret.*No plugin was changed"):
        market.install(["bell"], environment, offline=True)
    assert plugins(environment) == {"tiny-plain": "1", "tiny-clock": "1"}


def test_changed_missing_and_forged_files_are_found(market, environment):
    market.install(["metrics<2", "dashboard"], environment, offline=True)
    folder = Path(Environment(environment).contents().distributions["tiny-metrics"].folder)
    (folder / "dashboard_plugin" / "__init__.py").unlink()
    module = folder / "metrics_plugin" / "__init__.py"
    module.write_text("import os\n")
    found = {(p.id, p.path): p.what for p in market.verify(environment).problems}
    assert "changed" in found["metrics", "metrics_plugin/__init__.py"]
    assert "No such file" in found["dashboard", "dashboard_plugin/__init__.py"]
    assert len(found) == 2
    record = folder / "tiny_metrics-1.4.dist-info" / "RECORD"  # a thief who corrects the installed RECORD as well
    coded = base64.urlsafe_b64encode(hashlib.sha256(module.read_bytes()).digest()).rstrip(b"=").decode()
    lines = [
        f"metrics_plugin/__init__.py,sha256={coded},10\n" if row.startswith("metrics_plugin/__init__.py") else row
        for row in record.read_text().splitlines(keepends=True)
    ]
    record.write_text("".join(lines))
    assert any("changed" in p.what for p in market.verify(environment).problems if p.id == "metrics")


def test_withdrawn_and_replaced_versions_are_found(market, repository, key, environment):
    market.install(["metrics<2", "dashboard"], environment, offline=True)
    (repository / "tiny_metrics-1.4-py3-none-any.whl").unlink()
    make_wheel(repository, "dashboard", "1.1", requires=["tiny-metrics<2"], summary="Another one.")
    build_index(repository, key)
    problems = sorted(map(str, market.verify(environment).problems))
    assert problems == [
        "dashboard: the index has another artifact as version 1.1 now",
        "metrics: the index has withdrawn version 1.4",
    ]
    assert market.verify(environment, with_index=False).ok


@pytest.mark.slow
def test_plugin_that_pip_removed_behind_our_back_is_found_and_can_be_removed(market, environment):
    market.install(["metrics<2"], environment, offline=True)
    pip = [sys.executable, "-m", "pip", "--python", environment, "uninstall", "-q", "-y", "tiny-metrics"]
    subprocess.run(pip, check=True, capture_output=True)
    assert [p.what for p in market.verify(environment).problems] == ["expected version 1.4; nothing is installed"]
    market.remove(["metrics"], environment)
    assert json.loads(state_of(market) or "").popitem()[1] == {}


@pytest.mark.slow
def test_plugin_that_was_installed_without_the_marketplace_counts(market, repository, environment):
    wheel = repository / "tiny_dashboard-1.1-py3-none-any.whl"
    pip = [sys.executable, "-m", "pip", "--python", environment, "install", "-q", "--no-deps", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    with pytest.raises(DependencyError, match="dashboard 1.1 needs metrics <2"):
        market.install(["trainer"], environment, offline=True)
    with pytest.raises(MarketplaceError, match="'dashboard': was not installed from an index"):
        market.remove(["dashboard"], environment)
