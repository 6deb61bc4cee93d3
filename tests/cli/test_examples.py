"""The examples that `--help` shows are commands that work."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from spiral.cli.main import COMMANDS, main

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin" / "marketplace"))  # tiny_wheels

TEXT = "".join(f"line {i}: the cat number {i % 7} sat on mat {i % 5}.\n\n" for i in range(300))
TINY = ["model.context_length=16", "model.n_layer=1", "model.n_head=2", "model.n_kv_head=1", "model.dim=32",
        "model.ffn_dim=32", "data.vocab_size=270", "run.batch_size=4", "run.eval_every=0"]  # fmt: skip
PLUGIN = """
from spiral.plugin import Plugin, PluginMetadata

class Notes(Plugin):
    def metadata(self):
        return PluginMetadata("notes", "1.0").with_description("Keeps notes.").with_author("A. Author")

    def on_load(self, ctx):
        ctx.register_service("notes", [])
"""
EXAMPLES = [line for module in COMMANDS.values() for line in module.EXAMPLES]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has what the examples name, the models tiny."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "my_texts").mkdir()
    for name in ("my_texts/a.txt", "held_out.txt"):
        (folder / name).write_text(TEXT)
    (folder / "config.yaml").write_text("run: {steps: 3}\n")
    pipeline = "modules: [{type: conv2d, config: {in_channels: auto, out_channels: 4, kernel_size: 3}}, relu]\n"
    (folder / "model.yaml").write_text(pipeline)
    data = f"data.path={folder / 'my_texts'}"
    for run in ("demo", "first"):
        assert main(["train", *TINY, data, "run.steps=3", f"run.out={folder / 'runs' / run}"]) == 0
    assert main(["export", str(folder / "runs" / "demo"), "--type", "q8_0"]) == 0
    (folder / "notes.py").write_text(PLUGIN)
    make_market(folder)
    return folder


def make_market(folder: Path) -> None:
    """A marketplace with one plugin, and an environment into which it can be installed."""
    from tiny_wheels import make_wheel

    from spiral.plugin.marketplace import PrivateKey, build_index, generate_key

    market = folder / "market"
    market.mkdir()
    make_wheel(market, "notes", "1.0", summary="Keeps notes.")
    generate_key(folder / "publisher", "example")
    (folder / "publisher.pub").rename(market / "publisher.pub")
    build_index(market, PrivateKey.load(folder / "publisher"), name="example")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "environment"], check=True)


@pytest.mark.parametrize("line", EXAMPLES)
def test_example_works(
    line: str, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    program, command, *arguments = shlex.split(line)
    assert program == "spiral" and command in COMMANDS
    if command == "demo":  # its time and text are the example's, its model is not
        arguments += [*TINY, "run.steps=3"]
        if "--steps" in arguments:
            arguments[arguments.index("--steps") + 1] = "3"
    elif command == "train" and "--print" not in arguments:
        steps = ["run.steps=6"] if "--resume" in arguments else [*TINY, "run.steps=3", "--overwrite"]
        arguments += steps
    elif command == "plugin":
        arguments += prepare_plugin(arguments[0], world, monkeypatch)
        capsys.readouterr()
    if command == "tune":  # needs a GPU, and there is none where these tests run
        assert main([command, *arguments]) == 2
        assert "no NVIDIA driver" in capsys.readouterr().err
        return
    assert main([command, *arguments]) == 0
    shown = capsys.readouterr()
    assert shown.out and shown.err == ""


def prepare_plugin(action: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What an action needs to be there; gives further arguments."""
    monkeypatch.setenv("SPIRAL_HOME", str(world / "home"))
    environment = ["--python", str(world / "environment" / "bin" / "python")]
    if action == "watch":  # ends at once
        monkeypatch.setattr("spiral.cli.plugin_watch.time.sleep", interrupt)
    if action not in ("search", "install", "upgrade", "remove", "verify"):
        return []
    assert main(["plugin", "trust", "market/publisher.pub"]) == 0
    if action == "remove":
        assert main(["plugin", "install", "notes", "--index", "market", *environment]) == 0
    return environment


def interrupt(seconds: float) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples_of_itself(command: str) -> None:
    assert len(COMMANDS[command].EXAMPLES) >= 2
    assert all(line.startswith(f"spiral {command}") for line in COMMANDS[command].EXAMPLES)
