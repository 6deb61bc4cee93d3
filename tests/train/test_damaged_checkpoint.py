"""A damaged checkpoint is named, and the one before it is taken; nothing damaged is trained on."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import pytest
from tiny_run import files_of_last_checkpoint, trained

from spiral.cli.main import main
from spiral.errors import DataError, FormatError
from spiral.train import TrainConfig, prepare
from spiral.train.checkpoint import list_checkpoints, load_checkpoint


def checkpoints(config: TrainConfig) -> list[Path]:
    return list_checkpoints(Path(config.run.out) / "checkpoints")


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "missing"])
def test_resume_goes_back_to_the_one_before_and_ends_with_the_same_bits(
    config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    whole = config.updated({"run": {"out": str(tmp_path / "whole")}})
    trained(whole)
    trained(config)
    file = checkpoints(config)[-1] / name
    if damage == "flipped":
        flip(file, file.stat().st_size - 3)
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 if damage == "truncated" else 0])
    with caplog.at_level(logging.WARNING, "spiral.train"):
        resumed = prepare(config, resume=True)
    assert resumed.trainer.step == 10
    assert str(file) in caplog.text and "Going back to step-00000010" in caplog.text
    resumed.trainer.fit()
    assert files_of_last_checkpoint(config) == files_of_last_checkpoint(whole)


def test_command_says_which_file_and_goes_on(config: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    trained(config)
    (checkpoints(config)[-1] / "state.json").write_text("{}")
    assert main(["train", "--resume", config.run.out]) == 0
    error = capsys.readouterr().err
    assert error.startswith("spiral train: warning: load_checkpoint:") and "state.json" in error
    for path in checkpoints(config):
        (path / "model.safetensors").write_bytes(b"")
    assert main(["train", "--resume", config.run.out]) == 2
    error = capsys.readouterr().err
    assert "checkpoints are damaged; the newest" in error and error.count("\n") == 1


def test_every_flipped_bit_is_found(config: TrainConfig) -> None:
    trained(config)
    newest = checkpoints(config)[-1]
    draw = random.Random(0)
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        for _ in range(60):
            at = draw.randrange((newest / name).stat().st_size)
            flip(newest / name, at)
            if name == "state.json":
                try:
                    same = json.loads((newest / name).read_text())
                except ValueError:
                    same = None
            flip(newest / name, at)
            if name == "state.json" and same == json.loads((newest / name).read_text()):
                continue  # a space for another: nothing is damaged
            flip(newest / name, at)
            with pytest.raises(FormatError, match="step-00000012"):
                load_checkpoint(newest)
            flip(newest / name, at)
    assert load_checkpoint(newest).step == 12


def test_another_version_is_said_at_resuming(config: TrainConfig, caplog: pytest.LogCaptureFixture) -> None:
    import spiral.train.checkpoint as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "versions", lambda: {"spiral": "0.0.1", "kernels": "other"})
        trained(config)
    with caplog.at_level(logging.WARNING, "spiral.train"):
        prepare(config, resume=True)
    assert "written with spiral 0.0.1, now" in caplog.text and "kernels other, now" in caplog.text


def test_checkpoint_of_another_format_and_an_empty_folder_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    trained(config)
    newest = checkpoints(config)[-1]
    (newest / "state.json").write_text('{"format": 99}')
    with pytest.raises(FormatError, match="expected format 2; received 99; read it with the version"):
        load_checkpoint(newest)
    for content in ("[]", "null", "[" * 100_000, "\xff"):
        (newest / "state.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(FormatError, match=r"state\.json"):
            load_checkpoint(newest)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "empty")
