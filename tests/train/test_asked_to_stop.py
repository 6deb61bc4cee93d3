"""Ctrl-C and kill: the first lets the step finish and saves, the second ends the process at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny_run import Signal, files_of_last_checkpoint, trained

from spiral.cli.main import main
from spiral.train import Interrupted, TrainConfig, prepare
from spiral.train.checkpoint import list_checkpoints
from spiral.train.signals import stop_requested

ASKING = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@pytest.mark.parametrize("number", ASKING)
def test_first_signal_finishes_the_step_saves_and_resumes_to_the_same_bits(
    config: TrainConfig, tmp_path: Path, number: int
) -> None:
    whole = config.updated({"run": {"out": str(tmp_path / "whole")}})
    trained(whole)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="interrupted after step 7; saved") as stopped:
        trained(config, callbacks=(Signal(7, number),))
    assert stopped.value.signal == number and stopped.value.path.name == "step-00000007"
    assert signal.getsignal(number) is before
    trained(config, resume=True)
    assert files_of_last_checkpoint(config) == files_of_last_checkpoint(whole)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_second_signal_ends_at_once_and_leaves_the_older_checkpoint(
    config: TrainConfig, number: int, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        trained(config, callbacks=(Signal(7, number, times=2),))
    folder = Path(config.run.out) / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["step-00000005"]


def test_signal_in_the_last_step_lets_the_run_finish(config: TrainConfig) -> None:
    assert trained(config, callbacks=(Signal(12, signal.SIGINT),)).trainer.step == 12


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what nohup does with SIGHUP
    try:
        with stop_requested() as request:
            os.kill(os.getpid(), signal.SIGTERM)
        assert not request
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_train_without_signals(config: TrainConfig) -> None:
    steps = []
    thread = threading.Thread(target=lambda: steps.append(trained(config).trainer.step))
    thread.start()
    thread.join(60)
    assert steps == [12]


@pytest.mark.parametrize(("number", "times", "status"), [(signal.SIGTERM, 1, 143), (signal.SIGINT, 2, 130)])
def test_command_exits_with_128_plus_the_signal_and_one_line(
    config: TrainConfig, number: int, times: int, status: int
) -> None:
    script = (
        "import json, os, sys\n"
        "from spiral.cli import main, progress\n"
        "shown = progress.TerminalProgress.on_step\n"
        "def on_step(self, trainer, record):\n"
        "    shown(self, trainer, record)\n"
        f"    if record.step == 7: [os.kill(os.getpid(), {int(number)}) for _ in range({times})]\n"
        "progress.TerminalProgress.on_step = on_step\n"
        "sys.exit(main.main(['train', *json.loads(sys.argv[1])]))\n"
    )
    settings = [f"{s}.{k}={v}" for s, values in config.to_dict().items() for k, v in values.items()]
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(settings)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == status and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    expected = f"go on with: spiral train --resume {config.run.out}" if times == 1 else "spiral train: interrupted"
    assert expected in done.stderr
    newest = list_checkpoints(Path(config.run.out) / "checkpoints")[-1].name
    assert newest == ("step-00000007" if times == 1 else "step-00000005")
    assert main(["train", "--resume", config.run.out]) == 0
    assert prepare(config, resume=True).trainer.step == 12
