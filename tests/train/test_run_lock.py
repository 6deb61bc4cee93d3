"""One process per run folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import trained

from spiral.cli.main import main
from spiral.errors import DataError, SaveError
from spiral.train import TrainConfig, prepare
from spiral.train.lock import LOCK, run_lock

HOLD = (
    "import sys\n"
    "from spiral.train.lock import run_lock\n"
    "with run_lock(sys.argv[1]):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.readline()\n"
)


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_second_process_is_refused_until_the_first_has_ended(
    config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(config.run.out)
    first = holder(folder)
    try:
        before = sorted(folder.iterdir())
        with pytest.raises(DataError, match=rf"another process \(process {first.pid}\) is training into this folder"):
            prepare(config)
        assert main(["train", "--data", str(config.data.path), f"run.out={folder}"]) == 2
        assert "another process" in capsys.readouterr().err
        assert sorted(folder.iterdir()) == before
    finally:
        first.kill()  # however it ends, the lock is gone
        first.wait()
    assert trained(config).trainer.step == 12
    assert not (folder / LOCK).exists()


def test_same_process_holds_it_several_times_and_a_forked_child_does_not(tmp_path: Path) -> None:
    with run_lock(tmp_path), run_lock(tmp_path):
        if hasattr(os, "fork"):
            child = os.fork()
            if child == 0:
                try:
                    with run_lock(tmp_path):
                        os._exit(1)
                except DataError:
                    os._exit(0)
                finally:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(tmp_path.iterdir()) == []


def test_who_gets_it_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / ".model.safetensors.123.abcd.partial").write_text("half")
    (tmp_path / "metrics.jsonl").write_text("")
    with run_lock(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", LOCK]


def test_a_folder_made_for_a_run_that_never_began_is_removed(config: TrainConfig) -> None:
    Path(str(config.data.path)).write_text("")
    with pytest.raises(DataError, match="the dataset is empty"):
        prepare(config)
    assert not Path(config.run.out).exists()


def test_a_file_in_the_way_is_a_save_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(SaveError, match="give a run.out that is a folder you may write to"), run_lock(folder):
            pass
