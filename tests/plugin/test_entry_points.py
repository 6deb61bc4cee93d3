"""Plugins found through entry points: many cost nothing until they are asked for, and bad ones harm nobody."""

from __future__ import annotations

import os

import pytest
from installed import install, look, plugin, python

from spiral.errors import ArgumentError, RegistryError
from spiral.plugin import Choice
from spiral.plugin.dependencies import Node, Requirement
from spiral.plugin.loading import impossible
from spiral.plugin.sources import path_sources

MANY = 200


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    site = tmp_path_factory.mktemp("many")
    for n in range(MANY):
        needs = f'.with_dependency("bulk_{n - 1:03}", ">=1,<2")' if n % 10 else ""
        install(site, f"bulk_{n:03}", plugin(f"bulk_{n:03}", needs))
    return site


def test_import_spiral_costs_the_same_with_200_plugins_installed(many):
    code = """
    import sys, time
    import numpy
    start = time.process_time()
    import spiral
    print(time.process_time() - start, [m for m in sys.modules if m.startswith("bulk_")])
    """
    found = [python(many, code).stdout.split(" ", 1) for _ in range(5)]
    assert {names.strip() for _, names in found} == {"[]"}
    assert min(float(seconds) for seconds, _ in found) <= 0.25


def test_all_of_200_are_loaded_in_order_and_soon(many):
    found = look(many)
    assert found["early"] == [] and not found["quarantine"] and found["again"] == []
    bulk = [name for name in found["loaded"] if name.startswith("bulk_")]
    assert sorted(bulk) == [f"bulk_{n:03}" for n in range(MANY)]
    at = {name: i for i, name in enumerate(bulk)}
    assert all(at[f"bulk_{n - 1:03}"] < at[f"bulk_{n:03}"] for n in range(MANY) if n % 10)
    assert found["took"] <= 5.0  # about 1 s, most of it for reading 200 files


# ---------------------------------------------------------------- bad ones
BAD = {  # name: source of the module, target of the entry point, what the reason and the traceback say
    "raises": ("1 / 0", "", "ZeroDivisionError", "1 / 0"),
    "syntax": ("def f(:\n", "", "SyntaxError", "def f(:"),
    "exits": ("import sys\nsys.exit(3)", "", "SystemExit: 3", "sys.exit(3)"),
    "basely": ("class Odd(BaseException): pass\nraise Odd('at import')", "", "Odd: at import", "raise Odd"),
    "no_module": ("", "bad_absent_module:Installed", "No module named 'bad_absent_module'", "ModuleNotFoundError"),
    "no_attribute": ("x = 1", "bad_no_attribute:Installed", "no attribute 'Installed'", "AttributeError"),
    "malformed": ("", "not a target !", "", "bad_malformed"),
    "number": ("x = 5", "bad_number:x", "expected a Plugin or something that makes one", "5"),
    "other_class": ("class Installed: pass", "", "expected a Plugin or something that makes one", "Installed"),
    "empty_module": ("x = 1", "bad_empty_module", "expected one Plugin subclass", "found none"),
    "constructor": (
        plugin("bad_constructor") + "    def __init__(self): raise OSError('no')", "", "OSError: no", "OSError",
    ),
    "no_metadata": (
        "from spiral.plugin import Plugin\nclass Installed(Plugin): pass", "", "write metadata(self)", "metadata",
    ),
    "wrong_metadata": (
        "from spiral.plugin import Plugin\nclass Installed(Plugin):\n    def metadata(self): return 'x'", "",
        "must return a PluginMetadata", "PluginMetadata",
    ),
    "metadata_exits": (
        "from spiral.plugin import Plugin\nclass Installed(Plugin):\n    def metadata(self): raise SystemExit(1)", "",
        "SystemExit: 1", "raise SystemExit(1)",
    ),
    "load_raises": (plugin("bad_load_raises", load="1 / 0"), "", "on_load raised ZeroDivisionError", "1 / 0"),
    "load_exits": (
        plugin("bad_load_exits", load="raise SystemExit(2)"), "", "on_load raised SystemExit: 2", "SystemExit(2)",
    ),
    "cycle_a": (plugin("bad_cycle_a", '.with_dependency("bad_cycle_b")'), "", "bad_cycle_b", "cycle"),
    "cycle_b": (plugin("bad_cycle_b", '.with_dependency("bad_cycle_a")'), "", "bad_cycle_a", "cycle"),
    "needs": (plugin("bad_needs", '.with_dependency("absent")'), "", "there is no absent", "DependencyError"),
    "needs_newer": (plugin("bad_needs_newer", '.with_dependency("good_one", ">=2")'), "", ">=2", "DependencyError"),
    "needs_a_bad_one": (
        plugin("bad_needs_a_bad_one", '.with_dependency("bad_load_raises")'), "", "bad_load_raises", "DependencyError",
    ),
    "id_of_good_one": (plugin("good_one"), "", "comes also from entry point", "good_one"),
    "takes_a_name": (plugin("bad_takes_a_name", load="ctx.register_callback('callback of good_one', Callback)"), "",
                     "registered already, by 'good_one'", "RegistryError"),
}  # fmt: skip


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two good plugins among the bad; the second needs the first."""
    site = tmp_path_factory.mktemp("mixed")
    install(site, "aa_good_one", plugin("good_one"))
    install(site, "zz_good_two", plugin("good_two", '.with_dependency("good_one", ">=1")'))
    for name, (source, target, _, _) in BAD.items():
        install(site, f"bad_{name}", source, target)
    return site


@pytest.fixture(scope="module")
def found(mixed):
    return look(mixed)


def test_good_plugins_load_among_bad_ones(found):
    loaded = [name for name in found["loaded"] if name.startswith(("good_", "bad_"))]
    assert loaded == ["good_one", "good_two"] and found["again"] == [] and found["early"] == []
    assert not [owner for owner in found["owners"] if "bad_" in owner], "something of a bad one is left"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_plugin_is_set_aside_with_its_traceback(found, name):
    _, _, reason, trace = BAD[name]
    assert f"bad_{name}" in found["quarantine"], found["log"]
    origin, said, text = found["quarantine"][f"bad_{name}"]
    assert f"bad_{name}" in origin
    assert reason in said and trace in text, f"{said}\n{text}"
    assert "Traceback" in text or "Error" in text
    assert found["log"].count(f"plugin bad_{name} (") == 1


def test_nothing_else_is_set_aside(found):
    assert sorted(found["quarantine"]) == sorted(f"bad_{name}" for name in BAD)


def test_import_spiral_is_not_broken_by_any(mixed):
    done = python(mixed, "import spiral; print(spiral.add(spiral.ones(2), 1.0).numpy().tolist())")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[2.0, 2.0]\n", "")


def test_control_c_during_an_import_is_not_swallowed(tmp_path):
    install(tmp_path, "bad_interrupted", "raise KeyboardInterrupt")
    done = python(tmp_path, "from spiral.plugin import init_plugin_system\ninit_plugin_system()")
    assert done.returncode != 0 and "KeyboardInterrupt" in done.stderr


def test_two_distributions_may_name_their_entry_points_alike(tmp_path):
    for n in (1, 2):
        site = tmp_path / f"dist{n}"
        site.mkdir()
        install(tmp_path, f"bad_twin{n}", f"raise ValueError('twin {n}')")
        (tmp_path / f"bad_twin{n}-1.0.dist-info" / "entry_points.txt").write_text(
            f"[spiral.plugins]\ntwin = bad_twin{n}:Installed\n"
        )
    found = look(tmp_path)
    assert len(found["quarantine"]) == 2
    assert {said[-6:] for _, said, _ in ((o, r.rstrip("."), t) for o, r, t in found["quarantine"].values())} == {
        "twin 1",
        "twin 2",
    }


def test_of_two_that_exclude_each_other_the_one_that_says_so_is_set_aside(tmp_path):
    install(tmp_path, "good_one", plugin("good_one"))
    install(tmp_path, "bad_picky", plugin("bad_picky", '.with_conflict("good_one", "<2")'))
    install(tmp_path, "good_two", plugin("good_two"))
    found = look(tmp_path)
    assert [name for name in found["loaded"] if name.startswith(("good_", "bad_"))] == ["good_one", "good_two"]
    assert list(found["quarantine"]) == ["bad_picky"] and "conflicts with" in found["quarantine"]["bad_picky"][1]


def test_a_new_plugin_that_does_not_suit_a_loaded_one_is_set_aside():
    there = {"old": Node("old", "1.0", (Requirement("new", ">=2", optional=True),))}
    found = impossible({"new": Node("new", "1.0"), "other": Node("other", "1.0")}, there)
    assert list(found) == ["new"] and "old 1.0 needs new >=2" in str(found["new"])


# ---------------------------------------------------------------- choosing
CHOICES = {
    "-bad_exits": (["good_one", "good_two"], ["bad_exits"]),
    "-aa_good_one": ([], ["aa_good_one"]),  # by name: what needs it goes as well
    "-good_one": ([], []),  # by id
    "+good_one": (["good_one"], []),
    "+aa_good_one,+zz_good_two": (["good_one", "good_two"], []),
    " -zz_good_two , +aa_good_one,+zz_good_two,": (["good_one"], ["zz_good_two"]),
    "": (["good_one", "good_two"], []),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_spiral_plugins_chooses_by_name_and_id(tmp_path, choice):
    install(tmp_path, "aa_good_one", plugin("good_one"))
    install(tmp_path, "zz_good_two", plugin("good_two", '.with_dependency("good_one")' if choice[:1] != " " else ""))
    install(tmp_path, "bad_exits", "raise SystemExit(3)")
    expected, never_imported = CHOICES[choice]
    found = look(tmp_path, SPIRAL_PLUGINS=choice)
    assert [name for name in found["loaded"] if name.startswith("good_")] == expected
    assert not set(never_imported) & set(found["quarantine"])


@pytest.mark.parametrize("choice", ["bad", "-", "+ ", "-a,b", "--a", "a-b", "-a,+ +"])
def test_a_malformed_choice_is_refused(choice):
    with pytest.raises(ArgumentError, match="SPIRAL_PLUGINS: expected names with a sign, such as -bad,.only; received"):
        Choice.parse(choice)


FAILS = """
    import spiral
    from spiral.errors import SpiralError
    from spiral.plugin import init_plugin_system
    try:
        init_plugin_system()
    except SpiralError as error:
        print(type(error).__name__, error)
"""


def test_a_malformed_choice_is_an_error_of_the_plugin_system_only(tmp_path):
    done = python(tmp_path, FAILS, SPIRAL_PLUGINS="bad")
    assert done.stdout.startswith("ArgumentError SPIRAL_PLUGINS: expected names with a sign"), done.stderr


# ---------------------------------------------------------------- paths
def test_spiral_plugin_path_names_files_and_folders(tmp_path):
    folder = tmp_path / "folder"
    (folder / "package").mkdir(parents=True)
    (folder / "one.py").write_text(plugin("good_one"))
    (folder / "_hidden.py").write_text("1 / 0")
    (folder / "notes.txt").write_text("nothing")
    (folder / "package" / "__init__.py").write_text(plugin("good_two", '.with_dependency("good_three")'))
    (tmp_path / "three.py").write_text(plugin("good_three"))
    (tmp_path / "four.py").write_text("raise SystemExit(4)")
    path = os.pathsep.join(
        str(p) for p in (folder, tmp_path / "three.py", tmp_path / "four.py", tmp_path / "three.py", "")
    )
    found = look(tmp_path / "empty", SPIRAL_PLUGIN_PATH=path)
    assert sorted(n for n in found["loaded"] if n.startswith("good_")) == ["good_one", "good_three", "good_two"]
    assert list(found["quarantine"]) == ["four"] and found["quarantine"]["four"][0] == str(tmp_path / "four.py")


def test_a_path_without_a_plugin_is_an_error_of_the_plugin_system_only(tmp_path):
    done = python(tmp_path, FAILS, SPIRAL_PLUGIN_PATH=str(tmp_path / "absent"))
    assert done.stdout.startswith("RegistryError plugin: expected a .py file, or a folder with an"), done.stderr


@pytest.mark.parametrize("path", ["absent", "absent.py", "notes.txt"])
def test_a_path_without_a_plugin_is_refused(tmp_path, path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(RegistryError, match=f"expected a .py file, or a folder with an __init__.py; .*{path}"):
        path_sources(tmp_path / path)


def test_an_empty_folder_has_no_plugins(tmp_path):
    assert path_sources(tmp_path) == []
