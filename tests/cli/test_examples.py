"""The examples that `--help` shows are commands that work."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from spiral.cli.main import COMMANDS, main

TEXT = "".join(f"line {i}: the cat number {i % 7} sat on mat {i % 5}.\n\n" for i in range(300))
TINY = ["model.context_length=16", "model.n_layer=1", "model.n_head=2", "model.n_kv_head=1", "model.dim=32",
        "model.ffn_dim=32", "data.vocab_size=270", "run.batch_size=4", "run.eval_every=0"]  # fmt: skip
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
    return folder


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
    assert main([command, *arguments]) == 0
    shown = capsys.readouterr()
    assert shown.out and shown.err == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples_of_itself(command: str) -> None:
    assert len(COMMANDS[command].EXAMPLES) >= 2
    assert all(line.startswith(f"spiral {command}") for line in COMMANDS[command].EXAMPLES)
