"""A disk that fills up anywhere in a run: status 2, one line, nothing half-written, older checkpoints intact.

Real shortage: a small tmpfs where the test may mount one, and a limit on the size of files everywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_run import TEXT, files_of_last_checkpoint, tiny_config, trained

from spiral.cli.main import main
from spiral.errors import SaveError
from spiral.io import load_safetensors
from spiral.models import load_llama
from spiral.text import Tokenizer
from spiral.train import TrainConfig
from spiral.train.checkpoint import list_checkpoints, load_checkpoint
from spiral.train.metrics import MetricsFile

DISK = 1536  # KiB; the run's folder needs about 700


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with DISK KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"may not mount a tmpfs: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def settings(config: TrainConfig) -> list[str]:
    return [f"{s}.{k}={v}" for s, values in config.to_dict().items() for k, v in values.items()]


def require_nothing_half_written(run: Path) -> None:
    """Every file that stands in the run's folder is whole."""
    assert not list(run.rglob("*.partial")) and not list(run.rglob(".*"))
    for checkpoint in list_checkpoints(run / "checkpoints"):
        load_checkpoint(checkpoint)
    for path in run.glob("*.safetensors"):
        load_safetensors(path)
    for path in run.glob("*.json"):
        json.loads(path.read_text())
    if (run / "tokenizer.json").exists():
        Tokenizer.load(run)
    if (run / "metrics.jsonl").exists():
        lines = (run / "metrics.jsonl").read_text().splitlines()
        assert len(list(MetricsFile(run / "metrics.jsonl").read())) == len(lines)
    if (run / "loss.png").exists():
        assert (run / "loss.png").read_bytes().endswith(b"IEND\xaeB`\x82")
    if (run / "card.md").exists():
        assert (run / "card.md").read_text().endswith("```\n")


@pytest.mark.parametrize("free", [0, 4, 24, 40, 120, 200, 280, 340])
def test_training_on_a_disk_that_fills_up(
    disk: Path, tmp_path: Path, free: int, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path, run={"out": str(disk / "run")})
    (disk / "ballast").write_bytes(bytes((DISK - free) * 1024))
    status = main(["train", *settings(config)])
    error = capsys.readouterr().err
    run = disk / "run"
    assert status == 2 and error.count("\n") == 1 and "Traceback" not in error, error
    assert "No space left on device" in error or "bytes free" in error
    require_nothing_half_written(run)
    (disk / "ballast").unlink()
    again = ["--resume", str(run)] if list_checkpoints(run / "checkpoints") else settings(config)
    assert main(["train", *again]) == 0
    require_nothing_half_written(run)
    whole = config.updated({"run": {"out": str(tmp_path / "whole")}})
    trained(whole)
    assert files_of_last_checkpoint(config) == files_of_last_checkpoint(whole)


@pytest.mark.parametrize("free", [4, 16, 30])
def test_export_leaves_the_older_file(
    disk: Path, tmp_path: Path, free: int, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path)
    assert main(["train", *settings(config)]) == 0
    out = disk / "m.gguf"
    assert main(["export", config.run.out, "--type", "q8_0", "--out", str(out)]) == 0
    before = out.read_bytes()
    (disk / "ballast").write_bytes(bytes((DISK - free) * 1024 - len(before)))
    capsys.readouterr()
    assert main(["export", config.run.out, "--type", "f32", "--out", str(out)]) == 2
    assert "the previous file is intact" in capsys.readouterr().err
    assert out.read_bytes() == before and sorted(path.name for path in disk.iterdir()) == ["ballast", "m.gguf"]
    load_llama(out)


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX")
@pytest.mark.parametrize("limit", [0, 200, 3000, 16_000, 30_000])
def test_training_under_a_limit_on_the_size_of_files(config: TrainConfig, limit: int) -> None:
    import resource

    read, write = os.pipe()  # a file would be limited too
    child = os.fork()
    if child == 0:
        try:
            os.dup2(write, 2)
            sys.stderr = os.fdopen(2, "w", buffering=1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            os._exit(main(["train", *settings(config)]))
        finally:
            os._exit(77)
    os.close(write)
    with os.fdopen(read) as pipe:
        error = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert error.startswith("spiral train: ") and error.count("\n") == 1 and "File too large" in error
    if Path(config.run.out).exists():
        require_nothing_half_written(Path(config.run.out))


def test_read_only_folder_is_said_at_once(disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    config = tiny_config(tmp_path, run={"out": str(disk / "run")})
    assert main(["train", *settings(config)]) == 2
    error = capsys.readouterr().err
    assert "Read-only file system" in error and "run.out" in error and error.count("\n") == 1
    tokenizer = Tokenizer.train(TEXT, 270)
    with pytest.raises(SaveError, match="Read-only file system"):
        tokenizer.save(disk / "tokenizer.json")


def test_metrics_of_a_full_disk_end_with_a_whole_line(disk: Path) -> None:
    metrics = MetricsFile(disk / "metrics.jsonl")
    (disk / "ballast").write_bytes(bytes((DISK - 8) * 1024))
    with pytest.raises(SaveError, match=r"metrics\.jsonl: cannot be written: No space left"):
        for step in range(1000):
            metrics.add("step", {"step": step, "text": "x" * 100})
    lines = metrics.path.read_text().splitlines()
    assert len(lines) > 10 and [json.loads(line)["step"] for line in lines] == list(range(len(lines)))
