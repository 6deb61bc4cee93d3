"""`spiral plugin`: what is there, whether a plugin is sound, reloads, the marketplace; mistakes in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spiral.cli.main import COMMANDS, main
from spiral.plugin import global_registry

PLUGIN = """
import os, threading, time
from spiral import optim
from spiral.plugin import EpochEnd, Plugin, PluginCapability, PluginMetadata
{at_import}

class Mine(Plugin):
    def metadata(self):
        return (
            PluginMetadata("{id}", "{version}").with_description("Tries things.").with_author("A. Author")
            .with_capability(PluginCapability.Optimizers){more}
        )

    def on_load(self, ctx):
        ctx.set_config("limit", 3)
        ctx.subscribe(EpochEnd, self.hear)
        ctx.register_optimizer("{id}", optim.SGD)
        {on_load}

    def hear(self, event):
        pass
"""


def write(path: Path, version: str = "1.0", id: str = "", **parts: str) -> Path:
    parts = {"at_import": "", "on_load": "", "more": "", **parts}
    path.write_text(PLUGIN.format(id=id or path.stem, version=version, **parts))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty folder whose plugins are installed; they go again."""
    monkeypatch.setenv("SPIRAL_PLUGIN_PATH", str(tmp_path))
    monkeypatch.setenv("SPIRAL_HOME", str(tmp_path / "home"))
    registry = global_registry()
    before = {m.id for m in registry.list_plugins()}
    sources = set(registry.known_sources)
    yield tmp_path
    for metadata in registry.list_plugins():
        if metadata.id not in before and not metadata.id.startswith("backend-") and registry.get(metadata.id):
            registry.unregister(metadata.id, cascade=True)
    registry.known_sources &= sources
    for name in list(registry.quarantine):
        registry.quarantine.remove(name)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["plugin", *arguments]) == 0
    return capsys.readouterr().out


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """What a command prints, and the one line that it fails with."""
    assert main(["plugin", *arguments]) == 2
    found = capsys.readouterr()
    errors = [line for line in found.err.splitlines() if "warning:" not in line]
    assert len(errors) == 1 and errors[0].startswith("spiral plugin: "), found.err
    return found.out, errors[0]


# ---------------------------------------------------------------- list, graph, explain
def test_list_shows_loaded_switched_off_and_quarantined_ones(folder, capsys, monkeypatch):
    write(folder / "good.py")
    write(folder / "broken.py", at_import="raise KeyError('no')")
    write(folder / "off.py")
    monkeypatch.setenv("SPIRAL_PLUGINS", "-off")
    found = json.loads(shown(capsys, "list", "--json"))
    good = next(p for p in found["loaded"] if p["id"] == "good")
    assert good == {
        "id": "good", "version": "1.0", "origin": str(folder / "good.py"), "capabilities": ["Optimizers"],
        "description": "Tries things.",
    }  # fmt: skip
    assert found["switched off"] == [{"name": "off", "origin": str(folder / "off.py")}]
    assert [q["name"] for q in found["quarantined"]] == ["broken"]
    assert "KeyError: 'no'" in found["quarantined"][0]["reason"]
    text = shown(capsys, "list")
    assert text.index("good") < text.index("switched off") < text.index("off.py") < text.index("quarantined")
    only = json.loads(shown(capsys, "list", "--json", "--capability", "OPTIMIZERS"))
    assert [p["id"] for p in only["loaded"]] == ["good"] and list(only) == ["loaded"]


def test_graph_shows_what_needs_what(folder, capsys):
    write(folder / "base.py", "1.5")
    write(folder / "left.py", more='.with_dependency("base", ">=1")')
    write(folder / "right.py", more='.with_dependency("left").with_dependency("base", optional=True)')
    text = shown(capsys, "graph")
    assert "right 1.0\n├─ base 1.5\n└─ left 1.0\n   └─ base 1.5\n" in text
    dot = shown(capsys, "graph", "--dot")
    assert '"left" -> "base" [label=">=1"];' in dot and '"right" -> "base" [label="", style=dashed];' in dot
    assert dot.startswith("digraph plugins {") and dot.rstrip().endswith("}")


def test_explain_shows_ledger_dependents_settings_and_events(folder, capsys, monkeypatch):
    write(folder / "base.py")
    write(folder / "user.py", more='.with_dependency("base")')
    monkeypatch.setenv("SPIRAL_CONFIG__BASE__LIMIT", "7")
    text = shown(capsys, "explain", "base")
    for line in ("needed by      user", "optimizer      base", "listens to\n  EpochEnd", "Tries things.", "A. Author"):
        assert line in text
    assert "limit          7, from SPIRAL_CONFIG__BASE__LIMIT" in text
    assert "limit          3, from the plugin; SPIRAL_CONFIG__USER__LIMIT overrides it" in shown(
        capsys, "explain", "user"
    )


def test_explain_shows_the_whole_traceback_of_a_quarantined_one(folder, capsys):
    write(folder / "broken.py", on_load="self.no_such_attribute")
    text = shown(capsys, "explain", "broken")
    assert "is in quarantine" in text and "in on_load" in text and "AttributeError" in text


def test_explain_names_similar_ones_and_those_switched_off(folder, capsys, monkeypatch):
    write(folder / "metrics.py")
    write(folder / "off.py")
    monkeypatch.setenv("SPIRAL_PLUGINS", "-off")
    assert "similar: metrics" in failure(capsys, "explain", "metrisc")[1]
    assert "SPIRAL_PLUGINS switches it off" in shown(capsys, "explain", "off")


def test_doctor_shows_plugins_and_quarantine(folder, capsys):
    write(folder / "good.py")
    write(folder / "broken.py", at_import="def (")
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert f"good                   1.0, {folder / 'good.py'}" in text and "1 optimizer" in text
    quarantine = text.split("plugins in quarantine\n")[1].split("\nenvironment")[0]
    assert "SyntaxError" in quarantine and "spiral plugin explain broken" in quarantine


def test_a_command_of_a_plugin_is_found(folder, capsys):
    command = """class Hello:
    HELP, EXAMPLES = "greets", ("spiral hello",)
    add_arguments = staticmethod(lambda parser: None)
    run = staticmethod(lambda arguments: print("hello") or 0)
"""
    write(folder / "greeter.py", at_import=command, on_load='ctx.register_command("hello", Hello)')
    assert "hello" not in COMMANDS
    assert main(["hello"]) == 0
    assert capsys.readouterr().out == "hello\n"


def test_training_uses_what_plugins_bring(folder, capsys):
    write(folder / "mine.py")
    assert main(["train", "optim.name=mine", "--print"]) == 0
    assert "name: mine" in capsys.readouterr().out
    assert global_registry().get("mine") is not None


# ---------------------------------------------------------------- validate
def test_a_sound_plugin_is_valid(tmp_path, capsys):
    path = write(tmp_path / "sound.py", on_load="import spiral; spiral.ones(2) + 1  # loads backends if nobody has")
    text = shown(capsys, "validate", str(path))
    verdicts = [line.split()[:2] for line in text.splitlines() if line.startswith(("  ok", "  note", "  problem"))]
    assert [v for v, _ in verdicts] == ["ok"] * 7
    assert [n for _, n in verdicts] == ["import", "metadata", "dependencies", "load", "unload", "load", "reload"]
    assert "    optimizer      sound\n" in text


PROBLEMS = {
    "a syntax error": ({"at_import": "def ("}, "import", "SyntaxError"),
    "a bad version": ({"version": "one"}, "import", "PEP 440"),
    "a missing dependency": ({"more": '.with_dependency("nowhere")'}, "dependencies", "there is no nowhere"),
    "on_load raises": ({"on_load": "{}['x']"}, "load", "KeyError"),
    "it ends the process": ({"on_load": "os._exit(0)"}, "load", "ended the process, with status 0"),
    "it crashes": ({"on_load": "os.abort()"}, "load", "SIGABRT"),
    "it asks to exit": ({"at_import": "raise SystemExit(3)"}, "import", "SystemExit: 3"),
    "a registration behind its back": (
        {"on_load": "from spiral.optim.catalog import OPTIMIZERS as o; import contextvars; "
                    "contextvars.Context().run(o.add, 'stray', optim.SGD)"},
        "unload", "the optimizer stray is left",
    ),
    "a thread": (
        {"on_load": "threading.Thread(target=time.sleep, args=(99,), daemon=True, name='napper').start()"},
        "load again", "a thread (napper)",
    ),
    "an open file": ({"on_load": "os.open(os.devnull, os.O_RDONLY)"}, "load again", "an open file (/dev/null)"),
    "state that cannot be taken over": (
        {"on_load": "pass\n    def export_state(self): return 1\n    def import_state(self, s): raise KeyError('k')"},
        "reload", "KeyError",
    ),
}  # fmt: skip


@pytest.mark.parametrize("problem", PROBLEMS)
def test_problems_of_a_plugin_are_found(problem, tmp_path, capsys):
    parts, step, message = PROBLEMS[problem]
    out, error = failure(capsys, "validate", str(write(tmp_path / "faulty.py", **parts)))
    rows = [line for line in out.splitlines() if line.startswith("  problem")]
    assert any(step in row and message in row for row in rows), out
    assert error.startswith("spiral plugin: ") and "problem" in error


def test_a_plugin_that_hangs_is_ended_with_its_children(tmp_path, capsys):
    child = "import subprocess; subprocess.Popen(['sleep', '60'])"
    path = write(tmp_path / "hangs.py", at_import=child, on_load="time.sleep(60)")
    out, _ = failure(capsys, "validate", str(path), "--seconds", "2")
    assert "problem  load          was not done after 2 s" in out


def test_a_folder_and_an_installed_plugin_are_validated(folder, capsys):
    write(folder / "base.py")
    write(folder / "user.py", more='.with_dependency("base")')
    text = shown(capsys, "validate", str(folder))
    assert "base 1.0" in text and "user 1.0" in text
    assert "user 1.0" in shown(capsys, "validate", "user")
    write(folder / "other_name.py", id="renamed")
    assert f"renamed 1.0 ({folder / 'other_name.py'})" in shown(capsys, "validate", "renamed")


# ---------------------------------------------------------------- reload, watch
def test_reload_rehearses_with_those_that_need_the_plugin(folder, capsys, tmp_path):
    base = write(folder / "base.py")
    write(folder / "user.py", more='.with_dependency("base", "<3")')
    new, newer = (folder / name for name in ("home", "home2"))
    new.mkdir(), newer.mkdir()
    write(new / "base.py", "2.0"), write(newer / "base.py", "3.0")
    text = shown(capsys, "reload", "base", "--with", str(new / "base.py"))
    assert f"base: 1.0 ({base}) → 2.0 ({new / 'base.py'})" in text and "on_load ran again in user" in text
    assert "running programs have not been told" in text
    error = failure(capsys, "reload", "base", "--with", str(newer / "base.py"))[1]
    assert "version 1.0 goes on" in error and "user 1.0 needs base <3" in error
    write(base, on_load="raise KeyError('no')", version="1.1")
    assert "on_load raised KeyError" in failure(capsys, "reload", str(base))[1]


def test_touch_tells_those_who_watch(tmp_path, capsys):
    path = write(tmp_path / "touched.py")
    os.utime(path, (1, 1))
    assert "touched" in shown(capsys, "reload", str(path), "--touch") and path.stat().st_mtime > 1
    os.utime(path, (1, 1))
    write(path, on_load="raise KeyError('no')"), os.utime(path, (1, 1))
    failure(capsys, "reload", str(path), "--touch")
    assert path.stat().st_mtime == 1


def test_watch_reloads_and_reports_each_change_once(tmp_path):
    path = write(tmp_path / "seen.py")
    command = [sys.executable, "-m", "spiral.cli", "plugin", "watch", str(path), "--interval", "0.05"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None

        def line() -> str:
            return process.stdout.readline().strip()

        try:
            assert line().endswith(f"loaded seen 1.0 from {path}") and "Ctrl-C" in line()
            write(path, "2.0-broken")
            assert "'seen': was not reloaded, version 1.0 goes on" in line()
            write(path, "3.0")
            assert line().endswith("reloaded seen 3.0")
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=30)
            assert (process.returncode, rest, errors) == (0, "", "")
        finally:
            process.kill()


# ---------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "required: ACTION"),
        ("lst", "invalid choice: 'lst'"),
        ("list --jsn", "did you mean --json?"),
        ("list --capability none", "the kind is one of"),
        ("explain", "required: ID"),
        ("validate nowhere.py", "expected a .py file"),
        ("validate nowhere", "there is no such plugin"),
        ("validate backend-numpy", "comes from spiral itself"),
        ("validate empty", "holds no plugins"),
        ("reload nowhere", "there is no plugin 'nowhere'"),
        ("reload nowhere.py", "expected a .py file"),
        ("reload plain.py --with plain.py", "--with goes with a plugin's id"),
        ("reload plain.py", "expected one Plugin subclass"),
        ("watch nowhere.py", "expected a .py file"),
        ("watch plain.py", "expected one Plugin subclass"),
        ("watch plain.py --interval 0", "--interval must be between"),
        ("search", "Name its folder or address with --index"),
        ("search --index empty", "index.json"),
        ("install x --index ftp://a", "received ftp://"),
        ("remove x", "x"),
        ("trust plain.py", "expected a line spiral-ed25519"),
        ("trust nowhere.pub", "No such file"),
        ("trust --remove x", "is not trusted"),
        ("trust x --remove x", "received both"),
    ],
)
def test_mistakes_are_one_line(arguments, message, folder, capsys, monkeypatch):
    monkeypatch.delenv("SPIRAL_PLUGIN_PATH")
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    (folder / "plain.py").write_text("x = 1\n")
    assert message in failure(capsys, *arguments.split())[1]


def test_trusted_keys_are_listed_and_removed(folder, capsys):
    from spiral.plugin.marketplace import generate_key

    monkey = generate_key(folder / "key", "a publisher")
    assert shown(capsys, "trust") == "no key is trusted\n"
    assert shown(capsys, "trust", str(monkey)) == f"trusted {monkey.id} a publisher\n"
    assert shown(capsys, "trust") == f"{monkey.id} a publisher\n"
    assert shown(capsys, "trust", "--remove", monkey.id) == f"no longer trusted {monkey.id}\n"
    assert shown(capsys, "trust") == "no key is trusted\n"
