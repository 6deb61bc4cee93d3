"""The live view: what it shows, that it gives the terminal back, and plain lines where there is none."""

from __future__ import annotations

import doctest
import io
import json
import re
import signal
import subprocess
import sys

import pytest
from recorded_run import Fails, loaded, require_same_weights, tiny_config, trained
from rich.console import Console
from tiny_run import Signal

import spiral.plugins.live as live
from spiral.errors import ArgumentError
from spiral.plugins.live import Live
from spiral.train import Interrupted

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def terminal(width: int = 100) -> tuple[io.StringIO, Console]:
    text = io.StringIO()
    return text, Console(file=text, force_terminal=True, width=width, _environ={"TERM": "xterm-256color"})


def last_panel(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text[text.rindex("╭") :])


def test_examples_hold():
    assert doctest.testmod(live).failed == 0


def test_a_terminal_shows_the_run_in_place(tmp_path):
    text, console = terminal()
    with loaded("live") as make:
        trainer = trained(tiny_config(tmp_path, run={"eval_every": 4}), callbacks=(make(0, console),)).trainer
    shown = last_panel(text.getvalue())
    assert "step 12 / 12" in shown and "left          0 s" in shown
    assert f"{trainer.last_evaluation.bits_per_byte:.4f} bits per byte at step 12" in shown
    assert re.search(r"loss +\d\.\d{4}  [▁▂▃▄▅▆▇█]{12} ", shown) and re.search(r"steps/s, [\d,]+ tokens/s", shown)
    assert text.getvalue().count("╭") >= 13 and "\x1b[1A" in text.getvalue()


def ends(text: str) -> bool:
    """Whether the terminal is as before: the cursor is shown, below everything."""
    return text.count(HIDE) == text.count(SHOW) == 1 and text.rindex(SHOW) > text.rindex("╯")


def test_the_terminal_is_given_back_at_the_end_after_an_error_and_after_a_signal(tmp_path):
    for callbacks, raised in (
        ((), None),
        ((Fails(3),), RuntimeError),
        ((Signal(3, signal.SIGINT),), Interrupted),
        ((Signal(3, signal.SIGINT, 2),), KeyboardInterrupt),
    ):
        folder = tmp_path / (raised.__name__ if raised else "end")
        folder.mkdir()
        text, console = terminal()
        streams = sys.stdout, sys.stderr
        if raised is None:
            trained(tiny_config(folder), callbacks=(Live(console=console),))
        else:
            with pytest.raises(raised):
                trained(tiny_config(folder), callbacks=(Live(console=console), *callbacks))
        assert ends(text.getvalue()) and (sys.stdout, sys.stderr) == streams


def test_a_resumed_run_shows_the_whole_curve(tmp_path):
    config = tiny_config(tmp_path)
    with pytest.raises(RuntimeError):
        trained(config, callbacks=(Fails(8),))
    text, console = terminal()
    trained(config, resume=True, callbacks=(Live(console=console),))
    assert re.search(r"loss +\d\.\d{4}  [▁▂▃▄▅▆▇█]{12} ", last_panel(text.getvalue()))


@pytest.mark.parametrize("options", [{"force_terminal": False}, {"force_terminal": True, "_environ": {"TERM": "dumb"}}])
def test_elsewhere_there_are_plain_lines(tmp_path, options):
    text = io.StringIO()
    config = tiny_config(tmp_path, run={"eval_every": 6, "log_every": 5, "out": str(tmp_path / "a[red]b")})
    trained(config, callbacks=(Live(console=Console(file=text, **options)),))
    lines = text.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["5", "6", "10", "12", "12"]
    assert "\x1b" not in text.getvalue() and "held-out" in lines[1] and "the best so far" in lines[1]
    assert lines[0].startswith("step      5  loss ") and "tokens/s" in lines[0]


def test_a_folders_name_is_no_markup(tmp_path):
    text, console = terminal()
    config = tiny_config(tmp_path, run={"out": str(tmp_path / "a[red]b[/nothing]")})
    trained(config, callbacks=(Live(console=console),))
    assert "nothing]" in last_panel(text.getvalue())


def test_a_narrow_terminal_is_no_error(tmp_path):
    text, console = terminal(width=12)
    trained(tiny_config(tmp_path), callbacks=(Live(console=console),))
    assert ends(text.getvalue())


def test_it_draws_no_more_often_than_asked_for(tmp_path):
    text, console = terminal()
    trained(tiny_config(tmp_path), callbacks=(Live(1e6, console),))
    assert text.getvalue().count("╭") <= 5


def test_the_command_shows_it_instead_of_its_own_progress(tmp_path):
    config = tiny_config(tmp_path, run={"steps": 4, "callbacks": ["live"]})
    path = tmp_path / "train.yaml"
    path.write_text(json.dumps(config.to_dict()))
    code = (
        "import sys\nfrom spiral.cli.main import main\nfrom spiral.plugin import init_plugin_system\n"
        "init_plugin_system()\nsys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, "train", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step      4  loss") == 1 and "saved" not in done.stdout


@pytest.mark.parametrize("seconds", [-1, float("nan"), "1", True])
def test_seconds_are_checked(seconds):
    with pytest.raises(ArgumentError, match="live: seconds must be a number of at least 0; received"):
        Live(seconds)


def test_weights_are_the_same_bits(tmp_path):
    require_same_weights(tmp_path, lambda: Live(0, terminal()[1]))
